//! What the configuration makes of the API, and health.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http_body_util::BodyExt;
use nova_core::options::{Config, Source, common};

use super::pipeline::registry;
use crate::api::compute::{COMPUTE_API_OPTIONS, ComputeOptions};
use crate::api::health::{Health, HealthCheck};
use crate::api::{API_OPTIONS, Api, ApiOptions, EnabledApi, PipelineOptions};
use crate::conductor::MOVE_OPTIONS;
use crate::console::CONSOLE_OPTIONS;

fn config(text: &str) -> Config {
    let apis = common::registry().with(API_OPTIONS).with(COMPUTE_API_OPTIONS);
    let registry = apis.with(MOVE_OPTIONS).with(CONSOLE_OPTIONS);
    let home = (Source::Environment { variable: "HOME".into() }, "/home/op");
    let file = (Source::File { path: "nova.conf".into() }, text);
    Config::load(&registry, [home, file]).unwrap()
}

#[test]
fn defaults_are_the_same_with_and_without_a_file() {
    let empty = config("");
    assert_eq!(ApiOptions::from_config(&empty), ApiOptions::default());
    let compute = ComputeOptions::from_config(&empty);
    assert_eq!(compute.limits, ComputeOptions::default().limits);
    assert_eq!((compute.password_length, compute.max_attempts), (12, 3));
}

#[test]
fn a_pipeline_of_the_configuration_takes_the_place_of_ours() {
    let options = ApiOptions::from_config(&config(
        "[DEFAULT]\nenabled_apis = osapi_compute@127.0.0.1:9000, mine\n[pipeline:mine]\npipeline = request_id faults osapi_compute\n\
         [api]\nrate_limit = 5\n",
    ));
    let compute = EnabledApi { name: "osapi_compute".into(), address: Some("127.0.0.1:9000".into()) };
    assert_eq!(options.enabled_apis[0], compute);
    let filters = ["request_id", "faults"].map(str::to_owned).to_vec();
    assert_eq!(options.pipelines["mine"], PipelineOptions { filters, app: "osapi_compute".into() });
    assert_eq!(options.rate_limit, Some(5));
}

#[test]
fn below_zero_is_without_limit() {
    let text = "[quota]\ninstances = -1\n[DEFAULT]\ninstance_build_timeout = 0\n[conductor]\ntask_deadline = 70\n";
    let options = ComputeOptions::from_config(&config(text));
    assert_eq!((options.limits.instances, options.limits.cores), (None, Some(20)));
    assert_eq!(options.instance_build_timeout, Duration::from_secs(70));
}

struct Broken(bool);

#[async_trait]
impl HealthCheck for Broken {
    fn name(&self) -> &'static str {
        "bus"
    }

    async fn check(&self) -> Result<(), String> {
        if self.0 { Err("does not answer".into()) } else { Ok(()) }
    }
}

async fn health(broken: bool, path: &str) -> (u16, String) {
    let mut registry = registry(ApiOptions { enabled_apis: Vec::new(), ..ApiOptions::default() });
    let metrics: crate::api::health::MetricsText = Arc::new(|| "nova_up 1\n".to_owned());
    registry.application(Health::new(vec![Arc::new(Broken(broken))], Some(metrics)).application());
    let api: Api = registry.build().unwrap().remove(0).1;
    let response = api.handle(http::Request::get(path).body(Body::empty()).unwrap()).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn health_tells_what_is_missing() {
    assert_eq!(health(false, "/healthz").await, (200, "OK\n".into()));
    assert_eq!(health(true, "/healthz").await, (503, "bus: does not answer\n".into()));
    assert_eq!(health(true, "/metrics").await, (200, "nova_up 1\n".into()));
    assert_eq!(health(true, "/compute").await.0, 404);
}
