//! Secrets that services share, and tokens taken back.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{RowStore, add, find, list, put};
use crate::records::{RevokedToken, Secret};
use crate::rows::{Backend, Condition, Fail, Lock, Record, Select, Sequence, Transaction, Value};
use crate::{SecretStore, StoreError};

#[async_trait]
impl<B: Backend> SecretStore for RowStore<B> {
    async fn secret(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let name = name.to_owned();
        if let Some(known) = self.read(&name, |tx, name| Box::pin(find_secret(tx, name))).await? {
            return Ok(known);
        }
        self.write((name, value.to_vec()), |tx, input| Box::pin(set_secret(tx, &input.0, &input.1))).await
    }
}

/// The secret, if there is one.
async fn find_secret(tx: &mut dyn Transaction, name: &str) -> Result<Option<Vec<u8>>, Fail> {
    Ok(find::<Secret>(tx, &[name.into()], Lock::None).await?.map(|found| found.record.value))
}

/// The secret, set to that value if there is none.
async fn set_secret(tx: &mut dyn Transaction, name: &str, value: &[u8]) -> Result<Vec<u8>, Fail> {
    if let Some(earlier) = find_secret(tx, name).await? {
        return Ok(earlier);
    }
    add(tx, &Secret { name: name.to_owned(), value: value.to_vec() }).await?;
    Ok(value.to_vec())
}

pub(super) async fn revoke(tx: &mut dyn Transaction, audit_id: &str, expires: Timestamp) -> Result<(), Fail> {
    let known = find::<RevokedToken>(tx, &[audit_id.into()], Lock::ForUpdate).await?;
    if known.is_some_and(|known| known.record.expires >= expires) {
        return Ok(());
    }
    put(tx, &RevokedToken { audit_id: audit_id.to_owned(), expires }).await?;
    tx.advance(Sequence::Identity, 1).await?;
    Ok(())
}

pub(super) async fn list_revoked(tx: &mut dyn Transaction) -> Result<Vec<(String, Timestamp)>, Fail> {
    let tokens: Vec<RevokedToken> = list(tx, &Select::all().by(&["expires", "audit_id"])).await?;
    Ok(tokens.into_iter().map(|token| (token.audit_id, token.expires)).collect())
}

pub(super) async fn forget_expired(tx: &mut dyn Transaction, now: Timestamp) -> Result<(), Fail> {
    tx.delete(RevokedToken::TABLE, &Condition::AtMost("expires", Value::from(now))).await?;
    Ok(())
}
