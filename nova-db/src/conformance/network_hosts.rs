//! What carries networks, what hosts are to be, and what they say of themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nova_core::ids::{HostName, NetworkAgentId, PortId};
use nova_core::network::{Network, NetworkAgent, NetworkState, Port, PortStatus, SecurityGroup, Subnet};
use nova_core::rpc::network::BooksChangedRequest;

use super::fixtures::{Make, at};
use super::networks::{not_found, plug, problem, wired};
use super::races::all_at_once;
use super::routers::joined;
use crate::{HostScope, Kind, NewInterface, PortChange, SegmentRange, ServiceQuery, Store, StoreError};

fn on_wire(network: Network, kind: &str, wire: Option<&str>, number: Option<u32>) -> Network {
    let physical_network = wire.map(str::to_owned);
    Network { network_type: Some(kind.into()), physical_network, segmentation_id: number, ..network }
}

fn vlans(wire: &str, first: u32, last: u32) -> SegmentRange {
    SegmentRange { physical_network: Some(wire.into()), first, last }
}

/// A tag, an identifier or a whole wire is one network's; it keeps it while it is there, whatever is written over it.
pub async fn segments_are_one_networks(store: &Arc<dyn Store>) {
    let make = Make::new();
    let new = |kind, wire, number| store.create_network(on_wire(make.network("p"), kind, wire, number), None);
    let vlan = new("vlan", Some("one"), Some(7)).await.unwrap();
    assert_eq!(problem(new("vlan", Some("one"), Some(7)).await).name(), "VlanIdInUse");
    new("vlan", Some("two"), Some(7)).await.unwrap();
    new("vxlan", None, Some(7)).await.unwrap();
    assert_eq!(problem(new("vxlan", None, Some(7)).await).name(), "TunnelIdInUse");
    new("flat", Some("one"), None).await.unwrap();
    for kind in ["flat", "flat_dhcp"] {
        assert_eq!(problem(new(kind, Some("one"), None).await).name(), "FlatNetworkInUse");
    }
    for _ in 0..2 {
        new("local", None, None).await.unwrap();
        new("flat_dhcp", None, None).await.unwrap();
    }
    let changed = store.update_network(on_wire(vlan.clone(), "vxlan", None, Some(9))).await.unwrap();
    assert_eq!((changed.network_type, changed.segmentation_id), (vlan.network_type.clone(), Some(7)));
    new("vxlan", None, Some(9)).await.expect("nobody has it");
    store.delete_network(vlan.id).await.unwrap();
    new("vlan", Some("one"), Some(7)).await.expect("it is free again");
}

/// Many who want one of few get each another one; nobody gets what is not there; what is given back is found again.
pub async fn drawn_segments_are_apart(store: &Arc<dyn Store>) {
    let make = Make::new();
    let ranges = vec![vlans("one", 10, 14), vlans("two", 4094, 4094), vlans("one", 20, 23)];
    let drafts: Vec<(Network, u64)> =
        (0..14_u64).map(|n| (on_wire(make.network("p"), "vlan", None, None), n * 0x9e37_79b9)).collect();
    let answers = all_at_once(drafts, |(network, draw)| {
        let (store, ranges) = (Arc::clone(store), ranges.clone());
        async move { store.create_network_in(network, ranges, draw, None).await }
    })
    .await;
    let mut got = BTreeMap::new();
    for answer in answers {
        match answer {
            Ok(network) => {
                let key = (network.physical_network.clone(), network.segmentation_id);
                assert!(got.insert(key, network.id).is_none(), "twice");
            }
            Err(StoreError::Network(problem)) => assert_eq!(problem.name(), "NoNetworkAvailable"),
            Err(other) => panic!("{other:?}"),
        }
    }
    let wires: Vec<_> = got.keys().map(|(wire, tag)| (wire.clone().unwrap(), tag.unwrap())).collect();
    let expected = (10..=14).chain(20..=23).map(|tag| ("one".to_owned(), tag)).chain([("two".to_owned(), 4094)]);
    assert_eq!(wires, expected.collect::<Vec<_>>());
    store.delete_network(got[&(Some("one".to_owned()), Some(12))]).await.unwrap();
    let again = on_wire(make.network("p"), "vlan", None, None);
    let again = store.create_network_in(again, ranges, u64::MAX, None).await.unwrap();
    assert_eq!(again.segmentation_id, Some(12));
    let none = store.create_network_in(make.network("p"), Vec::new(), 1, None).await;
    assert_eq!(problem(none).name(), "NoNetworkAvailable");
}

