//! What is refused, and how.

use nova_core::ids::InstanceId;
use serde_json::{Value, json};

use super::{ADMIN, Bench, DEMO, OTHER, READER};

#[tokio::test]
async fn what_makes_no_sense_is_a_bad_request() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 2})).await;
    let action = format!("POST /volumes/{volume}/action");
    for (line, body) in [
        ("POST /volumes", json!({"volume": {}})),
        ("POST /volumes", json!({"volume": {"size": 0}})),
        ("POST /volumes", json!({"volume": {"size": "many"}})),
        ("POST /volumes", json!({"volume": {"size": 1, "name": "n".repeat(256)}})),
        ("POST /volumes", json!({"volume": {"size": 1, "metadata": {"": "v"}}})),
        ("POST /volumes", json!({"volume": {"size": 1, "availability_zone": "nowhere"}})),
        ("POST /volumes", json!({"volume": {"size": 1, "snapshot_id": "x"}})),
        ("POST /volumes", json!({"volume": {"size": 1, "source_volid": volume, "snapshot_id": volume}})),
        ("POST /volumes", json!({"volume": {"size": 1, "source_volid": volume}})),
        ("POST /volumes", json!({"volume": {"size": 1, "consistencygroup_id": volume}})),
        ("POST /volumes", json!({"volume": {"size": 1, "multiattach": true}})),
        ("POST /volumes", json!({"disk": {}})),
        ("POST /snapshots", json!({"snapshot": {"volume_id": "x"}})),
        ("POST /snapshots", json!({"snapshot": {"volume_id": volume, "force": false}})),
        ("POST /attachments", json!({"attachment": {"volume_uuid": volume, "connector": {"ip": "192.0.2.1"}}})),
        (action.as_str(), json!({"os-extend": {"new_size": 2}})),
        (action.as_str(), json!({"os-extend": {}})),
        (action.as_str(), json!({"os-unknown": {}})),
        (action.as_str(), json!({"os-extend": {"new_size": 3}, "os-retype": {}})),
        (action.as_str(), json!({"os-begin_detaching": {}})),
        (action.as_str(), json!({"os-volume_upload_image": {"image_name": "i", "disk_format": "vmdk"}})),
    ] {
        let (status, key, text) = bench.refused(DEMO, line, body.clone()).await;
        assert_eq!((status, key.as_str()), (400, "badRequest"), "{line} {body} {text}");
    }
    for query in ["limit=x", "sort=size:up", "sort_key=secret", "metadata={", "colour=blue", "offset=-1"] {
        let (status, ..) = bench.refused(DEMO, &format!("GET /volumes?{query}"), Value::Null).await;
        assert_eq!(status, 400, "{query}");
    }
    assert_eq!(bench.refused(DEMO, &action, json!({"os-migrate_volume": {}})).await.0, 501);
    assert_eq!(bench.status(&volume).await, "available");
}

/// Volumes are not moved: a server that has the data of one on another has the other one.
#[tokio::test]
async fn a_swap_is_completed_by_whoever_may() {
    let bench = Bench::new().await;
    let (old, new) = (bench.volume(DEMO, json!({"size": 1})).await, bench.volume(DEMO, json!({"size": 1})).await);
    let line = format!("POST /volumes/{old}/action");
    let body = |new: &str, error: bool| json!({"os-migrate_volume_completion": {"new_volume": new, "error": error}});
    assert_eq!(bench.refused(DEMO, &line, body(&new, false)).await.0, 403);
    for (error, kept) in [(false, &new), (true, &old)] {
        let (status, answer) = bench.call(ADMIN, &line, body(&new, error)).await;
        assert_eq!((status, answer["save_volume_id"].as_str()), (202, Some(kept.as_str())));
    }
    let nowhere = "00000000-0000-4000-8000-000000000000";
    assert_eq!(bench.refused(ADMIN, &line, body(nowhere, false)).await.0, 404);
    assert_eq!(bench.refused(ADMIN, &line, json!({"os-migrate_volume_completion": {}})).await.0, 400);
}

