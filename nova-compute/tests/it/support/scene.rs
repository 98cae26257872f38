//! Networks, ports and groups by small numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nova_core::ids::{NetworkId, PortId, SecurityGroupId, SubnetId};
use nova_core::network::{
    Carrier, Cidr, Direction, EtherType, Group, GroupRule, HostNetwork, HostPort, HostSubnet, MacAddress, PortSecurity,
    Remote, Segment,
};

/// The port of that number.
pub fn port_id(number: u16) -> PortId {
    format!("{number:08x}-0000-4000-8000-000000000001").parse().unwrap()
}

/// The network of that number.
pub fn network_id(number: u16) -> NetworkId {
    format!("{number:08x}-0000-4000-8000-000000000002").parse().unwrap()
}

/// The group of that number.
pub fn group_id(number: u16) -> SecurityGroupId {
    format!("{number:08x}-0000-4000-8000-000000000003").parse().unwrap()
}

/// The MAC address of the port of that number.
pub fn mac(number: u16) -> MacAddress {
    let [high, low] = number.to_be_bytes();
    MacAddress::from_bytes([0xfa, 0x16, 0x3e, 0, high, low])
}

/// Its address, of 10.0.0.0/16: ports 1 and 257 of two networks can have the same.
pub fn ip4(number: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number.to_be_bytes()[1])
}

/// Its IPv6 address, of fd00::/64.
pub fn ip6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number.to_be_bytes()[1]))
}

/// What a host's network is to be.
#[derive(Clone, Default)]
pub struct Scene {
    /// The state itself.
    pub wanted: HostNetwork,
}

impl Scene {
    /// A network with 10.0.0.0/24 and fd00::/64.
    pub fn network(&mut self, number: u16, carrier: Carrier) -> &mut Segment {
        let subnet = |cidr: &str, last: IpAddr| HostSubnet {
            cidr: cidr.parse().unwrap(),
            gateway: Some(last),
            dhcp: true,
            dns: Vec::new(),
            routes: Vec::new(),
            ra_mode: None,
        };
        let subnet_id =
            |version: u16| -> SubnetId { format!("{number:08x}-000{version}-4000-8000-000000000004").parse().unwrap() };
        let subnets = [
            (subnet_id(4), subnet("10.0.0.0/24", ip4(254).into())),
            (subnet_id(6), subnet("fd00::/64", ip6(254).into())),
        ];
        let segment = Segment {
            carrier,
            mtu: 1450,
            admin_state_up: true,
            dns_domain: String::new(),
            subnets: subnets.into_iter().collect(),
            serves: false,
            ports: BTreeMap::new(),
            elsewhere: Vec::new(),
        };
        self.wanted.segments.entry(network_id(number)).or_insert(segment)
    }

    /// A port there with its two addresses; without groups named, its security is off.
    pub fn port(&mut self, network: u16, number: u16, groups: Option<&[u16]>) -> &mut HostPort {
        let segment = self.wanted.segments.get_mut(&network_id(network)).unwrap();
        let subnets: Vec<SubnetId> = segment.subnets.keys().copied().collect();
        let security = groups.map(|groups| PortSecurity {
            groups: groups.iter().map(|group| group_id(*group)).collect(),
            pairs: Vec::new(),
        });
        let port = HostPort {
            mac: mac(number),
            addresses: vec![(subnets[0], ip4(number).into()), (subnets[1], ip6(number).into())],
            hostname: format!("host-{number}"),
            instance: Some(format!("{number:08x}-0000-4000-8000-000000000005").parse().unwrap()),
            admin_state_up: true,
            security,
        };
        segment.ports.entry(port_id(number)).or_insert(port)
    }

    /// The port of that number.
    pub fn edit(&mut self, number: u16) -> &mut HostPort {
        let ports = self.wanted.segments.values_mut().flat_map(|segment| segment.ports.iter_mut());
        ports.filter(|(id, _)| **id == port_id(number)).map(|(_, port)| port).next().unwrap()
    }

    /// A group that lets everything out, and in what these rules say.
    pub fn group(&mut self, number: u16, rules: &[GroupRule]) -> &mut Group {
        let out = |ethertype| GroupRule {
            direction: Direction::Egress,
            ethertype,
            protocol: None,
            ports: (None, None),
            remote: Remote::Any,
        };
        let rules = [out(EtherType::V4), out(EtherType::V6)].into_iter().chain(rules.iter().cloned()).collect();
        let group = Group { rules, members: BTreeSet::new(), stateful: true };
        self.wanted.groups.insert(group_id(number), group);
        self.wanted.groups.get_mut(&group_id(number)).unwrap()
    }

    /// The members of a group.
    pub fn members(&mut self, number: u16, members: &[&str]) {
        let members: BTreeSet<Cidr> = members.iter().map(|member| member.parse().unwrap()).collect();
        self.wanted.groups.entry(group_id(number)).or_default().members = members;
    }

    /// A rule that lets in what is of a protocol and to these ports (or of that ICMP type and code).
    pub fn rule(protocol: Option<u8>, ports: (Option<u16>, Option<u16>), remote: Remote) -> GroupRule {
        let six = matches!(&remote, Remote::Prefix(cidr) if cidr.base().is_ipv6()) || protocol == Some(58);
        let ethertype = if six { EtherType::V6 } else { EtherType::V4 };
        GroupRule { direction: Direction::Ingress, ethertype, protocol, ports, remote }
    }
}
