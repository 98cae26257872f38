//! Routers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nova_core::ids::{PortId, RouterId, SubnetId};
use nova_core::network::{
    Cidr, Gateway, Network, NetworkProblem, NetworkResource, Port, ROUTER_GATEWAY, ROUTER_INTERFACE, Router, Subnet,
};

use super::super::{add, conflict, list, need, remove_existing, replace_or_race};
use super::{floating, get, networks, ports, usage, write_over};
use crate::rows::{Condition, Fail, Found, Lock, Select, Transaction, Value};
use crate::{FixedIpRequest, GatewayChange, InterfaceRef, NewInterface, NewPort};

pub(super) async fn create(
    tx: &mut dyn Transaction,
    router: &Router,
    gateway: &GatewayChange,
    limit: Option<u64>,
) -> Result<Router, Fail> {
    let mut router = Router { gateway: None, generation: 1, ..router.clone() };
    check_routes(tx, &router).await?;
    set_gateway(tx, &mut router, gateway).await?;
    usage::charge(tx, &router.project_id, NetworkResource::Router, 1, limit).await?;
    add(tx, &router).await?;
    Ok(router)
}

pub(super) async fn update(tx: &mut dyn Transaction, router: &Router, gateway: &GatewayChange) -> Result<Router, Fail> {
    let key = [Value::text(router.id)];
    let old = need::<Router>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != router.generation {
        return Err(conflict::<Router>(&key));
    }
    if router.routes != old.record.routes {
        check_routes(tx, router).await?;
    }
    let mut next = Router { gateway: old.record.gateway, generation: old.generation + 1, ..router.clone() };
    set_gateway(tx, &mut next, gateway).await?;
    write_over(tx, &next, old.generation, key).await?;
    Ok(next)
}

/// Next hops are on networks that the router has an interface on (`extraroute_db.py`), and are not the router itself. On
/// the outer network there is none: each host is a router there, and has one way out.
async fn check_routes(tx: &mut dyn Transaction, router: &Router) -> Result<(), Fail> {
    if router.routes.is_empty() {
        return Ok(());
    }
    let interfaces = interfaces(tx, router.id).await?;
    let ranges = ranges_of(tx, &interfaces).await?;
    for route in &router.routes {
        let own = |port: &Port| port.fixed_ips.iter().any(|fixed| fixed.ip_address == route.nexthop);
        if !ranges.iter().any(|range| range.contains(route.nexthop)) {
            return Err(NetworkProblem::NexthopElsewhere { nexthop: route.nexthop }.into());
        }
        if interfaces.iter().any(own) {
            return Err(NetworkProblem::NexthopOwn { nexthop: route.nexthop }.into());
        }
    }
    Ok(())
}

/// The ranges of the subnets that these ports are on.
async fn ranges_of(tx: &mut dyn Transaction, ports: &[Port]) -> Result<Vec<Cidr>, Fail> {
    let ids: BTreeSet<SubnetId> = ports.iter().flat_map(|port| &port.fixed_ips).map(|fixed| fixed.subnet_id).collect();
    let which = Condition::In("id", ids.iter().map(Value::text).collect());
    let subnets: Vec<Subnet> = list(tx, &Select::new(which)).await?;
    Ok(subnets.into_iter().map(|subnet| subnet.cidr).collect())
}

async fn set_gateway(tx: &mut dyn Transaction, router: &mut Router, change: &GatewayChange) -> Result<(), Fail> {
    match change {
        GatewayChange::Keep => Ok(()),
        GatewayChange::Clear => clear_gateway(tx, router).await,
        GatewayChange::Set { enable_snat, port } => {
            let same = router.gateway.as_mut().filter(|gateway| gateway.network_id == port.port.network_id);
            if let (Some(gateway), None) = (same, &port.fixed_ips) {
                gateway.enable_snat = *enable_snat;
                return Ok(());
            }
            clear_gateway(tx, router).await?;
            router.gateway = Some(new_gateway(tx, router.id, port, *enable_snat).await?);
            Ok(())
        }
    }
}

