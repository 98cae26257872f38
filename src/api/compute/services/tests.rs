//! Services: what administrators see and do, by version.

use serde_json::{Value, json};

use super::Services;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, keys};

#[tokio::test]
async fn a_service_has_the_keys_of_its_version() {
    let bench = Bench::new(Services::new);
    let service = bench.service("nova-compute", "host1", "nova").await;
    let base = json!({
        "id": service.number, "binary": "nova-compute", "host": "host1", "zone": "nova", "status": "enabled",
        "state": "up", "updated_at": "2026-11-22T08:03:11.000000", "disabled_reason": null,
    });
    assert_eq!(bench.get(ADMIN, 1, "/os-services").await, json!({"services": [base]}));
    assert_eq!(bench.get(ADMIN, 10, "/os-services").await["services"][0], base);
    let mut later = base;
    later["forced_down"] = json!(false);
    assert_eq!(bench.get(ADMIN, 11, "/os-services").await["services"][0], later);
    assert_eq!(bench.get(ADMIN, 52, "/os-services").await["services"][0], later);
    later["id"] = json!(service.id);
    assert_eq!(bench.get(ADMIN, 53, "/os-services").await["services"][0], later);
    assert_eq!(bench.get(ADMIN, 104, "/os-services").await["services"][0], later);
    bench.pass(60);
    assert_eq!(bench.get(ADMIN, 1, "/os-services").await["services"][0]["state"], "up");
    bench.pass(1);
    assert_eq!(bench.get(ADMIN, 1, "/os-services").await["services"][0]["state"], "down");
    assert_eq!(bench.refused(DEMO, 1, "GET /os-services", Value::Null).await.0, 403);
}

#[tokio::test]
async fn lists_are_filtered_and_strict_from_2_75() {
    let bench = Bench::new(Services::new);
    for (binary, host) in [("nova-compute", "a"), ("nova-compute", "b"), ("nova-conductor", "a"), ("nova-api", "a")] {
        bench.service(binary, host, "nova").await;
    }
    let count = async |query: &str| {
        bench.get(ADMIN, 1, &format!("/os-services{query}")).await["services"].as_array().unwrap().len()
    };
    assert_eq!((count("").await, count("?host=a").await, count("?binary=nova-compute").await), (3, 2, 2));
    assert_eq!(
        (count("?host=a&binary=nova-compute").await, count("?host=zzz").await, count("?xxx=1").await),
        (1, 0, 3)
    );
    assert_eq!(bench.refused(ADMIN, 75, "GET /os-services?xxx=1", Value::Null).await.0, 400);
}

#[tokio::test]
async fn before_2_53_the_path_says_what_to_do() {
    let bench = Bench::new(Services::new);
    bench.service("nova-compute", "h", "nova").await;
    bench.service("nova-conductor", "h", "internal").await;
    let compute = json!({"host": "h", "binary": "nova-compute"});
    let (status, body) = bench.call(ADMIN, 1, "PUT /os-services/disable", compute.clone()).await;
    assert_eq!(
        (status, body),
        (200, json!({"service": {"host": "h", "binary": "nova-compute", "status": "disabled"}}))
    );
    let mut reasoned = compute.clone();
    reasoned["disabled_reason"] = json!("broken");
    let (_, body) = bench.call(ADMIN, 1, "PUT /os-services/disable-log-reason", reasoned).await;
    assert_eq!(
        body["service"],
        json!({"host": "h", "binary": "nova-compute", "status": "disabled", "disabled_reason": "broken"})
    );
    assert_eq!(bench.get(ADMIN, 1, "/os-services").await["services"][0]["disabled_reason"], "broken");
    let (_, body) = bench.call(ADMIN, 1, "PUT /os-services/enable", compute.clone()).await;
    assert_eq!(body["service"]["status"], "enabled");
    assert_eq!(bench.get(ADMIN, 1, "/os-services").await["services"][0]["disabled_reason"], Value::Null);
    let mut forced = compute.clone();
    forced["forced_down"] = json!("true");
    assert_eq!(bench.refused(ADMIN, 10, "PUT /os-services/force-down", forced.clone()).await.0, 400);
    let (_, body) = bench.call(ADMIN, 11, "PUT /os-services/force-down", forced).await;
    assert_eq!(body["service"], json!({"host": "h", "binary": "nova-compute", "forced_down": true}));
    assert_eq!(bench.get(ADMIN, 11, "/os-services").await["services"][0]["state"], "down");

    let told = bench.told.services.lock().unwrap();
    let told: Vec<_> = told.iter().map(|n| (n.host.as_str(), n.disabled, n.up)).collect();
    assert_eq!(told, [("h", true, true), ("h", true, true), ("h", false, true), ("h", false, false)]);
}

