//! Which addresses of a subnet may be given out.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Cidr, IpVersion, NetworkProblem, address_number, address_of};

/// Addresses that are given out to whoever names none: from `start` to `end`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// The first.
    pub start: IpAddr,
    /// The last.
    pub end: IpAddr,
}

impl AddressPool {
    /// First and last as numbers.
    pub fn numbers(&self) -> (u128, u128) {
        (address_number(self.start), address_number(self.end))
    }

    /// Is the address in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        let (start, end) = self.numbers();
        IpVersion::of(address) == IpVersion::of(self.start) && (start..=end).contains(&address_number(address))
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// The addresses that interfaces can have, as numbers: not the network's own, not the broadcast address. Where there are
/// only one or two (RFC 3021, RFC 6164), all.
pub fn usable(cidr: &Cidr) -> (u128, u128) {
    let (first, last) = (cidr.first(), cidr.last());
    match (cidr.host_bits(), cidr.version()) {
        (0 | 1, _) => (first, last),
        (_, IpVersion::V4) => (first + 1, last - 1),
        // The first is the anycast address of all routers; broadcast there is none.
        (_, IpVersion::V6) => (first + 1, last),
    }
}

/// The gateway of a subnet that names none: its first usable address.
pub fn default_gateway(cidr: &Cidr) -> IpAddr {
    address_of(cidr.version(), usable(cidr).0)
}

/// The pools of a subnet that names none: all usable addresses but the gateway.
pub fn default_pools(cidr: &Cidr, gateway: Option<IpAddr>) -> Vec<AddressPool> {
    let (first, last) = usable(cidr);
    let pool =
        |start, end| AddressPool { start: address_of(cidr.version(), start), end: address_of(cidr.version(), end) };
    let gateway = gateway.filter(|gateway| cidr.contains(*gateway)).map(address_number);
    let Some(gateway) = gateway.filter(|gateway| (first..=last).contains(gateway)) else {
        return vec![pool(first, last)];
    };
    let mut pools = Vec::new();
    if gateway > first {
        pools.push(pool(first, gateway - 1));
    }
    if gateway < last {
        pools.push(pool(gateway + 1, last));
    }
    pools
}

/// Is it a range that guests can live in? (neutron/db/db_base_plugin_v2.py, `_validate_subnet_cidr`)
///
/// # Errors
/// [`NetworkProblem::Invalid`].
pub fn check_subnet(cidr: &Cidr, enable_dhcp: bool) -> Result<(), NetworkProblem> {
    let invalid = |text: &str| Err(NetworkProblem::Invalid { message: format!("{text}: {cidr}") });
    if cidr.prefix() == 0 {
        return invalid("0 is not allowed as CIDR prefix length");
    }
    if cidr.base().is_unspecified() {
        return invalid("The unspecified address cannot be a subnet");
    }
    if enable_dhcp && cidr.base().is_multicast() {
        return invalid("Multicast IP subnet is not supported if enable_dhcp is True");
    }
    if enable_dhcp && cidr.base().is_loopback() {
        return invalid("Loopback IP subnet is not supported if enable_dhcp is True");
    }
    if enable_dhcp && cidr.version() == IpVersion::V4 && cidr.prefix() > 30 {
        return invalid("Subnet has a prefix length that is incompatible with DHCP service enabled");
    }
    Ok(())
}

/// May the gateway be there? Of version 4, on the subnet and usable; of version 6 also an address of the link.
///
/// # Errors
/// [`NetworkProblem::Invalid`], [`NetworkProblem::GatewayInPool`].
pub fn check_gateway(cidr: &Cidr, gateway: IpAddr, pools: &[AddressPool]) -> Result<(), NetworkProblem> {
    let (first, last) = usable(cidr);
    let on_link = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
    let same = IpVersion::of(gateway) == cidr.version();
    if !same || !(on_link || (first..=last).contains(&address_number(gateway))) {
        return Err(NetworkProblem::Invalid { message: format!("Gateway is not valid on subnet: {gateway}") });
    }
    match pools.iter().find(|pool| pool.contains(gateway)) {
        Some(pool) => Err(NetworkProblem::GatewayInPool { gateway, pool: *pool }),
        None => Ok(()),
    }
}

/// Are the pools in the subnet and apart from each other? Gives them back in order.
///
/// # Errors
/// [`NetworkProblem::BadPool`], [`NetworkProblem::PoolOutside`], [`NetworkProblem::PoolsOverlap`].
pub fn check_pools(cidr: &Cidr, pools: &[AddressPool]) -> Result<Vec<AddressPool>, NetworkProblem> {
    let (first, last) = usable(cidr);
    for pool in pools {
        let (start, end) = pool.numbers();
        let version = |address| IpVersion::of(address) == cidr.version();
        if !version(pool.start) || !version(pool.end) || start > end {
            return Err(NetworkProblem::BadPool { pool: *pool });
        }
        if start < first || end > last {
            return Err(NetworkProblem::PoolOutside { pool: *pool, cidr: *cidr });
        }
    }
    let mut sorted = pools.to_vec();
    sorted.sort_by_key(AddressPool::numbers);
    for pair in sorted.windows(2) {
        if pair[0].numbers().1 >= pair[1].numbers().0 {
            return Err(NetworkProblem::PoolsOverlap { one: pair[0], other: pair[1], cidr: *cidr });
        }
    }
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn pool(text: &str) -> AddressPool {
        let (start, end) = text.split_once('-').unwrap();
        AddressPool { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    #[test]
    fn pools_leave_out_what_is_reserved() {
        for (range, gateway, pools) in [
            ("10.0.0.0/24", Some("10.0.0.1"), "10.0.0.2-10.0.0.254"),
            ("10.0.0.0/24", Some("10.0.0.254"), "10.0.0.1-10.0.0.253"),
            ("10.0.0.0/24", Some("10.0.0.9"), "10.0.0.1-10.0.0.8 10.0.0.10-10.0.0.254"),
            ("10.0.0.0/24", None, "10.0.0.1-10.0.0.254"),
            ("10.0.0.0/8", Some("10.0.0.1"), "10.0.0.2-10.255.255.254"),
            ("10.0.0.4/30", Some("10.0.0.5"), "10.0.0.6-10.0.0.6"),
            ("10.0.0.4/31", Some("10.0.0.4"), "10.0.0.5-10.0.0.5"),
            ("10.0.0.4/32", Some("10.0.0.4"), ""),
            ("2001:db8::/64", Some("2001:db8::1"), "2001:db8::2-2001:db8::ffff:ffff:ffff:ffff"),
            ("2001:db8::/64", Some("fe80::1"), "2001:db8::1-2001:db8::ffff:ffff:ffff:ffff"),
        ] {
            let made = default_pools(&cidr(range), gateway.map(|text| text.parse().unwrap()));
            let text: Vec<_> = made.iter().map(AddressPool::to_string).collect();
            assert_eq!(text.join(" "), pools, "{range} {gateway:?}");
            assert_eq!(check_pools(&cidr(range), &made).unwrap(), made);
        }
        assert_eq!(default_gateway(&cidr("10.0.0.0/24")).to_string(), "10.0.0.1");
        assert_eq!(default_gateway(&cidr("2001:db8::/64")).to_string(), "2001:db8::1");
    }

    #[test]
    fn bad_pools_are_named() {
        let check = |pools: &[&str]| {
            let pools: Vec<_> = pools.iter().map(|text| pool(text)).collect();
            check_pools(&cidr("10.0.0.0/24"), &pools).map_err(|problem| problem.to_string())
        };
        assert_eq!(check(&["10.0.0.9-10.0.0.20", "10.0.0.2-10.0.0.8"]).unwrap()[0], pool("10.0.0.2-10.0.0.8"));
        for (pools, text) in [
            (vec!["10.0.0.9-10.0.0.8"], "The allocation pool 10.0.0.9-10.0.0.8 is not valid."),
            (vec!["10.0.0.9-::8"], "The allocation pool 10.0.0.9-::8 is not valid."),
            (
                vec!["10.0.0.0-10.0.0.8"],
                "The allocation pool 10.0.0.0-10.0.0.8 spans beyond the subnet cidr 10.0.0.0/24.",
            ),
            (
                vec!["10.0.0.9-10.0.0.255"],
                "The allocation pool 10.0.0.9-10.0.0.255 spans beyond the subnet cidr 10.0.0.0/24.",
            ),
            (
                vec!["10.0.0.2-10.0.0.9", "10.0.0.9-10.0.0.10"],
                "Found overlapping allocation pools: 10.0.0.2-10.0.0.9 10.0.0.9-10.0.0.10 for subnet 10.0.0.0/24.",
            ),
        ] {
            assert_eq!(check(&pools).unwrap_err(), text);
        }
    }

    #[test]
    fn gateways_are_on_their_subnet_and_in_no_pool() {
        let pools = [pool("10.0.0.10-10.0.0.20")];
        for (gateway, good) in [
            ("10.0.0.1", true),
            ("10.0.0.254", true),
            ("10.0.0.0", false),
            ("10.0.0.255", false),
            ("10.0.1.1", false),
            ("10.0.0.10", false),
            ("10.0.0.20", false),
            ("fe80::1", false),
        ] {
            assert_eq!(
                check_gateway(&cidr("10.0.0.0/24"), gateway.parse().unwrap(), &pools).is_ok(),
                good,
                "{gateway}"
            );
        }
        assert!(check_gateway(&cidr("2001:db8::/64"), "fe80::1".parse().unwrap(), &[]).is_ok());
    }

    #[test]
    fn ranges_without_room_for_guests_are_refused() {
        for (range, dhcp, good) in [
            ("10.0.0.0/8", true, true),
            ("10.0.0.0/30", true, true),
            ("10.0.0.0/31", true, false),
            ("10.0.0.0/31", false, true),
            ("224.0.0.0/24", true, false),
            ("127.0.0.0/24", true, false),
            ("0.0.0.0/0", false, false),
            ("0.0.0.0/8", false, false),
            ("2001:db8::/64", true, true),
            ("::/0", false, false),
        ] {
            assert_eq!(check_subnet(&cidr(range), dhcp).is_ok(), good, "{range} {dhcp}");
        }
    }
}
