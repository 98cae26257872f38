//! Who holds what, and on which host.

use super::counts::put;
use super::layout::Row;
use super::{HostTable, MOST};
use crate::SchedulerError;
use crate::dimensions::ResourceVector;
use crate::hash::Map;

/// Whether a change to the table did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was applied now.
    Now,
    /// It had been applied before, so nothing was changed.
    Before,
}

/// What a consumer holds on one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The host's name.
    pub host: String,
    /// How much.
    pub resources: ResourceVector,
}

/// The different amounts that are held, each kept once: millions of instances have few sizes.
#[derive(Clone, Default)]
pub(super) struct Sizes {
    ids: Map<ResourceVector, u32>,
    /// Each with how many holdings have it; the number is its id.
    kept: Vec<(ResourceVector, u32)>,
    unused: Vec<u32>,
}

impl Sizes {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    fn get(&self, id: u32) -> ResourceVector {
        self.kept.get(id as usize).map(|(amounts, _)| *amounts).unwrap_or_default()
    }

    fn keep(&mut self, amounts: &ResourceVector) -> u32 {
        if let Some(id) = self.ids.get(amounts) {
            self.kept[*id as usize].1 += 1;
            return *id;
        }
        let id = self.unused.pop().unwrap_or(self.kept.len() as u32);
        if id as usize == self.kept.len() {
            self.kept.push((*amounts, 1));
        } else {
            self.kept[id as usize] = (*amounts, 1);
        }
        self.ids.insert(*amounts, id);
        id
    }

    /// One holding less has it; returns it.
    fn drop_one(&mut self, id: u32) -> ResourceVector {
        let Some((amounts, holdings)) = self.kept.get_mut(id as usize) else { return ResourceVector::default() };
        *holdings -= 1;
        if *holdings == 0 {
            self.ids.remove(amounts);
            self.unused.push(id);
        }
        *amounts
    }
}

#[derive(Clone, Copy)]
struct Held {
    row: Row,
    size: u32,
}

/// What one consumer holds: on one host, but for the time of a move.
#[derive(Clone)]
pub(super) struct Holdings {
    first: Held,
    /// Boxed, since there seldom are any and there is one of these for every instance.
    #[allow(clippy::box_collection, reason = "a third of the size of a Vec")]
    more: Option<Box<Vec<Held>>>,
}

impl Holdings {
    fn iter(&self) -> impl Iterator<Item = &Held> {
        std::iter::once(&self.first).chain(self.more.iter().flat_map(|more| more.iter()))
    }

    fn get_mut(&mut self, row: Row) -> Option<&mut Held> {
        std::iter::once(&mut self.first)
            .chain(self.more.iter_mut().flat_map(|more| more.iter_mut()))
            .find(|held| held.row == row)
    }
}

impl HostTable {
    /// Books resources on a host for a consumer (an instance, by its UUID's number). A consumer may hold something on
    /// several hosts, as during a move. Booking the same again changes nothing.
    ///
    /// Neither the host's state nor its zone is looked at: that is the scheduler's part.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::InsufficientCapacity`] when it would exceed what may be handed out,
    /// [`SchedulerError::AllocationDiffers`] when the consumer holds another amount there,
    /// [`SchedulerError::UnknownHost`], [`SchedulerError::UnknownDimension`]. The table is then as it was.
    pub fn allocate(
        &mut self,
        host: &str,
        consumer: u128,
        resources: &ResourceVector,
    ) -> Result<Applied, SchedulerError> {
        let row = self.known_row(host)?;
        self.check_dimensions(resources)?;
        match self.held(consumer, row) {
            Some(held) if held == *resources => Ok(Applied::Before),
            Some(_) => Err(SchedulerError::AllocationDiffers { consumer, host: host.to_owned() }),
            None => {
                self.check_room(row, resources, &ResourceVector::default())?;
                self.hold(row, consumer, resources);
                Ok(Applied::Now)
            }
        }
    }

    /// Makes the consumer hold exactly this much on the host, whatever it held there before (a resize in place).
    ///
    /// # Errors
    ///
    /// As [`HostTable::allocate`], without `AllocationDiffers`.
    pub fn reallocate(
        &mut self,
        host: &str,
        consumer: u128,
        resources: &ResourceVector,
    ) -> Result<Applied, SchedulerError> {
        let row = self.known_row(host)?;
        self.check_dimensions(resources)?;
        let held = self.held(consumer, row);
        if held == Some(*resources) {
            return Ok(Applied::Before);
        }
        self.check_room(row, resources, &held.unwrap_or_default())?;
        self.replace(row, consumer, resources);
        Ok(Applied::Now)
    }

