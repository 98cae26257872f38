use super::Weigher;
use crate::filter_scheduler::FilterOptions;
use crate::{GroupPolicy, HostTable, HostView, Request};

fn members(host: &HostView<'_>, request: &Request, policy: GroupPolicy) -> f64 {
    let asked = request.group.as_ref().is_some_and(|group| group.policy == policy);
    if asked { f64::from(host.group_members()) } else { 0.0 }
}

/// Brings members of a group with the policy `soft-affinity` together as far as can be.
#[derive(Debug, Clone)]
pub struct ServerGroupSoftAffinityWeigher {
    multiplier: f64,
}

impl ServerGroupSoftAffinityWeigher {
    /// With `soft_affinity_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.soft_affinity_weight_multiplier }
    }
}

impl Weigher for ServerGroupSoftAffinityWeigher {
    fn name(&self) -> &str {
        "ServerGroupSoftAffinityWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("soft_affinity_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, request: &Request) -> f64 {
        members(host, request, GroupPolicy::SoftAffinity)
    }

    fn is_level(&self, _table: &HostTable, request: &Request) -> bool {
        request.group.as_ref().is_none_or(|group| group.policy != GroupPolicy::SoftAffinity)
    }
}

/// Keeps members of a group with the policy `soft-anti-affinity` apart as far as can be.
#[derive(Debug, Clone)]
pub struct ServerGroupSoftAntiAffinityWeigher {
    multiplier: f64,
}

impl ServerGroupSoftAntiAffinityWeigher {
    /// With `soft_anti_affinity_weight_multiplier`.
    #[must_use]
    pub fn new(options: &FilterOptions) -> Self {
        Self { multiplier: options.soft_anti_affinity_weight_multiplier }
    }
}

impl Weigher for ServerGroupSoftAntiAffinityWeigher {
    fn name(&self) -> &str {
        "ServerGroupSoftAntiAffinityWeigher"
    }

    fn multiplier(&self) -> f64 {
        self.multiplier
    }

    fn multiplier_key(&self) -> Option<&str> {
        Some("soft_anti_affinity_weight_multiplier")
    }

    fn weigh(&self, host: &HostView<'_>, request: &Request) -> f64 {
        // Not -0.0, which would differ from 0.0 in print.
        0.0 - members(host, request, GroupPolicy::SoftAntiAffinity)
    }

    fn is_level(&self, _table: &HostTable, request: &Request) -> bool {
        request.group.as_ref().is_none_or(|group| group.policy != GroupPolicy::SoftAntiAffinity)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::weights;
    use super::*;
    use crate::{ServerGroup, fixtures};

    #[test]
    fn members_attract_or_repel() {
        let mut table = fixtures::table(2, 1);
        for member in 1..4 {
            table.allocate(&format!("host-{}", member / 3), member, &[1, 0, 0].into()).unwrap();
        }
        let mut request = Request::new([1].into());
        let together = ServerGroupSoftAffinityWeigher::new(&FilterOptions::default());
        let apart = ServerGroupSoftAntiAffinityWeigher::new(&FilterOptions::default());
        assert_eq!(weights(&together, &table, &request), [0.0, 0.0]);
        request.group = Some(ServerGroup::new(GroupPolicy::SoftAffinity, vec![1, 2, 3, 9]));
        assert_eq!(weights(&together, &table, &request), [2.0, 1.0]);
        assert_eq!(weights(&apart, &table, &request), [0.0, 0.0]);
        request.group = Some(ServerGroup::new(GroupPolicy::SoftAntiAffinity, vec![1, 2, 3, 9]));
        assert_eq!(weights(&together, &table, &request), [0.0, 0.0]);
        assert_eq!(weights(&apart, &table, &request), [-2.0, -1.0]);
    }
}
