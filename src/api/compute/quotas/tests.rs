//! Quota sets and quota class sets.

use nova_core::ids::ProjectId;
use serde_json::{Value, json};

use super::{QuotaClassSets, QuotaSets};
use crate::api::compute::keypairs::Keypairs;
use crate::api::compute::server_groups::ServerGroups;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, READER, keys};

const URL: &str = "/os-quota-sets/p-demo";

fn bench() -> Bench {
    Bench::new(QuotaSets::new).add(QuotaClassSets::new).add(Keypairs::new).add(ServerGroups::new)
}

async fn put(bench: &Bench, query: &str, body: Value) -> (u16, Value) {
    bench.call(ADMIN, 1, &format!("PUT {URL}{query}"), json!({ "quota_set": body })).await
}

async fn set(bench: &Bench, query: &str) -> Value {
    bench.get(ADMIN, 1, &format!("{URL}{query}")).await["quota_set"].clone()
}

#[tokio::test]
async fn each_version_shows_its_resources() {
    let bench = bench();
    let first = [
        "cores",
        "fixed_ips",
        "floating_ips",
        "id",
        "injected_file_content_bytes",
        "injected_file_path_bytes",
        "injected_files",
        "instances",
        "key_pairs",
        "metadata_items",
        "ram",
        "security_group_rules",
        "security_groups",
        "server_group_members",
        "server_groups",
    ];
    let no_network = [
        "cores",
        "id",
        "injected_file_content_bytes",
        "injected_file_path_bytes",
        "injected_files",
        "instances",
        "key_pairs",
        "metadata_items",
        "ram",
        "server_group_members",
        "server_groups",
    ];
    let last =
        ["cores", "id", "instances", "key_pairs", "metadata_items", "ram", "server_group_members", "server_groups"];
    for (minor, wanted) in
        [(1, &first[..]), (35, &first), (36, &no_network), (56, &no_network), (57, &last), (104, &last)]
    {
        for path in ["", "/defaults", "/detail"] {
            let shown = bench.get(DEMO, minor, &format!("{URL}{path}")).await["quota_set"].clone();
            assert_eq!(keys(&shown), wanted, "{path} at 2.{minor}");
            assert_eq!(shown["id"], "p-demo");
        }
        let body = json!({"quota_set": {"cores": 21}});
        let (_, answer) = bench.call(ADMIN, minor, &format!("PUT {URL}"), body).await;
        let without_id: Vec<_> = wanted.iter().copied().filter(|key| *key != "id").collect();
        assert_eq!(keys(&answer["quota_set"]), without_id, "PUT at 2.{minor}");
    }
    let detail = bench.get(DEMO, 1, &format!("{URL}/detail")).await["quota_set"].clone();
    assert_eq!(detail["ram"], json!({"limit": 51200, "in_use": 0, "reserved": 0}));
    assert_eq!(detail["floating_ips"], json!({"limit": -1, "in_use": 0, "reserved": 0}));
}

#[tokio::test]
async fn the_last_of_class_project_and_user_counts() {
    let bench = bench();
    let class = json!({"quota_class_set": {"cores": 30, "ram": -1}});
    bench.call(ADMIN, 1, "PUT /os-quota-class-sets/default", class).await;
    assert_eq!((&set(&bench, "").await["cores"], &set(&bench, "").await["ram"]), (&json!(30), &json!(-1)));
    assert_eq!(set(&bench, "/defaults").await["cores"], 30);
    put(&bench, "", json!({"cores": 40})).await;
    assert_eq!(set(&bench, "").await["cores"], 40);
    let (_, answer) = put(&bench, "?user_id=u-demo", json!({"cores": "35"})).await;
    assert_eq!(answer["quota_set"]["cores"], 35);
    assert_eq!(set(&bench, "?user_id=u-demo").await["cores"], 35);
    assert_eq!(set(&bench, "?user_id=u-other").await["cores"], 40);
    assert_eq!(set(&bench, "").await["cores"], 40);
    let delete = async |query: &str| bench.call(ADMIN, 1, &format!("DELETE {URL}{query}"), Value::Null).await;
    assert_eq!(delete("?user_id=u-demo").await, (202, Value::Null));
    assert_eq!(set(&bench, "?user_id=u-demo").await["cores"], 40);
    put(&bench, "?user_id=u-demo", json!({"cores": 1})).await;
    // With the project's, its users' go.
    assert_eq!(delete("").await.0, 202);
    assert_eq!(set(&bench, "?user_id=u-demo").await["cores"], 30);
}

