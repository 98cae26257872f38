//! What a handler gets: the parsed request with what the pipeline found out about it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use nova_core::context::RequestContext;
use nova_core::contracts::TokenInfo;
use nova_core::ids::RequestId;
use serde_json::Value;

use super::{ApiError, Microversion, Query};

/// Nova's `[oslo_middleware] max_request_body_size`, bytes.
pub const MAX_BODY: usize = 114_688;

/// One request on its way through a pipeline to its handler.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path below the application's mount and prefix: `/servers/42`.
    pub path: String,
    /// What the route's `{name}` segments matched, decoded.
    pub params: BTreeMap<String, String>,
    /// A project id that stood before the path, as old clients' URLs have it.
    pub url_project: Option<String>,
    /// The query, decoded, in order.
    pub query: Query,
    /// The headers; those that would claim an identity are gone.
    pub headers: HeaderMap,
    /// Who asks; `None` before authentication, on public routes, with a proof, and for unscoped tokens.
    pub context: Option<RequestContext>,
    /// What the token is worth; `None` on public routes and with a proof.
    pub token: Option<Arc<TokenInfo>>,
    /// The route's own proof was shown in the place of a token, and holds ([`Route::or_proof`](super::Route::or_proof)).
    pub proven: bool,
    /// The id that answers, logs and messages carry.
    pub request_id: RequestId,
    /// The version that the client speaks; only the compute API has several.
    pub version: Microversion,
    /// Unknown body and query keys are let through (the `/v2` compatibility mode).
    pub lenient: bool,
    /// Where links begin: `http://host:8774/compute/v2.1`, without trailing slash.
    pub base_url: String,
    /// The longest body that [`Request::json`] takes, bytes.
    pub body_limit: usize,
    /// The longest time that [`Request::json`] waits for the body.
    pub body_timeout: Duration,
    /// What is left of the body.
    pub body: RequestBody,
}

/// A body that has not been read yet. Makes requests shareable between threads, although a body is not: it can be taken
/// out, but not be looked at through a shared reference.
#[derive(Debug, Default)]
pub struct RequestBody(Mutex<Body>);

impl From<Body> for RequestBody {
    fn from(body: Body) -> Self {
        Self(Mutex::new(body))
    }
}

impl From<RequestBody> for Body {
    fn from(body: RequestBody) -> Self {
        body.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    /// The caller.
    ///
    /// # Errors
    /// 401 where there is none: a token that is scoped to no project is no caller.
    pub fn context(&self) -> Result<&RequestContext, ApiError> {
        self.context.as_ref().ok_or(ApiError::Unauthorized)
    }

    /// A path parameter; empty if the route has none of that name.
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Reads the body as JSON. A type that is not JSON is 415, one that is missing counts as JSON.
    ///
    /// # Errors
    /// 400 for an empty or malformed body, 408, 413, 415.
    pub async fn json(&mut self) -> Result<Value, ApiError> {
        self.check_json_type()?;
        let bytes = self.read_body().await?;
        parse_json(&bytes)
    }

    /// The same, where a body may be left out.
    ///
    /// # Errors
    /// As [`Request::json`], except for an empty body.
    pub async fn json_or_none(&mut self) -> Result<Option<Value>, ApiError> {
        let bytes = self.read_body().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.check_json_type()?;
        parse_json(&bytes).map(Some)
    }

    /// The whole body, at most [`Request::body_limit`] bytes.
    ///
    /// # Errors
    /// 400 if the client breaks off, 408, 413.
    pub async fn read_body(&mut self) -> Result<Bytes, ApiError> {
        let body = Limited::new(Body::from(std::mem::take(&mut self.body)), self.body_limit);
        match tokio::time::timeout(self.body_timeout, body.collect()).await {
            Err(_) => Err(ApiError::Timeout),
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if is_length_limit(&*error) => Err(ApiError::TooLarge),
            Ok(Err(_)) => Err(ApiError::bad_request("The request body could not be read.")),
        }
    }

    /// The body as it comes, for uploads.
    pub fn into_body(self) -> Body {
        self.body.into()
    }

    fn check_json_type(&self) -> Result<(), ApiError> {
        let Some(value) = self.headers.get(header::CONTENT_TYPE) else { return Ok(()) };
        let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            "" | "application/json" | "application/vnd.openstack.compute+json" => Ok(()),
            _ => Err(ApiError::UnsupportedMediaType),
        }
    }
}

fn parse_json(bytes: &[u8]) -> Result<Value, ApiError> {
    let malformed = || ApiError::bad_request("Malformed request body");
    let value: Value = serde_json::from_slice(bytes).map_err(|_| malformed())?;
    // Not every database keeps a NUL, and no name or text has use for one.
    let suspect = bytes.windows(6).any(|window| window == b"\\u0000");
    if suspect && has_nul(&value) { Err(malformed()) } else { Ok(value) }
}

/// Is there a NUL in a text or key? The depth is bounded by the parser.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
