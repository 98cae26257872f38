//! What filters and weighers see: hosts one by one or 64 at once, in the company of the request's group and of what the
//! request has already placed.

use crate::HostView;
use crate::query::{Overlay, Query};
use crate::table::{BLOCK, Row, bits, row_at};

/// The request, what it has placed so far, and where its group is.
pub(crate) struct Company<'a> {
    pub(crate) query: &'a Query<'a>,
    overlay: &'a Overlay,
}

impl<'a> Company<'a> {
    pub(crate) fn new(query: &'a Query<'a>, overlay: &'a Overlay) -> Self {
        Self { query, overlay }
    }

    pub(crate) fn view(&self, row: Row) -> Option<HostView<'a>> {
        let view = self.query.view(row, self.overlay)?;
        let members = self.query.members_on(row, self.overlay);
        Some(view.with_company(self.overlay.on(row) as u32, members, self.query.group_is_placed(self.overlay)))
    }
}

/// 64 places for hosts, as filters and weighers see them. Sets of hosts are bits of a word; columns have a value for
/// every place, which means nothing where there is no host.
#[derive(Clone, Copy)]
pub struct HostBlock<'a> {
    company: &'a Company<'a>,
    index: usize,
}

impl<'a> HostBlock<'a> {
    pub(crate) fn new(company: &'a Company<'a>, index: usize) -> Self {
        Self { company, index }
    }

    /// The host at a place.
    #[must_use]
    pub fn host(&self, place: usize) -> Option<HostView<'a>> {
        self.company.view(row_at(self.index, place))
    }

    /// The hosts at these places.
    pub fn hosts(&self, places: u64) -> impl Iterator<Item = HostView<'a>> + '_ {
        bits(places).filter_map(|place| self.host(place))
    }

    /// Those of the places whose host is good.
    pub fn keep(&self, places: u64, mut good: impl FnMut(&HostView<'a>) -> bool) -> u64 {
        bits(places)
            .filter(|place| self.host(*place).is_some_and(|host| good(&host)))
            .fold(0, |mask, place| mask | 1 << place)
    }

    /// The hosts whose service is alive.
    #[must_use]
    pub fn up(&self) -> u64 {
        self.company.query.table.blocks[self.index].up
    }

    /// The hosts on which instances may be placed.
    #[must_use]
    pub fn enabled(&self) -> u64 {
        self.company.query.table.blocks[self.index].enabled
    }

    /// The hosts with that trait.
    #[must_use]
    pub fn with_trait(&self, name: &str) -> u64 {
        let traits = &self.company.query.table.traits;
        traits.id(name).map_or(0, |id| traits.word(id, self.index))
    }

    /// The place of the dimension `name`.
    #[must_use]
    pub fn dimension(&self, name: &str) -> Option<usize> {
        self.company.query.table.dimensions().index(name)
    }

    /// What is left of the dimension at `index`, what the request has placed not counted.
    #[must_use]
    pub fn free(&self, index: usize) -> Option<&'a [i64; BLOCK]> {
        self.company.query.table.free.get(index).map(|column| &column[self.index])
    }

    /// Consumers, what the request has placed not counted.
    #[must_use]
    pub fn instances(&self) -> &'a [u32; BLOCK] {
        &self.company.query.table.counts.instances[self.index]
    }

    /// Operations under way.
    #[must_use]
    pub fn io_ops(&self) -> &'a [u32; BLOCK] {
        &self.company.query.table.counts.io_ops[self.index]
    }

    /// Builds that failed of late.
    #[must_use]
    pub fn failed_builds(&self) -> &'a [u32; BLOCK] {
        &self.company.query.table.counts.failed_builds[self.index]
    }

    /// The places where a column is below a bound.
    #[must_use]
    pub fn below(&self, column: &[u32; BLOCK], bound: u32) -> u64 {
        column.iter().enumerate().fold(0, |mask, (place, value)| mask | u64::from(*value < bound) << place)
    }

    /// The hosts with members of the request's group.
    #[must_use]
    pub fn with_group_members(&self) -> u64 {
        let first = row_at(self.index, 0);
        let rows = self.company.query.members.range(first..first + BLOCK as Row);
        let before = rows.fold(0, |mask, (row, _)| mask | 1 << (row - first));
        if self.company.query.request.group.is_some() { before | self.placed() } else { 0 }
    }

    /// Whether any member of the request's group is placed anywhere.
    #[must_use]
    pub fn group_is_placed(&self) -> bool {
        self.company.query.group_is_placed(self.company.overlay)
    }

    /// The hosts on which the request has already placed an instance.
    #[must_use]
    pub fn placed(&self) -> u64 {
        let first = row_at(self.index, 0);
        let rows = self.company.overlay.placed.range(first..first + BLOCK as Row);
        rows.fold(0, |mask, (row, _)| mask | 1 << (row - first))
    }

    /// Whether the request has already placed an instance here.
    #[must_use]
    pub fn any_placed(&self) -> bool {
        self.placed() != 0
    }

    /// Whether any host here is in an aggregate.
    #[must_use]
    pub fn any_in_aggregates(&self) -> bool {
        self.aggregate_sets().iter().any(|set| *set != 0)
    }

    /// What is neither reserved nor handed out of the dimension at `index`, ratios aside; what the request has placed not
    /// counted.
    pub fn unused(&self, index: usize, into: &mut [f64; BLOCK]) {
        let table = self.company.query.table;
        let Some(free) = self.free(index) else { return };
        let stocks = &table.counts.stock[self.index];
        let beyond = |stock: u32| {
            let stock = table.stocks.get(stock);
            stock.capacity.get(index) as i64 - stock.usable(index)
        };
        if stocks.iter().fold(0, |differences, stock| differences | stock ^ stocks[0]) == 0 {
            floats(free, beyond(stocks[0]), into);
        } else {
            let pairs = free.iter().zip(stocks);
            into.iter_mut().zip(pairs).for_each(|(slot, (free, stock))| *slot = (*free - beyond(*stock)) as f64);
        }
    }

    /// Those of the hosts at these places that have NUMA cells.
    pub(crate) fn with_cells(&self, places: u64) -> u64 {
        let table = self.company.query.table;
        let has_cells = |place: &usize| !table.kinds.get(self.kinds()[*place]).numa.is_empty();
        bits(places).filter(has_cells).fold(0, |mask, place| mask | 1 << place)
    }

    pub(crate) fn kinds(&self) -> &'a [u32; BLOCK] {
        &self.company.query.table.counts.kind[self.index]
    }

    pub(crate) fn aggregate_sets(&self) -> &'a [u32; BLOCK] {
        &self.company.query.table.counts.aggregates[self.index]
    }
}

