//! Repair: counts that do not agree with the rows.

use std::collections::BTreeMap;

use nova_core::ids::ProjectId;
use nova_core::volume::{Pool, Snapshot, Volume, VolumeQuotaKey};

use super::super::{list, replace_or_race};
use super::{accounts, pools};
use crate::records::VolumeUsage;
use crate::rows::{Fail, Lock, Record, Select, Transaction, decode};

pub(super) async fn recount(tx: &mut dyn Transaction) -> Result<Vec<String>, Fail> {
    let mut changed = Vec::new();
    let mut bill = accounts::Bill::default();
    // The counts first: whoever writes volumes waits for them.
    let rows = tx.select(VolumeUsage::TABLE, &Select::all().by(&["project_id", "resource"]), Lock::ForUpdate).await?;
    let mut kept: BTreeMap<(ProjectId, VolumeQuotaKey), u64> = BTreeMap::new();
    for row in &rows {
        let usage = decode::<VolumeUsage>(row)?.record;
        kept.insert((usage.project_id, usage.key), usage.used);
    }
    let of_pools: Vec<Pool> = list(tx, &Select::all().by(&["name"])).await?;
    for pool in of_pools {
        let (booked_gb, volumes) = pools::counted(tx, &pool.name).await?;
        if (pool.booked_gb, pool.volumes) == (booked_gb, volumes) {
            continue;
        }
        changed.push(format!("pool {}: {} GiB booked, not {}", pool.name, booked_gb, pool.booked_gb));
        let next = Pool { booked_gb, volumes, generation: pool.generation + 1, ..pool.clone() };
        replace_or_race(tx, &next, pool.generation).await?;
    }
    let volumes: Vec<Volume> = list(tx, &Select::all()).await?;
    volumes.iter().for_each(|volume| bill.volume(None, Some(volume)));
    let snapshots: Vec<Snapshot> = list(tx, &Select::all()).await?;
    snapshots.iter().for_each(|snapshot| bill.snapshot(None, Some(snapshot)));
    let mut true_counts: BTreeMap<_, u64> = kept.keys().map(|key| (key.clone(), 0)).collect();
    true_counts.extend(bill.usage.into_iter().map(|(key, count)| (key, count.unsigned_abs())));
    for ((project, key), count) in true_counts {
        let was = kept.get(&(project.clone(), key)).copied().unwrap_or_default();
        if was != count {
            changed.push(format!("project {project}: {count} {}, not {was}", key.resource.as_str()));
            accounts::put(tx, &project, key, count).await?;
        }
    }
    Ok(changed)
}
