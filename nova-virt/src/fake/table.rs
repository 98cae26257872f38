//! What a fake host has, and the file in which it survives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use serde::{Deserialize, Serialize};

use super::guests::{Guest, Guests};
use super::stash::Stash;
use crate::{BoxError, DiskSource, GuestInfo, GuestSpec, HypervisorError};

/// The guests of a host, and what belongs to guests that are not here (any more, or yet).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) guests: Guests,
    /// Guests that were set aside.
    pub(super) stashes: BTreeMap<InstanceId, Stash>,
    /// Guests that this host is ready for.
    pub(super) incoming: BTreeMap<InstanceId, GuestSpec>,
    /// Guests that were sent away, and where to.
    pub(super) moved: BTreeMap<InstanceId, String>,
}

impl Table {
    /// A guest with a definition.
    pub(super) fn there(&self, instance: InstanceId) -> Result<&Guest, HypervisorError> {
        self.get(&instance).filter(|guest| guest.spec.is_some()).ok_or(HypervisorError::NotFound { instance })
    }

    /// The images that its guests, and those set aside, were made from.
    pub(super) fn images(&self) -> BTreeSet<PathBuf> {
        let guests = self.guests.values().chain(self.stashes.values().map(|stash| &stash.guest));
        let sources = |guest: &Guest| {
            let own = guest.spec.iter().flat_map(|spec| &spec.disks).map(|disk| disk.source.clone());
            own.chain(guest.rescue.iter().map(|rescue| rescue.image.clone())).collect::<Vec<_>>()
        };
        let base = |source| match source {
            DiskSource::Image { base, .. } => Some(base),
            DiskSource::Blank | DiskSource::File { .. } => None,
        };
        guests.flat_map(sources).filter_map(base).collect()
    }

    /// What is ready for guests that have not come: traces, of the order that made them.
    pub(super) fn prepared(&self) -> BTreeMap<InstanceId, GuestInfo> {
        let trace = |(instance, spec): (&InstanceId, &GuestSpec)| {
            let info = GuestInfo {
                instance: *instance,
                name: String::new(),
                power_state: PowerState::NoState,
                epoch: spec.epoch,
            };
            (*instance, info)
        };
        self.incoming.iter().map(trace).collect()
    }
}

impl Deref for Table {
    type Target = Guests;

    fn deref(&self) -> &Guests {
        &self.guests
    }
}

impl DerefMut for Table {
    fn deref_mut(&mut self) -> &mut Guests {
        &mut self.guests
    }
}

/// A state file of today, or of the time when there were only guests.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Table(Table),
    Guests(Guests),
}

/// Reads what an earlier process left; nothing when there is no file.
pub(super) fn load(path: &Path) -> Result<Table, BoxError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(match serde_json::from_slice(&bytes)? {
            Stored::Table(table) => table,
            Stored::Guests(guests) => Table { guests, ..Table::default() },
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Table::default()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the table. Whoever reads meanwhile, or after this process was killed, sees the old or the new one whole.
pub(super) fn save(path: &Path, table: &Table) -> Result<(), BoxError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, serde_json::to_vec(table)?)?;
    std::fs::rename(&new, path)?;
    Ok(())
}
