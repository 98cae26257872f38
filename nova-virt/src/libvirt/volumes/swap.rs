//! A volume takes another one's place under a running guest (nova/virt/libvirt/driver.py, `swap_volume`, `_swap_volume`).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::PowerState;
use tokio::time::MissedTickBehavior;

use super::{VolumePlace, disks, live_disk, record};
use crate::libvirt::domain_xml;
use crate::libvirt::domains::{self, Guest};
use crate::libvirt::operations::Inner;
use crate::libvirt::xml_tree::{self, Child, Element};
use crate::libvirt::{LibvirtOptions, errors, ffi, folder};
use crate::{DiskAttachment, HypervisorError, Operation};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "swapping a volume";
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How far a swap is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The guest has the old volume, as this device.
    Before(String),
    /// It reads and writes the new one, and its definition does not know.
    Pivoted,
    /// It has the new one.
    After,
}

/// Guests of which a volume is being swapped, and whether that is to end.
#[derive(Debug, Default)]
pub(in crate::libvirt) struct Swapping(Mutex<BTreeMap<InstanceId, bool>>);

/// One swap, until it is over.
struct InHand<'a> {
    all: &'a Swapping,
    instance: InstanceId,
}

impl Swapping {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, instance: InstanceId) -> InHand<'_> {
        self.lock().insert(instance, false);
        InHand { all: self, instance }
    }

    /// Whoever copies finds it at its next look.
    pub(in crate::libvirt) fn end(&self, instance: InstanceId) {
        if let Some(ends) = self.lock().get_mut(&instance) {
            *ends = true;
        }
    }
}

impl InHand<'_> {
    fn is_to_end(&self) -> bool {
        self.all.lock().get(&self.instance).copied().unwrap_or(false)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(&self.instance);
    }
}

