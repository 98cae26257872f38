//! Bytes that all services of a deployment share.

use async_trait::async_trait;

use crate::StoreError;

/// Keys that no operator has to hand out: whoever needs one first makes it, all others get the same.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// The secret of that name, set to `value` if there was none: one of many callers wins, all get the same.
    async fn secret(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError>;
}
