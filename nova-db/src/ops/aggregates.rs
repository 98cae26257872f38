//! Host aggregates.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use nova_core::aggregate::{Aggregate, AggregateProblem, ZONE_KEY, check_single_zone};
use nova_core::host::Service;
use nova_core::ids::{HostName, ZoneName};

use super::accounts::node_of_host;
use super::{RowStore, add, duplicate, find, first, list, need, not_found, remove, replace_or_race};
use crate::records::AggregateHost;
use crate::rows::{Backend, Condition, Fail, Found, Lock, Record, Select, Sequence, Transaction, Value};
use crate::{AggregateChange, AggregateStore, Booking, Kind, StoreError};

/// Hosts that one question names at most: databases bound the values of a statement.
const AT_ONCE: usize = 500;

#[async_trait]
impl<B: Backend> AggregateStore for RowStore<B> {
    async fn create_aggregate(&self, aggregate: Aggregate) -> Result<Aggregate, StoreError> {
        self.write(aggregate, |tx, aggregate| Box::pin(create(tx, aggregate))).await
    }

    async fn get_aggregate(&self, number: i64) -> Result<Aggregate, StoreError> {
        self.read(&number, |tx, number| Box::pin(async move { Ok(whole(tx, *number, Lock::None).await?.record) })).await
    }

    async fn list_aggregates(&self) -> Result<Vec<Aggregate>, StoreError> {
        self.read(&(), |tx, ()| Box::pin(all(tx))).await
    }

    async fn update_aggregate(&self, change: AggregateChange) -> Result<Aggregate, StoreError> {
        self.write(change, |tx, change| Box::pin(update(tx, change))).await
    }

    async fn delete_aggregate(&self, number: i64) -> Result<Aggregate, StoreError> {
        self.write(number, |tx, number| Box::pin(delete(tx, *number))).await
    }

    async fn add_aggregate_host(&self, number: i64, host: &HostName) -> Result<Aggregate, StoreError> {
        self.write((number, host.clone()), |tx, input| Box::pin(add_host(tx, input.0, &input.1))).await
    }

    async fn remove_aggregate_host(&self, number: i64, host: &HostName) -> Result<Aggregate, StoreError> {
        self.write((number, host.clone()), |tx, input| Box::pin(remove_host(tx, input.0, &input.1))).await
    }
}

/// From here on no other change of any aggregate is under way.
async fn alone(tx: &mut dyn Transaction) -> Result<(), Fail> {
    tx.advance(Sequence::AggregateChange, 1).await.map(|_| ())
}

async fn whole(tx: &mut dyn Transaction, number: i64, lock: Lock) -> Result<Found<Aggregate>, Fail> {
    let mut found: Found<Aggregate> = need(tx, &[number.into()], lock).await?;
    let its = Select::new(Condition::Is("aggregate_number", number.into()));
    found.record.hosts = list::<AggregateHost>(tx, &its).await?.into_iter().map(|row| row.host).collect();
    Ok(found)
}

async fn all(tx: &mut dyn Transaction) -> Result<Vec<Aggregate>, Fail> {
    let mut aggregates: Vec<Aggregate> = list(tx, &Select::all().by(&["number"])).await?;
    let mut hosts: BTreeMap<i64, BTreeSet<HostName>> = BTreeMap::new();
    for row in list::<AggregateHost>(tx, &Select::all()).await? {
        hosts.entry(row.aggregate).or_default().insert(row.host);
    }
    for aggregate in &mut aggregates {
        aggregate.hosts = hosts.remove(&aggregate.number).unwrap_or_default();
    }
    Ok(aggregates)
}

async fn create(tx: &mut dyn Transaction, aggregate: &Aggregate) -> Result<Aggregate, Fail> {
    alone(tx).await?;
    let number = tx.advance(Sequence::Aggregate, 1).await?;
    let new = Aggregate { number, hosts: BTreeSet::new(), ..aggregate.clone() };
    check_name(tx, &new).await?;
    add(tx, &new).await?;
    Ok(new)
}

