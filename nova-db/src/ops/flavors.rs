//! Flavors.

use async_trait::async_trait;
use nova_core::flavor::Flavor;
use nova_core::ids::FlavorId;

use super::{RowStore, add, conflict, duplicate, find, first, list, need, remove_existing, replace};
use crate::rows::{Backend, Condition, Fail, Lock, Select, Transaction, Value};
use crate::{FlavorStore, Kind, StoreError};

#[async_trait]
impl<B: Backend> FlavorStore for RowStore<B> {
    async fn create_flavor(&self, flavor: Flavor) -> Result<Flavor, StoreError> {
        self.write(flavor, |tx, flavor| Box::pin(create(tx, flavor))).await
    }

    async fn get_flavor(&self, id: &FlavorId) -> Result<Flavor, StoreError> {
        let key = [Value::text(id)];
        self.read(&key, |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) })).await
    }

    async fn list_flavors(&self) -> Result<Vec<Flavor>, StoreError> {
        self.read(&Select::all().by(&["id"]), |tx, order| Box::pin(list(tx, order))).await
    }

    async fn update_flavor(&self, flavor: Flavor) -> Result<Flavor, StoreError> {
        self.write(flavor, |tx, flavor| Box::pin(update(tx, flavor))).await
    }

    async fn delete_flavor(&self, id: &FlavorId) -> Result<(), StoreError> {
        self.write([Value::text(id)], |tx, key| Box::pin(remove_existing::<Flavor>(tx, key))).await
    }
}

async fn create(tx: &mut dyn Transaction, flavor: &Flavor) -> Result<Flavor, Fail> {
    if find::<Flavor>(tx, &[Value::text(&flavor.id)], Lock::None).await?.is_some() {
        return Err(duplicate(Kind::Flavor, "id", &flavor.id));
    }
    check_name(tx, flavor).await?;
    let new = Flavor { generation: 1, ..flavor.clone() };
    add(tx, &new).await?;
    Ok(new)
}

async fn check_name(tx: &mut dyn Transaction, flavor: &Flavor) -> Result<(), Fail> {
    let same = Select::new(Condition::Is("name", flavor.name.as_str().into()));
    let other = first::<Flavor>(tx, same, Lock::None).await?;
    if other.is_some_and(|other| other.record.id != flavor.id) {
        return Err(duplicate(Kind::Flavor, "name", &flavor.name));
    }
    Ok(())
}

async fn update(tx: &mut dyn Transaction, flavor: &Flavor) -> Result<Flavor, Fail> {
    let key = [Value::text(&flavor.id)];
    let old = need::<Flavor>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != flavor.generation {
        return Err(conflict::<Flavor>(&key));
    }
    check_name(tx, flavor).await?;
    let next = Flavor { generation: old.generation + 1, ..flavor.clone() };
    if replace(tx, &next, old.generation).await? { Ok(next) } else { Err(conflict::<Flavor>(&key)) }
}
