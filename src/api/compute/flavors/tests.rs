//! Flavors at the versions around each change, and what must not pass.

use serde_json::{Value, json};

use super::Flavors;
use crate::api::compute::flavor_access::FlavorAccess;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, keys};

async fn bench() -> Bench {
    Bench::new(Flavors::new).add(FlavorAccess::new)
}

async fn make(bench: &Bench, minor: u16, flavor: Value) -> Value {
    let (status, body) = bench.call(ADMIN, minor, "POST /flavors", json!({ "flavor": flavor })).await;
    assert_eq!(status, 200, "{body}");
    body["flavor"].clone()
}

fn small(id: &str) -> Value {
    json!({"name": format!("m1.{id}"), "id": id, "ram": 512, "vcpus": 1, "disk": 1})
}

#[tokio::test]
async fn a_flavor_has_the_keys_of_its_version() {
    let bench = bench().await;
    make(&bench, 1, small("1")).await;
    let base = json!({
        "id": "1", "name": "m1.1", "ram": 512, "vcpus": 1, "disk": 1, "swap": "",
        "OS-FLV-EXT-DATA:ephemeral": 0, "os-flavor-access:is_public": true,
        "OS-FLV-DISABLED:disabled": false, "rxtx_factor": 1.0,
        "links": [
            {"rel": "self", "href": "http://h:8774/compute/v2.1/flavors/1"},
            {"rel": "bookmark", "href": "http://h:8774/compute/flavors/1"},
        ],
    });
    assert_eq!(bench.get(DEMO, 1, "/flavors/1").await, json!({ "flavor": base }));
    assert_eq!(bench.get(DEMO, 54, "/flavors/1").await, json!({ "flavor": base }));
    let mut later = base;
    later["description"] = Value::Null;
    assert_eq!(bench.get(DEMO, 55, "/flavors/1").await["flavor"], later);
    assert_eq!(bench.get(DEMO, 60, "/flavors/1").await["flavor"], later);
    later["extra_specs"] = json!({});
    assert_eq!(bench.get(DEMO, 61, "/flavors/1").await["flavor"], later);
    later["swap"] = json!(0);
    assert_eq!(bench.get(DEMO, 75, "/flavors/1").await["flavor"], later);
    assert_eq!(bench.get(DEMO, 101, "/flavors/detail").await["flavors"][0], later);
    later.as_object_mut().unwrap().remove("rxtx_factor");
    later.as_object_mut().unwrap().remove("OS-FLV-DISABLED:disabled");
    assert_eq!(bench.get(DEMO, 102, "/flavors/1").await["flavor"], later);
    assert_eq!(keys(&bench.get(DEMO, 54, "/flavors").await["flavors"][0]), ["id", "links", "name"]);
    assert_eq!(keys(&bench.get(DEMO, 55, "/flavors").await["flavors"][0]), ["description", "id", "links", "name"]);
}

#[tokio::test]
async fn ids_are_drawn_where_none_is_given() {
    let bench = bench().await;
    for (n, id) in [Value::Null, json!("auto"), json!("")].into_iter().enumerate() {
        let made =
            make(&bench, 1, json!({"name": format!("f{n}"), "id": id, "ram": "64", "vcpus": 1, "disk": 0})).await;
        assert_eq!(made["id"].as_str().unwrap().len(), 36);
        assert_eq!(made["ram"], 64);
    }
    assert_eq!(make(&bench, 1, json!({"name": "n", "id": 77, "ram": 1, "vcpus": 1, "disk": 0})).await["id"], "77");
    let private =
        json!({"name": "p", "ram": 1, "vcpus": 1, "disk": 0, "os-flavor-access:is_public": "False", "swap": 5});
    let made = make(&bench, 1, private).await;
    assert_eq!((&made["os-flavor-access:is_public"], &made["swap"]), (&json!(false), &json!(5)));
}

#[tokio::test]
async fn wrong_bodies_are_told_apart() {
    let bench = bench().await;
    let good = small("1");
    let with = |key: &str, value: Value| {
        let mut flavor = good.clone();
        flavor[key] = value;
        json!({ "flavor": flavor })
    };
    for body in [
        json!({}),
        json!([]),
        json!({"flavor": good, "other": 1}),
        with("name", json!("")),
        with("name", json!(" x")),
        with("name", json!("x".repeat(256))),
        with("name", json!(1)),
        with("id", json!("a/b")),
        with("id", json!(" a")),
        with("id", json!("x".repeat(256))),
        with("id", json!({})),
        with("ram", json!(0)),
        with("ram", json!("-1")),
        with("ram", json!(1.5)),
        with("ram", json!(2_147_483_648_u64)),
        with("vcpus", json!("a")),
        with("disk", json!(-1)),
        with("swap", Value::Null),
        with("OS-FLV-EXT-DATA:ephemeral", json!(true)),
        with("rxtx_factor", json!(0)),
        with("rxtx_factor", json!("1,5")),
        with("os-flavor-access:is_public", json!("foo")),
        with("foo", json!(1)),
        with("description", json!("too early")),
    ] {
        assert_eq!(bench.refused(ADMIN, 1, "POST /flavors", body.clone()).await.0, 400, "{body}");
    }
    assert_eq!(bench.refused(ADMIN, 102, "POST /flavors", with("rxtx_factor", json!(1.0))).await.0, 400);
    assert_eq!(bench.refused(ADMIN, 55, "POST /flavors", with("description", json!("x".repeat(65_536)))).await.0, 400);
    assert_eq!(bench.refused(DEMO, 1, "POST /flavors", json!({ "flavor": good })).await.0, 403);
    assert_eq!(bench.call_lenient(ADMIN, "POST /flavors", with("foo", json!(1))).await.0, 200);
    assert!(
        bench.get(ADMIN, 1, "/flavors").await["flavors"].as_array().unwrap().len() == 1,
        "nothing else was written"
    );
}

