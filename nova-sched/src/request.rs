//! What is asked of a scheduler, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dimensions::ResourceVector;
use crate::topology::{GuestCell, PciRequest};

/// A request to place some equal instances. All fit, or none is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// How many instances.
    pub num_instances: u32,
    /// What each of them needs.
    pub resources: ResourceVector,
    /// The availability zone to stay in.
    pub zone: Option<String>,
    /// The host on which an operator puts the instances, whatever its zone, state of enablement or properties. It must
    /// be there, up, and have room.
    pub force_host: Option<String>,
    /// The hypervisor on which an operator puts the instances, as `force_host`.
    pub force_node: Option<String>,
    /// The only host wanted; unlike a forced one it is checked like any other.
    pub requested_host: Option<String>,
    /// Hosts not to choose: those that have just failed, or that the instance must leave.
    pub ignore_hosts: Vec<String>,
    /// How many more hosts to name for each instance, in case that the first turns out to be full: Nova's
    /// `max_attempts - 1`. Fewer are named when there are no more.
    pub num_alternates: u32,
    /// The architecture that the host must be able to run.
    pub architecture: Option<String>,
    /// Traits that the host must have.
    pub required_traits: Vec<String>,
    /// Traits that the host must not have.
    pub forbidden_traits: Vec<String>,
    /// Zones to be near to, without having to be in one of them: that of a volume, those of a group's members.
    pub near_zones: Vec<String>,
    /// What the host is asked for.
    pub purpose: Purpose,
    /// The instance itself, when it exists already.
    pub instance: Option<u128>,
    /// The project that owns it.
    pub project_id: Option<String>,
    /// The name of its flavor.
    pub flavor: Option<String>,
    /// What its flavor asks for by name.
    pub extra_specs: BTreeMap<String, String>,
    /// Its image.
    pub image: Option<ImageRef>,
    /// What its owner wishes.
    pub hints: Hints,
    /// The server group that it is in.
    pub group: Option<ServerGroup>,
    /// Its NUMA cells, when it has a say in them.
    pub numa: Vec<GuestCell>,
    /// Devices that it needs.
    pub pci: Vec<PciRequest>,
    /// The cell that it comes from, when it moves between cells.
    pub source_cell: Option<String>,
}

/// What a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// To take instances that it doesn't have yet: a new server, a move, an evacuation.
    #[default]
    Place,
    /// Whether the host that has the instance may give it another image. Resources are booked already and are not
    /// looked at, and only the architecture and filters that concern images are asked for, as in Nova.
    Rebuild,
}

/// The image of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageRef {
    /// Its id.
    pub id: String,
    /// Its properties (`hw_architecture`, `hypervisor_type`, `os_distro`, ...).
    pub properties: BTreeMap<String, String>,
}

/// Wishes of an instance's owner: Nova's scheduler hints.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hints {
    /// Instances to be with: on the host of one of them.
    pub same_host: Vec<u128>,
    /// Instances to keep away from.
    pub different_host: Vec<u128>,
    /// An address that the host's should be near to.
    pub build_near_host_ip: Option<String>,
    /// How near: `/24` unless said otherwise.
    pub cidr: Option<String>,
    /// A condition on hosts, in JSON (`["and", [">=", "$free_ram_mb", 1024], ...]`).
    pub query: Option<String>,
    /// Others, by name; for filters of one's own.
    pub others: BTreeMap<String, String>,
}

/// How members of a server group are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPolicy {
    /// All on one host.
    Affinity,
    /// No more than so many on one host.
    AntiAffinity,
    /// On as few hosts as can be.
    SoftAffinity,
    /// On as many hosts as can be.
    SoftAntiAffinity,
}

impl GroupPolicy {
    /// The policy of that name in Nova (`soft-anti-affinity`).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "affinity" => Self::Affinity,
            "anti-affinity" => Self::AntiAffinity,
            "soft-affinity" => Self::SoftAffinity,
            "soft-anti-affinity" => Self::SoftAntiAffinity,
            _ => return None,
        })
    }

    /// Its name in Nova.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::AntiAffinity => "anti-affinity",
            Self::SoftAffinity => "soft-affinity",
            Self::SoftAntiAffinity => "soft-anti-affinity",
        }
    }

    /// A wish and no rule.
    #[must_use]
    pub fn is_soft(self) -> bool {
        matches!(self, Self::SoftAffinity | Self::SoftAntiAffinity)
    }
}

