//! What is written of volumes, in one transaction, with what it costs.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{VolumeAttachmentId, VolumeId};
use nova_core::volume::{Snapshot, Transfer, Volume, VolumeProblem, VolumeTask};

use super::super::{add, conflict, duplicate, find, list, need, remove, remove_existing, replace};
use super::{accounts, pools};
use crate::records::AttachmentRow;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{Kind, StoreError, VolumeCommit, Write};

pub(super) async fn commit(tx: &mut dyn Transaction, commit: &VolumeCommit) -> Result<Vec<Volume>, Fail> {
    stands_for_all(commit)?;
    let mut bill = accounts::Bill::default();
    let mut written = Vec::new();
    // One order for all, so that two commits do not wait for each other.
    let mut volumes: Vec<&Write<Volume>> = commit.volumes.iter().collect();
    volumes.sort_by_key(|write| write.row().id);
    let mut by_id = BTreeMap::new();
    for write in volumes {
        if let Some(volume) = write_volume(tx, write, &mut bill).await? {
            by_id.insert(volume.id, volume);
        }
    }
    for write in &commit.snapshots {
        write_snapshot(tx, write, &mut bill).await?;
    }
    for write in &commit.volumes {
        match write {
            Write::Delete(volume) => is_free(tx, volume.id).await?,
            Write::Create(volume) | Write::Update(volume) => written.extend(by_id.remove(&volume.id)),
        }
    }
    for write in &commit.tasks {
        write_task(tx, write).await?;
    }
    for write in &commit.transfers {
        write_transfer(tx, write).await?;
    }
    for image in &commit.images {
        super::super::images::create(tx, image).await?;
    }
    accounts::settle(tx, &bill, commit).await?;
    pools::settle(tx, &bill, commit.limits.is_some()).await?;
    Ok(written)
}

/// Is every volume written that what is written hangs on?
fn stands_for_all(commit: &VolumeCommit) -> Result<(), Fail> {
    let written: BTreeSet<VolumeId> = commit.volumes.iter().map(|write| write.row().id).collect();
    let snapshots = commit.snapshots.iter().map(|write| write.row().volume_id);
    let transfers = commit.transfers.iter().map(|write| write.row().volume_id);
    let tasks = commit.tasks.iter().filter_map(|write| match write {
        Write::Create(task) => Some([Some(task.volume_id), task.work.reads()]),
        Write::Update(_) | Write::Delete(_) => None,
    });
    for id in snapshots.chain(transfers).chain(tasks.flatten().flatten()) {
        if !written.contains(&id) {
            return Err(StoreError::Conflict { kind: Kind::Volume, id: id.to_string() }.into());
        }
    }
    Ok(())
}

/// The row of that key, which must be of the generation that the caller read.
async fn as_read<R: Record>(tx: &mut dyn Transaction, key: &[Value; 1], read: u64) -> Result<R, Fail> {
    let found = need::<R>(tx, key, Lock::ForUpdate).await?;
    if found.generation == read { Ok(found.record) } else { Err(conflict::<R>(key)) }
}

async fn is_new<R: Record>(tx: &mut dyn Transaction, key: &[Value; 1]) -> Result<(), Fail> {
    match find::<R>(tx, key, Lock::None).await? {
        None => Ok(()),
        Some(_) => Err(duplicate(R::TABLE.kind, "id", R::TABLE.key_text(key))),
    }
}

async fn write_volume(
    tx: &mut dyn Transaction,
    write: &Write<Volume>,
    bill: &mut accounts::Bill,
) -> Result<Option<Volume>, Fail> {
    let row = write.row();
    let key = [Value::text(row.id)];
    match write {
        Write::Create(_) => {
            is_new::<Volume>(tx, &key).await?;
            let new = Volume { generation: 1, ..row.clone() };
            add(tx, &new).await?;
            bill.volume(None, Some(&new));
            index(tx, None, Some(&new)).await?;
            Ok(Some(new))
        }
        Write::Update(_) => {
            let old: Volume = as_read(tx, &key, row.generation).await?;
            let new = Volume { generation: row.generation + 1, ..row.clone() };
            if !replace(tx, &new, row.generation).await? {
                return Err(conflict::<Volume>(&key));
            }
            bill.volume(Some(&old), Some(&new));
            index(tx, Some(&old), Some(&new)).await?;
            Ok(Some(new))
        }
        Write::Delete(_) => {
            let old: Volume = as_read(tx, &key, row.generation).await?;
            remove_existing::<Volume>(tx, &key).await?;
            bill.volume(Some(&old), None);
            index(tx, Some(&old), None).await?;
            Ok(None)
        }
    }
}

