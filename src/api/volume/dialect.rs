//! How Cinder writes: errors, versions (cinder/api/openstack/wsgi.py, cinder/api/openstack/api_version_request.py).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::api::microversion::HEADER;
use crate::api::{
    ApiError, Dialect, HandlerResult, Microversion, Request, Resource, Response, Route, fault_name, route,
};

/// 3.0: what a request without header gets.
const MIN: u16 = 0;
/// 3.71: the highest that is offered.
pub(super) const MAX: u16 = 71;

/// Cinder's manners.
#[derive(Debug, Clone, Copy, Default)]
pub struct CinderDialect;

/// The version that a request asks for.
fn asked(headers: &HeaderMap) -> Result<u16, ApiError> {
    // One header may name the versions of several services.
    let values =
        headers.get_all(HEADER).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    let mut of_volume = values.filter_map(|text| text.trim().strip_prefix("volume "));
    let Some(text) = of_volume.next().map(str::trim) else { return Ok(MIN) };
    if text == "latest" {
        return Ok(MAX);
    }
    let malformed = || {
        ApiError::bad_request(format!(
            "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
        ))
    };
    let (major, minor) = text.split_once('.').ok_or_else(malformed)?;
    let (major, minor): (u16, u16) = (major.parse().map_err(|_| malformed())?, minor.parse().map_err(|_| malformed())?);
    if major == 3 && (MIN..=MAX).contains(&minor) {
        return Ok(minor);
    }
    Err(ApiError::NotAcceptable(format!(
        "Version {text} is not supported by the API. Minimum is 3.{MIN} and maximum is 3.{MAX}."
    )))
}

impl Dialect for CinderDialect {
    fn render(&self, error: &ApiError) -> Response {
        let status = error.status();
        let mut fault = json!({"code": status.as_u16(), "message": error.to_string()});
        if let Some(seconds) = error.retry_after() {
            fault["retryAfter"] = json!(seconds.to_string());
        } else if status == StatusCode::PAYLOAD_TOO_LARGE {
            fault["retryAfter"] = json!("0");
        }
        Response::json(status, &json!({ fault_name(status): fault }))
    }

    fn negotiate(&self, _prefix: &str, headers: &HeaderMap) -> Result<Microversion, ApiError> {
        asked(headers).map(Microversion)
    }

    fn answer_headers(&self, _prefix: &str, headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
        let used = asked(headers).ok().and_then(|minor| HeaderValue::from_str(&format!("volume 3.{minor}")).ok());
        let echo = used.map(|used| (HeaderName::from_static(HEADER), used));
        echo.into_iter().chain([(header::VARY, HeaderValue::from_static("OpenStack-API-Version"))]).collect()
    }

    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let (Some(url), Some(context)) = (&request.url_project, &request.context) else { return Ok(()) };
        if *url == context.project_id.as_str() || context.is_admin() {
            return Ok(());
        }
        Err(ApiError::bad_request("Malformed request url"))
    }
}

/// `GET /volume` and `GET /volume/v3`: told without a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions;

impl Resource for Versions {
    fn name(&self) -> &'static str {
        "volume-versions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let mut routes = Vec::new();
        for path in ["", "/"] {
            routes.push(route(Method::GET, path, &self, Self::index).public());
        }
        for path in ["/v3", "/v3/"] {
            routes.push(route(Method::GET, path, &self, Self::one).public());
        }
        routes
    }
}

fn version(request: &Request) -> Value {
    let root = request.base_url.trim_end_matches('/');
    let root = root.strip_suffix("/v3").unwrap_or(root);
    json!({
        "id": "v3.0",
        "status": "CURRENT",
        "version": format!("3.{MAX}"),
        "min_version": format!("3.{MIN}"),
        "updated": "2023-08-31T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": format!("{root}/v3/")},
        ],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    })
}

impl Versions {
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::MULTIPLE_CHOICES, &json!({"versions": [version(&request)]})))
    }

    async fn one(self: Arc<Self>, request: Request) -> HandlerResult {
        Ok(Response::json(StatusCode::OK, &json!({"versions": [version(&request)]})))
    }
}
