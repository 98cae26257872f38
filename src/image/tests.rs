//! Images through their API, as clients and hosts see them.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageService, ImageServiceError};
use nova_core::disk_format::samples;
use nova_core::ids::{ImageId, ProjectId, RequestId, UserId};
use nova_core::image::{Image, ImageStatus};
use nova_db::ImageStore;
use serde_json::{Value, json};

use super::ImageManager;
use crate::identity::testing::{Answer, Cloud};

const IMAGES: &str = "/image/v2/images";
const PATCH: &str = "application/openstack-images-v2.1-json-patch";

async fn create(cloud: &Cloud, token: &str, fields: Value) -> String {
    let mut body = json!({"name": "test", "disk_format": "raw", "container_format": "bare"});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    let answer = cloud.call(token, "POST", IMAGES, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn put(cloud: &Cloud, token: &str, id: &str, data: impl Into<Body>) -> Answer {
    let headers = [("x-auth-token", token), ("content-type", "application/octet-stream")];
    cloud.send("PUT", &format!("{IMAGES}/{id}/file"), &headers, data.into()).await
}

async fn show(cloud: &Cloud, token: &str, id: &str) -> Value {
    let answer = cloud.get(token, &format!("{IMAGES}/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn patch(cloud: &Cloud, token: &str, id: &str, body: Value) -> Answer {
    let headers = [("x-auth-token", token), ("content-type", PATCH)];
    cloud.send("PATCH", &format!("{IMAGES}/{id}"), &headers, Body::from(body.to_string())).await
}

async fn names(cloud: &Cloud, token: &str, query: &str) -> Vec<String> {
    let answer = cloud.get(token, &format!("{IMAGES}?{query}")).await;
    assert_eq!(answer.status, 200, "{query} {answer:?}");
    let text = |image: &Value| image["name"].as_str().unwrap_or_default().to_owned();
    answer.json()["images"].as_array().unwrap().iter().map(text).collect()
}

fn files(cloud: &Cloud) -> Vec<String> {
    let folder = cloud.place.path().join("images");
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn context(project: &str, roles: &[&str]) -> RequestContext {
    let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
    RequestContext {
        user_id: UserId::new("u"),
        project_id: ProjectId::new(project),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..RequestContext::internal(request_id)
    }
}

#[tokio::test]
async fn versions_are_told_without_a_token() {
    let cloud = Cloud::new().await;
    for (path, status) in [("/image", 300), ("/image/", 300), ("/image/versions", 200), ("/image/v2/", 200)] {
        let answer = cloud.get("", path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.json()["versions"][0]["id"], "v2.16");
        assert_eq!(answer.json()["versions"][0]["links"][0]["href"], "http://cloud:8774/image/v2/");
    }
    assert_eq!(cloud.get("", IMAGES).await.status, 401);
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_again() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({"owner_specified.openstack.md5": "", "min_ram": 64, "tags": ["a"]})).await;
    let image = show(&cloud, &demo, &id).await;
    assert_eq!(image["status"], "queued");
    assert_eq!(image["visibility"], "shared");
    assert_eq!(image["owner_specified.openstack.md5"], "");
    assert_eq!(image["file"], format!("/v2/images/{id}/file"));
    assert_eq!(
        (&image["size"], &image["checksum"], &image["os_hash_algo"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{id}/file")).await.status, 204);

    let data: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let pieces: Vec<Result<Bytes, std::io::Error>> =
        data.chunks(70_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let answer = put(&cloud, &demo, &id, Body::from_stream(stream::iter(pieces))).await;
    assert_eq!((answer.status, answer.bytes.len()), (204, 0));
    let image = show(&cloud, &demo, &id).await;
    assert_eq!(
        (&image["status"], &image["size"], &image["virtual_size"]),
        (&json!("active"), &json!(data.len()), &json!(data.len()))
    );
    assert_eq!(image["os_hash_algo"], "sha512");
    assert_eq!(files(&cloud), [id.as_str()]);

    let file = cloud.get(&demo, &format!("{IMAGES}/{id}/file")).await;
    assert_eq!(file.bytes, data);
    assert_eq!(file.header("content-md5"), image["checksum"].as_str().unwrap());
    assert_eq!(file.header("content-length"), data.len().to_string());
    assert_eq!(put(&cloud, &demo, &id, "again").await.status, 409);

    assert_eq!(cloud.call(&demo, "DELETE", &format!("{IMAGES}/{id}"), Value::Null).await.status, 204);
    assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{id}")).await.status, 404);
    assert!(files(&cloud).is_empty());
}

#[tokio::test]
async fn data_that_is_not_what_was_declared_leaves_the_image_queued_and_nothing_on_disk() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let backing = samples::qcow2_with(8, &512u64.to_be_bytes());
    let data_file = samples::qcow2_with(72, &4u64.to_be_bytes());
    let flat = samples::vmdk(&samples::descriptor("monolithicFlat", "RW 1 FLAT \"/etc/shadow\" 0"), false);
    let cases = [
        ("raw", samples::qcow2(), "qcow2"),
        ("raw", backing.clone(), "qcow2"),
        ("qcow2", samples::raw(), "raw"),
        ("qcow2", backing, "backing file"),
        ("qcow2", data_file, "external file"),
        ("vmdk", flat, "extent"),
        ("raw", samples::beginning_with(b"\x1f\x8b\x08"), "compressed"),
    ];
    for (format, data, reason) in cases {
        let id = create(&cloud, &demo, json!({"disk_format": format})).await;
        let answer = put(&cloud, &demo, &id, data).await;
        assert_eq!(answer.status, 400, "{format} {reason}");
        assert!(answer.json()["message"].as_str().unwrap().contains(reason), "{answer:?}");
        let image = show(&cloud, &demo, &id).await;
        assert_eq!(
            (&image["status"], &image["size"], &image["checksum"]),
            (&json!("queued"), &Value::Null, &Value::Null)
        );
        assert!(files(&cloud).is_empty());
    }
    let id = create(&cloud, &demo, json!({"disk_format": "qcow2"})).await;
    assert_eq!(put(&cloud, &demo, &id, samples::raw()).await.status, 400);
    assert_eq!(put(&cloud, &demo, &id, samples::qcow2()).await.status, 204, "the same image may be tried again");
    assert_eq!(show(&cloud, &demo, &id).await["virtual_size"], samples::DISK);
}

#[tokio::test]
async fn sizes_are_bounded() {
    let cloud = Cloud::with(|options| {
        options.max_size = 100_000;
        options.max_virtual_size = samples::DISK - 1;
        options.max_images = 3;
    })
    .await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    assert_eq!(put(&cloud, &demo, &id, vec![1; 100_001]).await.status, 413);
    let pieces = stream::iter((0..1000).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![1; 1000]))));
    assert_eq!(put(&cloud, &demo, &id, Body::from_stream(pieces)).await.status, 413);
    assert!(files(&cloud).is_empty());
    let declared =
        [("x-auth-token", demo.as_str()), ("content-type", "application/octet-stream"), ("content-length", "100001")];
    assert_eq!(cloud.send("PUT", &format!("{IMAGES}/{id}/file"), &declared, Body::empty()).await.status, 413);
    assert_eq!(put(&cloud, &demo, &id, vec![1; 100_000]).await.status, 204);
    let id = create(&cloud, &demo, json!({"disk_format": "vdi"})).await;
    assert_eq!(put(&cloud, &demo, &id, samples::vdi(1)).await.status, 400);
    create(&cloud, &demo, json!({})).await;
    assert_eq!(cloud.call(&demo, "POST", IMAGES, json!({"name": "one too many"})).await.status, 413);
}

#[tokio::test]
async fn a_project_has_only_so_much_room() {
    let cloud = Cloud::with(|options| options.project_quota = 1000).await;
    let demo = cloud.token("demo").await;
    let (first, second) = (create(&cloud, &demo, json!({})).await, create(&cloud, &demo, json!({})).await);
    assert_eq!(put(&cloud, &demo, &first, vec![1; 700]).await.status, 204);
    assert_eq!(put(&cloud, &demo, &second, vec![1; 301]).await.status, 413);
    assert_eq!(put(&cloud, &demo, &second, vec![1; 300]).await.status, 204);
}

#[tokio::test]
async fn an_upload_that_breaks_off_can_be_tried_again() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    let broken = stream::iter([Ok(Bytes::from_static(b"abc")), Err(std::io::Error::other("gone"))]);
    assert_eq!(put(&cloud, &demo, &id, Body::from_stream(broken)).await.status, 400);
    let short =
        [("x-auth-token", demo.as_str()), ("content-type", "application/octet-stream"), ("content-length", "10")];
    assert_eq!(cloud.send("PUT", &format!("{IMAGES}/{id}/file"), &short, Body::from("abc")).await.status, 400);
    assert_eq!(show(&cloud, &demo, &id).await["status"], "queued");
    assert!(files(&cloud).is_empty());
    assert_eq!(put(&cloud, &demo, &id, "abc").await.status, 204);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing() {
    let cloud = Arc::new(Cloud::new().await);
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    }));
    let (uploader, token, image) = (Arc::clone(&cloud), demo.clone(), id.clone());
    let upload = tokio::spawn(async move { put(&uploader, &token, &image, body).await });
    sender.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"def"))).await.unwrap();
    assert_eq!(show(&cloud, &demo, &id).await["status"], "saving");
    assert_eq!(put(&cloud, &demo, &id, "me too").await.status, 409);
    // The server drops the handler, and the body ends with an error.
    upload.abort();
    sender.send(Err(std::io::Error::other("connection reset"))).await.unwrap();
    sender.closed().await;
    while show(&cloud, &demo, &id).await["status"] == "saving" {
        tokio::task::yield_now().await;
    }
    assert_eq!(show(&cloud, &demo, &id).await["status"], "queued");
    assert!(files(&cloud).is_empty());
}