/// Writes where its attachments are found, as far as that changes.
async fn index(tx: &mut dyn Transaction, old: Option<&Volume>, new: Option<&Volume>) -> Result<(), Fail> {
    let rows = |volume: Option<&Volume>| -> BTreeMap<VolumeAttachmentId, AttachmentRow> {
        let volume = volume.into_iter();
        let rows = volume.flat_map(|v| v.attachments.values().map(|a| (a.id, AttachmentRow::of(&v.project_id, a))));
        rows.collect()
    };
    let (old, new) = (rows(old), rows(new));
    for (id, row) in &old {
        if new.get(id) != Some(row) {
            remove::<AttachmentRow>(tx, &[Value::text(row.id)]).await?;
        }
    }
    for (id, row) in &new {
        if old.get(id) != Some(row) {
            add(tx, row).await?;
        }
    }
    Ok(())
}

/// A volume goes only if nothing hangs on it.
async fn is_free(tx: &mut dyn Transaction, id: VolumeId) -> Result<(), Fail> {
    let of_it = Condition::Is("volume_id", Value::text(id));
    let snapshots: Vec<Snapshot> = list(tx, &Select::new(of_it)).await?;
    if snapshots.is_empty() {
        return Ok(());
    }
    Err(VolumeProblem::HasSnapshots { volume: id, count: snapshots.len() }.into())
}

async fn write_snapshot(
    tx: &mut dyn Transaction,
    write: &Write<Snapshot>,
    bill: &mut accounts::Bill,
) -> Result<(), Fail> {
    let row = write.row();
    let key = [Value::text(row.id)];
    match write {
        Write::Create(_) => {
            is_new::<Snapshot>(tx, &key).await?;
            add(tx, &Snapshot { generation: 1, ..row.clone() }).await?;
            bill.snapshot(None, Some(row));
        }
        Write::Update(_) => {
            let old: Snapshot = as_read(tx, &key, row.generation).await?;
            if !replace(tx, &Snapshot { generation: row.generation + 1, ..row.clone() }, row.generation).await? {
                return Err(conflict::<Snapshot>(&key));
            }
            bill.snapshot(Some(&old), Some(row));
        }
        Write::Delete(_) => {
            let old: Snapshot = as_read(tx, &key, row.generation).await?;
            remove_existing::<Snapshot>(tx, &key).await?;
            bill.snapshot(Some(&old), None);
        }
    }
    Ok(())
}

async fn write_task(tx: &mut dyn Transaction, write: &Write<VolumeTask>) -> Result<(), Fail> {
    let row = write.row();
    let key = [Value::text(row.id)];
    match write {
        Write::Create(_) => {
            is_new::<VolumeTask>(tx, &key).await?;
            add(tx, &VolumeTask { generation: 1, ..row.clone() }).await
        }
        Write::Update(_) => {
            let next = VolumeTask { generation: row.generation + 1, ..row.clone() };
            if replace(tx, &next, row.generation).await? { Ok(()) } else { Err(conflict::<VolumeTask>(&key)) }
        }
        Write::Delete(_) => remove::<VolumeTask>(tx, &key).await.map(drop),
    }
}

async fn write_transfer(tx: &mut dyn Transaction, write: &Write<Transfer>) -> Result<(), Fail> {
    let row = write.row();
    let key = [Value::text(row.id)];
    match write {
        Write::Create(_) => {
            is_new::<Transfer>(tx, &key).await?;
            add(tx, &Transfer { generation: 1, ..row.clone() }).await
        }
        Write::Update(_) => {
            let next = Transfer { generation: row.generation + 1, ..row.clone() };
            if replace(tx, &next, row.generation).await? { Ok(()) } else { Err(conflict::<Transfer>(&key)) }
        }
        Write::Delete(_) => remove_existing::<Transfer>(tx, &key).await,
    }
}
