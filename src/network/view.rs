//! From the books to what one host is to be: a pure function of the rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::ids::{HostName, NetworkId, PortId, RouterId, SecurityGroupId, SubnetId};
use nova_core::network::{
    Carrier, Cidr, Group, GroupRule, HostNetwork, HostPort, HostRouter, HostSubnet, IpVersion, MacAddress, Network,
    Outside, Port, PortSecurity, ROUTER_INTERFACE, Remote, RemotePort, Router, RouterLeg, SecurityGroup, Segment,
    SourceNat, Subnet,
};
use nova_db::HostBooks;
use sha2::{Digest, Sha256};

/// Where gateways, DHCP and translation are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateways {
    /// Every host is the gateway of its own guests (`multi_host`).
    EveryHost,
    /// One host is everybody's (`network_host`).
    Node(HostName),
}

impl Gateways {
    /// The one host that is everybody's, if there is one.
    pub fn node(&self) -> Option<&HostName> {
        match self {
            Self::EveryHost => None,
            Self::Node(node) => Some(node),
        }
    }

    /// Is the host the one node?
    pub fn is_node(&self, host: &HostName) -> bool {
        matches!(self, Self::Node(node) if node == host)
    }
}

/// What the host's network is to be.
pub fn host_network(books: &HostBooks, host: &HostName, gateways: &Gateways) -> HostNetwork {
    let view = View::new(books, host, gateways);
    let routers = view.routers();
    let needed: BTreeSet<NetworkId> = routers.values().flat_map(|router| &router.legs).map(|leg| leg.network).collect();
    let wanted = |network: &&Network| view.has_port_here(network.id) || needed.contains(&network.id) || view.is_node;
    let segments = books.networks.values().filter(wanted).map(|network| (network.id, view.segment(network)));
    HostNetwork { segments: segments.collect(), groups: view.groups(), routers }
}

/// The books by what is asked of them.
struct View<'a> {
    books: &'a HostBooks,
    host: &'a HostName,
    gateways: &'a Gateways,
    is_node: bool,
    /// Of each network.
    ports: BTreeMap<NetworkId, Vec<&'a Port>>,
    /// Of each router.
    interfaces: BTreeMap<RouterId, Vec<&'a Port>>,
}

impl<'a> View<'a> {
    fn new(books: &'a HostBooks, host: &'a HostName, gateways: &'a Gateways) -> Self {
        let (mut ports, mut interfaces): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
        for port in books.ports.values() {
            ports.entry(port.network_id).or_default().push(port);
            if let Some(router) = router_of(books, port) {
                interfaces.entry(router).or_default().push(port);
            }
        }
        Self { books, host, gateways, is_node: gateways.is_node(host), ports, interfaces }
    }

