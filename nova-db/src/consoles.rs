//! Leave to open consoles.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::console::ConsoleGrant;
use nova_core::ids::InstanceId;

use crate::StoreError;

/// Grants of consoles, by the hashes of their tokens. One that is over is not found, whether its row is still there or not.
#[async_trait]
pub trait ConsoleStore: Send + Sync {
    /// Writes a new one. A hash that is there already is [`StoreError::Duplicate`].
    async fn add_console_grant(&self, grant: ConsoleGrant) -> Result<(), StoreError>;

    /// The grant with that hash, as it stands at that time. It is not used up.
    async fn get_console_grant(&self, token_hash: &str, now: Timestamp) -> Result<ConsoleGrant, StoreError>;

    /// The same, and uses it up, in one transaction: of many who ask at once, one gets it.
    async fn take_console_grant(&self, token_hash: &str, now: Timestamp) -> Result<ConsoleGrant, StoreError>;

    /// Removes the grant with that hash. Fine if there is none.
    async fn drop_console_grant(&self, token_hash: &str) -> Result<(), StoreError>;

    /// Removes all grants of a server. Returns how many there were.
    async fn drop_console_grants_of(&self, instance: InstanceId) -> Result<u64, StoreError>;

    /// Removes what was over at that time. Returns how many there were.
    async fn drop_expired_console_grants(&self, now: Timestamp) -> Result<u64, StoreError>;
}
