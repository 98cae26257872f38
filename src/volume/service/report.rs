//! What a volume host says of its pool, and what it sees to when it starts.

use std::collections::BTreeMap;

use nova_core::error::chain;
use nova_core::ids::VolumeId;
use nova_core::volume::{AttachmentStatus, GIB, Pool, Volume};
use nova_db::{ListQuery, VolumeField};

use super::VolumeHost;
use crate::volume::driver::{AttachmentOf, Inventory};

impl VolumeHost {
    /// Says how much there is.
    pub(super) async fn report(&self) -> Result<(), String> {
        let parts = &self.inner.parts;
        let space = parts.driver.stats().await.map_err(|error| chain(&error).to_string())?;
        let can = parts.driver.capabilities();
        let capabilities = BTreeMap::from([
            ("volume_backend_name".to_owned(), parts.options.backend.clone()),
            ("storage_protocol".to_owned(), can.storage_protocol.to_owned()),
            ("vendor_name".to_owned(), can.vendor.to_owned()),
            ("driver_version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("thin_provisioning_support".to_owned(), word(can.thin)),
            ("online_extend_support".to_owned(), word(can.online_extend)),
            ("max_over_subscription_ratio".to_owned(), space.over_subscription_ratio.to_string()),
            ("reserved_percentage".to_owned(), space.reserved_percentage.to_string()),
        ]);
        let pool = Pool {
            name: self.pool(),
            zone: parts.options.zone.clone(),
            total_gb: space.total / GIB,
            free_gb: space.free / GIB,
            limit_gb: space.promisable() / GIB,
            thin: can.thin,
            online_extend: can.online_extend,
            multiattach: can.multiattach,
            live_snapshot: can.live_snapshot,
            live_copy: can.live_copy,
            capabilities,
            booked_gb: 0,
            volumes: 0,
            heard_at: self.now(),
            generation: 0,
        };
        let pool = parts.store.report_volume_pool(pool).await.map_err(|error| chain(&error).to_string())?;
        metrics::gauge!("nova_volume_pool_booked_gigabytes").set(pool.booked_gb as f64);
        Ok(())
    }

    /// Hosts come to their volumes again, whatever the backend forgot; whoever has no attachment does not any more.
    pub(super) async fn let_in_again(&self) {
        let parts = &self.inner.parts;
        let of_pool = ListQuery::of(VolumeField::Pool, self.pool());
        let volumes = match parts.store.list_volumes(&of_pool).await {
            Ok(volumes) => volumes,
            Err(error) => return tracing::warn!("connections were not looked at: {}", chain(&error)),
        };
        match parts.driver.inventory().await {
            Ok(inventory) => self.shut_out(&volumes, &inventory).await,
            Err(error) => tracing::warn!("the backend does not say what it has: {}", chain(&error)),
        }
        for volume in &volumes {
            for attachment in volume.attachments.values() {
                let is_in = matches!(attachment.status, AttachmentStatus::Attaching | AttachmentStatus::Attached);
                let Some(connector) = attachment.connector.as_ref().filter(|_| is_in) else { continue };
                let of = AttachmentOf { id: attachment.id, access: attachment.mode };
                let _alone = self.alone([volume.id]).await;
                if let Err(error) = parts.driver.connect_host(volume.id, &of, connector).await {
                    tracing::error!(volume = %volume.id, "a host was not let to its volume: {}", chain(&error));
                }
            }
        }
    }

    async fn shut_out(&self, volumes: &[Volume], inventory: &Inventory) {
        let known: BTreeMap<VolumeId, &Volume> = volumes.iter().map(|volume| (volume.id, volume)).collect();
        for (id, found) in &inventory.volumes {
            let volume = known.get(id);
            if volume.is_none() {
                tracing::warn!(volume = %id, "the backend has a volume that the books do not know");
            }
            for attachment in found.connections.keys() {
                let of_books = volume.and_then(|volume| volume.attachments.get(attachment));
                if of_books.is_some_and(|one| one.connector.is_some()) {
                    continue;
                }
                let _alone = self.alone([*id]).await;
                match self.inner.parts.driver.disconnect_host(*id, *attachment).await {
                    Ok(()) => tracing::warn!(volume = %id, %attachment, "a host without an attachment was shut out"),
                    Err(error) => {
                        tracing::error!(volume = %id, %attachment, "a host was not shut out: {}", chain(&error));
                    }
                }
            }
        }
    }
}

fn word(flag: bool) -> String {
    if flag { "True" } else { "False" }.to_owned()
}