async fn new_gateway(
    tx: &mut dyn Transaction,
    router: RouterId,
    port: &NewPort,
    enable_snat: bool,
) -> Result<Gateway, Fail> {
    let network = networks::usable_by(tx, port.port.network_id, None).await?;
    if !network.external {
        return Err(NetworkProblem::NotExternal { network: network.id }.into());
    }
    let mut new = port.clone();
    new.asked_by = None;
    new.port.device_id = router.to_string();
    new.port.device_owner = ROUTER_GATEWAY.to_owned();
    // It is the cloud's, and counts for nobody.
    new.port.project_id = "".into();
    new.port.security_groups.clear();
    let port = ports::create(tx, &new).await?;
    Ok(Gateway { network_id: network.id, enable_snat, port_id: port.id, external_fixed_ips: port.fixed_ips })
}

async fn clear_gateway(tx: &mut dyn Transaction, router: &mut Router) -> Result<(), Fail> {
    let Some(gateway) = router.gateway.take() else { return Ok(()) };
    if floating::relies_on(tx, router.id, None).await? {
        return Err(NetworkProblem::GatewayOfFloatingIps { router: router.id, network: gateway.network_id }.into());
    }
    let port = get::<Port>(tx, gateway.port_id).await?;
    ports::remove(tx, &port).await
}

/// Makes others who change the router wait or try again.
async fn hold(tx: &mut dyn Transaction, id: RouterId) -> Result<Router, Fail> {
    let Found { record, generation } = need::<Router>(tx, &[Value::text(id)], Lock::ForUpdate).await?;
    let router = Router { generation: generation + 1, ..record };
    replace_or_race(tx, &router, generation).await?;
    Ok(router)
}

async fn interfaces(tx: &mut dyn Transaction, id: RouterId) -> Result<Vec<Port>, Fail> {
    let which = Condition::All(vec![
        Condition::Is("device_id", Value::text(id)),
        Condition::Is("device_owner", ROUTER_INTERFACE.into()),
    ]);
    list(tx, &Select::new(which).by(&["id"])).await
}

pub(super) async fn delete(tx: &mut dyn Transaction, id: RouterId) -> Result<Router, Fail> {
    let mut router = hold(tx, id).await?;
    if !interfaces(tx, id).await?.is_empty() {
        return Err(NetworkProblem::RouterInUse { router: id }.into());
    }
    clear_gateway(tx, &mut router).await?;
    remove_existing::<Router>(tx, &[Value::text(id)]).await?;
    usage::refund(tx, &router.project_id, NetworkResource::Router, 1).await?;
    Ok(router)
}

pub(super) async fn add_interface(tx: &mut dyn Transaction, id: RouterId, new: &NewInterface) -> Result<Port, Fail> {
    let router = hold(tx, id).await?;
    match new {
        NewInterface::Subnet { subnet_id, port } => {
            // Whoever changes the gateway meanwhile tries again and sees who has it.
            let Found { record, generation } = need::<Subnet>(tx, &[Value::text(subnet_id)], Lock::ForUpdate).await?;
            let subnet = Subnet { generation: generation + 1, ..record };
            replace_or_race(tx, &subnet, generation).await?;
            let Some(gateway) = subnet.gateway_ip else {
                return Err(NetworkProblem::NoGatewayForInterface { subnet: subnet.id }.into());
            };
            check_subnet(tx, &router, &subnet).await?;
            check_implicit(tx, &subnet, gateway).await?;
            let mut new = NewPort::clone(port);
            // Whoever reads the books believes an interface only if it is the router's project's.
            new.port.project_id = router.project_id;
            new.port.network_id = subnet.network_id;
            new.port.device_id = id.to_string();
            new.port.device_owner = ROUTER_INTERFACE.to_owned();
            new.port.security_groups.clear();
            new.fixed_ips = Some(vec![FixedIpRequest { subnet_id: Some(subnet.id), ip_address: Some(gateway) }]);
            ports::create(tx, &new).await
        }
        NewInterface::Port(port) => adopt(tx, &router, *port).await,
    }
}

