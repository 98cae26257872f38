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
use crate::api::compute::input::{strict_query, under};
use crate::api::validate::{Shown, Text, invalid, text, wrong_type};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Resource, Response, Route, policy, route};

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
        policy::enforce("os_compute_api:os-flavor-extra-specs:index", context)?;
        strict_query(&request, 102, &[])?;
        let flavor = visible(&self.api, context, request.param("flavor_id")).await?;
        Ok(Response::json(StatusCode::OK, &json!({"extra_specs": flavor.extra_specs})))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-flavor-extra-specs:show", context)?;
        strict_query(&request, 102, &[])?;
        let (flavor_id, key) = (request.param("flavor_id"), request.param("id"));
        let flavor = visible(&self.api, context, flavor_id).await?;
        let value = flavor.extra_specs.get(key).ok_or_else(|| no_key(flavor_id, key))?;
        Ok(Response::json(StatusCode::OK, &json!({ key: value })))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-flavor-extra-specs:create", request.context()?)?;
        let body = request.json().await?;
        under(&body, "extra_specs", request.lenient)?.ignore_rest();
        let specs = read(&body["extra_specs"], request.version)?;
        change(&self.api, request.param("flavor_id"), |flavor| {
            flavor.extra_specs.extend(specs.clone());
            Ok(())
        })
        .await?;
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        policy::enforce("os_compute_api:os-flavor-extra-specs:update", request.context()?)?;
        let body = request.json().await?;
        let specs = read(&body, request.version)?;
        match specs.len() {
            1 => {}
            0 => return Err(ApiError::bad_request("{} does not have enough properties")),
            _ => return Err(ApiError::bad_request(format!("{} has too many properties", Shown(&body)))),
        }
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
        policy::enforce("os_compute_api:os-flavor-extra-specs:delete", request.context()?)?;
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

/// Pairs of an object, numbers written as text; checked against what is known from 2.86 on.
fn read(object: &Value, version: Microversion) -> Result<BTreeMap<String, String>, ApiError> {
    let Value::Object(map) = object else { return Err(wrong_type("extra_specs", object, "object")) };
    let mut specs = BTreeMap::new();
    for (key, value) in map {
        if !is_key(key) {
            let problem = format!("'{key}' does not match any of the regexes: '{KEY_PATTERN}'");
            return Err(invalid("extra_specs", value, problem));
        }
        let value = match value {
            Value::String(_) => text(key, value, Text::new(0, 255))?.to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return Err(wrong_type(key, value, "string', 'number")),
        };
        if version.at_least(86) {
            known::check(key, &value).map_err(ApiError::BadRequest)?;
        }
        specs.insert(key.clone(), value);
    }
    Ok(specs)
}

fn is_key(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:. ".contains(&b))
}

fn no_key(flavor_id: &str, key: &str) -> ApiError {
    ApiError::not_found(format!("Flavor {flavor_id} has no extra specs with key {key}."))
}