#[tokio::test]
async fn what_is_wrong_before_2_53_is_told() {
    let bench = Bench::new(Services::new);
    bench.service("nova-compute", "h", "nova").await;
    let compute = json!({"host": "h", "binary": "nova-compute"});
    for (word, body, status) in [
        ("enable", json!({}), 400),
        ("enable", json!({"host": "h"}), 400),
        ("enable", json!({"host": "h h", "binary": "nova-compute"}), 400),
        ("enable", json!({"host": "h", "binary": "nova-compute", "x": 1}), 400),
        ("enable", json!({"host": "h", "binary": "nova-scheduler"}), 400),
        ("enable", json!({"host": "nope", "binary": "nova-compute"}), 404),
        ("disable-log-reason", compute.clone(), 400),
        ("disable-log-reason", json!({"host": "h", "binary": "nova-compute", "disabled_reason": ""}), 400),
        ("force-down", compute.clone(), 400),
        ("explode", compute.clone(), 404),
    ] {
        let (got, text) = bench.refused(ADMIN, 11, &format!("PUT /os-services/{word}"), body).await;
        assert_eq!(got, status, "{word}: {text}");
    }
    assert_eq!(bench.refused(DEMO, 1, "PUT /os-services/enable", compute).await.0, 403);
    assert!(bench.told.services.lock().unwrap().is_empty());
}

#[tokio::test]
async fn from_2_53_on_the_uuid_says_which() {
    let bench = Bench::new(Services::new);
    let compute = bench.service("nova-compute", "h", "nova").await;
    let conductor = bench.service("nova-conductor", "h", "internal").await;
    let line = format!("PUT /os-services/{}", compute.id);
    let (status, body) = bench
        .call(ADMIN, 53, &line, json!({"status": "disabled", "disabled_reason": "why", "forced_down": true}))
        .await;
    assert_eq!(status, 200);
    let service = &body["service"];
    assert_eq!(
        keys(service),
        ["binary", "disabled_reason", "forced_down", "host", "id", "state", "status", "updated_at", "zone"]
    );
    assert_eq!((&service["status"], &service["state"]), (&json!("disabled"), &json!("down")));
    assert_eq!((&service["disabled_reason"], &service["id"]), (&json!("why"), &json!(compute.id)));
    let (_, body) = bench.call(ADMIN, 53, &line, json!({"status": "enabled", "forced_down": "False"})).await;
    assert_eq!((&body["service"]["status"], &body["service"]["state"]), (&json!("enabled"), &json!("up")));
    assert_eq!(body["service"]["disabled_reason"], Value::Null);
    for body in [
        json!({}),
        json!({"disabled_reason": "x"}),
        json!({"status": "enabled", "disabled_reason": "x"}),
        json!({"status": "gone"}),
        json!({"status": 1}),
        json!({"forced_down": "perhaps"}),
        json!({"status": "enabled", "host": "h"}),
        json!([]),
    ] {
        assert_eq!(bench.refused(ADMIN, 53, &line, body.clone()).await.0, 400, "{body}");
    }
    let on = json!({"status": "enabled"});
    assert_eq!(bench.refused(ADMIN, 53, &format!("PUT /os-services/{}", conductor.id), on.clone()).await.0, 400);
    let (status, text) = bench.refused(ADMIN, 53, "PUT /os-services/enable", on.clone()).await;
    assert_eq!((status, text.as_str()), (400, "Invalid uuid enable"));
    let unknown = "PUT /os-services/7f7f7f7f-0000-4000-8000-000000000000";
    assert_eq!(bench.refused(ADMIN, 53, unknown, on.clone()).await.0, 404);
    assert_eq!(bench.refused(DEMO, 53, &line, on).await.0, 403);
}

#[tokio::test]
async fn hosts_in_use_stay() {
    let bench = Bench::new(Services::new);
    let service = bench.service("nova-compute", "h", "nova").await;
    let empty = bench.service("nova-compute", "empty", "nova").await;
    bench.instance(DEMO, Some("h")).await;
    let line = format!("DELETE /os-services/{}", service.id);
    let (status, text) = bench.refused(ADMIN, 53, &line, Value::Null).await;
    assert_eq!(status, 409);
    assert!(text.starts_with("Unable to delete compute service that is hosting instances."), "{text}");
    assert_eq!(bench.refused(ADMIN, 52, &format!("DELETE /os-services/{}", service.number), Value::Null).await.0, 409);
    assert_eq!(bench.refused(DEMO, 53, &line, Value::Null).await.0, 403);
    let line = format!("DELETE /os-services/{}", empty.number);
    assert_eq!(bench.call(ADMIN, 52, &line, Value::Null).await, (204, Value::Null));
    assert_eq!(bench.refused(ADMIN, 52, &line, Value::Null).await.0, 404);
    assert_eq!(bench.refused(ADMIN, 52, "DELETE /os-services/x", Value::Null).await.0, 400);
    assert_eq!(bench.refused(ADMIN, 53, "DELETE /os-services/1", Value::Null).await.0, 400);
    let told = bench.told.services.lock().unwrap();
    assert!(matches!(told.as_slice(), [news] if news.host.as_str() == "empty" && !news.up && news.disabled));
}
