//! Who sees which images, and what may be said of them.

use super::*;

#[tokio::test]
async fn who_may_see_what() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.token("admin").await, cloud.token("demo").await);
    let stranger = cloud.another("stranger", &["member"]).await;
    let mut ids = std::collections::BTreeMap::new();
    for visibility in ["private", "shared", "community", "public"] {
        let owner = if visibility == "public" { &admin } else { &demo };
        ids.insert(visibility, create(&cloud, owner, json!({"name": visibility, "visibility": visibility})).await);
    }
    for (visibility, status) in [("private", 404), ("shared", 404), ("community", 200), ("public", 200)] {
        let path = format!("{IMAGES}/{}", ids[visibility]);
        assert_eq!(cloud.get(&stranger, &path).await.status, status, "{visibility}");
        assert_eq!(cloud.get(&stranger, &format!("{path}/tasks")).await.status, status, "{visibility}");
        assert_eq!(cloud.get(&admin, &path).await.status, 200, "{visibility}");
        let refused = if status == 404 { 404 } else { 403 };
        assert_eq!(cloud.call(&stranger, "DELETE", &path, Value::Null).await.status, refused, "{visibility}");
        assert_eq!(put(&cloud, &stranger, &ids[visibility], "x").await.status, refused, "{visibility}");
        assert_eq!(cloud.call(&stranger, "PUT", &format!("{path}/tags/x"), Value::Null).await.status, refused);
        let operations = json!([{"op": "replace", "path": "/name", "value": "mine"}]);
        assert_eq!(patch(&cloud, &stranger, &ids[visibility], operations).await.status, refused, "{visibility}");
        let file = cloud.get(&stranger, &format!("{path}/file")).await.status;
        assert_eq!(file, if status == 404 { 404 } else { 204 });
    }
    assert_eq!(names(&cloud, &stranger, "sort=name:asc").await, ["public"]);
    assert_eq!(names(&cloud, &stranger, "visibility=community").await, ["community"]);
    assert_eq!(names(&cloud, &stranger, "visibility=private").await, [""; 0]);
    assert_eq!(names(&cloud, &demo, "sort=name:asc").await, ["community", "private", "public", "shared"]);
    assert_eq!(
        names(&cloud, &admin, "sort=name:asc&visibility=all").await,
        ["community", "private", "public", "shared"]
    );
}

#[tokio::test]
async fn only_administrators_publish_and_readers_change_nothing() {
    let cloud = Cloud::new().await;
    let (demo, reader) = (cloud.token("demo").await, cloud.another("watcher", &["reader"]).await);
    assert_eq!(cloud.call(&demo, "POST", IMAGES, json!({"visibility": "public"})).await.status, 403);
    assert_eq!(cloud.call(&demo, "POST", IMAGES, json!({"owner": "another"})).await.status, 403);
    assert_eq!(cloud.call(&reader, "POST", IMAGES, json!({})).await.status, 403);
    let id = create(&cloud, &demo, json!({})).await;
    let publish = json!([{"op": "replace", "path": "/visibility", "value": "public"}]);
    assert_eq!(patch(&cloud, &demo, &id, publish).await.status, 403);
    assert_eq!(show(&cloud, &demo, &id).await["visibility"], "shared");
    assert_eq!(cloud.call(&demo, "POST", &format!("{IMAGES}/{id}/actions/deactivate"), Value::Null).await.status, 403);
}

