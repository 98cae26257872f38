//! The store of every fact worth keeping: instances, tasks, hosts, flavors, keys, identity, images, networks,
//! volumes.
//!
//! Small traits by subject; services take what they use, and [`Store`] is all of them. Methods are whole operations with
//! a stated atomicity, never "run this SQL". Every row that can be contended has a generation; of two writers that
//! read the same one, the second gets [`StoreError::Conflict`] and has changed nothing.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), nova_db::StoreError> {
//! use nova_db::{OpenOptions, open};
//!
//! let store = open("memory:", &OpenOptions::default()).await?;
//! store.migrate().await?;
//! assert!(store.list_flavors().await?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! What it is not: a cache (reads see every earlier commit) or a place for secrets of hosts (they never reach it).
//!
//! | backend | how | feature |
//! |---|---|---|
//! | [`MemoryStore`] | `memory:` | – |
//! | [`SqliteStore`] | `sqlite:/path/nova.db` | `sqlite` |
//! | `PostgresStore` | `postgresql://user:password@host/name` | `postgres` |
//! | `MysqlStore` | `mysql://user:password@host/name`, MariaDB or MySQL | `mysql` |

mod compute;
mod consoles;
mod error;
mod groups;
mod hosts;
mod identity;
mod images;
mod memory;
mod migrations;
mod network;
mod network_hosts;
mod open;
mod ops;
mod quotas;
mod records;
mod rows;
mod secrets;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;
mod volumes;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use compute::{
    Booking, Committed, ComputeStore, Deleted, Direction, InstanceQuery, JoinGroup, NewInstance, NewInstances, SortKey,
    StateFilter, TaskCommit, TaskStart,
};
pub use consoles::ConsoleStore;
pub use error::{Kind, StoreError};
pub use groups::{AggregateChange, AggregateStore, GroupLimits, Page, ServerGroupStore};
pub use hosts::{FlavorStore, HostStore, KeypairStore, ServiceBeat, ServiceQuery};
pub use identity::IdentityStore;
pub use images::ImageStore;
pub use memory::{MemoryBackend, Outage};
pub use migrations::{MigrationQuery, MigrationStore};
pub use network::{
    FixedIpRequest, FloatingIpField, FloatingTarget, GatewayChange, InterfaceRef, ListQuery, NetworkAccount,
    NetworkField, NetworkStore, NewFloatingIp, NewInterface, NewPort, PortChange, PortField, PortQuery, RouterField,
    RuleField, SecurityGroupField, SubnetField,
};
pub use network_hosts::{GroupBooks, HostBooks, HostScope, NetworkHostStore};
pub use nova_core::network::SegmentRange;
pub use open::{OpenOptions, open};
pub use ops::RowStore;
pub use quotas::QuotaStore;
pub use secrets::SecretStore;
#[cfg(feature = "mysql")]
pub use sql::MysqlBackend;
#[cfg(feature = "postgres")]
pub use sql::PostgresBackend;
#[cfg(feature = "sqlite")]
pub use sql::SqliteBackend;
pub use volumes::{
    AttachmentField, SnapshotField, TransferField, VolumeAccount, VolumeCommit, VolumeField, VolumeStore,
    VolumeTaskField, Write,
};

use async_trait::async_trait;

/// Everything in memory; nothing outlives the process. Deterministic: no clock, no randomness.
pub type MemoryStore = RowStore<MemoryBackend>;

/// Everything in one SQLite file.
#[cfg(feature = "sqlite")]
pub type SqliteStore = RowStore<SqliteBackend>;

/// Everything in a PostgreSQL database.
#[cfg(feature = "postgres")]
pub type PostgresStore = RowStore<PostgresBackend>;

/// Everything in a MariaDB or MySQL database.
#[cfg(feature = "mysql")]
pub type MysqlStore = RowStore<MysqlBackend>;

/// What the whole store must be able to do besides keeping things.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// `memory`, `sqlite`, `postgresql`, `mysql`.
    fn backend(&self) -> &'static str;

    /// Does it answer? Cheap; behind `/healthz`.
    async fn ping(&self) -> Result<(), StoreError>;

    /// The schema that the database has, and the one that this program needs. Unequal: refuse to serve.
    async fn schema_version(&self) -> Result<(u32, u32), StoreError>;

    /// Brings the schema up to date; safe to repeat, and beside another program that does the same.
    ///
    /// # Errors
    /// [`StoreError::SchemaNewer`] when the database was made by a later program.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// How many transactions that wrote were committed by this process. For counting what a request costs.
    fn commits(&self) -> u64;

    /// Removes for good what was deleted before the given time, at most `limit` instances with all that hangs on them.
    /// Returns how many.
    async fn archive_deleted(&self, before: jiff::Timestamp, limit: usize) -> Result<usize, StoreError>;
}

/// Everything.
pub trait Store:
    ComputeStore
    + HostStore
    + AggregateStore
    + ServerGroupStore
    + FlavorStore
    + KeypairStore
    + IdentityStore
    + ImageStore
    + NetworkStore
    + MigrationStore
    + QuotaStore
    + ConsoleStore
    + VolumeStore
    + Maintenance
{
}

impl<T> Store for T where
    T: ComputeStore
        + HostStore
        + AggregateStore
        + ServerGroupStore
        + FlavorStore
        + KeypairStore
        + IdentityStore
        + ImageStore
        + NetworkStore
        + MigrationStore
        + QuotaStore
        + ConsoleStore
        + VolumeStore
        + Maintenance
{
}
