//! Subnets.

use nova_core::ids::{ProjectId, SubnetId};
use nova_core::network::{NetworkProblem, NetworkResource, Subnet};

use super::super::{add, conflict, find, list, need, not_found, remove_existing};
use super::{addresses, networks, usage, write_over};
use crate::records::{Address, address_key, of_network};
use crate::rows::{Fail, Lock, Select, Transaction, Value};

/// The subnets of one network come one after the other, so that none overlaps with another.
pub(super) async fn create(
    tx: &mut dyn Transaction,
    subnet: &Subnet,
    asked_by: Option<&ProjectId>,
    limit: Option<u64>,
) -> Result<Subnet, Fail> {
    let network = networks::hold(tx, subnet.network_id).await?;
    if asked_by.is_some_and(|project| network.project_id != *project) {
        return Err(not_found::<nova_core::network::Network>(&[Value::text(network.id)]));
    }
    let others: Vec<Subnet> = list(tx, &Select::new(of_network(network.id))).await?;
    if others.iter().any(|other| other.cidr.overlaps(&subnet.cidr)) {
        return Err(NetworkProblem::SubnetsOverlap { cidr: subnet.cidr, network: network.id }.into());
    }
    usage::charge(tx, &subnet.project_id, NetworkResource::Subnet, 1, limit).await?;
    let subnet = Subnet { shared: network.shared, generation: 1, ..subnet.clone() };
    add(tx, &subnet).await?;
    addresses::lay_out(tx, &subnet).await?;
    Ok(subnet)
}

pub(super) async fn update(tx: &mut dyn Transaction, subnet: &Subnet) -> Result<Subnet, Fail> {
    let key = [Value::text(subnet.id)];
    let old = need::<Subnet>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != subnet.generation {
        return Err(conflict::<Subnet>(&key));
    }
    let next = Subnet {
        network_id: old.record.network_id,
        cidr: old.record.cidr,
        shared: old.record.shared,
        generation: old.generation + 1,
        ..subnet.clone()
    };
    if let Some(gateway) = old.record.gateway_ip.filter(|gateway| next.gateway_ip != Some(*gateway)) {
        let taken = [Value::text(subnet.id), address_key(gateway)];
        if let Some(taken) = find::<Address>(tx, &taken, Lock::None).await? {
            let port = taken.record.owner;
            return Err(NetworkProblem::GatewayInUse { gateway, subnet: subnet.id, port }.into());
        }
    }
    write_over(tx, &next, old.generation, key).await?;
    Ok(next)
}

pub(super) async fn delete(tx: &mut dyn Transaction, id: SubnetId) -> Result<Subnet, Fail> {
    let key = [Value::text(id)];
    let subnet = need::<Subnet>(tx, &key, Lock::ForUpdate).await?.record;
    if !addresses::clear(tx, id).await? {
        return Err(NetworkProblem::SubnetInUse { subnet: id }.into());
    }
    remove_existing::<Subnet>(tx, &key).await?;
    usage::refund(tx, &subnet.project_id, NetworkResource::Subnet, 1).await?;
    Ok(subnet)
}
