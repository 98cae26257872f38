//! Versions, request ids, identity, errors: what holds for every request.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::json;

use super::world::{World, only_compute};
use crate::api::compute::ComputeOptions;
use crate::api::{
    ApiOptions, EnabledApi, Filter, HandlerResult, Next, PipelineError, PipelineOptions, Request, Resource, Response,
    Route, route,
};

#[tokio::test]
async fn version_documents_need_no_token_and_agree_with_each_other() {
    let world = World::new().await;
    for path in ["/compute", "/compute/"] {
        let answer = world.raw(&format!("GET {path}"), &[], "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["versions"][1]["id"], "v2.1");
        assert_eq!(answer.body["versions"][1]["version"], "2.104");
        assert_eq!(answer.body["versions"][1]["links"][0]["href"], "http://cloud:8774/compute/v2.1/");
    }
    for path in ["/compute/v2.1", "/compute/v2.1/"] {
        let version = world.raw(&format!("GET {path}"), &[], "").await.body["version"].clone();
        assert_eq!(version["min_version"], "2.1");
        assert_eq!(version["status"], "CURRENT");
        assert_eq!(version["links"][0], json!({"rel": "self", "href": "http://cloud:8774/compute/v2.1/"}));
    }
    for path in ["/compute/v2", "/compute/v2/"] {
        let version = world.raw(&format!("GET {path}"), &[], "").await.body["version"].clone();
        assert_eq!((version["id"].as_str(), version["version"].as_str()), (Some("v2.0"), Some("")));
    }
}

#[tokio::test]
async fn the_version_used_is_echoed_even_on_errors() {
    let world = World::new().await;
    let answer = world.get("demo", 79, "/servers/nothing").await;
    answer.fault(404, "itemNotFound");
    assert_eq!(answer.header("openstack-api-version"), "compute 2.79");
    assert_eq!(answer.header("x-openstack-nova-api-version"), "2.79");
    let vary: Vec<_> = answer.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]);
    let header = [("x-auth-token", "demo".to_owned()), ("openstack-api-version", "compute latest".to_owned())];
    assert_eq!(world.raw("GET /servers", &header, "").await.header("openstack-api-version"), "compute 2.104");
    assert_eq!(world.get("demo", 1, "/servers").await.header("x-openstack-nova-api-version"), "2.1");
}

#[tokio::test]
async fn versions_that_are_not_offered_are_406_and_malformed_ones_400() {
    let world = World::new().await;
    let ask =
        |version: &str| [("x-auth-token", "demo".to_owned()), ("x-openstack-nova-api-version", version.to_owned())];
    let answer = world.raw("GET /servers", &ask("2.105"), "").await;
    let text = answer.fault(406, "computeFault");
    assert_eq!(text, "Version 2.105 is not supported by the API. Minimum is 2.1 and maximum is 2.104.");
    assert_eq!(answer.body["computeFault"]["max_version"], "2.104");
    assert_eq!(answer.header("x-openstack-nova-api-version"), "2.105");
    world.raw("GET /servers", &ask("two"), "").await.fault(400, "badRequest");
    // Without a token, nothing is told of versions; under /v2 they do not count.
    let bare = [("x-openstack-nova-api-version", "2.105".to_owned())];
    world.raw("GET /servers", &bare, "").await.fault(401, "unauthorized");
    assert_eq!(world.raw("GET /compute/v2/servers", &ask("2.105"), "").await.status, 200);
}

#[tokio::test]
async fn every_answer_carries_the_request_id_and_takes_one_from_outside() {
    let world = World::new().await;
    let drawn = world.raw("GET /nowhere", &[], "").await;
    assert!(drawn.header("x-openstack-request-id").starts_with("req-"));
    assert_eq!(drawn.header("x-openstack-request-id"), drawn.header("x-compute-request-id"));
    let id = "req-5f3e1d2c-0000-4000-8000-1234567890ab";
    let given = world.raw("GET /servers", &[("x-openstack-request-id", id.to_owned())], "").await;
    assert_eq!(given.header("x-openstack-request-id"), id);
    let junk = world.raw("GET /servers", &[("x-openstack-request-id", "req-1".to_owned())], "").await;
    assert_ne!(junk.header("x-openstack-request-id"), "req-1");
    let elsewhere = world.raw("GET /compute-not", &[], "").await;
    assert_eq!(elsewhere.status, 404);
    assert!(elsewhere.header("x-openstack-request-id").starts_with("req-"));
}

