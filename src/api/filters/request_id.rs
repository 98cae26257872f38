//! Every answer says which request it belongs to (nova/api/compute_req_id.py, oslo.middleware).

use async_trait::async_trait;
use http::HeaderName;
use nova_core::ids::RequestId;

use crate::api::{Filter, HandlerResult, Next, Request, Response};

/// Puts the id on the answer. The id itself was taken from `X-OpenStack-Request-ID` or drawn when the request came in.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestIdFilter;

#[async_trait]
impl Filter for RequestIdFilter {
    async fn call(&self, request: Request, next: Next<'_>) -> HandlerResult {
        let id = request.request_id.clone();
        let mut response = next.run(request).await?;
        if !response.headers.contains_key("x-openstack-request-id") {
            add_request_id(&mut response, &id);
        }
        Ok(response)
    }
}

/// Both names under which clients look for it.
pub(in crate::api) fn add_request_id(response: &mut Response, id: &RequestId) {
    for name in ["x-openstack-request-id", "x-compute-request-id"] {
        if let Ok(value) = id.as_str().parse() {
            response.headers.insert(HeaderName::from_static(name), value);
        }
    }
}
