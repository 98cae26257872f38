//! Guests that are set aside on a fake host.

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use serde::{Deserialize, Serialize};

use super::disks;
use super::guests::{Effect, Guest, is_up, stop};
use super::life::wrong_state;
use super::places::settle;
use super::table::Table;
use crate::{ExportRequest, GuestSpec, HypervisorError, Operation};

/// A guest that was set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stash {
    /// Of the order that set it aside.
    pub(super) epoch: u64,
    pub(super) guest: Guest,
}

pub(super) fn stash(table: &mut Table, instance: InstanceId, epoch: u64) -> Effect<()> {
    // A guest beside it is a later one, which the same order must not touch.
    if table.stashes.get(&instance).is_some_and(|stash| stash.epoch >= epoch) {
        return Ok(((), Vec::new()));
    }
    let current = table.there(instance)?.epoch();
    if current > epoch {
        return Err(HypervisorError::Stale { instance, asked: epoch, current });
    }
    let Some(mut guest) = table.remove(&instance) else { return Err(HypervisorError::NotFound { instance }) };
    let events = stop(instance, &mut guest);
    table.stashes.insert(instance, Stash { epoch, guest });
    Ok(((), events))
}

pub(super) fn unstash(table: &mut Table, spec: &GuestSpec) -> Effect<()> {
    spec.validate()?;
    let (instance, asked) = (spec.instance, spec.epoch);
    let guest = table.get(&instance).map_or(0, Guest::epoch);
    let current = table.stashes.get(&instance).map_or(0, |stash| stash.epoch).max(guest);
    if current > asked {
        return Err(HypervisorError::Stale { instance, asked, current });
    }
    let Some(stash) = table.stashes.remove(&instance) else {
        // Taken back before, by this order or an earlier one.
        let known = table.get_mut(&instance).filter(|guest| guest.spec.is_some());
        let known = known.ok_or(HypervisorError::NotFound { instance })?;
        known.spec = Some(spec.clone());
        settle(known);
        return Ok(((), Vec::new()));
    };
    let events = table.remove(&instance).map(|mut later| stop(instance, &mut later)).unwrap_or_default();
    let mut guest = Guest { spec: Some(spec.clone()), power_state: PowerState::Shutdown, rescue: None, ..stash.guest };
    settle(&mut guest);
    table.insert(instance, guest);
    Ok(((), events))
}

/// A stashed guest's disks win over those of one that was made since.
pub(super) fn export(table: &Table, instance: InstanceId, request: &ExportRequest) -> Result<(), HypervisorError> {
    let stash = table.stashes.get(&instance);
    let guest = stash.map_or_else(|| table.there(instance), |stash| Ok(&stash.guest))?;
    if is_up(guest.power_state) || guest.power_state == PowerState::Suspended {
        return Err(wrong_state(instance, Operation::ExportDisk, guest.power_state));
    }
    disks::export(&guest.disks, request)
}
