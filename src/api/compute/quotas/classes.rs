//! `/os-quota-class-sets/{class}`. Any class can be written and read; only `default` has an effect.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::quota::QuotaOwner;
use serde_json::{Value, json};

use super::{defaults, in_classes, read, view};
use crate::api::compute::ComputeApi;
use crate::api::compute::input::{strict_query, under};
use crate::api::policy::enforce;
use crate::api::validate::{Text, invalid, text};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

/// The resource.
pub struct QuotaClassSets {
    api: Arc<ComputeApi>,
}

impl QuotaClassSets {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        enforce("os_compute_api:os-quota-class-sets:show", request.context()?)?;
        strict_query(&request, 102, &[])?;
        let class = class(&request)?;
        let set = self.api.store.get_quotas(&[class]).await?.pop().unwrap_or_default();
        let mut body = view(in_classes(request.version), &defaults(&self.api.options.get(), &set));
        body.insert("id".to_owned(), json!(request.param("id")));
        Ok(Response::json(StatusCode::OK, &json!({ "quota_class_set": body })))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        enforce("os_compute_api:os-quota-class-sets:update", request.context()?)?;
        let body = request.json().await?;
        let mut fields = under(&body, "quota_class_set", request.lenient)?;
        let limits = read(&mut fields, in_classes(request.version))?;
        fields.finish()?;
        let set = self.api.store.set_quotas(class(&request)?, limits).await?;
        let body = view(in_classes(request.version), &defaults(&self.api.options.get(), &set));
        Ok(Response::json(StatusCode::OK, &json!({ "quota_class_set": body })))
    }
}

impl Resource for QuotaClassSets {
    fn name(&self) -> &'static str {
        "os-quota-class-sets"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        const ONE: &str = "/os-quota-class-sets/{id}";
        vec![route(Method::GET, ONE, &self, Self::show), route(Method::PUT, ONE, &self, Self::update)]
    }
}

/// Names are as long as the database keeps them.
fn class(request: &Request) -> Result<QuotaOwner, ApiError> {
    let name = Value::String(request.param("id").to_owned());
    let read = text("id", &name, Text::new(1, 255))?;
    if read.chars().any(char::is_control) {
        return Err(invalid("id", &name, "it must consist of printable characters"));
    }
    Ok(QuotaOwner::Class(read.to_owned()))
}
