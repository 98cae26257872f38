//! Addresses of a server (nova/api/openstack/compute/ips.py).

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{Servers, owner};
use crate::api::validate::known_query;
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

impl Servers {
    pub(super) async fn list_addresses(self: Arc<Self>, request: Request) -> HandlerResult {
        let addresses = self.addresses(&request, "os_compute_api:ips:index").await?;
        Ok(Response::json(StatusCode::OK, &json!({ "addresses": addresses })))
    }

    pub(super) async fn show_addresses(self: Arc<Self>, request: Request) -> HandlerResult {
        let addresses = self.addresses(&request, "os_compute_api:ips:show").await?;
        let label = request.param("network");
        let missing = || ApiError::not_found("Instance is not a member of specified network");
        let of = addresses.get(label).ok_or_else(missing)?;
        Ok(Response::json(StatusCode::OK, &json!({ label: of })))
    }

    async fn addresses(&self, request: &Request, rule: &str) -> Result<Value, ApiError> {
        if request.version.at_least(102) {
            known_query(&request.query, &[])?;
        }
        let context = request.context()?;
        let instance = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on(rule, context, owner(&instance))?;
        Ok(self.api.networks_of_one(context, &instance).await?.addresses(false))
    }
}