async fn check_name(tx: &mut dyn Transaction, aggregate: &Aggregate) -> Result<(), Fail> {
    let same = Select::new(Condition::Is("name", aggregate.name.as_str().into()));
    let other = first::<Aggregate>(tx, same, Lock::None).await?;
    if other.is_some_and(|other| other.record.number != aggregate.number) {
        return Err(duplicate(Kind::Aggregate, "name", &aggregate.name));
    }
    Ok(())
}

async fn update(tx: &mut dyn Transaction, change: &AggregateChange) -> Result<Aggregate, Fail> {
    alone(tx).await?;
    let Found { record: old, generation } = whole(tx, change.number, Lock::ForUpdate).await?;
    let mut next = old.clone();
    if let Some(name) = &change.name {
        next.name.clone_from(name);
        check_name(tx, &next).await?;
    }
    for (key, value) in &change.metadata {
        match value {
            Some(value) => next.metadata.insert(key.clone(), value.clone()),
            None => next.metadata.remove(key),
        };
    }
    if let Some(zone) = change.metadata.get(ZONE_KEY) {
        check_new_zone(tx, &old, zone.as_deref()).await?;
    }
    next.updated_at = Some(change.now);
    let hosts = std::mem::take(&mut next.hosts);
    replace_or_race(tx, &next, generation).await?;
    Ok(Aggregate { hosts, ..next })
}

/// Nova's `is_safe_to_update_az`.
async fn check_new_zone(tx: &mut dyn Transaction, aggregate: &Aggregate, zone: Option<&str>) -> Result<(), Fail> {
    let Some(zone) = zone.filter(|zone| !zone.is_empty()).map(ZoneName::new) else {
        return Err(StoreError::from(AggregateProblem::EmptyZone(aggregate.name.clone())).into());
    };
    let others = others_of(tx, &aggregate.hosts, aggregate.number).await?;
    check_single_zone(&zone, &others).map_err(StoreError::from)?;
    if aggregate.availability_zone().as_ref() == Some(&zone) {
        return Ok(());
    }
    for host in &aggregate.hosts {
        if instances_on(tx, host).await?.0 > 0 {
            return Err(StoreError::from(AggregateProblem::HasInstances).into());
        }
    }
    Ok(())
}

/// Other aggregates that these hosts are in, by number.
async fn others_of(tx: &mut dyn Transaction, hosts: &BTreeSet<HostName>, not: i64) -> Result<Vec<Aggregate>, Fail> {
    let hosts: Vec<Value> = hosts.iter().map(Value::text).collect();
    let mut numbers = BTreeSet::new();
    for some in hosts.chunks(AT_ONCE) {
        let rows: Vec<AggregateHost> = list(tx, &Select::new(Condition::In("host", some.to_vec()))).await?;
        numbers.extend(rows.into_iter().map(|row| row.aggregate).filter(|number| *number != not));
    }
    let mut others = Vec::with_capacity(numbers.len());
    for number in numbers {
        others.extend(find::<Aggregate>(tx, &[number.into()], Lock::None).await?.map(|found| found.record));
    }
    Ok(others)
}

/// How many servers are booked on a host, and the zone that it reports. The node's generation is raised: a booking that
/// has seen the host in its old zone tries again.
async fn instances_on(tx: &mut dyn Transaction, host: &HostName) -> Result<(u64, Option<ZoneName>), Fail> {
    let Some(Found { record: mut node, generation }) = node_of_host(tx, host, Lock::ForUpdate).await? else {
        return Ok((0, None));
    };
    node.generation = generation + 1;
    replace_or_race(tx, &node, generation).await?;
    Ok((node.allocations, Some(node.zone)))
}

async fn delete(tx: &mut dyn Transaction, number: i64) -> Result<Aggregate, Fail> {
    alone(tx).await?;
    let aggregate = whole(tx, number, Lock::ForUpdate).await?.record;
    if !aggregate.hosts.is_empty() {
        return Err(StoreError::from(AggregateProblem::NotEmpty).into());
    }
    if !remove::<Aggregate>(tx, &[number.into()]).await? {
        return Err(not_found::<Aggregate>(&[number.into()]));
    }
    Ok(aggregate)
}

