//! One line per request (nova/api/openstack/requestlog.py).

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use nova_core::clock::Clock;

use crate::api::{Filter, HandlerResult, Next, Request};

/// Where a path has the token of a console, which may still be good.
const TOKENS: &str = "/os-console-auth-tokens/";

/// Logs method, path, status, version and duration with the request's id; never headers, queries, bodies or tokens.
pub struct RequestLogFilter {
    clock: Arc<dyn Clock>,
}

impl RequestLogFilter {
    /// Takes durations from this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl Filter for RequestLogFilter {
    async fn call(&self, request: Request, next: Next<'_>) -> HandlerResult {
        let begun = self.clock.now();
        let (id, method) = (request.request_id.clone(), request.method.clone());
        let (path, version) = (request.path.clone(), request.version);
        let application = next.application().name.clone();
        let result = next.run(request).await;
        let status = match &result {
            Ok(response) => response.status.as_u16(),
            Err(error) => error.status().as_u16(),
        };
        let micros = self.clock.now().duration_since(begun).as_micros();
        let path = without_token(&path);
        tracing::info!(request_id = %id, %application, %method, %path, %status, %version, micros, "request");
        result
    }
}

fn without_token(path: &str) -> Cow<'_, str> {
    match path.split_once(TOKENS) {
        Some((before, _)) => format!("{before}{TOKENS}***").into(),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_and_tokens_are_not() {
        assert_eq!(without_token("/v2.1/servers/one"), "/v2.1/servers/one");
        for secret in ["5e5c04e3-6b4c-4d0f-a1a7-0b6a3ab4d2c1", "5e5c/os-console-auth-tokens/04e3", "%35e5c"] {
            let told = without_token(&format!("/v2.1/os-console-auth-tokens/{secret}")).into_owned();
            assert_eq!(told, "/v2.1/os-console-auth-tokens/***");
        }
    }
}