/// Writes `column - less` as floats. Numbers of no more than 51 bits are put into the fraction of a float, where what a
/// float of that size stands for is taken off again: two instructions for what takes a conversion each.
pub(crate) fn floats(column: &[i64; BLOCK], less: i64, into: &mut [f64; BLOCK]) {
    const HALF: i64 = 1 << 51;
    const TWO_TO_52: u64 = 0x4330_0000_0000_0000;
    let mut all = 0;
    for (number, slot) in column.iter().zip(into.iter_mut()) {
        let number = number.wrapping_sub(less).wrapping_add(HALF) as u64;
        all |= number;
        *slot = f64::from_bits(number | TWO_TO_52) - (3.0 * HALF as f64);
    }
    if all >> 52 != 0 {
        into.iter_mut().zip(column).for_each(|(slot, number)| *slot = (*number - less) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_what_a_conversion_makes() {
        let edges = [0, 1, -1, (1 << 51) - 1, -(1 << 51), 1 << 51, (1 << 60) + 1, -(1 << 60) - 1, 1 << 62, -(1 << 62)];
        for number in edges {
            for less in [0, 7, -7, 1 << 40] {
                let mut column = [5; BLOCK];
                column[9] = number;
                let mut made = [0.0; BLOCK];
                floats(&column, less, &mut made);
                assert_eq!((made[9], made[8]), ((number - less) as f64, (5 - less) as f64), "{number} - {less}");
            }
        }
    }
}
