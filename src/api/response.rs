//! What a handler answers.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;

/// Status, headers and body; the pipeline adds the headers that every answer carries.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A JSON body.
    pub fn json(status: StatusCode, value: &Value) -> Self {
        // A `Value` has string keys and finite numbers only, so that writing it cannot fail.
        let text = serde_json::to_vec(value).unwrap_or_default();
        Self::bytes(status, "application/json", text)
    }

    /// No body: 202, 204 and others.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::empty() }
    }

    /// A whole body of that type.
    pub fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<bytes::Bytes>) -> Self {
        let mut response = Self { status, headers: HeaderMap::new(), body: Body::from(bytes.into()) };
        response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// A body that comes in pieces.
    pub fn stream(status: StatusCode, content_type: &'static str, body: Body) -> Self {
        let mut response = Self { status, headers: HeaderMap::new(), body };
        response.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    /// Adds a header; a value that no header can carry is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Tells the client to come back after that many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        self
    }

    /// The form that the HTTP server takes.
    pub fn into_http(self) -> http::Response<Body> {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
