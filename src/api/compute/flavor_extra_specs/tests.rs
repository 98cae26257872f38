//! Extra specs by request: reading, writing, and what is refused from 2.86 on.

use serde_json::{Value, json};

use super::FlavorExtraSpecs;
use crate::api::compute::flavors::Flavors;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO};

const ALL: &str = "/flavors/1/os-extra_specs";

async fn bench() -> Bench {
    let bench = Bench::new(FlavorExtraSpecs::new).add(Flavors::new);
    let flavor = json!({"flavor": {"name": "m1", "id": "1", "ram": 1, "vcpus": 1, "disk": 0}});
    assert_eq!(bench.call(ADMIN, 1, "POST /flavors", flavor).await.0, 200);
    bench
}

#[tokio::test]
async fn specs_are_written_read_and_removed() {
    let bench = bench().await;
    assert_eq!(bench.get(DEMO, 1, ALL).await, json!({"extra_specs": {}}));
    let body = json!({"extra_specs": {"hw:numa_nodes": "1", "number": 5}});
    assert_eq!(bench.call(ADMIN, 1, &format!("POST {ALL}"), body.clone()).await, (200, body));
    let (status, one) = bench.call(ADMIN, 1, &format!("PUT {ALL}/hw:numa_nodes"), json!({"hw:numa_nodes": "2"})).await;
    assert_eq!((status, one), (200, json!({"hw:numa_nodes": "2"})));
    assert_eq!(bench.get(DEMO, 1, ALL).await, json!({"extra_specs": {"hw:numa_nodes": "2", "number": "5"}}));
    assert_eq!(bench.get(DEMO, 1, &format!("{ALL}/number")).await, json!({"number": "5"}));
    assert_eq!(bench.get(DEMO, 61, "/flavors/1").await["flavor"]["extra_specs"]["number"], "5");
    assert_eq!(bench.call(ADMIN, 1, &format!("DELETE {ALL}/number"), Value::Null).await, (200, Value::Null));
    let (status, text) = bench.refused(ADMIN, 1, &format!("DELETE {ALL}/number"), Value::Null).await;
    assert_eq!((status, text.as_str()), (404, "Flavor 1 has no extra specs with key number."));
    assert_eq!(bench.refused(DEMO, 1, &format!("GET {ALL}/number"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn wrong_bodies_and_callers_are_refused() {
    let bench = bench().await;
    let post = format!("POST {ALL}");
    for body in [
        json!({}),
        json!({"extra_specs": []}),
        json!({"extra_specs": {"a": null}}),
        json!({"extra_specs": {"a": {}}}),
        json!({"extra_specs": {"": "x"}}),
        json!({"extra_specs": {"a/b": "x"}}),
        json!({"extra_specs": {"a": "x".repeat(256)}}),
        json!({"extra_specs": {"x".repeat(256): "x"}}),
        json!({"extra_specs": {"a": "b"}, "more": 1}),
    ] {
        assert_eq!(bench.refused(ADMIN, 1, &post, body.clone()).await.0, 400, "{body}");
    }
    for body in [json!({}), json!({"a": "1", "b": "2"}), json!({"b": "1"}), json!({"a": {}}), json!([])] {
        assert_eq!(bench.refused(ADMIN, 1, &format!("PUT {ALL}/a"), body.clone()).await.0, 400, "{body}");
    }
    let good = json!({"extra_specs": {"a": "b"}});
    assert_eq!(bench.refused(DEMO, 1, &post, good.clone()).await.0, 403);
    assert_eq!(bench.refused(DEMO, 1, &format!("PUT {ALL}/a"), json!({"a": "b"})).await.0, 403);
    assert_eq!(bench.refused(DEMO, 1, &format!("DELETE {ALL}/a"), Value::Null).await.0, 403);
    assert_eq!(bench.refused(ADMIN, 1, "POST /flavors/9/os-extra_specs", good).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 1, "GET /flavors/9/os-extra_specs", Value::Null).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 102, &format!("GET {ALL}?x=1"), Value::Null).await.0, 400);
    assert_eq!(bench.get(ADMIN, 1, ALL).await, json!({"extra_specs": {}}), "nothing was written");
}

#[tokio::test]
async fn known_namespaces_are_checked_from_2_86_on() {
    let bench = bench().await;
    let post = format!("POST {ALL}");
    let wrong = json!({"extra_specs": {"hw:numa_nodes": "foo"}});
    let (status, text) = bench.refused(ADMIN, 86, &post, wrong.clone()).await;
    assert_eq!((status, text.as_str()), (400, "Validation failed; 'foo' is not a valid integer value."));
    assert_eq!(bench.refused(ADMIN, 86, &format!("PUT {ALL}/hw:foo"), json!({"hw:foo": "1"})).await.0, 400);
    assert_eq!(bench.call(ADMIN, 85, &post, wrong).await.0, 200);
    let good = json!({"extra_specs": {"hw:numa_nodes": "2", "acme:any": "thing", "free": "1"}});
    assert_eq!(bench.call(ADMIN, 86, &post, good).await.0, 200);
}