fn agent(make: &Make, host: &str, seconds: i64) -> NetworkAgent {
    NetworkAgent {
        host: host.into(),
        id: NetworkAgentId::generate(&make.0),
        plumbing: "linux".into(),
        tunnel_ip: Some("192.0.2.1".parse().unwrap()),
        physical_networks: vec!["one".into()],
        created_at: at(seconds),
        heard_at: at(seconds),
    }
}

fn state(host: &str, digest: &str) -> NetworkState {
    let applied = [("segment:1".to_owned(), digest.to_owned())].into();
    NetworkState { host: host.into(), applied, problems: vec!["no".into()], reported_at: at(1) }
}

/// A host is known from when it is first heard of until it is removed, under one id; with its compute service it goes.
pub async fn network_agents_are_heard(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (first, new) = store.hear_network_agent(agent(&make, "h1", 1)).await.unwrap();
    assert!(new);
    let (again, new) = store.hear_network_agent(agent(&make, "h1", 5)).await.unwrap();
    assert_eq!((again.id, again.created_at, again.heard_at, new), (first.id, at(1), at(5), false));
    let late = store.hear_network_agent(agent(&make, "h1", 3)).await.unwrap().0;
    assert_eq!(late.heard_at, at(5), "a word that was overtaken on its way changes nothing");
    let moved = NetworkAgent { tunnel_ip: Some("192.0.2.9".parse().unwrap()), ..agent(&make, "h1", 6) };
    let (moved, new) = store.hear_network_agent(moved).await.unwrap();
    assert!(new);
    assert_eq!(store.get_network_agent(first.id).await.unwrap(), moved);
    store.hear_network_agent(agent(&make, "h2", 1)).await.unwrap();
    let hosts: Vec<_> = store.list_network_agents(None).await.unwrap().into_iter().map(|a| a.host).collect();
    assert_eq!(hosts, [HostName::from("h1"), "h2".into()]);
    assert_eq!(store.list_network_agents(Some(&["h2".into(), "h3".into()])).await.unwrap().len(), 1);
    assert_eq!(store.get_network_state(&"h1".into()).await.unwrap(), None);
    for digest in ["a", "b"] {
        store.report_network(state("h1", digest), BTreeMap::new()).await.unwrap();
    }
    assert_eq!(store.get_network_state(&"h1".into()).await.unwrap(), Some(state("h1", "b")));
    store.delete_network_agent(first.id).await.unwrap();
    not_found(store.get_network_agent(first.id).await, Kind::NetworkAgent);
    not_found(store.delete_network_agent(first.id).await, Kind::NetworkAgent);
    assert_eq!(store.get_network_state(&"h1".into()).await.unwrap(), None);
    store.record_beats(&[make.beat("h2", 1)]).await.unwrap();
    let query = ServiceQuery::computes([&HostName::from("h2")]);
    let service = store.find_services(&query).await.unwrap().remove(0);
    store.delete_service(service.id).await.unwrap();
    assert_eq!(store.list_network_agents(None).await.unwrap(), []);
}

async fn bound(store: &dyn Store, make: &Make, network: &Network, host: &str, groups: &[&SecurityGroup]) -> Port {
    let mut new = make.port(network, "p");
    new.port.host = (!host.is_empty()).then(|| host.into());
    new.port.security_groups = groups.iter().map(|group| group.id).collect();
    plug(store, new).await.unwrap()
}

/// A host says how its own ports are, and nobody else's.
pub async fn hosts_report_their_own_ports(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, _) = wired(&**store, &make, "10.0.0.0/24").await;
    let own = bound(&**store, &make, &network, "h1", &[]).await;
    let same = bound(&**store, &make, &network, "h1", &[]).await;
    let foreign = bound(&**store, &make, &network, "h2", &[]).await;
    let free = bound(&**store, &make, &network, "", &[]).await;
    let mut ports: BTreeMap<_, _> = [&own, &foreign, &free].map(|port| (port.id, PortStatus::Active)).into();
    ports.insert(same.id, PortStatus::Down);
    let changed = store.report_network(state("h1", "a"), ports.clone()).await.unwrap();
    assert_eq!(changed.iter().map(|port| port.id).collect::<Vec<_>>(), [own.id]);
    let read = store.get_port(own.id).await.unwrap();
    assert_eq!((read.status, read.generation), (PortStatus::Active, own.generation + 1));
    for port in [&same, &foreign, &free] {
        assert_eq!(store.get_port(port.id).await.unwrap(), *port);
    }
    assert_eq!(store.report_network(state("h1", "a"), ports).await.unwrap(), []);
}