    fn ports_on(&self, network: NetworkId) -> impl Iterator<Item = &'a Port> {
        self.ports.get(&network).into_iter().flatten().copied()
    }

    fn is_here(&self, port: &Port) -> bool {
        port.host.as_ref() == Some(self.host)
    }

    fn comes_here(&self, port: &Port) -> bool {
        port.concerns(self.host) && !self.is_here(port)
    }

    fn has_port_here(&self, network: NetworkId) -> bool {
        self.ports_on(network).any(|port| port.concerns(self.host))
    }

    fn segment(&self, network: &Network) -> Segment {
        let here: BTreeMap<PortId, HostPort> = self
            .ports_on(network.id)
            .filter(|port| port.concerns(self.host))
            .map(|port| (port.id, host_port(port)))
            .collect();
        let gateway_is_here = match self.gateways {
            Gateways::EveryHost => !here.is_empty(),
            Gateways::Node(_) => self.is_node,
        };
        let subnets = self.books.subnets.values().filter(|subnet| subnet.network_id == network.id);
        Segment {
            carrier: self.carrier(network),
            mtu: network.mtu,
            admin_state_up: network.admin_state_up,
            dns_domain: network.dns_domain.clone(),
            subnets: subnets.map(|subnet| (subnet.id, host_subnet(network, subnet))).collect(),
            // The operator's bridge has the operator's services.
            serves: gateway_is_here && !is_operators(network),
            ports: here,
            elsewhere: self.elsewhere(network.id),
        }
    }

    fn carrier(&self, network: &Network) -> Carrier {
        let physical_network = network.physical_network.clone();
        let tag = network.segmentation_id.and_then(|tag| u16::try_from(tag).ok());
        match (network.network_type.as_deref(), physical_network, tag, network.segmentation_id) {
            (Some("flat"), Some(physical_network), ..) => Carrier::Bridge { physical_network },
            (Some("flat_dhcp"), physical_network, ..) => Carrier::Flat { physical_network },
            (Some("vlan"), Some(physical_network), Some(tag), _) => Carrier::Vlan { physical_network, tag },
            (Some("vxlan"), _, _, Some(vni)) => Carrier::Vxlan { vni, peers: self.peers(network.id) },
            // Also what was made before anything carried it.
            _ => Carrier::Local,
        }
    }

    /// Where the other hosts' ends are that frames to everybody must reach.
    fn peers(&self, network: NetworkId) -> BTreeSet<IpAddr> {
        let hosts = self.ports_on(network).filter_map(|port| port.host.as_ref());
        let others = hosts.chain(self.gateways.node()).filter(|host| *host != self.host);
        others.filter_map(|host| self.books.tunnels.get(host)).copied().collect()
    }

    fn elsewhere(&self, network: NetworkId) -> Vec<RemotePort> {
        let remote = |port: &Port| {
            let host = port.host.as_ref().filter(|_| !port.concerns(self.host))?;
            Some(RemotePort {
                mac: port.mac_address,
                addresses: port.fixed_ips.iter().map(|fixed| fixed.ip_address).collect(),
                tunnel: self.books.tunnels.get(host).copied(),
                hostname: hostname(port),
                asks: host_port(port).instance.filter(|_| self.is_node).map(|instance| (instance, port.id)),
            })
        };
        let mut all: Vec<RemotePort> = self.ports_on(network).filter_map(remote).collect();
        all.sort_unstable();
        all
    }

    /// Groups of the ports here with their rules, and those that these name with their members.
    fn groups(&self) -> BTreeMap<SecurityGroupId, Group> {
        let here = self.books.ports.values().filter(|port| port.concerns(self.host) && port.port_security_enabled);
        let own: BTreeSet<SecurityGroupId> = here.flat_map(|port| &port.security_groups).copied().collect();
        let known: Vec<&SecurityGroup> = own.iter().filter_map(|id| self.books.groups.get(id)).collect();
        let rules = known.iter().flat_map(|group| &group.rules);
        let named: BTreeSet<SecurityGroupId> = rules.filter_map(|rule| rule.remote_group_id).collect();
        let mut members = members(self.books.ports.values(), &named);
        let mut groups: BTreeMap<SecurityGroupId, Group> = known
            .into_iter()
            .map(|group| (group.id, group_item(Some(group), members.remove(&group.id).unwrap_or_default())))
            .collect();
        for id in named {
            let members = members.remove(&id).unwrap_or_default();
            groups.entry(id).or_insert_with(|| group_item(None, members));
        }
        groups
    }

    /// Routers that this host is.
    fn routers(&self) -> BTreeMap<RouterId, HostRouter> {
        if !self.is_node && matches!(self.gateways, Gateways::Node(_)) {
            return BTreeMap::new();
        }
        let up = self.books.routers.values().filter(|router| router.admin_state_up);
        let routers = up.filter_map(|router| Some((router.id, self.router(router)?)));
        let implicit = self.books.networks.values().filter_map(|network| self.implicit_router(network));
        routers.chain(implicit).collect()
    }

    fn is_distributed(&self) -> bool {
        matches!(self.gateways, Gateways::EveryHost)
    }

    fn router(&self, router: &Router) -> Option<HostRouter> {
        let interfaces = self.interfaces.get(&router.id).map(Vec::as_slice).unwrap_or_default();
        let mut legs: BTreeMap<NetworkId, RouterLeg> = BTreeMap::new();
        for port in interfaces.iter().filter(|port| self.books.networks.contains_key(&port.network_id)) {
            let mac = match self.is_distributed() {
                true => leg_mac(router.id, port.network_id, self.host),
                false => port.mac_address,
            };
            let leg = legs.entry(port.network_id).or_insert_with(|| RouterLeg {
                network: port.network_id,
                mac,
                addresses: Vec::new(),
                distributed: self.is_distributed(),
            });
            leg.addresses.extend(self.with_ranges(port));
        }
        let outside = self.outside(router);
        let legs: Vec<RouterLeg> = legs.into_values().collect();
        (!legs.is_empty()).then(|| HostRouter { legs, routes: router.routes.clone(), outside })
    }

    fn with_ranges(&self, port: &Port) -> impl Iterator<Item = (IpAddr, Cidr)> {
        let range = |subnet: &SubnetId| self.books.subnets.get(subnet).map(|subnet| subnet.cidr);
        port.fixed_ips.iter().filter_map(move |fixed| Some((fixed.ip_address, range(&fixed.subnet_id)?)))
    }

    fn outside(&self, router: &Router) -> Option<Outside> {
        let gateway = router.gateway.as_ref()?;
        let outer = self.books.subnets.values().filter(|subnet| subnet.network_id == gateway.network_id);
        let addresses = gateway.external_fixed_ips.iter().map(|fixed| fixed.ip_address);
        let own = addresses.into_iter().find(|address| IpVersion::of(*address) == IpVersion::V4);
        let source_nat = match (gateway.enable_snat, self.is_distributed(), own) {
            (false, ..) => SourceNat::None,
            (true, false, Some(address)) => SourceNat::Address(address),
            // One address can't be on every host.
            (true, ..) => SourceNat::Host,
        };
        Some(Outside {
            subnets: outer.map(|subnet| (subnet.cidr, subnet.gateway_ip)).collect(),
            source_nat,
            // On the one node, all.
            floating: self.floating(router.id, |port| self.is_node || port.is_some_and(|port| self.is_here(port))),
            coming: self.floating(router.id, |port| !self.is_node && port.is_some_and(|port| self.comes_here(port))),
        })
    }

    /// Those of such ports.
    fn floating(&self, router: RouterId, such: impl Fn(Option<&Port>) -> bool) -> BTreeMap<IpAddr, IpAddr> {
        let of_router = self.books.floating_ips.iter().filter(|floating| floating.router_id == Some(router));
        let mine = of_router.filter(|floating| such(floating.port_id.and_then(|id| self.books.ports.get(&id))));
        mine.filter_map(|floating| Some((floating.floating_ip_address, floating.fixed_ip_address?))).collect()
    }

    /// The gateway that a flat network with DHCP has by itself, at the addresses that no other router has.
    fn implicit_router(&self, network: &Network) -> Option<(RouterId, HostRouter)> {
        let is_wanted = self.is_node || self.has_port_here(network.id);
        if network.network_type.as_deref() != Some("flat_dhcp") || !is_wanted {
            return None;
        }
        let id = RouterId::from_uuid(*network.id.as_uuid());
        let taken: BTreeSet<IpAddr> = self
            .interfaces
            .values()
            .flatten()
            .filter(|port| port.network_id == network.id)
            .flat_map(|port| &port.fixed_ips)
            .map(|fixed| fixed.ip_address)
            .collect();
        let subnets = self.books.subnets.values().filter(|subnet| subnet.network_id == network.id);
        let gateways = subnets.filter_map(|subnet| Some((subnet.gateway_ip?, subnet.cidr)));
        let addresses: Vec<(IpAddr, Cidr)> = gateways.filter(|(address, _)| !taken.contains(address)).collect();
        if addresses.is_empty() {
            return None;
        }
        let distributed = self.is_distributed();
        let place = distributed.then_some(self.host);
        let mac = place.map_or_else(|| shared_mac(id, network.id), |host| leg_mac(id, network.id, host));
        let leg = RouterLeg { network: network.id, mac, addresses, distributed };
        let outside = Outside {
            subnets: Vec::new(),
            source_nat: SourceNat::Host,
            floating: BTreeMap::new(),
            coming: BTreeMap::new(),
        };
        Some((id, HostRouter { legs: vec![leg], routes: Vec::new(), outside: Some(outside) }))
    }
}

