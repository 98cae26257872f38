//! Identity through its API, as clients see it.

use std::sync::Arc;

use axum::body::Body;
use futures_util::FutureExt;
use nova_core::contracts::{IdentityError, IdentityService};
use serde_json::{Value, json};

use super::testing::{Cloud, login_body, manager};

const TOKENS: &str = "/identity/v3/auth/tokens";

async fn subject(cloud: &Cloud, method: &str, token: &str, subject: &str) -> super::testing::Answer {
    cloud.send(method, TOKENS, &[("x-auth-token", token), ("x-subject-token", subject)], Body::empty()).await
}

#[tokio::test]
async fn versions_are_told_without_a_token() {
    let cloud = Cloud::new().await;
    for path in ["/identity", "/identity/"] {
        let answer = cloud.get("", path).await;
        assert_eq!(answer.status, 300);
        assert_eq!(answer.json()["versions"]["values"][0]["id"], "v3.14");
    }
    for path in ["/identity/v3", "/identity/v3/"] {
        let answer = cloud.get("", path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["version"]["links"][0]["href"], "http://cloud:8774/identity/v3/");
    }
}

#[tokio::test]
async fn a_login_gives_a_token_with_roles_and_catalog() {
    let cloud = Cloud::new().await;
    let answer = cloud.login("admin", cloud.password("admin"), Some("admin")).await;
    assert_eq!(answer.status, 201);
    assert!(answer.header("x-subject-token").len() < 1024);
    assert!(answer.header("x-openstack-request-id").starts_with("req-"));
    let token = &answer.json()["token"];
    assert_eq!(token["methods"], json!(["password"]));
    assert_eq!(token["user"]["domain"], json!({"id": "default", "name": "Default"}));
    assert_eq!(token["project"]["name"], "admin");
    let roles: Vec<_> = token["roles"].as_array().unwrap().iter().map(|role| role["name"].clone()).collect();
    assert_eq!(roles, ["admin", "manager", "member", "reader"]);
    let types: Vec<_> = token["catalog"].as_array().unwrap().iter().map(|service| service["type"].clone()).collect();
    assert_eq!(types, ["identity", "compute", "image", "network"]);
    assert_eq!(token["issued_at"], "2025-11-22T08:03:11.000000Z");
    assert_eq!(token["expires_at"], "2025-11-22T09:03:11.000000Z");
    assert_eq!(token["audit_ids"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_login_the_answer_is_the_same() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.password("admin"), cloud.password("demo"));
    let mut answers = Vec::new();
    for (user, password, project) in [
        ("admin", "wrong", Some("admin")),
        ("nobody", admin, Some("admin")),
        ("demo", demo, Some("admin")),
        ("demo", demo, Some("nowhere")),
        ("", "", None),
    ] {
        let answer = cloud.login(user, password, project).await;
        assert_eq!(answer.status, 401, "{user} {project:?}");
        answers.push(answer.json());
    }
    assert_eq!(answers[0]["error"]["code"], 401);
    assert_eq!(answers[0]["error"]["title"], "Unauthorized");
    assert_eq!(answers[0]["error"]["message"], "The request you have made requires authentication.");
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    let mut system = login_body("admin", admin, None);
    system["auth"]["scope"] = json!({"system": {"all": true}});
    assert_eq!(cloud.call("", "POST", TOKENS, system).await.status, 401);
}

#[tokio::test]
async fn malformed_logins_are_400() {
    let cloud = Cloud::new().await;
    for body in ["", "{", "[]", "null", "{\"auth\": 1}", "{\"auth\": {\"identity\": {}}}", "\u{feff}{}"] {
        let answer = cloud.send("POST", TOKENS, &[], Body::from(body)).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"]["title"], "Bad Request");
    }
    let answer = cloud.send("POST", TOKENS, &[("content-type", "text/plain")], Body::from("{}")).await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn a_token_can_be_narrowed_and_moved_but_lasts_no_longer() {
    let cloud = Cloud::new().await;
    let first = cloud.login("demo", cloud.password("demo"), None).await;
    assert!(first.json()["token"].get("project").is_none() && first.json()["token"].get("catalog").is_none());
    let unscoped = first.header("x-subject-token").to_owned();
    assert_eq!(cloud.get(&unscoped, "/identity/v3/auth/projects").await.json()["projects"][0]["name"], "demo");
    assert_eq!(cloud.get(&unscoped, "/identity/v3/auth/catalog").await.status, 403);
    cloud.clock.advance(600);
    let scope = json!({"project": {"name": "demo", "domain": {"id": "default"}}});
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": unscoped}}, "scope": scope}});
    let second = cloud.call("", "POST", TOKENS, body.clone()).await;
    assert_eq!(second.status, 201);
    let (old, new) = (first.json(), second.json());
    assert_eq!(new["token"]["expires_at"], old["token"]["expires_at"]);
    assert_eq!(new["token"]["methods"], json!(["password", "token"]));
    assert_eq!(new["token"]["audit_ids"][1], old["token"]["audit_ids"][0]);
    assert_eq!(new["token"]["project"]["name"], "demo");
    let mut elsewhere = body;
    elsewhere["auth"]["scope"]["project"]["name"] = json!("admin");
    assert_eq!(cloud.call("", "POST", TOKENS, elsewhere).await.status, 401);
}

#[tokio::test]
async fn a_token_ends_at_its_time() {
    let cloud = Cloud::new().await;
    let token = cloud.token("demo").await;
    cloud.clock.advance(3599);
    assert!(cloud.identity.validate(&token).await.is_ok());
    cloud.clock.advance(1);
    assert!(matches!(cloud.identity.validate(&token).await, Err(IdentityError::Unauthorized)));
}

#[tokio::test]
async fn checking_a_token_asks_no_database() {
    let cloud = Cloud::new().await;
    let token = cloud.token("demo").await;
    // Another manager over the same store reads it once at start, and has no other way to know.
    let other = manager(&cloud.store, &cloud.clock, &cloud.entropy).await;
    // As long as this is held, nobody comes to the store.
    let _held = other.reading.lock().await;
    let info = other.validate(&token).now_or_never().unwrap().unwrap();
    assert_eq!(info, cloud.identity.validate(&token).await.unwrap());
    assert_eq!(info.roles.iter().map(|role| role.name.as_str()).collect::<Vec<_>>(), ["member", "reader"]);
}

#[tokio::test]
async fn tokens_are_shown_to_their_owner_and_to_administrators() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.token("admin").await, cloud.token("demo").await);
    let shown = subject(&cloud, "GET", &admin, &demo).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.header("x-subject-token"), demo);
    assert_eq!(shown.json()["token"]["user"]["name"], "demo");
    assert_eq!(subject(&cloud, "GET", &demo, &demo).await.status, 200);
    let head = subject(&cloud, "HEAD", &demo, &demo).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    assert_eq!(subject(&cloud, "GET", &demo, &admin).await.status, 403);
    assert_eq!(subject(&cloud, "GET", &demo, "n1.forged.token").await.status, 403);
    assert_eq!(subject(&cloud, "GET", &admin, "n1.forged.token").await.status, 404);
    assert_eq!(subject(&cloud, "GET", "n1.forged.token", &demo).await.status, 401);
    assert_eq!(cloud.get(&admin, TOKENS).await.status, 400);
}

