use std::net::IpAddr;

use super::{Filter, Reads};
use crate::{HostView, Request};

/// The hints `build_near_host_ip` and `cidr`: passes hosts with an address in that network, `/24` unless said otherwise.
/// An address or prefix that can't be read passes none.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimpleCIDRAffinityFilter;

impl Filter for SimpleCIDRAffinityFilter {
    fn name(&self) -> &str {
        "SimpleCIDRAffinityFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let Some(near) = &request.hints.build_near_host_ip else { return true };
        let cidr = request.hints.cidr.as_deref().unwrap_or("/24");
        let prefix = cidr.trim_start_matches('/').parse().ok();
        match (near.parse().ok(), prefix, host.ip()) {
            (Some(near), Some(prefix), Some(ip)) => same_network(near, ip, prefix),
            _ => false,
        }
    }

    fn reads(&self, request: &Request) -> Reads {
        if request.hints.build_near_host_ip.is_none() { Reads::Nothing } else { Reads::Host }
    }
}

fn same_network(one: IpAddr, other: IpAddr, prefix: u32) -> bool {
    let differ = |one: u128, other: u128, bits: u32| {
        prefix <= bits && (one ^ other).checked_shr(bits - prefix).unwrap_or(0) == 0
    };
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => differ(one.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => differ(one.to_bits(), other.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;
    use crate::fixtures;

    #[test]
    fn hosts_of_the_network_pass() {
        let mut table = three();
        for (number, ip) in ["10.1.2.3", "10.1.3.3", "fd00::1"].into_iter().enumerate() {
            let mut host = fixtures::host(number, 1);
            host.ip = Some(ip.parse().unwrap());
            table.upsert_host(host).unwrap();
        }
        let mut request = request();
        for (near, cidr, expected) in [
            (None, None, vec![0, 1, 2]),
            (Some("10.1.2.200"), None, vec![0]),
            (Some("10.1.2.200"), Some("/16"), vec![0, 1]),
            (Some("10.1.2.200"), Some("/0"), vec![0, 1]),
            (Some("10.1.2.3"), Some("/32"), vec![0]),
            (Some("fd00::2"), Some("/64"), vec![2]),
            (Some("10.1.2.200"), Some("/33"), vec![]),
            (Some("nonsense"), None, vec![]),
        ] {
            request.hints.build_near_host_ip = near.map(str::to_owned);
            request.hints.cidr = cidr.map(str::to_owned);
            assert_eq!(passing(&SimpleCIDRAffinityFilter, &table, &request), expected, "{near:?} {cidr:?}");
        }
    }
}
