//! Kinds of volumes.

use nova_core::ids::VolumeTypeId;
use nova_core::volume::{Snapshot, Volume, VolumeProblem, VolumeType};

use super::super::{add, conflict, duplicate, list, need, remove_existing, replace};
use crate::Kind;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};

async fn name_is_free(tx: &mut dyn Transaction, of: &VolumeType) -> Result<(), Fail> {
    let same: Vec<VolumeType> = list(tx, &Select::new(Condition::Is("name", of.name.as_str().into()))).await?;
    if same.iter().all(|other| other.id == of.id) {
        return Ok(());
    }
    Err(duplicate(Kind::VolumeType, "name", &of.name))
}

pub(super) async fn create(tx: &mut dyn Transaction, new: &VolumeType) -> Result<VolumeType, Fail> {
    name_is_free(tx, new).await?;
    let new = VolumeType { generation: 1, ..new.clone() };
    add(tx, &new).await?;
    Ok(new)
}

pub(super) async fn update(tx: &mut dyn Transaction, changed: &VolumeType) -> Result<VolumeType, Fail> {
    let key = [Value::text(changed.id)];
    let old = need::<VolumeType>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != changed.generation {
        return Err(conflict::<VolumeType>(&key));
    }
    name_is_free(tx, changed).await?;
    let next = VolumeType { generation: old.generation + 1, ..changed.clone() };
    if replace(tx, &next, old.generation).await? { Ok(next) } else { Err(conflict::<VolumeType>(&key)) }
}

pub(super) async fn delete(tx: &mut dyn Transaction, id: VolumeTypeId) -> Result<(), Fail> {
    let key = [Value::text(id)];
    need::<VolumeType>(tx, &key, Lock::ForUpdate).await?;
    let of_it = || Select::new(Condition::Is("volume_type_id", Value::text(id))).limit(1);
    let is_used = !tx.select(Volume::TABLE, &of_it(), Lock::None).await?.is_empty()
        || !tx.select(Snapshot::TABLE, &of_it(), Lock::None).await?.is_empty();
    if is_used {
        let message = format!("Volume Type {id} deletion is not allowed with volumes present with the type.");
        return Err(VolumeProblem::input(message).into());
    }
    remove_existing::<VolumeType>(tx, &key).await
}
