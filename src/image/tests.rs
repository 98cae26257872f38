//! Images through their API, as clients and hosts see them.

mod hosts;
mod records;

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