/// Everything that a host's network is made of, and no more.
pub async fn books_of_a_host_are_complete(store: &Arc<dyn Store>) {
    let make = Make::new();
    let scope = HostScope { host: "h1".into(), network_node: None };
    assert_eq!(store.host_books(&scope).await.unwrap(), Default::default());
    let net = joined(&**store, &make).await;
    let (other, other_subnet) = wired(&**store, &make, "10.1.0.0/24").await;
    let port = Box::new(make.port(&other, "p"));
    store.add_router_interface(net.router.id, NewInterface::Subnet { subnet_id: other_subnet.id, port }).await.unwrap();
    let (apart, _) = wired(&**store, &make, "10.2.0.0/24").await;
    let web = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let named = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let mut rule = make.rule(&web, "tcp");
    rule.remote_group_id = Some(named.id);
    store.create_security_group_rules(vec![rule], None).await.unwrap();
    let here = bound(&**store, &make, &net.inner.0, "h1", &[&web]).await;
    let there = bound(&**store, &make, &other, "h2", &[]).await;
    let member = bound(&**store, &make, &apart, "h3", &[&named]).await;
    let unseen = bound(&**store, &make, &apart, "h3", &[]).await;
    for host in ["h2", "h3", "h9"] {
        store.hear_network_agent(agent(&make, host, 1)).await.unwrap();
    }
    let books = store.host_books(&scope).await.unwrap();
    let networks: BTreeSet<_> = books.networks.keys().copied().collect();
    assert_eq!(networks, BTreeSet::from([net.inner.0.id, other.id]), "a router joins the second");
    let subnets: BTreeSet<_> = books.subnets.keys().copied().collect();
    assert_eq!(subnets, BTreeSet::from([net.inner.1.id, other_subnet.id, net.outer.1.id]));
    for (port, known) in [(&here, true), (&there, true), (&member, true), (&unseen, false)] {
        assert_eq!(books.ports.contains_key(&port.id), known, "{port:?}");
    }
    assert_eq!(books.groups.keys().copied().collect::<Vec<_>>(), [web.id]);
    assert_eq!(books.groups[&web.id].rules.len(), 3);
    assert_eq!(books.routers.keys().copied().collect::<Vec<_>>(), [net.router.id]);
    let tunnels: Vec<_> = books.tunnels.keys().map(HostName::as_str).collect();
    assert_eq!(tunnels, ["h2", "h3"]);
    let node = HostScope { host: "h1".into(), network_node: Some("h1".into()) };
    assert!(store.host_books(&node).await.unwrap().networks.contains_key(&apart.id), "it is everybody's node");
    comes_and_goes(&**store, here.id, &scope.host).await;
}

/// A port whose server comes to a host while it runs is that host's business, until it is there or stays.
async fn comes_and_goes(store: &dyn Store, port: PortId, from: &HostName) {
    let to = HostName::from("h8");
    let knows = async |host: &HostName| {
        let scope = HostScope { host: host.clone(), network_node: None };
        let books = store.host_books(&scope).await.unwrap();
        books.ports.get(&port).is_some_and(|port| books.groups.len() == port.security_groups.len())
    };
    let write = async |change: &dyn Fn(&mut Port)| {
        let mut port = store.get_port(port).await.unwrap();
        change(&mut port);
        store.update_port(PortChange { port, fixed_ips: None, draw: 0 }).await.unwrap()
    };
    for stays in [true, false] {
        assert!(!knows(&to).await);
        let before = store.books_version().await.unwrap();
        write(&|port| port.set_migrating_to(Some(&to))).await;
        assert!(store.books_version().await.unwrap() > before, "hosts that ask are told");
        assert!(knows(&to).await && knows(from).await);
        write(&|port| {
            port.set_migrating_to(None);
            if !stays {
                port.host = Some(to.clone());
            }
        })
        .await;
    }
    assert!(knows(&to).await);
    write(&|port| port.set_migrating_to(Some(from))).await;
    assert!(knows(from).await);
    store.delete_port(port).await.unwrap();
    assert!(!knows(from).await && !knows(&to).await);
}