    /// Notes an allocation that has already been made elsewhere (the store's books), even if by the host's present
    /// size it shouldn't fit. For facts, not for decisions: those use [`HostTable::allocate`].
    ///
    /// # Errors
    ///
    /// [`SchedulerError::UnknownHost`], [`SchedulerError::UnknownDimension`], and
    /// [`SchedulerError::InsufficientCapacity`] beyond 2^62 units, where counting ends.
    pub fn record_allocation(
        &mut self,
        host: &str,
        consumer: u128,
        resources: &ResourceVector,
    ) -> Result<Applied, SchedulerError> {
        let row = self.known_row(host)?;
        self.check_dimensions(resources)?;
        let held = self.held(consumer, row);
        if held == Some(*resources) {
            return Ok(Applied::Before);
        }
        let held = held.unwrap_or_default();
        for (index, asked) in resources.non_zero() {
            let others = self.used_at(row, index) - held.get(index);
            if asked > MOST - others {
                return Err(self.no_room(row, index, asked, MOST - others));
            }
        }
        self.replace(row, consumer, resources);
        Ok(Applied::Now)
    }

    /// Gives back all that a consumer holds, on every host. Returns whether it held something; repeating it is safe.
    pub fn release(&mut self, consumer: u128) -> bool {
        let Some(holdings) = self.allocations.remove(&consumer) else { return false };
        for held in holdings.iter() {
            self.give_back(consumer, held);
        }
        true
    }

    /// Gives back what a consumer holds on one host (the other end of a move keeps its part). Returns whether it held
    /// something there; repeating it is safe.
    pub fn release_on(&mut self, consumer: u128, host: &str) -> bool {
        let Some(row) = self.row(host) else { return false };
        let Some(held) = self.drop_holding(consumer, row) else { return false };
        self.give_back(consumer, &held);
        true
    }

    /// What a consumer holds, by host name.
    #[must_use]
    pub fn holdings(&self, consumer: u128) -> Vec<Holding> {
        let Some(holdings) = self.allocations.get(&consumer) else { return Vec::new() };
        let mut list: Vec<_> = (holdings.iter())
            .filter_map(|held| {
                Some(Holding { host: self.cold(held.row)?.name.to_string(), resources: self.sizes.get(held.size) })
            })
            .collect();
        list.sort_by(|a, b| a.host.cmp(&b.host));
        list
    }

    /// The consumers that hold something on the host, in order.
    #[must_use]
    pub fn consumers_on(&self, host: &str) -> Vec<u128> {
        let cold = self.row(host).and_then(|row| self.cold(row));
        let mut consumers = cold.map(|cold| cold.consumers.clone()).unwrap_or_default();
        consumers.sort_unstable();
        consumers
    }

