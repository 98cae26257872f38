//! The filters that come with us, by the names under which pipelines list them.
//!
//! | name | does |
//! |---|---|
//! | `request_id` | puts the request's id on the answer |
//! | `request_log` | one line per request |
//! | `faults` | turns errors and panics into the application's error bodies |
//! | `size_limit` | refuses bodies that are declared too long |
//! | `authtoken` | checks the token, or a proof that the route takes in its place; removes headers that claim an identity |
//! | `context` | makes the token the caller of the request |
//! | `rate_limit` | so many requests per second and project |

mod auth;
mod faults;
mod rate_limit;
mod request_id;
mod request_log;
mod size_limit;

pub use auth::{AuthFilter, ContextFilter};
pub use faults::FaultFilter;
pub use rate_limit::RateLimitFilter;
pub use request_id::RequestIdFilter;
pub use request_log::RequestLogFilter;
pub use size_limit::SizeLimitFilter;

pub(super) use faults::fault_response;
pub(super) use request_id::add_request_id;

use std::sync::Arc;

use super::Registry;

pub(super) fn register(registry: &mut Registry) {
    registry
        .filter("request_id", |_| Ok(Arc::new(RequestIdFilter)))
        .filter("request_log", |deps| Ok(Arc::new(RequestLogFilter::new(Arc::clone(&deps.clock)))))
        .filter("faults", |_| Ok(Arc::new(FaultFilter)))
        .filter("size_limit", |deps| Ok(Arc::new(SizeLimitFilter::new(deps.options.max_body))))
        .filter("authtoken", |deps| Ok(Arc::new(AuthFilter::new(Arc::clone(&deps.identity)))))
        .filter("context", |_| Ok(Arc::new(ContextFilter)))
        .filter("rate_limit", |deps| {
            Ok(Arc::new(RateLimitFilter::new(deps.options.rate_limit, Arc::clone(&deps.clock))))
        });
}
