//! Addresses of a server (nova/api/openstack/compute/ips.py). There is no network yet that could give one.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::{Servers, owner};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

impl Servers {
    pub(super) async fn list_addresses(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let instance = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on("os_compute_api:ips:index", context, owner(&instance))?;
        Ok(Response::json(StatusCode::OK, &json!({"addresses": {}})))
    }

    pub(super) async fn show_addresses(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let instance = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on("os_compute_api:ips:show", context, owner(&instance))?;
        Err(ApiError::not_found("Instance is not a member of specified network"))
    }
}
