//! Leave to open consoles: written once, taken once.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::console::ConsoleGrant;
use nova_core::ids::InstanceId;

use super::{RowStore, add, duplicate, need, not_found, remove};
use crate::rows::{Backend, Condition, Fail, Lock, Record, Transaction, Value};
use crate::{ConsoleStore, Kind, StoreError};

#[async_trait]
impl<B: Backend> ConsoleStore for RowStore<B> {
    async fn add_console_grant(&self, grant: ConsoleGrant) -> Result<(), StoreError> {
        self.write(grant, |tx, grant| Box::pin(new(tx, grant))).await
    }

    async fn get_console_grant(&self, token_hash: &str, now: Timestamp) -> Result<ConsoleGrant, StoreError> {
        self.read(&(token_hash.to_owned(), now), |tx, input| Box::pin(get(tx, &input.0, input.1, Lock::None))).await
    }

    async fn take_console_grant(&self, token_hash: &str, now: Timestamp) -> Result<ConsoleGrant, StoreError> {
        self.write((token_hash.to_owned(), now), |tx, input| Box::pin(take(tx, &input.0, input.1))).await
    }

    async fn drop_console_grant(&self, token_hash: &str) -> Result<(), StoreError> {
        self.write(token_hash.to_owned(), |tx, hash| {
            Box::pin(async move { remove::<ConsoleGrant>(tx, &key(hash)).await.map(drop) })
        })
        .await
    }

    async fn drop_console_grants_of(&self, instance: InstanceId) -> Result<u64, StoreError> {
        self.write(instance, |tx, instance| {
            Box::pin(async move {
                tx.delete(ConsoleGrant::TABLE, &Condition::Is("instance_id", Value::text(*instance))).await
            })
        })
        .await
    }

    async fn drop_expired_console_grants(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(now, |tx, now| {
            Box::pin(
                async move { tx.delete(ConsoleGrant::TABLE, &Condition::AtMost("expires_at", (*now).into())).await },
            )
        })
        .await
    }
}

fn key(token_hash: &str) -> [Value; 1] {
    [token_hash.into()]
}

async fn new(tx: &mut dyn Transaction, grant: &ConsoleGrant) -> Result<(), Fail> {
    let key = key(&grant.token_hash);
    match tx.get(ConsoleGrant::TABLE, &key, Lock::ForUpdate).await? {
        // The hash itself is not for errors and logs.
        Some(_) => Err(duplicate(Kind::ConsoleGrant, "id", grant.id)),
        None => add(tx, grant).await,
    }
}

/// One that is over is as good as none. What is told of it must not name the hash.
async fn get(tx: &mut dyn Transaction, hash: &str, now: Timestamp, lock: Lock) -> Result<ConsoleGrant, Fail> {
    let unnamed = || not_found::<ConsoleGrant>(&["***".into()]);
    match need::<ConsoleGrant>(tx, &key(hash), lock).await {
        Ok(found) if found.record.expires_at > now => Ok(found.record),
        Ok(_) | Err(Fail::Store(StoreError::NotFound { .. })) => Err(unnamed()),
        Err(other) => Err(other),
    }
}

async fn take(tx: &mut dyn Transaction, hash: &str, now: Timestamp) -> Result<ConsoleGrant, Fail> {
    let grant = get(tx, hash, now, Lock::ForUpdate).await?;
    if remove::<ConsoleGrant>(tx, &key(hash)).await? {
        return Ok(grant);
    }
    Err(not_found::<ConsoleGrant>(&["***".into()]))
}
