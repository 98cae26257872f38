//! Cinder's v3 API over the built-in volume service.
//!
//! One resource per file. What all share: `input` reads bodies and names the attribute that is wrong, `list` filters, sorts
//! and pages, `view` writes things as clients read them, `dialect` errors and versions. What is another project's is not there.

mod actions;
mod attachments;
mod dialect;
mod input;
mod list;
mod metadata;
mod operators;
mod quotas;
mod snapshots;
#[cfg(test)]
mod tests;
mod transfers;
mod types;
mod view;
mod volumes;

use std::sync::Arc;

pub use dialect::CinderDialect;

use crate::api::{Application, Resource};
use crate::volume::VolumeManager;

/// The volume API over this manager, mounted at `/volume`.
pub fn application(manager: Arc<VolumeManager>) -> Application {
    let mut application = Application::new("volume", "/volume", Arc::new(CinderDialect))
        .prefixes(&["/v3"])
        .project_in_path()
        .root(Arc::new(dialect::Versions));
    for resource in resources(manager) {
        application = application.resource(resource);
    }
    application
}

/// The resources of the volume API, for an application that is put together otherwise.
pub fn resources(manager: Arc<VolumeManager>) -> Vec<Arc<dyn Resource>> {
    vec![
        Arc::new(volumes::Volumes(Arc::clone(&manager))),
        Arc::new(actions::Actions(Arc::clone(&manager))),
        Arc::new(metadata::Metadata(Arc::clone(&manager))),
        Arc::new(snapshots::Snapshots(Arc::clone(&manager))),
        Arc::new(attachments::Attachments(Arc::clone(&manager))),
        Arc::new(transfers::Transfers(Arc::clone(&manager))),
        Arc::new(types::Types(Arc::clone(&manager))),
        Arc::new(quotas::Quotas(Arc::clone(&manager))),
        Arc::new(operators::Operators(manager)),
    ]
}
