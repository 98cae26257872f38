//! Each rule by which a host's network follows from the books.

use jiff::Timestamp;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{FloatingIpId, ProjectId, SecurityGroupRuleId};
use nova_core::network::{
    AddressPair, Direction, EtherType, FixedIp, FloatingIp, Gateway, PortStatus, SecurityGroupRule, VifBinding,
    default_gateway,
};

use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Books that are written line by line.
struct Draft {
    books: HostBooks,
    entropy: SeededEntropy,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Draft {
    fn new() -> Self {
        Self { books: HostBooks::default(), entropy: SeededEntropy::new(1) }
    }

    fn network(&mut self, kind: Option<&str>, change: impl FnOnce(&mut Network)) -> NetworkId {
        let mut network = Network {
            id: NetworkId::generate(&self.entropy),
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            is_default: false,
            mtu: 1450,
            port_security_enabled: true,
            dns_domain: "example.org.".into(),
            network_type: kind.map(str::to_owned),
            physical_network: None,
            segmentation_id: None,
            created_at: NOW,
            updated_at: NOW,
            generation: 1,
        };
        change(&mut network);
        let id = network.id;
        self.books.networks.insert(id, network);
        id
    }

    fn subnet(&mut self, network: NetworkId, cidr: &str) -> SubnetId {
        let cidr: Cidr = cidr.parse().unwrap();
        let subnet = Subnet {
            id: SubnetId::generate(&self.entropy),
            network_id: network,
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            cidr,
            gateway_ip: Some(default_gateway(&cidr)),
            allocation_pools: Vec::new(),
            dns_nameservers: vec![ip("9.9.9.9")],
            host_routes: Vec::new(),
            enable_dhcp: true,
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            shared: false,
            created_at: NOW,
            updated_at: NOW,
            generation: 1,
        };
        let id = subnet.id;
        self.books.subnets.insert(id, subnet);
        id
    }

    fn port(&mut self, network: NetworkId, subnet: SubnetId, address: &str, host: &str) -> PortId {
        self.port_with(network, subnet, address, |port| port.host = (!host.is_empty()).then(|| host.into()))
    }

    fn port_with(
        &mut self,
        network: NetworkId,
        subnet: SubnetId,
        address: &str,
        change: impl FnOnce(&mut Port),
    ) -> PortId {
        let mut port = Port {
            id: PortId::generate(&self.entropy),
            network_id: network,
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            status: PortStatus::Down,
            mac_address: MacAddress::generate(&self.entropy),
            fixed_ips: vec![FixedIp { subnet_id: subnet, ip_address: ip(address) }],
            device_id: String::new(),
            device_owner: "compute:nova".into(),
            host: None,
            binding: VifBinding::default(),
            security_groups: Vec::new(),
            allowed_address_pairs: Vec::new(),
            port_security_enabled: true,
            dns_name: String::new(),
            delete_with_device: false,
            created_at: NOW,
            updated_at: NOW,
            generation: 1,
        };
        change(&mut port);
        let id = port.id;
        self.books.ports.insert(id, port);
        id
    }

    fn router(&mut self, legs: &[(NetworkId, SubnetId, &str)], outer: Option<(NetworkId, SubnetId, &str)>) -> RouterId {
        let id = RouterId::generate(&self.entropy);
        for (network, subnet, address) in legs {
            self.port_with(*network, *subnet, address, |port| {
                port.device_id = id.to_string();
                port.device_owner = ROUTER_INTERFACE.into();
            });
        }
        let gateway = outer.map(|(network_id, subnet_id, address)| Gateway {
            network_id,
            enable_snat: true,
            port_id: PortId::generate(&self.entropy),
            external_fixed_ips: vec![FixedIp { subnet_id, ip_address: ip(address) }],
        });
        let router = Router {
            id,
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            gateway,
            routes: Vec::new(),
            created_at: NOW,
            updated_at: NOW,
            generation: 1,
        };
        self.books.routers.insert(id, router);
        id
    }

    fn group(&mut self, rules: &[(Option<SecurityGroupId>, Option<&str>, Option<&str>)]) -> SecurityGroupId {
        let id = SecurityGroupId::generate(&self.entropy);
        let rule =
            |(remote, range, protocol): &(Option<SecurityGroupId>, Option<&str>, Option<&str>)| SecurityGroupRule {
                id: SecurityGroupRuleId::generate(&self.entropy),
                security_group_id: id,
                project_id: "p".into(),
                description: String::new(),
                direction: Direction::Ingress,
                ethertype: if range.is_some_and(|range| range.contains(':')) { EtherType::V6 } else { EtherType::V4 },
                protocol: protocol.map(str::to_owned),
                port_range_min: None,
                port_range_max: None,
                remote_ip_prefix: range.map(|range| range.parse().unwrap()),
                remote_group_id: *remote,
                created_at: NOW,
            };
        let rules = rules.iter().map(rule).collect();
        let group = SecurityGroup {
            id,
            project_id: ProjectId::from("p"),
            name: "web".into(),
            description: String::new(),
            is_default: false,
            stateful: true,
            rules,
            created_at: NOW,
            updated_at: NOW,
            generation: 1,
        };
        self.books.groups.insert(id, group);
        id
    }

    fn tunnel(&mut self, host: &str, address: &str) {
        self.books.tunnels.insert(host.into(), ip(address));
    }

    fn on(&self, host: &str) -> HostNetwork {
        host_network(&self.books, &host.into(), &Gateways::EveryHost)
    }

    fn with_node(&self, host: &str) -> HostNetwork {
        host_network(&self.books, &host.into(), &Gateways::Node("node".into()))
    }

    fn change_port(&mut self, id: PortId, change: impl FnOnce(&mut Port)) {
        change(self.books.ports.get_mut(&id).unwrap());
    }
}

#[test]
fn a_host_has_the_networks_of_its_ports() {
    let mut draft = Draft::new();
    let (one, two) = (draft.network(Some("local"), |_| {}), draft.network(None, |n| n.admin_state_up = false));
    let (first, second) = (draft.subnet(one, "10.0.0.0/24"), draft.subnet(two, "10.0.0.0/24"));
    let here = draft.port(one, first, "10.0.0.5", "h1");
    let there = draft.port(one, first, "10.0.0.6", "h2");
    draft.port(one, first, "10.0.0.7", "");
    draft.port(two, second, "10.0.0.5", "h2");
    let network = draft.on("h1");
    assert_eq!(network.segments.keys().copied().collect::<Vec<_>>(), [one]);
    let segment = &network.segments[&one];
    assert!(segment.serves && segment.admin_state_up);
    assert_eq!((segment.mtu, segment.dns_domain.as_str(), &segment.carrier), (1450, "example.org.", &Carrier::Local));
    assert_eq!(segment.ports.keys().copied().collect::<Vec<_>>(), [here]);
    let elsewhere: Vec<_> = segment.elsewhere.iter().map(|port| port.mac).collect();
    assert_eq!(elsewhere, [draft.books.ports[&there].mac_address], "what is bound nowhere is nowhere");
    assert!(segment.subnets[&first].dhcp);
    assert!(!draft.on("h2").segments[&two].admin_state_up);
    assert_eq!(draft.on("h3"), HostNetwork::default());
}

/// The host that a server comes to has its port, with the rules, before it is bound there; nothing leads to it yet.
#[test]
fn a_port_is_ready_where_its_server_comes_to() {
    let mut draft = Draft::new();
    let one = draft.network(Some("local"), |_| {});
    let subnet = draft.subnet(one, "10.0.0.0/24");
    let port = draft.port(one, subnet, "10.0.0.5", "h1");
    let before = draft.on("h1");
    draft.books.ports.get_mut(&port).unwrap().set_migrating_to(Some(&"h2".into()));
    assert_eq!(draft.on("h1"), before);
    let network = draft.on("h2");
    let segment = &network.segments[&one];
    assert!(segment.ports.contains_key(&port) && segment.elsewhere.is_empty() && segment.serves);
    assert!(!draft.on("h3").segments.contains_key(&one));
}

#[test]
fn what_carries_a_network_follows_its_type() {
    let mut draft = Draft::new();
    let wire = || Some("one".to_owned());
    for (kind, physical, number, carrier, serves) in [
        (Some("flat"), wire(), None, Carrier::Bridge { physical_network: "one".into() }, false),
        (Some("flat_dhcp"), wire(), None, Carrier::Flat { physical_network: wire() }, true),
        (Some("flat_dhcp"), None, None, Carrier::Flat { physical_network: None }, true),
        (Some("vlan"), wire(), Some(7), Carrier::Vlan { physical_network: "one".into(), tag: 7 }, true),
        (Some("vxlan"), None, Some(70_000), Carrier::Vxlan { vni: 70_000, peers: BTreeSet::new() }, true),
        (Some("local"), None, None, Carrier::Local, true),
        (None, None, None, Carrier::Local, true),
    ] {
        let id = draft.network(kind, |n| (n.physical_network, n.segmentation_id) = (physical, number));
        let subnet = draft.subnet(id, "10.0.0.0/24");
        draft.port(id, subnet, "10.0.0.5", "h1");
        let segment = draft.on("h1").segments.remove(&id).unwrap();
        assert_eq!((&segment.carrier, segment.serves), (&carrier, serves), "{kind:?}");
        assert_eq!(
            segment.subnets[&subnet].dhcp, serves,
            "addresses on the operator's bridge are the operator's to tell"
        );
    }
}

#[test]
fn tunnels_lead_to_the_other_hosts_of_the_network() {
    let mut draft = Draft::new();
    let id = draft.network(Some("vxlan"), |n| n.segmentation_id = Some(5));
    let subnet = draft.subnet(id, "10.0.0.0/24");
    for (n, host) in ["h1", "h1", "h2", "h3"].into_iter().enumerate() {
        draft.port(id, subnet, &format!("10.0.0.{}", n + 5), host);
    }
    for (host, address) in [("h1", "192.0.2.1"), ("h2", "192.0.2.2"), ("h9", "192.0.2.9"), ("node", "192.0.2.99")] {
        draft.tunnel(host, address);
    }
    let segment = draft.on("h1").segments.remove(&id).unwrap();
    let Carrier::Vxlan { peers, .. } = segment.carrier else { panic!("{segment:?}") };
    assert_eq!(peers, BTreeSet::from([ip("192.0.2.2")]), "h3 was not heard of yet");
    let tunnels: BTreeSet<_> = segment.elsewhere.iter().map(|port| port.tunnel).collect();
    assert_eq!(tunnels, BTreeSet::from([None, Some(ip("192.0.2.2"))]));
    let segment = draft.with_node("h1").segments.remove(&id).unwrap();
    let Carrier::Vxlan { peers, .. } = segment.carrier else { panic!("{segment:?}") };
    assert_eq!(peers, BTreeSet::from([ip("192.0.2.2"), ip("192.0.2.99")]), "the node answers for the gateway");
    assert!(!segment.serves, "that is the node's");
}

#[test]
fn ports_are_told_with_what_may_pass() {
    let mut draft = Draft::new();
    let id = draft.network(Some("local"), |_| {});
    let subnet = draft.subnet(id, "10.0.0.0/24");
    let group = draft.group(&[]);
    let server = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6";
    let pair = AddressPair { ip_address: "10.9.0.0/24".parse().unwrap(), mac_address: None };
    let guarded = draft.port(id, subnet, "10.0.0.5", "h1");
    draft.change_port(guarded, |port| {
        (port.device_id, port.dns_name) = (server.into(), "web".into());
        port.security_groups = vec![group];
        port.allowed_address_pairs = vec![pair.clone()];
    });
    let open = draft.port(id, subnet, "10.0.0.6", "h1");
    draft.change_port(open, |port| {
        (port.device_id, port.device_owner) = (server.into(), String::new());
        (port.port_security_enabled, port.admin_state_up) = (false, false);
    });
    let ports = draft.on("h1").segments.remove(&id).unwrap().ports;
    let security = PortSecurity { groups: BTreeSet::from([group]), pairs: vec![pair] };
    assert_eq!(ports[&guarded].security, Some(security));
    assert_eq!((ports[&guarded].instance, ports[&guarded].hostname.as_str()), (server.parse().ok(), "web"));
    assert_eq!((&ports[&open].security, ports[&open].admin_state_up), (&None, false));
    assert_eq!(ports[&open].hostname, "host-10-0-0-6");
    assert_eq!(ports[&open].instance, None, "only compute says whose guest a port is");
}

#[test]
fn groups_have_rules_where_a_port_has_them_and_members_where_a_rule_names_them() {
    let mut draft = Draft::new();
    let id = draft.network(Some("local"), |_| {});
    let subnet = draft.subnet(id, "10.0.0.0/24");
    let db = draft.group(&[]);
    let web = draft.group(&[
        (Some(db), None, Some("tcp")),
        (None, Some("10.0.0.0/8"), Some("icmp")),
        (None, Some("::/0"), Some("icmp")),
        (None, None, Some("ip")),
    ]);
    let unused = draft.group(&[(Some(web), None, None)]);
    let here = draft.port(id, subnet, "10.0.0.5", "h1");
    draft.change_port(here, |port| port.security_groups = vec![web]);
    let member = draft.port(id, subnet, "10.0.0.6", "");
    draft.change_port(member, |port| {
        port.security_groups = vec![db];
        let pair = AddressPair { ip_address: "10.9.0.0/24".parse().unwrap(), mac_address: None };
        port.allowed_address_pairs = vec![pair];
    });
    let groups = draft.on("h1").groups;
    assert!(!groups.contains_key(&unused));
    assert!(groups[&web].members.is_empty() && groups[&db].rules.is_empty());
    let members: Vec<String> = groups[&db].members.iter().map(Cidr::to_string).collect();
    assert_eq!(members, ["10.0.0.6/32", "10.9.0.0/24"], "bound or not, with its pairs");
    let rules: BTreeSet<_> = groups[&web].rules.iter().map(|rule| (rule.protocol, rule.remote.clone())).collect();
    let range = Remote::Prefix("10.0.0.0/8".parse().unwrap());
    let expected = [(Some(6), Remote::Group(db)), (Some(1), range), (Some(58), Remote::Any), (None, Remote::Any)];
    assert_eq!(rules, BTreeSet::from(expected));
    draft.change_port(here, |port| port.port_security_enabled = false);
    assert!(draft.on("h1").groups.is_empty());
}

/// Two inner networks and an outer one with a router between them; guests on two hosts.
fn routed() -> (Draft, [NetworkId; 2], RouterId) {
    let mut draft = Draft::new();
    let (one, two) = (draft.network(Some("local"), |_| {}), draft.network(Some("local"), |_| {}));
    let (first, second) = (draft.subnet(one, "10.1.0.0/24"), draft.subnet(two, "10.2.0.0/24"));
    let outer = NetworkId::generate(&draft.entropy);
    let outside = draft.subnet(outer, "192.0.2.0/24");
    let legs = [(one, first, "10.1.0.1"), (two, second, "10.2.0.1")];
    let router = draft.router(&legs, Some((outer, outside, "192.0.2.7")));
    for (n, (subnet, address, host)) in [(first, "10.1.0.5", "h1"), (second, "10.2.0.5", "h2")].into_iter().enumerate()
    {
        let port = draft.port(draft.books.subnets[&subnet].network_id, subnet, address, host);
        draft.books.floating_ips.push(FloatingIp {
            id: FloatingIpId::generate(&draft.entropy),
            project_id: "p".into(),
            description: String::new(),
            floating_network_id: outer,
            subnet_id: outside,
            floating_ip_address: ip(&format!("192.0.2.5{n}")),
            port_id: Some(port),
            fixed_ip_address: Some(ip(address)),
            router_id: Some(router),
            created_at: NOW,
            updated_at: NOW,
            generation: 1,
        });
    }
    (draft, [one, two], router)
}

#[test]
fn every_host_is_the_router_of_its_guests() {
    let (draft, [one, two], id) = routed();
    let (here, there) = (draft.on("h1"), draft.on("h2"));
    assert_eq!(here.segments.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([one, two]));
    assert!(here.segments[&one].serves && !here.segments[&two].serves, "nobody asks there");
    assert_eq!(here.segments[&two].elsewhere.len(), 1, "known, so that packets go there directly");
    let router = &here.routers[&id];
    assert_eq!(router.legs.iter().map(|leg| leg.network).collect::<BTreeSet<_>>(), BTreeSet::from([one, two]));
    assert!(router.legs.iter().all(|leg| leg.distributed));
    let macs = |network: &HostNetwork| network.routers[&id].legs.iter().map(|leg| leg.mac).collect::<BTreeSet<_>>();
    assert_eq!(macs(&here), macs(&draft.on("h1")), "the same every time");
    assert!(macs(&here).is_disjoint(&macs(&there)) && macs(&here).len() == 2, "each leg its own");
    assert!(macs(&here).iter().all(MacAddress::is_unicast));
    let outside = router.outside.as_ref().unwrap();
    assert_eq!(outside.source_nat, SourceNat::Host, "the router's own address can't be on every host");
    assert_eq!(outside.subnets, [("192.0.2.0/24".parse().unwrap(), Some(ip("192.0.2.1")))]);
    assert_eq!(outside.floating, BTreeMap::from([(ip("192.0.2.50"), ip("10.1.0.5"))]), "only those of guests here");
}

/// What a guest sends in its first moments there is let through, and is from its own address.
#[test]
fn the_host_that_a_server_comes_to_has_its_rules_and_floating_address() {
    let (mut draft, _, id) = routed();
    let group = draft.group(&[]);
    let port = *draft.books.ports.iter().find(|(_, port)| port.host == Some("h1".into())).unwrap().0;
    draft.change_port(port, |port| {
        port.security_groups = vec![group];
        port.set_migrating_to(Some(&"h2".into()));
    });
    let there = draft.on("h2");
    assert!(there.groups.contains_key(&group));
    let outside = there.routers[&id].outside.as_ref().unwrap();
    let pair = |floating: &str, fixed: &str| BTreeMap::from([(ip(floating), ip(fixed))]);
    assert_eq!(outside.coming, pair("192.0.2.50", "10.1.0.5"));
    assert_eq!(outside.floating, pair("192.0.2.51", "10.2.0.5"), "nothing leads to it yet");
    let here = draft.on("h1").routers[&id].outside.clone().unwrap();
    assert_eq!((here.floating, here.coming), (pair("192.0.2.50", "10.1.0.5"), BTreeMap::new()));
    let node = draft.with_node("node").routers[&id].outside.clone().unwrap();
    assert_eq!((node.floating.len(), node.coming.len()), (2, 0));
}

#[test]
fn the_one_node_is_everybodys_router() {
    let (draft, [one, two], id) = routed();
    let node = draft.with_node("node");
    assert_eq!(node.segments.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([one, two]));
    assert!(node.segments.values().all(|segment| segment.serves && segment.ports.is_empty()));
    let router = &node.routers[&id];
    let interfaces: BTreeSet<_> =
        draft.books.ports.values().filter(|p| p.is_of_router()).map(|p| p.mac_address).collect();
    assert_eq!(router.legs.iter().map(|leg| leg.mac).collect::<BTreeSet<_>>(), interfaces);
    assert!(router.legs.iter().all(|leg| !leg.distributed));
    let outside = router.outside.as_ref().unwrap();
    assert_eq!((outside.source_nat, outside.floating.len()), (SourceNat::Address(ip("192.0.2.7")), 2));
    let guest = draft.with_node("h1");
    assert_eq!(guest.segments.keys().copied().collect::<Vec<_>>(), [one]);
    assert!(guest.routers.is_empty() && !guest.segments[&one].serves);
}

#[test]
fn routers_that_are_off_or_joined_to_nothing_route_nothing() {
    let (mut draft, [one, _], id) = routed();
    let router = draft.books.routers.get_mut(&id).unwrap();
    router.gateway.as_mut().unwrap().enable_snat = false;
    let snat = |draft: &Draft| draft.on("h1").routers[&id].outside.as_ref().unwrap().source_nat;
    assert_eq!(snat(&draft), SourceNat::None);
    draft.books.routers.get_mut(&id).unwrap().gateway = None;
    assert_eq!(draft.on("h1").routers[&id].outside, None);
    draft.books.routers.get_mut(&id).unwrap().admin_state_up = false;
    assert!(draft.on("h1").routers.is_empty());
    assert_eq!(draft.on("h1").segments.keys().copied().collect::<Vec<_>>(), [one]);
    let lonely = draft.router(&[], None);
    assert!(!draft.on("h1").routers.contains_key(&lonely));
}

#[test]
fn two_subnets_of_one_network_are_one_leg() {
    let mut draft = Draft::new();
    let id = draft.network(Some("local"), |_| {});
    let (v4, v6) = (draft.subnet(id, "10.0.0.0/24"), draft.subnet(id, "2001:db8::/64"));
    let router = draft.router(&[(id, v4, "10.0.0.1"), (id, v6, "2001:db8::1")], None);
    draft.port(id, v4, "10.0.0.5", "h1");
    let legs = draft.on("h1").routers.remove(&router).unwrap().legs;
    let addresses: BTreeSet<_> = legs[0].addresses.iter().map(|(address, _)| *address).collect();
    assert_eq!((legs.len(), addresses), (1, BTreeSet::from([ip("10.0.0.1"), ip("2001:db8::1")])));
}

#[test]
fn a_flat_network_with_dhcp_has_a_gateway_by_itself() {
    let mut draft = Draft::new();
    let id = draft.network(Some("flat_dhcp"), |_| {});
    let (first, second) = (draft.subnet(id, "10.0.0.0/24"), draft.subnet(id, "10.1.0.0/24"));
    draft.port(id, first, "10.0.0.5", "h1");
    let implicit = RouterId::from_uuid(*id.as_uuid());
    let router = draft.on("h1").routers.remove(&implicit).unwrap();
    assert_eq!(router.legs[0].addresses.len(), 2);
    assert_eq!(router.outside.as_ref().unwrap().source_nat, SourceNat::Host);
    assert!(draft.on("h2").routers.is_empty());
    assert!(draft.with_node("h1").routers.is_empty());
    assert!(!draft.with_node("node").routers[&implicit].legs[0].distributed);
    // A router of its own takes over where it is.
    let own = draft.router(&[(id, second, "10.1.0.1")], None);
    let routers = draft.on("h1").routers;
    assert_eq!(routers[&implicit].legs[0].addresses[0].0, ip("10.0.0.1"));
    assert_eq!(routers[&own].legs[0].addresses[0].0, ip("10.1.0.1"));
}

/// The speed that hosts with many ports need; the reading is not in it.
#[test]
fn a_thousand_ports_of_twenty_rules_are_a_matter_of_milliseconds() {
    let mut draft = Draft::new();
    let id = draft.network(Some("local"), |_| {});
    let subnet = draft.subnet(id, "10.0.0.0/16");
    let ranges: Vec<String> = (0..20).map(|n| format!("10.{n}.0.0/16")).collect();
    let rules: Vec<_> = ranges.iter().map(|range| (None, Some(range.as_str()), Some("tcp"))).collect();
    let groups: Vec<SecurityGroupId> = (0..50).map(|_| draft.group(&rules)).collect();
    for n in 0..1000_usize {
        let port = draft.port(id, subnet, &format!("10.0.{}.{}", n / 250, n % 250 + 2), "h1");
        let group = groups[n % groups.len()];
        draft.change_port(port, |port| port.security_groups = vec![group]);
    }
    let began = std::time::Instant::now();
    let network = draft.on("h1");
    let digests = network.digests();
    let took = began.elapsed();
    assert_eq!((network.segments[&id].ports.len(), digests.len()), (1000, 51));
    println!("{took:?}");
    // Without optimization, on a busy machine; a release build takes a tenth.
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_port_of_another_project_is_no_interface() {
    let mut draft = Draft::new();
    let id = draft.network(Some("flat_dhcp"), |_| {});
    let subnet = draft.subnet(id, "10.0.0.0/24");
    draft.port(id, subnet, "10.0.0.9", "h1");
    let before = draft.on("h1").routers;
    let router = draft.router(&[(id, subnet, "10.0.0.1")], None);
    assert!(draft.on("h1").routers.contains_key(&router));
    for port in draft.books.ports.values_mut().filter(|port| port.device_owner == ROUTER_INTERFACE) {
        port.project_id = "other".into();
    }
    assert_eq!(draft.on("h1").routers, before, "neither a leg, nor the gateway taken from the network");
}
