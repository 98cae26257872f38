//! The built-in images, as far as the store knows them: for services of the control plane that have no folder of them.

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageData, ImageService, ImageServiceError};
use nova_core::ids::ImageId;
use nova_core::image::{ImageGrant, ImageMeta};
use nova_db::{Store, StoreError};

use super::policy::may_see;
use super::service::{meta, not_found, unavailable};

/// What the store says of images. Their data are elsewhere.
pub struct ImageBooks {
    store: Arc<dyn Store>,
}

impl ImageBooks {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }
}

const NO_DATA: ImageServiceError = ImageServiceError::Unsupported("the data of images are not kept here");

#[async_trait]
impl ImageService for ImageBooks {
    async fn bootable_image(&self, context: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        match self.store.get_image(id).await {
            Ok(image) if may_see(context, &image) => meta(image),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(not_found(id)),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn download(&self, _: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(NO_DATA)
    }

    async fn upload(
        &self,
        _: ImageId,
        _: Option<&ImageGrant>,
        _: u64,
        _: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        Err(NO_DATA)
    }
}
