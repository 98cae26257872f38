//! Records of images; their data is the image service's.

use async_trait::async_trait;
use nova_core::ids::ImageId;
use nova_core::image::Image;

use crate::{SecretStore, StoreError};

/// Images.
#[async_trait]
pub trait ImageStore: SecretStore {
    /// A new image; its id is unique.
    async fn create_image(&self, image: Image) -> Result<Image, StoreError>;
    /// One image.
    async fn get_image(&self, id: ImageId) -> Result<Image, StoreError>;
    /// All images, newest first.
    async fn list_images(&self) -> Result<Vec<Image>, StoreError>;
    /// Writes an image, if the generation still stands.
    async fn update_image(&self, image: Image) -> Result<Image, StoreError>;
    /// Removes it.
    async fn delete_image(&self, id: ImageId) -> Result<(), StoreError>;
}
