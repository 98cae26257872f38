//! Guests that are set aside: stopped, unknown to the hypervisor, their disks kept until the move is over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::{BuildOrder, DiskGrant, MoveOrder, Order};
use nova_core::rpc::conductor::{AssignedInstance, ConfirmStrays, ConfirmStraysRequest};
use nova_virt::{DiskFormat, DiskRole, ErrorKind, ExportRequest, GuestInfo, GuestSpec, HypervisorError, RebootKind};
use serde_json::Value;

use super::MoveError;
use super::disks::{self, DiskError, Offer};
use crate::agent::{Agent, AgentError};
use crate::snapshot::make_private;
use crate::steps::{guest, wanted};

/// More than a guest has device names for.
const MOST_EPHEMERALS: u32 = 26;

impl Agent {
    pub(super) async fn is_stashed(&self, id: InstanceId) -> Result<bool, HypervisorError> {
        Ok(self.hypervisor.list_stashes().await?.iter().any(|stash| stash.instance == id))
    }

    /// Stops the guest, as its owner would, and sets it aside; offers its disks to whoever has the grant.
    pub(super) async fn stash_guest(
        &self,
        order: &Order<MoveOrder>,
        graceful: Duration,
        grant: Option<&DiskGrant>,
    ) -> Result<Option<Value>, MoveError> {
        let id = order.instance_id;
        match self.hypervisor.power_off(id, Some(graceful)).await {
            Ok(()) => {}
            // Set aside before, by this order.
            Err(error) if error.kind() == ErrorKind::NotFound && self.is_stashed(id).await? => {}
            Err(error) => return Err(error.into()),
        }
        let console = self.last_words(id).await;
        self.hypervisor.stash(id, order.epoch).await?;
        self.network.gone(id).await;
        let Some(grant) = grant.filter(|_| self.hypervisor.capabilities().needs_images) else { return Ok(None) };
        let offer = Offer { console, ..self.offer_disks(order, grant).await? };
        serde_json::to_value(offer).map(Some).map_err(MoveError::Foreign)
    }

    /// Copies of the guest's disks, for the host that it goes to.
    async fn offer_disks(&self, order: &Order<MoveOrder>, grant: &DiskGrant) -> Result<Offer, MoveError> {
        let id = order.instance_id;
        self.exports.end(id).await;
        let files = self.copy_disks(order, "out").await?;
        Ok(self.exports.serve(order.task_id, id, grant.clone(), files).await?)
    }

    /// Copies of the disks of a guest that is set aside, each in a file. Swap space is made anew.
    pub(super) async fn copy_disks<T>(
        &self,
        order: &Order<T>,
        what_for: &str,
    ) -> Result<Vec<(DiskRole, PathBuf)>, MoveError> {
        let id = order.instance_id;
        let folder = self.options.snapshots.clone();
        make_private(&folder).await.map_err(DiskError::from)?;
        let mut files = Vec::new();
        let ephemerals = (0..MOST_EPHEMERALS).map(|index| (DiskRole::Ephemeral, index));
        for (role, index) in std::iter::once((DiskRole::Root, 0)).chain(ephemerals) {
            let destination = folder.join(format!("{}-{}-{what_for}-{}", order.task_id, order.epoch, files.len()));
            let request = ExportRequest { role, index, destination, format: DiskFormat::Qcow2 };
            disks::remove(&request.destination).await;
            match self.hypervisor.export_disk(id, &request).await {
                Ok(()) => files.push((role, request.destination)),
                // It boots from a volume.
                Err(error) if error.kind() == ErrorKind::InvalidInput && role == DiskRole::Root => {}
                // That was the last one.
                Err(error) if error.kind() == ErrorKind::InvalidInput => break,
                Err(error) => {
                    for (_, path) in &files {
                        disks::remove(path).await;
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(files)
    }

    /// Takes the guest back; one that was never set aside, or was taken back before, is only started again.
    pub(super) async fn take_back(&self, order: &Order<BuildOrder>, running: bool) -> Result<(), MoveError> {
        let id = order.instance_id;
        self.exports.end(id).await;
        let interfaces = self.ready(&order.body).await?;
        let spec = GuestSpec { interfaces, running: false, ..guest(order, None, &*self.entropy) };
        // What the guest takes of the host was never given away.
        if let Ok(claim) = self.tracker.claim(id, wanted(&order.body)) {
            claim.keep();
        }
        if self.is_stashed(id).await? {
            self.hypervisor.unstash(&spec).await?;
        }
        if running {
            self.hypervisor.power_on(id).await?;
        } else {
            self.hypervisor.info(id).await?;
        }
        Ok(())
    }

    /// Starts a guest anew of which nobody knows how it is: set aside, or there.
    pub(super) async fn recover(&self, order: &Order<BuildOrder>) -> Result<(), MoveError> {
        let id = order.instance_id;
        if !self.hypervisor.capabilities().migrate || !self.is_stashed(id).await? {
            return Ok(self.hypervisor.reboot(id, RebootKind::Hard).await?);
        }
        tracing::info!(instance = %id, "it was still set aside, and is taken back");
        self.take_back(order, true).await
    }

    /// The server stays where it went: its old guest goes for good.
    pub(super) async fn drop_stash(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.exports.end(id).await;
        self.hypervisor.drop_stash(id).await?;
        match self.hypervisor.info(id).await {
            // It has moved to another size on this host.
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => self.tracker.release(id),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What was set aside for moves that are over, while this host was away: of servers that are deleted or elsewhere, and of
    /// those that are here with another guest and do not move.
    pub(crate) async fn drop_old_stashes(
        &self,
        guests: &[GuestInfo],
        assigned: &BTreeMap<InstanceId, AssignedInstance>,
    ) -> Result<(), AgentError> {
        if !self.hypervisor.capabilities().migrate {
            return Ok(());
        }
        let stashes = self.hypervisor.list_stashes().await?;
        let here = |id: InstanceId| guests.iter().any(|guest| guest.instance == id);
        let mut old = Vec::new();
        let mut asked = Vec::new();
        for stash in &stashes {
            match assigned.get(&stash.instance) {
                Some(known) if !known.busy && here(stash.instance) => old.push(stash.instance),
                Some(_) => {}
                None => asked.push(stash.instance),
            }
        }
        if !asked.is_empty() {
            let request = ConfirmStraysRequest { host: self.options.host.clone(), instances: asked };
            old.extend(self.rpc.call::<ConfirmStrays>(&self.context(), &request).await?);
        }
        for id in old {
            let turn = self.instances.turn(id);
            let Ok(_turn) = turn.try_lock() else { continue };
            if self.instances.busy(id) {
                continue;
            }
            tracing::warn!(instance = %id, "removing what was set aside of a guest that has moved");
            if let Err(error) = self.drop_stash(id).await {
                tracing::warn!(instance = %id, "it was not removed: {}", chain(&error));
            }
        }
        Ok(())
    }
}
