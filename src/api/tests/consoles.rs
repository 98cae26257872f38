//! Addresses of consoles, through the whole API.

use nova_core::clock::Clock;
use nova_core::console::{ConsoleType, token_hash};
use nova_core::state::VmState;
use serde_json::{Value, json};

use super::world::{World, only_compute};
use crate::api::compute::ComputeOptions;
use crate::console::ConsoleUrls;

async fn running(world: &World) -> String {
    let id = world.create("demo", "vm").await;
    world.settle(&id, VmState::Active, "h1").await;
    id
}

fn asked(protocol: &str, console_type: &str) -> Value {
    json!({"remote_console": {"protocol": protocol, "type": console_type}})
}

#[tokio::test]
async fn an_address_carries_a_token_of_which_only_the_hash_is_kept() {
    let world = World::new().await;
    let id = running(&world).await;
    let path = format!("POST /servers/{id}/remote-consoles");
    let answer = world.call("demo", 6, &path, Some(asked("vnc", "novnc"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let console = &answer.body["remote_console"];
    assert_eq!((&console["protocol"], &console["type"]), (&json!("vnc"), &json!("novnc")));
    let url = console["url"].as_str().unwrap();
    let token = url.strip_prefix("http://127.0.0.1:6080/vnc_auto.html?path=%3Ftoken%3D").unwrap();
    assert_eq!(token.len(), 36);
    let instance = world.instance(&id).await;
    let grant = world.store.get_console_grant(&token_hash(token), world.clock.now()).await.unwrap();
    assert_eq!((grant.instance_id, grant.epoch, grant.console_type), (instance.id, instance.epoch, ConsoleType::Novnc));
    assert_eq!((grant.user_id.as_str(), grant.project_id.as_str(), grant.host.as_str()), ("demo", "dddd0000", "h1"));
    assert!(!serde_json::to_string(&grant).unwrap().contains(token));
    // It is shown to administrators, as often as they like, and is over after a minute.
    let path = format!("/os-console-auth-tokens/{token}");
    for minor in [31, 98] {
        let shown = world.get("admin", minor, &path).await;
        let expected = json!({"console": {"instance_uuid": id, "host": "10.0.0.1", "port": 5901,
                                          "internal_access_path": null}});
        assert_eq!((shown.status, shown.body), (200, expected));
    }
    assert_eq!(world.get("admin", 99, &path).await.body["console"]["tls_port"], Value::Null);
    assert!(world.get("admin", 99, &path).await.body["console"].as_object().unwrap().contains_key("tls_port"));
    world.get("demo", 99, &path).await.fault(403, "forbidden");
    world.get("admin", 30, &path).await.fault(400, "badRequest");
    world.get("admin", 99, &format!("{path}?x=1")).await.fault(400, "badRequest");
    let forged = format!("/os-console-auth-tokens/{}", "x".repeat(300));
    assert_eq!(world.get("admin", 31, &forged).await.fault(404, "itemNotFound"), "Token not found");
    world.pass(60);
    assert_eq!(world.get("admin", 31, &path).await.fault(404, "itemNotFound"), "Token not found");
}

#[tokio::test]
async fn before_2_6_each_protocol_has_its_action() {
    let world = World::new().await;
    let id = running(&world).await;
    let path = format!("POST /servers/{id}/action");
    let novnc = json!({"os-getVNCConsole": {"type": "novnc"}});
    let answer = world.call("demo", 1, &path, Some(novnc.clone())).await;
    assert_eq!((answer.status, &answer.body["console"]["type"]), (200, &json!("novnc")));
    let serial = world.call("demo", 5, &path, Some(json!({"os-getSerialConsole": {"type": "serial"}}))).await;
    assert!(serial.body["console"]["url"].as_str().unwrap().starts_with("ws://127.0.0.1:6080/?token="));
    let spice = world.call("demo", 5, &path, Some(json!({"os-getSPICEConsole": {"type": "spice-html5"}}))).await;
    assert_eq!(spice.fault(400, "badRequest"), "Unavailable console type spice-html5.");
    let old = world.call("demo", 5, &path, Some(json!({"os-getVNCConsole": {"type": "xvpvnc"}}))).await;
    assert_eq!(old.fault(400, "badRequest"), "Invalid console type xvpvnc");
    assert_eq!(world.call("demo", 6, &path, Some(novnc)).await.status, 404);
    let early = format!("POST /servers/{id}/remote-consoles");
    assert_eq!(world.call("demo", 5, &early, Some(asked("vnc", "novnc"))).await.status, 404);
}

#[tokio::test]
async fn kinds_that_are_not_served_are_refused_as_nova_does() {
    let world = World::new().await;
    let id = running(&world).await;
    let path = format!("POST /servers/{id}/remote-consoles");
    for (minor, protocol, console_type, text) in [
        (6, "spice", "spice-html5", Some("Unavailable console type spice-html5.")),
        (8, "mks", "webmks", Some("Unavailable console type webmks.")),
        (99, "spice", "spice-direct", Some("Unavailable console type spice-direct.")),
        (6, "vnc", "serial", Some("Invalid console type serial")),
        (7, "mks", "webmks", None),
        (98, "spice", "spice-direct", None),
        (6, "rdp", "rdp-html5", None),
    ] {
        let answer = world.call("demo", minor, &path, Some(asked(protocol, console_type))).await;
        let said = answer.fault(400, "badRequest");
        assert!(text.is_none_or(|text| said == text), "{said}");
    }
    for body in [json!({}), json!({"remote_console": {"protocol": "vnc"}}), json!({"remote_console": null})] {
        world.call("demo", 6, &path, Some(body)).await.fault(400, "badRequest");
    }
    let mut more = asked("vnc", "novnc");
    more["remote_console"]["host"] = json!("h2");
    world.call("demo", 6, &path, Some(more)).await.fault(400, "badRequest");
}

/// Screens over SPICE are where the server's host has them.
#[tokio::test]
async fn a_host_with_spice() {
    let world = World::new().await;
    let id = world.create("demo", "vm").await;
    world.settle(&id, VmState::Active, "spiced").await;
    let path = format!("POST /servers/{id}/action");
    let old = world.call("demo", 5, &path, Some(json!({"os-getSPICEConsole": {"type": "spice-html5"}}))).await;
    assert_eq!((old.status, &old.body["console"]["type"]), (200, &json!("spice-html5")), "{}", old.text);
    let path = format!("POST /servers/{id}/remote-consoles");
    let new = world.call("demo", 6, &path, Some(asked("spice", "spice-html5"))).await;
    let console = &new.body["remote_console"];
    assert_eq!((&console["protocol"], &console["type"]), (&json!("spice"), &json!("spice-html5")));
    let url = console["url"].as_str().unwrap();
    let token = url.strip_prefix("http://127.0.0.1:6080/spice_auto.html?token=").unwrap();
    // Over TLS alone: there is no other port.
    let shown = world.get("admin", 99, &format!("/os-console-auth-tokens/{token}")).await;
    let expected = json!({"console": {"instance_uuid": id, "host": "10.0.0.1", "port": null, "tls_port": 5903,
                                      "internal_access_path": null}});
    assert_eq!((shown.status, shown.body), (200, expected));
}

#[tokio::test]
async fn only_members_of_the_servers_project_get_one() {
    let world = World::new().await;
    let id = running(&world).await;
    let path = format!("POST /servers/{id}/remote-consoles");
    world.call("other", 6, &path, Some(asked("vnc", "novnc"))).await.fault(404, "itemNotFound");
    world.call("reader", 6, &path, Some(asked("vnc", "novnc"))).await.fault(403, "forbidden");
    assert_eq!(world.call("admin", 6, &path, Some(asked("vnc", "novnc"))).await.status, 200);
    let none = "POST /servers/9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a/remote-consoles";
    world.call("demo", 6, none, Some(asked("vnc", "novnc"))).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn a_server_that_cannot_be_seen_has_no_address() {
    let world = World::new().await;
    let unplaced = world.create("demo", "vm").await;
    let path = |id: &str| format!("POST /servers/{id}/remote-consoles");
    let answer = world.call("demo", 6, &path(&unplaced), Some(asked("vnc", "novnc"))).await;
    assert_eq!(answer.fault(409, "conflictingRequest"), format!("Instance {unplaced} is not ready"));
    let stopped = world.create("demo", "vm").await;
    world.settle(&stopped, VmState::Stopped, "off").await;
    let answer = world.call("demo", 6, &path(&stopped), Some(asked("vnc", "novnc"))).await;
    assert_eq!(answer.fault(409, "conflictingRequest"), format!("Instance {stopped} is not ready"));
    world.settle(&stopped, VmState::Active, "away").await;
    assert_eq!(world.call("demo", 6, &path(&stopped), Some(asked("vnc", "novnc"))).await.status, 503);
}

#[tokio::test]
async fn what_is_switched_off_is_unavailable() {
    let consoles = ConsoleUrls { novnc: None, serial: None, ..ConsoleUrls::default() };
    let options = ComputeOptions { consoles, ..ComputeOptions::default() };
    let world = World::with(options, only_compute()).await;
    let id = running(&world).await;
    let path = format!("POST /servers/{id}/remote-consoles");
    let answer = world.call("demo", 6, &path, Some(asked("vnc", "novnc"))).await;
    assert_eq!(answer.fault(400, "badRequest"), "Unavailable console type novnc.");
    let answer = world.call("demo", 6, &path, Some(asked("serial", "serial"))).await;
    assert_eq!(answer.fault(400, "badRequest"), "Unavailable console type serial.");
}
