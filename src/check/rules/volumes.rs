//! I4, I6, I7, I9, I16 of volumes: what was accepted is worked on, counts are what there is, attachments are of servers that
//! are there, a volume's state is that of its attachments, and snapshots have their volume.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{ProjectId, VolumeAttachmentId, VolumeId};
use nova_core::instance::Instance;
use nova_core::volume::{
    Attachment, AttachmentStatus, PoolName, ServerVolume, SnapshotStatus, Volume, VolumeQuotaKey, VolumeResource,
    VolumeStatus, VolumeWork, rest,
};

use super::View;
use crate::check::{Repair, Violation};

fn of(volume: VolumeId) -> Vec<(&'static str, String)> {
    vec![("volume", volume.to_string())]
}

/// I4: what is under way has a task, and tasks end in time.
pub(super) fn work(view: &View<'_>) -> Vec<Violation> {
    let facts = &view.facts.store;
    let busy: BTreeSet<VolumeId> = facts.volume_tasks.iter().map(|task| task.volume_id).collect();
    let mut found = Vec::new();
    for volume in facts.volumes.iter().filter(|volume| !busy.contains(&volume.id)) {
        let under_way = matches!(
            volume.status,
            VolumeStatus::Creating
                | VolumeStatus::Downloading
                | VolumeStatus::Extending
                | VolumeStatus::Uploading
                | VolumeStatus::Deleting
        );
        if under_way {
            let text = format!("it is {} and nobody works on it", volume.status);
            let repair = Repair::FailVolume { volume: volume.id, generation: volume.generation };
            let violation = Violation::new("I4", of(volume.id), text).stamped([u128::from(volume.generation)]);
            found.push(violation.mended_by(repair));
        }
    }
    for snapshot in facts.volume_snapshots.iter().filter(|snapshot| !busy.contains(&snapshot.volume_id)) {
        if matches!(snapshot.status, SnapshotStatus::Creating | SnapshotStatus::Deleting) {
            let subject = vec![("snapshot", snapshot.id.to_string())];
            let text = format!("it is {} and nobody works on it", snapshot.status);
            let repair = Repair::FailVolumeSnapshot { snapshot: snapshot.id, generation: snapshot.generation };
            let violation = Violation::new("I4", subject, text).stamped([u128::from(snapshot.generation)]);
            found.push(violation.mended_by(repair));
        }
    }
    let there: BTreeSet<VolumeId> = facts.volumes.iter().map(|volume| volume.id).collect();
    for task in &facts.volume_tasks {
        if !there.contains(&task.volume_id) {
            let subject = vec![("volume", task.volume_id.to_string()), ("task", task.id.to_string())];
            let text = format!("'{}' of a volume that is not there", task.work.name());
            let repair = Repair::DropVolumeTask { task: task.id, generation: task.generation };
            let violation = Violation::new("I4", subject, text).stamped([u128::from(task.generation)]);
            found.push(violation.mended_by(repair));
            continue;
        }
        let late = view.facts.now.duration_since(task.deadline);
        if late > view.facts.bounds.grace {
            let subject = vec![("volume", task.volume_id.to_string()), ("task", task.id.to_string())];
            let text =
                format!("'{}' should have ended on host {}: is nova-volume up there?", task.work.name(), task.host);
            found.push(Violation::new("I4", subject, text).stamped([u128::from(task.generation)]));
        }
    }
    found
}