#[tokio::test]
async fn tokens_decide_and_claims_of_identity_do_not() {
    let world = World::new().await;
    for token in ["", "forged", "expired"] {
        let answer = world.get(token, 1, "/servers").await;
        answer.fault(401, "unauthorized");
        assert!(!answer.header("www-authenticate").is_empty());
    }
    let claims = [
        ("x-user-id", "admin".to_owned()),
        ("x-roles", "admin".to_owned()),
        ("x-project-id", "aaaa0000".to_owned()),
        ("x-identity-status", "Confirmed".to_owned()),
    ];
    world.raw("GET /servers", &claims, "").await.fault(401, "unauthorized");
    let mut with_token = claims.to_vec();
    with_token.push(("x-auth-token", "demo".to_owned()));
    let answer = world.raw("GET /servers?all_tenants=1", &with_token, "").await;
    answer.fault(403, "forbidden");
    let away = world.get("away", 1, "/servers").await;
    away.fault(503, "serviceUnavailable");
    assert_eq!(away.header("retry-after"), "1");
}

#[tokio::test]
async fn a_panic_is_one_requests_500_and_says_nothing() {
    let world = World::new().await;
    let answer = world.get("panic", 1, "/servers").await;
    assert_eq!(answer.fault(500, "computeFault"), "Unexpected API Error.");
    assert!(!answer.text.contains("hurts"));
    assert_eq!(world.get("demo", 1, "/servers").await.status, 200);
}

#[tokio::test]
async fn wrong_methods_and_paths_are_404() {
    let world = World::new().await;
    for line in
        ["PATCH /servers", "PUT /servers", "DELETE /servers", "GET /nothing", "DELETE /servers/", "POST /images"]
    {
        world.call("demo", 1, line, None).await.fault(404, "itemNotFound");
    }
}

#[tokio::test]
async fn the_project_may_stand_in_the_path_but_only_the_callers_own() {
    let world = World::new().await;
    let id = world.create("demo", "a").await;
    let answer = world.get("demo", 1, &format!("/dddd0000/servers/{id}")).await;
    let links = &answer.body["server"]["links"];
    assert_eq!(links[0]["href"], format!("http://cloud:8774/compute/v2.1/dddd0000/servers/{id}"));
    assert_eq!(links[1]["href"], format!("http://cloud:8774/compute/dddd0000/servers/{id}"));
    let foreign = world.get("demo", 1, "/aaaa0000/servers").await;
    assert!(foreign.fault(400, "badRequest").contains("doesn't match Context's project_id 'dddd0000'"));
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away() {
    let options = ApiOptions { max_requests: 1, ..only_compute() };
    let world = World::with(ComputeOptions::default(), options).await;
    let id = world.create("demo", "a").await;
    world.settle(&id, nova_core::state::VmState::Active, "hung").await;
    let path = format!("POST /servers/{id}/action");
    let hung = world.call("demo", 1, &path, Some(json!({"os-getConsoleOutput": {}})));
    let second = async {
        tokio::task::yield_now().await;
        world.get("demo", 1, "/servers").await
    };
    let answer = tokio::select! { biased; _ = hung => panic!("the host hangs"), answer = second => answer };
    answer.fault(503, "serviceUnavailable");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn a_hung_host_stops_nobody_else() {
    let world = World::new().await;
    let id = world.create("demo", "a").await;
    world.settle(&id, nova_core::state::VmState::Active, "hung").await;
    let path = format!("POST /servers/{id}/action");
    let hung = world.call("demo", 1, &path, Some(json!({"os-getConsoleOutput": {}})));
    let others = futures_util::future::join_all((0..2000).map(|_| world.get("demo", 1, "/servers")));
    let answers = tokio::select! { biased; _ = hung => panic!("the host hangs"), answers = others => answers };
    assert!(answers.iter().all(|answer| answer.status == 200));
}

/// A builder's own resource and filter, registered like ours.
struct Greeting;

impl Resource for Greeting {
    fn name(&self) -> &'static str {
        "greeting"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::GET, "/greeting", &self, |_, request: Request| async move {
            let user = request.context()?.user_id.clone();
            Ok(Response::json(StatusCode::OK, &json!({"hello": user})))
        })]
    }
}

