//! One line per request (nova/api/openstack/requestlog.py).

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::clock::Clock;

use crate::api::{Filter, HandlerResult, Next, Request};

/// Logs method, path, status, version and duration with the request's id; never headers, queries or bodies.
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
        tracing::info!(request_id = %id, %application, %method, %path, %status, %version, micros, "request");
        result
    }
}