#[tokio::test]
async fn limits_leave_room_for_what_is_taken() {
    let bench = bench();
    bench.instance(DEMO, None).await;
    bench.instance(DEMO, None).await;
    let detail = bench.get(DEMO, 104, &format!("{URL}/detail")).await["quota_set"].clone();
    assert_eq!(detail["cores"], json!({"limit": 20, "in_use": 4, "reserved": 0}));
    let refused = async |query: &str, body: Value| {
        bench.refused(ADMIN, 1, &format!("PUT {URL}{query}"), json!({ "quota_set": body })).await
    };
    let text = "Quota limit 3 for cores must be greater than or equal to already used and reserved 4.";
    assert_eq!(refused("", json!({"cores": 3, "ram": 99999})).await, (400, text.to_owned()));
    assert_eq!(set(&bench, "").await["ram"], 51200);
    assert_eq!(put(&bench, "", json!({"cores": 3, "force": true})).await.0, 200);
    assert_eq!(put(&bench, "", json!({"cores": 10})).await.0, 200);
    let text = "Quota limit 11 for cores must be less than or equal to 10.";
    assert_eq!(refused("?user_id=u", json!({"cores": 11})).await, (400, text.to_owned()));
    assert_eq!(refused("?user_id=u", json!({"cores": -1})).await.0, 400);
    assert_eq!(refused("?user_id=u-demo", json!({"cores": 3})).await.0, 400);
    assert_eq!(put(&bench, "?user_id=u", json!({"cores": 8})).await.0, 200);
    // And for what was given to users.
    assert_eq!(refused("", json!({"cores": 7})).await.0, 400);
    let used = bench.get(DEMO, 104, &format!("{URL}/detail?user_id=u-demo")).await["quota_set"]["instances"].clone();
    assert_eq!(used["in_use"], 2);
    let used = bench.get(DEMO, 104, &format!("{URL}/detail?user_id=u")).await["quota_set"]["instances"].clone();
    assert_eq!(used["in_use"], 0);
}

#[tokio::test]
async fn bodies_queries_and_callers_are_checked() {
    let bench = bench();
    let over = json!(2_147_483_648_u64);
    for body in [
        json!({"cores": -2}),
        json!({"cores": "x"}),
        json!({"cores": over}),
        json!({"cores": 1.5}),
        json!({"x": 1}),
        json!({"cores": null}),
        json!({"force": "perhaps"}),
    ] {
        let answer = bench.refused(ADMIN, 1, &format!("PUT {URL}"), json!({ "quota_set": body })).await;
        assert_eq!(answer.0, 400, "{body}");
    }
    for (minor, key) in [(36, "floating_ips"), (57, "injected_files")] {
        let body = json!({"quota_set": {key: 1}});
        assert_eq!(bench.call(ADMIN, minor - 1, &format!("PUT {URL}"), body.clone()).await.0, 200);
        assert_eq!(bench.refused(ADMIN, minor, &format!("PUT {URL}"), body).await.0, 400);
    }
    assert_eq!(bench.refused(ADMIN, 1, &format!("PUT {URL}"), json!({})).await.0, 400);
    assert_eq!(bench.refused(ADMIN, 75, &format!("GET {URL}?x=1"), Value::Null).await.0, 400);
    assert_eq!(bench.refused(ADMIN, 75, &format!("GET {URL}?user_id=a&user_id=b"), Value::Null).await.0, 400);
    bench.get(ADMIN, 74, &format!("{URL}?x=1")).await;
    bench.get(READER, 1, URL).await;
    assert_eq!(bench.refused(OTHER, 1, &format!("GET {URL}"), Value::Null).await.0, 403);
    bench.get(OTHER, 1, &format!("{URL}/defaults")).await;
    assert_eq!(bench.refused(DEMO, 1, &format!("PUT {URL}"), json!({"quota_set": {}})).await.0, 403);
    assert_eq!(bench.refused(DEMO, 1, &format!("DELETE {URL}"), Value::Null).await.0, 403);
}

