//! What hosts get, and by which leave.

use super::*;
use crate::image::GrantKey;

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
    let key = GrantKey::shared(&*cloud.store, &*cloud.entropy).await.unwrap();
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
