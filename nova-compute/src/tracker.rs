//! What this host has, and what its guests hold of it (nova/compute/resource_tracker.py, claims.py).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nova_core::flavor::Resources;
use nova_core::host::Inventory;
use nova_core::ids::InstanceId;

/// The host has not enough left: the books of the cloud and the host differ, or a late order came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not enough {resource} left on this host")]
pub struct ClaimError {
    /// `vcpus`, `memory_mb`, `disk_gb`, or `inventory` before the hypervisor was asked.
    pub resource: &'static str,
}

#[derive(Debug, Default)]
struct Held {
    inventory: Option<Inventory>,
    guests: BTreeMap<InstanceId, Resources>,
}

/// The host's own account of its resources.
#[derive(Debug, Clone, Default)]
pub struct ResourceTracker {
    held: Arc<Mutex<Held>>,
}

/// A hold on resources that is given back unless it is kept: what was held before holds again.
#[derive(Debug)]
pub struct Claim {
    tracker: ResourceTracker,
    instance: InstanceId,
    before: Option<Resources>,
    keep: bool,
}

impl Claim {
    /// The guest exists: the hold stays until it is released.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        match self.before {
            _ if self.keep => {}
            Some(before) => drop(self.tracker.held().guests.insert(self.instance, before)),
            None => self.tracker.release(self.instance),
        }
    }
}

impl ResourceTracker {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the hypervisor says that the machine has.
    pub fn set_inventory(&self, inventory: Inventory) {
        self.held().inventory = Some(inventory);
    }

    /// Holds resources for a guest; a guest that holds some holds the new amount.
    ///
    /// # Errors
    /// [`ClaimError`] when they are not there.
    pub fn claim(&self, instance: InstanceId, wanted: Resources) -> Result<Claim, ClaimError> {
        let mut held = self.held();
        let inventory = held.inventory.ok_or(ClaimError { resource: "inventory" })?;
        let others = held.guests.iter().filter(|(id, _)| **id != instance);
        let used = others.fold(Resources::default(), |sum, (_, r)| sum.plus(*r));
        if let Some(resource) = inventory.shortage(used, wanted) {
            return Err(ClaimError { resource });
        }
        let before = held.guests.insert(instance, wanted);
        Ok(Claim { tracker: self.clone(), instance, before, keep: false })
    }

    /// Gives back what a guest holds.
    pub fn release(&self, instance: InstanceId) {
        self.held().guests.remove(&instance);
    }

    /// Sets all holds to those of the guests that belong here; holds of guests that are being built stay.
    pub fn replace(&self, assigned: BTreeMap<InstanceId, Resources>, building: impl Fn(InstanceId) -> bool) {
        let mut held = self.held();
        held.guests.retain(|id, _| building(*id));
        held.guests.extend(assigned);
    }

    /// The sum of all holds.
    pub fn used(&self) -> Resources {
        self.held().guests.values().fold(Resources::default(), |sum, r| sum.plus(*r))
    }
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;

    use super::*;

    fn tracker() -> ResourceTracker {
        let tracker = ResourceTracker::default();
        let total = Resources { vcpus: 2, memory_mb: 100, disk_gb: 10 };
        let (reserved, cpu_ratio, ram_ratio, disk_ratio) = (Resources::default(), 1.0, 1.0, 1.0);
        tracker.set_inventory(Inventory { total, reserved, cpu_ratio, ram_ratio, disk_ratio });
        tracker
    }

    #[test]
    fn a_claim_that_is_not_kept_is_given_back() {
        let (tracker, entropy) = (tracker(), SeededEntropy::new(1));
        let [a, b] = [InstanceId::generate(&entropy), InstanceId::generate(&entropy)];
        let all = Resources { vcpus: 2, memory_mb: 100, disk_gb: 10 };
        let claim = tracker.claim(a, all).unwrap();
        assert_eq!(tracker.claim(b, all).unwrap_err().resource, "vcpus");
        drop(claim);
        tracker.claim(b, all).unwrap().keep();
        assert_eq!(tracker.used(), all);
        tracker.claim(b, all).unwrap().keep();
        assert_eq!(tracker.used(), all, "claiming again holds the same");
        tracker.release(b);
        assert_eq!(tracker.used(), Resources::default());
    }

    #[test]
    fn nothing_is_claimed_before_the_inventory_is_known() {
        let id = InstanceId::generate(&SeededEntropy::new(1));
        assert!(ResourceTracker::default().claim(id, Resources::default()).is_err());
    }
}