#[tokio::test]
async fn an_image_deleted_during_its_upload_leaves_nothing() {
    let cloud = Arc::new(Cloud::new().await);
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    }));
    let (uploader, token, image) = (Arc::clone(&cloud), demo.clone(), id.clone());
    let upload = tokio::spawn(async move { put(&uploader, &token, &image, body).await.status });
    sender.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"def"))).await.unwrap();
    assert_eq!(cloud.call(&demo, "DELETE", &format!("{IMAGES}/{id}"), Value::Null).await.status, 204);
    drop(sender);
    assert_eq!(upload.await.unwrap(), 410);
    assert!(files(&cloud).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_is_given_up() {
    let cloud = Arc::new(Cloud::new().await);
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    let body = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let (uploader, token, image) = (Arc::clone(&cloud), demo.clone(), id.clone());
    let upload = tokio::spawn(async move { put(&uploader, &token, &image, body).await.status });
    while !upload.is_finished() {
        // By hand, as time does not go on by itself while a thread waits for data.
        tokio::time::advance(cloud.images.options.stall_timeout).await;
    }
    assert_eq!(upload.await.unwrap(), 408);
    assert_eq!(show(&cloud, &demo, &id).await["status"], "queued");
    assert!(files(&cloud).is_empty());
}

#[tokio::test]
async fn what_a_crash_left_is_put_right_at_the_next_start() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let (broken, kept) = (create(&cloud, &demo, json!({})).await, create(&cloud, &demo, json!({})).await);
    assert_eq!(put(&cloud, &demo, &kept, "data").await.status, 204);
    let folder = cloud.place.path().join("images");
    let image = cloud.store.get_image(broken.parse().unwrap()).await.unwrap();
    cloud.store.update_image(Image { status: ImageStatus::Saving, ..image }).await.unwrap();
    // Once before the data got its name, once after.
    std::fs::write(folder.join(format!("{broken}.part")), "half").unwrap();
    std::fs::write(folder.join(&broken), "whole, but not recorded").unwrap();
    let images = Arc::clone(&cloud.store) as Arc<dyn ImageStore>;
    let again = ImageManager::open(images, cloud.clock.clone(), cloud.entropy.clone(), cloud.images.options.clone())
        .await
        .unwrap();
    assert_eq!(show(&cloud, &demo, &broken).await["status"], "queued");
    assert_eq!(show(&cloud, &demo, &kept).await["status"], "active");
    assert_eq!(files(&cloud), [kept]);
    drop(again);
}

