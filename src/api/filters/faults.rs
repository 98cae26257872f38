//! Errors become answers, and panics too: one request's defect is not another's.

use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures_util::FutureExt;
use http::{HeaderValue, StatusCode, header};
use nova_core::ids::RequestId;

use crate::api::{ApiError, Application, Filter, HandlerResult, Next, Request, Response};

/// Renders errors in the application's format (nova/api/openstack/__init__.py, `FaultWrapper`).
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultFilter;

#[async_trait]
impl Filter for FaultFilter {
    async fn call(&self, request: Request, next: Next<'_>) -> HandlerResult {
        let id = request.request_id.clone();
        let application = next.application();
        let result = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(ApiError::internal(format!("a handler panicked: {}", panic_text(&*panic)))),
        };
        Ok(result.unwrap_or_else(|error| fault_response(application, &error, &id)))
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The answer for an error, logged if it is ours to mend.
pub(in crate::api) fn fault_response(application: &Application, error: &ApiError, id: &RequestId) -> Response {
    if let ApiError::Internal(cause) = error {
        tracing::error!(request_id = %id, error = &**cause as &dyn std::error::Error, "unexpected API error");
    }
    let mut response = application.dialect.render(error);
    if let Some(seconds) = error.retry_after() {
        response = response.with_retry_after(seconds);
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        response
            .headers
            .entry(header::WWW_AUTHENTICATE)
            .or_insert(HeaderValue::from_static("Keystone uri=\"/identity\""));
    }
    response
}
