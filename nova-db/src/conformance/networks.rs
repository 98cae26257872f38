//! Networks, subnets, ports and their addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use nova_core::ids::{NetworkId, PortId, ProjectId, SubnetId};
use nova_core::network::{
    AddressPool, Network, NetworkProblem, NetworkResource, Port, PortStatus, Subnet, default_gateway,
};

use super::fixtures::Make;
use crate::{
    Direction, FixedIpRequest, Kind, ListQuery, NetworkField, NewPort, PortChange, PortField, PortQuery, Store,
    StoreError, SubnetField,
};

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn asked(address: &str) -> FixedIpRequest {
    FixedIpRequest { subnet_id: None, ip_address: Some(ip(address)) }
}

/// A network of that project with one subnet.
pub(super) async fn wired(store: &dyn Store, make: &Make, cidr: &str) -> (Network, Subnet) {
    let network = store.create_network(make.network("p"), None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&network, cidr), None, None).await.unwrap();
    (network, subnet)
}

pub(super) async fn plug(store: &dyn Store, new: NewPort) -> Result<Port, StoreError> {
    store.create_ports(vec![new]).await.map(|mut ports| ports.remove(0))
}

/// Why the network cannot be so.
pub(super) fn problem<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> NetworkProblem {
    match answer {
        Err(StoreError::Network(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

pub(super) fn not_found<T: std::fmt::Debug>(answer: Result<T, StoreError>, kind: Kind) {
    assert!(matches!(&answer, Err(StoreError::NotFound { kind: k, .. }) if *k == kind), "{answer:?}");
}

/// Every address is free or taken, and as many are taken as ports have.
pub(super) async fn adds_up(store: &dyn Store, subnet: &Subnet, total: u128) {
    let (free, taken) = store.count_addresses(subnet.id).await.unwrap();
    assert_eq!(free + u128::from(taken), total, "free and taken");
    let ports = store.list_ports(&PortQuery { subnets: vec![subnet.id], ..PortQuery::default() }).await.unwrap();
    let mut held: Vec<IpAddr> = ports.iter().flat_map(|port| &port.fixed_ips).map(|fixed| fixed.ip_address).collect();
    let count = held.len();
    held.sort();
    held.dedup();
    assert_eq!((held.len(), count as u64), (count, taken), "each has one owner");
}

async fn used(store: &dyn Store, resource: NetworkResource) -> u64 {
    let accounts = store.network_accounts(&ProjectId::from("p")).await.unwrap();
    accounts.get(&resource).map_or(0, |account| account.used)
}

/// Create, read, change, remove; of two changes from the same read, the second loses.
pub async fn networks_live_and_die(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    assert_eq!((network.generation, store.get_network(network.id).await.unwrap().name), (1, network.name.clone()));
    assert_eq!(store.get_subnet(subnet.id).await.unwrap(), subnet);
    // The subnet was told to the network: that counts as a change.
    let read = store.get_network(network.id).await.unwrap();
    let changed = store.update_network(Network { shared: true, ..read.clone() }).await.unwrap();
    let error = store.update_network(read).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Network, .. }), "{error:?}");
    assert!(store.get_subnet(subnet.id).await.unwrap().shared, "subnets are shared with their network");
    let named = Subnet { name: "new".into(), cidr: "10.9.0.0/24".parse().unwrap(), ..subnet.clone() };
    let named = store.update_subnet(named).await.unwrap();
    assert_eq!((named.name.as_str(), named.cidr), ("new", subnet.cidr), "a range stays what it is");
    assert_eq!(used(&**store, NetworkResource::Subnet).await, 1);
    assert_eq!(store.delete_network(network.id).await.unwrap().name, changed.name);
    not_found(store.get_network(network.id).await, Kind::Network);
    not_found(store.get_subnet(subnet.id).await, Kind::Subnet);
    not_found(store.delete_network(network.id).await, Kind::Network);
    for resource in [NetworkResource::Network, NetworkResource::Subnet] {
        assert_eq!(used(&**store, resource).await, 0);
    }
}

/// By project, flags and name, in any order, page by page.
pub async fn networks_are_listed(store: &Arc<dyn Store>) {
    let make = Make::new();
    for (project, name, shared, external) in
        [("p", "b", false, false), ("q", "a", true, false), ("q", "c", false, true), ("q", "d", false, false)]
    {
        let network = Network { name: name.into(), shared, external, ..make.network(project) };
        store.create_network(network, None).await.unwrap();
    }
    let names = async |query: ListQuery<NetworkField>| {
        let list = store.list_networks(&query).await.unwrap();
        list.into_iter().map(|network| network.name).collect::<String>()
    };
    let by_name = ListQuery { sort: vec![(NetworkField::Name, Direction::Ascending)], ..ListQuery::default() };
    assert_eq!(names(by_name.clone()).await, "abcd");
    let backwards = ListQuery { sort: vec![(NetworkField::Name, Direction::Descending)], ..ListQuery::default() };
    assert_eq!(names(backwards).await, "dcba");
    assert_eq!(names(ListQuery { visible_to: Some("p".into()), ..by_name.clone() }).await, "abc");
    for (field, values, expected) in [
        (NetworkField::Shared, vec!["true"], "a"),
        (NetworkField::External, vec!["true"], "c"),
        (NetworkField::External, vec!["nonsense"], ""),
        (NetworkField::Name, vec!["a", "d", "x"], "ad"),
        (NetworkField::ProjectId, vec!["p"], "b"),
    ] {
        let filters = vec![(field, values.into_iter().map(str::to_owned).collect())];
        assert_eq!(names(ListQuery { filters, ..by_name.clone() }).await, expected, "{field:?}");
    }
    let mut pages = String::new();
    let mut after = None;
    loop {
        let page = ListQuery { limit: Some(3), after: after.clone(), ..by_name.clone() };
        let list = store.list_networks(&page).await.unwrap();
        let Some(last) = list.last() else { break };
        after = Some(last.id.to_string());
        pages.extend(list.iter().map(|network| network.name.as_str()));
    }
    assert_eq!(pages, "abcd");
    let unknown = ListQuery { after: Some(make.network("p").id.to_string()), ..by_name };
    not_found(store.list_networks(&unknown).await, Kind::Network);
}

/// Within a network, one address means one thing; another network has its own.
pub async fn subnets_do_not_overlap(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, _) = wired(&**store, &make, "10.0.0.0/24").await;
    for (cidr, good) in [
        ("10.0.0.0/24", false),
        ("10.0.0.128/25", false),
        ("10.0.0.0/16", false),
        ("10.0.1.0/24", true),
        ("2001:db8::/64", true),
        ("2001:db8::/48", false),
    ] {
        let answer = store.create_subnet(make.subnet(&network, cidr), None, None).await;
        match good {
            true => drop(answer.unwrap()),
            false => assert!(matches!(problem(answer), NetworkProblem::SubnetsOverlap { .. }), "{cidr}"),
        }
    }
    let found = store.list_subnets(&ListQuery::of(SubnetField::NetworkId, network.id)).await.unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(store.list_subnets(&ListQuery::of(SubnetField::Cidr, "10.0.1.0/24")).await.unwrap().len(), 1);
    assert_eq!(store.list_subnets(&ListQuery::of(SubnetField::IpVersion, 6)).await.unwrap().len(), 1);
    wired(&**store, &make, "10.0.0.0/24").await;
    let foreign = store.create_subnet(make.subnet(&network, "10.0.9.0/24"), Some("q".into()), None).await;
    not_found(foreign, Kind::Network);
}

