//! Small numbers of each host.

use super::layout::{BLOCK, Row, bit_of, block_of, push_slim};

type Column = Vec<[u32; BLOCK]>;

/// Columns of small numbers, block by block.
#[derive(Clone, Default)]
pub(crate) struct Counts {
    /// Consumers that hold something.
    pub(crate) instances: Column,
    pub(crate) io_ops: Column,
    pub(crate) failed_builds: Column,
    /// Which of the table's stocks the host has.
    pub(crate) stock: Column,
    /// Which of the table's kinds of hosts it is.
    pub(crate) kind: Column,
    /// Which of the table's sets of aggregates it is in.
    pub(crate) aggregates: Column,
    /// How many hosts have operations under way.
    pub(super) busy: usize,
    /// How many hosts have failed builds.
    pub(super) failing: usize,
}

impl Counts {
    pub(super) fn push_block(&mut self) {
        for column in self.columns() {
            push_slim(column, [0; BLOCK]);
        }
    }

    pub(super) fn clear(&mut self, row: Row) {
        self.report(row, 0, 0);
        for column in self.columns() {
            put(column, row, 0);
        }
    }

    fn columns(&mut self) -> [&mut Column; 6] {
        let Self { instances, io_ops, failed_builds, stock, kind, aggregates, .. } = self;
        [instances, io_ops, failed_builds, stock, kind, aggregates]
    }

    /// Notes what the host reports.
    pub(super) fn report(&mut self, row: Row, io_ops: u32, failed_builds: u32) {
        self.busy = self.busy + usize::from(io_ops > 0) - usize::from(self.io_ops_at(row) > 0);
        self.failing = self.failing + usize::from(failed_builds > 0) - usize::from(self.failed_builds_at(row) > 0);
        put(&mut self.io_ops, row, io_ops);
        put(&mut self.failed_builds, row, failed_builds);
    }

    pub(crate) fn kind_at(&self, row: Row) -> u32 {
        at(&self.kind, row)
    }

    pub(crate) fn aggregates_at(&self, row: Row) -> u32 {
        at(&self.aggregates, row)
    }

    pub(crate) fn io_ops_at(&self, row: Row) -> u32 {
        at(&self.io_ops, row)
    }

    pub(crate) fn failed_builds_at(&self, row: Row) -> u32 {
        at(&self.failed_builds, row)
    }
}

pub(super) fn at(column: &Column, row: Row) -> u32 {
    column.get(block_of(row)).map_or(0, |block| block[bit_of(row)])
}

pub(super) fn put(column: &mut Column, row: Row, value: u32) {
    if let Some(block) = column.get_mut(block_of(row)) {
        block[bit_of(row)] = value;
    }
}
