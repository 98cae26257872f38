use serde_json::{Value, json};

use super::ServerGroups;
use crate::api::compute::ComputeOptions;
use crate::api::compute::limits::LimitsResource;
use crate::api::compute::test_support::{ADMIN, Bench, Caller, DEMO, OTHER, keys};

fn old(name: &str, policy: &str) -> Value {
    json!({"server_group": {"name": name, "policies": [policy]}})
}

async fn made(bench: &Bench, caller: Caller, name: &str) -> String {
    let (status, answer) = bench.call(caller, 1, "POST /os-server-groups", old(name, "anti-affinity")).await;
    assert_eq!(status, 200, "{answer}");
    answer["server_group"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_version_has_its_keys() {
    let bench = Bench::new(ServerGroups::new);
    let rules =
        json!({"server_group": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": "3"}}});
    let (status, made) = bench.call(DEMO, 64, "POST /os-server-groups", rules).await;
    assert_eq!(status, 200, "{made}");
    let group = &made["server_group"];
    assert_eq!(keys(group), ["id", "members", "name", "policy", "project_id", "rules", "user_id"]);
    assert_eq!(
        (group["policy"].clone(), group["rules"].clone()),
        (json!("anti-affinity"), json!({"max_server_per_host": 3}))
    );
    assert_eq!((group["project_id"].clone(), group["user_id"].clone()), (json!("p-demo"), json!("u-demo")));
    let path = format!("/os-server-groups/{}", group["id"].as_str().unwrap());
    let shown = async |minor| bench.get(DEMO, minor, &path).await["server_group"].clone();
    assert_eq!(keys(&shown(12).await), ["id", "members", "metadata", "name", "policies"]);
    let at_63 = shown(63).await;
    assert_eq!(keys(&at_63), ["id", "members", "metadata", "name", "policies", "project_id", "user_id"]);
    assert_eq!((at_63["policies"].clone(), at_63["metadata"].clone()), (json!(["anti-affinity"]), json!({})));
    let (_, plain) = bench.call(DEMO, 1, "POST /os-server-groups", old("g", "affinity")).await;
    let plain = format!("/os-server-groups/{}", plain["server_group"]["id"].as_str().unwrap());
    assert_eq!(bench.get(DEMO, 64, &plain).await["server_group"]["rules"], json!({}));
    assert_eq!(bench.call(DEMO, 64, &format!("DELETE {path}"), Value::Null).await, (204, Value::Null));
    let id = path.rsplit('/').next().unwrap();
    let text = format!("Instance group {id} could not be found.");
    for verb in ["GET", "DELETE"] {
        assert_eq!(bench.refused(DEMO, 64, &format!("{verb} {path}"), Value::Null).await, (404, text.clone()));
    }
}

#[tokio::test]
async fn groups_are_of_their_project() {
    let bench = Bench::new(ServerGroups::new);
    let (one, two, three) =
        (made(&bench, DEMO, "1").await, made(&bench, DEMO, "2").await, made(&bench, OTHER, "3").await);
    let list = async |caller, query: &str| {
        let groups = bench.get(caller, 64, &format!("/os-server-groups{query}")).await["server_groups"].clone();
        groups.as_array().unwrap().iter().map(|g| g["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(DEMO, "").await, [one.clone(), two.clone()]);
    assert_eq!(list(DEMO, "?all_projects=1").await, [one.clone(), two.clone()], "as in Nova, others get their own");
    assert_eq!(list(ADMIN, "").await, Vec::<String>::new());
    assert_eq!(list(ADMIN, "?all_projects").await, [one.clone(), two.clone(), three.clone()]);
    assert_eq!(list(ADMIN, "?all_projects=True&limit=1&offset=1").await, [two.as_str()]);
    assert_eq!(list(DEMO, "?limit=0").await.len(), 2);
    assert_eq!(list(DEMO, "?offset=2").await.len(), 0);
    for bad in ["?limit=-1", "?limit=x", "?offset=-1", "?offset=x"] {
        assert_eq!(bench.refused(DEMO, 1, &format!("GET /os-server-groups{bad}"), Value::Null).await.0, 400, "{bad}");
    }
    assert_eq!(bench.refused(DEMO, 75, "GET /os-server-groups?x=1", Value::Null).await.0, 400);
    bench.get(DEMO, 74, "/os-server-groups?x=1").await;
    for verb in ["GET", "DELETE"] {
        assert_eq!(bench.refused(DEMO, 1, &format!("{verb} /os-server-groups/{three}"), Value::Null).await.0, 403);
    }
    assert_eq!(
        bench.refused(DEMO, 1, "GET /os-server-groups/web", Value::Null).await.1,
        "Instance group web could not be found."
    );
    bench.get(ADMIN, 1, &format!("/os-server-groups/{three}")).await;
}

#[tokio::test]
async fn bodies_are_read_as_each_version_reads_them() {
    let bench = Bench::new(ServerGroups::new);
    let new = |policy: &str| json!({"server_group": {"name": "g", "policy": policy}});
    let ruled = |policy: &str, rules: Value| json!({"server_group": {"name": "g", "policy": policy, "rules": rules}});
    let max = |n: Value| json!({"max_server_per_host": n});
    let good = [
        (1, old("g", "affinity")),
        (15, old("g", "soft-affinity")),
        (63, old("g", "soft-anti-affinity")),
        (64, new("soft-affinity")),
        (64, ruled("affinity", json!({}))),
        (104, ruled("anti-affinity", max(json!(1)))),
    ];
    for (minor, body) in good {
        let (status, answer) = bench.call(DEMO, minor, "POST /os-server-groups", body.clone()).await;
        assert_eq!(status, 200, "{minor} {body} {answer}");
    }
    let named = |name: Value| json!({"server_group": {"name": name, "policies": ["affinity"]}});
    let bad = [
        (1, old("g", "soft-affinity"), "'soft-affinity' is not one of ['anti-affinity', 'affinity']"),
        (14, old("g", "soft-anti-affinity"), "is not one of"),
        (15, old("g", "legacy"), "is not one of ['anti-affinity', 'affinity', 'soft-anti-affinity', 'soft-affinity']"),
        (1, json!({"server_group": {"name": "g", "policies": []}}), "too short"),
        (1, json!({"server_group": {"name": "g", "policies": ["affinity", "anti-affinity"]}}), "Additional items"),
        (1, json!({"server_group": {"name": "g", "policies": "affinity"}}), "is not of type 'array'"),
        (1, json!({"server_group": {"name": "g"}}), "'policies' is a required property"),
        (63, new("affinity"), "'policies' is a required property"),
        (64, old("g", "affinity"), "'policy' is a required property"),
        (64, ruled("affinity", max(json!(2))), "Only anti-affinity policy supports rules."),
        (64, ruled("anti-affinity", max(json!(0))), "is less than the minimum of 1"),
        (64, ruled("anti-affinity", json!({"x": 1})), "('x' was unexpected)"),
        (1, named(json!("")), "too short"),
        (1, named(json!("x".repeat(256))), "too long"),
        (1, named(json!(null)), "is not of type 'string'"),
        (
            1,
            json!({"server_group": {"name": "g", "policies": ["affinity"], "metadata": {}}}),
            "('metadata' was unexpected)",
        ),
    ];
    for (minor, body, text) in bad {
        let (status, answer) = bench.refused(DEMO, minor, "POST /os-server-groups", body.clone()).await;
        assert!(status == 400 && answer.contains(text), "{minor} {body}: {status} {answer}");
    }
}

#[tokio::test]
async fn the_quota_holds_and_limits_show_it() {
    let options = ComputeOptions { server_groups: Some(2), ..ComputeOptions::default() };
    let bench = Bench::with_options(options, ServerGroups::new).add(LimitsResource::new);
    made(&bench, DEMO, "1").await;
    let second = made(&bench, DEMO, "2").await;
    let used = async || bench.get(DEMO, 1, "/limits").await["limits"]["absolute"]["totalServerGroupsUsed"].clone();
    assert_eq!(used().await, 2);
    let refused = bench.refused(DEMO, 1, "POST /os-server-groups", old("3", "affinity")).await;
    assert_eq!(refused, (403, "Quota exceeded, too many server groups.".to_owned()));
    made(&bench, OTHER, "3").await;
    bench.call(DEMO, 1, &format!("DELETE /os-server-groups/{second}"), Value::Null).await;
    assert_eq!(used().await, 1);
    made(&bench, DEMO, "3").await;
}
