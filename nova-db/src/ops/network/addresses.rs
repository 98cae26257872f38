//! Addresses, free and taken.
//!
//! The free addresses of a subnet are rows of ranges. Taking one changes the range that it is in and adds a row for the
//! address; giving it back does the reverse and joins what lies side by side. Each is a few statements on a key, however
//! large the subnet is and however many addresses are taken. Whoever removes a subnet takes the ranges away first, and so
//! meets everybody who is about to take an address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nova_core::ids::SubnetId;
use nova_core::network::{AddressPool, NetworkProblem, Subnet, address_number, address_of, usable};

use super::super::{add, add_all, find, first, list, replace_or_race};
use crate::Kind;
use crate::records::{Address, FreeRange, address_key};
use crate::rows::{Condition, Fail, Found, Lock, Record, Select, Transaction, Value, decode, row_of};

/// A subnet is cut into so many blocks at most, as a power of two: callers that begin their search in different blocks do
/// not wait for each other.
const BLOCKS: u8 = 6;

/// Addresses of a block of the smallest size, as a power of two.
const SMALLEST: u8 = 2;

/// Blocks begin at multiples of two to this power.
fn block_bits(subnet: &Subnet) -> u8 {
    subnet.cidr.host_bits().saturating_sub(BLOCKS).max(SMALLEST)
}

fn raced(subnet: SubnetId, address: impl std::fmt::Display) -> Fail {
    Fail::Raced { kind: Kind::Address, id: format!("{subnet}/{address}") }
}

pub(super) fn of_subnet(subnet: SubnetId) -> Condition {
    Condition::Is("subnet_id", Value::text(subnet))
}

/// The ranges of a new subnet.
pub(super) async fn lay_out(tx: &mut dyn Transaction, subnet: &Subnet) -> Result<(), Fail> {
    add_all(tx, &free_ranges(subnet, &BTreeSet::new())).await
}

/// The free ranges of a subnet of which these addresses are taken: its blocks, without what no interface can have.
pub(super) fn free_ranges(subnet: &Subnet, taken: &BTreeSet<u128>) -> Vec<FreeRange> {
    let (from, to) = usable(&subnet.cidr);
    let (bits, version) = (block_bits(subnet), subnet.cidr.version());
    let range = |first: u128, last: u128| FreeRange {
        subnet_id: subnet.id,
        last: address_of(version, last),
        first: address_of(version, first),
    };
    let mut ranges = Vec::new();
    let mut begin = from;
    loop {
        let end = last_of_block(begin, bits).min(to);
        let mut first = Some(begin);
        for number in taken.range(begin..=end) {
            ranges.extend(first.filter(|first| first < number).map(|first| range(first, number - 1)));
            first = number.checked_add(1);
        }
        ranges.extend(first.filter(|first| *first <= end).map(|first| range(first, end)));
        if end >= to {
            return ranges;
        }
        begin = end + 1;
    }
}

/// The row of an address that is taken.
pub(super) fn taken(subnet: &Subnet, address: IpAddr, owner: String) -> Address {
    Address { subnet_id: subnet.id, address, owner, block_bits: block_bits(subnet) }
}

fn last_of_block(address: u128, bits: u8) -> u128 {
    if bits >= 128 { u128::MAX } else { address | ((1 << bits) - 1) }
}

/// Takes all ranges of a subnet away. Says whether none of its addresses is taken.
pub(super) async fn clear(tx: &mut dyn Transaction, subnet: SubnetId) -> Result<bool, Fail> {
    tx.delete(FreeRange::TABLE, &of_subnet(subnet)).await?;
    Ok(tx.select(Address::TABLE, &Select::new(of_subnet(subnet)).limit(1), Lock::None).await?.is_empty())
}