async fn add_host(tx: &mut dyn Transaction, number: i64, host: &HostName) -> Result<Aggregate, Fail> {
    alone(tx).await?;
    let mut aggregate = whole(tx, number, Lock::ForUpdate).await?.record;
    check_service(tx, host).await?;
    let others = others_of(tx, &[host.clone()].into(), number).await?;
    let zone = aggregate.availability_zone();
    if let Some(zone) = &zone {
        check_single_zone(zone, &others).map_err(StoreError::from)?;
    }
    if !aggregate.hosts.insert(host.clone()) {
        return Err(StoreError::from(AggregateProblem::HostExists { number, host: host.clone() }).into());
    }
    // It may bring another zone only to a host that is in none yet.
    if let Some(to) = zone.filter(|_| zone_by(&others).is_none()) {
        check_move(tx, host, "added to", |own| (own, to)).await?;
    }
    add(tx, &AggregateHost { aggregate: number, host: host.clone() }).await?;
    Ok(aggregate)
}

async fn remove_host(tx: &mut dyn Transaction, number: i64, host: &HostName) -> Result<Aggregate, Fail> {
    alone(tx).await?;
    let mut aggregate = whole(tx, number, Lock::ForUpdate).await?.record;
    if !aggregate.hosts.remove(host) {
        return Err(StoreError::from(AggregateProblem::HostMissing { number, host: host.clone() }).into());
    }
    let others = others_of(tx, &[host.clone()].into(), number).await?;
    if let Some(from) = aggregate.availability_zone().filter(|_| zone_by(&others).is_none()) {
        check_move(tx, host, "removed from", |own| (from, own)).await?;
    }
    remove::<AggregateHost>(tx, &[number.into(), Value::text(host)]).await?;
    Ok(aggregate)
}

/// The host's compute service is there, and is not deleted before this ends.
async fn check_service(tx: &mut dyn Transaction, host: &HostName) -> Result<(), Fail> {
    let of_host = [("binary_name", "nova-compute".into()), ("host", Value::text(host))];
    let which = Condition::All(of_host.into_iter().map(|(column, value)| Condition::Is(column, value)).collect());
    match first::<Service>(tx, Select::new(which), Lock::ForUpdate).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::NotFound { kind: Kind::Service, id: host.to_string() }.into()),
    }
}

fn zone_by(aggregates: &[Aggregate]) -> Option<ZoneName> {
    aggregates.iter().find_map(Aggregate::availability_zone)
}

/// A host with servers stays in its zone.
async fn check_move(
    tx: &mut dyn Transaction,
    host: &HostName,
    verb: &'static str,
    zones: impl FnOnce(ZoneName) -> (ZoneName, ZoneName),
) -> Result<(), Fail> {
    let (instances, Some(own)) = instances_on(tx, host).await? else { return Ok(()) };
    let (from, to) = zones(own);
    if from == to || instances == 0 {
        return Ok(());
    }
    Err(StoreError::from(AggregateProblem::MovesInstances { verb, from, to, instances }).into())
}

/// A host that is gone is in no aggregate.
pub(super) async fn forget_host(tx: &mut dyn Transaction, host: &HostName) -> Result<(), Fail> {
    tx.delete(AggregateHost::TABLE, &Condition::Is("host", Value::text(host))).await?;
    Ok(())
}

/// The zone of a host that says to be in `own`.
pub(super) async fn zone_of(tx: &mut dyn Transaction, host: &HostName, own: &ZoneName) -> Result<ZoneName, Fail> {
    let aggregates = others_of(tx, &[host.clone()].into(), 0).await?;
    Ok(zone_by(&aggregates).unwrap_or_else(|| own.clone()))
}

/// Is the host that is being booked in the zone that is asked for? Its node is read for writing already.
pub(super) async fn check_zone(tx: &mut dyn Transaction, booking: &Booking, own: &ZoneName) -> Result<(), Fail> {
    let Some(zone) = &booking.zone else { return Ok(()) };
    let host = &booking.allocation.host;
    let actual = zone_of(tx, host, own).await?;
    if actual == *zone {
        return Ok(());
    }
    let reason = format!("it is in availability zone {actual}, not in {zone}");
    Err(StoreError::Unsuitable { host: host.to_string(), reason }.into())
}