/// Every address of the pools is given out once, none besides, and then there is no more.
pub async fn ports_get_addresses(store: &Arc<dyn Store>) {
    let make = Make::new();
    let network = store.create_network(make.network("p"), None).await.unwrap();
    let mut subnet = make.subnet(&network, "10.0.0.0/27");
    let pool = |a: &str, b: &str| AddressPool { start: ip(a), end: ip(b) };
    subnet.allocation_pools =
        vec![pool("10.0.0.3", "10.0.0.6"), pool("10.0.0.9", "10.0.0.9"), pool("10.0.0.20", "10.0.0.30")];
    let subnet = store.create_subnet(subnet, None, None).await.unwrap();
    let mut given = BTreeSet::new();
    for _ in 0..16 {
        let port = plug(&**store, make.port(&network, "p")).await.unwrap();
        assert_eq!((port.fixed_ips.len(), port.fixed_ips[0].subnet_id), (1, subnet.id));
        assert_eq!(store.get_port(port.id).await.unwrap(), port);
        given.insert(port.fixed_ips[0].ip_address);
    }
    let pools: BTreeSet<IpAddr> =
        [3..=6, 9..=9, 20..=30].into_iter().flatten().map(|n| ip(&format!("10.0.0.{n}"))).collect();
    assert_eq!(given, pools);
    let full = problem(plug(&**store, make.port(&network, "p")).await);
    assert_eq!(full.to_string(), format!("No more IP addresses available on network {}.", network.id));
    adds_up(&**store, &subnet, 30).await;
    assert_eq!(used(&**store, NetworkResource::Port).await, 16, "what failed counts for nothing");
}

