//! Guests that move while they run (nova/virt/libvirt/migration.py, nova/virt/libvirt/driver.py `_live_migration_monitor`).

use std::sync::PoisonError;
use std::time::Duration;

use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::{BuildOrder, LiveMigrationLimits, MoveOrder, Order, SteerLiveMigrationRequest};
use nova_core::rpc::conductor::{ReportProgress, ReportProgressRequest, StepOutcome};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::state::PowerState;
use nova_queue::HandlerError;
use nova_virt::{DiskAttachment, ErrorKind, GuestSpec, HypervisorError, IncomingAddress, LiveMigration, Operation};
use serde_json::{Value, json};

use super::MoveError;
use crate::agent::Agent;
use crate::steps::{BuildError, guest, wanted};

/// How often it is looked how far a migration is.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Agent {
    /// Gets ready for a guest that runs elsewhere, and answers where it is to be sent.
    pub(super) async fn prepare_incoming(&self, order: &Order<BuildOrder>) -> StepOutcome {
        match self.ready_for(order).await {
            Ok(address) => match serde_json::to_value(address) {
                Ok(answer) => StepOutcome::Answered { power_state: None, answer },
                Err(error) => failed("The host could not get ready.", chain(&error), false),
            },
            Err(error) => {
                let retryable = error.retryable();
                failed("The host could not get ready for the server.", chain(&error), retryable)
            }
        }
    }

    async fn ready_for(&self, order: &Order<BuildOrder>) -> Result<IncomingAddress, MoveError> {
        if !self.hypervisor.capabilities().live_migrate {
            return Err(HypervisorError::Unsupported { operation: Operation::PrepareIncoming }.into());
        }
        let body = &order.body;
        let claim = self.tracker.claim(order.instance_id, wanted(body)).map_err(BuildError::from)?;
        let base = self.base_of(body).await?;
        let interfaces = self.ready(body).await?;
        let spec = GuestSpec { interfaces, ..guest(order, base, &*self.entropy) };
        let address = self.hypervisor.prepare_incoming(&spec).await?;
        claim.keep();
        let volumes = spec.volumes.iter().map(DiskAttachment::without_secret).collect();
        Ok(IncomingAddress { volumes, ..address })
    }

    /// Sends the guest. While it goes, the conductor hears how far it is; one that takes too long is ended.
    pub(super) async fn send_guest(
        &self,
        order: &Order<MoveOrder>,
        to: &Value,
        block: Option<bool>,
        limits: &LiveMigrationLimits,
    ) -> StepOutcome {
        let id = order.instance_id;
        let to: IncomingAddress = match serde_json::from_value(to.clone()).map_err(MoveError::Foreign) {
            Ok(to) => to,
            Err(error) => return failed("The server could not be migrated.", chain(&error), false),
        };
        if block == Some(true) && to.shared_disks {
            let message = format!("Instance {id} is on shared storage: block migration can not be used.");
            return failed(&message, "the hosts share their disks".into(), false);
        }
        if block == Some(false) && !to.shared_disks {
            let message = format!("Instance {id} is not on shared storage: live migration can not be used.");
            return failed(&message, "the hosts share no disks".into(), false);
        }
        let how = LiveMigration {
            block: !to.shared_disks,
            to,
            bandwidth: limits.bandwidth,
            max_downtime: limits.max_downtime,
            auto_converge: limits.auto_converge,
            post_copy: limits.post_copy,
        };
        // Disks that both hosts see have their log beside them.
        let before = if how.block { self.last_words(id).await } else { String::new() };
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        let sent = self.send_and_watch(order, &how, limits).await;
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        match sent {
            Ok(()) => {
                self.network.gone(id).await;
                self.tracker.release(id);
                self.left.notify_one();
                if before.is_empty() {
                    return StepOutcome::done(None);
                }
                // What it said on its way is there, where the driver still has it.
                let after = self.last_words(id).await;
                let console = if after.is_empty() { before } else { after };
                StepOutcome::Answered { power_state: None, answer: json!({"console": console}) }
            }
            Err(error) => failed("The live migration failed; the server runs where it was.", chain(&error), false),
        }
    }

    async fn send_and_watch(
        &self,
        order: &Order<MoveOrder>,
        how: &LiveMigration,
        limits: &LiveMigrationLimits,
    ) -> Result<(), HypervisorError> {
        let id = order.instance_id;
        let sending = self.hypervisor.live_migrate(id, how);
        tokio::pin!(sending);
        let (mut passed, mut told_to_end) = (Duration::ZERO, false);
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => return sent,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            passed += LOOK_EVERY;
            self.tell_progress(order).await;
            if limits.completion_timeout.is_none_or(|most| passed < most) || told_to_end {
                continue;
            }
            told_to_end = true;
            tracing::warn!(instance = %id, force = limits.force_complete, "the live migration takes too long");
            let ended = if limits.force_complete {
                self.hypervisor.force_migration(id).await
            } else {
                self.hypervisor.abort_migration(id).await
            };
            if let Err(error) = ended {
                tracing::warn!(instance = %id, "it could not be ended: {}", chain(&error));
                told_to_end = false;
            }
        }
    }

    async fn tell_progress(&self, order: &Order<MoveOrder>) {
        let Ok(Some(progress)) = self.hypervisor.migration_progress(order.instance_id).await else { return };
        let (task_id, instance_id, epoch) = (order.task_id, order.instance_id, order.epoch);
        let report = ReportProgressRequest { task_id, instance_id, epoch, progress };
        if let Err(error) = self.rpc.cast::<ReportProgress>(&self.context(), &report).await {
            tracing::debug!(instance = %instance_id, "progress was not reported: {}", chain(&error));
        }
    }

    /// A later order has the guest stay: it must not wait for a migration that ends of itself.
    pub(crate) async fn stop_leaving(&self, id: InstanceId, epoch: u64) {
        let leaves = self.leaving.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
        if !leaves || self.instances.overtaken(id, epoch) {
            return;
        }
        if let Err(error) = self.hypervisor.abort_migration(id).await {
            tracing::warn!(instance = %id, "the live migration was not aborted: {}", chain(&error));
        }
    }

    /// The guest was to stay. One that has left already is at its destination.
    pub(super) async fn stay(&self, order: &Order<MoveOrder>) -> StepOutcome {
        match self.hypervisor.info(order.instance_id).await {
            Ok(guest) => StepOutcome::done(Some(guest.power_state)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                StepOutcome::Answered { power_state: None, answer: json!({"left": true}) }
            }
            Err(error) => failed("The live migration could not be ended.", chain(&error), false),
        }
    }

    /// Nobody knows whether the guest was sent: if it runs here, this is the only one.
    pub(super) async fn leave_unless_come(&self, order: &Order<MoveOrder>) -> StepOutcome {
        let id = order.instance_id;
        match self.hypervisor.info(id).await {
            Ok(guest) if matches!(guest.power_state, PowerState::Running | PowerState::Paused) => {
                tracing::warn!(instance = %id, "the guest has come, though its source does not say so");
                StepOutcome::Answered { power_state: Some(guest.power_state), answer: json!({"came": true}) }
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                failed("It could not be found out whether the server has come.", chain(&error), false)
            }
            Ok(_) | Err(_) => {
                let left = self.leave(id).await.map_err(MoveError::from);
                self.told(order, left.map(|()| Vec::new()), "The server could not be removed from its new host.").await
            }
        }
    }

    /// The guest has come.
    pub(super) async fn adopt(&self, order: &Order<BuildOrder>) -> StepOutcome {
        let adopted = async {
            let (base, interfaces) = (self.base_of(&order.body).await?, self.ready(&order.body).await?);
            let spec = GuestSpec { interfaces, ..guest(order, base, &*self.entropy) };
            self.hypervisor.adopt_incoming(&spec).await?;
            self.network.arrived(&order.body.vifs).await;
            Ok(self.plugged(&order.body.vifs))
        };
        let outcome = self.told(order, adopted.await, "The server's new host could not take it over.").await;
        self.placed(order.instance_id, order.body.has_tags(), outcome).await
    }

    /// Ends a live migration from here: at once at the price of a pause, or so that the guest stays.
    pub(crate) async fn steer(&self, request: &SteerLiveMigrationRequest) -> Result<(), HandlerError> {
        let id = request.instance_id;
        let steered = if request.force {
            self.hypervisor.force_migration(id).await
        } else {
            self.hypervisor.abort_migration(id).await
        };
        steered.map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::NotFound | ErrorKind::InvalidState => RefusalKind::NotFound,
                ErrorKind::Unsupported => RefusalKind::Unsupported,
                ErrorKind::Unavailable | ErrorKind::TimedOut => RefusalKind::Unavailable,
                _ => RefusalKind::Failed,
            };
            Refusal::new(kind, chain(&error)).into()
        })
    }
}

fn failed(message: &str, details: String, retryable: bool) -> StepOutcome {
    StepOutcome::Failed { message: message.to_owned(), details, retryable }
}