impl Inner {
    pub(in crate::libvirt) async fn swap_disk(
        &self,
        instance: InstanceId,
        old: VolumeId,
        new: DiskAttachment,
    ) -> Result<()> {
        new.validate()?;
        let _lock = self.locks.lock(instance).await;
        let in_hand = self.swapping.begin(instance);
        let (wanted, options) = (new.clone(), self.options.clone());
        let stage = self.with(instance, move |guest| guest.may_swap(old, &wanted, &options)).await?;
        let device = match stage {
            Stage::After => return Ok(()),
            Stage::Pivoted => return self.settle_on(instance, old, new).await,
            Stage::Before(device) => device,
        };
        self.admit_volumes(std::slice::from_ref(&new)).await?;
        // Whoever finds it half done knows by this what the new one is.
        self.record_volume(instance, &new).await?;
        let swapped = match self.copy_over(&in_hand, &device, &new).await {
            Ok(target) => {
                self.with(instance, move |guest| ffi::pivot_block_job(&guest.domain, &target).map_err(failed)).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = swapped else { return self.settle_on(instance, old, new).await };
        // The answer may be lost, and not what was asked for. What cannot be found out now stays recorded for whoever asks next.
        match self.settle(instance, old, new).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(error),
            Err(unsettled) => {
                tracing::warn!(%instance, error = %unsettled, "it is not known yet which of two volumes a guest has");
                Err(error)
            }
        }
    }

    /// Ends a swap that may be half done. True: the guest has the new volume.
    pub(in crate::libvirt) async fn settle_swap(
        &self,
        instance: InstanceId,
        old: VolumeId,
        new: VolumeId,
    ) -> Result<bool> {
        let _lock = self.locks.lock(instance).await;
        let recorded = record::read(&folder::folder_of(&self.options, instance)).await?;
        let Some(wanted) = recorded.into_iter().find(|known| known.volume() == new) else {
            return self
                .with(instance, move |guest| Ok(guest.attached_disks()?.iter().any(|it| it.volume == new)))
                .await;
        };
        self.settle(instance, old, wanted).await
    }

    /// The same of a recorded one, by whoever has the guest's lock. The record stays until it is known.
    async fn settle(&self, instance: InstanceId, old: VolumeId, new: DiskAttachment) -> Result<bool> {
        let (asked, options) = (new.clone(), self.options.clone());
        match self.with(instance, move |guest| guest.end_swap(old, &asked, &options)).await? {
            Some(Stage::After) => Ok(true),
            Some(Stage::Pivoted) => self.settle_on(instance, old, new).await.map(|()| true),
            Some(Stage::Before(_)) | None => {
                // The guest goes on with the volume that it had.
                self.known.forget(instance);
                self.forget_volume(instance, new.volume()).await.map(|()| false)
            }
        }
    }

    /// The guest reads and writes the new volume: its definition and its record are to say so.
    async fn settle_on(&self, instance: InstanceId, old: VolumeId, new: DiskAttachment) -> Result<()> {
        let (options, attached) = (self.options.clone(), new.clone());
        let defined = self.with(instance, move |guest| guest.redefine_disk(old, &attached, &options)).await;
        self.known.forget(instance);
        defined?;
        self.record_volume(instance, &new).await?;
        self.forget_volume(instance, old).await
    }

    async fn forget_volume(&self, instance: InstanceId, volume: VolumeId) -> Result<()> {
        self.unrecord_volume(instance, volume).await?;
        self.drop_secret(volume).await;
        Ok(())
    }

    /// Copies until both are the same, and returns how the call that follows names the disk.
    async fn copy_over(&self, in_hand: &InHand<'_>, device: &str, new: &DiskAttachment) -> Result<CString> {
        let (instance, target) = (in_hand.instance, text(device)?);
        let place = VolumePlace { device: device.to_owned(), bus: "virtio".to_owned() };
        let xml = domain_xml::volume_alone(new, &place, &self.options).map_err(|error| errors::file(DURING, error))?;
        let (destination, begun) = (text(&xml)?, target.clone());
        self.with(instance, move |guest| ffi::block_copy(&guest.domain, &begun, &destination).map_err(failed)).await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if in_hand.is_to_end() {
                return Err(HypervisorError::Failed { during: DURING, source: "it was to end".into() });
            }
            let asked = target.clone();
            let progress =
                self.with(instance, move |guest| ffi::block_job(&guest.domain, &asked).map_err(failed)).await?;
            match progress {
                Some((done, all)) if done == all && all > 0 => return Ok(target),
                Some(_) => {}
                None => {
                    return Err(HypervisorError::Failed { during: DURING, source: "the copy ended too early".into() });
                }
            }
        }
    }
}

/// Ends the job on a disk, if there is one. One that libvirt is ending, or cannot speak of now, is an error: it may become
/// anything yet.
fn end(guest: &Guest, device: &str) -> Result<()> {
    let target = text(device)?;
    let ended = match ffi::block_job(&guest.domain, &target) {
        Ok(Some(_)) => ffi::end_block_job(&guest.domain, &target),
        // A guest that is off has no jobs.
        Err(error) if errors::is_wrong_state(&error) && !guest.domain.is_active().unwrap_or(true) => Ok(()),
        looked => looked.map(drop),
    };
    match ended {
        Err(error) if errors::is_no_disk_or_job(&error) => Ok(()),
        ended => ended.map_err(failed),
    }
}

impl Guest {
    /// Whether it can be swapped, and how far that is.
    fn may_swap(&self, old: VolumeId, new: &DiskAttachment, options: &LibvirtOptions) -> Result<Stage> {
        // A copy that broke off may still be there.
        let stage = self.end_swap(old, new, options)?;
        let stage = stage.ok_or_else(|| HypervisorError::invalid("volume", "is not in this guest"))?;
        if let Stage::Before(device) = &stage {
            if self.attached_disks()?.iter().any(|disk| disk.volume == new.volume()) {
                return Err(HypervisorError::invalid("new", "is in this guest already"));
            }
            if !self.active || !matches!(self.power_state, PowerState::Running | PowerState::Paused) {
                return Err(self.wrong_state(Operation::SwapDisk));
            }
            let (_, live) = self.both()?;
            if !live.iter().any(|disk| disk.device == *device) {
                return Err(HypervisorError::invalid("volume", "is not in this guest now"));
            }
        }
        Ok(stage)
    }

