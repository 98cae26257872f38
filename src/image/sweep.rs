//! Data that no image has any more: others than this service, which hold only records (a conductor that rotates backups,
//! the end of a server whose image was in the making), remove those alone.

use std::sync::Arc;
use std::time::Duration;

use nova_core::error::chain;
use nova_core::ids::ImageId;
use nova_db::StoreError;
use tokio_util::sync::CancellationToken;

use super::manager::{ImageManager, blocking, disk_failed};
use crate::api::ApiError;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(300);

impl ImageManager {
    /// Looks for such data until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.remove_orphans().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "removed the data of images that are gone"),
                Err(error) => tracing::warn!("data of images that are gone was not looked for: {}", chain(&error)),
            }
        }
    }

    /// Removes the data of images that are gone; returns of how many. What is being written is left alone: whoever writes it
    /// finds the image gone.
    pub(super) async fn remove_orphans(&self) -> Result<usize, ApiError> {
        let folder = self.folder.clone();
        let stored = blocking(move || folder.stored()).await?.map_err(|error| disk_failed(&error))?;
        let mut removed = 0;
        for id in stored {
            if self.is_gone(id).await? {
                self.discard(id).await;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn is_gone(&self, id: ImageId) -> Result<bool, ApiError> {
        let folder = self.folder.clone();
        if blocking(move || folder.is_being_written(id)).await? {
            return Ok(false);
        }
        // Looked at after the data: an image that has data has had its record before.
        match self.store.get_image(id).await {
            Ok(_) => Ok(false),
            Err(StoreError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