/// I6: projects and pools count what there is.
pub(super) fn accounts(view: &View<'_>) -> Vec<Violation> {
    let facts = &view.facts.store;
    let mut used: BTreeMap<(&ProjectId, VolumeQuotaKey), u64> = BTreeMap::new();
    let mut pools: BTreeMap<&PoolName, (u64, u64)> = BTreeMap::new();
    // Equal if nothing of the project's changed meanwhile.
    let mut stamps: BTreeMap<&ProjectId, u128> = BTreeMap::new();
    for volume in &facts.volumes {
        let size = volume.booked_gb();
        for (resource, count) in [(VolumeResource::Volumes, 1), (VolumeResource::Gigabytes, size)] {
            add(&mut used, &volume.project_id, volume.volume_type_id, resource, count);
        }
        *stamps.entry(&volume.project_id).or_default() += u128::from(volume.generation);
        if let Some(pool) = &volume.pool {
            let entry = pools.entry(pool).or_default();
            *entry = (entry.0 + size, entry.1 + 1);
        }
    }
    for snapshot in &facts.volume_snapshots {
        for (resource, count) in [(VolumeResource::Snapshots, 1), (VolumeResource::Gigabytes, snapshot.size_gb)] {
            add(&mut used, &snapshot.project_id, snapshot.volume_type_id, resource, count);
        }
        *stamps.entry(&snapshot.project_id).or_default() += u128::from(snapshot.generation);
        if let Some(pool) = &snapshot.pool {
            pools.entry(pool).or_default().0 += snapshot.size_gb;
        }
    }
    let mut found = Vec::new();
    for (project, accounts) in &facts.volume_accounts {
        let keys = accounts.keys().copied().chain(used.keys().filter(|(of, _)| of == &project).map(|(_, key)| *key));
        for key in keys.collect::<BTreeSet<_>>() {
            let counted = accounts.get(&key).map_or(0, |account| account.used);
            let there = used.get(&(project, key)).copied().unwrap_or_default();
            if counted != there {
                let of_type = key.volume_type.map(|id| format!(" of type {id}")).unwrap_or_default();
                let text = format!("its usage counts {counted} {}{of_type}; there are {there}", key.resource.as_str());
                let stamp = [u128::from(counted), u128::from(there), stamps.get(project).copied().unwrap_or_default()];
                let violation = Violation::new("I6", vec![("project", project.to_string())], text);
                found.push(violation.stamped(stamp).mended_by(Repair::RecountVolumes));
            }
        }
    }
    for pool in &facts.volume_pools {
        let (booked, volumes) = pools.get(&pool.name).copied().unwrap_or_default();
        if (pool.booked_gb, pool.volumes) != (booked, volumes) {
            let text = format!(
                "it counts {} GiB in {} volumes; there are {booked} in {volumes}",
                pool.booked_gb, pool.volumes
            );
            let violation = Violation::new("I6", vec![("pool", pool.name.to_string())], text);
            let stamp = [u128::from(booked), u128::from(volumes), u128::from(pool.booked_gb), u128::from(pool.volumes)];
            found.push(violation.stamped(stamp).mended_by(Repair::RecountVolumes));
        }
    }
    found
}

fn add<'a>(
    used: &mut BTreeMap<(&'a ProjectId, VolumeQuotaKey), u64>,
    project: &'a ProjectId,
    of: Option<nova_core::ids::VolumeTypeId>,
    resource: VolumeResource,
    count: u64,
) {
    let of_type = of.map(|of| VolumeQuotaKey::of_type(resource, of));
    for key in [Some(VolumeQuotaKey::of(resource)), of_type].into_iter().flatten() {
        *used.entry((project, key)).or_default() += count;
    }
}

/// I7: an attachment is of a server that is there, and a volume in several hands is one that may be.
pub(super) fn attachments(view: &View<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let leaving: BTreeSet<_> = view.facts.store.volume_tasks.iter().filter_map(|task| leaves(&task.work)).collect();
    for volume in &view.facts.store.volumes {
        let staying = volume.attachments.values().filter(|attachment| !leaving.contains(&attachment.id));
        for attachment in staying {
            found.extend(of_nobody(view, volume, attachment));
        }
        found.extend(shared(volume));
    }
    found.extend(view.live().filter(|server| view.is_settled(server)).flat_map(|server| of_server(view, server)));
    found
}

/// What a server has is attached to it, on its own host. Volumes of an outside service are not in these books.
fn of_server(view: &View<'_>, server: &Instance) -> Vec<Violation> {
    let mut found = Vec::new();
    for known in &server.volumes {
        let volume = view.facts.store.volumes.iter().find(|volume| volume.id == known.volume_id);
        let Some(volume) = volume else { continue };
        let here = known.attachment(server.host.as_ref()).and_then(|id| volume.attachments.get(&id));
        let text = match (here, &server.host) {
            (None, _) => "it has a volume that is not attached to it: detach it".to_owned(),
            (Some(one), Some(host)) if one.host().is_some_and(|there| there != host.as_str()) => {
                format!("it is on {host}, and its volume is let to another host: reboot it hard")
            }
            (Some(_), _) => continue,
        };
        let mut subject = of(volume.id);
        subject.push(("instance", server.id.to_string()));
        let stamp = [u128::from(volume.generation), u128::from(server.generation)];
        found.push(Violation::new("I7", subject, text).stamped(stamp));
    }
    found
}

