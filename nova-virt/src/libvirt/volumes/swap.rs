//! A volume takes another one's place under a running guest (nova/virt/libvirt/driver.py, `swap_volume`, `_swap_volume`).

use std::ffi::CString;
use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::PowerState;
use tokio::time::MissedTickBehavior;

use super::{Known, VolumePlace, disks, live_disk};
use crate::libvirt::domain_xml;
use crate::libvirt::domains::{self, Guest};
use crate::libvirt::operations::Inner;
use crate::libvirt::xml_tree::{self, Child, Element};
use crate::libvirt::{LibvirtOptions, errors, ffi};
use crate::{DiskAttachment, HypervisorError, Operation};

type Result<T> = std::result::Result<T, HypervisorError>;

const DURING: &str = "swapping a volume";
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Inner {
    pub(in crate::libvirt) async fn swap_disk(
        &self,
        instance: InstanceId,
        old: VolumeId,
        new: DiskAttachment,
    ) -> Result<()> {
        new.validate()?;
        let _lock = self.locks.lock(instance).await;
        let wanted = new.volume();
        let Some(device) = self.with(instance, move |guest| guest.may_swap(old, wanted)).await? else { return Ok(()) };
        self.admit_volumes(std::slice::from_ref(&new)).await?;
        let (options, attached) = (self.options.clone(), new.clone());
        let target = text(&device)?;
        let copied = self.copy_over(instance, &device, &target, &new).await;
        let swapped = match copied {
            Ok(()) => {
                self.with(instance, move |guest| {
                    ffi::pivot_block_job(&guest.domain, &target).map_err(failed)?;
                    guest.redefine_disk(old, &attached, &options)
                })
                .await
            }
            Err(error) => {
                // The guest goes on with the volume that it had.
                let ended = self.with(instance, move |guest| end(guest, &target)).await;
                if let Err(error) = ended {
                    tracing::warn!(%instance, %error, "a copy of a volume may still run");
                }
                Err(error)
            }
        };
        self.known.forget(instance);
        match &swapped {
            Ok(()) => {
                self.record_volume(instance, &new).await?;
                self.unrecord_volume(instance, old).await?;
                self.drop_secret(old).await;
            }
            Err(_) => self.drop_secret(wanted).await,
        }
        swapped
    }

    /// Copies until both are the same.
    async fn copy_over(
        &self,
        instance: InstanceId,
        device: &str,
        target: &CString,
        new: &DiskAttachment,
    ) -> Result<()> {
        let place = VolumePlace { device: device.to_owned(), bus: "virtio".to_owned() };
        let xml = domain_xml::volume_alone(new, &place, &self.options).map_err(|error| errors::file(DURING, error))?;
        let (destination, begun) = (text(&xml)?, target.clone());
        self.with(instance, move |guest| {
            // One that broke off may still be there.
            end(guest, &begun)?;
            ffi::block_copy(&guest.domain, &begun, &destination).map_err(failed)
        })
        .await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let target = target.clone();
            let progress =
                self.with(instance, move |guest| ffi::block_job(&guest.domain, &target).map_err(failed)).await?;
            match progress {
                Some((done, all)) if done == all && all > 0 => return Ok(()),
                Some(_) => {}
                None => {
                    return Err(HypervisorError::Failed { during: DURING, source: "the copy ended too early".into() });
                }
            }
        }
    }
}

fn end(guest: &Guest, target: &CString) -> Result<()> {
    match ffi::block_job(&guest.domain, target) {
        Ok(Some(_)) => ffi::end_block_job(&guest.domain, target).map_err(failed),
        Ok(None) | Err(_) => Ok(()),
    }
}

impl Guest {
    /// The device whose volume is to be swapped; `None` when it was.
    fn may_swap(&self, old: VolumeId, new: VolumeId) -> Result<Option<String>> {
        let (defined, live) = self.both()?;
        let has = |volume| {
            let known = defined.iter().any(|disk| disk.serial == Some(volume));
            known || live_disk(&live, &defined, volume, None).is_some()
        };
        match (has(old), has(new)) {
            (false, true) => return Ok(None),
            (false, false) => return Err(HypervisorError::invalid("volume", "is not in this guest")),
            (true, true) => return Err(HypervisorError::invalid("new", "is in this guest already")),
            (true, false) => {}
        }
        if !self.active || !matches!(self.power_state, PowerState::Running | PowerState::Paused) {
            return Err(self.wrong_state(Operation::SwapDisk));
        }
        let disk: Option<&Known> = live_disk(&live, &defined, old, None);
        let disk = disk.ok_or_else(|| HypervisorError::invalid("volume", "is not in this guest now"))?;
        Ok(Some(disk.device.clone()))
    }

    /// The definition has the new volume in the old one's place.
    fn redefine_disk(&self, old: VolumeId, new: &DiskAttachment, options: &LibvirtOptions) -> Result<()> {
        let broken = |source| HypervisorError::Failed { during: DURING, source };
        let mut definition = self.definition()?;
        let known = disks(&definition).into_iter().find(|disk| disk.serial == Some(old));
        let Some(known) = known else { return Ok(()) };
        let place = VolumePlace { device: known.device.clone(), bus: known.bus.clone() };
        let xml = domain_xml::volume_alone(new, &place, options).map_err(|error| errors::file(DURING, error))?;
        let mut replacement = xml_tree::parse(&xml).map_err(broken)?;
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

fn failed(error: virt::error::Error) -> HypervisorError {
    errors::failed(DURING, error)
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| HypervisorError::Failed { during: DURING, source: error.into() })
}
