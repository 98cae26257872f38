//! Key pairs.

use async_trait::async_trait;
use nova_core::ids::UserId;
use nova_core::keypair::Keypair;
use nova_core::quota::{Over, QuotaExceeded};

use super::{RowStore, add, duplicate, find, list, need, remove_existing};
use crate::rows::{Backend, Condition, Fail, Lock, Select, Sequence, Transaction, Value};
use crate::{KeypairStore, Kind, StoreError};

#[async_trait]
impl<B: Backend> KeypairStore for RowStore<B> {
    async fn create_keypair(&self, keypair: Keypair, limit: Option<u64>) -> Result<Keypair, StoreError> {
        self.write((keypair, limit), |tx, input| Box::pin(create(tx, &input.0, input.1))).await
    }

    async fn get_keypair(&self, user: &UserId, name: &str) -> Result<Keypair, StoreError> {
        self.read(&key(user, name), |tx, key| Box::pin(async move { Ok(need(tx, key, Lock::None).await?.record) }))
            .await
    }

    async fn list_keypairs(&self, user: &UserId) -> Result<Vec<Keypair>, StoreError> {
        self.read(user, |tx, user| Box::pin(of_user(tx, user))).await
    }

    async fn delete_keypair(&self, user: &UserId, name: &str) -> Result<(), StoreError> {
        self.write(key(user, name), |tx, key| Box::pin(remove_existing::<Keypair>(tx, key))).await
    }
}

fn key(user: &UserId, name: &str) -> [Value; 2] {
    [Value::text(user), name.into()]
}

async fn of_user(tx: &mut dyn Transaction, user: &UserId) -> Result<Vec<Keypair>, Fail> {
    let which = Condition::Is("user_id", Value::text(user));
    list(tx, &Select::new(which).by(&["name"])).await
}

async fn create(tx: &mut dyn Transaction, keypair: &Keypair, limit: Option<u64>) -> Result<Keypair, Fail> {
    // First the number: two that create at once wait for each other here, so that the count below is true.
    let id = tx.advance(Sequence::Keypair, 1).await?;
    if find::<Keypair>(tx, &key(&keypair.user_id, &keypair.name), Lock::None).await?.is_some() {
        return Err(duplicate(Kind::Keypair, "name", &keypair.name));
    }
    if let Some(limit) = limit {
        let used = of_user(tx, &keypair.user_id).await?.len() as u64;
        if used >= limit {
            let over = Over { resource: "key_pairs".to_owned(), requested: 1, used, limit };
            return Err(StoreError::Quota(QuotaExceeded(vec![over])).into());
        }
    }
    let new = Keypair { id, ..keypair.clone() };
    add(tx, &new).await?;
    Ok(new)
}