#[tokio::test]
async fn a_start_beside_a_running_upload_leaves_it_alone() {
    let cloud = Arc::new(Cloud::new().await);
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    }));
    let (uploader, token, image) = (Arc::clone(&cloud), demo.clone(), id.clone());
    let upload = tokio::spawn(async move { put(&uploader, &token, &image, body).await.status });
    sender.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    sender.send(Ok(Bytes::from_static(b"def"))).await.unwrap();
    let images = Arc::clone(&cloud.store) as Arc<dyn ImageStore>;
    ImageManager::open(images, cloud.clock.clone(), cloud.entropy.clone(), cloud.images.options.clone()).await.unwrap();
    drop(sender);
    assert_eq!(upload.await.unwrap(), 204);
    assert_eq!(show(&cloud, &demo, &id).await["size"], 6);
}

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

#[tokio::test]
async fn hosts_get_what_was_inspected_and_nothing_else() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({"disk_format": "qcow2", "min_disk": 2, "hw_disk_bus": "scsi"})).await;
    let project = show(&cloud, &demo, &id).await["owner"].as_str().unwrap().to_owned();
    let (owner, stranger) = (context(&project, &["member"]), context("another", &["member"]));
    let id: ImageId = id.parse().unwrap();
    let service: &dyn ImageService = &*cloud.images;
    assert!(matches!(service.bootable_image(&owner, id).await, Err(ImageServiceError::NotActive { .. })));
    assert!(matches!(service.download(id, None).await, Err(ImageServiceError::NotActive { .. })));
    assert_eq!(put(&cloud, &demo, &id.to_string(), samples::qcow2()).await.status, 204);
    assert!(matches!(service.bootable_image(&stranger, id).await, Err(ImageServiceError::NotFound { .. })));
    let meta = service.bootable_image(&owner, id).await.unwrap();
    assert_eq!((meta.disk_format.as_str(), meta.virtual_size, meta.min_disk), ("qcow2", samples::DISK, 2));
    assert_eq!(meta.properties["hw_disk_bus"], "scsi");
    let mut data = service.download(id, None).await.unwrap();
    assert_eq!(cloud.call(&demo, "DELETE", &format!("{IMAGES}/{id}"), Value::Null).await.status, 204);
    let mut bytes = Vec::new();
    while let Some(piece) = data.next_chunk().await.unwrap() {
        assert!(piece.len() <= 1 << 20);
        bytes.extend(piece);
    }
    assert_eq!(bytes, samples::qcow2(), "who has begun to read may finish");
    assert_eq!(bytes.len() as u64, meta.size);
    assert!(matches!(service.download(id, None).await, Err(ImageServiceError::NotFound { .. })));
}

