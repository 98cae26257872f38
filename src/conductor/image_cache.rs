//! Images ahead of their first use: hosts are asked, a few at a time, to fetch one (nova/conductor/manager.py,
//! `cache_images`).

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use nova_core::context::RequestContext;
use nova_core::error::chain;
use nova_core::ids::HostName;
use nova_core::image::ImageMeta;
use nova_core::rpc::compute;
use nova_core::rpc::conductor::{CacheImage, CacheImageRequest};
use nova_queue::{HandlerError, Incoming};

use super::engine::signed;
use super::manager::Conductor;

/// How long a host may take. A broker waits half an hour for a message to be done with.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

impl Conductor {
    /// Asks the first few of the hosts, as far as they are up, and leaves the others to a message of their own: none is in
    /// hand for longer than one host may take. Who can't is logged: it fetches the image when it builds a server of it.
    pub(super) async fn cache_image(&self, incoming: Incoming, request: CacheImageRequest) -> Result<(), HandlerError> {
        let options = self.services.options.get();
        let (now, down_time) = (self.clock.now(), signed(options.service_down_time));
        let services = self.store.list_services().await.map_err(|error| HandlerError::Again(chain(&error)))?;
        let up = services.iter().filter(|s| s.binary == "nova-compute" && s.is_up(now, down_time));
        let up: BTreeSet<&HostName> = up.map(|service| &service.host).collect();
        let CacheImageRequest { image, mut hosts } = request;
        let rest = hosts.split_off(hosts.len().min(options.precache_concurrency.max(1)));
        let (asked, away): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|host| up.contains(host));
        for host in away {
            tracing::info!(%host, image = %image.id, "the host is down and fetches the image when it needs it");
        }
        join_all(asked.into_iter().map(|host| self.cache_on(&incoming.context, host, &image))).await;
        if rest.is_empty() {
            tracing::info!(image = %image.id, "all hosts were asked for the image");
            return Ok(());
        }
        tracing::info!(image = %image.id, "{} hosts are still to be asked for the image", rest.len());
        let rest = CacheImageRequest { image, hosts: rest };
        let told = self.services.rpc.cast::<CacheImage>(&incoming.context, &rest).await;
        told.map_err(|error| HandlerError::Again(chain(&error)))
    }

    async fn cache_on(&self, context: &RequestContext, host: HostName, image: &ImageMeta) {
        let grant = self.services.image_grants.grant(image.id, self.clock.now() + signed(PATIENCE));
        let order = compute::CacheImageRequest { image: image.clone(), grant };
        let asking = self.services.rpc.clone().with_call_timeout(PATIENCE);
        match asking.call_to::<compute::CacheImage>(&host, context, &order).await {
            Ok(reply) => {
                let word = if reply.existed { "had" } else { "fetched" };
                tracing::info!(%host, image = %image.id, "the host {word} the image");
            }
            Err(error) => {
                tracing::warn!(%host, image = %image.id, "the host did not fetch the image: {}", chain(&error));
            }
        }
    }
}
