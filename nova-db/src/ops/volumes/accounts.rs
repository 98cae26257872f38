//! What projects have of volumes, counted in the transaction that writes them.

use std::collections::BTreeMap;

use nova_core::ids::{ProjectId, VolumeTypeId};
use nova_core::volume::{PoolName, Snapshot, Volume, VolumeProblem, VolumeQuotaKey, VolumeResource};

use super::super::{add, find, list, replace_or_race};
use crate::records::{VolumeUsage, quota_column};
use crate::rows::{Condition, Fail, Found, Lock, Select, Transaction, Value};
use crate::{VolumeAccount, VolumeCommit};

/// What a commit costs: more or less of what, for whom and where.
#[derive(Debug, Default)]
pub(super) struct Bill {
    pub(super) usage: BTreeMap<(ProjectId, VolumeQuotaKey), i64>,
    /// GiB and volumes.
    pub(super) pools: BTreeMap<PoolName, (i64, i64)>,
    /// GiB of the largest volume that is new or grows, by project.
    largest: BTreeMap<ProjectId, u64>,
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Bill {
    /// A volume that was so is to be so.
    pub(super) fn volume(&mut self, old: Option<&Volume>, new: Option<&Volume>) {
        for (volume, sign) in [(old, -1), (new, 1)] {
            let Some(volume) = volume else { continue };
            self.count(&volume.project_id, volume.volume_type_id, VolumeResource::Volumes, sign);
            let size = signed(volume.booked_gb());
            self.count(&volume.project_id, volume.volume_type_id, VolumeResource::Gigabytes, sign * size);
            if let Some(pool) = &volume.pool {
                let entry = self.pools.entry(pool.clone()).or_default();
                *entry = (entry.0 + sign * size, entry.1 + sign);
            }
        }
        if let Some(new) = new.filter(|new| old.is_none_or(|old| old.booked_gb() < new.booked_gb())) {
            let largest = self.largest.entry(new.project_id.clone()).or_default();
            *largest = new.booked_gb().max(*largest);
        }
    }

    /// A snapshot that was so is to be so.
    pub(super) fn snapshot(&mut self, old: Option<&Snapshot>, new: Option<&Snapshot>) {
        for (snapshot, sign) in [(old, -1), (new, 1)] {
            let Some(snapshot) = snapshot else { continue };
            self.count(&snapshot.project_id, snapshot.volume_type_id, VolumeResource::Snapshots, sign);
            let size = signed(snapshot.size_gb);
            self.count(&snapshot.project_id, snapshot.volume_type_id, VolumeResource::Gigabytes, sign * size);
            if let Some(pool) = &snapshot.pool {
                self.pools.entry(pool.clone()).or_default().0 += sign * size;
            }
        }
    }

    fn count(&mut self, project: &ProjectId, of: Option<VolumeTypeId>, resource: VolumeResource, by: i64) {
        let of_type = of.map(|of| VolumeQuotaKey::of_type(resource, of));
        for key in [Some(VolumeQuotaKey::of(resource)), of_type].into_iter().flatten() {
            *self.usage.entry((project.clone(), key)).or_default() += by;
        }
    }
}

type Row = (VolumeUsage, Option<u64>);

/// The project's row, which others that write it wait for from now on.
async fn row(tx: &mut dyn Transaction, project: &ProjectId, key: VolumeQuotaKey, lock: Lock) -> Result<Row, Fail> {
    let found: Option<Found<VolumeUsage>> = find(tx, &[Value::text(project), quota_column(key)], lock).await?;
    Ok(match found {
        Some(found) => (found.record, Some(found.generation)),
        None => (VolumeUsage { project_id: project.clone(), key, used: 0, limit: None }, None),
    })
}

async fn write(tx: &mut dyn Transaction, (row, generation): &Row) -> Result<(), Fail> {
    match generation {
        Some(generation) => replace_or_race(tx, row, *generation).await,
        None => add(tx, row).await,
    }
}

/// The bill is paid, if the projects may have what is more.
pub(super) async fn settle(tx: &mut dyn Transaction, bill: &Bill, commit: &VolumeCommit) -> Result<(), Fail> {
    if let Some(limits) = &commit.limits {
        let key = VolumeQuotaKey::of(VolumeResource::PerVolumeGigabytes);
        for (project, size) in &bill.largest {
            let (own, _) = row(tx, project, key, Lock::None).await?;
            let limit = own.limit.map_or(limits.of(key), |own| u64::try_from(own).ok());
            if let Some(limit) = limit.filter(|limit| size > limit) {
                return Err(VolumeProblem::OverSize { size: *size, limit }.into());
            }
        }
    }
    for ((project, key), by) in &bill.usage {
        if *by == 0 {
            continue;
        }
        let mut row = row(tx, project, *key, Lock::ForUpdate).await?;
        if let (Some(limits), 1..) = (&commit.limits, *by) {
            let limit = row.0.limit.map_or(limits.of(*key), |own| u64::try_from(own).ok());
            if let Some(limit) = limit.filter(|limit| row.0.used.saturating_add(by.unsigned_abs()) > *limit) {
                return Err(over(commit, *key, row.0.used, by.unsigned_abs(), limit).into());
            }
        }
        row.0.used = row.0.used.saturating_add_signed(*by);
        write(tx, &row).await?;
    }
    Ok(())
}

fn over(commit: &VolumeCommit, key: VolumeQuotaKey, used: u64, requested: u64, limit: u64) -> VolumeProblem {
    let of = key.volume_type.and_then(|id| commit.type_names.get(&id));
    let name = of.map_or_else(|| key.resource.as_str().to_owned(), |of| format!("{}_{of}", key.resource.as_str()));
    match key.resource {
        VolumeResource::Gigabytes | VolumeResource::PerVolumeGigabytes => {
            VolumeProblem::TooLarge { name, requested, limit, used }
        }
        resource @ (VolumeResource::Volumes | VolumeResource::Snapshots) => {
            VolumeProblem::TooMany { resource, name, limit }
        }
    }
}

pub(super) async fn accounts(
    tx: &mut dyn Transaction,
    project: &ProjectId,
) -> Result<BTreeMap<VolumeQuotaKey, VolumeAccount>, Fail> {
    let which = Condition::Is("project_id", Value::text(project));
    let rows: Vec<VolumeUsage> = list(tx, &Select::new(which)).await?;
    let account =
        |row: VolumeUsage| VolumeAccount { used: row.used, limit: row.limit.map(|own| u64::try_from(own).ok()) };
    Ok(rows.into_iter().map(|row| (row.key, account(row))).collect())
}

pub(super) async fn set_limits(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    limits: &BTreeMap<VolumeQuotaKey, Option<Option<u64>>>,
) -> Result<(), Fail> {
    for (key, limit) in limits {
        let mut row = row(tx, project, *key, Lock::ForUpdate).await?;
        row.0.limit = limit.map(|limit| limit.map_or(-1, signed));
        write(tx, &row).await?;
    }
    Ok(())
}

/// Writes a count, whatever it was.
pub(super) async fn put(
    tx: &mut dyn Transaction,
    project: &ProjectId,
    key: VolumeQuotaKey,
    used: u64,
) -> Result<(), Fail> {
    let mut row = row(tx, project, key, Lock::ForUpdate).await?;
    row.0.used = used;
    write(tx, &row).await
}
