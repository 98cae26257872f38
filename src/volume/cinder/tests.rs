//! The client against servers that say what they are told to. Against this project's own API, in another process, it is in
//! `examples/tests/it/cinder.rs`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use nova_core::context::RequestContext;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{InstanceId, RequestId, VolumeAttachmentId, VolumeId};
use nova_core::volume::connection::{AccessMode, ConnectionTarget, Connector};
use nova_core::volume::{BlockSource, BlockStorage, BlockStorageError, NewBlockSnapshot, NewBlockVolume};
use serde_json::{Value, json};

use super::{CinderClient, CinderOptions};
use crate::outside::testing::{Scripted, TestClock, reply};
use crate::outside::{Account, OutsideError};

fn client(server: &Scripted) -> CinderClient {
    let options = CinderOptions::new(server.url.clone(), "nova", "secret");
    let account = Account { first_wait: Duration::from_millis(1), timeout: Duration::from_secs(5), ..options.account };
    let options = CinderOptions { account, ..options };
    CinderClient::new(options, Arc::new(TestClock), Arc::new(SeededEntropy::new(1))).unwrap()
}

fn member(project: &str) -> RequestContext {
    let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
    RequestContext { project_id: project.into(), roles: vec!["member".into()], ..RequestContext::internal(request_id) }
}

fn admin() -> RequestContext {
    RequestContext { roles: vec!["admin".into()], ..member("p") }
}

fn volume_id() -> VolumeId {
    "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a501".parse().unwrap()
}

fn attachment_id() -> VolumeAttachmentId {
    "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a502".parse().unwrap()
}

fn server_id() -> InstanceId {
    "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a503".parse().unwrap()
}

/// A snapshot that is to be.
fn moment() -> NewBlockSnapshot {
    let key = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a504".parse().unwrap();
    NewBlockSnapshot { key, volume_id: volume_id(), name: "s".into(), description: String::new() }
}

fn volume(project: &str, status: &str) -> Value {
    json!({"volume": {"id": volume_id(), "size": 1, "status": status, "metadata": {},
                      "os-vol-tenant-attr:tenant_id": project}})
}

fn ok(body: &Value) -> Option<String> {
    Some(reply("200 OK", body))
}