/// An address may be named, in a pool or beside it; what is wrong with it is told, and nothing is half made.
pub async fn addresses_on_request(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let (_, foreign) = wired(&**store, &make, "10.7.0.0/24").await;
    let port = async |requests: Vec<FixedIpRequest>| {
        plug(&**store, NewPort { fixed_ips: Some(requests), ..make.port(&network, "p") }).await
    };
    let made = port(vec![asked("10.0.0.77"), asked("10.0.0.5")]).await.unwrap();
    let addresses: Vec<_> = made.fixed_ips.iter().map(|fixed| fixed.ip_address).collect();
    assert_eq!(addresses, [ip("10.0.0.77"), ip("10.0.0.5")], "in the order in which they were asked for");
    assert!(port(Vec::new()).await.unwrap().fixed_ips.is_empty(), "a port may have none");
    let any = FixedIpRequest { subnet_id: Some(subnet.id), ip_address: None };
    assert_eq!(port(vec![any, any]).await.unwrap().fixed_ips.len(), 2);
    let elsewhere = FixedIpRequest { subnet_id: Some(foreign.id), ip_address: None };
    let outside = FixedIpRequest { subnet_id: Some(subnet.id), ip_address: Some(ip("10.7.0.9")) };
    for (requests, name) in [
        (vec![asked("10.0.0.77")], "IpAddressInUse"),
        (vec![asked("10.0.0.8"), asked("10.0.0.77")], "IpAddressInUse"),
        (vec![asked("10.0.0.8"), asked("10.0.0.8")], "InvalidInput"),
        (vec![asked("10.7.0.9")], "InvalidIpForNetwork"),
        (vec![asked("10.0.0.0")], "InvalidIpForSubnet"),
        (vec![asked("10.0.0.255")], "InvalidIpForSubnet"),
        (vec![asked("10.0.0.1")], "InvalidInput"),
        (vec![outside], "InvalidIpForSubnet"),
        (vec![elsewhere], "InvalidInput"),
        (vec![asked("2001:db8::9")], "InvalidIpForNetwork"),
    ] {
        assert_eq!(problem(port(requests.clone()).await).name(), name, "{requests:?}");
    }
    port(vec![asked("10.0.0.8")]).await.expect("what failed has left nothing behind");
    adds_up(&**store, &subnet, 254).await;
}

/// What is given back can be given out again, once, and ranges grow together.
pub async fn given_addresses_are_free_again(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/28").await;
    for order in [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [12, 0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6]] {
        let mut ports = Vec::new();
        for _ in 0..13 {
            ports.push(plug(&**store, make.port(&network, "p")).await.unwrap().id);
        }
        problem(plug(&**store, make.port(&network, "p")).await);
        adds_up(&**store, &subnet, 14).await;
        for index in order {
            store.delete_port(ports[index]).await.unwrap();
            not_found(store.delete_port(ports[index]).await, Kind::Port);
        }
        adds_up(&**store, &subnet, 14).await;
    }
    assert_eq!(used(&**store, NetworkResource::Port).await, 0);
    store.delete_subnet(subnet.id).await.unwrap();
}