/// The router whose interface the port is. What another project's port says of a router is not believed.
fn router_of(books: &HostBooks, port: &Port) -> Option<RouterId> {
    let id = port.device_id.parse().ok().filter(|_| port.device_owner == ROUTER_INTERFACE)?;
    books.routers.get(&id).filter(|router| router.project_id == port.project_id).map(|router| router.id)
}

/// On a bridge that the operator made, with addresses that the operator's own means tell.
fn is_operators(network: &Network) -> bool {
    network.network_type.as_deref() == Some("flat")
}

fn host_subnet(network: &Network, subnet: &Subnet) -> HostSubnet {
    HostSubnet {
        cidr: subnet.cidr,
        gateway: subnet.gateway_ip,
        dhcp: subnet.enable_dhcp && !is_operators(network),
        dns: subnet.dns_nameservers.clone(),
        routes: subnet.host_routes.clone(),
        ra_mode: subnet.ipv6_ra_mode.clone(),
    }
}

/// What a port's host must know of it.
pub fn host_port(port: &Port) -> HostPort {
    let is_of_compute = port.device_owner.starts_with("compute:");
    HostPort {
        mac: port.mac_address,
        addresses: port.fixed_ips.iter().map(|fixed| (fixed.subnet_id, fixed.ip_address)).collect(),
        hostname: hostname(port),
        instance: is_of_compute.then(|| port.device_id.parse().ok()).flatten(),
        admin_state_up: port.admin_state_up,
        security: port.port_security_enabled.then(|| PortSecurity {
            groups: port.security_groups.iter().copied().collect(),
            pairs: port.allowed_address_pairs.clone(),
        }),
    }
}