#[tokio::test]
async fn names_and_ids_are_unique() {
    let bench = bench().await;
    make(&bench, 1, small("1")).await;
    let same_id = json!({"flavor": {"name": "x", "id": "1", "ram": 1, "vcpus": 1, "disk": 0}});
    let (status, text) = bench.refused(ADMIN, 1, "POST /flavors", same_id).await;
    assert_eq!((status, text.as_str()), (409, "Flavor with ID 1 already exists."));
    let same_name = json!({"flavor": {"name": "m1.1", "id": "2", "ram": 1, "vcpus": 1, "disk": 0}});
    let (status, text) = bench.refused(ADMIN, 1, "POST /flavors", same_name).await;
    assert_eq!((status, text.as_str()), (409, "Flavor with name m1.1 already exists."));
}

#[tokio::test]
async fn descriptions_change_from_2_55_on_and_flavors_go() {
    let bench = bench().await;
    make(&bench, 55, small("1")).await;
    let body = json!({"flavor": {"description": "small"}});
    assert_eq!(bench.refused(ADMIN, 54, "PUT /flavors/1", body.clone()).await.0, 404);
    assert_eq!(bench.refused(DEMO, 55, "PUT /flavors/1", body.clone()).await.0, 403);
    assert_eq!(bench.refused(ADMIN, 55, "PUT /flavors/9", body.clone()).await.0, 404);
    for bad in [
        json!({"flavor": {}}),
        json!({"flavor": {"description": 1}}),
        json!({"flavor": {"description": "", "name": "x"}}),
    ] {
        assert_eq!(bench.refused(ADMIN, 55, "PUT /flavors/1", bad).await.0, 400);
    }
    let (status, changed) = bench.call(ADMIN, 55, "PUT /flavors/1", body).await;
    assert_eq!((status, &changed["flavor"]["description"]), (200, &json!("small")));
    assert_eq!(bench.refused(DEMO, 1, "DELETE /flavors/1", Value::Null).await.0, 403);
    assert_eq!(bench.call(ADMIN, 1, "DELETE /flavors/1", Value::Null).await, (202, Value::Null));
    let (status, text) = bench.refused(ADMIN, 1, "DELETE /flavors/1", Value::Null).await;
    assert_eq!((status, text.as_str()), (404, "Flavor 1 could not be found."));
}