/// Takes this address for an owner.
pub(super) async fn take_given(
    tx: &mut dyn Transaction,
    subnet: &Subnet,
    address: IpAddr,
    owner: &str,
) -> Result<(), Fail> {
    let (from, to) = usable(&subnet.cidr);
    if !subnet.cidr.contains(address) || !(from..=to).contains(&address_number(address)) {
        return Err(NetworkProblem::AddressOutsideSubnet { subnet: subnet.id, address }.into());
    }
    match ranges(tx, subnet.id, address, address, Lock::ForUpdate).await? {
        Some(range) => carve(tx, range, address).await?,
        None => {
            let key = [Value::text(subnet.id), address_key(address)];
            let taken = find::<Address>(tx, &key, Lock::None).await?.is_some();
            let problem = NetworkProblem::AddressInUse { network: subnet.network_id, address };
            return Err(if taken { problem.into() } else { raced(subnet.id, address) });
        }
    }
    keep(tx, subnet, address, owner).await
}

/// Takes any address of the subnet's pools for an owner, searching from a place that `draw` decides. `None`: all are
/// taken.
pub(super) async fn take_any(
    tx: &mut dyn Transaction,
    subnet: &Subnet,
    draw: u64,
    owner: &str,
) -> Result<Option<IpAddr>, Fail> {
    let pools = &subnet.allocation_pools;
    for step in 0..pools.len() {
        let begin = usize::try_from(draw >> 32).unwrap_or_default().wrapping_add(step) % pools.len();
        let Some(pool) = pools.get(begin) else { continue };
        if let Some(range) = search(tx, subnet, pool, draw).await? {
            // The lowest of the range that is in the pool: what is taken stays together.
            let address = range.record.first.max(pool.start);
            carve(tx, range, address).await?;
            keep(tx, subnet, address, owner).await?;
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// Takes any addresses of the subnet's pools, one for each owner, as many as there are: those that lie side by side by one
/// change of their range.
pub(super) async fn take_many(
    tx: &mut dyn Transaction,
    subnet: &Subnet,
    draw: u64,
    owners: &[String],
) -> Result<Vec<IpAddr>, Fail> {
    let pools = &subnet.allocation_pools;
    let mut taken = Vec::with_capacity(owners.len());
    for step in 0..pools.len() {
        let begin = usize::try_from(draw >> 32).unwrap_or_default().wrapping_add(step) % pools.len();
        let Some(pool) = pools.get(begin) else { continue };
        while taken.len() < owners.len() {
            let Some(range) = search(tx, subnet, pool, draw).await? else { break };
            let first = address_number(range.record.first.max(pool.start));
            let wanted = first.saturating_add((owners.len() - taken.len() - 1) as u128);
            let last = wanted.min(address_number(range.record.last)).min(address_number(pool.end));
            let at = |number| address_of(subnet.cidr.version(), number);
            carve_run(tx, range, at(first), at(last)).await?;
            taken.extend((first..=last).map(at));
        }
    }
    let row = |(address, owner): (&IpAddr, &String)| row_of(&self::taken(subnet, *address, owner.clone()), 1);
    let rows = taken.iter().zip(owners).map(row).collect::<Result<Vec<_>, _>>()?;
    if !rows.is_empty() {
        tx.insert(Address::TABLE, rows).await?;
    }
    Ok(taken)
}

/// A free range in the pool, from some block on, and then from the pool's beginning.
async fn search(
    tx: &mut dyn Transaction,
    subnet: &Subnet,
    pool: &AddressPool,
    draw: u64,
) -> Result<Option<Found<FreeRange>>, Fail> {
    let (start, end) = pool.numbers();
    let bits = block_bits(subnet);
    let blocks = ((end - start) >> bits) + 1;
    let from = start + ((u128::from(draw) % blocks) << bits);
    let from = address_of(subnet.cidr.version(), from.min(end));
    if let Some(range) = ranges(tx, subnet.id, from, pool.end, Lock::ForUpdate).await? {
        return Ok(Some(range));
    }
    if let Some(range) = ranges(tx, subnet.id, pool.start, pool.end, Lock::ForUpdate).await? {
        return Ok(Some(range));
    }
    // A range that another transaction just changed may be missing in a locking read: nothing is exhausted before a plain
    // read agrees.
    match ranges(tx, subnet.id, pool.start, pool.end, Lock::None).await? {
        Some(range) => Err(raced(subnet.id, range.record.first)),
        None => Ok(None),
    }
}

/// The first free range that has an address from `from` to `to`.
async fn ranges(
    tx: &mut dyn Transaction,
    subnet: SubnetId,
    from: IpAddr,
    to: IpAddr,
    lock: Lock,
) -> Result<Option<Found<FreeRange>>, Fail> {
    let which = Condition::All(vec![
        of_subnet(subnet),
        Condition::AtLeast("last_address", address_key(from)),
        Condition::AtMost("first_address", address_key(to)),
    ]);
    first(tx, Select::new(which).by(&["subnet_id", "last_address"]), lock).await
}

/// Takes an address out of a range.
async fn carve(tx: &mut dyn Transaction, found: Found<FreeRange>, address: IpAddr) -> Result<(), Fail> {
    carve_run(tx, found, address, address).await
}

/// Takes the addresses from `first` to `last` out of a range.
async fn carve_run(tx: &mut dyn Transaction, found: Found<FreeRange>, first: IpAddr, last: IpAddr) -> Result<(), Fail> {
    let Found { record: range, generation } = found;
    let before = (range.first < first).then(|| neighbour(first, false)).flatten();
    let after = (last < range.last).then(|| neighbour(last, true)).flatten();
    match after {
        Some(first) => replace_or_race(tx, &FreeRange { first, ..range.clone() }, generation).await?,
        None => remove_range(tx, &range).await?,
    }
    match before {
        Some(last) => add(tx, &FreeRange { last, ..range }).await,
        None => Ok(()),
    }
}

/// Removes a range that is still what was read.
async fn remove_range(tx: &mut dyn Transaction, range: &FreeRange) -> Result<(), Fail> {
    let key = [Value::text(range.subnet_id), address_key(range.last)];
    let same = Condition::Is("first_address", address_key(range.first));
    let which = Condition::All(vec![Condition::key(FreeRange::TABLE, &key), same]);
    if tx.delete(FreeRange::TABLE, &which).await? == 1 {
        return Ok(());
    }
    Err(raced(range.subnet_id, range.last))
}

/// The next address, or the one before; `None` at the ends of all numbers.
fn neighbour(address: IpAddr, next: bool) -> Option<IpAddr> {
    let number = address_number(address);
    let number = if next { number.checked_add(1)? } else { number.checked_sub(1)? };
    Some(address_of(nova_core::network::IpVersion::of(address), number))
}

async fn keep(tx: &mut dyn Transaction, subnet: &Subnet, address: IpAddr, owner: &str) -> Result<(), Fail> {
    add(tx, &taken(subnet, address, owner.to_owned())).await
}

/// Gives back what an owner has, or only these of it. Returns how many.
pub(super) async fn give_back(tx: &mut dyn Transaction, owner: &str, only: Option<&[IpAddr]>) -> Result<usize, Fail> {
    let rows =
        tx.select(Address::TABLE, &Select::new(Condition::Is("owner_id", owner.into())), Lock::ForUpdate).await?;
    let mut given = 0;
    for row in &rows {
        let address = decode::<Address>(row)?.record;
        if only.is_some_and(|only| !only.contains(&address.address)) {
            continue;
        }
        if tx.delete(Address::TABLE, &Condition::key(Address::TABLE, row.key(Address::TABLE))).await? != 1 {
            return Err(raced(address.subnet_id, address.address));
        }
        free(tx, &address).await?;
        given += 1;
    }
    Ok(given)
}

/// Gives back all that these owners have.
pub(super) async fn give_back_all(tx: &mut dyn Transaction, owners: &[String]) -> Result<(), Fail> {
    let which = Condition::In("owner_id", owners.iter().map(|owner| owner.as_str().into()).collect());
    let order = ["subnet_id", "address"];
    let rows = tx.select(Address::TABLE, &Select::new(which.clone()).by(&order), Lock::ForUpdate).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let given = rows.iter().map(|row| decode(row).map(|found| found.record)).collect::<Result<Vec<Address>, _>>()?;
    if tx.delete(Address::TABLE, &which).await? != given.len() as u64 {
        // Somebody gave one of them back meanwhile.
        return Err(Fail::Raced { kind: Kind::Address, id: owners.join(" ") });
    }
    for run in runs(&given) {
        free_run(tx, &run).await?;
    }
    Ok(())
}

/// Taken addresses that lie side by side in one block.
struct Run {
    subnet_id: SubnetId,
    first: IpAddr,
    last: IpAddr,
    block_bits: u8,
}

/// Addresses in their order, as runs.
fn runs(addresses: &[Address]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for given in addresses {
        let (address, block_bits) = (given.address, given.block_bits);
        let block = |address| last_of_block(address_number(address), block_bits);
        let joins = |run: &Run| {
            run.subnet_id == given.subnet_id
                && neighbour(run.last, true) == Some(address)
                && block(run.last) == block(address)
        };
        match runs.last_mut() {
            Some(run) if joins(run) => run.last = address,
            _ => runs.push(Run { subnet_id: given.subnet_id, first: address, last: address, block_bits }),
        }
    }
    runs
}

/// Makes an address free.
async fn free(tx: &mut dyn Transaction, given: &Address) -> Result<(), Fail> {
    let (subnet_id, address, block_bits) = (given.subnet_id, given.address, given.block_bits);
    free_run(tx, &Run { subnet_id, first: address, last: address, block_bits }).await
}

/// Makes addresses free: joined to the ranges beside them in their block.
async fn free_run(tx: &mut dyn Transaction, run: &Run) -> Result<(), Fail> {
    let block = |address| last_of_block(address_number(address), run.block_bits);
    let beside = |address, next| neighbour(address, next).filter(|other| block(*other) == block(address));
    let (before, after) = (beside(run.first, false), beside(run.last, true));
    // The one that ends before the run, and the next behind it: ranges are in the order of their ends.
    let from = before.unwrap_or(run.first);
    let which = Condition::All(vec![of_subnet(run.subnet_id), Condition::AtLeast("last_address", address_key(from))]);
    let select = Select::new(which).by(&["subnet_id", "last_address"]).limit(2);
    let rows = tx.select(FreeRange::TABLE, &select, Lock::ForUpdate).await?;
    let mut joined = FreeRange { subnet_id: run.subnet_id, last: run.last, first: run.first };
    let mut grows = None;
    for row in &rows {
        let Found { record: range, generation } = decode::<FreeRange>(row)?;
        if after.is_some_and(|after| range.first == after) {
            joined.last = range.last;
            grows = Some(generation);
        } else if before.is_some_and(|before| range.last == before) {
            joined.first = range.first;
            remove_range(tx, &range).await?;
        }
    }
    match grows {
        Some(generation) => replace_or_race(tx, &joined, generation).await,
        None => add(tx, &joined).await,
    }
}

/// Free addresses and taken ones.
pub(super) async fn count(tx: &mut dyn Transaction, subnet: SubnetId) -> Result<(u128, u64), Fail> {
    let ranges: Vec<FreeRange> = list(tx, &Select::new(of_subnet(subnet))).await?;
    let size = |range: &FreeRange| address_number(range.last) - address_number(range.first) + 1;
    let taken = tx.select(Address::TABLE, &Select::new(of_subnet(subnet)), Lock::None).await?.len();
    Ok((ranges.iter().map(size).sum(), taken as u64))
}
