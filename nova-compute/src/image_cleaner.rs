//! The image cache's manager (nova/compute/manager.py, `_run_image_cache_manager_pass`): removes images that no disk of
//! this host stands on.

use nova_core::error::chain;
use nova_virt::ErrorKind;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

impl Agent {
    /// Looks at intervals, unless it is told never to.
    pub(crate) async fn clean_images_until(&self, stop: CancellationToken) {
        let Some(every) = self.options.image_cache_interval else { return };
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => self.clean_images().await,
            }
        }
    }

    async fn clean_images(&self) {
        let in_use = match self.hypervisor.images_in_use().await {
            Ok(in_use) => in_use,
            // A driver that does not tell has none, or may have any.
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            Err(error) => {
                tracing::warn!("images were not looked at: {}", chain(&error));
                return;
            }
        };
        match self.images.remove_unused(&in_use, self.clock.now(), self.options.image_cache_age).await {
            Ok(removed) => {
                for path in removed {
                    tracing::info!(path = %path.display(), "removed an image that no guest needs");
                }
            }
            Err(error) => tracing::warn!("unused images were not removed: {}", chain(&error)),
        }
    }
}