    pub(super) fn consumers(&self) -> impl Iterator<Item = u128> + '_ {
        self.allocations.keys().copied()
    }

    /// The host's row moved; so do the holdings that name it.
    pub(super) fn move_holdings(&mut self, consumers: &[u128], from: Row, to: Row) {
        for consumer in consumers {
            let holdings = self.allocations.get_mut(consumer);
            if let Some(held) = holdings.and_then(|holdings| holdings.get_mut(from)) {
                held.row = to;
            }
        }
    }

    /// The host goes away, and all that is held on it.
    pub(super) fn forget_holdings(&mut self, row: Row) {
        let consumers = self.cold_mut(row).map(|cold| std::mem::take(&mut cold.consumers));
        for consumer in consumers.unwrap_or_default() {
            if let Some(held) = self.drop_holding(consumer, row) {
                self.sizes.drop_one(held.size);
                self.forget_image(consumer);
            }
        }
    }

    pub(crate) fn holds_on(&self, consumer: u128, row: Row) -> bool {
        self.rows_of(consumer).any(|held| held == row)
    }

    /// The hosts on which the consumer holds something.
    pub(crate) fn rows_of(&self, consumer: u128) -> impl Iterator<Item = Row> + '_ {
        self.allocations.get(&consumer).into_iter().flat_map(|holdings| holdings.iter().map(|held| held.row))
    }

    fn held(&self, consumer: u128, row: Row) -> Option<ResourceVector> {
        self.allocations.get(&consumer)?.iter().find(|held| held.row == row).map(|held| self.sizes.get(held.size))
    }

    fn replace(&mut self, row: Row, consumer: u128, resources: &ResourceVector) {
        // What else is known of the consumer stays.
        let image = self.images.get(&consumer).cloned();
        let topology = self.cold_mut(row).and_then(|cold| cold.change_rare(|rare| rare.topology.take()));
        if let Some(old) = self.drop_holding(consumer, row) {
            self.give_back(consumer, &old);
        }
        self.hold(row, consumer, resources);
        if let Some(cold) = self.cold_mut(row) {
            cold.change_rare(|rare| rare.topology = topology);
        }
        self.images.extend(image.map(|image| (consumer, image)));
    }

    fn hold(&mut self, row: Row, consumer: u128, resources: &ResourceVector) {
        let held = Held { row, size: self.sizes.keep(resources) };
        self.allocations
            .entry(consumer)
            .and_modify(|holdings| holdings.more.get_or_insert_default().push(held))
            .or_insert(Holdings { first: held, more: None });
        if let Some(cold) = self.cold_mut(row) {
            cold.consumers.push(consumer);
        }
        self.count_instances(row);
        for (index, amount) in resources.non_zero() {
            self.change_free(row, index, -(amount as i64));
        }
        if self.refresh_loads(row) {
            self.changes.push(row);
        }
    }

    fn give_back(&mut self, consumer: u128, held: &Held) {
        if let Some(cold) = self.cold_mut(held.row)
            && let Some(place) = cold.consumers.iter().position(|other| *other == consumer)
        {
            cold.consumers.swap_remove(place);
        }
        self.count_instances(held.row);
        self.release_topology(held.row, consumer);
        self.forget_image(consumer);
        for (index, amount) in self.sizes.drop_one(held.size).non_zero() {
            self.change_free(held.row, index, amount as i64);
        }
        self.refresh_loads(held.row);
        self.changes.push(held.row);
    }

    fn forget_image(&mut self, consumer: u128) {
        if !self.images.is_empty() && !self.allocations.contains_key(&consumer) {
            self.images.remove(&consumer);
        }
    }

    fn count_instances(&mut self, row: Row) {
        let instances = self.cold(row).map_or(0, |cold| cold.consumers.len());
        put(&mut self.counts.instances, row, instances as u32);
    }

    /// Takes one holding out of the consumer's list.
    fn drop_holding(&mut self, consumer: u128, row: Row) -> Option<Held> {
        let holdings = self.allocations.get_mut(&consumer)?;
        let first = holdings.first;
        if first.row != row {
            let more = holdings.more.as_mut()?;
            let place = more.iter().position(|held| held.row == row)?;
            return Some(more.swap_remove(place));
        }
        match holdings.more.as_mut().and_then(|more| more.pop()) {
            Some(next) => holdings.first = next,
            None => drop(self.allocations.remove(&consumer)),
        }
        Some(first)
    }

    /// Refuses amounts of dimensions that the table doesn't count.
    fn check_dimensions(&self, resources: &ResourceVector) -> Result<(), SchedulerError> {
        match resources.non_zero().find(|(index, _)| *index >= self.dimensions.len()) {
            Some((index, _)) => Err(SchedulerError::UnknownDimension { name: format!("number {index}") }),
            None => Ok(()),
        }
    }

    /// Refuses what doesn't fit once `held` were given back. What is not asked for is not looked at, as in Placement.
    fn check_room(&self, row: Row, asked: &ResourceVector, held: &ResourceVector) -> Result<(), SchedulerError> {
        for (index, amount) in asked.non_zero() {
            let free = self.free_at(row, index) + held.get(index) as i64;
            if i64::try_from(amount).is_ok_and(|amount| amount <= free) {
                continue;
            }
            return Err(self.no_room(row, index, amount, free.max(0) as u64));
        }
        Ok(())
    }

    fn no_room(&self, row: Row, index: usize, asked: u64, free: u64) -> SchedulerError {
        SchedulerError::InsufficientCapacity {
            host: self.cold(row).map(|cold| cold.name.to_string()).unwrap_or_default(),
            dimension: self.dimensions.name(index).unwrap_or_default().to_owned(),
            asked,
            free,
        }
    }
}