/// A server group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerGroup {
    /// How members are placed.
    pub policy: GroupPolicy,
    /// With [`GroupPolicy::AntiAffinity`]: so many members may share a host.
    pub max_server_per_host: u32,
    /// The instances in it; where they are, the table knows from what they hold.
    pub members: Vec<u128>,
    /// Hosts of members that are not among [`ServerGroup::members`], one for each: those of whom the caller knows more
    /// than the table.
    pub places: Vec<String>,
}

impl ServerGroup {
    /// A group with these members, one per host at most if the policy says so.
    #[must_use]
    pub fn new(policy: GroupPolicy, members: Vec<u128>) -> Self {
        Self { policy, max_server_per_host: 1, members, places: Vec::new() }
    }
}

impl Request {
    /// One instance that needs these resources, anywhere, without alternates.
    #[must_use]
    pub fn new(resources: ResourceVector) -> Self {
        Self {
            num_instances: 1,
            resources,
            zone: None,
            force_host: None,
            force_node: None,
            requested_host: None,
            ignore_hosts: Vec::new(),
            num_alternates: 0,
            architecture: None,
            required_traits: Vec::new(),
            forbidden_traits: Vec::new(),
            near_zones: Vec::new(),
            purpose: Purpose::default(),
            instance: None,
            project_id: None,
            flavor: None,
            extra_specs: BTreeMap::new(),
            image: None,
            hints: Hints::default(),
            group: None,
            numa: Vec::new(),
            pci: Vec::new(),
            source_cell: None,
        }
    }

    /// The same for that many instances.
    #[must_use]
    pub fn instances(mut self, num_instances: u32) -> Self {
        self.num_instances = num_instances;
        self
    }

    /// The same in that zone.
    #[must_use]
    pub fn in_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// The same with that many alternates per instance.
    #[must_use]
    pub fn alternates(mut self, num_alternates: u32) -> Self {
        self.num_alternates = num_alternates;
        self
    }

    /// The same for hosts that run that architecture.
    #[must_use]
    pub fn on_architecture(mut self, architecture: impl Into<String>) -> Self {
        self.architecture = Some(architecture.into());
        self
    }

    /// The host or node that is forced, for messages.
    pub(crate) fn forced(&self) -> Option<&str> {
        self.force_host.as_deref().or(self.force_node.as_deref())
    }
}

/// What the API's `availability_zone` may say: `zone`, `zone:host`, `zone:host:node` or `zone::node`
/// (`nova/compute/api.py`, `parse_availability_zone`). Only operators may name more than a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZoneTarget {
    /// The zone, if one is named.
    pub zone: Option<String>,
    /// The host to force.
    pub host: Option<String>,
    /// The hypervisor to force.
    pub node: Option<String>,
}

impl ZoneTarget {
    /// Takes the parts apart; `None` when there are more than three.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(str::to_owned);
        let mut parts = text.split(':');
        let target = Self { zone: named(parts.next()), host: named(parts.next()), node: named(parts.next()) };
        parts.next().is_none().then_some(target)
    }

    /// Whether a host or node is forced.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.host.is_some() || self.node.is_some()
    }
}

/// A place for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The host's name.
    pub host: Arc<str>,
    /// The hypervisor on it.
    pub node: Arc<str>,
    /// The zone that it is in.
    pub zone: Arc<str>,
}

/// The answer for one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The host's name.
    pub host: Arc<str>,
    /// The hypervisor on it.
    pub node: Arc<str>,
    /// The zone that it is in.
    pub zone: Arc<str>,
    /// Where to go when the host turns out to be full or broken, best first; never a host chosen for this request.
    pub alternates: Vec<Destination>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_may_name_host_and_node() {
        let target = |zone: &str, host: &str, node: &str| {
            let named = |part: &str| (!part.is_empty()).then(|| part.to_owned());
            Some(ZoneTarget { zone: named(zone), host: named(host), node: named(node) })
        };
        assert_eq!(ZoneTarget::parse("nova"), target("nova", "", ""));
        assert_eq!(ZoneTarget::parse("nova:h1"), target("nova", "h1", ""));
        assert_eq!(ZoneTarget::parse("nova:h1:n1"), target("nova", "h1", "n1"));
        assert_eq!(ZoneTarget::parse("nova::n1"), target("nova", "", "n1"));
        assert_eq!(ZoneTarget::parse(":h1"), target("", "h1", ""));
        assert_eq!(ZoneTarget::parse("a:b:c:d"), None);
    }
}
