//! A host's parts of moves (nova/compute/manager.py): a guest is set aside, made anew, taken back, or sent while it runs.
//!
//! Each part may be ordered again. A part that fails leaves what it found, or what the order that takes it back knows of:
//! the conductor orders that before anything else.

mod disks;
mod live;
mod stashes;

use std::path::PathBuf;

use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::{BuildOrder, DiskGrant, MoveOrder, Order};
use nova_core::rpc::conductor::StepOutcome;
use nova_virt::{DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, GuestSpec, HypervisorError, Operation};
use serde_json::Value;

pub(crate) use disks::Exports;

use self::disks::{DiskError, Offer, fetch};
use crate::agent::Agent;
use crate::snapshot::make_private;
use crate::steps::{BuildError, guest, wanted};

/// Bytes of a console log that go along to another host.
const LAST_WORDS: usize = 16 << 10;

/// Why a host could not do its part.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    /// As in a build.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// The disks' way.
    #[error(transparent)]
    Disks(#[from] DiskError),
    /// The disks did not come.
    #[error("the disks of the guest were not offered by its source")]
    NoDisks,
    /// What one driver says, another does not understand.
    #[error("the other host's answer is none of this driver")]
    Foreign(#[source] serde_json::Error),
}

impl MoveError {
    fn retryable(&self) -> bool {
        match self {
            Self::Build(error) => error.retryable(),
            Self::Hypervisor(error) => error.kind() != ErrorKind::InvalidInput,
            Self::Disks(_) | Self::NoDisks | Self::Foreign(_) => false,
        }
    }
}

impl Agent {
    /// Does it, whatever part it is.
    pub(crate) async fn part_of_move(&self, order: &Order<MoveOrder>) -> StepOutcome {
        let id = order.instance_id;
        match &order.body {
            MoveOrder::Prepare(guest) => self.prepare_move(order, guest),
            MoveOrder::Stash { graceful, grant, stays } => {
                match self.stash_guest(order, *graceful, (!stays).then_some(grant)).await {
                    Ok(Some(answer)) => StepOutcome::Answered { power_state: None, answer },
                    stashed => {
                        let stashed = stashed.map(|_| Vec::new());
                        self.told(order, stashed, "The server could not be stopped to be moved.").await
                    }
                }
            }
            MoveOrder::Finish { guest, disks, grant, running, stays } => {
                let disks = match grant {
                    Some(_) if *stays => Disks::SetAside,
                    Some(grant) => Disks::Elsewhere { offer: disks.as_ref(), grant },
                    None => Disks::New,
                };
                let made = self.make_moved(&of(order, guest), disks, *running).await;
                // What was set aside elsewhere goes back there first: no other host is tried.
                let may_retry = grant.is_none() && made.as_ref().is_err_and(MoveError::retryable);
                let made = made.map(|()| self.plugged(&guest.vifs));
                let outcome = self.told(order, made, "The server could not be made on its new host.").await;
                retry(self.placed(id, guest.has_tags(), outcome).await, may_retry)
            }
            MoveOrder::Leave => {
                let left = self.leave(id).await.map_err(MoveError::from);
                self.told(order, left.map(|()| Vec::new()), "The server could not be removed from its new host.").await
            }
            MoveOrder::LeaveUnlessCome => self.leave_unless_come(order).await,
            MoveOrder::Return { guest, running } => {
                let back = self.take_back(&of(order, guest), *running).await;
                let back = back.map(|()| self.plugged(&guest.vifs));
                let outcome = self.told(order, back, "The server could not be taken back on its old host.").await;
                self.placed(id, guest.has_tags(), outcome).await
            }
            MoveOrder::Recover(guest) => {
                let recovered = self.recover(&of(order, guest)).await;
                let recovered = recovered.map(|()| self.plugged(&guest.vifs));
                let outcome = self.told(order, recovered, "The server could not be rebooted.").await;
                self.placed(id, guest.has_tags(), outcome).await
            }
            MoveOrder::DropStash { holds } => {
                let dropped = self.drop_stash(id).await.map_err(MoveError::from);
                if let (Ok(()), Some(holds)) = (&dropped, *holds)
                    && let Ok(claim) = self.tracker.claim(id, holds)
                {
                    claim.keep();
                }
                self.told(order, dropped.map(|()| Vec::new()), "What was left on the old host could not be removed.")
                    .await
            }
            MoveOrder::PrepareIncoming(guest) => self.prepare_incoming(&of(order, guest)).await,
            MoveOrder::LiveMigrate { to, block, limits } => self.send_guest(order, to, *block, limits).await,
            MoveOrder::StopLiveMigration => self.stay(order).await,
            MoveOrder::Adopt(guest) => self.adopt(&of(order, guest)).await,
        }
    }

    async fn told<T>(
        &self,
        order: &Order<T>,
        done: Result<Vec<nova_core::ids::PortId>, MoveError>,
        message: &str,
    ) -> StepOutcome {
        match done {
            Ok(plugged) => self.done(order, plugged).await,
            Err(error) => StepOutcome::Failed { message: message.to_owned(), details: chain(&error), retryable: false },
        }
    }

    /// The destination holds what the guest will take, so that nothing else does.
    fn prepare_move(&self, order: &Order<MoveOrder>, guest: &BuildOrder) -> StepOutcome {
        let failed = |message: &str, details: String| StepOutcome::Failed {
            message: message.to_owned(),
            details,
            retryable: true,
        };
        if !self.hypervisor.capabilities().migrate {
            let unsupported = HypervisorError::Unsupported { operation: Operation::Stash };
            return failed("The host's driver cannot take servers of other hosts.", chain(&unsupported));
        }
        match self.tracker.claim(order.instance_id, wanted(guest)) {
            Ok(claim) => {
                claim.keep();
                StepOutcome::done(None)
            }
            Err(error) => failed("The host has not enough resources left.", chain(&error)),
        }
    }

    /// Makes a guest here that moves: with the disks that it had, or anew from its image.
    async fn make_moved(&self, order: &Order<BuildOrder>, disks: Disks<'_>, running: bool) -> Result<(), MoveError> {
        let (id, body) = (order.instance_id, &order.body);
        let claim = self.tracker.claim(id, wanted(body)).map_err(BuildError::from)?;
        let files = self.hypervisor.capabilities().needs_images;
        let spec = match disks {
            Disks::Elsewhere { offer, grant } if files => {
                self.with_fetched_disks(order, offer.ok_or(MoveError::NoDisks)?, grant).await?
            }
            Disks::SetAside if files => self.with_own_disks(order).await?,
            Disks::Elsewhere { .. } | Disks::SetAside => guest(order, None, &*self.entropy),
            Disks::New => guest(order, self.base_for_new_disk(body).await?, &*self.entropy),
        };
        let interfaces = self.ready(body).await?;
        let spec = GuestSpec { interfaces, running, ..spec };
        if self.instances.overtaken(id, order.epoch) {
            return Err(BuildError::Overtaken.into());
        }
        let spawned = self.hypervisor.spawn(&spec).await;
        drop_files(&spec).await;
        spawned?;
        claim.keep();
        Ok(())
    }

    /// The guest with its disks as the source has them, in files that become its own.
    async fn with_fetched_disks(
        &self,
        order: &Order<BuildOrder>,
        offer: &Value,
        grant: &DiskGrant,
    ) -> Result<GuestSpec, MoveError> {
        let offer: Offer = serde_json::from_value(offer.clone()).map_err(MoveError::Foreign)?;
        let mut spec = guest(order, None, &*self.entropy);
        spec.earlier_console.clone_from(&offer.console);
        let folder = self.options.snapshots.clone();
        make_private(&folder).await.map_err(DiskError::from)?;
        for (place, disk) in offer.disks.iter().enumerate() {
            let path = folder.join(format!("{}-{}-in-{place}", order.task_id, order.epoch));
            fetch(&offer, place, order.task_id, grant, &path).await?;
            take_file(&mut spec, disk.role, DiskSource::File { path, format: disk.format }, order.body.root_gb);
        }
        Ok(spec)
    }

    /// The guest with copies of the disks that were set aside here: what it writes from now on must not be there when it is
    /// taken back.
    async fn with_own_disks(&self, order: &Order<BuildOrder>) -> Result<GuestSpec, MoveError> {
        let mut spec = guest(order, None, &*self.entropy);
        for (role, path) in self.copy_disks(order, "in").await? {
            take_file(&mut spec, role, DiskSource::File { path, format: DiskFormat::Qcow2 }, order.body.root_gb);
        }
        Ok(spec)
    }

    /// The end of what a guest wrote to its console here: as much as goes with it to another host. What can't be read stays.
    async fn last_words(&self, id: InstanceId) -> String {
        let log = match self.hypervisor.console_log(id).await {
            Ok(log) => log,
            Err(error) => {
                tracing::debug!(instance = %id, "its console log does not come along: {}", chain(&error));
                return String::new();
            }
        };
        let end = log.get(log.len().saturating_sub(LAST_WORDS)..).unwrap_or_default();
        String::from_utf8_lossy(end).into_owned()
    }

    /// The image that the guest's disks stand on, in the cache.
    async fn base_of(&self, body: &BuildOrder) -> Result<Option<PathBuf>, MoveError> {
        match &body.image {
            Some(image) if self.hypervisor.capabilities().needs_images => {
                let base = self.images.get(image, body.image_grant.as_ref()).await;
                Ok(Some(base.map_err(BuildError::from)?))
            }
            _ => Ok(None),
        }
    }

    /// The host's network has the guest's ports.
    async fn ready(&self, body: &BuildOrder) -> Result<Vec<nova_virt::InterfaceSpec>, MoveError> {
        if body.vifs.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.network.ready(&body.vifs).await.map_err(BuildError::Network)?)
    }

    /// Removes the guest that was made here, and what is held for it; what was set aside stays.
    async fn leave(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.hypervisor.destroy(id).await?;
        self.network.gone(id).await;
        // What is set aside here comes back, and keeps its place.
        if !self.hypervisor.capabilities().migrate || !self.is_stashed(id).await? {
            self.tracker.release(id);
        }
        Ok(())
    }
}

