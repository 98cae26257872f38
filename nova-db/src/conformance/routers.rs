//! Routers and floating addresses.

use std::sync::Arc;

use nova_core::ids::ProjectId;
use nova_core::network::{HostRoute, Network, NetworkProblem, NetworkResource, Port, Router, Subnet};

use super::fixtures::Make;
use super::networks::{adds_up, asked, ip, not_found, plug, problem, wired};
use crate::{
    FixedIpRequest, FloatingIpField, FloatingTarget, GatewayChange, InterfaceRef, Kind, ListQuery, NewFloatingIp,
    NewInterface, NewPort, PortChange, Store,
};

/// An outer network, an inner one, and a router between them.
pub(super) struct Joined {
    pub(super) outer: (Network, Subnet),
    pub(super) inner: (Network, Subnet),
    pub(super) router: Router,
}

pub(super) fn gateway(make: &Make, network: &Network) -> GatewayChange {
    GatewayChange::Set { enable_snat: true, port: Box::new(make.port(network, "")) }
}

fn interface(make: &Make, network: &Network, subnet: &Subnet) -> NewInterface {
    NewInterface::Subnet { subnet_id: subnet.id, port: Box::new(make.port(network, "p")) }
}

pub(super) async fn joined(store: &dyn Store, make: &Make) -> Joined {
    let (outer, outer_subnet) = wired(store, make, "192.0.2.0/28").await;
    let read = store.get_network(outer.id).await.unwrap();
    let outer = store.update_network(Network { external: true, ..read }).await.unwrap();
    let inner = wired(store, make, "10.0.0.0/24").await;
    let router = store.create_router(make.router("p"), gateway(make, &outer), None).await.unwrap();
    store.add_router_interface(router.id, interface(make, &inner.0, &inner.1)).await.unwrap();
    let router = store.get_router(router.id).await.unwrap();
    Joined { outer: (outer, outer_subnet), inner, router }
}

fn target(port: &Port) -> Option<FloatingTarget> {
    Some(FloatingTarget { port_id: port.id, fixed_ip_address: None })
}

/// A router takes the gateway's address on each of its subnets, which do not overlap, once.
pub async fn routers_join_subnets(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let (twin, overlapping) = wired(&**store, &make, "10.0.0.0/25").await;
    let router = store.create_router(make.router("p"), GatewayChange::Keep, Some(1)).await.unwrap();
    assert_eq!(problem(store.create_router(make.router("p"), GatewayChange::Keep, Some(1)).await).name(), "OverQuota");
    let port = store.add_router_interface(router.id, interface(&make, &network, &subnet)).await.unwrap();
    assert_eq!((port.fixed_ips[0].ip_address, port.device_id.clone()), (ip("10.0.0.1"), router.id.to_string()));
    for (network, subnet) in [(&network, &subnet), (&twin, &overlapping)] {
        let again = store.add_router_interface(router.id, interface(&make, network, subnet)).await;
        assert_eq!(problem(again).name(), "BadRequest");
    }
    assert_eq!(problem(store.delete_port(port.id).await).name(), "ServicePortInUse");
    assert_eq!(problem(store.delete_router(router.id).await).name(), "RouterInUse");
    assert_eq!(problem(store.delete_subnet(subnet.id).await).name(), "SubnetInUse");
    let read = store.get_subnet(subnet.id).await.unwrap();
    let moved = Subnet { gateway_ip: Some(ip("10.0.0.254")), ..read };
    assert_eq!(problem(store.update_subnet(moved).await).name(), "GatewayIpInUse");
    let wrong = InterfaceRef { subnet_id: Some(overlapping.id), port_id: None };
    let answer = store.remove_router_interface(router.id, wrong).await;
    assert_eq!(problem(answer).name(), "RouterInterfaceNotFoundForSubnet");
    let right = InterfaceRef { subnet_id: Some(subnet.id), port_id: None };
    assert_eq!(store.remove_router_interface(router.id, right).await.unwrap().id, port.id);
    not_found(store.get_port(port.id).await, Kind::Port);
    let own =
        plug(&**store, NewPort { fixed_ips: Some(vec![asked("10.0.0.9")]), ..make.port(&network, "p") }).await.unwrap();
    let adopted = store.add_router_interface(router.id, NewInterface::Port(own.id)).await.unwrap();
    assert!(adopted.is_of_router());
    let answer = store.add_router_interface(router.id, NewInterface::Port(own.id)).await;
    assert_eq!(problem(answer).name(), "PortInUse");
    store.remove_router_interface(router.id, InterfaceRef { port_id: Some(own.id), subnet_id: None }).await.unwrap();
    let foreign = plug(&**store, make.port(&network, "q")).await.unwrap();
    let answer = store.add_router_interface(router.id, NewInterface::Port(foreign.id)).await;
    assert!(matches!(problem(answer), NetworkProblem::PortOfOther { .. }), "of another project");
    store.delete_port(foreign.id).await.unwrap();
    let mut reserved = make.port(&network, "p");
    reserved.port.device_owner = "compute:nova".to_owned();
    let reserved = plug(&**store, reserved).await.unwrap();
    let answer = store.add_router_interface(router.id, NewInterface::Port(reserved.id)).await;
    assert_eq!(problem(answer).name(), "PortInUse");
    store.delete_port(reserved.id).await.unwrap();
    store.delete_router(router.id).await.unwrap();
    not_found(store.get_router(router.id).await, Kind::Router);
    adds_up(&**store, &subnet, 254).await;
}

