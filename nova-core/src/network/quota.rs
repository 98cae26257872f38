//! Limits per project (neutron/conf/quota.py and its kin).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is the thing that it names")]
pub enum NetworkResource {
    Network,
    Subnet,
    Port,
    Router,
    #[serde(rename = "floatingip")]
    FloatingIp,
    SecurityGroup,
    SecurityGroupRule,
}

impl NetworkResource {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::Subnet,
        Self::Port,
        Self::Router,
        Self::FloatingIp,
        Self::SecurityGroup,
        Self::SecurityGroupRule,
    ];

    /// As clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Port => "port",
            Self::Router => "router",
            Self::FloatingIp => "floatingip",
            Self::SecurityGroup => "security_group",
            Self::SecurityGroupRule => "security_group_rule",
        }
    }

    /// The resource of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == text)
    }

    /// Neutron's default.
    pub const fn default_limit(self) -> u64 {
        match self {
            Self::Network | Self::Subnet | Self::SecurityGroupRule => 100,
            Self::Port => 500,
            Self::Router | Self::SecurityGroup => 10,
            Self::FloatingIp => 50,
        }
    }
}

/// Limits of projects that have none of their own; `None` is without limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLimits(pub BTreeMap<NetworkResource, Option<u64>>);

impl Default for NetworkLimits {
    fn default() -> Self {
        Self(NetworkResource::ALL.into_iter().map(|resource| (resource, Some(resource.default_limit()))).collect())
    }
}

impl NetworkLimits {
    /// The limit of a resource.
    pub fn of(&self, resource: NetworkResource) -> Option<u64> {
        self.0.get(&resource).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_neutrons() {
        for resource in NetworkResource::ALL {
            assert_eq!(NetworkResource::parse(resource.as_str()), Some(resource));
            assert_eq!(serde_json::to_value(resource).unwrap(), resource.as_str());
        }
        assert_eq!(NetworkLimits::default().of(NetworkResource::Port), Some(500));
        assert_eq!(NetworkResource::parse("volume"), None);
    }
}
