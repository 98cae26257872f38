//! The metadata service for proxies of an outside Neutron (nova/api/metadata/handler.py).
//!
//! The proxy has seen from which port a guest asks and says so: `X-Instance-ID`, `X-Tenant-ID`, and
//! `X-Instance-ID-Signature`, which is HMAC-SHA256 over the instance id, in hexadecimal, with a secret that both know.

use std::sync::Arc;

use ::http::{Method, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use nova_core::ids::InstanceId;
use nova_core::metadata::{InstanceMetadata, as_password, is_root, lookup, takes_password, versions};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{MetadataManager, ProxyOptions};
use crate::api::{ApiError, Application, Dialect, HandlerResult, Request, Resource, Response, Route, route};

/// The application `metadata`, for a listener of its own: it takes every path.
pub fn application(manager: MetadataManager, options: ProxyOptions) -> Application {
    Application::new("metadata", "", Arc::new(PlainDialect)).resource(Arc::new(Metadata { manager, options }))
}

struct Metadata {
    manager: MetadataManager,
    options: ProxyOptions,
}

impl Resource for Metadata {
    fn name(&self) -> &'static str {
        "metadata"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let get = |path| route(Method::GET, path, &self, Self::answer).public();
        vec![get(""), get("/{*path}"), route(Method::POST, "/{*path}", &self, Self::take).public()]
    }
}

impl Metadata {
    async fn answer(self: Arc<Self>, request: Request) -> HandlerResult {
        if is_root(&request.path) {
            let document = versions();
            return Ok(Response::bytes(StatusCode::OK, document.content_type, document.body));
        }
        let about = self.identify(&request).await?;
        let document = lookup(&about, &request.path, self.manager.entropy()).ok_or_else(ApiError::no_such_resource)?;
        Ok(Response::bytes(StatusCode::OK, document.content_type, document.body))
    }

    /// What a guest leaves for its owner: once, until the owner forgets it.
    async fn take(self: Arc<Self>, mut request: Request) -> HandlerResult {
        if !takes_password(&request.path) {
            return Err(ApiError::MethodNotAllowed);
        }
        let about = self.identify(&request).await?;
        if !about.password.is_empty() {
            return Err(ApiError::conflict("There is a password already."));
        }
        let body = request.read_body().await?;
        let password = as_password(&body).ok_or_else(|| ApiError::bad_request("Request is too large."))?;
        match self.manager.set_password(about.instance_id, password).await {
            Ok(true) => Ok(Response::empty(StatusCode::OK)),
            Ok(false) => Err(ApiError::conflict("There is a password already.")),
            Err(error) => {
                tracing::warn!(instance = %about.instance_id, "no password now: {}", nova_core::error::chain(&error));
                Err(ApiError::Unavailable { retry_after: 1 })
            }
        }
    }

    /// For which server the proxy asks.
    async fn identify(&self, request: &Request) -> Result<InstanceMetadata, ApiError> {
        if !self.options.enabled {
            // Who asks is known on the guest's own host, and nowhere else.
            return Err(ApiError::no_such_resource());
        }
        let id = single(request, "X-Instance-ID")?;
        let signature = single(request, "X-Instance-ID-Signature")?;
        let project = single(request, "X-Tenant-ID")?;
        if !signed(&self.options.shared_secret, id, signature) {
            tracing::warn!(instance = id, "a proxy's request for metadata is not signed as it should be");
            return Err(ApiError::forbidden("Invalid proxy request signature."));
        }
        let id: InstanceId = id.parse().map_err(|_| ApiError::no_such_resource())?;
        match self.manager.get(id).await {
            Ok(Some(about)) if about.project_id.as_str() == project => Ok(about),
            Ok(Some(about)) => {
                tracing::warn!(instance = %id, said = project, is = %about.project_id, "the proxy names another project");
                Err(ApiError::no_such_resource())
            }
            Ok(None) => Err(ApiError::no_such_resource()),
            Err(error) => {
                tracing::warn!(instance = %id, "no metadata now: {}", nova_core::error::chain(&error));
                Err(ApiError::Unavailable { retry_after: 1 })
            }
        }
    }
}

/// A header that must be there, and once.
fn single<'r>(request: &'r Request, name: &'static str) -> Result<&'r str, ApiError> {
    let mut values = request.headers.get_all(name).iter();
    let missing = || ApiError::bad_request(format!("{name} header is missing from request."));
    let first = values.next().and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    // Proxies on the way join headers of one name with commas.
    if values.next().is_some() || first.contains(',') {
        return Err(ApiError::bad_request(format!("Multiple {name} headers found within request.")));
    }
    Ok(first)
}

/// Is it signed with the secret? Takes the same time wherever the signature is wrong.
fn signed(secret: &str, text: &str, signature: &str) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(text.as_bytes());
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    // Anybody can sign with no secret at all.
    !secret.is_empty() && bool::from(expected.as_bytes().ct_eq(signature.as_bytes()))
}

/// Errors as one line of text: guests read them on their consoles.
struct PlainDialect;

impl Dialect for PlainDialect {
    fn render(&self, error: &ApiError) -> Response {
        Response::bytes(error.status(), "text/plain; charset=utf-8", format!("{error}\n"))
    }
}
