//! Floating addresses.

use std::net::IpAddr;

use nova_core::ids::{FloatingIpId, NetworkId, PortId, RouterId, SubnetId};
use nova_core::network::{
    FixedIp, FloatingIp, IpVersion, Network, NetworkProblem, NetworkResource, Port, ROUTER_INTERFACE, Router, Subnet,
};

use super::super::{add, conflict, find, list, need, remove_existing, replace_or_race};
use super::{addresses, usage, write_over};
use crate::records::{fixed_key, of_network};
use crate::rows::{Condition, Fail, Found, Lock, Record, Select, Transaction, Value, decode};
use crate::{FloatingTarget, NewFloatingIp};

pub(super) async fn create(tx: &mut dyn Transaction, new: &NewFloatingIp) -> Result<FloatingIp, Fail> {
    let network = need::<Network>(tx, &[Value::text(new.network_id)], Lock::None).await?.record;
    if !network.external {
        return Err(NetworkProblem::NotExternal { network: network.id }.into());
    }
    let (subnet_id, address) = take(tx, new, &network).await?;
    let mut floating = FloatingIp {
        id: new.id,
        project_id: new.project_id.clone(),
        description: new.description.clone(),
        floating_network_id: network.id,
        subnet_id,
        floating_ip_address: address,
        port_id: None,
        fixed_ip_address: None,
        router_id: None,
        created_at: new.now,
        updated_at: new.now,
        generation: 1,
    };
    if let Some(target) = new.target {
        point(tx, &mut floating, target).await?;
    }
    usage::charge(tx, &new.project_id, NetworkResource::FloatingIp, 1, new.limit).await?;
    add(tx, &floating).await?;
    Ok(floating)
}

/// Takes the address, of version 4: the one that is asked for, or any. Nothing translates the other version.
async fn take(tx: &mut dyn Transaction, new: &NewFloatingIp, network: &Network) -> Result<(SubnetId, IpAddr), Fail> {
    let mut subnets: Vec<Subnet> = list(tx, &Select::new(of_network(network.id)).by(&["id"])).await?;
    if let Some(id) = new.address.subnet_id {
        subnets.retain(|subnet| subnet.id == id);
        if subnets.is_empty() {
            return Err(NetworkProblem::ForeignSubnet { network: network.id, subnet: id }.into());
        }
    }
    subnets.retain(|subnet| subnet.cidr.version() == IpVersion::V4);
    if subnets.is_empty() {
        return Err(NetworkProblem::NoV4Subnet { network: network.id }.into());
    }
    let owner = new.id.to_string();
    if let Some(address) = new.address.ip_address {
        require_v4(address)?;
        let Some(subnet) = subnets.iter().find(|subnet| subnet.cidr.contains(address)) else {
            return Err(NetworkProblem::AddressOutsideNetwork { network: network.id, address }.into());
        };
        if subnet.gateway_ip == Some(address) {
            return Err(NetworkProblem::AddressInUse { network: network.id, address }.into());
        }
        addresses::take_given(tx, subnet, address, &owner).await?;
        return Ok((subnet.id, address));
    }
    for subnet in &subnets {
        if let Some(address) = addresses::take_any(tx, subnet, new.draw, &owner).await? {
            return Ok((subnet.id, address));
        }
    }
    Err(NetworkProblem::Exhausted { network: network.id }.into())
}

/// Makes a floating address stand for one of a port. Port and router show that they are relied on: of a removal at the same
/// time, one sees the other.
async fn point(tx: &mut dyn Transaction, floating: &mut FloatingIp, target: FloatingTarget) -> Result<(), Fail> {
    let Found { record: mut port, generation } =
        need::<Port>(tx, &[Value::text(target.port_id)], Lock::ForUpdate).await?;
    let fixed = choose(&port, target.fixed_ip_address)?;
    let router = way_out(tx, floating.floating_network_id, &port, fixed.subnet_id).await?;
    port.generation = generation + 1;
    replace_or_race(tx, &port, generation).await?;
    let was = (floating.port_id, floating.fixed_ip_address);
    floating.port_id = Some(port.id);
    floating.fixed_ip_address = Some(fixed.ip_address);
    floating.router_id = Some(router);
    if was != (floating.port_id, floating.fixed_ip_address) {
        check_alone(tx, floating, fixed.ip_address, port.id).await?;
    }
    Ok(())
}

async fn check_alone(tx: &mut dyn Transaction, floating: &FloatingIp, fixed: IpAddr, port: PortId) -> Result<(), Fail> {
    let which = Condition::Is("fixed_key", fixed_key(floating).into());
    if tx.select(FloatingIp::TABLE, &Select::new(which).limit(1), Lock::None).await?.is_empty() {
        return Ok(());
    }
    Err(NetworkProblem::FixedIpHasFloating {
        address: floating.floating_ip_address,
        id: floating.id,
        port,
        fixed,
        network: floating.floating_network_id,
    }
    .into())
}