    /// Ends the copy, and says what came of it: until the copy is gone, it may still be pivoted.
    fn end_swap(&self, old: VolumeId, new: &DiskAttachment, options: &LibvirtOptions) -> Result<Option<Stage>> {
        match self.stage(old, new, options)? {
            Some(Stage::Before(device)) if self.active => {
                end(self, &device)?;
                self.stage(old, new, options)
            }
            stage => Ok(stage),
        }
    }

    /// How far the swap is; `None`: the guest has neither.
    fn stage(&self, old: VolumeId, new: &DiskAttachment, options: &LibvirtOptions) -> Result<Option<Stage>> {
        let (defined, live) = self.both()?;
        let of = |volume| {
            let known = defined.iter().find(|disk| disk.serial == Some(volume));
            known.or_else(|| live_disk(&live, &defined, volume, None))
        };
        let Some(disk) = of(old) else { return Ok(of(new.volume()).map(|_| Stage::After)) };
        let place = VolumePlace { device: disk.device.clone(), bus: disk.bus.clone() };
        let wanted = element(new, &place, options)?;
        let plugged = live.iter().find(|known| known.device == disk.device);
        let pivoted = plugged.is_some_and(|known| source(&known.element) == source(&wanted));
        Ok(Some(if pivoted { Stage::Pivoted } else { Stage::Before(disk.device.clone()) }))
    }

    /// The definition has the new volume in the old one's place.
    fn redefine_disk(&self, old: VolumeId, new: &DiskAttachment, options: &LibvirtOptions) -> Result<()> {
        let broken = |source| HypervisorError::Failed { during: DURING, source };
        let mut definition = self.definition()?;
        let known = disks(&definition).into_iter().find(|disk| disk.serial == Some(old));
        let Some(known) = known else { return Ok(()) };
        let place = VolumePlace { device: known.device.clone(), bus: known.bus.clone() };
        let mut replacement = element(new, &place, options)?;
        for kept in ["address", "iotune", "boot", "alias"] {
            replacement.children.extend(known.element.child(kept).cloned().map(Child::Element));
        }
        let devices = definition.child_mut("devices").into_iter().flat_map(Element::elements_mut);
        for disk in devices.filter(|element| **element == known.element) {
            *disk = replacement.clone();
        }
        let text = definition.write().map_err(broken)?;
        let conn = self.domain.connect().map_err(failed)?;
        domains::define(&conn, &text)
    }
}

/// A volume at its place, as a definition has it.
fn element(volume: &DiskAttachment, place: &VolumePlace, options: &LibvirtOptions) -> Result<Element> {
    let xml = domain_xml::volume_alone(volume, place, options).map_err(|error| errors::file(DURING, error))?;
    xml_tree::parse(&xml).map_err(|source| HypervisorError::Failed { during: DURING, source })
}

/// What a disk's bytes are, without what libvirt adds for itself.
fn source(disk: &Element) -> Option<[Option<String>; 6]> {
    let source = disk.child("source")?;
    let host = source.child("host");
    let own = |name: &str| source.attribute(name).map(str::to_owned);
    let of_host = |name: &str| host.and_then(|host| host.attribute(name)).map(str::to_owned);
    Some([own("file"), own("dev"), own("protocol"), own("name"), of_host("name"), of_host("port")])
}

fn failed(error: virt::error::Error) -> HypervisorError {
    errors::failed(DURING, error)
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart_by_where_the_bytes_are() {
        let disk = |source: &str| xml_tree::parse(&format!("<disk type='network'>{source}</disk>")).unwrap();
        let nbd = |name: &str, more: &str| {
            let host = "<host name='10.0.0.1' port='10809'/>";
            source(&disk(&format!("<source protocol='nbd' name='{name}'{more}>{host}</source>")))
        };
        assert!(nbd("a", "").is_some());
        assert_eq!(nbd("a", ""), nbd("a", " index='7'"), "libvirt numbers those of a process");
        assert_ne!(nbd("a", ""), nbd("b", ""));
        assert_ne!(source(&disk("<source file='/a'/>")), source(&disk("<source file='/b'/>")));
        assert_eq!(source(&disk("")), None);
    }
}
