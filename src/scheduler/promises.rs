//! Places that were promised and that the store does not show yet.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nova_core::ids::{HostName, InstanceId, ServerGroupId};
use nova_core::server_group::GroupPlacement;

/// Which instance may go where, since when, and as a member of which group.
#[derive(Debug, Default)]
pub(super) struct Promises {
    all: BTreeMap<InstanceId, BTreeMap<HostName, (Timestamp, Option<ServerGroupId>)>>,
    by_group: BTreeMap<ServerGroupId, BTreeSet<(InstanceId, HostName)>>,
}

impl Promises {
    /// A new promise.
    pub(super) fn insert(
        &mut self,
        instance: InstanceId,
        host: &HostName,
        group: Option<ServerGroupId>,
        now: Timestamp,
    ) {
        self.remove(instance, host);
        self.all.entry(instance).or_default().insert(host.clone(), (now, group));
        if let Some(group) = group {
            self.by_group.entry(group).or_default().insert((instance, host.clone()));
        }
    }

    /// Was that promised?
    pub(super) fn contains(&self, instance: InstanceId, host: &HostName) -> bool {
        self.all.get(&instance).is_some_and(|hosts| hosts.contains_key(host))
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, instance: InstanceId, host: &HostName) {
        let Some(hosts) = self.all.get_mut(&instance) else { return };
        let Some((_, group)) = hosts.remove(host) else { return };
        if hosts.is_empty() {
            self.all.remove(&instance);
        }
        let Some(group) = group else { return };
        if let Some(members) = self.by_group.get_mut(&group) {
            members.remove(&(instance, host.clone()));
            if members.is_empty() {
                self.by_group.remove(&group);
            }
        }
    }

    /// Forgets all of an instance. Returns the hosts.
    pub(super) fn take(&mut self, instance: InstanceId) -> Vec<HostName> {
        let hosts: Vec<HostName> =
            self.all.get(&instance).into_iter().flatten().map(|(host, _)| host.clone()).collect();
        for host in &hosts {
            self.remove(instance, host);
        }
        hosts
    }

    /// Forgets those for which `keep` says no.
    pub(super) fn retain(&mut self, keep: impl Fn(InstanceId, &HostName, Timestamp) -> bool) {
        let mut gone = Vec::new();
        for (instance, hosts) in &self.all {
            for (host, (since, _)) in hosts {
                if !keep(*instance, host, *since) {
                    gone.push((*instance, host.clone()));
                }
            }
        }
        for (instance, host) in gone {
            self.remove(instance, &host);
        }
    }

    /// The group with the members to which a place was promised, but for these that are asked for now.
    pub(super) fn with_members(&self, mut group: GroupPlacement, asked: &BTreeSet<InstanceId>) -> GroupPlacement {
        let promised = self.by_group.get(&group.id).into_iter().flatten();
        group.members.extend(promised.filter(|(member, _)| !asked.contains(member)).cloned());
        group
    }
}

#[cfg(test)]
mod tests {
    use nova_core::server_group::GroupPolicy;

    use super::*;

    #[test]
    fn members_that_were_promised_a_place_count_until_it_is_given_back() {
        let id = |n| InstanceId::from_uuid(uuid::Uuid::from_u128(n));
        let group = ServerGroupId::from_uuid(uuid::Uuid::from_u128(9));
        let (h1, h2) = (HostName::from("h1"), HostName::from("h2"));
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let asked = |promises: &Promises, of: &[InstanceId]| {
            let policy = GroupPolicy::AntiAffinity;
            let stored = [(id(1), h1.clone())].into();
            let placement = GroupPlacement { id: group, policy, max_server_per_host: 1, members: stored };
            promises.with_members(placement, &of.iter().copied().collect()).members
        };
        let mut promises = Promises::default();
        promises.insert(id(1), &h1, Some(group), early);
        promises.insert(id(2), &h2, Some(group), late);
        promises.insert(id(3), &h2, None, late);
        let both = [(id(1), h1.clone()), (id(2), h2.clone())];
        assert_eq!(asked(&promises, &[]), both.clone().into(), "what the store shows counts once");
        assert_eq!(asked(&promises, &[id(2)]), both[..1].iter().cloned().collect(), "it is not in its own way");
        promises.retain(|_, _, since| since > early);
        assert!(!promises.contains(id(1), &h1) && promises.contains(id(3), &h2));
        assert_eq!(promises.take(id(2)), std::slice::from_ref(&h2));
        assert_eq!(asked(&promises, &[]), both[..1].iter().cloned().collect());
        promises.remove(id(3), &h2);
        assert!(promises.all.is_empty() && promises.by_group.is_empty());
    }
}
