//! Images as compute showed them.

use serde_json::{Value, json};

use super::{ImageMetadata, Images};
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, keys};

async fn bench() -> Bench {
    Bench::new(Images::new).with_images().await.add(Images::new).add(ImageMetadata::new)
}

async fn ids(bench: &Bench, query: &str) -> Vec<String> {
    let body = bench.get(DEMO, 1, &format!("/images?{query}")).await;
    let mut ids: Vec<String> =
        body["images"].as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn images_are_listed_shown_and_removed() {
    let bench = bench().await;
    let id = bench.image(DEMO, "base", "active", &[]).await;
    bench.image(OTHER, "foreign", "active", &[]).await;
    let root = "http://h:8774/compute/v2.1/images";
    let brief = json!({"id": id, "name": "base", "links": [
        {"rel": "self", "href": format!("{root}/{id}")},
        {"rel": "bookmark", "href": format!("http://h:8774/compute/images/{id}")},
        {"rel": "alternate", "type": "application/vnd.openstack.image", "href": format!("http://h:8774/image/images/{id}")},
    ]});
    assert_eq!(bench.get(DEMO, 35, "/images").await, json!({"images": [brief]}));
    let shown = bench.get(DEMO, 1, &format!("/images/{id}")).await["image"].clone();
    let names = [
        "OS-EXT-IMG-SIZE:size",
        "created",
        "id",
        "links",
        "metadata",
        "minDisk",
        "minRam",
        "name",
        "progress",
        "status",
        "updated",
    ];
    assert_eq!(keys(&shown), names);
    assert_eq!((&shown["status"], &shown["progress"]), (&json!("ACTIVE"), &json!(100)));
    assert_eq!(bench.get(DEMO, 1, "/images/detail").await["images"][0], shown);
    for line in ["GET /images", "GET /images/detail"] {
        assert_eq!(bench.refused(DEMO, 36, line, Value::Null).await.0, 404);
    }
    let gone = (404, "Image not found.".to_owned());
    assert_eq!(bench.refused(OTHER, 1, &format!("GET /images/{id}"), Value::Null).await, gone);
    assert_eq!(bench.refused(OTHER, 1, &format!("DELETE /images/{id}"), Value::Null).await, gone);
    assert_eq!(bench.refused(DEMO, 1, "GET /images/nothing", Value::Null).await, gone);
    assert_eq!(bench.call(DEMO, 1, &format!("DELETE /images/{id}"), Value::Null).await, (204, Value::Null));
    assert_eq!(bench.refused(DEMO, 1, &format!("GET /images/{id}"), Value::Null).await, gone);
    let public = bench.public_image("all").await;
    let refused = bench.refused(DEMO, 1, &format!("DELETE /images/{public}"), Value::Null).await;
    assert_eq!(refused, (403, "You are not allowed to delete the image.".to_owned()));
    bench.get(ADMIN, 1, &format!("/images/{public}")).await;
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let bench = bench().await;
    let server = "7f7f7f7f-0000-4000-8000-000000000000";
    let base = bench.image(DEMO, "base", "active", &[]).await;
    bench.pass(10);
    let snapshot =
        bench.image(DEMO, "snap", "queued", &[("image_type", "snapshot"), ("instance_uuid", server), ("k", "v")]).await;
    for (query, wanted) in [
        ("name=base", vec![&base]),
        ("status=ACTIVE", vec![&base]),
        ("status=saving", vec![&snapshot]),
        ("status=unheard", vec![]),
        ("type=snapshot", vec![&snapshot]),
        ("type=base", vec![&base]),
        (&format!("server={server}"), vec![&snapshot]),
        (&format!("server=http%3A%2F%2Fh%2Fservers%2F{server}"), vec![&snapshot]),
        ("property-k=v", vec![&snapshot]),
        ("minRam=0&minDisk=0&name=base", vec![&base]),
        ("minRam=1", vec![]),
        ("changes-since=2026-11-22T08:03:15Z", vec![&snapshot]),
    ] {
        assert_eq!(ids(&bench, query).await.iter().collect::<Vec<_>>(), wanted, "{query}");
    }
    let page = bench.get(DEMO, 1, "/images/detail?limit=1").await;
    assert_eq!(page["images"][0]["id"], snapshot);
    assert_eq!(page["images"][0]["server"]["id"], server);
    let next = page["images_links"][0]["href"].as_str().unwrap();
    assert!(next.contains(&format!("images/detail?limit=1&marker={snapshot}")), "{next}");
    assert_eq!(ids(&bench, &format!("limit=1&marker={snapshot}")).await, [base]);
    for bad in ["limit=x", "marker=nothing", "changes-since=yesterday", "minRam=x"] {
        assert_eq!(bench.refused(DEMO, 1, &format!("GET /images?{bad}"), Value::Null).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn metadata_is_merged_replaced_and_removed() {
    let bench = bench().await;
    let id = bench.image(DEMO, "base", "active", &[("a", "1")]).await;
    let path = format!("/images/{id}/metadata");
    let call = async |line: String, body: Value| bench.call(DEMO, 38, &line, body).await;
    assert_eq!(bench.get(DEMO, 1, &path).await, json!({"metadata": {"a": "1"}}));
    let both = json!({"metadata": {"a": "2", "b": "3"}});
    assert_eq!(call(format!("POST {path}"), both.clone()).await, (200, both));
    let one = json!({"meta": {"c": "4"}});
    assert_eq!(call(format!("PUT {path}/c"), one.clone()).await, (200, one.clone()));
    assert_eq!(bench.get(DEMO, 1, &format!("{path}/c")).await, one);
    let only = json!({"metadata": {"d": "5"}});
    assert_eq!(call(format!("PUT {path}"), only.clone()).await, (200, only));
    assert_eq!(call(format!("DELETE {path}/d"), Value::Null).await, (204, Value::Null));
    let refused = async |line: String, body: Value| bench.refused(DEMO, 1, &line, body).await;
    assert_eq!(refused(format!("DELETE {path}/d"), Value::Null).await, (404, "Invalid metadata key".to_owned()));
    assert_eq!(refused(format!("GET {path}/d"), Value::Null).await.0, 404);
    assert_eq!(refused(format!("PUT {path}/x"), json!({"meta": {"y": "1"}})).await.1, "Request body and URI mismatch");
    for body in [json!({}), json!({"meta": {}}), json!({"meta": {"x": 1}}), json!({"meta": {"x": "1", "y": "2"}})] {
        assert_eq!(refused(format!("PUT {path}/x"), body.clone()).await.0, 400, "{body}");
    }
    // What is an attribute cannot be a property.
    assert_eq!(refused(format!("POST {path}"), json!({"metadata": {"status": "deleted"}})).await.0, 403);
    let many: serde_json::Map<String, Value> = (0..129).map(|number| (format!("k{number}"), json!("v"))).collect();
    let over = refused(format!("PUT {path}"), json!({ "metadata": many })).await;
    assert_eq!(over, (403, "Image metadata limit exceeded".to_owned()));
    assert_eq!(bench.refused(DEMO, 39, &format!("GET {path}"), Value::Null).await.0, 404);
    assert_eq!(bench.refused(OTHER, 1, &format!("GET {path}"), Value::Null).await.0, 404);
    let public = bench.public_image("all").await;
    let path = format!("/images/{public}/metadata");
    assert_eq!(bench.refused(DEMO, 1, &format!("POST {path}"), json!({"metadata": {"x": "y"}})).await.0, 403);
}

#[tokio::test]
async fn images_of_another_service_are_not_passed_on() {
    let bench = Bench::new(Images::new);
    assert_eq!(bench.call(DEMO, 1, "GET /images", Value::Null).await.0, 501);
}