/// Addresses that are asked for again stay, others go, new ones come; a failed change changes nothing.
pub async fn ports_change_their_addresses(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let mut new = make.port(&network, "p");
    new.fixed_ips = Some(vec![asked("10.0.0.10"), asked("10.0.0.11")]);
    let port = plug(&**store, new).await.unwrap();
    plug(&**store, NewPort { fixed_ips: Some(vec![asked("10.0.0.12")]), ..make.port(&network, "p") }).await.unwrap();
    let change = |port: &Port, fixed_ips| PortChange { port: port.clone(), fixed_ips: Some(fixed_ips), draw: 0 };
    let taken = vec![asked("10.0.0.10"), asked("10.0.0.12")];
    assert_eq!(problem(store.update_port(change(&port, taken)).await).name(), "IpAddressInUse");
    assert_eq!(store.get_port(port.id).await.unwrap(), port);
    let next = store.update_port(change(&port, vec![asked("10.0.0.11"), asked("10.0.0.13")])).await.unwrap();
    let addresses: Vec<_> = next.fixed_ips.iter().map(|fixed| fixed.ip_address).collect();
    assert_eq!(addresses, [ip("10.0.0.11"), ip("10.0.0.13")]);
    let error = store.update_port(change(&port, Vec::new())).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Port, .. }), "{error:?}");
    let any = FixedIpRequest { subnet_id: Some(subnet.id), ip_address: None };
    let same = store.update_port(change(&next, vec![any, any])).await.unwrap();
    assert_eq!(same.fixed_ips, next.fixed_ips, "any would do, so those that it has stay");
    plug(&**store, NewPort { fixed_ips: Some(vec![asked("10.0.0.10")]), ..make.port(&network, "p") }).await.unwrap();
    adds_up(&**store, &subnet, 254).await;
}

/// One address of each version, where the network has both; of several subnets of one version, the next when one is full.
pub async fn dual_stack_ports_have_both(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, v4) = wired(&**store, &make, "10.0.0.0/30").await;
    let second = store.create_subnet(make.subnet(&network, "10.0.1.0/30"), None, None).await.unwrap();
    let v6 = store.create_subnet(make.subnet(&network, "2001:db8::/64"), None, None).await.unwrap();
    let mut subnets = BTreeSet::new();
    for _ in 0..2 {
        let port = plug(&**store, make.port(&network, "p")).await.unwrap();
        assert_eq!((port.fixed_ips.len(), port.fixed_ips[1].subnet_id), (2, v6.id));
        assert_ne!(Some(port.fixed_ips[1].ip_address), v6.gateway_ip);
        subnets.insert(port.fixed_ips[0].subnet_id);
    }
    assert_eq!(subnets, BTreeSet::from([v4.id, second.id]));
    assert_eq!(problem(plug(&**store, make.port(&network, "p")).await).name(), "IpAddressGenerationFailure");
    let (free, taken) = store.count_addresses(v6.id).await.unwrap();
    assert_eq!((free + 2, taken), ((1 << 64) - 1, 2), "what failed gave its other address back");
}

/// A /8 and a /64 are as good as a /24, from end to end.
pub async fn huge_subnets_cost_no_more(store: &Arc<dyn Store>) {
    let make = Make::new();
    for (cidr, last, total) in [
        ("10.0.0.0/8", "10.255.255.254", (1_u128 << 24) - 2),
        ("fd00::/32", "fd00:0:ffff:ffff:ffff:ffff:ffff:ffff", (1 << 96) - 1),
    ] {
        let (network, subnet) = wired(&**store, &make, cidr).await;
        assert_eq!(subnet.gateway_ip, Some(default_gateway(&subnet.cidr)));
        let mut ports = Vec::new();
        for draw in [0, 1, u64::MAX, 1 << 40, 0x1234_5678_9abc_def0] {
            ports.push(plug(&**store, NewPort { draw, ..make.port(&network, "p") }).await.unwrap().id);
        }
        let end = NewPort { fixed_ips: Some(vec![asked(last)]), ..make.port(&network, "p") };
        ports.push(plug(&**store, end).await.unwrap().id);
        adds_up(&**store, &subnet, total).await;
        for port in ports {
            store.delete_port(port).await.unwrap();
        }
        assert_eq!(store.count_addresses(subnet.id).await.unwrap(), (total, 0));
    }
}

