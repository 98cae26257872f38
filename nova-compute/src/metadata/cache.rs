//! Answers of the control plane, kept for a few seconds: a guest that starts asks thirty times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nova_core::contracts::BoxError;
use nova_core::ids::{InstanceId, PortId};
use nova_core::metadata::InstanceMetadata;
use tokio::time::{Instant, timeout};

use super::source::{Left, MetadataSource};

type Known = Option<Arc<InstanceMetadata>>;
/// Who asks: a guest, from a port that may or may not be its own.
type Caller = (InstanceId, PortId);
/// One guest's answer, and when it came. Whoever asks meanwhile waits for it here.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Known)>>>;

pub(super) struct Cache {
    source: Arc<dyn MetadataSource>,
    lifetime: Duration,
    patience: Duration,
    slots: Mutex<BTreeMap<Caller, (Instant, Slot)>>,
}

impl Cache {
    pub(super) fn new(source: Arc<dyn MetadataSource>, lifetime: Duration, patience: Duration) -> Self {
        Self { source, lifetime, patience, slots: Mutex::default() }
    }

    /// What a guest may learn. Of several that ask at once for the same guest, one asks the source.
    pub(super) async fn get(&self, caller: Caller) -> Result<Known, BoxError> {
        let slot = self.slot(caller);
        let asking = async {
            let mut held = slot.lock().await;
            if let Some((since, known)) = &*held
                && since.elapsed() < self.lifetime
            {
                return Ok(known.clone());
            }
            let known = self.source.metadata(caller.0, caller.1).await?.map(Arc::new);
            *held = Some((Instant::now(), known.clone()));
            Ok(known)
        };
        match timeout(self.patience, asking).await {
            Ok(known) => known,
            Err(late) => Err(late.into()),
        }
    }

    /// Keeps what a guest leaves for its owner, once: what the source knows now counts, and not what was kept of it.
    pub(super) async fn set_password(&self, caller: Caller, password: &str) -> Result<Left, BoxError> {
        self.forget(caller.0);
        match self.get(caller).await? {
            None => return Ok(Left::Unknown),
            Some(about) if !about.password.is_empty() => return Ok(Left::Before),
            Some(_) => {}
        }
        let left = timeout(self.patience, self.source.set_password(caller.0, caller.1, password)).await;
        self.forget(caller.0);
        left.unwrap_or_else(|late| Err(late.into()))
    }

    fn forget(&self, instance: InstanceId) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|(id, _), _| *id != instance);
    }

    fn slot(&self, caller: Caller) -> Slot {
        let now = Instant::now();
        let keep = self.lifetime + self.patience;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|id, (used, _)| *id == caller || now.duration_since(*used) < keep);
        let (used, slot) = slots.entry(caller).or_insert_with(|| (now, Slot::default()));
        *used = now;
        slot.clone()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
