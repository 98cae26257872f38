//! What can go wrong, by what a caller can do about it.

use nova_core::aggregate::AggregateProblem;
use nova_core::contracts::BoxError;
use nova_core::network::NetworkProblem;
use nova_core::quota::QuotaExceeded;
use nova_core::volume::VolumeProblem;

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the thing that it names")]
pub enum Kind {
    Instance,
    Task,
    Action,
    Service,
    ComputeNode,
    Allocation,
    Flavor,
    Keypair,
    Domain,
    Project,
    User,
    Role,
    Grant,
    Image,
    Secret,
    Aggregate,
    ServerGroup,
    Network,
    Subnet,
    Address,
    Port,
    FloatingIp,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    NetworkUsage,
    Segment,
    NetworkAgent,
    Migration,
    Quota,
    ConsoleGrant,
    Volume,
    VolumeSnapshot,
    VolumeAttachment,
    VolumeType,
    VolumeTransfer,
    VolumeTask,
    VolumePool,
    VolumeUsage,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Instance => "instance",
            Self::Task => "task",
            Self::Action => "action",
            Self::Service => "service",
            Self::ComputeNode => "compute node",
            Self::Allocation => "allocation",
            Self::Flavor => "flavor",
            Self::Keypair => "key pair",
            Self::Domain => "domain",
            Self::Project => "project",
            Self::User => "user",
            Self::Role => "role",
            Self::Grant => "grant",
            Self::Image => "image",
            Self::Secret => "secret",
            Self::Aggregate => "aggregate",
            Self::ServerGroup => "server group",
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Address => "address",
            Self::Port => "port",
            Self::FloatingIp => "floating IP",
            Self::Router => "router",
            Self::SecurityGroup => "security group",
            Self::SecurityGroupRule => "security group rule",
            Self::NetworkUsage => "network usage",
            Self::Segment => "segment",
            Self::NetworkAgent => "network agent",
            Self::Migration => "migration",
            Self::Quota => "quota",
            Self::ConsoleGrant => "console grant",
            Self::Volume => "volume",
            Self::VolumeSnapshot => "snapshot",
            Self::VolumeAttachment => "attachment",
            Self::VolumeType => "volume type",
            Self::VolumeTransfer => "transfer",
            Self::VolumeTask => "volume task",
            Self::VolumePool => "volume pool",
            Self::VolumeUsage => "volume usage",
        })
    }
}

/// Why the store did not do it. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is none of that id.
    #[error("{kind} {id} could not be found")]
    NotFound {
        /// What.
        kind: Kind,
        /// Which.
        id: String,
    },
    /// It changed since it was read: read again and decide again.
    #[error("{kind} {id} was changed meanwhile")]
    Conflict {
        /// What.
        kind: Kind,
        /// Which.
        id: String,
    },
    /// There is one already with that id or name.
    #[error("{kind} with {field} '{value}' already exists")]
    Duplicate {
        /// What.
        kind: Kind,
        /// `id` or `name`.
        field: &'static str,
        /// The one that is taken.
        value: String,
    },
    /// The project may not have that much.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The host has not enough left: try the next.
    #[error("host {host} has not enough {resource} left")]
    NoRoom {
        /// The host.
        host: String,
        /// `vcpus`, `memory_mb`, `disk_gb`, or `node` where the host has no inventory.
        resource: &'static str,
    },
    /// The host has left the zone, or the server group does not allow it any more: try another.
    #[error("host {host} cannot be taken: {reason}")]
    Unsuitable {
        /// The host.
        host: String,
        /// What is in the way.
        reason: String,
    },
    /// The aggregate cannot be changed so.
    #[error(transparent)]
    Aggregate(#[from] AggregateProblem),
    /// The network cannot be so.
    #[error(transparent)]
    Network(#[from] NetworkProblem),
    /// The volume cannot be so.
    #[error(transparent)]
    Volume(#[from] VolumeProblem),
    /// The database does not answer, or gave up on a lock: trying again may help.
    #[error("the {backend} store is unavailable")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// The database lacks migrations: bring it up to date.
    #[error("the database schema is at version {found}, this program needs {needed}: run 'nova-manage db sync'")]
    SchemaStale {
        /// What the database has.
        found: u32,
        /// What the program needs.
        needed: u32,
    },
    /// The database is from a later program.
    #[error("the database schema is at version {found}, newer than the {needed} that this program knows")]
    SchemaNewer {
        /// What the database has.
        found: u32,
        /// What the program needs.
        needed: u32,
    },
    /// A row cannot be read: it was damaged, or written by something else.
    #[error("{kind} {id} cannot be read from the store")]
    Corrupt {
        /// What.
        kind: Kind,
        /// Which.
        id: String,
        /// What is wrong with it.
        #[source]
        source: BoxError,
    },
    /// The connection text cannot be used.
    #[error("database.connection '{url}': {problem}")]
    Connection {
        /// The URL, without its password.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

impl StoreError {
    /// Would the same call, later, have a chance?
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Duplicate { .. }
            | Self::Quota(_)
            | Self::NoRoom { .. }
            | Self::Unsuitable { .. }
            | Self::Aggregate(_)
            | Self::Network(_)
            | Self::Volume(_)
            | Self::SchemaStale { .. }
            | Self::SchemaNewer { .. }
            | Self::Corrupt { .. }
            | Self::Connection { .. } => false,
        }
    }
}
