//! Pools: what hosts say of them, and what is booked there.

use nova_core::volume::{Pool, PoolName, Snapshot, Volume, VolumeProblem};

use super::super::{add, find, list, replace_or_race};
use super::accounts::Bill;
use crate::rows::{Condition, Fail, Found, Lock, Select, Transaction, Value};

pub(super) async fn report(tx: &mut dyn Transaction, said: &Pool) -> Result<Pool, Fail> {
    let found: Option<Found<Pool>> = find(tx, &[Value::text(&said.name)], Lock::ForUpdate).await?;
    if let Some(Found { record: old, generation }) = found {
        let (booked_gb, volumes) = (old.booked_gb, old.volumes);
        let pool = Pool { booked_gb, volumes, generation: generation + 1, ..said.clone() };
        replace_or_race(tx, &pool, generation).await?;
        return Ok(pool);
    }
    let (booked_gb, volumes) = counted(tx, &said.name).await?;
    let pool = Pool { booked_gb, volumes, generation: 1, ..said.clone() };
    add(tx, &pool).await?;
    Ok(pool)
}

/// GiB and volumes that are there by the rows.
pub(super) async fn counted(tx: &mut dyn Transaction, pool: &PoolName) -> Result<(u64, u64), Fail> {
    let there = || Select::new(Condition::Is("pool", Value::text(pool)));
    let volumes: Vec<Volume> = list(tx, &there()).await?;
    let snapshots: Vec<Snapshot> = list(tx, &there()).await?;
    let sizes = volumes.iter().map(Volume::booked_gb).chain(snapshots.iter().map(|snapshot| snapshot.size_gb));
    Ok((sizes.sum(), volumes.len() as u64))
}

/// What is more is booked where there is room; what is less makes room.
pub(super) async fn settle(tx: &mut dyn Transaction, bill: &Bill, is_checked: bool) -> Result<(), Fail> {
    for (name, (gigabytes, volumes)) in &bill.pools {
        if (*gigabytes, *volumes) == (0, 0) {
            continue;
        }
        let no_room = || VolumeProblem::NoRoom { pool: name.to_string(), wanted_gb: gigabytes.unsigned_abs() };
        let found: Option<Found<Pool>> = find(tx, &[Value::text(name)], Lock::ForUpdate).await?;
        let Some(Found { record: mut pool, generation }) = found else {
            // It is counted when it is heard of.
            if is_checked && *gigabytes > 0 {
                return Err(no_room().into());
            }
            continue;
        };
        if is_checked && *gigabytes > 0 && gigabytes.unsigned_abs() > pool.room_gb() {
            return Err(no_room().into());
        }
        pool.booked_gb = pool.booked_gb.saturating_add_signed(*gigabytes);
        pool.volumes = pool.volumes.saturating_add_signed(*volumes);
        pool.generation = generation + 1;
        replace_or_race(tx, &pool, generation).await?;
    }
    Ok(())
}