#[tokio::test]
async fn a_token_that_is_taken_back_stops_at_once_and_everywhere() {
    let cloud = Cloud::new().await;
    let other = manager(&cloud.store, &cloud.clock, &cloud.entropy).await;
    let (token, kept) = (cloud.token("demo").await, cloud.token("demo").await);
    assert_eq!(subject(&cloud, "DELETE", &token, &token).await.status, 204);
    assert_eq!(cloud.get(&token, "/identity/v3/auth/projects").await.status, 401);
    assert_eq!(cloud.get(&kept, "/identity/v3/auth/projects").await.status, 200);
    assert!(other.validate(&token).await.is_ok(), "the other process has not looked yet");
    other.refresh().await.unwrap();
    assert!(other.validate(&token).await.is_err());
    assert!(other.validate(&kept).await.is_ok());
}

/// Does a change made by an administrator end a token of demo's, here and in another process?
async fn ends_tokens(change: impl AsyncFnOnce(&Cloud, &str)) {
    let cloud = Cloud::new().await;
    let other = manager(&cloud.store, &cloud.clock, &cloud.entropy).await;
    let (admin, token) = (cloud.token("admin").await, cloud.token("demo").await);
    assert!(other.validate(&token).await.is_ok());
    cloud.clock.advance(1);
    change(&cloud, &admin).await;
    assert!(cloud.identity.validate(&token).await.is_err());
    other.refresh().await.unwrap();
    assert!(other.validate(&token).await.is_err());
}

