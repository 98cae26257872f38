//! What compute's old image calls (until 2.35, metadata until 2.38) need of the images here.

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::image::{Image, MemberStatus};

use super::attributes;
use super::manager::ImageManager;
use super::policy::{fits_member, is_listed, require_owner};
use super::view::{READ_ONLY, RESERVED, SETTABLE};
use crate::api::ApiError;

/// What clients attach to an image.
pub(crate) type Properties = BTreeMap<String, String>;

impl ImageManager {
    /// The images in a caller's lists, newest first.
    pub(crate) async fn images_of(&self, context: &RequestContext) -> Result<Vec<Image>, ApiError> {
        let mut images = self.store.list_images().await?;
        let accepted = Some(MemberStatus::Accepted);
        images.retain(|image| !image.os_hidden && is_listed(context, image) && fits_member(context, image, accepted));
        images.sort_by_key(|image| std::cmp::Reverse((image.created_at, image.id)));
        Ok(images)
    }

    /// One image that the caller may see.
    pub(crate) async fn image_of(&self, context: &RequestContext, id: &str) -> Result<Image, ApiError> {
        self.show(context, id).await
    }

    /// Removes an image.
    pub(crate) async fn remove_image(&self, context: &RequestContext, id: &str) -> Result<(), ApiError> {
        self.delete(context, id).await
    }

    /// Gives an image other properties, made of those that it has.
    pub(crate) async fn change_properties(
        &self,
        context: &RequestContext,
        id: &str,
        next: impl Fn(&Properties) -> Result<Properties, ApiError> + Send + Sync,
    ) -> Result<Properties, ApiError> {
        let change = |image: &mut Image| {
            require_owner(context, image, "modify")?;
            let properties = next(&image.properties)?;
            let taken = |key: &&str| READ_ONLY.contains(key) || RESERVED.contains(key) || SETTABLE.contains(key);
            if let Some(key) = properties.keys().map(String::as_str).find(taken) {
                return Err(ApiError::forbidden(format!("Attribute '{key}' is reserved.")));
            }
            image.properties = properties;
            attributes::check_limits(image, &self.options)
        };
        Ok(self.change(context, id, change).await?.properties)
    }
}
