//! Volumes of guests that are there: plugged in and out by order, each order as often as it comes (nova/compute/manager.py,
//! `attach_volume`, `detach_volume`, `swap_volume`, `extend_volume`). The driver makes sure that a volume is the one that is meant before the
//! guest sees it.

use std::sync::PoisonError;
use std::time::Duration;

use nova_core::error::chain;
use nova_core::ids::{InstanceId, VolumeId};
use nova_core::rpc::compute::{
    AttachVolume, DetachVolume, DetachVolumeOrder, ExtendVolume, Order, SwapVolume, SwapVolumeOrder, VolumeOrder,
};
use nova_core::rpc::conductor::StepOutcome;
use nova_queue::Dispatcher;
use nova_virt::{DiskAttachment, ErrorKind, HypervisorError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

/// Tries to unplug a volume.
const TRIES: u32 = 4;
/// How often a swap that shall end is told so.
const ABORT_EVERY: Duration = Duration::from_secs(1);

/// The volume, as drivers know it.
pub(crate) fn attachment(order: &VolumeOrder) -> DiskAttachment {
    DiskAttachment {
        connection: order.connection.clone(),
        device_name: order.device.clone(),
        boot: order.boot,
        shareable: order.shareable,
    }
}

/// What the owner of a server may read of a driver's failure.
fn reason(error: &HypervisorError) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "its guest is not there",
        ErrorKind::Unsupported => "its host cannot change the volumes of a guest",
        ErrorKind::Unavailable => "the hypervisor does not answer",
        ErrorKind::InvalidState => "the guest is in a state in which its volumes cannot be changed",
        ErrorKind::TimedOut => "the guest did not answer in time",
        _ => "the hypervisor refused it",
    }
}

impl Agent {
    /// Takes these orders, too.
    pub(crate) fn volume_orders(&self, dispatcher: Dispatcher) -> Dispatcher {
        let dispatcher = self.on_order::<AttachVolume, _, _, _>(dispatcher, |agent, order| async move {
            agent.attach_volume(&order).await
        });
        let dispatcher = self.on_order::<DetachVolume, _, _, _>(dispatcher, |agent, order| async move {
            agent.detach_volume(&order).await
        });
        let agent = self.clone();
        let dispatcher = dispatcher.method::<SwapVolume, _, _>(move |incoming, order| {
            let agent = agent.clone();
            async move {
                if order.body.to.is_none() {
                    agent.stop_swapping(order.instance_id, order.epoch);
                }
                agent.carry_out(incoming, &order, None, agent.part_of_swap(&order)).await
            }
        });
        let agent = self.clone();
        dispatcher.method::<ExtendVolume, _, _>(move |_, request| {
            let agent = agent.clone();
            async move {
                let (id, volume) = (request.instance_id, request.volume_id);
                if let Err(error) = agent.hypervisor.extend_disk(id, volume, request.bytes).await {
                    tracing::warn!(instance = %id, %volume, "the guest does not see that it has grown: {}", chain(&error));
                }
                Ok(())
            }
        })
    }

    async fn attach_volume(&self, order: &Order<VolumeOrder>) -> StepOutcome {
        let (id, disk) = (order.instance_id, attachment(&order.body));
        let Err(error) = self.hypervisor.attach_disk(id, &disk).await else {
            let done = self.done(order, Vec::new()).await;
            return self.placed(id, order.body.tag.is_some(), done).await;
        };
        let left = self.unplug_volume(id, disk.volume()).await;
        let left = left.err().filter(|left| left.kind() != ErrorKind::Unsupported);
        if let Some(left) = &left {
            tracing::warn!(instance = %id, volume = %disk.volume(), "the volume was not taken back: {}", chain(left));
        }
        StepOutcome::Failed {
            message: format!("Failed to attach volume {} to {id}: {}", disk.volume(), reason(&error)),
            details: chain(&error),
            // Whether nothing of it is left.
            retryable: left.is_none(),
        }
    }

    /// Unplugs, and tries again: an answer may be lost, and a guest may not have listened. Without the guest there is no volume
    /// in it either.
    pub(crate) async fn unplug_volume(&self, id: InstanceId, volume: VolumeId) -> Result<(), HypervisorError> {
        let mut wait = Duration::from_millis(500);
        for attempt in 1.. {
            match self.hypervisor.detach_disk(id, volume).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) if attempt == TRIES || error.kind() == ErrorKind::Unsupported => return Err(error),
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        Ok(())
    }

