//! How Keystone writes: errors, lists, times.

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{ApiError, Dialect, Request, Response};

/// Keystone's manners: `{"error": {"code", "message", "title"}}`.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeystoneDialect;

impl Dialect for KeystoneDialect {
    fn render(&self, error: &ApiError) -> Response {
        let status = error.status();
        let message = match error {
            ApiError::Internal(_) => {
                "An unexpected error prevented the server from fulfilling your request.".to_owned()
            }
            other => other.to_string(),
        };
        let title = status.canonical_reason().unwrap_or("Error");
        let body = json!({"error": {"code": status.as_u16(), "message": message, "title": title}});
        let mut response = Response::json(status, &body);
        if status == StatusCode::UNAUTHORIZED {
            response.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Keystone uri=\"/identity\""));
        }
        response
    }

    fn answer_headers(&self, _prefix: &str, _headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        vec![(header::VARY, HeaderValue::from_static("X-Auth-Token"))]
    }
}

/// Keystone's form of a time: `2026-11-22T08:03:11.000000Z`.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A list answer, with the links that Keystone puts beside it.
pub(super) fn list(request: &Request, key: &str, items: Vec<Value>) -> Response {
    let query = request.query.encode();
    let mark = if query.is_empty() { "" } else { "?" };
    let own = format!("{}{}{mark}{query}", request.base_url, request.path);
    let body = json!({ key: items, "links": {"next": null, "self": own, "previous": null} });
    Response::json(StatusCode::OK, &body)
}

/// One thing under its key.
pub(super) fn one(status: StatusCode, key: &str, item: Value) -> Response {
    Response::json(status, &json!({ key: item }))
}

/// 204.
pub(super) fn done() -> Response {
    Response::empty(StatusCode::NO_CONTENT)
}

/// Does an item pass the filters of a list's query? Only the named attributes are looked at; `name__contains` and its
/// kin compare within.
pub(super) fn passes(request: &Request, item: &Value, attributes: &[&str]) -> bool {
    request.query.pairs().iter().all(|(key, wanted)| {
        let (name, how) = key.split_once("__").unwrap_or((key.as_str(), ""));
        if !attributes.contains(&name) {
            return true;
        }
        match &item[name] {
            Value::String(text) => compare(text, how, wanted),
            Value::Bool(value) => crate::api::parse_bool(wanted).unwrap_or(true) == *value,
            Value::Null => wanted.is_empty(),
            _ => true,
        }
    })
}

fn compare(text: &str, how: &str, wanted: &str) -> bool {
    let (lower, wanted_lower) = (text.to_lowercase(), wanted.to_lowercase());
    match how {
        "contains" => text.contains(wanted),
        "startswith" => text.starts_with(wanted),
        "endswith" => text.ends_with(wanted),
        "icontains" => lower.contains(&wanted_lower),
        "istartswith" => lower.starts_with(&wanted_lower),
        "iendswith" => lower.ends_with(&wanted_lower),
        _ => lower == wanted_lower,
    }
}
