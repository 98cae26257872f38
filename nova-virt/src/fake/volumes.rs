//! Volumes of the fake's guests. Nothing is read or written.

use std::collections::BTreeSet;

use nova_core::ids::{InstanceId, VolumeId};

use super::guests::{Effect, Guest, Guests, find, is_up, pluggable};
use super::life::wrong_state;
use super::{FakeHypervisor, JournalOutcome};
use crate::{AttachedDisk, DiskAttachment, GuestSpec, HypervisorError, Operation};

/// Each volume with its device name. The guest boots from `vda`; the others follow, by the names that they have or the next free
/// ones.
pub(super) fn attached(guest: &Guest) -> Vec<AttachedDisk> {
    guest.spec.as_ref().map(named).unwrap_or_default()
}

fn named(spec: &GuestSpec) -> Vec<AttachedDisk> {
    let boot = usize::from(spec.volumes.iter().any(|volume| volume.boot));
    let letters = (b'a'..=b'z').map(|letter| format!("vd{}", char::from(letter)));
    let local: BTreeSet<String> = letters.clone().skip(boot).take(spec.disks.len()).collect();
    let mut taken = local.clone();
    if boot > 0 {
        taken.insert("vda".to_owned());
    }
    let mut found: Vec<AttachedDisk> = Vec::new();
    for volume in &spec.volumes {
        let wished = volume.wished_name().filter(|name| letters.clone().any(|known| known == **name));
        let device = match wished.filter(|name| !taken.contains(*name)) {
            _ if volume.boot => "vda".to_owned(),
            Some(name) => name.to_owned(),
            None => letters.clone().find(|name| !taken.contains(name)).unwrap_or_default(),
        };
        taken.insert(device.clone());
        found.push(AttachedDisk { volume: volume.volume(), device });
    }
    found
}

/// Whoever is attached keeps the name that it has, whatever goes and comes beside it.
fn pin_names(spec: &mut GuestSpec) {
    let names = named(spec);
    for (volume, found) in spec.volumes.iter_mut().zip(names) {
        volume.device_name = Some(found.device);
    }
}

pub(super) fn attach(guests: &mut Guests, instance: InstanceId, disk: &DiskAttachment) -> Effect<()> {
    let spec = pluggable(guests, instance, Operation::AttachDisk)?;
    if !spec.volumes.iter().any(|known| known.volume() == disk.volume()) {
        let mut changed = spec.clone();
        pin_names(&mut changed);
        changed.volumes.push(disk.clone());
        changed.validate()?;
        pin_names(&mut changed);
        *spec = changed;
    }
    Ok(((), Vec::new()))
}

pub(super) fn detach(guests: &mut Guests, instance: InstanceId, volume: VolumeId) -> Effect<()> {
    let spec = pluggable(guests, instance, Operation::DetachDisk)?;
    pin_names(spec);
    spec.volumes.retain(|known| known.volume() != volume);
    Ok(((), Vec::new()))
}

pub(super) fn extend(guests: &mut Guests, instance: InstanceId, volume: VolumeId, _bytes: u64) -> Effect<()> {
    let guest = find(guests, instance)?;
    let known = guest.spec.iter().flat_map(|spec| &spec.volumes).any(|known| known.volume() == volume);
    if known { Ok(((), Vec::new())) } else { Err(HypervisorError::invalid("volume", "is not in this guest")) }
}

pub(super) fn swap(guests: &mut Guests, instance: InstanceId, old: VolumeId, new: &DiskAttachment) -> Effect<()> {
    let guest = find(guests, instance)?;
    let (up, state) = (is_up(guest.power_state), guest.power_state);
    let Some(spec) = guest.spec.as_mut() else { return Err(HypervisorError::NotFound { instance }) };
    let place = |id: VolumeId| spec.volumes.iter().position(|known| known.volume() == id);
    match (place(old), place(new.volume())) {
        (None, Some(_)) => return Ok(((), Vec::new())),
        (None, None) => return Err(HypervisorError::invalid("volume", "is not in this guest")),
        (Some(_), Some(_)) => return Err(HypervisorError::invalid("new", "is in this guest already")),
        (Some(_), None) if !up => return Err(wrong_state(instance, Operation::SwapDisk, state)),
        (Some(at), None) => {
            pin_names(spec);
            let (device_name, boot) = (spec.volumes[at].device_name.clone(), spec.volumes[at].boot);
            spec.volumes[at] = DiskAttachment { device_name, boot, ..new.clone() };
        }
    }
    Ok(((), Vec::new()))
}

impl FakeHypervisor {
    /// Swaps once the time has passed that a copy takes, unless somebody ends it.
    pub(super) async fn copy_over(
        &self,
        instance: InstanceId,
        old: VolumeId,
        new: &DiskAttachment,
    ) -> Result<(), HypervisorError> {
        const OPERATION: Operation = Operation::SwapDisk;
        let aborted = self.lock().copying.entry(instance).or_default().clone();
        let swapped = tokio::select! {
            biased;
            () = aborted.notified() => {
                let error = HypervisorError::Failed { during: "swapping a volume", source: "it was aborted".into() };
                self.lock().journal.record(OPERATION, Some(instance), None, JournalOutcome::Failed(error.kind()));
                Err(error)
            }
            swapped = self.plug(OPERATION, instance, |guests| swap(guests, instance, old, new)) => swapped,
        };
        self.lock().copying.remove(&instance);
        swapped
    }
}
