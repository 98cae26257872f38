//! Whatever comes in: the right 4xx in Nova's shape, never a 500, and nothing is written.

use serde_json::json;

use super::world::{World, server};

const HEADERS: fn() -> Vec<(&'static str, String)> = || vec![("x-auth-token", "demo".to_owned())];

#[tokio::test]
async fn bodies_that_are_no_json() {
    let world = World::new().await;
    let before = world.store.commits();
    for body in ["{", "nope", "\u{0}", "{\"server\": }", "[1,", ""] {
        let answer = world.raw("POST /servers", &HEADERS(), body).await;
        assert_eq!(answer.fault(400, "badRequest"), "Malformed request body", "{body:?}");
    }
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    world.raw("POST /servers", &HEADERS(), deep).await.fault(400, "badRequest");
    let request = http::Request::post("/compute/v2.1/servers").header("x-auth-token", "demo");
    let request = request.header("content-type", "text/xml").body("<server/>".into()).unwrap();
    assert_eq!(world.api.handle(request).await.status(), 415);
    assert_eq!(world.store.commits(), before);
}

#[tokio::test]
async fn bodies_that_are_too_long() {
    let world = World::new().await;
    let before = world.store.commits();
    let long = json!({"server": {"name": "x".repeat(114_688)}}).to_string();
    let mut declared = HEADERS();
    declared.push(("content-length", long.len().to_string()));
    let answer = world.raw("POST /servers", &declared, long.clone()).await;
    assert_eq!(answer.fault(413, "overLimit"), "Request is too large.");
    world.raw("POST /servers", &HEADERS(), long).await.fault(413, "overLimit");
    assert_eq!(world.store.commits(), before);
}

#[tokio::test]
async fn fields_of_the_wrong_type() {
    let world = World::new().await;
    let before = world.store.commits();
    let fields = [
        ("name", json!("")),
        ("name", json!(" ")),
        ("name", json!("x".repeat(256))),
        ("name", json!(1)),
        ("imageRef", json!("-1")),
        ("imageRef", json!({})),
        ("flavorRef", json!("")),
        ("flavorRef", json!([1])),
        ("accessIPv4", json!("1.2.3.4.5")),
        ("accessIPv6", json!("fe80::g")),
        ("metadata", json!({"": "x"})),
        ("metadata", json!({"k": "v".repeat(256)})),
        ("metadata", json!([])),
        ("networks", json!("none")),
        ("networks", json!([{"uuid": "x"}])),
        ("networks", json!([{"foo": "x"}])),
        ("key_name", json!(null)),
        ("user_data", json!("*")),
        ("user_data", json!("A".repeat(65_536))),
        ("min_count", json!(0)),
        ("min_count", json!(2.5)),
        ("max_count", json!("x")),
        ("max_count", json!(99_999)),
        ("config_drive", json!("perhaps")),
        ("security_groups", json!([{"name": 1}])),
        ("OS-DCF:diskConfig", json!("SEMI")),
        ("personality", json!([{"path": "/x", "contents": "*"}])),
        ("block_device_mapping_v2", json!([{"source_type": "image"}, 7])),
        ("availability_zone", json!("a:b:c:d")),
        ("adminPass", json!(1)),
        ("unknown", json!(1)),
        ("metadata", json!({"k": "a\u{0}b"})),
        ("adminPass", json!("\u{0}")),
    ];
    for (key, value) in fields {
        let mut body = json!({"server": server("vm")});
        body["server"][key] = value.clone();
        let answer = world.call("demo", 1, "POST /servers", Some(body)).await;
        answer.fault(400, "badRequest");
    }
    for body in
        [json!({}), json!([]), json!({"server": null}), json!({"server": {}}), json!({"server": server("x"), "y": 1})]
    {
        world.call("demo", 1, "POST /servers", Some(body)).await.fault(400, "badRequest");
    }
    assert_eq!(world.store.commits(), before);
}

#[tokio::test]
async fn ids_that_are_unknown_odd_or_foreign() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    let before = world.store.commits();
    let odd = [
        "-1",
        "999",
        "12345678901234567890",
        "vm",
        &format!("{id}a"),
        "00000000-0000-4000-8000-000000000000",
        "%00",
        "..%2f..",
        &"x".repeat(5000),
    ];
    for bad in odd {
        world.get("demo", 1, &format!("/servers/{bad}")).await.fault(404, "itemNotFound");
        world.call("demo", 1, &format!("DELETE /servers/{bad}"), None).await.fault(404, "itemNotFound");
        let path = format!("POST /servers/{bad}/action");
        world.call("demo", 1, &path, Some(json!({"os-stop": null}))).await.fault(404, "itemNotFound");
    }
    let text = world.get("other", 1, &format!("/servers/{id}")).await;
    assert_eq!(text.fault(404, "itemNotFound"), format!("Instance {id} could not be found."));
    world.call("other", 1, &format!("DELETE /servers/{id}"), None).await.fault(404, "itemNotFound");
    let path = format!("POST /servers/{id}/action");
    for action in [json!({"os-stop": null}), json!({"os-getConsoleOutput": {}}), json!({"reboot": {"type": "HARD"}})] {
        world.call("other", 1, &path, Some(action)).await.fault(404, "itemNotFound");
    }
    world.call("reader", 1, &format!("DELETE /servers/{id}"), None).await.fault(403, "forbidden");
    assert_eq!(world.store.commits(), before);
    assert_eq!(world.get("admin", 1, &format!("/servers/{id}")).await.status, 200);
    assert_eq!(world.get("demo", 1, &format!("/servers/{}", id.replace('-', ""))).await.status, 200);
}

#[tokio::test]
async fn metadata_beyond_the_limit_is_403() {
    let world = World::new().await;
    let labels: serde_json::Map<_, _> = (0..129).map(|n| (format!("k{n}"), json!("v"))).collect();
    let mut body = json!({"server": server("vm")});
    body["server"]["metadata"] = json!(labels);
    let answer = world.call("demo", 1, "POST /servers", Some(body)).await;
    assert_eq!(answer.fault(403, "forbidden"), "Maximum number of metadata items exceeds 128");
}

#[tokio::test]
async fn the_lenient_api_passes_over_unknown_keys_and_blanks() {
    let world = World::new().await;
    let body = json!({"server": {"name": " vm ", "imageRef": super::world::IMAGE, "flavorRef": 1, "unknown": 1}});
    let strict = world.call("demo", 1, "POST /servers", Some(body.clone())).await;
    strict.fault(400, "badRequest");
    let answer = world.call("demo", 1, "POST /compute/v2/servers", Some(body)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let id = answer.body["server"]["id"].as_str().unwrap();
    assert_eq!(world.instance(id).await.display_name, "vm");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_408() {
    let world = World::new().await;
    let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let answer = world.raw("POST /servers", &HEADERS(), axum::body::Body::from_stream(never)).await;
    assert_eq!(answer.status, 408, "{}", answer.text);
}