    async fn part_of_swap(&self, order: &Order<SwapVolumeOrder>) -> StepOutcome {
        match &order.body.to {
            Some(to) => self.swap_volume(order, to).await,
            None => self.end_swap(order).await,
        }
    }

    async fn swap_volume(&self, order: &Order<SwapVolumeOrder>, to: &VolumeOrder) -> StepOutcome {
        let (id, old) = (order.instance_id, order.body.old);
        let Err(error) = self.swap_unless_stopped(id, old, &attachment(to)).await else {
            return self.swapped(order, to).await;
        };
        // An answer may be lost, and what was done is done.
        let came = self.has_come(order).await;
        if matches!(came, Ok(true)) {
            return self.swapped(order, to).await;
        }
        StepOutcome::Failed {
            message: format!("Failed to swap volume {old} of {id} for {}: {}", order.body.new, reason(&error)),
            details: chain(&error),
            // Whether the guest surely has the old one.
            retryable: came.is_ok(),
        }
    }

    async fn swapped(&self, order: &Order<SwapVolumeOrder>, to: &VolumeOrder) -> StepOutcome {
        let done = self.done(order, Vec::new()).await;
        self.placed(order.instance_id, to.tag.is_some(), done).await
    }

    /// A copy takes as long as it takes, unless a later order comes that must not wait for it.
    async fn swap_unless_stopped(
        &self,
        id: InstanceId,
        old: VolumeId,
        new: &DiskAttachment,
    ) -> Result<(), HypervisorError> {
        let stop = CancellationToken::new();
        self.swapping.lock().unwrap_or_else(PoisonError::into_inner).insert(id, stop.clone());
        let swapping = self.hypervisor.swap_disk(id, old, new);
        tokio::pin!(swapping);
        let swapped = tokio::select! {
            biased;
            swapped = &mut swapping => swapped,
            () = stop.cancelled() => loop {
                if let Err(error) = self.hypervisor.abort_swap(id).await {
                    tracing::warn!(instance = %id, "the swap of a volume was not aborted: {}", chain(&error));
                }
                // It may not have begun to listen.
                tokio::select! {
                    biased;
                    swapped = &mut swapping => break swapped,
                    () = tokio::time::sleep(ABORT_EVERY) => {}
                }
            },
        };
        self.swapping.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        swapped
    }

    /// A later order must not wait for a copy: it wants to know which volume the guest has, or the guest to be off or gone.
    pub(crate) fn stop_swapping(&self, id: InstanceId, epoch: u64) {
        if self.instances.overtaken(id, epoch) {
            return;
        }
        if let Some(stop) = self.swapping.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            stop.cancel();
        }
    }

    /// Ends what is left of a swap. True: the guest has the new volume. Without the guest there is none in it.
    async fn has_come(&self, order: &Order<SwapVolumeOrder>) -> Result<bool, HypervisorError> {
        match self.hypervisor.settle_swap(order.instance_id, order.body.old, order.body.new).await {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => Ok(false),
            settled => settled,
        }
    }

    async fn end_swap(&self, order: &Order<SwapVolumeOrder>) -> StepOutcome {
        let id = order.instance_id;
        match self.has_come(order).await {
            Ok(true) => StepOutcome::Answered { power_state: None, answer: json!({"came": true}) },
            Ok(false) => self.done(order, Vec::new()).await,
            Err(error) => StepOutcome::Failed {
                message: format!("It is not known which volume {id} has: {}", reason(&error)),
                details: chain(&error),
                retryable: false,
            },
        }
    }

    async fn detach_volume(&self, order: &Order<DetachVolumeOrder>) -> StepOutcome {
        let (id, volume) = (order.instance_id, order.body.volume_id);
        match self.unplug_volume(id, volume).await {
            Ok(()) => self.done(order, Vec::new()).await,
            Err(error) => StepOutcome::Failed {
                message: format!("Failed to detach volume {volume} from {id}: {}", reason(&error)),
                details: chain(&error),
                retryable: false,
            },
        }
    }
}
