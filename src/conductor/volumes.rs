//! Volumes around the tasks: what guests of a host should have, and attachments that no server knows of.
//!
//! Hosts compare the devices of their guests with what is said here. Attachments are compared with servers' rows: a conductor that
//! died may have asked for one, and left nothing but that ([decision 22](../../docs/decisions/0022-volumes-are-compared.md)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId, VolumeAttachmentId, VolumeId};
use nova_core::instance::Instance;
use nova_core::rpc::compute::VolumeOrder;
use nova_core::rpc::conductor::{AssignedVolumes, ListVolumesRequest};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_core::state::VmState;
use nova_core::volume::{BlockStorage, BlockStorageError, ServerVolume};
use nova_db::{Deleted, InstanceQuery, StoreError};
use nova_queue::{HandlerError, Incoming};
use tokio_util::sync::CancellationToken;

use super::engine::DriveError;
use super::manager::Conductor;
use super::report::{speaks_of_itself, unavailable};
use super::steps::{self, StepError};

/// How often it is looked for attachments that no server knows of.
const ATTACHMENTS_INTERVAL: Duration = Duration::from_secs(300);
/// Servers that are asked for at once.
const BATCH: usize = 200;

/// A guest in rescue has other disks than its own, and a suspended one those that it had then: they are what they are. While a
/// volume takes another's place, the guest may have either.
fn is_comparable(instance: &Instance) -> bool {
    let swaps = instance.volumes.iter().any(|volume| volume.swap.is_some());
    instance.task_state.is_none() && !swaps && !matches!(instance.vm_state, VmState::Rescued | VmState::Suspended)
}

/// Those that the host is let to, and those of the server that it is not.
fn here_and_elsewhere(volumes: &[ServerVolume], host: &HostName) -> (BTreeSet<VolumeId>, BTreeSet<VolumeId>) {
    let held = volumes.iter().filter(|volume| volume.make.is_none() && !volume.holds.is_empty());
    let (here, elsewhere): (Vec<_>, Vec<_>) = held.partition(|volume| volume.hold_of(host).is_some());
    let ids = |volumes: Vec<&ServerVolume>| volumes.into_iter().map(|one| one.volume_id).collect();
    (ids(here), ids(elsewhere))
}