#[tokio::test]
async fn classes_have_their_own_versions() {
    let bench = bench();
    let url = "/os-quota-class-sets/default";
    let shown = async |minor| bench.get(ADMIN, minor, url).await["quota_class_set"].clone();
    let first = shown(1).await;
    assert!(first.get("server_groups").is_none() && first["floating_ips"] == -1 && first["id"] == "default");
    assert_eq!(first.as_object().unwrap().len(), 13);
    assert_eq!(shown(50).await.as_object().unwrap().len(), 11);
    let last =
        ["cores", "id", "instances", "key_pairs", "metadata_items", "ram", "server_group_members", "server_groups"];
    assert_eq!(keys(&shown(57).await), last);
    let body = json!({"quota_class_set": {"server_groups": 3}});
    assert_eq!(bench.refused(ADMIN, 49, &format!("PUT {url}"), body.clone()).await.0, 400);
    let (status, answer) = bench.call(ADMIN, 50, &format!("PUT {url}"), body).await;
    assert_eq!((status, &answer["quota_class_set"]["server_groups"]), (200, &json!(3)));
    assert!(answer["quota_class_set"].get("id").is_none());
    assert_eq!(bench.refused(DEMO, 1, &format!("GET {url}"), Value::Null).await.0, 403);
    // Another class is kept, and has no effect.
    let body = json!({"quota_class_set": {"cores": 1}});
    bench.call(ADMIN, 1, "PUT /os-quota-class-sets/gold", body).await;
    assert_eq!(bench.get(ADMIN, 1, "/os-quota-class-sets/gold").await["quota_class_set"]["cores"], 1);
    assert_eq!(set(&bench, "").await["cores"], 20);
}

#[tokio::test]
async fn key_pairs_and_groups_keep_to_what_was_set() {
    let bench = bench();
    put(&bench, "", json!({"key_pairs": 0, "server_groups": 2})).await;
    let key = json!({"keypair": {"name": "k"}});
    let refused = bench.refused(DEMO, 1, "POST /os-keypairs", key.clone()).await;
    assert_eq!(refused, (403, "Quota exceeded, too many key pairs.".to_owned()));
    put(&bench, "?user_id=u-demo", json!({"key_pairs": 0, "server_groups": 1, "force": true})).await;
    let group = json!({"server_group": {"name": "g", "policies": ["affinity"]}});
    assert_eq!(bench.call(DEMO, 1, "POST /os-server-groups", group.clone()).await.0, 200);
    assert_eq!(bench.refused(DEMO, 1, "POST /os-server-groups", group.clone()).await.0, 403);
    let other = ProjectId::new("p-demo");
    assert_eq!(bench.api.store.count_server_groups(&other).await.unwrap(), 1);
    put(&bench, "", json!({"key_pairs": -1})).await;
    bench.call(ADMIN, 1, &format!("DELETE {URL}?user_id=u-demo"), Value::Null).await;
    assert_eq!(bench.call(DEMO, 1, "POST /os-keypairs", key).await.0, 200);
    assert_eq!(bench.call(DEMO, 1, "POST /os-server-groups", group.clone()).await.0, 200);
    assert_eq!(bench.refused(DEMO, 1, "POST /os-server-groups", group).await.0, 403);
}