/// Where the disks of a guest that moves are.
enum Disks<'a> {
    /// Nowhere: they are made from its image.
    New,
    /// On its old host, which offers them to the holder of the grant.
    Elsewhere { offer: Option<&'a Value>, grant: &'a DiskGrant },
    /// Here, set aside.
    SetAside,
}

/// The next disk of that role is what is in a file.
fn take_file(spec: &mut GuestSpec, role: DiskRole, source: DiskSource, root_gb: u64) {
    let is_open = |known: &DiskSpec| known.role == role && !matches!(known.source, DiskSource::File { .. });
    match spec.disks.iter_mut().find(|known| is_open(known)) {
        Some(known) => known.source = source,
        None => spec.disks.insert(0, DiskSpec { role, source, size_gb: root_gb }),
    }
}

/// Files that have not become disks go.
async fn drop_files(spec: &GuestSpec) {
    for disk in &spec.disks {
        if let DiskSource::File { path, .. } = &disk.source {
            disks::remove(path).await;
        }
    }
}

/// The same order, of what the guest is.
fn of(order: &Order<MoveOrder>, guest: &BuildOrder) -> Order<BuildOrder> {
    Order {
        task_id: order.task_id,
        instance_id: order.instance_id,
        epoch: order.epoch,
        given: order.given,
        body: guest.clone(),
    }
}

fn retry(outcome: StepOutcome, may: bool) -> StepOutcome {
    match outcome {
        StepOutcome::Failed { message, details, .. } => StepOutcome::Failed { message, details, retryable: may },
        other => other,
    }
}