impl Conductor {
    /// Which volumes guests of the host should have. Of those that are idle, before the rows were read and after it, nothing was
    /// on its way.
    pub(super) async fn list_volumes(
        &self,
        incoming: Incoming,
        request: ListVolumesRequest,
    ) -> Result<Vec<AssignedVolumes>, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        if self.services.volumes.is_none() {
            return Err(Refusal::new(RefusalKind::Unsupported, "there is no block storage service").into());
        }
        let query = InstanceQuery {
            host: Some(request.host.clone()),
            ids: Some(request.instances.clone()),
            ..InstanceQuery::default()
        };
        let placed = self.store.list_instances(&query).await.map_err(|error| unavailable(&error))?;
        let placed: Vec<Instance> = placed.into_iter().filter(is_comparable).collect();
        let mut there: BTreeMap<InstanceId, u64> = placed.iter().map(|one| (one.id, one.epoch)).collect();
        if request.idle {
            self.retain_idle(&mut there).await.map_err(|error| unavailable(&error))?;
        }
        let mut found = Vec::new();
        for instance in placed.iter().filter(|one| there.contains_key(&one.id)) {
            let (here, elsewhere) = here_and_elsewhere(&instance.volumes, &request.host);
            let ways = match request.idle {
                true => self.ways_again(instance, &request.host, &request.missing).await,
                false => Vec::new(),
            };
            found.push(AssignedVolumes { instance_id: instance.id, epoch: instance.epoch, here, elsewhere, ways });
        }
        if request.idle {
            self.retain_idle(&mut there).await.map_err(|error| unavailable(&error))?;
            found.retain(|assigned| there.contains_key(&assigned.instance_id));
        }
        Ok(found)
    }

    /// The ways to volumes that the guest should have; those that there is none to now are looked at again.
    async fn ways_again(&self, instance: &Instance, host: &HostName, missing: &[VolumeId]) -> Vec<VolumeOrder> {
        let mut ways = Vec::new();
        let context = self.own_context();
        for volume in instance.volumes.iter().filter(|one| missing.contains(&one.volume_id)) {
            match steps::way_again(&self.services, &context, volume, host).await {
                Ok(way) => ways.extend(way),
                Err(StepError::Later(why)) => {
                    tracing::warn!(instance = %instance.id, volume = %volume.volume_id, "no way to it now: {why}");
                }
                Err(StepError::Failed(failure)) => {
                    let (id, why) = (volume.volume_id, failure.details);
                    tracing::warn!(instance = %instance.id, volume = %id, "there is no way to it: {why}");
                }
            }
        }
        ways
    }

    /// Looks now and then for attachments that no server knows of.
    pub(super) async fn sweep_attachments_until(&self, stop: CancellationToken) {
        let Some(storage) = self.services.volumes.clone() else { return };
        let mut suspects = BTreeSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(ATTACHMENTS_INTERVAL) => {}
            }
            if let Err(error) = self.sweep_attachments(&*storage, &mut suspects).await {
                tracing::warn!("looking for attachments that no server knows of failed: {error}");
            }
        }
    }

    /// Gives back attachments to servers of ours that do not know of them, and did not when it was looked last. Returns how many.
    async fn sweep_attachments(
        &self,
        storage: &dyn BlockStorage,
        suspects: &mut BTreeSet<VolumeAttachmentId>,
    ) -> Result<usize, DriveError> {
        let all = match storage.attachments(&self.own_context()).await {
            Ok(all) => all,
            Err(BlockStorageError::Unsupported { .. }) => return Ok(0),
            Err(error) => return Err(DriveError::Later(chain(&error))),
        };
        let mut of_servers: BTreeMap<InstanceId, BTreeSet<VolumeAttachmentId>> = BTreeMap::new();
        for one in all {
            if let Some(server) = one.instance_id {
                of_servers.entry(server).or_default().insert(one.id);
            }
        }
        let mut unknown = Vec::new();
        let lacking = self.that_do_not_know(&of_servers).await?;
        for instance in lacking {
            let attachments = of_servers.remove(&instance).unwrap_or_default();
            unknown.extend(self.unknown_to(instance, attachments).await?);
        }
        let before = std::mem::replace(suspects, unknown.iter().map(|(_, attachment)| *attachment).collect());
        let mut found = 0;
        for (instance, attachment) in unknown.into_iter().filter(|(_, attachment)| before.contains(attachment)) {
            tracing::warn!(%instance, %attachment, "an attachment that its server does not know of is given back");
            match storage.release(&self.own_context(), attachment).await {
                Ok(()) => found += 1,
                Err(error) => tracing::warn!(%instance, %attachment, "it was not: {}", chain(&error)),
            }
        }
        Ok(found)
    }

    /// Servers of ours whose rows lack some of these, at a glance.
    async fn that_do_not_know(
        &self,
        of_servers: &BTreeMap<InstanceId, BTreeSet<VolumeAttachmentId>>,
    ) -> Result<Vec<InstanceId>, StoreError> {
        let ids: Vec<InstanceId> = of_servers.keys().copied().collect();
        let mut found = Vec::new();
        for some in ids.chunks(BATCH) {
            let query = InstanceQuery { ids: Some(some.to_vec()), deleted: Deleted::Any, ..InstanceQuery::default() };
            let rows = self.store.list_instances(&query).await?;
            let lacks =
                |row: &&Instance| of_servers.get(&row.id).is_some_and(|some| !some.is_subset(&known_to(&row.volumes)));
            found.extend(rows.iter().filter(lacks).map(|row| row.id));
        }
        Ok(found)
    }

    /// Those that the server does not know of while nothing is being done to it. The tasks are read before the row: what a task
    /// asked for is in the row by its end, and what is asked for later is not among these.
    async fn unknown_to(
        &self,
        instance: InstanceId,
        attachments: BTreeSet<VolumeAttachmentId>,
    ) -> Result<Vec<(InstanceId, VolumeAttachmentId)>, StoreError> {
        if !self.store.list_tasks(Some(instance)).await?.is_empty() {
            return Ok(Vec::new());
        }
        let known = match self.store.get_instance(instance).await {
            Ok(row) => known_to(&row.volumes),
            // Archived meanwhile.
            Err(StoreError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(attachments.difference(&known).map(|attachment| (instance, *attachment)).collect())
    }
}

fn known_to(volumes: &[ServerVolume]) -> BTreeSet<VolumeAttachmentId> {
    volumes.iter().flat_map(ServerVolume::all_holds).map(|hold| hold.attachment_id).collect()
}

#[cfg(test)]
mod tests {
    use nova_core::volume::Hold;

    use super::*;

    #[test]
    fn a_guest_should_have_what_its_host_is_let_to() {
        let id = |number: u8| format!("00000000-0000-4000-8000-0000000000{number:02x}");
        let host = HostName::new("h1");
        let volume = |number: u8, hosts: &[Option<&str>]| -> ServerVolume {
            let holds =
                hosts.iter().map(|of| Hold { attachment_id: id(number).parse().unwrap(), host: of.map(HostName::new) });
            let known = serde_json::json!({"id": id(number), "volume_id": id(number)});
            ServerVolume { holds: holds.collect(), ..serde_json::from_value(known).unwrap() }
        };
        let volumes =
            [volume(1, &[Some("h2"), Some("h1")]), volume(2, &[Some("h2")]), volume(3, &[None]), volume(4, &[])];
        let ids = |numbers: &[u8]| numbers.iter().map(|number| id(*number).parse().unwrap()).collect();
        assert_eq!(here_and_elsewhere(&volumes, &host), (ids(&[1]), ids(&[2, 3])));
    }

    #[test]
    fn a_volume_that_takes_anothers_place_is_known() {
        let id = |number: u8| format!("00000000-0000-4000-8000-0000000000{number:02x}");
        let hold = |number: u8| serde_json::json!({"attachment_id": id(number), "host": "h1"});
        let swap = serde_json::json!({"volume_id": id(2), "holds": [hold(12)]});
        let known = serde_json::json!({"id": id(1), "volume_id": id(1), "holds": [hold(11)], "swap": swap});
        let volume: ServerVolume = serde_json::from_value(known).unwrap();
        assert_eq!(known_to(&[volume]), [id(11), id(12)].iter().map(|id| id.parse().unwrap()).collect());
    }
}
