//! Server groups as algorithms read them (nova/scheduler/filters/affinity_filter.py, nova/scheduler/weights/affinity.py).

use nova_core::request::NoValidHost;
use nova_core::server_group::{GroupPlacement, GroupPolicy};
use nova_sched::ServerGroup;

/// The rule, and where members are: by name, since the store knows more of them than the table.
pub(super) fn rule(group: &GroupPlacement) -> ServerGroup {
    let policy = match group.policy {
        GroupPolicy::Affinity => nova_sched::GroupPolicy::Affinity,
        GroupPolicy::AntiAffinity => nova_sched::GroupPolicy::AntiAffinity,
        GroupPolicy::SoftAffinity => nova_sched::GroupPolicy::SoftAffinity,
        GroupPolicy::SoftAntiAffinity => nova_sched::GroupPolicy::SoftAntiAffinity,
    };
    let mut rule = ServerGroup::new(policy, Vec::new());
    rule.max_server_per_host = group.max_server_per_host;
    rule.places = group.members.iter().map(|(_, host)| host.to_string()).collect();
    rule
}

/// The algorithm's "no", with the group's part in it.
pub(super) fn explained(mut no: NoValidHost, group: &GroupPlacement) -> NoValidHost {
    let (id, policy, members) = (group.id, group.policy, group.members.len());
    let hosts = group.counts().len();
    let part = format!("server group {id} has the policy {policy}, {members} of its members are on {hosts} host(s)");
    no.details = format!("{}; {part}", no.details);
    no
}
