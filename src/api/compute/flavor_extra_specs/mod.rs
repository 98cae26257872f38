//! `/flavors/{id}/os-extra_specs` (nova/api/openstack/compute/flavors_extraspecs.py).

mod known;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::flavors::{change, visible};
use crate::api::compute::input::{Fields, invalid, show as show_value, strict_query};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, route};

/// The pattern of keys, as the error shows it.
const KEY_PATTERN: &str = "^[a-zA-Z0-9-_:. ]{1,255}$";

/// The resource.
pub struct FlavorExtraSpecs {
    api: Arc<ComputeApi>,
}

impl FlavorExtraSpecs {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        self.api.policy.check("os_compute_api:os-flavor-extra-specs:index", context)?;
        strict_query(&request, 102, &[])?;
        let flavor = visible(&self.api, context, request.param("flavor_id")).await?;
        Ok(Response::json(StatusCode::OK, &json!({"extra_specs": flavor.extra_specs})))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        self.api.policy.check("os_compute_api:os-flavor-extra-specs:show", context)?;
        strict_query(&request, 102, &[])?;
        let (flavor_id, key) = (request.param("flavor_id"), request.param("id"));
        let flavor = visible(&self.api, context, flavor_id).await?;
        let value = flavor.extra_specs.get(key).ok_or_else(|| no_key(flavor_id, key))?;
        Ok(Response::json(StatusCode::OK, &json!({ key: value })))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        self.api.policy.check("os_compute_api:os-flavor-extra-specs:create", request.context()?)?;
        let body = request.json().await?;
        let specs = read(&Fields::under(&body, "extra_specs")?, request.version)?;
        change(&self.api, request.param("flavor_id"), |flavor| {
            flavor.extra_specs.extend(specs.clone());
            Ok(())
        })
        .await?;
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        self.api.policy.check("os_compute_api:os-flavor-extra-specs:update", request.context()?)?;
        let body = request.json().await?;
        let fields = Fields::of(&body)?;
        match fields.count() {
            1 => {}
            0 => return Err(ApiError::bad_request("{} does not have enough properties")),
            _ => return Err(ApiError::bad_request(format!("{} has too many properties", show_value(&body)))),
        }
        let specs = read(&fields, request.version)?;
        if !specs.contains_key(request.param("id")) {
            return Err(ApiError::bad_request("Request body and URI mismatch"));
        }
        change(&self.api, request.param("flavor_id"), |flavor| {
            flavor.extra_specs.extend(specs.clone());
            Ok(())
        })
        .await?;
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        self.api.policy.check("os_compute_api:os-flavor-extra-specs:delete", request.context()?)?;
        let (flavor_id, key) = (request.param("flavor_id"), request.param("id"));
        change(&self.api, flavor_id, |flavor| match flavor.extra_specs.remove(key) {
            Some(_) => Ok(()),
            None => Err(no_key(flavor_id, key)),
        })
        .await?;
        Ok(Response::empty(StatusCode::OK))
    }
}

impl Resource for FlavorExtraSpecs {
    fn name(&self) -> &'static str {
        "os-flavor-extra-specs"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ALL: &str = "/flavors/{flavor_id}/os-extra_specs";
        const ONE: &str = "/flavors/{flavor_id}/os-extra_specs/{id}";
        vec![
            route(Method::GET, ALL, &self, Self::index),
            route(Method::POST, ALL, &self, Self::create),
            route(Method::GET, ONE, &self, Self::show),
            route(Method::PUT, ONE, &self, Self::update),
            route(Method::DELETE, ONE, &self, Self::delete),
        ]
    }
}

/// Pairs of a body, numbers written as text; checked against what is known from 2.86 on.
fn read(fields: &Fields, version: Microversion) -> Result<BTreeMap<String, String>, ApiError> {
    let mut specs = BTreeMap::new();
    for (key, value) in fields.pairs() {
        if !is_key(key) {
            let text = format!("'{key}' does not match any of the regexes: '{KEY_PATTERN}'");
            return Err(invalid("extra_specs", value, &text));
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                let text = format!("{} is not of type 'string', 'number'", show_value(value));
                return Err(invalid(key, value, &text));
            }
        };
        if text.chars().count() > 255 {
            return Err(invalid(key, value, &format!("{} is too long", show_value(value))));
        }
        if version.at_least(86) {
            known::check(key, &text).map_err(ApiError::BadRequest)?;
        }
        specs.insert(key.to_owned(), text);
    }
    Ok(specs)
}

fn is_key(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:. ".contains(&b))
}

fn no_key(flavor_id: &str, key: &str) -> ApiError {
    ApiError::not_found(format!("Flavor {flavor_id} has no extra specs with key {key}."))
}