fn require_v4(address: IpAddr) -> Result<(), NetworkProblem> {
    match IpVersion::of(address) {
        IpVersion::V4 => Ok(()),
        IpVersion::V6 => Err(NetworkProblem::FloatingV6 { address }),
    }
}

/// The address of the port that is meant.
fn choose(port: &Port, address: Option<IpAddr>) -> Result<FixedIp, NetworkProblem> {
    if let Some(address) = address {
        require_v4(address)?;
        let found = port.fixed_ips.iter().find(|fixed| fixed.ip_address == address);
        return found.copied().ok_or(NetworkProblem::NoSuchFixedIp { port: port.id, address });
    }
    let mut v4 = port.fixed_ips.iter().filter(|fixed| IpVersion::of(fixed.ip_address) == IpVersion::V4);
    match (v4.next(), v4.next()) {
        (Some(only), None) => Ok(*only),
        (None, _) => Err(NetworkProblem::NoFixedIp { port: port.id }),
        (Some(_), Some(_)) => Err(NetworkProblem::ManyFixedIps { port: port.id }),
    }
}

/// The router that joins the port's subnet with the outer network.
async fn way_out(tx: &mut dyn Transaction, outer: NetworkId, port: &Port, subnet: SubnetId) -> Result<RouterId, Fail> {
    let interfaces =
        Condition::All(vec![of_network(port.network_id), Condition::Is("device_owner", ROUTER_INTERFACE.into())]);
    let interfaces: Vec<Port> = list(tx, &Select::new(interfaces).by(&["id"])).await?;
    let on_subnet = interfaces.iter().filter(|port| port.fixed_ips.iter().any(|ip| ip.subnet_id == subnet));
    for interface in on_subnet {
        let Ok(id) = interface.device_id.parse::<RouterId>() else { continue };
        let Some(found) = find::<Router>(tx, &[Value::text(id)], Lock::ForUpdate).await? else { continue };
        if found.record.project_id != interface.project_id {
            continue;
        }
        if found.record.gateway.as_ref().is_some_and(|gateway| gateway.network_id == outer) {
            let router = Router { generation: found.generation + 1, ..found.record };
            replace_or_race(tx, &router, found.generation).await?;
            return Ok(id);
        }
    }
    Err(NetworkProblem::NotReachable { network: outer, subnet, port: port.id }.into())
}

pub(super) async fn associate(
    tx: &mut dyn Transaction,
    floating: &FloatingIp,
    target: Option<FloatingTarget>,
) -> Result<FloatingIp, Fail> {
    let key = [Value::text(floating.id)];
    let old = need::<FloatingIp>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != floating.generation {
        return Err(conflict::<FloatingIp>(&key));
    }
    let mut next = FloatingIp {
        description: floating.description.clone(),
        updated_at: floating.updated_at,
        generation: old.generation + 1,
        ..old.record
    };
    match target {
        Some(target) => point(tx, &mut next, target).await?,
        None => clear(&mut next),
    }
    write_over(tx, &next, old.generation, key).await?;
    Ok(next)
}

fn clear(floating: &mut FloatingIp) {
    floating.port_id = None;
    floating.fixed_ip_address = None;
    floating.router_id = None;
}

pub(super) async fn delete(tx: &mut dyn Transaction, id: FloatingIpId) -> Result<FloatingIp, Fail> {
    let key = [Value::text(id)];
    let floating = need::<FloatingIp>(tx, &key, Lock::ForUpdate).await?.record;
    remove_existing::<FloatingIp>(tx, &key).await?;
    addresses::give_back(tx, &id.to_string(), None).await?;
    usage::refund(tx, &floating.project_id, NetworkResource::FloatingIp, 1).await?;
    Ok(floating)
}

/// Makes what stands for a port's addresses, or only for these, stand for nothing.
pub(super) async fn forget_port(tx: &mut dyn Transaction, port: PortId, only: Option<&[IpAddr]>) -> Result<(), Fail> {
    let which = Condition::Is("port_id", Value::text(port));
    for row in tx.select(FloatingIp::TABLE, &Select::new(which), Lock::ForUpdate).await? {
        let Found { record: mut floating, generation } = decode::<FloatingIp>(&row)?;
        let meant = only.is_none_or(|only| floating.fixed_ip_address.is_some_and(|fixed| only.contains(&fixed)));
        if meant {
            clear(&mut floating);
            replace_or_race(tx, &floating, generation).await?;
        }
    }
    Ok(())
}

/// Does a floating address rely on this router; on its way to one of these addresses?
pub(super) async fn relies_on(
    tx: &mut dyn Transaction,
    router: RouterId,
    subnet: Option<&Subnet>,
) -> Result<bool, Fail> {
    let which = Condition::Is("router_id", Value::text(router));
    let floating: Vec<FloatingIp> = list(tx, &Select::new(which)).await?;
    let fixed = |floating: &FloatingIp| floating.fixed_ip_address;
    Ok(floating.iter().any(|one| subnet.is_none_or(|s| fixed(one).is_some_and(|fixed| s.cidr.contains(fixed)))))
}
