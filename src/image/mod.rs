//! The built-in image service: Glance's v2 API over records in the store and data in a folder.
//!
//! Data is streamed to disk, never held in memory, and [inspected](nova_core::disk_format) before anything else reads it; an
//! image whose data is not what was declared never becomes `active`. What it is not: several stores, import from URLs,
//! signatures, the conversion of formats.
//!
//! [`ImageManager`] implements [`ImageService`](nova_core::contracts::ImageService) for hosts in the same process;
//! [`application`] is the HTTP side. There, hosts of other processes show a grant ([`GrantKey`]) in the place of a token.

mod attributes;
mod books;
mod data;
mod file;
mod for_compute;
mod grant;
mod http;
mod images;
mod list;
mod manager;
mod members;
mod options;
mod patch;
mod policy;
mod schema;
mod service;
mod sweep;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use books::ImageBooks;
pub(crate) use for_compute::Properties;
pub use grant::GrantKey;
pub use http::GlanceDialect;
pub use manager::{ImageManager, ImageManagerError};
pub use options::{IMAGE_OPTIONS, ImageOptions};

use crate::api::{Application, Resource};

/// The image API over this manager, mounted at `/image`.
pub fn application(manager: Arc<ImageManager>) -> Application {
    let mut application =
        Application::new("image", "/image", Arc::new(GlanceDialect)).prefixes(&["/v2"]).root(Arc::new(http::Versions));
    for resource in resources(manager) {
        application = application.resource(resource);
    }
    application
}

/// The resources of the image API, for an application that is put together otherwise.
pub fn resources(manager: Arc<ImageManager>) -> Vec<Arc<dyn Resource>> {
    vec![
        Arc::new(images::Images::new(Arc::clone(&manager))),
        Arc::new(members::Members::new(Arc::clone(&manager))),
        Arc::new(file::Files::new(manager)),
    ]
}
