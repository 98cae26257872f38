//! HTTP: the pipeline that every request passes, and what resources are made of.
//!
//! ```text
//! connection → Api (path → Application) → filters of the application's pipeline, in order → Router → handler
//! ```
//!
//! A [`Resource`] brings [`Route`]s; an [`Application`] is a set of resources under a mount with a [`Dialect`] (how it writes
//! errors and versions); a [`Registry`] holds applications and filters by name, and builds the [`Api`] that the
//! configuration asks for. A platform builder's resources, filters and applications register exactly like ours.

mod actions;
pub mod compute;
mod error;
mod fault;
pub mod filters;
pub mod health;
pub mod microversion;
pub mod network;
mod options;
mod pipeline;
pub mod policy;
mod query;
mod registry;
mod request;
mod resource;
mod response;
mod route;
mod router;
mod server;
#[cfg(test)]
mod tests;
pub mod validate;
pub mod volume;

pub use error::ApiError;
pub use fault::{NovaDialect, fault_name};
pub use microversion::Microversion;
pub use options::{API_OPTIONS, ApiOptions, EnabledApi, PipelineOptions};
pub use pipeline::{Api, Filter, Next};
pub use query::{Paging, Query, parse_bool};
pub use registry::{FilterDeps, FilterFactory, PipelineError, Registry};
pub use request::{MAX_BODY, Request, RequestBody};
pub use resource::{Application, Dialect, Resource};
pub use response::Response;
pub use route::{Access, ActionHandler, Handler, HandlerResult, Proof, Route, ServerAction, action, route};
pub use server::{ServeError, Server, ServerOptions};
