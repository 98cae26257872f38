//! Guests' volumes, compared with those that they should have: one that was plugged in and could not be taken back goes, one that
//! was lost comes again (Nova compares them only when a guest is started).

use std::collections::BTreeSet;

use nova_core::error::chain;
use nova_core::ids::{InstanceId, VolumeId};
use nova_core::rpc::conductor::{AssignedVolumes, ListVolumes, ListVolumesRequest};
use nova_queue::BusError;
use nova_virt::HypervisorError;

use crate::agent::Agent;
use crate::volumes::attachment;

/// Guests that are asked for at once.
const AT_ONCE: usize = 200;

/// What is wrong with a guest's volumes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gap {
    /// Devices of volumes that are not the server's.
    unknown: Vec<VolumeId>,
    /// Volumes that it does not have.
    missing: Vec<VolumeId>,
}

impl Gap {
    /// Between what the guest has on this host and what it should have. What is the server's, but not let to this host, is not
    /// this host's to bring or take away.
    fn between(has: &BTreeSet<VolumeId>, should: &AssignedVolumes) -> Self {
        let known = |id: &VolumeId| should.here.contains(id) || should.elsewhere.contains(id);
        Self {
            unknown: has.iter().copied().filter(|id| !known(id)).collect(),
            missing: should.here.difference(has).copied().collect(),
        }
    }

    fn is_none(&self) -> bool {
        self.unknown.is_empty() && self.missing.is_empty()
    }
}

impl Agent {
    /// Compares the volumes of all guests, and mends what differs where nobody is at work.
    pub(crate) async fn compare_volumes(&self) {
        if !self.hypervisor.capabilities().attach_disk {
            return;
        }
        let guests = match self.hypervisor.list().await {
            Ok(guests) => guests,
            Err(error) => return tracing::warn!("volumes were not compared: {}", chain(&error)),
        };
        let ids: Vec<InstanceId> = guests.iter().map(|guest| guest.instance).collect();
        for some in ids.chunks(AT_ONCE) {
            match self.assigned_volumes(some, None).await {
                Ok(all) => {
                    for assigned in all {
                        self.look_at_volumes(&assigned).await;
                    }
                }
                Err(error) => return tracing::debug!("volumes were not compared: {}", chain(&error)),
            }
        }
    }

    /// `missing`: of guests that stand still, with the ways to these.
    async fn assigned_volumes(
        &self,
        instances: &[InstanceId],
        missing: Option<Vec<VolumeId>>,
    ) -> Result<Vec<AssignedVolumes>, BusError> {
        let (host, instances, idle) = (self.options.host.clone(), instances.to_vec(), missing.is_some());
        let request = ListVolumesRequest { host, instances, idle, missing: missing.unwrap_or_default() };
        self.rpc.call::<ListVolumes>(&self.context(), &request).await
    }

    async fn volumes_of(&self, id: InstanceId) -> Result<BTreeSet<VolumeId>, HypervisorError> {
        Ok(self.hypervisor.attached_disks(id).await?.into_iter().map(|disk| disk.volume).collect())
    }

    /// What was said first may be about to change: of a guest that differs it is asked again, for one that stands still.
    async fn look_at_volumes(&self, assigned: &AssignedVolumes) {
        let id = assigned.instance_id;
        let orders = self.instances.orders(id);
        let Ok(has) = self.volumes_of(id).await else { return };
        let gap = Gap::between(&has, assigned);
        if self.instances.busy(id) || gap.is_none() {
            return;
        }
        match self.assigned_volumes(&[id], Some(gap.missing)).await {
            Ok(all) => {
                for assigned in all {
                    self.mend_volumes(&assigned, orders).await;
                }
            }
            Err(error) => tracing::debug!(instance = %id, "its volumes were not compared: {}", chain(&error)),
        }
    }

    /// Closes the gap, if no order came since there were so many.
    async fn mend_volumes(&self, assigned: &AssignedVolumes, orders: u64) {
        let id = assigned.instance_id;
        let turn = self.instances.turn(id);
        let Ok(_turn) = turn.try_lock() else { return };
        let came = self.instances.orders(id) != orders || self.instances.overtaken(id, assigned.epoch);
        if came || self.instances.busy(id) {
            return;
        }
        let Ok(has) = self.volumes_of(id).await else { return };
        let gap = Gap::between(&has, assigned);
        for volume in &gap.unknown {
            tracing::warn!(instance = %id, %volume, "a guest has a volume that is not its server's; it is unplugged");
            if let Err(error) = self.unplug_volume(id, *volume).await {
                tracing::warn!(instance = %id, %volume, "it was not: {}", chain(&error));
            }
        }
        for way in assigned.ways.iter().filter(|way| gap.missing.contains(&way.connection.volume_id)) {
            let disk = attachment(way);
            tracing::warn!(instance = %id, volume = %disk.volume(), "a guest lacks a volume of its server; it is plugged in");
            if let Err(error) = self.hypervisor.attach_disk(id, &disk).await {
                tracing::warn!(instance = %id, volume = %disk.volume(), "it was not: {}", chain(&error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u8]) -> BTreeSet<VolumeId> {
        numbers
            .iter()
            .map(|number| format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap())
            .collect()
    }

    #[test]
    fn gaps_are_told_by_volumes() {
        let instance_id = "7e700000-0000-4000-8000-000000000001".parse().unwrap();
        let (here, elsewhere) = (ids(&[1, 2]), ids(&[3, 4]));
        let should = AssignedVolumes { instance_id, epoch: 1, here, elsewhere, ways: Vec::new() };
        let gap = Gap::between(&ids(&[2, 3, 5]), &should);
        let list = |numbers: &[u8]| ids(numbers).into_iter().collect::<Vec<_>>();
        assert_eq!(gap, Gap { unknown: list(&[5]), missing: list(&[1]) });
        assert!(!gap.is_none());
        assert!(Gap::between(&ids(&[1, 2]), &should).is_none());
    }
}