/// A change concerns hosts with ports that it is about, also behind routers and by rules that name a group.
pub async fn changes_concern_hosts(store: &Arc<dyn Store>) {
    let make = Make::new();
    let net = joined(&**store, &make).await;
    let (other, other_subnet) = wired(&**store, &make, "10.1.0.0/24").await;
    let port = Box::new(make.port(&other, "p"));
    store.add_router_interface(net.router.id, NewInterface::Subnet { subnet_id: other_subnet.id, port }).await.unwrap();
    let (apart, _) = wired(&**store, &make, "10.2.0.0/24").await;
    let web = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let named = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let mut rule = make.rule(&web, "tcp");
    rule.remote_group_id = Some(named.id);
    store.create_security_group_rules(vec![rule], None).await.unwrap();
    bound(&**store, &make, &net.inner.0, "h1", &[]).await;
    bound(&**store, &make, &other, "h2", &[&named]).await;
    bound(&**store, &make, &apart, "h3", &[&web]).await;
    bound(&**store, &make, &apart, "", &[&web]).await;
    let none = BooksChangedRequest::default();
    for (change, expected) in [
        (none.clone(), vec![]),
        (BooksChangedRequest { networks: vec![net.inner.0.id], ..none.clone() }, vec!["h1", "h2"]),
        (BooksChangedRequest { networks: vec![apart.id], ..none.clone() }, vec!["h3"]),
        (BooksChangedRequest { routers: vec![net.router.id], ..none.clone() }, vec!["h1", "h2"]),
        (BooksChangedRequest { groups: vec![web.id], ..none.clone() }, vec!["h3"]),
        (BooksChangedRequest { groups: vec![named.id], ..none.clone() }, vec!["h2", "h3"]),
        (BooksChangedRequest { hosts: vec!["h7".into()], ..none.clone() }, vec!["h7"]),
        (BooksChangedRequest { projects: vec!["p".into()], ..none.clone() }, vec!["h1", "h2", "h3"]),
    ] {
        let hosts: Vec<HostName> = store.hosts_concerned(&change).await.unwrap().into_iter().collect();
        assert_eq!(hosts, expected.into_iter().map(HostName::from).collect::<Vec<_>>(), "{change:?}");
    }
    store.hear_network_agent(agent(&make, "h3", 1)).await.unwrap();
    store.report_network(state("h3", "a"), BTreeMap::new()).await.unwrap();
    let books = store.group_books(named.id).await.unwrap();
    assert_eq!((books.ports.len(), books.named_on), (1, BTreeSet::from(["h3".into()])));
    assert_eq!((books.agents.len(), books.states.len()), (1, 1));
}

/// Each change of what hosts could be told raises the version of the books, and nothing else does.
pub async fn books_have_a_version(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut before = store.books_version().await.unwrap();
    let mut raised = async |what: &str, expected: bool| {
        let now = store.books_version().await.unwrap();
        assert_eq!(now > std::mem::replace(&mut before, now), expected, "{what}");
    };
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    raised("a network with a subnet", true).await;
    let group = store.default_security_group(make.security_group("p", true)).await.unwrap();
    raised("a group", true).await;
    store.default_security_group(make.security_group("p", true)).await.unwrap();
    raised("a group that is there", false).await;
    let port = bound(&**store, &make, &network, "h1", &[&group]).await;
    raised("a port", true).await;
    let moved = PortChange { port: Port { host: Some("h2".into()), ..port.clone() }, fixed_ips: None, draw: 0 };
    let port = store.update_port(moved).await.unwrap();
    raised("another host", true).await;
    let states = BTreeMap::from([(port.id, PortStatus::Active)]);
    store.set_port_statuses(&"h2".into(), &states).await.unwrap();
    store.report_network(state("h2", "a"), BTreeMap::from([(port.id, PortStatus::Down)])).await.unwrap();
    raised("how a port works", false).await;
    let rules = store.get_security_group(group.id).await.unwrap().rules;
    store.delete_security_group_rule(rules[0].id).await.unwrap();
    raised("a rule less", true).await;
    store.create_security_group_rules(vec![rules[0].clone()], None).await.unwrap();
    raised("a rule more", true).await;
    store.update_subnet(Subnet { dns_nameservers: vec!["192.0.2.53".parse().unwrap()], ..subnet }).await.unwrap();
    raised("a subnet", true).await;
    store.hear_network_agent(agent(&make, "h1", 1)).await.unwrap();
    raised("a host", true).await;
    store.hear_network_agent(agent(&make, "h1", 2)).await.unwrap();
    raised("a host's sign of life", false).await;
    store.delete_port(port.id).await.unwrap();
    raised("a port less", true).await;
    not_found(store.delete_port(port.id).await, Kind::Port);
    raised("nothing", false).await;
    store.delete_network(network.id).await.unwrap();
    raised("a network less", true).await;
}