async fn patch(cloud: &Cloud, admin: &str, collection: &str, name: &str, fields: Value) {
    let id = cloud.id(collection, name).await;
    let path = format!("/identity/v3/{collection}/{id}");
    let answer = cloud.call(admin, "PATCH", &path, json!({collection.trim_end_matches('s'): fields})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn disabling_or_deleting_ends_tokens() {
    ends_tokens(async |cloud, admin| patch(cloud, admin, "users", "demo", json!({"enabled": false})).await).await;
    ends_tokens(async |cloud, admin| patch(cloud, admin, "projects", "demo", json!({"enabled": false})).await).await;
    ends_tokens(async |cloud, admin| patch(cloud, admin, "users", "demo", json!({"password": "another"})).await).await;
    for collection in ["users", "projects"] {
        ends_tokens(async |cloud, admin| {
            let id = cloud.id(collection, "demo").await;
            let answer = cloud.call(admin, "DELETE", &format!("/identity/v3/{collection}/{id}"), Value::Null).await;
            assert_eq!(answer.status, 204);
        })
        .await;
    }
    ends_tokens(async |cloud, admin| {
        let (project, user, role) =
            (cloud.id("projects", "demo").await, cloud.id("users", "demo").await, cloud.id("roles", "member").await);
        let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
        assert_eq!(cloud.call(admin, "DELETE", &path, Value::Null).await.status, 204);
        assert_eq!(cloud.call(admin, "DELETE", &path, Value::Null).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_enabled_again_needs_a_new_token() {
    let cloud = Cloud::new().await;
    let (admin, token) = (cloud.token("admin").await, cloud.token("demo").await);
    cloud.clock.advance(1);
    patch(&cloud, &admin, "users", "demo", json!({"enabled": false})).await;
    assert_eq!(cloud.login("demo", cloud.password("demo"), Some("demo")).await.status, 401);
    patch(&cloud, &admin, "users", "demo", json!({"enabled": true})).await;
    assert!(cloud.identity.validate(&token).await.is_err());
    assert!(cloud.identity.validate(&cloud.token("demo").await).await.is_ok());
}

#[tokio::test]
async fn a_process_that_lags_behind_knows_new_users_all_the_same() {
    let cloud = Cloud::new().await;
    let other = manager(&cloud.store, &cloud.clock, &cloud.entropy).await;
    let token = cloud.another("late", &["reader"]).await;
    assert_eq!(other.validate(&token).await.unwrap().user.name, "late");
}

#[tokio::test(start_paused = true)]
async fn the_background_loop_takes_over_what_others_change_and_ends() {
    let cloud = Cloud::new().await;
    let other = Arc::new(manager(&cloud.store, &cloud.clock, &cloud.entropy).await);
    let token = cloud.token("demo").await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&other).run(cancel.clone()));
    assert_eq!(subject(&cloud, "DELETE", &token, &token).await.status, 204);
    tokio::time::sleep(super::testing::identity_options().refresh_interval * 2).await;
    assert!(other.validate(&token).await.is_err());
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn everybody_may_change_their_own_password() {
    let cloud = Cloud::new().await;
    let (id, old) = (cloud.id("users", "demo").await, cloud.password("demo"));
    let token = cloud.token("demo").await;
    let path = format!("/identity/v3/users/{id}/password");
    let change = |original: &str| json!({"user": {"original_password": original, "password": "new one"}});
    assert_eq!(cloud.call(&token, "POST", &path, change("wrong")).await.status, 401);
    assert_eq!(cloud.call("", "POST", "/identity/v3/users/nobody/password", change(old)).await.status, 401);
    assert_eq!(cloud.call("", "POST", &path, json!({"user": {"password": "x"}})).await.status, 400);
    cloud.clock.advance(1);
    assert_eq!(cloud.call(&token, "POST", &path, change(old)).await.status, 204);
    assert_eq!(cloud.login("demo", old, None).await.status, 401);
    assert_eq!(cloud.login("demo", "new one", None).await.status, 201);
    assert!(cloud.identity.validate(&token).await.is_err());
}

#[tokio::test]
async fn what_tempest_does_for_its_credentials_works() {
    let cloud = Cloud::new().await;
    let admin = cloud.token("admin").await;
    let domains = cloud.get(&admin, "/identity/v3/domains?name=Default").await.json();
    assert_eq!(domains["domains"][0]["id"], "default");
    assert_eq!(domains["links"]["self"], "http://cloud:8774/identity/v3/domains?name=Default");
    let body = json!({"project": {"name": "tempest-1", "description": "tempest-1-desc", "domain_id": "default"}});
    let project = cloud.call(&admin, "POST", "/identity/v3/projects", body.clone()).await;
    assert_eq!(project.status, 201);
    assert_eq!(cloud.call(&admin, "POST", "/identity/v3/projects", body).await.status, 409);
    let project = project.json()["project"]["id"].as_str().unwrap().to_owned();
    let body = json!({"user": {"name": "tempest-1-u", "password": "p", "domain_id": "default", "enabled": true, "email": "x@y"}});
    let user = cloud.call(&admin, "POST", "/identity/v3/users", body.clone()).await;
    assert_eq!(user.status, 201);
    assert!(!String::from_utf8_lossy(&user.bytes).contains("password\":\"p"));
    assert_eq!(cloud.call(&admin, "POST", "/identity/v3/users", body).await.status, 409);
    let user = user.json()["user"]["id"].as_str().unwrap().to_owned();
    let roles = cloud.get(&admin, "/identity/v3/roles").await.json();
    let names: Vec<_> = roles["roles"].as_array().unwrap().iter().map(|role| role["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "manager", "member", "reader", "service"]);
    let role = cloud.id("roles", "member").await;
    let grant = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    assert_eq!(cloud.call(&admin, "HEAD", &grant, Value::Null).await.status, 404);
    assert_eq!(cloud.call(&admin, "PUT", &grant, Value::Null).await.status, 204);
    assert_eq!(cloud.call(&admin, "PUT", &grant, Value::Null).await.status, 204);
    assert_eq!(cloud.call(&admin, "HEAD", &grant, Value::Null).await.status, 204);
    assert_eq!(cloud.login("tempest-1-u", "p", Some("tempest-1")).await.status, 201);
    let assignments = format!("/identity/v3/role_assignments?user.id={user}&include_names=True");
    let assignments = cloud.get(&admin, &assignments).await.json();
    assert_eq!(assignments["role_assignments"][0]["role"]["name"], "member");
    assert_eq!(assignments["role_assignments"][0]["scope"]["project"]["name"], "tempest-1");
    assert_eq!(assignments["role_assignments"][0]["user"]["domain"]["name"], "Default");
    let of_user = cloud.get(&admin, &format!("/identity/v3/users/{user}/projects")).await.json();
    assert_eq!(of_user["projects"][0]["id"], project.as_str());
    for path in [format!("/identity/v3/users/{user}"), format!("/identity/v3/projects/{project}")] {
        assert_eq!(cloud.call(&admin, "DELETE", &path, Value::Null).await.status, 204);
        assert_eq!(cloud.get(&admin, &path).await.status, 404);
    }
    assert_eq!(
        cloud.get(&admin, &format!("/identity/v3/role_assignments?user.id={user}")).await.json()["role_assignments"],
        json!([])
    );
}

#[tokio::test]
async fn members_see_themselves_and_nothing_else() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let own = [
        format!("users/{}", cloud.id("users", "demo").await),
        format!("users/{}/projects", cloud.id("users", "demo").await),
        format!("projects/{}", cloud.id("projects", "demo").await),
        "auth/catalog".to_owned(),
        "auth/projects".to_owned(),
        "regions".to_owned(),
    ];
    for path in own {
        assert_eq!(cloud.get(&demo, &format!("/identity/v3/{path}")).await.status, 200, "{path}");
    }
    let admin_id = cloud.id("users", "admin").await;
    let foreign = [
        "users".to_owned(),
        "projects".to_owned(),
        "domains".to_owned(),
        "roles".to_owned(),
        "role_assignments".to_owned(),
        "services".to_owned(),
        "endpoints".to_owned(),
        format!("users/{admin_id}"),
        "users/unknown".to_owned(),
    ];
    for path in foreign {
        let answer = cloud.get(&demo, &format!("/identity/v3/{path}")).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.json()["error"]["title"], "Forbidden");
    }
    for (collection, key) in [("users", "user"), ("projects", "project"), ("domains", "domain"), ("roles", "role")] {
        let path = format!("/identity/v3/{collection}");
        assert_eq!(cloud.call(&demo, "POST", &path, json!({key: {"name": "x"}})).await.status, 403, "{path}");
        let path = format!("{path}/{admin_id}");
        assert_eq!(cloud.call(&demo, "PATCH", &path, json!({key: {"name": "x"}})).await.status, 403, "{path}");
        assert_eq!(cloud.call(&demo, "DELETE", &path, Value::Null).await.status, 403, "{path}");
        assert_eq!(cloud.get("", &path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn wrong_input_is_a_4xx_and_changes_nothing() {
    let cloud = Cloud::new().await;
    let admin = cloud.token("admin").await;
    let before = cloud.identity.current().await.unwrap().version;
    let long = "x".repeat(65);
    let cases = [
        ("users", json!({"user": {}}), 400),
        ("users", json!({"user": []}), 400),
        ("users", json!([]), 400),
        ("users", json!({"user": {"name": " "}}), 400),
        ("users", json!({"user": {"name": 5}}), 400),
        ("users", json!({"user": {"name": "a\u{0}"}}), 400),
        ("users", json!({"user": {"name": "a", "enabled": "yes"}}), 400),
        ("users", json!({"user": {"name": "a", "password": ""}}), 400),
        ("users", json!({"user": {"name": "a", "domain_id": "unknown"}}), 404),
        ("projects", json!({"project": {"name": long}}), 400),
        ("projects", json!({"project": {"name": "a", "is_domain": true}}), 400),
        ("projects", json!({"project": {"name": "a", "parent_id": "x"}}), 400),
        ("projects", json!({"project": {"name": "a", "domain_id": "unknown"}}), 404),
        ("domains", json!({"domain": {"name": "DEFAULT"}}), 409),
        ("roles", json!({"role": {"name": "Admin"}}), 409),
        ("roles", json!({"role": {"name": "a", "description": {}}}), 400),
    ];
    for (collection, body, status) in cases {
        let answer = cloud.call(&admin, "POST", &format!("/identity/v3/{collection}"), body.clone()).await;
        assert_eq!(answer.status, status, "{collection} {body} {answer:?}");
        assert_eq!(answer.json()["error"]["code"], status);
    }
    for path in [
        "users/x",
        "projects/x",
        "domains/x",
        "roles/x",
        "projects/x/users/y/roles/z",
        "services/x",
        "nothing",
        "users/%00",
    ] {
        assert_eq!(cloud.get(&admin, &format!("/identity/v3/{path}")).await.status, 404, "{path}");
    }
    assert_eq!(cloud.identity.current().await.unwrap().version, before);
}

#[tokio::test]
async fn built_in_roles_and_the_domain_in_use_stay() {
    let cloud = Cloud::new().await;
    let admin = cloud.token("admin").await;
    let role = format!("/identity/v3/roles/{}", cloud.id("roles", "admin").await);
    assert_eq!(cloud.call(&admin, "DELETE", &role, Value::Null).await.status, 403);
    assert_eq!(cloud.call(&admin, "PATCH", &role, json!({"role": {"name": "x"}})).await.status, 403);
    let domain = "/identity/v3/domains/default";
    assert_eq!(cloud.call(&admin, "DELETE", domain, Value::Null).await.status, 403);
    let made = cloud.call(&admin, "POST", "/identity/v3/domains", json!({"domain": {"name": "second"}})).await.json();
    let path = format!("/identity/v3/domains/{}", made["domain"]["id"].as_str().unwrap());
    let body = json!({"project": {"name": "demo", "domain_id": made["domain"]["id"]}});
    assert_eq!(cloud.call(&admin, "POST", "/identity/v3/projects", body).await.status, 201, "names are per domain");
    assert_eq!(cloud.call(&admin, "PATCH", &path, json!({"domain": {"enabled": false}})).await.status, 200);
    assert_eq!(cloud.call(&admin, "DELETE", &path, Value::Null).await.status, 409);
}

#[tokio::test]
async fn the_catalog_can_be_read_as_lists() {
    let cloud = Cloud::new().await;
    let admin = cloud.token("admin").await;
    let services = cloud.get(&admin, "/identity/v3/services?type=image").await.json();
    let id = services["services"][0]["id"].as_str().unwrap();
    assert_eq!(cloud.get(&admin, &format!("/identity/v3/services/{id}")).await.json()["service"]["name"], "glance");
    let endpoints = cloud.get(&admin, &format!("/identity/v3/endpoints?service_id={id}&interface=public")).await.json();
    assert_eq!(endpoints["endpoints"].as_array().unwrap().len(), 1);
    assert_eq!(endpoints["endpoints"][0]["url"], "http://cloud:8774/image");
}

#[tokio::test]
async fn bootstrap_can_be_repeated_and_gives_passwords_once() {
    let cloud = Cloud::new().await;
    assert_eq!(cloud.bootstrap.accounts.len(), 2);
    assert_eq!(cloud.identity.bootstrap().await.unwrap().accounts, []);
    let admin = cloud.token("admin").await;
    let demo = format!("/identity/v3/users/{}", cloud.id("users", "demo").await);
    assert_eq!(cloud.call(&admin, "DELETE", &demo, Value::Null).await.status, 204);
    assert_eq!(cloud.identity.bootstrap().await.unwrap().accounts, [], "what an operator removed stays away");
    cloud.clock.advance(1);
    let password = cloud.identity.reset_password("admin").await.unwrap().unwrap();
    assert!(cloud.identity.validate(&admin).await.is_err());
    assert_eq!(cloud.login("admin", password.reveal(), Some("admin")).await.status, 201);
    assert_eq!(cloud.identity.reset_password("nobody").await.unwrap(), None);
}

#[tokio::test]
async fn claims_of_identity_in_headers_are_worth_nothing() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    for name in ["X-Roles", "x_roles", "X-User-Id", "X-Is-Admin-Project", "X-Identity-Status"] {
        let headers = [(name, "admin"), ("x-auth-token", demo.as_str())];
        assert_eq!(cloud.send("GET", "/identity/v3/users", &headers, Body::empty()).await.status, 403, "{name}");
        assert_eq!(cloud.send("GET", "/identity/v3/users", &headers[..1], Body::empty()).await.status, 401, "{name}");
    }
}
