//! What is asked of the scheduler, and its answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::flavor::Resources;
use crate::ids::{HostName, ImageId, InstanceId, ProjectId, ZoneName};
use crate::server_group::GroupPlacement;
use crate::topology::GuestTopology;

/// What hosts are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To take new instances.
    #[default]
    Create,
    /// To take an instance that is elsewhere: a migration, an evacuation. Never a host that has it already.
    Move,
    /// Whether the host that has the instance can run another image. Nothing is booked anew.
    Rebuild,
}

/// What the scheduler reads of a request (nova/objects/request_spec.py).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestSpec {
    /// The instances to place, all or none; the one concerned, for another purpose than `create`.
    pub instances: Vec<InstanceId>,
    /// What for.
    #[serde(default)]
    pub purpose: Purpose,
    /// Whose they are.
    pub project_id: String,
    /// What each of them takes.
    pub resources: Resources,
    /// Only hosts of this zone.
    #[serde(default)]
    pub availability_zone: Option<ZoneName>,
    /// Exactly this host, past all preferences (`zone:host`).
    #[serde(default)]
    pub force_host: Option<HostName>,
    /// Exactly this hypervisor (`zone:host:node`).
    #[serde(default)]
    pub force_node: Option<String>,
    /// This host, if it passes like any other (2.74).
    #[serde(default)]
    pub requested_host: Option<HostName>,
    /// Never these.
    #[serde(default)]
    pub ignore_hosts: Vec<HostName>,
    /// For a move: the host that the instance is on is a host like any other (`allow_resize_to_same_host`).
    #[serde(default)]
    pub may_stay: bool,
    /// Guest architecture that the image asks for.
    #[serde(default)]
    pub architecture: Option<String>,
    /// How many alternates each selection should bring.
    #[serde(default)]
    pub alternates: usize,
    /// `os:scheduler_hints`, as given.
    #[serde(default)]
    pub hints: BTreeMap<String, serde_json::Value>,
    /// A choice from a view that was read after this request came: the last one was lost to another scheduler.
    #[serde(default)]
    pub fresh: bool,
    /// What the flavor asks for by name.
    #[serde(default)]
    pub flavor: FlavorWish,
    /// What the image is.
    #[serde(default)]
    pub image: Option<ImageWish>,
    /// The server group that the hints name, as it stands when the scheduler is asked.
    #[serde(default)]
    pub group: Option<GroupPlacement>,
    /// NUMA cells, dedicated CPUs and huge pages that each of them needs.
    #[serde(default)]
    pub topology: Option<GuestTopology>,
}

impl RequestSpec {
    /// Fills in whose it is.
    #[must_use]
    pub fn of_project(mut self, project: &ProjectId) -> Self {
        self.project_id = project.to_string();
        self
    }
}

/// What filters read of a flavor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlavorWish {
    /// Its name.
    pub name: String,
    /// Its extra specs.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

/// What filters read of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageWish {
    /// Which.
    pub id: ImageId,
    /// Its properties.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

impl ImageWish {
    /// What a volume remembers of its image; `None`: nothing. Of which image it was it may not say.
    pub fn of_volume(remembered: &BTreeMap<String, String>) -> Option<Self> {
        let id = remembered.get("image_id").and_then(|id| id.parse().ok());
        let id = id.unwrap_or(ImageId::from_uuid(uuid::Uuid::nil()));
        (!remembered.is_empty()).then(|| Self { id, properties: remembered.clone() })
    }
}

/// Where one instance goes (nova/objects/selection.py).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The instance.
    pub instance_id: InstanceId,
    /// The choice.
    pub chosen: Destination,
    /// What to try next, best first.
    #[serde(default)]
    pub alternates: Vec<Destination>,
}

/// A hypervisor on a host in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The host.
    pub host: HostName,
    /// The hypervisor on it.
    pub node: String,
    /// Its zone.
    pub zone: ZoneName,
}

/// No host takes the request: how many were turned away, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoValidHost {
    /// What tenants may read.
    pub summary: String,
    /// For administrators: hosts considered, counts by reason, what would have fitted.
    pub details: String,
    /// Hosts turned away, by reason.
    pub reasons: BTreeMap<String, u64>,
}