struct Stamp;

#[async_trait]
impl Filter for Stamp {
    async fn call(&self, request: Request, next: Next<'_>) -> HandlerResult {
        Ok(next.run(request).await?.header(http::HeaderName::from_static("x-stamp"), "seen"))
    }
}

pub fn registry(options: ApiOptions) -> crate::api::Registry {
    let clock = Arc::new(super::world::StillClock(std::sync::Mutex::new(jiff::Timestamp::UNIX_EPOCH)));
    crate::api::Registry::new(crate::api::FilterDeps {
        identity: Arc::new(Anyone),
        clock,
        entropy: Arc::new(nova_core::entropy::SeededEntropy::new(1)),
        options: Arc::new(options),
    })
}

struct Anyone;

#[async_trait]
impl nova_core::contracts::IdentityService for Anyone {
    async fn validate(&self, _: &str) -> Result<nova_core::contracts::TokenInfo, nova_core::contracts::IdentityError> {
        Err(nova_core::contracts::IdentityError::Unauthorized)
    }
}

fn named(name: &str) -> EnabledApi {
    EnabledApi { name: name.to_owned(), address: None }
}

#[tokio::test]
async fn a_builders_parts_register_like_ours() {
    let mut options = ApiOptions { enabled_apis: vec![named("mine")], ..ApiOptions::default() };
    let filters = ["stamp", "request_id", "faults", "authtoken"].map(str::to_owned).to_vec();
    options.pipelines.insert("mine".into(), PipelineOptions { filters, app: "mine".into() });
    let mut registry = registry(options);
    registry.filter("stamp", |_| Ok(Arc::new(Stamp)));
    let application = crate::api::Application::new("mine", "/mine", Arc::new(crate::api::NovaDialect));
    registry.application(application.resource(Arc::new(Greeting)));
    let (_, api) = registry.build().unwrap().remove(0);
    let request = http::Request::get("/mine/greeting").body(axum::body::Body::empty()).unwrap();
    let response = api.handle(request).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["x-stamp"], "seen");
}

#[tokio::test]
async fn names_that_lead_nowhere_are_errors_of_configuration() {
    let build = |enabled: &str, filter: &str, app: &str| {
        let mut options = ApiOptions { enabled_apis: vec![named(enabled)], ..ApiOptions::default() };
        let pipeline = PipelineOptions { filters: vec![filter.into()], app: app.into() };
        options.pipelines.insert("p".into(), pipeline);
        registry(options).build().map(|_| ()).unwrap_err()
    };
    assert!(matches!(build("q", "faults", "x"), PipelineError::UnknownPipeline { .. }));
    assert!(matches!(build("p", "fault", "x"), PipelineError::UnknownFilter { .. }));
    let error = build("p", "faults", "x");
    assert!(error.to_string().starts_with("[pipeline:p] app: there is no application 'x'"), "{error}");
}

#[tokio::test]
async fn the_rate_limit_counts_by_project() {
    let options = ApiOptions { rate_limit: Some(2), ..only_compute() };
    let world = World::with(ComputeOptions::default(), options).await;
    for _ in 0..2 {
        assert_eq!(world.get("demo", 1, "/servers").await.status, 200);
    }
    let answer = world.get("reader", 1, "/servers").await;
    assert_eq!(answer.fault(429, "overLimit"), "This request was rate-limited.");
    assert_eq!(world.get("other", 1, "/servers").await.status, 200);
    world.pass(1);
    assert_eq!(world.get("demo", 1, "/servers").await.status, 200);
}

#[test]
fn an_application_is_not_served_twice() {
    let options = ApiOptions { enabled_apis: vec![named("identity"), named("identity")], ..ApiOptions::default() };
    let mut registry = registry(options);
    let dialect = Arc::new(crate::api::NovaDialect);
    registry.application(crate::api::Application::new("identity", "/identity", dialect));
    let Err(error) = registry.build() else { panic!("it was built") };
    assert!(matches!(error, PipelineError::Twice { .. }), "{error}");
}
