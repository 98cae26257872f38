//! Host aggregates and server groups.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::aggregate::Aggregate;
use nova_core::ids::{HostName, ProjectId, ServerGroupId};
use nova_core::server_group::{GroupPlacement, ServerGroup};

use crate::StoreError;

/// A part of a list. By default, all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    /// So many are passed over.
    pub offset: usize,
    /// At most that many.
    pub limit: Option<usize>,
}

/// How many server groups there may be; `None`: without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// Of the project.
    pub project: Option<u64>,
    /// Of the user in the project.
    pub user: Option<u64>,
}

/// What is to become of an aggregate's name and metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateChange {
    /// Which aggregate.
    pub number: i64,
    /// Its new name.
    pub name: Option<String>,
    /// Metadata to set, and with `None` to remove; other keys stay.
    pub metadata: BTreeMap<String, Option<String>>,
    /// When.
    pub now: Timestamp,
}

/// Host aggregates. Changes happen one after the other, so that a host is in one zone at most, and no server changes
/// its zone: a booking and a change of its host's zone exclude each other.
#[async_trait]
pub trait AggregateStore: Send + Sync {
    /// A new aggregate without hosts; the store gives the number.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] for a name that another one has.
    async fn create_aggregate(&self, aggregate: Aggregate) -> Result<Aggregate, StoreError>;

    /// One aggregate with its hosts.
    async fn get_aggregate(&self, number: i64) -> Result<Aggregate, StoreError>;

    /// All aggregates with their hosts, by number.
    async fn list_aggregates(&self) -> Result<Vec<Aggregate>, StoreError>;

    /// Changes name and metadata, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`] for the name; [`StoreError::Aggregate`] for a zone that cannot be.
    async fn update_aggregate(&self, change: AggregateChange) -> Result<Aggregate, StoreError>;

    /// Removes an empty aggregate. Returns it as it was.
    ///
    /// # Errors
    /// [`StoreError::Aggregate`] while it has hosts.
    async fn delete_aggregate(&self, number: i64) -> Result<Aggregate, StoreError>;

    /// Takes a host in. Its compute service is there when it is taken in, so that one that is deleted at the same time
    /// leaves nothing behind.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a host without a compute service; [`StoreError::Aggregate`] for a host that is in it, is in another zone, or would take servers into another zone.
    async fn add_aggregate_host(&self, number: i64, host: &HostName) -> Result<Aggregate, StoreError>;

    /// Lets a host go.
    ///
    /// # Errors
    /// [`StoreError::Aggregate`] for a host that is not in it, or would take servers into another zone.
    async fn remove_aggregate_host(&self, number: i64, host: &HostName) -> Result<Aggregate, StoreError>;
}

/// Server groups. Members join in [`create_instances`](crate::ComputeStore::create_instances) and leave in the
/// transaction that deletes them.
#[async_trait]
pub trait ServerGroupStore: Send + Sync {
    /// A new group without members, if its project, and its user in the project, may have one more; the store gives the
    /// number.
    ///
    /// # Errors
    /// [`StoreError::Quota`] with resource `server_groups`.
    async fn create_server_group(&self, group: ServerGroup, limits: GroupLimits) -> Result<ServerGroup, StoreError>;

    /// One group with its members.
    async fn get_server_group(&self, id: ServerGroupId) -> Result<ServerGroup, StoreError>;

    /// A project's groups with their members, or everyone's, oldest first. What comes after the page is not read.
    async fn list_server_groups(&self, project: Option<&ProjectId>, page: Page)
    -> Result<Vec<ServerGroup>, StoreError>;

    /// How many groups a project has.
    async fn count_server_groups(&self, project: &ProjectId) -> Result<u64, StoreError>;

    /// Removes a group. Its members stay where they are, and are bound by nothing.
    async fn delete_server_group(&self, id: ServerGroupId) -> Result<(), StoreError>;

    /// The group's rule and where its members are booked; `None` for a group that is not there.
    async fn group_placement(&self, id: ServerGroupId) -> Result<Option<GroupPlacement>, StoreError>;
}