/// The answer to a download by whoever shows these headers.
async fn read(cloud: &Cloud, id: &str, headers: &[(&str, &str)]) -> Answer {
    cloud.send("GET", &format!("{IMAGES}/{id}/file"), headers, Body::empty()).await
}

/// Leave to read an image for so many seconds, as a conductor gives it.
async fn granted(cloud: &Cloud, id: &str, seconds: i64) -> String {
    let key = super::GrantKey::shared(&*cloud.store, &*cloud.entropy).await.unwrap();
    let until = cloud.clock.now() + jiff::SignedDuration::from_secs(seconds);
    key.grant(id.parse().unwrap(), until).reveal().to_owned()
}

#[tokio::test]
async fn a_grant_is_leave_to_read_one_image_for_a_while() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let (id, other) = (create(&cloud, &demo, json!({})).await, create(&cloud, &demo, json!({})).await);
    for id in [&id, &other] {
        assert_eq!(put(&cloud, &demo, id, "some data").await.status, 204);
    }
    let grant = granted(&cloud, &id, 60).await;
    let header = [("X-Image-Grant", grant.as_str())];
    let answer = read(&cloud, &id, &header).await;
    assert_eq!(
        (answer.status, answer.bytes.as_slice(), answer.header("content-length")),
        (200, &b"some data"[..], "9")
    );
    assert!(answer.header("x-openstack-request-id").starts_with("req-"));

    for wrong in ["", "1.2", &grant[1..], &grant[..grant.len() - 1], "\u{e4}", &granted(&cloud, &other, 60).await] {
        let answer = read(&cloud, &id, &[("x-image-grant", wrong)]).await;
        assert_eq!((answer.status, &answer.json()["code"]), (401, &json!("401 Unauthorized")), "{wrong}");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    assert_eq!(read(&cloud, &id, &[]).await.status, 401);
    assert_eq!(read(&cloud, &other, &header).await.status, 401);
    cloud.clock.advance(59);
    assert_eq!(read(&cloud, &id, &header).await.status, 200);
    cloud.clock.advance(1);
    assert_eq!(read(&cloud, &id, &header).await.status, 401);
}

