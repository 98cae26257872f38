use super::{Filter, Reads};
use crate::{GroupPolicy, HostBlock, HostView, Request, ServerGroup};

fn with_policy(request: &Request, policy: GroupPolicy) -> Option<&ServerGroup> {
    request.group.as_ref().filter(|group| group.policy == policy)
}

/// Keeps members of a group with the policy `anti-affinity` apart: no more than `max_server_per_host` on one host. The
/// host that has the instance already passes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerGroupAntiAffinityFilter;

impl Filter for ServerGroupAntiAffinityFilter {
    fn name(&self) -> &str {
        "ServerGroupAntiAffinityFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let Some(group) = with_policy(request, GroupPolicy::AntiAffinity) else { return true };
        host.group_members() < group.max_server_per_host.max(1)
            || request.instance.is_some_and(|instance| host.holds(instance))
    }

    fn reads(&self, request: &Request) -> Reads {
        if with_policy(request, GroupPolicy::AntiAffinity).is_some() { Reads::Host } else { Reads::Nothing }
    }

    fn block_passes(&self, block: &HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        let with_members = candidates & block.with_group_members();
        candidates & !with_members | block.keep(with_members, |host| self.host_passes(host, request))
    }
}

/// Brings members of a group with the policy `affinity` together: on a host that has one, or anywhere as long as none
/// has.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerGroupAffinityFilter;

impl Filter for ServerGroupAffinityFilter {
    fn name(&self) -> &str {
        "ServerGroupAffinityFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        with_policy(request, GroupPolicy::Affinity).is_none() || host.group_members() > 0 || !host.group_is_placed()
    }

    fn reads(&self, request: &Request) -> Reads {
        if with_policy(request, GroupPolicy::Affinity).is_some() { Reads::Host } else { Reads::Nothing }
    }

    fn block_passes(&self, block: &HostBlock<'_>, _request: &Request, candidates: u64) -> u64 {
        if block.group_is_placed() { candidates & block.with_group_members() } else { candidates }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;

    fn in_group(policy: GroupPolicy, members: &[u128]) -> Request {
        let mut request = request();
        request.group = Some(ServerGroup::new(policy, members.to_vec()));
        request
    }

    #[test]
    fn anti_affinity_keeps_members_apart() {
        let mut table = three();
        table.allocate("host-0", 1, &[1, 0, 0].into()).unwrap();
        table.allocate("host-0", 2, &[1, 0, 0].into()).unwrap();
        table.allocate("host-1", 3, &[1, 0, 0].into()).unwrap();
        let filter = ServerGroupAntiAffinityFilter;
        let mut request = in_group(GroupPolicy::AntiAffinity, &[1, 2, 3, 9]);
        assert_eq!(passing(&filter, &table, &request), [2]);
        request.group.as_mut().unwrap().max_server_per_host = 2;
        assert_eq!(passing(&filter, &table, &request), [1, 2]);
        request.instance = Some(2);
        assert_eq!(passing(&filter, &table, &request), [0, 1, 2]);
        for policy in [GroupPolicy::SoftAntiAffinity, GroupPolicy::Affinity] {
            assert_eq!(passing(&filter, &table, &in_group(policy, &[1])), [0, 1, 2]);
        }
    }

    #[test]
    fn affinity_brings_members_together() {
        let mut table = three();
        table.allocate("host-2", 1, &[1, 0, 0].into()).unwrap();
        let filter = ServerGroupAffinityFilter;
        assert_eq!(passing(&filter, &table, &in_group(GroupPolicy::Affinity, &[1])), [2]);
        assert_eq!(passing(&filter, &table, &in_group(GroupPolicy::Affinity, &[7])), [0, 1, 2]);
        assert_eq!(passing(&filter, &table, &in_group(GroupPolicy::SoftAffinity, &[1])), [0, 1, 2]);
        assert_eq!(passing(&filter, &table, &request()), [0, 1, 2]);
    }
}