#[tokio::test]
async fn lists_can_be_filtered_sorted_and_paged() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let mut ids = Vec::new();
    for (name, extra) in [
        ("a", json!({"instance_uuid": "i1", "image_type": "snapshot"})),
        ("b", json!({"instance_uuid": "i2", "tags": ["x", "y"]})),
        ("c", json!({"disk_format": "qcow2", "protected": true})),
        ("d", json!({"os_hidden": true})),
    ] {
        cloud.clock.advance(1);
        let mut fields = extra;
        fields["name"] = json!(name);
        ids.push(create(&cloud, &demo, fields).await);
    }
    assert_eq!(put(&cloud, &demo, &ids[0], "12345").await.status, 204);
    let in_ids = format!("id=in:{},{}&sort=name:asc", ids[0], ids[2]);
    let cases: Vec<(&str, &[&str])> = vec![
        ("", &["c", "b", "a"]),
        ("sort_key=name&sort_dir=asc", &["a", "b", "c"]),
        ("sort=name:asc,id", &["a", "b", "c"]),
        ("name=b", &["b"]),
        ("name=in:a,c", &["c", "a"]),
        ("instance_uuid=i1", &["a"]),
        ("image_type=snapshot&instance_uuid=i2", &[]),
        ("status=active", &["a"]),
        ("status=in:active,queued", &["c", "b", "a"]),
        ("disk_format=qcow2", &["c"]),
        ("protected=True", &["c"]),
        ("os_hidden=True", &["d"]),
        ("tag=x&tag=y", &["b"]),
        ("tag=x&tag=z", &[]),
        ("size_min=5&size_max=5", &["a"]),
        ("owner=unknown", &[]),
        ("visibility=shared", &["c", "b", "a"]),
        ("created_at=gt:2025-11-22T08:03:12Z", &["c", "b"]),
        ("limit=0", &[]),
        (&in_ids, &["a", "c"]),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&cloud, &demo, query).await, expected, "{query}");
    }
    let mut path = "/v2/images?limit=2&sort=name:asc".to_owned();
    let mut all = Vec::new();
    loop {
        let page = cloud.get(&demo, &format!("/image{path}")).await.json();
        all.extend(page["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = next.to_owned();
    }
    assert_eq!(all, ["a", "b", "c"]);
    for bad in [
        "limit=-1",
        "limit=a",
        "marker=x",
        "marker=9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a",
        "sort_key=x",
        "status=x",
        "visibility=x",
    ] {
        assert_eq!(cloud.get(&demo, &format!("{IMAGES}?{bad}")).await.status, 400, "{bad}");
    }
    let stranger = cloud.another("stranger", &["member"]).await;
    assert_eq!(cloud.get(&stranger, &format!("{IMAGES}?marker={}", ids[0])).await.status, 400);
}

#[tokio::test]
async fn attributes_are_patched_within_the_rules() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({"old": "1"})).await;
    cloud.clock.advance(5);
    let operations = json!([
        {"op": "replace", "path": "/name", "value": "renamed"},
        {"op": "add", "path": "/hw_disk_bus", "value": "scsi"},
        {"op": "add", "path": "/a~1b", "value": "slash"},
        {"op": "replace", "path": "/old", "value": "2"},
        {"op": "replace", "path": "/tags", "value": ["t"]},
        {"op": "replace", "path": "/min_disk", "value": 3},
    ]);
    let answer = patch(&cloud, &demo, &id, operations).await;
    assert_eq!(answer.status, 200);
    let image = answer.json();
    assert_eq!(
        (&image["name"], &image["hw_disk_bus"], &image["a/b"], &image["old"]),
        (&json!("renamed"), &json!("scsi"), &json!("slash"), &json!("2"))
    );
    assert_eq!((&image["tags"], &image["min_disk"]), (&json!(["t"]), &json!(3)));
    assert_ne!(image["updated_at"], image["created_at"]);
    let cases = [
        (json!([{"op": "remove", "path": "/name"}]), 403),
        (json!([{"op": "remove", "path": "/nothing"}]), 409),
        (json!([{"op": "replace", "path": "/nothing", "value": "x"}]), 409),
        (json!([{"op": "replace", "path": "/status", "value": "active"}]), 403),
        (json!([{"op": "add", "path": "/checksum", "value": "x"}]), 403),
        (json!([{"op": "add", "path": "/locations", "value": []}]), 403),
        (json!([{"op": "add", "path": "/deleted", "value": "x"}]), 403),
        (json!([{"op": "replace", "path": "/owner", "value": "x"}]), 403),
        (json!([{"op": "replace", "path": "/min_ram", "value": -1}]), 400),
        (json!([{"op": "replace", "path": "/min_ram", "value": "1"}]), 400),
        (json!([{"op": "replace", "path": "/protected", "value": "yes"}]), 400),
        (json!([{"op": "replace", "path": "/disk_format", "value": "floppy"}]), 400),
        (json!([{"op": "replace", "path": "/name", "value": "x".repeat(256)}]), 400),
        (json!([{"op": "add", "path": "/x", "value": 1}]), 400),
        (json!([{"op": "add", "path": "/x/y", "value": "1"}]), 400),
        (json!({"name": "x"}), 400),
        (json!([{"op": "add", "path": "/kept", "value": "x"}, {"op": "remove", "path": "/nothing"}]), 409),
    ];
    for (body, status) in cases {
        assert_eq!(patch(&cloud, &demo, &id, body.clone()).await.status, status, "{body}");
    }
    assert!(show(&cloud, &demo, &id).await.get("kept").is_none(), "all or nothing");
    let plain = cloud.call(&demo, "PATCH", &format!("{IMAGES}/{id}"), json!([])).await;
    assert_eq!(plain.status, 415);
    assert_eq!(patch(&cloud, &demo, "unknown", json!([])).await.status, 404);
    assert_eq!(put(&cloud, &demo, &id, "x").await.status, 204);
    let late = json!([{"op": "replace", "path": "/disk_format", "value": "qcow2"}]);
    assert_eq!(patch(&cloud, &demo, &id, late).await.status, 403, "the format is what was inspected");
}

