//! Key pairs at the versions around each change, and what must not pass.

use serde_json::{Value, json};

use super::Keypairs;
use crate::api::compute::ComputeOptions;
use crate::api::compute::test_support::{ADMIN, Bench, DEMO, OTHER, keys};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

fn import(name: &str) -> Value {
    json!({"keypair": {"name": name, "public_key": KEY}})
}

#[tokio::test]
async fn statuses_and_keys_follow_the_version() {
    let bench = Bench::new(Keypairs::new);
    let (status, made) = bench.call(DEMO, 1, "POST /os-keypairs", import("a")).await;
    assert_eq!((status, keys(&made["keypair"])), (200, vec!["fingerprint", "name", "public_key", "user_id"]));
    let (status, made) = bench.call(DEMO, 2, "POST /os-keypairs", import("b")).await;
    assert_eq!((status, keys(&made["keypair"])), (201, vec!["fingerprint", "name", "public_key", "type", "user_id"]));
    assert_eq!((&made["keypair"]["type"], &made["keypair"]["user_id"]), (&json!("ssh"), &json!("u-demo")));
    let list = bench.get(DEMO, 1, "/os-keypairs").await;
    assert_eq!(keys(&list["keypairs"][0]["keypair"]), ["fingerprint", "name", "public_key"]);
    let list = bench.get(DEMO, 2, "/os-keypairs").await;
    assert_eq!(keys(&list["keypairs"][0]["keypair"]), ["fingerprint", "name", "public_key", "type"]);
    let shown = bench.get(DEMO, 2, "/os-keypairs/a").await;
    let id = shown["keypair"]["id"].clone();
    assert!(id.is_i64());
    let expected = json!({
        "name": "a", "public_key": KEY, "fingerprint": super::public_key::fingerprint(KEY).unwrap(), "type": "ssh",
        "user_id": "u-demo", "id": id, "created_at": "2026-11-22T08:03:11.000000", "updated_at": null,
        "deleted": false, "deleted_at": null,
    });
    assert_eq!(shown["keypair"], expected);
    assert!(bench.get(DEMO, 1, "/os-keypairs/a").await["keypair"].get("type").is_none());
    assert_eq!(bench.call(DEMO, 1, "DELETE /os-keypairs/a", Value::Null).await, (202, Value::Null));
    assert_eq!(bench.call(DEMO, 2, "DELETE /os-keypairs/b", Value::Null).await, (204, Value::Null));
    let (status, text) = bench.refused(DEMO, 2, "DELETE /os-keypairs/b", Value::Null).await;
    assert_eq!((status, text.as_str()), (404, "Keypair b not found for user u-demo"));
    assert_eq!(bench.refused(DEMO, 2, "GET /os-keypairs/b", Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_private_key_is_shown_once_and_only_below_2_92() {
    let bench = Bench::new(Keypairs::new);
    let body = json!({"keypair": {"name": "made"}});
    let (status, made) = bench.call(DEMO, 2, "POST /os-keypairs", body.clone()).await;
    assert_eq!(status, 201);
    assert!(made["keypair"]["private_key"].as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(bench.get(DEMO, 2, "/os-keypairs/made").await["keypair"].get("private_key").is_none());
    let (status, text) = bench.refused(DEMO, 92, "POST /os-keypairs", body).await;
    assert_eq!(status, 400);
    assert!(text.contains("'public_key' is a required property"), "{text}");
    let x509 = json!({"keypair": {"name": "win", "type": "x509"}});
    assert_eq!(bench.refused(DEMO, 2, "POST /os-keypairs", x509).await.0, 400);
}

#[tokio::test]
async fn certificates_are_imported() {
    let bench = Bench::new(Keypairs::new);
    let body = json!({"keypair": {"name": "win", "type": "x509", "public_key": "MAQwAgUA"}});
    let (status, made) = bench.call(DEMO, 2, "POST /os-keypairs", body).await;
    assert_eq!((status, &made["keypair"]["type"]), (201, &json!("x509")));
    assert_eq!(made["keypair"]["fingerprint"].as_str().unwrap().len(), 59);
    let ssh = json!({"keypair": {"name": "w2", "type": "x509", "public_key": KEY}});
    assert_eq!(bench.refused(DEMO, 2, "POST /os-keypairs", ssh).await.0, 400);
}

#[tokio::test]
async fn names_and_keys_are_checked() {
    let bench = Bench::new(Keypairs::new);
    for name in ["", " ", "key/", "key.", "key\\", "key@", "key:", " a", "a ", &"k".repeat(256), "ключ"] {
        assert_eq!(bench.refused(DEMO, 1, "POST /os-keypairs", import(name)).await.0, 400, "{name:?}");
    }
    assert_eq!(bench.call(DEMO, 92, "POST /os-keypairs", import("me@host.example")).await.0, 201);
    assert_eq!(bench.refused(DEMO, 92, "POST /os-keypairs", import("key/")).await.0, 400);
    for key in ["", "junk", "ssh-rsa JUNK nova@ubuntu", "ssh-rsa AAAA"] {
        let body = json!({"keypair": {"name": "k", "public_key": key}});
        let (status, text) = bench.refused(DEMO, 1, "POST /os-keypairs", body).await;
        assert_eq!((status, text.as_str()), (400, "Keypair data is invalid: failed to generate fingerprint"));
    }
    for body in [
        json!({}),
        json!({"keypair": {}}),
        json!({"keypair": {"name": 1}}),
        json!({"keypair": {"name": "a", "public_key": null}}),
        json!({"keypair": {"name": "a", "public_key": KEY, "type": "ssh"}}),
        json!({"keypair": {"name": "a", "public_key": KEY, "user_id": "u-demo"}}),
        json!({"keypair": {"name": "a", "public_key": KEY}, "x": 1}),
    ] {
        assert_eq!(bench.refused(DEMO, 1, "POST /os-keypairs", body.clone()).await.0, 400, "{body}");
    }
    let kind = json!({"keypair": {"name": "a", "public_key": KEY, "type": "pgp"}});
    assert_eq!(bench.refused(DEMO, 2, "POST /os-keypairs", kind).await.0, 400);
    assert_eq!(bench.get(DEMO, 1, "/os-keypairs").await["keypairs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn names_are_unique_to_a_user_and_counted() {
    let bench = Bench::with_options(ComputeOptions { key_pairs: Some(2), ..ComputeOptions::default() }, Keypairs::new);
    assert_eq!(bench.call(DEMO, 1, "POST /os-keypairs", import("a")).await.0, 200);
    let (status, text) = bench.refused(DEMO, 1, "POST /os-keypairs", import("a")).await;
    assert_eq!((status, text.as_str()), (409, "Key pair 'a' already exists."));
    assert_eq!(bench.call(OTHER, 1, "POST /os-keypairs", import("a")).await.0, 200);
    assert_eq!(bench.call(DEMO, 1, "POST /os-keypairs", import("b")).await.0, 200);
    let (status, text) = bench.refused(DEMO, 1, "POST /os-keypairs", import("c")).await;
    assert_eq!((status, text.as_str()), (403, "Quota exceeded, too many key pairs."));
}

#[tokio::test]
async fn administrators_act_for_others_from_2_10_on() {
    let bench = Bench::new(Keypairs::new);
    let body = json!({"keypair": {"name": "a", "public_key": KEY, "user_id": "u-demo"}});
    assert_eq!(bench.refused(OTHER, 10, "POST /os-keypairs", body.clone()).await.0, 403);
    let (status, made) = bench.call(ADMIN, 10, "POST /os-keypairs", body).await;
    assert_eq!((status, &made["keypair"]["user_id"]), (201, &json!("u-demo")));
    bench.get(DEMO, 10, "/os-keypairs/a").await;
    bench.get(ADMIN, 10, "/os-keypairs/a?user_id=u-demo").await;
    assert_eq!(bench.refused(ADMIN, 9, "GET /os-keypairs/a?user_id=u-demo", Value::Null).await.0, 404);
    for line in
        ["GET /os-keypairs?user_id=u-demo", "GET /os-keypairs/a?user_id=u-demo", "DELETE /os-keypairs/a?user_id=u-demo"]
    {
        assert_eq!(bench.refused(OTHER, 10, line, Value::Null).await.0, 403, "{line}");
    }
    assert_eq!(bench.call(ADMIN, 10, "DELETE /os-keypairs/a?user_id=u-demo", Value::Null).await.0, 204);
}

#[tokio::test]
async fn lists_are_paged_from_2_35_and_strict_from_2_75() {
    let bench = Bench::new(Keypairs::new);
    for name in ["b", "c", "a"] {
        bench.call(DEMO, 1, "POST /os-keypairs", import(name)).await;
    }
    let names = |body: &Value| -> Vec<String> {
        let list = body["keypairs"].as_array().unwrap();
        list.iter().map(|k| k["keypair"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&bench.get(DEMO, 34, "/os-keypairs?limit=1").await).len(), 3);
    let page = bench.get(DEMO, 35, "/os-keypairs?limit=2").await;
    assert_eq!(names(&page), ["a", "b"]);
    assert_eq!(page["keypairs_links"][0]["href"], "http://h:8774/compute/v2.1/os-keypairs?limit=2&marker=b");
    assert_eq!(names(&bench.get(DEMO, 35, "/os-keypairs?marker=b").await), ["c"]);
    for query in ["limit=-1", "limit=x", "marker=nope"] {
        assert_eq!(bench.refused(DEMO, 35, &format!("GET /os-keypairs?{query}"), Value::Null).await.0, 400, "{query}");
    }
    bench.get(DEMO, 74, "/os-keypairs?foo=1").await;
    for line in ["GET /os-keypairs?foo=1", "GET /os-keypairs/a?foo=1", "DELETE /os-keypairs/a?limit=1"] {
        assert_eq!(bench.refused(DEMO, 75, line, Value::Null).await.0, 400, "{line}");
    }
}
