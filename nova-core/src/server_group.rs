//! Server groups: which servers shall share a host, and which shall not (nova/objects/instance_group.py).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{HostName, InstanceId, ProjectId, ServerGroupId, UserId};

/// What a group asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupPolicy {
    /// All on one host, or none.
    Affinity,
    /// At most so many on each host.
    AntiAffinity,
    /// On as few hosts as can be (2.15).
    SoftAffinity,
    /// On as many hosts as can be (2.15).
    SoftAntiAffinity,
}

impl GroupPolicy {
    /// All of them, in the order in which Nova's schemas name them.
    pub const ALL: [Self; 4] = [Self::AntiAffinity, Self::Affinity, Self::SoftAntiAffinity, Self::SoftAffinity];

    /// As clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Affinity => "affinity",
            Self::AntiAffinity => "anti-affinity",
            Self::SoftAffinity => "soft-affinity",
            Self::SoftAntiAffinity => "soft-anti-affinity",
        }
    }

    /// The policy of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text)
    }

    /// A wish and no rule.
    pub const fn is_soft(self) -> bool {
        matches!(self, Self::SoftAffinity | Self::SoftAntiAffinity)
    }
}

impl std::fmt::Display for GroupPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A group of servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerGroup {
    /// The id.
    pub id: ServerGroupId,
    /// Lists are in its order; the store gives it.
    #[serde(default)]
    pub number: i64,
    /// Free text, not unique.
    pub name: String,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// What it asks for.
    pub policy: GroupPolicy,
    /// Of anti-affinity: how many members a host may have, if not one (2.64).
    #[serde(default)]
    pub max_server_per_host: Option<u32>,
    /// Its servers that are not deleted, oldest first.
    #[serde(default)]
    pub members: Vec<InstanceId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A group as the scheduler reads it: the rule, and where its members are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlacement {
    /// The group.
    pub id: ServerGroupId,
    /// What it asks for.
    pub policy: GroupPolicy,
    /// Of anti-affinity: how many members a host may have.
    pub max_server_per_host: u32,
    /// Members that have a place, with the host. One that moves has two.
    #[serde(default)]
    pub members: BTreeSet<(InstanceId, HostName)>,
}

impl GroupPlacement {
    /// The group with its members at these places.
    pub fn new(group: &ServerGroup, members: BTreeSet<(InstanceId, HostName)>) -> Self {
        let max_server_per_host = group.max_server_per_host.unwrap_or(1).max(1);
        Self { id: group.id, policy: group.policy, max_server_per_host, members }
    }

    /// The same without this instance: where it is itself does not bind it.
    #[must_use]
    pub fn without(mut self, instance: InstanceId) -> Self {
        self.members.retain(|(member, _)| *member != instance);
        self
    }

    /// How many members each host has.
    pub fn counts(&self) -> BTreeMap<&HostName, u32> {
        let mut counts = BTreeMap::new();
        for (_, host) in &self.members {
            *counts.entry(host).or_insert(0) += 1;
        }
        counts
    }

    /// May one more member be on that host? (nova/scheduler/filters/affinity_filter.py, and the late check of
    /// nova/compute/manager.py, `_validate_instance_group_policy`.) Wishes are never in the way.
    pub fn admits(&self, host: &HostName) -> bool {
        let there = self.members.iter().filter(|(_, at)| at == host).count();
        match self.policy {
            GroupPolicy::AntiAffinity => there < self.max_server_per_host as usize,
            GroupPolicy::Affinity => self.members.is_empty() || there > 0,
            GroupPolicy::SoftAffinity | GroupPolicy::SoftAntiAffinity => true,
        }
    }
}

/// The group that scheduler hints name; of a list, the first.
pub fn group_of_hints(hints: &BTreeMap<String, Value>) -> Option<ServerGroupId> {
    let text = match hints.get("group")? {
        Value::Array(list) => list.first()?.as_str()?,
        hint => hint.as_str()?,
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> InstanceId {
        InstanceId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn placement(policy: GroupPolicy, max_server_per_host: u32, hosts: &[&str]) -> GroupPlacement {
        let members = hosts.iter().zip(1..).map(|(host, n)| (id(n), HostName::from(*host))).collect();
        let group = ServerGroupId::from_uuid(uuid::Uuid::from_u128(9));
        GroupPlacement { id: group, policy, max_server_per_host, members }
    }

    #[test]
    fn each_policy_admits_what_it_says() {
        let (h1, h2) = (HostName::from("h1"), HostName::from("h2"));
        let anti = placement(GroupPolicy::AntiAffinity, 1, &["h1"]);
        assert!(!anti.admits(&h1) && anti.admits(&h2));
        let two = placement(GroupPolicy::AntiAffinity, 2, &["h1", "h2", "h2"]);
        assert!(two.admits(&h1) && !two.admits(&h2));
        let together = placement(GroupPolicy::Affinity, 1, &["h1"]);
        assert!(together.admits(&h1) && !together.admits(&h2));
        assert!(placement(GroupPolicy::Affinity, 1, &[]).admits(&h2));
        for soft in [GroupPolicy::SoftAffinity, GroupPolicy::SoftAntiAffinity] {
            assert!(placement(soft, 1, &["h1"]).admits(&h1) && placement(soft, 1, &["h1"]).admits(&h2));
        }
        assert!(anti.without(id(1)).admits(&h1), "an instance is not in its own way");
    }

    #[test]
    fn policies_are_written_as_clients_write_them() {
        for policy in GroupPolicy::ALL {
            assert_eq!(GroupPolicy::parse(policy.as_str()), Some(policy));
            assert_eq!(serde_json::to_value(policy).unwrap(), policy.as_str());
        }
        assert_eq!(GroupPolicy::parse("legacy"), None);
    }

    #[test]
    fn a_hint_names_a_group_alone_or_in_a_list() {
        let text = "70a599e0-31e7-49b7-b260-868f441e862b";
        let hint = |value: Value| group_of_hints(&[("group".to_owned(), value)].into());
        let named = Some(text.parse().unwrap());
        assert_eq!(hint(Value::from(text)), named);
        assert_eq!(hint(Value::from(vec![text])), named);
        assert_eq!(hint(Value::from(Vec::<String>::new())), None);
        assert_eq!(hint(Value::from("web")), None);
        assert_eq!(group_of_hints(&BTreeMap::new()), None);
    }
}