/// An interface is of its router's project, whoever asks for it. The gateway of a flat network with DHCP is the network's.
pub async fn interfaces_are_their_routers(store: &Arc<dyn Store>) {
    let make = Make::new();
    let router = store.create_router(make.router("q"), GatewayChange::Keep, None).await.unwrap();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let port = store.add_router_interface(router.id, interface(&make, &network, &subnet)).await.unwrap();
    assert_eq!(port.project_id, router.project_id);
    let flat = Network { network_type: Some("flat_dhcp".to_owned()), ..make.network("p") };
    let flat = store.create_network(flat, None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&flat, "10.1.0.0/24"), None, None).await.unwrap();
    let answer = store.add_router_interface(router.id, interface(&make, &flat, &subnet)).await;
    assert_eq!(problem(answer).name(), "IpAddressInUse");
}

/// Routes lead over the router's own networks, which stay as long as they do.
pub async fn routes_lead_over_the_routers_networks(store: &Arc<dyn Store>) {
    let make = Make::new();
    let joined = joined(&**store, &make).await;
    let (router, subnet) = (joined.router.id, &joined.inner.1);
    let on_subnet = InterfaceRef { subnet_id: Some(subnet.id), port_id: None };
    let by = |nexthop: &str| HostRoute { destination: "10.77.0.0/16".parse().unwrap(), nexthop: ip(nexthop) };
    let lead = async |routes: Vec<HostRoute>| {
        let read = store.get_router(router).await.unwrap();
        store.update_router(Router { routes, ..read }, GatewayChange::Keep).await
    };
    for wrong in ["192.0.2.1", "198.18.0.1", "10.0.0.1"] {
        assert_eq!(problem(lead(vec![by("10.0.0.9"), by(wrong)]).await).name(), "InvalidRoutes", "{wrong}");
    }
    assert_eq!(lead(vec![by("10.0.0.9")]).await.unwrap().routes, [by("10.0.0.9")]);
    let answer = store.remove_router_interface(router, on_subnet).await;
    assert_eq!(problem(answer).name(), "RouterInterfaceInUseByRoute");
    lead(Vec::new()).await.unwrap();
    store.remove_router_interface(router, on_subnet).await.unwrap();
    assert_eq!(problem(lead(vec![by("10.0.0.9")]).await).name(), "InvalidRoutes", "the network is gone");
    let new = Router { routes: vec![by("10.0.0.9")], ..make.router("p") };
    assert_eq!(problem(store.create_router(new, GatewayChange::Keep, None).await).name(), "InvalidRoutes");
}

