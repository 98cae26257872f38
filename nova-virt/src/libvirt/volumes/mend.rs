//! A guest whose volume failed stands still (`libvirt.volume_error_policy = stop`). Once its volumes answer again, and are the
//! same, it goes on, as if nothing had been but a pause.
//!
//! QEMU connects to an export anew when it is asked to try again; that the guest waits is libvirt's doing and is told as an
//! event.

use std::sync::{Arc, Weak};
use std::time::Duration;

use nova_core::ids::InstanceId;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use virt::domain::DomainStateReason;
use virt::enumutil::Enum;
use virt::sys;

use super::{Inner, Result, identity, record};
use crate::HypervisorError;
use crate::libvirt::domains::Guest;
use crate::libvirt::{errors, folder};

/// How often a guest's volumes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Takes guests that stand still, until the driver is gone.
pub(in crate::libvirt) async fn run(mut failed: mpsc::UnboundedReceiver<InstanceId>, inner: Weak<Inner>) {
    while let Some(instance) = failed.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        // Each on its own: a volume that does not answer holds up nobody else's guest.
        tokio::spawn(mend(inner, instance));
    }
}

async fn mend(inner: Arc<Inner>, instance: InstanceId) {
    let deadline = Instant::now() + inner.options.volume_reconnect_delay;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tracing::warn!(%instance, "a guest stands still: one of its volumes failed");
    while Instant::now() < deadline {
        look.tick().await;
        match inner.go_on(instance).await {
            Ok(true) => return,
            Ok(false) | Err(HypervisorError::Unavailable { .. } | HypervisorError::TimedOut { .. }) => {}
            // Nothing to wait for any more.
            Err(HypervisorError::NotFound { .. }) => return,
            Err(error) => tracing::debug!(%instance, %error, "its volumes do not answer yet"),
        }
    }
    tracing::error!(%instance, "a guest goes on standing still: its volumes did not come back in time");
}

impl Inner {
    /// Lets a guest go on if its volumes answer; true when it does not stand still for them any more.
    async fn go_on(&self, instance: InstanceId) -> Result<bool> {
        let _lock = self.locks.lock(instance).await;
        if !self.with(instance, Guest::waits_for_its_volumes).await? {
            return Ok(true);
        }
        for volume in record::read(&folder::folder_of(&self.options, instance)).await? {
            identity::check(&volume, &self.options).await?;
        }
        self.with(instance, |guest| {
            // Somebody may have paused it, or ended it, since.
            if guest.waits_for_its_volumes()? { guest.start() } else { Ok(()) }
        })
        .await?;
        // It may stand still again at once; that is another event.
        Ok(true)
    }
}

impl Guest {
    /// It was halted by a failed read or write, and by nobody else.
    fn waits_for_its_volumes(&self) -> Result<bool> {
        let (_, reason) = self.domain.state().map_err(|error| errors::failed("reading the guest's state", error))?;
        Ok(match reason {
            Enum::Known(DomainStateReason::Paused(reason)) => reason.to_raw() == sys::VIR_DOMAIN_PAUSED_IOERROR,
            _ => false,
        })
    }
}
