//! Cells, passwords and shares of servers.

use nova_core::flavor::Flavor;
use nova_core::state::VmState;
use serde_json::{Value, json};

use super::ServerFacts;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, READER, keys};

async fn bench() -> (Bench, String) {
    let bench = Bench::new(ServerFacts::new);
    let id = bench.instance(DEMO, Some("h1")).await.id.to_string();
    (bench, id)
}

#[tokio::test]
async fn a_server_without_cells_has_no_topology() {
    let (bench, id) = bench().await;
    let path = format!("/servers/{id}/topology");
    let none = json!({"nodes": [], "pagesize_kb": null});
    assert_eq!(bench.get(DEMO, 78, &path).await, none);
    assert_eq!(bench.get(READER, 78, &path).await, none);
    assert_eq!(bench.refused(DEMO, 77, &format!("GET {path}"), Value::Null).await.0, 404);
    assert_eq!(bench.refused(OTHER, 78, &format!("GET {path}"), Value::Null).await.0, 404);
    assert_eq!(bench.refused(DEMO, 78, &format!("GET {path}?x=1"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn cells_are_shown_and_the_host_s_to_administrators_alone() {
    let (bench, id) = bench().await;
    bench
        .touch(&id, |instance| {
            let extra_specs = [("hw:numa_nodes".to_owned(), "2".to_owned())].into();
            instance.flavor = Flavor { extra_specs, ..instance.flavor.clone() };
        })
        .await;
    let path = format!("/servers/{id}/topology");
    let own = bench.get(DEMO, 78, &path).await;
    assert_eq!(
        own["nodes"],
        json!([
            {"vcpu_set": [0], "siblings": [], "memory_mb": 256},
            {"vcpu_set": [1], "siblings": [], "memory_mb": 256},
        ])
    );
    let admin = bench.get(ADMIN, 78, &path).await;
    assert_eq!(keys(&admin["nodes"][0]), ["cpu_pinning", "host_node", "memory_mb", "siblings", "vcpu_set"]);
    assert_eq!(admin["nodes"][0]["cpu_pinning"], json!({}));
}

#[tokio::test]
async fn a_password_is_put_together_and_forgotten() {
    let (bench, id) = bench().await;
    let path = format!("/servers/{id}/os-server-password");
    assert_eq!(bench.get(DEMO, 1, &path).await, json!({"password": ""}));
    bench
        .touch(&id, |instance| {
            for (part, text) in [("password_1", "cd"), ("password_0", "ab"), ("other", "x")] {
                instance.system_metadata.insert(part.to_owned(), text.to_owned());
            }
        })
        .await;
    assert_eq!(bench.get(READER, 1, &path).await, json!({"password": "abcd"}));
    assert_eq!(bench.refused(READER, 1, &format!("DELETE {path}"), Value::Null).await.0, 403);
    assert_eq!(bench.refused(OTHER, 1, &format!("DELETE {path}"), Value::Null).await.0, 404);
    assert_eq!(bench.call(DEMO, 1, &format!("DELETE {path}"), Value::Null).await, (204, Value::Null));
    assert_eq!(bench.get(DEMO, 1, &path).await, json!({"password": ""}));
    assert_eq!(bench.read(&id).await.system_metadata.len(), 1);
    assert_eq!(bench.call(DEMO, 1, &format!("DELETE {path}"), Value::Null).await.0, 204);
}

#[tokio::test]
async fn no_share_can_be_attached() {
    let (bench, id) = bench().await;
    let path = format!("/servers/{id}/shares");
    let share = "7f7f7f7f-0000-4000-8000-000000000000";
    assert_eq!(bench.get(DEMO, 97, &path).await, json!({"shares": []}));
    assert_eq!(bench.refused(DEMO, 96, &format!("GET {path}"), Value::Null).await.0, 404);
    let body = json!({"share": {"share_id": share}});
    let running = bench.refused(DEMO, 97, &format!("POST {path}"), body.clone()).await;
    assert_eq!(running, (409, format!("Cannot 'create share' instance {id} while it is in vm_state active")));
    assert_eq!(bench.refused(DEMO, 97, &format!("DELETE {path}/{share}"), Value::Null).await.0, 409);
    bench.touch(&id, |instance| instance.vm_state = VmState::Stopped).await;
    let gone = (404, format!("Share {share} could not be found."));
    assert_eq!(bench.refused(DEMO, 97, &format!("POST {path}"), body.clone()).await, gone);
    assert_eq!(bench.refused(DEMO, 97, &format!("GET {path}/{share}"), Value::Null).await, gone);
    assert_eq!(bench.refused(DEMO, 97, &format!("DELETE {path}/{share}"), Value::Null).await, gone);
    for bad in [json!({}), json!({"share": {}}), json!({"share": {"share_id": "x"}}), json!({"share": {"x": 1}})] {
        assert_eq!(bench.refused(DEMO, 97, &format!("POST {path}"), bad.clone()).await.0, 400, "{bad}");
    }
    assert_eq!(bench.refused(READER, 97, &format!("POST {path}"), body).await.0, 403);
}