#[tokio::test]
async fn malformed_images_are_refused_and_nothing_is_made() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let cases = [
        (json!([]), 400),
        (json!("x"), 400),
        (json!({"name": 1}), 400),
        (json!({"id": "x"}), 400),
        (json!({"disk_format": "floppy"}), 400),
        (json!({"disk_format": ["raw"]}), 400),
        (json!({"visibility": "secret"}), 400),
        (json!({"tags": "x"}), 400),
        (json!({"min_ram": 1.5}), 400),
        (json!({"min_disk": 99_999_999_999u64}), 400),
        (json!({"": "x"}), 400),
        (json!({"nested": {"a": 1}}), 400),
        (json!({"status": "active"}), 403),
        (json!({"size": 5}), 403),
        (json!({"location": "file:///etc/shadow"}), 403),
    ];
    for (body, status) in cases {
        assert_eq!(cloud.call(&demo, "POST", IMAGES, body.clone()).await.status, status, "{body}");
    }
    let many: serde_json::Map<_, _> = (0..129).map(|n| (format!("p{n}"), json!("x"))).collect();
    assert_eq!(cloud.call(&demo, "POST", IMAGES, Value::Object(many)).await.status, 413);
    assert_eq!(names(&cloud, &demo, "").await, [""; 0]);
    for path in ["x", "-1", "%2e%2e", "..%2f..%2fetc%2fpasswd", "999/file", "x/tags/y"] {
        assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{path}")).await.status / 100, 4, "{path}");
    }
    let id = create(&cloud, &demo, json!({"id": "9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a"})).await;
    assert_eq!(cloud.call(&demo, "POST", IMAGES, json!({"id": id})).await.status, 409);
    let id = create(&cloud, &demo, json!({"disk_format": null})).await;
    assert_eq!(put(&cloud, &demo, &id, "x").await.status, 400);
    assert_eq!(cloud.call(&demo, "PUT", &format!("{IMAGES}/{id}/file"), json!({})).await.status, 415);
}

#[tokio::test]
async fn tags_protection_and_small_routes() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.token("admin").await, cloud.token("demo").await);
    let id = create(&cloud, &demo, json!({"protected": true})).await;
    let path = format!("{IMAGES}/{id}");
    assert_eq!(cloud.call(&demo, "PUT", &format!("{path}/tags/a%20b"), Value::Null).await.status, 204);
    assert_eq!(show(&cloud, &demo, &id).await["tags"], json!(["a b"]));
    assert_eq!(cloud.call(&demo, "DELETE", &format!("{path}/tags/a%20b"), Value::Null).await.status, 204);
    assert_eq!(cloud.call(&demo, "DELETE", &format!("{path}/tags/a%20b"), Value::Null).await.status, 404);
    assert_eq!(cloud.call(&demo, "DELETE", &path, Value::Null).await.status, 403);
    assert_eq!(cloud.call(&admin, "DELETE", &path, Value::Null).await.status, 403);
    assert_eq!(cloud.get(&demo, &format!("{path}/tasks")).await.json(), json!({"tasks": []}));
    assert_eq!(cloud.get(&demo, &format!("{path}/members")).await.json()["members"], json!([]));
    assert_eq!(cloud.get(&demo, "/image/v2/schemas/image").await.json()["name"], "image");
    assert_eq!(cloud.get(&demo, "/image/v2/schemas/images").await.json()["name"], "images");
    assert_eq!(put(&cloud, &demo, &id, "x").await.status, 204);
    assert_eq!(cloud.call(&admin, "POST", &format!("{path}/actions/deactivate"), Value::Null).await.status, 204);
    assert_eq!(cloud.get(&demo, &format!("{path}/file")).await.status, 403);
    assert_eq!(cloud.get(&admin, &format!("{path}/file")).await.bytes, b"x");
    assert_eq!(cloud.call(&admin, "POST", &format!("{path}/actions/reactivate"), Value::Null).await.status, 204);
    assert_eq!(cloud.get(&demo, &format!("{path}/file")).await.status, 200);
}