/// Its own, or one of its address as Neutron gives it (`host-10-0-0-5`).
fn hostname(port: &Port) -> String {
    if !port.dns_name.is_empty() {
        return port.dns_name.clone();
    }
    let first = port.fixed_ips.first().map(|fixed| fixed.ip_address.to_string()).unwrap_or_default();
    format!("host-{}", first.replace(['.', ':'], "-"))
}

/// A group as hosts know it: with its rules where a port has it, with its members where a rule names it.
pub fn group_item(group: Option<&SecurityGroup>, members: BTreeSet<Cidr>) -> Group {
    let rules = group.into_iter().flat_map(|group| &group.rules).map(|rule| GroupRule {
        direction: rule.direction,
        ethertype: rule.ethertype,
        protocol: rule.protocol_number(),
        ports: (rule.port_range_min, rule.port_range_max),
        remote: match (rule.remote_group_id, rule.remote_ip_prefix) {
            (Some(group), _) => Remote::Group(group),
            (None, Some(range)) if range.prefix() > 0 => Remote::Prefix(range),
            (None, _) => Remote::Any,
        },
    });
    Group { rules: rules.collect(), members, stateful: group.is_none_or(|group| group.stateful) }
}

/// Addresses of the ports that have one of these groups, with those that they may send from besides.
pub fn members<'a>(
    ports: impl Iterator<Item = &'a Port>,
    groups: &BTreeSet<SecurityGroupId>,
) -> BTreeMap<SecurityGroupId, BTreeSet<Cidr>> {
    let mut members: BTreeMap<SecurityGroupId, BTreeSet<Cidr>> = BTreeMap::new();
    for port in ports {
        for group in port.security_groups.iter().filter(|group| groups.contains(group)) {
            let own = port
                .fixed_ips
                .iter()
                .filter_map(|fixed| Cidr::around(fixed.ip_address, IpVersion::of(fixed.ip_address).bits()));
            let pairs = port.allowed_address_pairs.iter().map(|pair| pair.ip_address);
            members.entry(*group).or_default().extend(own.chain(pairs));
        }
    }
    members
}

/// The MAC address of a router's leg on one host of several: told by what it is, so that every restart finds it again, and
/// in no range that ports are drawn from.
fn leg_mac(router: RouterId, network: NetworkId, host: &HostName) -> MacAddress {
    derived_mac(&format!("{router}/{network}/{host}"))
}

fn shared_mac(router: RouterId, network: NetworkId) -> MacAddress {
    derived_mac(&format!("{router}/{network}"))
}

fn derived_mac(text: &str) -> MacAddress {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0xfa, 0x3f, 0, 0, 0, 0];
    for (byte, drawn) in bytes.iter_mut().skip(2).zip(digest) {
        *byte = drawn;
    }
    MacAddress::from_bytes(bytes)
}

#[cfg(test)]
mod tests;
