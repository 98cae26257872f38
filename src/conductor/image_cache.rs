//! Images ahead of their first use: hosts are asked, a few at a time, to fetch one (nova/conductor/manager.py,
//! `cache_images`).

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use nova_core::context::RequestContext;
use nova_core::error::chain;
use nova_core::ids::HostName;
use nova_core::image::ImageMeta;
use nova_core::rpc::compute;
use nova_core::rpc::conductor::CacheImageRequest;
use nova_queue::{HandlerError, Incoming};

use super::engine::signed;
use super::manager::Conductor;

/// How long a host may take. A broker waits half an hour for a message to be done with.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

impl Conductor {
    /// Asks every one of the hosts that is up. Who can't is logged: it fetches the image when it builds a server of it.
    pub(super) async fn cache_image(&self, incoming: Incoming, request: CacheImageRequest) -> Result<(), HandlerError> {
        let options = self.services.options.get();
        let (now, down_time) = (self.clock.now(), signed(options.service_down_time));
        let services = self.store.list_services().await.map_err(|error| HandlerError::Again(chain(&error)))?;
        let up = services.iter().filter(|s| s.binary == "nova-compute" && s.is_up(now, down_time));
        let up: BTreeSet<&HostName> = up.map(|service| &service.host).collect();
        let (asked, away): (Vec<_>, Vec<_>) = request.hosts.iter().cloned().partition(|host| up.contains(host));
        for host in away {
            tracing::info!(%host, image = %request.image.id, "the host is down and fetches the image when it needs it");
        }
        let all = asked.len();
        let one = |host: HostName| self.cache_on(&incoming.context, host, &request.image);
        let fetched = futures_util::stream::iter(asked)
            .map(one)
            .buffer_unordered(options.precache_concurrency.max(1))
            .enumerate()
            .map(|(done, there)| {
                tracing::info!(image = %request.image.id, "{} of {all} hosts were asked for the image", done + 1);
                usize::from(there)
            })
            .fold(0, |sum, there| async move { sum + there })
            .await;
        tracing::info!(image = %request.image.id, "{fetched} of {all} hosts have the image");
        Ok(())
    }

    async fn cache_on(&self, context: &RequestContext, host: HostName, image: &ImageMeta) -> bool {
        let grant = self.services.image_grants.grant(image.id, self.clock.now() + signed(PATIENCE));
        let order = compute::CacheImageRequest { image: image.clone(), grant };
        let asking = self.services.rpc.clone().with_call_timeout(PATIENCE);
        match asking.call_to::<compute::CacheImage>(&host, context, &order).await {
            Ok(reply) => {
                let word = if reply.existed { "had" } else { "fetched" };
                tracing::info!(%host, image = %image.id, "the host {word} the image");
                true
            }
            Err(error) => {
                tracing::warn!(%host, image = %image.id, "the host did not fetch the image: {}", chain(&error));
                false
            }
        }
    }
}
