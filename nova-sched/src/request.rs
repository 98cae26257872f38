//! What is asked of a scheduler, and what it answers.

use std::sync::Arc;

use crate::dimensions::ResourceVector;

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