/// What is used is not removed.
pub async fn networks_in_use_stay(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let bare = plug(&**store, NewPort { fixed_ips: Some(Vec::new()), ..make.port(&network, "p") }).await.unwrap();
    assert_eq!(problem(store.delete_network(network.id).await).name(), "NetworkInUse");
    store.delete_port(bare.id).await.unwrap();
    let port = plug(&**store, make.port(&network, "p")).await.unwrap();
    assert_eq!(problem(store.delete_network(network.id).await).name(), "NetworkInUse");
    assert_eq!(problem(store.delete_subnet(subnet.id).await).name(), "SubnetInUse");
    adds_up(&**store, &subnet, 254).await;
    store.delete_port(port.id).await.unwrap();
    store.delete_subnet(subnet.id).await.unwrap();
    not_found(store.delete_subnet(subnet.id).await, Kind::Subnet);
    store.delete_network(network.id).await.unwrap();
}

/// What is not one's own and not shared is not there; unsharing waits until others have left.
pub async fn foreign_networks_are_not_found(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, _) = wired(&**store, &make, "10.0.0.0/24").await;
    let foreign = || NewPort { asked_by: Some("q".into()), ..make.port(&network, "q") };
    not_found(plug(&**store, foreign()).await, Kind::Network);
    let gone = NewPort {
        port: Port { network_id: NetworkId::from_uuid(*make.network("p").id.as_uuid()), ..foreign().port },
        ..foreign()
    };
    not_found(plug(&**store, gone).await, Kind::Network);
    let read = store.get_network(network.id).await.unwrap();
    let shared = store.update_network(Network { shared: true, ..read }).await.unwrap();
    let port = plug(&**store, foreign()).await.unwrap();
    let alone = Network { shared: false, ..shared };
    assert_eq!(problem(store.update_network(alone.clone()).await).name(), "InvalidSharedSetting");
    store.delete_port(port.id).await.unwrap();
    assert!(!store.update_network(alone).await.unwrap().shared);
}

/// By what they are used for, where they are, and their addresses.
pub async fn ports_are_asked_for(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let mut ids: Vec<PortId> = Vec::new();
    for (name, device, host) in [("a", "vm-1", "h1"), ("b", "vm-1", "h2"), ("c", "", "")] {
        let mut new = make.port(&network, "p");
        new.port.name = name.into();
        new.port.device_id = device.into();
        new.port.host = Some(host).filter(|host| !host.is_empty()).map(Into::into);
        new.fixed_ips = Some(vec![asked(&format!("10.0.0.{}", 10 + ids.len()))]);
        ids.push(plug(&**store, new).await.unwrap().id);
    }
    let found = async |query: PortQuery| {
        let ports = store.list_ports(&query).await.unwrap();
        ports.into_iter().map(|port| port.name).collect::<BTreeSet<_>>().into_iter().collect::<String>()
    };
    for (field, value, expected) in [
        (PortField::DeviceId, "vm-1", "ab"),
        (PortField::DeviceId, "", "c"),
        (PortField::Host, "h2", "b"),
        (PortField::Name, "c", "c"),
        (PortField::Status, "DOWN", "abc"),
        (PortField::AdminStateUp, "false", ""),
    ] {
        assert_eq!(
            found(PortQuery { list: ListQuery::of(field, value), ..PortQuery::default() }).await,
            expected,
            "{field:?}"
        );
    }
    let by_address = |addresses: &[&str]| PortQuery {
        ip_addresses: addresses.iter().map(|a| ip(a)).collect(),
        ..PortQuery::default()
    };
    assert_eq!(found(by_address(&["10.0.0.11", "10.0.0.12"])).await, "bc");
    assert_eq!(found(by_address(&["10.0.0.99"])).await, "");
    let both =
        PortQuery { list: ListQuery::of(PortField::DeviceId, "vm-1"), ..by_address(&["10.0.0.11", "10.0.0.12"]) };
    assert_eq!(found(both).await, "b");
    assert_eq!(found(PortQuery { subnets: vec![subnet.id], ..PortQuery::default() }).await, "abc");
    let nowhere = SubnetId::from_uuid(*ids[0].as_uuid());
    assert_eq!(found(PortQuery { subnets: vec![nowhere], ..PortQuery::default() }).await, "");
}