#[tokio::test]
async fn troubles_that_pass_are_sat_out_and_what_is_gone_is_gone() {
    let server = Scripted::start(|number, head| match number {
        1 => Some(reply("503 Service Unavailable", &Value::Null)),
        2 => Some(reply("401 Unauthorized", &Value::Null)),
        3 => ok(&volume("p", "available")),
        // It is done, and the answer is lost; then it is gone.
        4 => None,
        _ => Some(reply("404 Not Found", &json!({"itemNotFound": {"code": 404, "message": head}}))),
    })
    .await;
    client(&server).delete(&member("p"), volume_id()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!(seen[0].starts_with("GET /v3/p/volumes/") && seen[4].starts_with("DELETE /v3/p/volumes/"), "{seen:?}");
    assert_eq!(server.logins(), 2, "the token that did not count was renewed, once");
}

#[tokio::test]
async fn what_is_another_projects_is_not_there() {
    let attachment = json!({"attachment": {"id": attachment_id(), "volume_id": volume_id(), "status": "reserved"}});
    let server =
        Scripted::start(
            move |_, head| {
                if head.contains("/attachments/") { ok(&attachment) } else { ok(&volume("q", "in-use")) }
            },
        )
        .await;
    let (client, me) = (client(&server), member("p"));
    let volume =
        |answer: Result<(), BlockStorageError>| matches!(answer, Err(BlockStorageError::VolumeNotFound { .. }));
    assert!(volume(client.volume(&me, volume_id()).await.map(drop)));
    assert!(volume(client.begin_detaching(&me, volume_id()).await));
    assert!(volume(client.roll_detaching(&me, volume_id()).await));
    assert!(volume(client.take_snapshot(&me, moment()).await.map(drop)));
    assert!(volume(client.swapped(&me, volume_id(), volume_id()).await.map(drop)));
    let reserved = client.reserve(&me, volume_id(), attachment_id(), server_id(), AccessMode::ReadWrite).await;
    assert!(volume(reserved.map(drop)));
    let connected = client.connect(&me, attachment_id(), &Connector::of("c1".into())).await;
    assert!(matches!(connected, Err(BlockStorageError::AttachmentNotFound { .. })), "{connected:?}");
    let completed = client.complete(&me, attachment_id(), None).await;
    assert!(matches!(completed, Err(BlockStorageError::AttachmentNotFound { .. })), "{completed:?}");
    client.release(&me, attachment_id()).await.unwrap();
    client.delete(&me, volume_id()).await.unwrap();
    assert!(server.seen().iter().all(|line| line.starts_with("GET")), "{:?}", server.seen());
    assert_eq!(client.volume(&admin(), volume_id()).await.unwrap().id, volume_id());
}

#[tokio::test]
async fn refusals_keep_their_words() {
    let server = Scripted::start(|_, head| {
        let fault = |status: &str, key: &str| Some(reply(status, &json!({key: {"message": "because"}})));
        match head.lines().next().unwrap_or_default() {
            line if line.starts_with("GET") && line.contains("metadata=") => ok(&json!({"volumes": []})),
            line if line.starts_with("GET") && line.contains("/snapshots") => ok(&json!({"snapshots": []})),
            line if line.starts_with("GET") => ok(&volume("p", "available")),
            line if line.contains("/volumes HTTP") => fault("413 Request Entity Too Large", "overLimit"),
            line if line.starts_with("PUT") => fault("500 Internal Server Error", "computeFault"),
            line if line.contains("/snapshots") => fault("400 Bad Request", "badRequest"),
            line if line.starts_with("DELETE") => fault("403 Forbidden", "forbidden"),
            _ => fault("501 Not Implemented", "notImplemented"),
        }
    })
    .await;
    let (client, me) = (client(&server), admin());
    let new = NewBlockVolume {
        key: volume_id(),
        source: BlockSource::Empty,
        size_gb: Some(1),
        name: String::new(),
        description: String::new(),
        volume_type: None,
        availability_zone: None,
        metadata: Default::default(),
        waiter: None,
    };
    let error = client.create(&me, new).await.unwrap_err();
    assert!(matches!(&error, BlockStorageError::OverQuota { message } if message == "because"), "{error:?}");
    let error = client.connect(&me, attachment_id(), &Connector::of("c1".into())).await.unwrap_err();
    assert!(matches!(&error, BlockStorageError::Failed { fault, .. } if fault == "because"), "{error:?}");
    let error = client.take_snapshot(&me, moment()).await.unwrap_err();
    assert!(matches!(&error, BlockStorageError::Invalid { message } if message == "because"), "{error:?}");
    let error = client.delete(&me, volume_id()).await.unwrap_err();
    assert!(matches!(error, BlockStorageError::Invalid { .. }), "{error:?}");
    let error = client.swapped(&me, volume_id(), volume_id()).await.unwrap_err();
    assert!(matches!(error, BlockStorageError::Unsupported { .. }), "{error:?}");
}

/// What is being written is not written again.
#[tokio::test]
async fn an_image_is_written_once() {
    let server = Scripted::start(|number, head| match head.lines().next().unwrap_or_default() {
        line if line.starts_with("GET") => ok(&volume("p", if number == 1 { "reserved" } else { "downloading" })),
        _ if head.to_ascii_lowercase().contains("openstack-api-version: volume 3.68") => ok(&Value::Null),
        _ => None,
    })
    .await;
    let (client, me) = (client(&server), member("p"));
    let image = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a505".parse().unwrap();
    for _ in 0..2 {
        client.reimage(&me, volume_id(), image).await.unwrap();
    }
    let methods: Vec<String> =
        server.seen().iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(methods, ["GET", "POST", "GET"]);
}

/// A request that was not answered may have made an attachment: it is not sent again, and the next call finds it.
#[tokio::test]
async fn what_may_have_been_promised_is_looked_for() {
    let server = Scripted::start(|number, head| {
        let promised =
            json!({"id": attachment_id(), "volume_id": volume_id(), "instance": server_id(), "status": "reserved"});
        let others =
            json!({"id": volume_id(), "volume_id": volume_id(), "instance": server_id(), "status": "attached"});
        match head.lines().next().unwrap_or_default() {
            line if line.starts_with("POST") => None,
            line if line.contains("/attachments?") && number < 4 => ok(&json!({"attachments": [others]})),
            line if line.contains("/attachments?") => ok(&json!({"attachments": [others, promised]})),
            _ => ok(&volume("p", "available")),
        }
    })
    .await;
    let (client, me) = (client(&server), member("p"));
    let reserve = || client.reserve(&me, volume_id(), attachment_id(), server_id(), AccessMode::ReadWrite);
    let error = reserve().await.unwrap_err();
    assert!(matches!(error, BlockStorageError::Unavailable { .. }), "{error:?}");
    assert_eq!(reserve().await.unwrap().id, attachment_id());
    assert_eq!(server.seen().iter().filter(|line| line.starts_with("POST")).count(), 1, "{:?}", server.seen());
}

/// OSSA-2018-001 (row 10): a server is not promised what its host would have to decrypt, so that no guest sees the device under the
/// encryption.
#[tokio::test]
async fn an_encrypted_volume_is_promised_to_nobody() {
    let server = Scripted::start(|_, head| match head.lines().next().unwrap_or_default() {
        line if line.starts_with("GET") && line.contains("/volumes/") => {
            let mut sealed = volume("p", "available");
            sealed["volume"]["encrypted"] = json!(true);
            ok(&sealed)
        }
        line if line.starts_with("GET") => ok(&json!({"attachments": []})),
        _ => ok(&json!({"attachment": {"id": attachment_id(), "volume_id": volume_id(), "status": "reserved"}})),
    })
    .await;
    let client = client(&server);
    assert!(client.volume(&member("p"), volume_id()).await.unwrap().encrypted);
    let asked = client.reserve(&member("p"), volume_id(), attachment_id(), server_id(), AccessMode::ReadWrite).await;
    assert!(
        matches!(&asked, Err(BlockStorageError::Invalid { message }) if message.contains("encrypted")),
        "{asked:?}"
    );
    assert!(server.seen().iter().all(|line| line.starts_with("GET")), "{:?}", server.seen());
}

/// Also row 10: the way to a volume that is encrypted is none, whoever promised it.
#[tokio::test]
async fn ways_to_a_volume_are_read_as_cinder_tells_them() {
    let told =
        |info: Value| json!({"attachment": {"id": attachment_id(), "volume_id": volume_id(), "connection_info": info}});
    let iscsi = json!({
        "driver_volume_type": "iscsi", "target_portal": "192.0.2.1:3260", "target_iqn": "iqn.x:a", "target_lun": 1,
        "auth_method": "CHAP", "auth_username": "u", "auth_password": "canary", "access_mode": "rw", "encrypted": false,
        "qos_specs": null, "discard": true, "attachment_id": attachment_id(),
    });
    let mut sealed = iscsi.clone();
    sealed["encrypted"] = json!(true);
    let answers = [
        told(iscsi),
        told(sealed),
        told(json!({"driver_volume_type": "rbd", "auth_password": "canary"})),
        told(Value::Null),
    ];
    let server = Scripted::start(move |number, _| ok(&answers[number - 1])).await;
    let (client, connector) = (client(&server), Connector::of("c1".into()));
    let info = client.connect(&admin(), attachment_id(), &connector).await.unwrap();
    assert_eq!(info.volume_id, volume_id());
    assert!(matches!(&info.target, ConnectionTarget::Iscsi(target) if target.auth.is_some()), "{info:?}");
    for part in ["encrypted", "driver_volume_type rbd", "did not say how"] {
        let error = client.connect(&admin(), attachment_id(), &connector).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn urls_that_cannot_be_asked_are_refused() {
    for (auth, endpoint) in [
        ("https://keystone", None),
        ("http://keystone", Some("https://cinder/v3")),
        ("http://keystone", Some("cinder:8776")),
    ] {
        let options =
            CinderOptions { endpoint: endpoint.map(str::to_owned), ..CinderOptions::new(auth, "nova", "secret") };
        let refused = CinderClient::new(options, Arc::new(TestClock), Arc::new(SeededEntropy::new(1)));
        assert!(matches!(refused, Err(OutsideError::Url { .. })), "{auth} {endpoint:?}");
    }
    let options = CinderOptions {
        endpoint: Some("http://cinder:8776/v3/%(project_id)s".to_owned()),
        ..CinderOptions::new("http://keystone", "nova", "secret")
    };
    let client = CinderClient::new(options, Arc::new(TestClock), Arc::new(SeededEntropy::new(1))).unwrap();
    assert!(!format!("{client:?}").contains("secret"));
    let error = OutsideError::Refused {
        service: "Cinder",
        status: StatusCode::NOT_FOUND,
        kind: String::new(),
        message: String::new(),
    };
    assert!(error.is_not_found());
}
