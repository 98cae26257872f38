//! Places that were promised and that the store does not show yet.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use nova_core::ids::{HostName, InstanceId, ServerGroupId};
use nova_core::server_group::GroupPlacement;

/// A place that an instance may take.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    /// When it was made.
    pub(super) since: Timestamp,
    /// What had been heard of then: a reading that began before says nothing about it.
    pub(super) heard: u64,
    /// As a member of which group.
    pub(super) group: Option<ServerGroupId>,
    /// Where the instance was then: one that moves has a place already.
    pub(super) before: Vec<HostName>,
}

/// Which instance may go where.
#[derive(Debug, Default)]
pub(super) struct Promises {
    all: BTreeMap<InstanceId, BTreeMap<HostName, Promise>>,
    by_group: BTreeMap<ServerGroupId, BTreeSet<(InstanceId, HostName)>>,
    by_age: BTreeSet<(Timestamp, InstanceId, HostName)>,
}

impl Promises {
    /// A new promise.
    pub(super) fn insert(&mut self, instance: InstanceId, host: &HostName, promise: Promise) {
        self.remove(instance, host);
        self.by_age.insert((promise.since, instance, host.clone()));
        if let Some(group) = promise.group {
            self.by_group.entry(group).or_default().insert((instance, host.clone()));
        }
        self.all.entry(instance).or_default().insert(host.clone(), promise);
    }

    /// Was that promised?
    pub(super) fn contains(&self, instance: InstanceId, host: &HostName) -> bool {
        self.all.get(&instance).is_some_and(|hosts| hosts.contains_key(host))
    }

    /// Forgets one. Returns whether it was there.
    pub(super) fn remove(&mut self, instance: InstanceId, host: &HostName) -> bool {
        let Some(hosts) = self.all.get_mut(&instance) else { return false };
        let Some(promise) = hosts.remove(host) else { return false };
        if hosts.is_empty() {
            self.all.remove(&instance);
        }
        self.by_age.remove(&(promise.since, instance, host.clone()));
        let Some(group) = promise.group else { return true };
        if let Some(members) = self.by_group.get_mut(&group) {
            members.remove(&(instance, host.clone()));
            if members.is_empty() {
                self.by_group.remove(&group);
            }
        }
        true
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

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (InstanceId, &HostName, &Promise)> {
        self.all.iter().flat_map(|(instance, hosts)| hosts.iter().map(|(host, promise)| (*instance, host, promise)))
    }

    /// Forgets those that are older than `life`. Returns them.
    pub(super) fn expire(&mut self, now: Timestamp, life: SignedDuration) -> Vec<(InstanceId, HostName)> {
        let old = self.by_age.iter().take_while(|(since, ..)| now.duration_since(*since) > life);
        let old: Vec<_> = old.map(|(_, instance, host)| (*instance, host.clone())).collect();
        for (instance, host) in &old {
            self.remove(*instance, host);
        }
        old
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
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(60));
        let asked = |promises: &Promises, of: &[InstanceId]| {
            let policy = GroupPolicy::AntiAffinity;
            let stored = [(id(1), h1.clone())].into();
            let placement = GroupPlacement { id: group, policy, max_server_per_host: 1, members: stored };
            promises.with_members(placement, &of.iter().copied().collect()).members
        };
        let promise = |since, group| Promise { since, heard: 0, group, before: Vec::new() };
        let mut promises = Promises::default();
        promises.insert(id(1), &h1, promise(early, Some(group)));
        promises.insert(id(2), &h2, promise(late, Some(group)));
        promises.insert(id(3), &h2, promise(late, None));
        let both = [(id(1), h1.clone()), (id(2), h2.clone())];
        assert_eq!(asked(&promises, &[]), both.clone().into(), "what the store shows counts once");
        assert_eq!(asked(&promises, &[id(2)]), both[..1].iter().cloned().collect(), "it is not in its own way");
        let life = SignedDuration::from_secs(30);
        assert_eq!(promises.expire(early + life, life), []);
        assert_eq!(promises.expire(late, life), [(id(1), h1.clone())]);
        assert!(!promises.contains(id(1), &h1) && promises.contains(id(3), &h2));
        assert_eq!(promises.take(id(2)), std::slice::from_ref(&h2));
        assert_eq!(asked(&promises, &[]), both[..1].iter().cloned().collect());
        assert!(promises.remove(id(3), &h2) && !promises.remove(id(3), &h2));
        assert!(promises.all.is_empty() && promises.by_group.is_empty() && promises.by_age.is_empty());
    }
}