#[tokio::test]
async fn what_is_another_projects_is_not_there() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 1})).await;
    let body = json!({"snapshot": {"volume_id": volume}});
    let snapshot = bench.done(DEMO, "POST /snapshots", body, 202).await["snapshot"]["id"].as_str().unwrap().to_owned();
    let body = json!({"attachment": {"volume_uuid": volume}});
    let attachment =
        bench.done(DEMO, "POST /attachments", body, 200).await["attachment"]["id"].as_str().unwrap().to_owned();
    let offered = bench.volume(DEMO, json!({"size": 1})).await;
    let body = json!({"transfer": {"volume_id": offered}});
    let transfer =
        bench.done(DEMO, "POST /volume-transfers", body, 202).await["transfer"]["id"].as_str().unwrap().to_owned();
    let connector = json!({"attachment": {"connector": {"host": "c"}}});
    for (line, body) in [
        (format!("GET /volumes/{volume}"), Value::Null),
        (format!("PUT /volumes/{volume}"), json!({"volume": {"name": "mine"}})),
        (format!("DELETE /volumes/{volume}"), Value::Null),
        (format!("POST /volumes/{volume}/action"), json!({"os-extend": {"new_size": 9}})),
        (format!("GET /volumes/{volume}/metadata"), Value::Null),
        (format!("GET /snapshots/{snapshot}"), Value::Null),
        (format!("DELETE /snapshots/{snapshot}"), Value::Null),
        (format!("GET /attachments/{attachment}"), Value::Null),
        (format!("PUT /attachments/{attachment}"), connector),
        (format!("DELETE /attachments/{attachment}"), Value::Null),
        (format!("GET /volume-transfers/{transfer}"), Value::Null),
        (format!("DELETE /volume-transfers/{transfer}"), Value::Null),
        ("POST /volumes".to_owned(), json!({"volume": {"size": 1, "source_volid": volume}})),
        ("POST /volumes".to_owned(), json!({"volume": {"size": 1, "snapshot_id": snapshot}})),
        ("POST /snapshots".to_owned(), json!({"snapshot": {"volume_id": volume}})),
        ("POST /attachments".to_owned(), json!({"attachment": {"volume_uuid": volume}})),
        ("POST /volume-transfers".to_owned(), json!({"transfer": {"volume_id": volume}})),
    ] {
        let (status, key, _) = bench.refused(OTHER, &line, body).await;
        assert_eq!((status, key.as_str()), (404, "itemNotFound"), "{line}");
    }
    for path in ["/volumes/detail", "/snapshots/detail", "/attachments", "/volume-transfers"] {
        let list = bench.get(OTHER, path).await;
        let items = list.as_object().unwrap().values().next().unwrap();
        assert_eq!(items, &json!([]), "{path}");
    }
}

#[tokio::test]
async fn readers_read_and_only_administrators_operate() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 1})).await;
    bench.get(READER, &format!("/volumes/{volume}")).await;
    let action = format!("POST /volumes/{volume}/action");
    for (caller, line, body) in [
        (READER, "POST /volumes", json!({"volume": {"size": 1}})),
        (READER, action.as_str(), json!({"os-extend": {"new_size": 2}})),
        (READER, "POST /attachments", json!({"attachment": {"volume_uuid": volume}})),
        (DEMO, action.as_str(), json!({"os-reset_status": {"status": "error"}})),
        (DEMO, action.as_str(), json!({"os-force_delete": {}})),
        (DEMO, "GET /os-services", Value::Null),
        (DEMO, "GET /scheduler-stats/get_pools", Value::Null),
        (DEMO, "POST /types", json!({"volume_type": {"name": "t"}})),
        (DEMO, "PUT /os-quota-sets/p-demo", json!({"quota_set": {"volumes": 99}})),
        (DEMO, "GET /os-quota-sets/p-other", Value::Null),
    ] {
        let (status, key, _) = bench.refused(caller, line, body).await;
        assert_eq!((status, key.as_str()), (403, "forbidden"), "{line}");
    }
}

#[tokio::test]
async fn operators_repair() {
    let bench = Bench::new().await;
    let volume = bench.volume(DEMO, json!({"size": 1})).await;
    assert_eq!(bench.act(ADMIN, &volume, json!({"os-reset_status": {"status": "error"}})).await, 202);
    let body = json!({"attachment": {"volume_uuid": volume}});
    assert_eq!(bench.refused(DEMO, "POST /attachments", body.clone()).await.0, 400);
    assert_eq!(bench.act(ADMIN, &volume, json!({"os-reset_status": {"status": "available"}})).await, 202);
    bench.done(DEMO, "POST /attachments", body, 200).await;
    assert_eq!(bench.act(ADMIN, &volume, json!({"os-force_delete": {}})).await, 400);
    let detached = json!({"os-reset_status": {"status": "available", "attach_status": "detached"}});
    assert_eq!(bench.act(ADMIN, &volume, detached).await, 202);
    let server: InstanceId = "00000000-0000-4000-8000-0000000000aa".parse().unwrap();
    let body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": server, "connector": {"host": "c"}}});
    bench.done(DEMO, "POST /attachments", body, 200).await;
    // A host has it: books alone do not change that.
    let detached = json!({"os-reset_status": {"attach_status": "detached"}});
    assert_eq!(bench.act(ADMIN, &volume, detached).await, 400);
    assert_eq!(bench.act(ADMIN, &volume, json!({"os-force_detach": {}})).await, 202);
    assert_eq!(bench.status(&volume).await, "available");
    assert_eq!(bench.act(ADMIN, &volume, json!({"os-update_readonly_flag": {"readonly": true}})).await, 202);
    let body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": server}});
    assert_eq!(bench.refused(DEMO, "POST /attachments", body).await.0, 400);
    let body = json!({"attachment": {"volume_uuid": volume, "instance_uuid": server, "mode": "ro"}});
    bench.done(DEMO, "POST /attachments", body, 200).await;
}