/// Floating addresses are of version 4, and stand for such.
pub async fn floating_ips_are_of_version_4(store: &Arc<dyn Store>) {
    let make = Make::new();
    let joined = joined(&**store, &make).await;
    let (outer, inner) = (&joined.outer.0, &joined.inner.0);
    let v6 = store.create_subnet(make.subnet(outer, "2001:db8:1::/64"), None, None).await.unwrap();
    store.create_subnet(make.subnet(inner, "2001:db8:2::/64"), None, None).await.unwrap();
    for address in [
        FixedIpRequest { subnet_id: Some(v6.id), ip_address: None },
        FixedIpRequest { subnet_id: None, ip_address: Some(ip("2001:db8:1::9")) },
    ] {
        let answer = store.create_floating_ip(NewFloatingIp { address, ..make.floating(outer, "p") }).await;
        assert_eq!(problem(answer).name(), "BadRequest", "{address:?}");
    }
    let port = plug(&**store, make.port(inner, "p")).await.unwrap();
    let fixed = port.fixed_ips.iter().map(|fixed| fixed.ip_address).find(|address| address.is_ipv6());
    let mut new = make.floating(outer, "p");
    new.target = Some(FloatingTarget { port_id: port.id, fixed_ip_address: fixed });
    assert_eq!(problem(store.create_floating_ip(new).await).name(), "BadRequest");
    let (alone, _) = wired(&**store, &make, "2001:db8:3::/64").await;
    let read = store.get_network(alone.id).await.unwrap();
    let alone = store.update_network(Network { external: true, ..read }).await.unwrap();
    let answer = store.create_floating_ip(make.floating(&alone, "p")).await;
    assert_eq!(problem(answer).name(), "BadRequest", "it has none of version 4");
}

/// Chosen or asked for, for a port or for nothing, moved, and given back.
pub async fn floating_ips_stand_for_fixed_ones(store: &Arc<dyn Store>) {
    let make = Make::new();
    let joined = joined(&**store, &make).await;
    let (one, two) = (
        plug(&**store, make.port(&joined.inner.0, "p")).await.unwrap(),
        plug(&**store, make.port(&joined.inner.0, "p")).await.unwrap(),
    );
    let outer = &joined.outer.0;
    let mut new = make.floating(outer, "p");
    (new.target, new.limit) = (target(&one), Some(2));
    let first = store.create_floating_ip(new).await.unwrap();
    assert_eq!((first.port_id, first.fixed_ip_address), (Some(one.id), Some(one.fixed_ips[0].ip_address)));
    assert_eq!((first.router_id, first.status()), (Some(joined.router.id), "ACTIVE"));
    let mut new = make.floating(outer, "p");
    new.address = asked("192.0.2.9");
    let second = store.create_floating_ip(new.clone()).await.unwrap();
    assert_eq!((second.floating_ip_address, second.status()), (ip("192.0.2.9"), "DOWN"));
    new.id = make.floating(outer, "p").id;
    assert_eq!(problem(store.create_floating_ip(new).await).name(), "IpAddressInUse");
    let mut over = make.floating(outer, "p");
    over.limit = Some(2);
    assert_eq!(problem(store.create_floating_ip(over).await).name(), "OverQuota");
    let inside = make.floating(&joined.inner.0, "p");
    assert_eq!(problem(store.create_floating_ip(inside).await).name(), "BadRequest");
    let taken = store.associate_floating_ip(second.clone(), target(&one)).await;
    assert_eq!(problem(taken).name(), "FloatingIPPortAlreadyAssociated");
    let moved = store.associate_floating_ip(second.clone(), target(&two)).await.unwrap();
    assert_eq!(moved.port_id, Some(two.id));
    let same = store.associate_floating_ip(moved, target(&two)).await.unwrap();
    let list = store.list_floating_ips(&ListQuery::of(FloatingIpField::PortId, two.id)).await.unwrap();
    assert_eq!(list, [same]);
    store.delete_port(two.id).await.unwrap();
    assert_eq!(store.get_floating_ip(second.id).await.unwrap().port_id, None, "its port is gone");
    for floating in [first.id, second.id] {
        store.delete_floating_ip(floating).await.unwrap();
        not_found(store.delete_floating_ip(floating).await, Kind::FloatingIp);
    }
    let accounts = store.network_accounts(&ProjectId::from("p")).await.unwrap();
    assert_eq!(accounts[&NetworkResource::FloatingIp].used, 0);
    adds_up(&**store, &joined.outer.1, 14).await;
}

