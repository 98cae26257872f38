//! Tags of servers.

use nova_core::state::VmState;
use serde_json::{Value, json};

use super::ServerTags;
use crate::api::compute::test_support::{Bench, DEMO, OTHER, READER};

async fn bench() -> (Bench, String, String) {
    let bench = Bench::new(ServerTags::new);
    let id = bench.instance(DEMO, Some("h1")).await.id.to_string();
    let path = format!("/servers/{id}/tags");
    (bench, id, path)
}

#[tokio::test]
async fn tags_come_and_go() {
    let (bench, id, path) = bench().await;
    assert_eq!(bench.get(DEMO, 26, &path).await, json!({"tags": []}));
    let put = |tag: &str| format!("PUT {path}/{tag}");
    let answer = bench.respond(DEMO, 26, &put("a%20b"), Value::Null).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.headers["location"], format!("http://h:8774/compute/v2.1/servers/{id}/tags/a%20b"));
    assert_eq!(bench.call(DEMO, 26, &put("a%20b"), Value::Null).await, (204, Value::Null));
    assert_eq!(bench.call(DEMO, 26, &format!("GET {path}/a%20b"), Value::Null).await, (204, Value::Null));
    let unknown = bench.refused(DEMO, 26, &format!("GET {path}/b"), Value::Null).await;
    assert_eq!(unknown, (404, format!("Server {id} has no tag 'b'")));
    let all = bench.call(DEMO, 26, &format!("PUT {path}"), json!({"tags": ["z", "y", "z"]})).await;
    assert_eq!(all, (200, json!({"tags": ["y", "z"]})));
    assert_eq!(bench.call(DEMO, 26, &format!("DELETE {path}/y"), Value::Null).await, (204, Value::Null));
    let gone = bench.refused(DEMO, 26, &format!("DELETE {path}/y"), Value::Null).await;
    assert_eq!(gone, (404, format!("Instance {id} has no tag 'y'")));
    assert_eq!(bench.call(DEMO, 26, &format!("DELETE {path}"), Value::Null).await, (204, Value::Null));
    assert_eq!(bench.get(DEMO, 26, &path).await, json!({"tags": []}));
}

#[tokio::test]
async fn there_are_no_tags_before_2_26() {
    let (bench, _, path) = bench().await;
    for line in [format!("GET {path}"), format!("PUT {path}/a"), format!("DELETE {path}")] {
        assert_eq!(bench.refused(DEMO, 25, &line, Value::Null).await.0, 404);
    }
}

#[tokio::test]
async fn tags_have_a_form_and_a_limit() {
    let (bench, _, path) = bench().await;
    let long = "t".repeat(61);
    for tag in ["a%2Cb", "a%2Fb", long.as_str()] {
        let (status, text) = bench.refused(DEMO, 26, &format!("PUT {path}/{tag}"), Value::Null).await;
        assert!(status == 400 && text.contains("is invalid"), "{status} {text}");
    }
    assert_eq!(bench.refused(DEMO, 26, &format!("PUT {path}/a"), json!({"tag": 1})).await.0, 400);
    let many: Vec<String> = (0..51).map(|number| format!("t{number}")).collect();
    for body in [json!({}), json!({"tags": "a"}), json!({"tags": [1]}), json!({"tags": [""]}), json!({"tags": many})] {
        assert_eq!(bench.refused(DEMO, 26, &format!("PUT {path}"), body.clone()).await.0, 400, "{body}");
    }
    let fifty = json!({"tags": many[..50]});
    assert_eq!(bench.call(DEMO, 26, &format!("PUT {path}"), fifty).await.0, 200);
    let more = bench.refused(DEMO, 26, &format!("PUT {path}/more"), Value::Null).await;
    assert_eq!(more, (400, "The number of tags exceeded the per-server limit 50".to_owned()));
}

#[tokio::test]
async fn states_and_policy_are_asked() {
    let (bench, id, path) = bench().await;
    let put = format!("PUT {path}/a");
    assert_eq!(bench.refused(OTHER, 26, &put, Value::Null).await.0, 404);
    assert_eq!(bench.refused(READER, 26, &put, Value::Null).await.0, 403);
    bench.get(READER, 26, &path).await;
    bench.touch(&id, |instance| instance.vm_state = VmState::Error).await;
    let words = [
        (put, Value::Null, "update tag"),
        (format!("PUT {path}"), json!({"tags": []}), "update tags"),
        (format!("DELETE {path}/a"), Value::Null, "delete tag"),
        (format!("DELETE {path}"), Value::Null, "delete tags"),
    ];
    for (line, body, word) in words {
        let text = format!("Cannot '{word}' instance {id} while it is in vm_state error");
        assert_eq!(bench.refused(DEMO, 26, &line, body).await, (409, text));
    }
}
