//! Router advertisements (RFC 4861): a dnsmasq in the router's namespace that does nothing else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use nova_core::ids::NetworkId;
use nova_core::network::{HostRouter, HostSubnet, IpVersion, Segment};

use super::super::dhcp::DnsmasqFiles;
use super::leg_name;

/// How often, unasked: well within the life of what is told.
const INTERVAL: u32 = 60;

/// What the advertiser of a router is told; `None` if no subnet on its legs wants any.
pub fn advertisements(
    router: &HostRouter,
    segments: &BTreeMap<NetworkId, Segment>,
    legs: &BTreeMap<NetworkId, u32>,
    folder: &Path,
) -> Option<DnsmasqFiles> {
    let mut text = String::new();
    for leg in &router.legs {
        let Some(segment) = segments.get(&leg.network) else { continue };
        let name = leg_name(leg.network);
        let here = |subnet: &&HostSubnet| leg.addresses.iter().any(|(_, range)| *range == subnet.cidr);
        let told: Vec<String> = segment.subnets.values().filter(here).filter_map(range_of).collect();
        if told.is_empty() {
            continue;
        }
        let link = legs.get(&leg.network).copied().unwrap_or_default();
        let _ = writeln!(text, "# link {link}\ninterface={name}\nra-param={name},mtu:{},{INTERVAL}", segment.mtu);
        text.extend(told);
    }
    if text.is_empty() {
        return None;
    }
    let pid = folder.join("pid").display().to_string();
    let config = format!(
        "port=0\nno-hosts\nno-resolv\nbind-interfaces\nexcept-interface=lo\nleasefile-ro\nno-ping\nenable-ra\n\
         dhcp-ignore=tag:!known\npid-file={pid}\n{text}"
    );
    Some(DnsmasqFiles { config, ..DnsmasqFiles::default() })
}

/// Lines for a subnet that is advertised. Addresses are given by the network's own DHCP server: here they are only named.
fn range_of(subnet: &HostSubnet) -> Option<String> {
    let (base, prefix) = (subnet.cidr.base(), subnet.cidr.prefix());
    if subnet.cidr.version() == IpVersion::V4 || prefix < 64 {
        return None;
    }
    let mode = match subnet.ra_mode.as_deref()? {
        "slaac" => "ra-only",
        "dhcpv6-stateless" => "ra-stateless",
        _ => "static",
    };
    let tag = format!("r{}", base.to_string().replace(':', "-"));
    let mut text = format!("dhcp-range=set:{tag},{base},{mode},{prefix}\n");
    let servers: Vec<String> =
        subnet.dns.iter().filter(|server| matches!(server, IpAddr::V6(_))).map(|s| format!("[{s}]")).collect();
    if !servers.is_empty() {
        let _ = writeln!(text, "dhcp-option=tag:{tag},option6:dns-server,{}", servers.join(","));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nova_core::network::{Carrier, RouterLeg};

    use super::*;

    #[test]
    fn a_leg_tells_of_its_subnets() {
        let network: NetworkId = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
        let subnet = |cidr: &str, mode: Option<&str>| HostSubnet {
            cidr: cidr.parse().unwrap(),
            gateway: None,
            dhcp: true,
            dns: vec!["2620:fe::fe".parse().unwrap(), "9.9.9.9".parse().unwrap()],
            routes: Vec::new(),
            ra_mode: mode.map(str::to_owned),
        };
        let subnets = [
            subnet("10.0.0.0/24", Some("slaac")),
            subnet("2001:db8:1::/64", Some("slaac")),
            subnet("2001:db8:2::/64", Some("dhcpv6-stateful")),
            subnet("2001:db8:3::/64", Some("dhcpv6-stateless")),
            subnet("2001:db8:4::/64", None),
            subnet("2001:db8:5::/64", Some("slaac")),
        ];
        let leg = RouterLeg {
            network,
            mac: "fa:16:3e:00:00:01".parse().unwrap(),
            addresses: subnets[..5].iter().map(|s| (s.cidr.base(), s.cidr)).collect(),
            distributed: false,
        };
        let id = |n: usize| format!("11111111-0000-4000-8000-00000000000{n}").parse().unwrap();
        let segment = Segment {
            carrier: Carrier::Local,
            mtu: 1450,
            admin_state_up: true,
            dns_domain: String::new(),
            subnets: subnets.into_iter().enumerate().map(|(n, subnet)| (id(n), subnet)).collect(),
            serves: true,
            ports: BTreeMap::new(),
            elsewhere: Vec::new(),
        };
        let router = HostRouter { legs: vec![leg], routes: Vec::new(), outside: None };
        let told = |segment: Segment| {
            let legs = BTreeMap::from([(network, 3)]);
            advertisements(&router, &BTreeMap::from([(network, segment)]), &legs, Path::new("/s"))
        };
        let config = told(segment.clone()).unwrap().config;
        let expected = "# link 3\ninterface=lega01b23c4-d5\nra-param=lega01b23c4-d5,mtu:1450,60\n\
             dhcp-range=set:r2001-db8-1--,2001:db8:1::,ra-only,64\n\
             dhcp-option=tag:r2001-db8-1--,option6:dns-server,[2620:fe::fe]\n\
             dhcp-range=set:r2001-db8-2--,2001:db8:2::,static,64\n\
             dhcp-option=tag:r2001-db8-2--,option6:dns-server,[2620:fe::fe]\n\
             dhcp-range=set:r2001-db8-3--,2001:db8:3::,ra-stateless,64\n\
             dhcp-option=tag:r2001-db8-3--,option6:dns-server,[2620:fe::fe]\n";
        assert!(config.ends_with(expected), "{config}");
        let mut quiet = segment;
        quiet.subnets.retain(|_, subnet| subnet.ra_mode.is_none());
        assert_eq!(told(quiet), None);
    }
}
