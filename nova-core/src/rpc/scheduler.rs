//! The scheduler's interface.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::flavor::Resources;
use crate::host::{ComputeNode, NodeVersion};
use crate::ids::{HostName, InstanceId};
use crate::request::{RequestSpec, Selection};
use crate::rpc_method;
use crate::topology::Placement;

rpc_method! {
    /// Picks a host for each instance of a request, or says why none fits.
    SelectDestinations = "scheduler"."select_destinations": Call from [Conductor], RequestSpec => Vec<Selection>
}

rpc_method! {
    /// What happened to hosts, so that host tables stay current. Nothing is lost when it is: tables are read anew. All
    /// news says how new it is, so that what comes late, or twice, undoes nothing.
    HostsChanged = "scheduler"."hosts_changed": Fanout from [Conductor, Api], HostsChangedRequest => ()
}

/// News about hosts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostsChangedRequest {
    /// Nodes that are new, changed their inventory, or reported again.
    #[serde(default)]
    pub nodes: Vec<NodeNews>,
    /// Hosts whose service an operator took out, put back or declared dead.
    #[serde(default)]
    pub services: Vec<ServiceNews>,
    /// Resources that were booked or given back.
    #[serde(default)]
    pub allocations: Vec<AllocationNews>,
    /// Aggregates that were made, changed or deleted, with their hosts and metadata.
    #[serde(default)]
    pub aggregates: Vec<AggregateNews>,
}

/// An aggregate, as the store has it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateNews {
    /// The aggregate; of a deleted one, as it was.
    pub aggregate: Aggregate,
    /// It is gone.
    #[serde(default)]
    pub deleted: bool,
    /// When that was written; of two news of an aggregate the later counts.
    #[serde(default)]
    pub at: Timestamp,
}

/// A node, as the store has it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeNews {
    /// The node.
    pub node: ComputeNode,
}

/// A host's service, as far as scheduling cares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNews {
    /// The host.
    pub host: HostName,
    /// Taken out by an operator.
    pub disabled: bool,
    /// Heard of lately and not declared dead.
    pub up: bool,
    /// The service's, which grows with what operators say of it.
    #[serde(default)]
    pub generation: u64,
}

/// An allocation that appeared (`Some`) or went (`None`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationNews {
    /// For whom.
    pub instance_id: InstanceId,
    /// Where.
    pub host: HostName,
    /// How much now.
    pub resources: Option<Resources>,
    /// The cells, CPUs and pages that were given out with it.
    #[serde(default)]
    pub placement: Option<Placement>,
    /// The host's node right after that was written. None: nothing was written, the instance has no use any more for the
    /// place that it was promised.
    #[serde(default)]
    pub version: Option<NodeVersion>,
}
