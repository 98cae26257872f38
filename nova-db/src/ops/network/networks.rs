//! Networks.

use nova_core::ids::{NetworkId, ProjectId};
use nova_core::network::{FloatingIp, Network, NetworkProblem, NetworkResource, Port, ROUTER_GATEWAY, Subnet};

use super::super::{add, conflict, list, need, not_found, remove_existing, replace_or_race};
use super::{addresses, segments, usage, write_over};
use crate::records::of_network;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{Kind, SegmentRange, StoreError};

pub(super) async fn create(tx: &mut dyn Transaction, network: &Network, limit: Option<u64>) -> Result<Network, Fail> {
    usage::charge(tx, &network.project_id, NetworkResource::Network, 1, limit).await?;
    let network = Network { generation: 1, ..network.clone() };
    segments::take(tx, &network).await?;
    add(tx, &network).await?;
    Ok(network)
}

/// With a tag or identifier of these ranges.
pub(super) async fn create_in(
    tx: &mut dyn Transaction,
    network: &Network,
    ranges: &[SegmentRange],
    draw: u64,
    limit: Option<u64>,
) -> Result<Network, Fail> {
    let network_type = network.network_type.as_deref().unwrap_or_default();
    let (physical_network, number) = segments::free_one(tx, network_type, ranges, draw).await?;
    let network = Network { physical_network, segmentation_id: Some(number), ..network.clone() };
    create(tx, &network, limit).await.map_err(|fail| match fail {
        // Somebody was given it in this moment: there may be others.
        Fail::Store(StoreError::Network(NetworkProblem::VlanInUse { .. } | NetworkProblem::TunnelInUse { .. })) => {
            Fail::Raced { kind: Kind::Network, id: network.id.to_string() }
        }
        other => other,
    })
}

/// The network, if the one who asks may put something on it: it is theirs, or shared.
pub(super) async fn usable_by(
    tx: &mut dyn Transaction,
    id: NetworkId,
    asked_by: Option<&ProjectId>,
) -> Result<Network, Fail> {
    let key = [Value::text(id)];
    let network = need::<Network>(tx, &key, Lock::None).await?.record;
    if asked_by.is_some_and(|project| network.project_id != *project && !network.shared) {
        return Err(not_found::<Network>(&key));
    }
    Ok(network)
}

/// Makes others who change what is on the network wait or try again.
pub(super) async fn hold(tx: &mut dyn Transaction, id: NetworkId) -> Result<Network, Fail> {
    let found = need::<Network>(tx, &[Value::text(id)], Lock::ForUpdate).await?;
    let network = Network { generation: found.generation + 1, ..found.record };
    replace_or_race(tx, &network, found.generation).await?;
    Ok(network)
}

pub(super) async fn update(tx: &mut dyn Transaction, network: &Network) -> Result<Network, Fail> {
    let key = [Value::text(network.id)];
    let old = need::<Network>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != network.generation {
        return Err(conflict::<Network>(&key));
    }
    let next = Network {
        network_type: old.record.network_type.clone(),
        physical_network: old.record.physical_network.clone(),
        segmentation_id: old.record.segmentation_id,
        generation: old.generation + 1,
        ..network.clone()
    };
    write_over(tx, &next, old.generation, key).await?;
    if old.record.external && !next.external && is_outer_for_someone(tx, next.id).await? {
        return Err(NetworkProblem::ExternalInUse { network: next.id }.into());
    }
    if old.record.shared != next.shared {
        share(tx, &next).await?;
    }
    Ok(next)
}

/// Are gateways or floating addresses on it?
async fn is_outer_for_someone(tx: &mut dyn Transaction, id: NetworkId) -> Result<bool, Fail> {
    let gateways = Condition::All(vec![of_network(id), Condition::Is("device_owner", ROUTER_GATEWAY.into())]);
    if !tx.select(Port::TABLE, &Select::new(gateways).limit(1), Lock::None).await?.is_empty() {
        return Ok(true);
    }
    has_floating(tx, id).await
}

async fn has_floating(tx: &mut dyn Transaction, id: NetworkId) -> Result<bool, Fail> {
    let floating = Condition::Is("floating_network_id", Value::text(id));
    Ok(!tx.select(FloatingIp::TABLE, &Select::new(floating).limit(1), Lock::None).await?.is_empty())
}

async fn share(tx: &mut dyn Transaction, network: &Network) -> Result<(), Fail> {
    if !network.shared {
        let others = Condition::Any(vec![
            Condition::Above("project_id", Value::text(&network.project_id)),
            Condition::Below("project_id", Value::text(&network.project_id)),
        ]);
        // Ports of routers to the outside are nobody's.
        let which = vec![of_network(network.id), others, Condition::Above("project_id", "".into())];
        if !tx.select(Port::TABLE, &Select::new(Condition::All(which)).limit(1), Lock::None).await?.is_empty() {
            return Err(NetworkProblem::SharingInUse { network: network.id }.into());
        }
    }
    tx.set(Subnet::TABLE, &of_network(network.id), &[("shared", network.shared.into())]).await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut dyn Transaction, id: NetworkId) -> Result<Network, Fail> {
    let network = hold(tx, id).await?;
    let subnets: Vec<Subnet> = list(tx, &Select::new(of_network(id)).by(&["id"])).await?;
    let mut free = true;
    for subnet in &subnets {
        free &= addresses::clear(tx, subnet.id).await?;
    }
    let ports = tx.select(Port::TABLE, &Select::new(of_network(id)).limit(1), Lock::None).await?;
    if !free || !ports.is_empty() || has_floating(tx, id).await? {
        return Err(NetworkProblem::NetworkInUse { network: id }.into());
    }
    for subnet in &subnets {
        remove_existing::<Subnet>(tx, &[Value::text(subnet.id)]).await?;
        usage::refund(tx, &subnet.project_id, NetworkResource::Subnet, 1).await?;
    }
    remove_existing::<Network>(tx, &[Value::text(id)]).await?;
    segments::give_back(tx, id).await?;
    usage::refund(tx, &network.project_id, NetworkResource::Network, 1).await?;
    Ok(network)
}