/// Interfaces, gateways and outer networks stay while floating addresses need them.
pub async fn what_floating_ips_rely_on_stays(store: &Arc<dyn Store>) {
    let make = Make::new();
    let joined = joined(&**store, &make).await;
    let (outer, inner) = (&joined.outer.0, &joined.inner);
    let port = plug(&**store, make.port(&inner.0, "p")).await.unwrap();
    let floating = store.create_floating_ip(make.floating(outer, "p")).await.unwrap();
    let (alone, _) = wired(&**store, &make, "10.5.0.0/24").await;
    let unreachable = plug(&**store, make.port(&alone, "p")).await.unwrap();
    let answer = store.associate_floating_ip(floating.clone(), target(&unreachable)).await;
    assert_eq!(problem(answer).name(), "ExternalGatewayForFloatingIPNotFound");
    let floating = store.associate_floating_ip(floating, target(&port)).await.unwrap();
    let on_subnet = InterfaceRef { subnet_id: Some(inner.1.id), port_id: None };
    let answer = store.remove_router_interface(joined.router.id, on_subnet).await;
    assert_eq!(problem(answer).name(), "RouterInterfaceInUseByFloatingIP");
    let router = store.get_router(joined.router.id).await.unwrap();
    let answer = store.update_router(router, GatewayChange::Clear).await;
    assert_eq!(problem(answer).name(), "RouterExternalGatewayInUseByFloatingIp");
    assert_eq!(problem(store.delete_network(outer.id).await).name(), "NetworkInUse");
    let read = store.get_network(outer.id).await.unwrap();
    let answer = store.update_network(Network { external: false, ..read }).await;
    assert_eq!(problem(answer).name(), "ExternalNetworkInUse");
    let moved =
        PortChange { port: store.get_port(port.id).await.unwrap(), fixed_ips: Some(vec![asked("10.0.0.99")]), draw: 0 };
    store.update_port(moved).await.unwrap();
    assert_eq!(store.get_floating_ip(floating.id).await.unwrap().port_id, None, "its fixed address is gone");
    store.remove_router_interface(joined.router.id, on_subnet).await.unwrap();
    store.delete_router(joined.router.id).await.unwrap();
    store.delete_floating_ip(floating.id).await.unwrap();
    store.delete_network(outer.id).await.unwrap();
}

/// A way out is a port of the outer network, which goes when the way out does.
pub async fn gateways_come_and_go(store: &Arc<dyn Store>) {
    let make = Make::new();
    let joined = joined(&**store, &make).await;
    let old = joined.router.gateway.clone().unwrap();
    let port = store.get_port(old.port_id).await.unwrap();
    assert_eq!((port.project_id.as_str(), &port.fixed_ips), ("", &old.external_fixed_ips));
    let quiet = GatewayChange::Set { enable_snat: false, port: Box::new(make.port(&joined.outer.0, "")) };
    let router = store.update_router(joined.router, quiet).await.unwrap();
    let kept = router.gateway.clone().unwrap();
    assert_eq!((kept.port_id, kept.enable_snat), (old.port_id, false), "the same network: the same port");
    let inside = gateway(&make, &joined.inner.0);
    assert_eq!(problem(store.update_router(router.clone(), inside).await).name(), "BadRequest");
    let router = store.update_router(router, GatewayChange::Clear).await.unwrap();
    assert_eq!(router.gateway, None);
    not_found(store.get_port(old.port_id).await, Kind::Port);
    assert_eq!(store.count_addresses(joined.outer.1.id).await.unwrap(), (14, 0));
}
