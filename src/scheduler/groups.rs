//! Server groups in front of any algorithm: their policy as hosts to avoid or to take, best first
//! (nova/scheduler/filters/affinity_filter.py, nova/scheduler/weights/affinity.py).

use std::cmp::Reverse;
use std::collections::BTreeSet;

use nova_core::ids::HostName;
use nova_core::request::{NoValidHost, RequestSpec, Selection};
use nova_core::server_group::{GroupPlacement, GroupPolicy};
use nova_sched::Objection;

/// One way to ask the algorithm.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attempt {
    /// Never these.
    pub(super) avoid: Vec<HostName>,
    /// Only this one.
    pub(super) only: Option<HostName>,
}

/// What to ask for one more member, first what the group likes best; none if the policy leaves no host. A forced host
/// is taken without asking, as Nova's filters are passed over; the booking has the last word.
pub(super) fn attempts(group: &GroupPlacement, spec: &RequestSpec) -> Vec<Attempt> {
    let free = || vec![Attempt::default()];
    if spec.force_host.is_some() || spec.force_node.is_some() || group.members.is_empty() {
        return free();
    }
    match group.policy {
        GroupPolicy::AntiAffinity => vec![Attempt { avoid: full_hosts(group), only: None }],
        GroupPolicy::Affinity => beside_members(group, spec),
        GroupPolicy::SoftAffinity => beside_members(group, spec).into_iter().chain(free()).collect(),
        GroupPolicy::SoftAntiAffinity => spread(group),
    }
}

fn full_hosts(group: &GroupPlacement) -> Vec<HostName> {
    let counts = group.counts().into_iter();
    counts.filter(|(_, count)| *count >= group.max_server_per_host).map(|(host, _)| host.clone()).collect()
}

/// Each host that has members, those with most first, as far as the request itself allows it.
fn beside_members(group: &GroupPlacement, spec: &RequestSpec) -> Vec<Attempt> {
    let mut hosts: Vec<(&HostName, u32)> = group.counts().into_iter().collect();
    hosts.sort_by_key(|(host, count)| (Reverse(*count), *host));
    let wanted = |host: &HostName| spec.requested_host.as_ref().is_none_or(|only| only == host);
    let hosts = hosts.into_iter().map(|(host, _)| host.clone()).filter(wanted);
    hosts.map(|host| Attempt { avoid: Vec::new(), only: Some(host) }).collect()
}

/// Away from all members, then from all hosts with two or more, and so on; at last anywhere.
fn spread(group: &GroupPlacement) -> Vec<Attempt> {
    let counts = group.counts();
    let levels: BTreeSet<u32> = counts.values().copied().collect();
    let at_least = |level: u32| {
        let avoid = counts.iter().filter(|(_, count)| **count >= level).map(|(host, _)| (*host).clone()).collect();
        Attempt { avoid, only: None }
    };
    levels.into_iter().map(at_least).chain([Attempt::default()]).collect()
}

/// Alternates that the group does not allow once all of the request have a place are none.
pub(super) fn drop_alternates(selections: &mut [Selection], group: &GroupPlacement) {
    for selection in selections {
        let others = group.clone().without(selection.instance_id);
        selection.alternates.retain(|alternate| others.admits(&alternate.host));
    }
}

/// What a group has against one more member on that host.
pub(super) fn objection(group: &GroupPlacement, host: &HostName) -> Option<Objection> {
    let there = group.counts().get(host).copied().unwrap_or(0);
    (!group.admits(host)).then(|| Objection {
        check: "server_group".to_owned(),
        details: Some(format!("policy {}: {there} of its members are here", group.policy)),
    })
}

/// The policy leaves no host to ask for.
pub(super) fn nowhere(group: &GroupPlacement) -> NoValidHost {
    let no = NoValidHost {
        summary: "No valid host was found. There are not enough hosts available.".to_owned(),
        details: "No valid host was found".to_owned(),
        reasons: Default::default(),
    };
    explained(no, group, &Attempt::default())
}

