//! How the compute API writes its errors and versions (nova/api/openstack/wsgi.py, `Fault`).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use super::microversion::{HEADER, LEGACY_HEADER, Refused};
use super::{ApiError, Dialect, Microversion, Request, Response};

/// Nova's manners: faults under one key, microversions echoed, a wrong method is 404.
#[derive(Debug, Clone, Copy, Default)]
pub struct NovaDialect;

/// The key under which Nova wraps an error of that status.
pub const fn fault_name(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "badRequest",
        401 => "unauthorized",
        403 => "forbidden",
        404 => "itemNotFound",
        405 => "badMethod",
        409 => "conflictingRequest",
        413 | 429 => "overLimit",
        415 => "badMediaType",
        501 => "notImplemented",
        503 => "serviceUnavailable",
        _ => "computeFault",
    }
}

impl Dialect for NovaDialect {
    fn render(&self, error: &ApiError) -> Response {
        let status = error.status();
        let mut fault = json!({"code": status.as_u16(), "message": error.to_string()});
        if let (ApiError::TooManyRequests { .. }, Some(seconds)) = (error, error.retry_after()) {
            fault["retryAfter"] = json!(seconds.to_string());
        }
        let mut body = json!({ fault_name(status): fault });
        if status == StatusCode::NOT_ACCEPTABLE {
            // What clients that negotiate look for.
            body[fault_name(status)]["min_version"] = json!(Microversion::MIN.to_string());
            body[fault_name(status)]["max_version"] = json!(Microversion::MAX.to_string());
        }
        Response::json(status, &body)
    }

    fn negotiate(&self, prefix: &str, headers: &HeaderMap) -> Result<Microversion, ApiError> {
        if self.lenient(prefix) {
            return Ok(Microversion::MIN);
        }
        Microversion::negotiate(headers).map_err(ApiError::from)
    }

    fn answer_headers(&self, prefix: &str, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let version = if self.lenient(prefix) { Ok(Microversion::MIN) } else { Microversion::negotiate(headers) };
        let used = match version {
            Ok(version) => Some(version.to_string()),
            // Nova echoes a version that it does not offer, too.
            Err(Refused::NotOffered(text)) => Some(text),
            Err(Refused::Malformed(_)) => None,
        };
        let echo = used.into_iter().flat_map(|used| [(HEADER, format!("compute {used}")), (LEGACY_HEADER, used)]);
        let mut all: Vec<_> = echo
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?)))
            .collect();
        for name in ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"] {
            all.push((header::VARY, HeaderValue::from_static(name)));
        }
        all
    }

    fn wrong_method(&self) -> ApiError {
        ApiError::no_such_resource()
    }

    fn lenient(&self, prefix: &str) -> bool {
        prefix == "/v2"
    }

    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let (Some(url), Some(context)) = (&request.url_project, &request.context) else { return Ok(()) };
        if url == context.project_id.as_str() {
            return Ok(());
        }
        Err(ApiError::bad_request(format!(
            "Malformed request URL: URL's project_id '{url}' doesn't match Context's project_id '{}'",
            context.project_id
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_word() {
        let words = [(400, "badRequest"), (404, "itemNotFound"), (409, "conflictingRequest"), (413, "overLimit")];
        for (status, word) in words {
            assert_eq!(fault_name(StatusCode::from_u16(status).unwrap()), word);
        }
        assert_eq!(fault_name(StatusCode::IM_A_TEAPOT), "computeFault");
    }
}