fn of_nobody(view: &View<'_>, volume: &Volume, attachment: &Attachment) -> Option<Violation> {
    let instance = attachment.instance_id?;
    if view.busy.contains(&instance) {
        return None;
    }
    let mut subject = of(volume.id);
    subject.extend([("attachment", attachment.id.to_string()), ("instance", instance.to_string())]);
    let status = attachment.status.as_str();
    let stamp = [u128::from(volume.generation), view.generation(instance)];
    if let Some(server) = view.live_one(instance) {
        let mut holds = server.volumes.iter().flat_map(ServerVolume::all_holds);
        if holds.any(|hold| hold.attachment_id == attachment.id) {
            return None;
        }
        let text = format!("it is {status} by a server that does not know of it: delete the attachment");
        return Some(Violation::new("I7", subject, text).stamped(stamp));
    }
    // One that was never here may be a server of another cloud, which uses these volumes: that is for people to say.
    if !view.instances.contains_key(&instance) {
        let text = format!("it is {status} by a server that is not known here: delete the attachment");
        return Some(Violation::new("I7", subject, text).stamped(stamp));
    }
    let repair = Repair::EndAttachment { volume: volume.id, attachment: attachment.id, generation: volume.generation };
    let text = format!("it is {status} by a server that was deleted");
    Some(Violation::new("I7", subject, text).stamped(stamp).mended_by(repair))
}

fn leaves(work: &VolumeWork) -> Option<VolumeAttachmentId> {
    match work {
        VolumeWork::Disconnect { attachment } => Some(*attachment),
        _ => None,
    }
}

/// I9: a volume that nothing is being done to is what its attachments make of it. I16: snapshots have their volume.
pub(super) fn states(view: &View<'_>) -> Vec<Violation> {
    let facts = &view.facts.store;
    let there: BTreeSet<VolumeId> = facts.volumes.iter().map(|volume| volume.id).collect();
    let of_no_volume = facts.volume_snapshots.iter().filter(|snapshot| !there.contains(&snapshot.volume_id));
    let lost = of_no_volume.map(|snapshot| {
        let subject = vec![("snapshot", snapshot.id.to_string()), ("volume", snapshot.volume_id.to_string())];
        Violation::new("I16", subject, "its volume is not there").stamped([u128::from(snapshot.generation)])
    });
    facts.volumes.iter().filter_map(at_odds).chain(lost).collect()
}

fn at_odds(volume: &Volume) -> Option<Violation> {
    use VolumeStatus as S;
    let holds = volume.holds();
    let expected = match volume.status {
        S::Available | S::Reserved | S::Attaching | S::InUse => rest(holds),
        // A server is asked to give it back, and has it until then.
        S::Detaching if holds.attached > 0 => S::Detaching,
        S::Detaching => rest(holds),
        other => other,
    };
    if expected == volume.status {
        return None;
    }
    let text = format!("it is {}, and by its attachments {expected}", volume.status);
    let repair = Repair::SettleVolume { volume: volume.id, generation: volume.generation };
    let violation = Violation::new("I9", of(volume.id), text).stamped([u128::from(volume.generation)]);
    Some(violation.mended_by(repair))
}

fn shared(volume: &Volume) -> Option<Violation> {
    let attached = volume.attachments.values().filter(|one| one.status == AttachmentStatus::Attached);
    let servers: BTreeSet<_> = attached.filter_map(|one| one.instance_id).collect();
    if volume.multiattach || servers.len() < 2 {
        return None;
    }
    let text = format!("{} servers have it, and it is not for several", servers.len());
    Some(Violation::new("I7", of(volume.id), text).stamped([u128::from(volume.generation)]))
}