/// The algorithm's "no", with the group's part in it.
pub(super) fn explained(mut no: NoValidHost, group: &GroupPlacement, attempt: &Attempt) -> NoValidHost {
    let (id, policy) = (group.id, group.policy);
    let part = match &attempt.only {
        Some(host) => format!("its members are on {host}"),
        None if attempt.avoid.is_empty() => format!("{} of its members have a place", group.members.len()),
        None => format!("{} hosts have as many of its members as they may", attempt.avoid.len()),
    };
    no.details = format!("{}; server group {id} has the policy {policy}: {part}", no.details);
    if !attempt.avoid.is_empty() {
        no.reasons.insert("server_group".to_owned(), attempt.avoid.len() as u64);
    }
    no
}

#[cfg(test)]
mod tests {
    use nova_core::ids::{InstanceId, ServerGroupId};

    use super::*;

    fn group(policy: GroupPolicy, hosts: &[&str]) -> GroupPlacement {
        let id = |n| InstanceId::from_uuid(uuid::Uuid::from_u128(n));
        GroupPlacement {
            id: ServerGroupId::from_uuid(uuid::Uuid::from_u128(99)),
            policy,
            max_server_per_host: 2,
            members: hosts.iter().zip(1..).map(|(host, n)| (id(n), HostName::from(*host))).collect(),
        }
    }

    fn asked(group: &GroupPlacement, spec: &RequestSpec) -> Vec<(Vec<String>, Option<String>)> {
        let text = |hosts: Vec<HostName>| hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        attempts(group, spec).into_iter().map(|a| (text(a.avoid), a.only.map(|host| host.to_string()))).collect()
    }

    fn avoid(hosts: &[&str]) -> (Vec<String>, Option<String>) {
        (hosts.iter().map(|host| (*host).to_owned()).collect(), None)
    }

    fn only(host: &str) -> (Vec<String>, Option<String>) {
        (Vec::new(), Some(host.to_owned()))
    }

    #[test]
    fn policies_become_hosts_to_avoid_or_to_take() {
        let spec = RequestSpec::default();
        let hosts = ["a", "b", "b"];
        assert_eq!(asked(&group(GroupPolicy::AntiAffinity, &hosts), &spec), [avoid(&["b"])]);
        assert_eq!(asked(&group(GroupPolicy::Affinity, &hosts), &spec), [only("b"), only("a")]);
        assert_eq!(asked(&group(GroupPolicy::SoftAffinity, &hosts), &spec), [only("b"), only("a"), avoid(&[])]);
        let spread = [avoid(&["a", "b"]), avoid(&["b"]), avoid(&[])];
        assert_eq!(asked(&group(GroupPolicy::SoftAntiAffinity, &hosts), &spec), spread);
        for policy in GroupPolicy::ALL {
            assert_eq!(asked(&group(policy, &[]), &spec), [avoid(&[])], "the first is free");
        }
    }

    #[test]
    fn a_group_objects_only_where_its_rule_would_break() {
        let told = |policy, host: &str| objection(&group(policy, &["a", "b", "b"]), &HostName::from(host));
        assert_eq!(told(GroupPolicy::AntiAffinity, "a"), None, "two may share a host");
        let full = told(GroupPolicy::AntiAffinity, "b").unwrap().to_string();
        assert_eq!(full, "server_group (policy anti-affinity: 2 of its members are here)");
        assert!(told(GroupPolicy::Affinity, "c").is_some());
        assert_eq!(told(GroupPolicy::SoftAntiAffinity, "b"), None);
    }

    #[test]
    fn what_is_asked_for_by_name_counts_more_than_a_wish_and_less_than_a_rule() {
        let spec = RequestSpec { requested_host: Some("c".into()), ..RequestSpec::default() };
        assert_eq!(asked(&group(GroupPolicy::Affinity, &["a"]), &spec), []);
        assert_eq!(asked(&group(GroupPolicy::SoftAffinity, &["a"]), &spec), [avoid(&[])]);
        let forced = RequestSpec { force_host: Some("c".into()), ..RequestSpec::default() };
        assert_eq!(asked(&group(GroupPolicy::Affinity, &["a"]), &forced), [avoid(&[])]);
    }
}