/// A port that is there becomes an interface.
async fn adopt(tx: &mut dyn Transaction, router: &Router, id: PortId) -> Result<Port, Fail> {
    let Found { record: mut port, generation } = need::<Port>(tx, &[Value::text(id)], Lock::ForUpdate).await?;
    if !port.device_id.is_empty() || !port.device_owner.is_empty() {
        let device = if port.device_id.is_empty() { port.device_owner } else { port.device_id };
        return Err(NetworkProblem::PortInUse { port: id, device }.into());
    }
    if port.project_id != router.project_id {
        return Err(NetworkProblem::PortOfOther { port: id, router: router.id }.into());
    }
    if port.fixed_ips.is_empty() {
        return Err(NetworkProblem::NoFixedIp { port: id }.into());
    }
    for fixed in &port.fixed_ips {
        let subnet: Subnet = get(tx, fixed.subnet_id).await?;
        check_subnet(tx, router, &subnet).await?;
        check_implicit(tx, &subnet, fixed.ip_address).await?;
    }
    port.device_id = router.id.to_string();
    port.device_owner = ROUTER_INTERFACE.to_owned();
    port.generation = generation + 1;
    replace_or_race(tx, &port, generation).await?;
    Ok(port)
}

/// The gateway of a flat network with DHCP is there without a router: nobody else has its address.
async fn check_implicit(tx: &mut dyn Transaction, subnet: &Subnet, address: IpAddr) -> Result<(), Fail> {
    let network: Network = get(tx, subnet.network_id).await?;
    if network.network_type.as_deref() == Some("flat_dhcp") && subnet.gateway_ip == Some(address) {
        return Err(NetworkProblem::AddressInUse { network: network.id, address }.into());
    }
    Ok(())
}

/// A router is on a subnet once, and no address is on two sides of it.
async fn check_subnet(tx: &mut dyn Transaction, router: &Router, subnet: &Subnet) -> Result<(), Fail> {
    for interface in interfaces(tx, router.id).await? {
        for fixed in &interface.fixed_ips {
            if fixed.subnet_id == subnet.id {
                return Err(NetworkProblem::RouterOnSubnet { subnet: subnet.id }.into());
            }
            let other: Subnet = get(tx, fixed.subnet_id).await?;
            if other.cidr.overlaps(&subnet.cidr) {
                let (cidr, other) = (subnet.cidr, other.cidr);
                let problem =
                    NetworkProblem::RouterSubnetsOverlap { router: router.id, subnet: subnet.id, cidr, other };
                return Err(problem.into());
            }
        }
    }
    Ok(())
}

pub(super) async fn remove_interface(
    tx: &mut dyn Transaction,
    id: RouterId,
    which: InterfaceRef,
) -> Result<Port, Fail> {
    let router = hold(tx, id).await?;
    let on = |port: &Port, subnet: SubnetId| port.fixed_ips.iter().any(|fixed| fixed.subnet_id == subnet);
    let found = interfaces(tx, id).await?.into_iter().find(|port| {
        which.port_id.is_none_or(|wanted| port.id == wanted) && which.subnet_id.is_none_or(|subnet| on(port, subnet))
    });
    let Some(port) = found else {
        return Err(match (which.port_id, which.subnet_id) {
            (Some(port), _) => NetworkProblem::NoInterface { router: id, port }.into(),
            (None, Some(subnet)) => NetworkProblem::NoInterfaceOnSubnet { router: id, subnet }.into(),
            (None, None) => {
                NetworkProblem::Invalid { message: "Either subnet_id or port_id must be specified".into() }.into()
            }
        });
    };
    for fixed in &port.fixed_ips {
        let subnet: Subnet = get(tx, fixed.subnet_id).await?;
        if floating::relies_on(tx, id, Some(&subnet)).await? {
            return Err(NetworkProblem::InterfaceInUse { router: id, subnet: subnet.id }.into());
        }
        // Subnets of one router do not overlap: the hop is on no other.
        if router.routes.iter().any(|route| subnet.cidr.contains(route.nexthop)) {
            return Err(NetworkProblem::InterfaceOfRoute { router: id, subnet: subnet.id }.into());
        }
    }
    ports::remove(tx, &port).await?;
    Ok(port)
}