/// Two ports of one network have two MAC addresses; another network may have the same.
pub async fn mac_addresses_are_unique_on_a_network(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let (other, _) = wired(&**store, &make, "10.0.0.0/24").await;
    let first = plug(&**store, make.port(&network, "p")).await.unwrap();
    let same = |network: &Network| {
        let mut new = make.port(network, "p");
        new.port.mac_address = first.mac_address;
        new
    };
    assert_eq!(problem(plug(&**store, same(&network)).await).name(), "MacAddressInUse");
    plug(&**store, same(&other)).await.unwrap();
    let second = plug(&**store, make.port(&network, "p")).await.unwrap();
    let port = Port { mac_address: first.mac_address, ..second };
    let answer = store.update_port(PortChange { port, fixed_ips: None, draw: 0 }).await;
    assert_eq!(problem(answer).name(), "MacAddressInUse");
    adds_up(&**store, &subnet, 254).await;
}

/// A project's own limit goes before that of everybody; what is over is told with its name.
pub async fn network_quotas_are_exact(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let project = ProjectId::from("p");
    let create = async |limit| plug(&**store, NewPort { limit, ..make.port(&network, "p") }).await;
    create(Some(1)).await.unwrap();
    let over = problem(create(Some(1)).await);
    assert_eq!(over.to_string(), "Quota exceeded for resources: ['port'].");
    store.set_network_limits(&project, [(NetworkResource::Port, Some(Some(2)))].into()).await.unwrap();
    create(Some(1)).await.unwrap();
    assert_eq!(problem(create(None).await).name(), "OverQuota");
    store.set_network_limits(&project, [(NetworkResource::Port, Some(None))].into()).await.unwrap();
    create(Some(1)).await.unwrap();
    store.set_network_limits(&project, [(NetworkResource::Port, None)].into()).await.unwrap();
    assert_eq!(problem(create(Some(3)).await).name(), "OverQuota");
    let two = vec![make.port(&network, "p"), NewPort { limit: Some(4), ..make.port(&network, "p") }];
    assert_eq!(problem(store.create_ports(two).await).name(), "OverQuota", "all or none");
    let account = store.network_accounts(&project).await.unwrap()[&NetworkResource::Port];
    assert_eq!((account.used, account.limit), (3, None));
    adds_up(&**store, &subnet, 254).await;
    let network = store.create_network(make.network("p"), Some(2)).await.unwrap();
    assert_eq!(problem(store.create_network(make.network("p"), Some(2)).await).name(), "OverQuota");
    let answer = store.create_subnet(make.subnet(&network, "10.0.0.0/24"), None, Some(1)).await;
    assert_eq!(problem(answer).name(), "OverQuota");
}

/// A host says how its own ports work; of others it says nothing.
pub async fn hosts_say_how_their_ports_work(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, _) = wired(&**store, &make, "10.0.0.0/24").await;
    let mut ports = Vec::new();
    for host in ["h1", "h1", "h2"] {
        let mut new = make.port(&network, "p");
        new.port.host = Some(host.into());
        ports.push(plug(&**store, new).await.unwrap());
    }
    let gone = store.delete_port(ports[1].id).await.unwrap();
    let all = [ports[0].id, gone.id, ports[2].id].map(|id| (id, PortStatus::Active)).into();
    let changed = store.set_port_statuses(&"h1".into(), &all).await.unwrap();
    assert_eq!(changed.iter().map(|port| port.id).collect::<Vec<_>>(), [ports[0].id]);
    let [own, other] = [ports[0].id, ports[2].id];
    assert_eq!(store.get_port(own).await.unwrap(), changed[0]);
    assert_eq!((changed[0].status, changed[0].generation), (PortStatus::Active, ports[0].generation + 1));
    assert_eq!(store.get_port(other).await.unwrap(), ports[2]);
    assert_eq!(store.set_port_statuses(&"h1".into(), &all).await.unwrap(), [], "it is so already");
    let stale = PortChange { port: ports[0].clone(), fixed_ips: None, draw: 0 };
    assert!(matches!(store.update_port(stale).await, Err(StoreError::Conflict { .. })));
}
