//! Repair: the addresses of a subnet, written as they are used.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::ids::SubnetId;
use nova_core::network::{FloatingIp, Port, Subnet, address_number};

use super::super::{add_all, list, need};
use super::addresses::{free_ranges, of_subnet, taken};
use crate::records::{Address, FreeRange, of_network};
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value, decode};

/// Rows that are written at once.
const AT_ONCE: usize = 500;

/// Who has what.
#[derive(Default)]
struct Users {
    /// Everybody who could have an address of the subnet.
    all: BTreeSet<String>,
    of: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl Users {
    fn add(&mut self, address: IpAddr, owner: &str) {
        self.of.entry(address).or_default().insert(owner.to_owned());
    }
}

/// Whoever makes a port takes its addresses in the same transaction, and holds a range or a row meanwhile: once all of these
/// are held here, what is read next is whole.
pub(super) async fn addresses(tx: &mut dyn Transaction, id: SubnetId) -> Result<Vec<String>, Fail> {
    let ranges: Vec<FreeRange> = held(tx, id).await?;
    let rows: Vec<Address> = held(tx, id).await?;
    let subnet = need::<Subnet>(tx, &[Value::text(id)], Lock::None).await?.record;
    let users = users(tx, &subnet).await?;
    let mut lines = Vec::new();
    let mut now: BTreeMap<IpAddr, String> = BTreeMap::new();
    for row in rows {
        if users.of.get(&row.address).is_some_and(|users| users.contains(&row.owner)) {
            now.insert(row.address, row.owner);
            continue;
        }
        let why = if users.all.contains(&row.owner) { "does not have it" } else { "is not there" };
        lines.push(format!("{} was taken by {}, which {why}", row.address, row.owner));
        let key = [Value::text(id), crate::records::address_key(row.address)];
        tx.delete(Address::TABLE, &Condition::key(Address::TABLE, &key)).await?;
    }
    let mut new = Vec::new();
    for (address, owners) in users.of {
        if let (false, Some(owner)) = (now.contains_key(&address), owners.into_iter().next()) {
            lines.push(format!("{address} is used by {owner}, and was not taken"));
            new.push(taken(&subnet, address, owner.clone()));
            now.insert(address, owner);
        }
    }
    for some in new.chunks(AT_ONCE) {
        add_all(tx, some).await?;
    }
    let free = free_ranges(&subnet, &now.keys().map(|address| address_number(*address)).collect());
    if runs(&free) != runs(&ranges) {
        lines.push(format!("{} addresses were free, and {} are", size(&ranges), size(&free)));
        tx.delete(FreeRange::TABLE, &of_subnet(id)).await?;
        for some in free.chunks(AT_ONCE) {
            add_all(tx, some).await?;
        }
    }
    Ok(lines)
}

/// The subnet's records of that kind, which nobody else changes until the end.
async fn held<R: Record>(tx: &mut dyn Transaction, id: SubnetId) -> Result<Vec<R>, Fail> {
    let rows = tx.select(R::TABLE, &Select::new(of_subnet(id)), Lock::ForUpdate).await?;
    rows.iter().map(|row| Ok(decode::<R>(row)?.record)).collect()
}

async fn users(tx: &mut dyn Transaction, subnet: &Subnet) -> Result<Users, Fail> {
    let mut users = Users::default();
    let ports: Vec<Port> = list(tx, &Select::new(of_network(subnet.network_id))).await?;
    for port in ports {
        let owner = port.id.to_string();
        let fixed = port.fixed_ips.iter().filter(|fixed| fixed.subnet_id == subnet.id);
        fixed.for_each(|fixed| users.add(fixed.ip_address, &owner));
        users.all.insert(owner);
    }
    let which = Condition::Is("floating_network_id", Value::text(subnet.network_id));
    let floating: Vec<FloatingIp> = list(tx, &Select::new(which)).await?;
    for one in floating {
        let owner = one.id.to_string();
        if one.subnet_id == subnet.id {
            users.add(one.floating_ip_address, &owner);
        }
        users.all.insert(owner);
    }
    Ok(users)
}

/// What ranges cover, wherever they are cut.
fn runs(ranges: &[FreeRange]) -> Vec<(u128, u128)> {
    let mut sorted: Vec<_> = ranges.iter().map(|r| (address_number(r.first), address_number(r.last))).collect();
    sorted.sort_unstable();
    let mut runs: Vec<(u128, u128)> = Vec::new();
    for (first, last) in sorted {
        match runs.last_mut() {
            Some(run) if run.1.checked_add(1) == Some(first) => run.1 = last,
            _ => runs.push((first, last)),
        }
    }
    runs
}

fn size(ranges: &[FreeRange]) -> u128 {
    ranges.iter().map(|r| address_number(r.last) - address_number(r.first) + 1).sum()
}