#[tokio::test]
async fn a_grant_opens_nothing_else() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    let grant = granted(&cloud, &id, 60).await;
    let path = format!("{IMAGES}/{id}");
    let header = [("x-image-grant", grant.as_str()), ("content-type", "application/octet-stream")];
    let file = format!("{path}/file");
    for (method, path) in [
        ("PUT", file.as_str()),
        ("HEAD", &file),
        ("GET", &path),
        ("DELETE", &path),
        ("GET", IMAGES),
        ("GET", &format!("{path}/members")),
        ("GET", "/image/v2/schemas/image"),
        ("GET", "/identity/v3/projects"),
    ] {
        let answer = cloud.send(method, path, &header, Body::from("x")).await;
        assert_eq!(answer.status, 401, "{method} {path}");
    }
    // A token that is shown counts, and a grant beside it mends nothing.
    let stranger = cloud.another("stranger", &["member"]).await;
    let both = |token| [("x-image-grant", grant.as_str()), ("x-auth-token", token)];
    assert_eq!(put(&cloud, &demo, &id, "data").await.status, 204);
    assert_eq!(read(&cloud, &id, &both("forged")).await.status, 401);
    assert_eq!(read(&cloud, &id, &both(&stranger)).await.status, 404);
    assert_eq!(read(&cloud, &id, &both("")).await.status, 200);
}

#[tokio::test]
async fn a_grant_reads_what_a_token_would() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.token("admin").await, cloud.token("demo").await);
    let id = create(&cloud, &demo, json!({"visibility": "private"})).await;
    let grant = granted(&cloud, &id, 60).await;
    let header = [("x-image-grant", grant.as_str())];
    assert_eq!(read(&cloud, &id, &header).await.status, 204);
    assert_eq!(put(&cloud, &demo, &id, "0123456789").await.status, 204);
    let answer = read(&cloud, &id, &header).await;
    assert_eq!((answer.status, answer.bytes.as_slice()), (200, &b"0123456789"[..]));
    let path = format!("{IMAGES}/{id}");
    assert_eq!(cloud.call(&admin, "POST", &format!("{path}/actions/deactivate"), Value::Null).await.status, 204);
    assert_eq!(read(&cloud, &id, &header).await.status, 403);
    assert_eq!(cloud.call(&demo, "DELETE", &path, Value::Null).await.status, 204);
    assert_eq!(read(&cloud, &id, &header).await.status, 404);
}

#[tokio::test]
async fn a_download_can_go_on_where_it_broke_off() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, json!({})).await;
    assert_eq!(put(&cloud, &demo, &id, "0123456789").await.status, 204);
    let part = read(&cloud, &id, &[("x-auth-token", &demo), ("range", "bytes=4-")]).await;
    assert_eq!((part.status, part.bytes.as_slice()), (206, &b"456789"[..]));
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 4-9/10", "6"));
    for range in
        ["bytes=10-", "bytes=0-3", "bytes=-3", "bytes=2-,5-", "bytes=+1-", "bytes=99999999999999999999-", "x=1-"]
    {
        let whole = read(&cloud, &id, &[("x-auth-token", &demo), ("range", range)]).await;
        assert_eq!((whole.status, whole.bytes.as_slice()), (200, &b"0123456789"[..]), "{range}");
    }
}