#[tokio::test]
async fn lists_are_sorted_filtered_and_paged() {
    let bench = bench().await;
    for (id, ram, disk) in [("b", 1024, 1), ("a", 512, 20), ("c", 2048, 0)] {
        make(&bench, 1, json!({"name": format!("m1.{id}"), "id": id, "ram": ram, "vcpus": 1, "disk": disk})).await;
    }
    let ids = async |query: &str| -> Vec<String> {
        let body = bench.get(ADMIN, 102, &format!("/flavors{query}")).await;
        body["flavors"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").await, ["a", "b", "c"]);
    assert_eq!(ids("?minRam=1000").await, ["b", "c"]);
    assert_eq!(ids("?minDisk=1&sort_key=memory_mb&sort_dir=desc").await, ["b", "a"]);
    assert_eq!(ids("?sort_key=root_gb").await, ["c", "b", "a"]);
    assert_eq!(ids("?limit=1&marker=a").await, ["b"]);
    assert_eq!(ids("?limit=0").await, Vec::<String>::new());
    assert_eq!(ids("?name=M1.[ab]").await, ["a", "b"]);
    assert_eq!(ids("?marker=b&sort_key=memory_mb").await, ["c"]);
    let page = bench.get(ADMIN, 1, "/flavors/detail?limit=2").await;
    let next = json!([{"rel": "next", "href": "http://h:8774/compute/v2.1/flavors/detail?limit=2&marker=b"}]);
    assert_eq!(page["flavors_links"], next);
    assert!(bench.get(ADMIN, 1, "/flavors?limit=9").await.get("flavors_links").is_none());
    for (minor, query) in [
        (1, "limit=-1"),
        (1, "limit=x"),
        (1, "marker=nope"),
        (1, "minRam=x"),
        (1, "minDisk=x"),
        (1, "sort_key=x"),
        (1, "sort_dir=up"),
        (1, "is_public=x"),
        (75, "foo=1"),
        (101, "name=m1"),
        (102, "name=("),
    ] {
        assert_eq!(bench.refused(ADMIN, minor, &format!("GET /flavors?{query}"), Value::Null).await.0, 400, "{query}");
    }
    bench.get(ADMIN, 74, "/flavors?foo=1").await;
    bench.get(ADMIN, 101, "/flavors/a?foo=1").await;
    assert_eq!(bench.refused(ADMIN, 102, "GET /flavors/a?foo=1", Value::Null).await.0, 400);
}

#[tokio::test]
async fn private_flavors_are_seen_by_those_who_may_use_them() {
    let bench = bench().await;
    make(&bench, 1, small("pub")).await;
    let mut private = small("priv");
    private["os-flavor-access:is_public"] = json!(false);
    make(&bench, 1, private).await;
    assert_eq!(bench.get(ADMIN, 1, "/flavors/priv/os-flavor-access").await, json!({"flavor_access": []}));
    let count = async |caller, query: &str| {
        bench.get(caller, 1, &format!("/flavors{query}")).await["flavors"].as_array().unwrap().len()
    };
    assert_eq!(count(DEMO, "").await, 1);
    assert_eq!(count(DEMO, "?is_public=None").await, 1, "only administrators choose");
    assert_eq!((count(ADMIN, "").await, count(ADMIN, "?is_public=None").await), (1, 2));
    assert_eq!((count(ADMIN, "?is_public=false").await, count(ADMIN, "?is_public=True").await), (1, 1));
    assert_eq!(bench.refused(DEMO, 1, "GET /flavors/priv", Value::Null).await.0, 404);
    assert_eq!(bench.refused(DEMO, 1, "GET /flavors?marker=priv", Value::Null).await.0, 400);

    let add = json!({"addTenantAccess": {"tenant": "p-demo"}});
    assert_eq!(bench.refused(DEMO, 1, "POST /flavors/priv/action", add.clone()).await.0, 403);
    let (status, body) = bench.call(ADMIN, 1, "POST /flavors/priv/action", add.clone()).await;
    assert_eq!((status, body), (200, json!({"flavor_access": [{"flavor_id": "priv", "tenant_id": "p-demo"}]})));
    assert_eq!((count(DEMO, "").await, count(OTHER, "").await), (2, 1));
    bench.get(DEMO, 1, "/flavors/priv").await;
    assert_eq!(bench.refused(ADMIN, 1, "POST /flavors/priv/action", add).await.0, 409);

    let remove = json!({"removeTenantAccess": {"tenant": "p-demo"}});
    assert_eq!(bench.call(ADMIN, 1, "POST /flavors/priv/action", remove.clone()).await.1, json!({"flavor_access": []}));
    assert_eq!(bench.refused(ADMIN, 1, "POST /flavors/priv/action", remove).await.0, 404);
}

#[tokio::test]
async fn access_to_public_flavors_is_nothing_to_give() {
    let bench = bench().await;
    make(&bench, 1, small("pub")).await;
    let add = json!({"addTenantAccess": {"tenant": "p-demo"}});
    assert_eq!(bench.refused(ADMIN, 7, "POST /flavors/pub/action", add.clone()).await.0, 409);
    assert_eq!(bench.call(ADMIN, 6, "POST /flavors/pub/action", add.clone()).await.0, 200);
    assert_eq!(bench.refused(ADMIN, 7, "POST /flavors/none/action", add).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 1, "GET /flavors/pub/os-flavor-access", Value::Null).await.0, 404);
    assert_eq!(bench.refused(DEMO, 1, "GET /flavors/pub/os-flavor-access", Value::Null).await.0, 403);
    for bad in [
        json!({}),
        json!({"addTenantAccess": {}}),
        json!({"addTenantAccess": {"tenant": ""}}),
        json!({"addTenantAccess": {"tenant": "a b"}}),
        json!({"addTenantAccess": {"tenant": "a", "x": 1}}),
        json!({"addTenantAccess": null, "removeTenantAccess": null}),
        json!({"foo": {}}),
    ] {
        assert_eq!(bench.refused(ADMIN, 1, "POST /flavors/pub/action", bad).await.0, 400);
    }
}

#[tokio::test]
async fn only_projects_that_exist_get_access() {
    let bench = bench().await;
    let mut private = small("priv");
    private["os-flavor-access:is_public"] = json!(false);
    make(&bench, 1, private).await;
    let now = bench.now();
    let domain =
        serde_json::from_value(json!({"id": "default", "name": "Default", "enabled": true, "created_at": now}));
    bench.api.store.create_domain(domain.unwrap()).await.unwrap();
    let project = json!({"id": "p-demo", "domain_id": "default", "name": "demo", "enabled": true, "created_at": now});
    bench.api.store.create_project(serde_json::from_value(project).unwrap()).await.unwrap();
    let add = |tenant: &str| json!({"addTenantAccess": {"tenant": tenant}});
    let (status, text) = bench.refused(ADMIN, 7, "POST /flavors/priv/action", add("nobody")).await;
    assert_eq!((status, text.as_str()), (400, "Project ID nobody is not a valid project."));
    assert_eq!(bench.call(ADMIN, 7, "POST /flavors/priv/action", add("p-demo")).await.0, 200);
}
