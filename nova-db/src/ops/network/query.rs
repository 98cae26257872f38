//! Lists.

use std::collections::BTreeSet;

use nova_core::network::{Network, Port, Subnet};

use super::super::{list, not_found};
use crate::network::Field;
use crate::records::{Address, PortGroup, address_key};
use crate::rows::{Column, Condition, Fail, Lock, Record, Select, Transaction, Value, decode};
use crate::{Direction, ListQuery, NetworkField, PortQuery, SubnetField};

/// What is its project's own.
pub(in crate::ops) async fn own<R: Record, F: Field>(
    tx: &mut dyn Transaction,
    query: &ListQuery<F>,
) -> Result<Vec<R>, Fail> {
    page(tx, query, &[], Vec::new()).await
}

/// Shared ones and outer ones are everybody's to see.
pub(super) async fn networks(tx: &mut dyn Transaction, query: &ListQuery<NetworkField>) -> Result<Vec<Network>, Fail> {
    page(tx, query, &["shared", "external"], Vec::new()).await
}

/// Those of shared networks are everybody's to see.
pub(super) async fn subnets(tx: &mut dyn Transaction, query: &ListQuery<SubnetField>) -> Result<Vec<Subnet>, Fail> {
    page(tx, query, &["shared"], Vec::new()).await
}

/// What is asked of addresses and groups narrows the ids; the rest is one question.
pub(super) async fn ports(tx: &mut dyn Transaction, query: &PortQuery) -> Result<Vec<Port>, Fail> {
    let mut more = Vec::new();
    if !query.ip_addresses.is_empty() || !query.subnets.is_empty() {
        more.push(with_addresses(tx, query).await?);
    }
    if !query.security_groups.is_empty() {
        let groups = query.security_groups.iter().map(Value::text).collect();
        let rows = tx.select(PortGroup::TABLE, &Select::new(Condition::In("group_id", groups)), Lock::None).await?;
        let ids: Result<BTreeSet<_>, Fail> =
            rows.iter().map(|row| Ok(Value::text(decode::<PortGroup>(row)?.record.port_id))).collect();
        more.push(Condition::In("id", ids?.into_iter().collect()));
    }
    page(tx, &query.list, &[], more).await
}

async fn with_addresses(tx: &mut dyn Transaction, query: &PortQuery) -> Result<Condition, Fail> {
    let mut which = Vec::new();
    if !query.subnets.is_empty() {
        which.push(Condition::In("subnet_id", query.subnets.iter().map(Value::text).collect()));
    }
    if !query.ip_addresses.is_empty() {
        which.push(Condition::In("address", query.ip_addresses.iter().map(|ip| address_key(*ip)).collect()));
    }
    let rows = tx.select(Address::TABLE, &Select::new(Condition::All(which)), Lock::None).await?;
    let mut ids = BTreeSet::new();
    for row in &rows {
        ids.insert(Value::Text(decode::<Address>(row)?.record.owner));
    }
    Ok(Condition::In("id", ids.into_iter().collect()))
}

/// One statement for a page, and one more for where it begins.
async fn page<R: Record, F: Field>(
    tx: &mut dyn Transaction,
    query: &ListQuery<F>,
    everybodys: &[&'static str],
    more: Vec<Condition>,
) -> Result<Vec<R>, Fail> {
    let mut all = more;
    if let Some(project) = &query.visible_to {
        let own = Condition::Is("project_id", Value::text(project));
        let open = everybodys.iter().map(|flag| Condition::Is(flag, true.into()));
        all.push(Condition::Any(std::iter::once(own).chain(open).collect()));
    }
    for (field, values) in &query.filters {
        let Some(column) = R::TABLE.columns.iter().find(|column| column.name == field.column()) else { continue };
        let values: Vec<Value> = values.iter().filter_map(|text| value(column, text)).collect();
        all.push(match <[Value; 1]>::try_from(values) {
            Ok([one]) => Condition::Is(column.name, one),
            Err(values) => Condition::In(column.name, values),
        });
    }
    let mut select = Select { which: Condition::All(all), order: order(query), limit: query.limit };
    if let Some(after) = &query.after {
        let key = [Value::from(after.as_str())];
        let marker = tx.get(R::TABLE, &key, Lock::None).await?.ok_or_else(|| not_found::<R>(&key))?;
        select = select.after(R::TABLE, &marker);
    }
    list(tx, &select).await
}

fn order<F: Field>(query: &ListQuery<F>) -> Vec<(&'static str, Direction)> {
    let mut order: Vec<(&'static str, Direction)> = Vec::with_capacity(query.sort.len() + 1);
    let given = query.sort.iter().map(|(field, direction)| (field.column(), *direction));
    let usual = query.sort.is_empty().then_some(("created_at", Direction::Ascending));
    for (column, direction) in given.chain(usual).chain([("id", Direction::Ascending)]) {
        if !order.iter().any(|(earlier, _)| *earlier == column) {
            order.push((column, direction));
        }
    }
    order
}

/// A text as the column holds it; `None` for what the column cannot hold.
fn value(column: &Column, text: &str) -> Option<Value> {
    use crate::rows::ColumnType;
    match column.ty {
        ColumnType::Text(_) => Some(text.into()),
        ColumnType::Flag => text.parse::<bool>().ok().map(Value::from),
        ColumnType::Int | ColumnType::Time => text.parse::<i64>().ok().map(Value::from),
    }
}
