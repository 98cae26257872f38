//! Small numbers of each host.

use super::layout::{BLOCK, Row, bit_of, block_of};

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
}

impl Counts {
    pub(super) fn push_block(&mut self) {
        for column in self.columns() {
            column.push([0; BLOCK]);
        }
    }

    pub(super) fn clear(&mut self, row: Row) {
        for column in self.columns() {
            put(column, row, 0);
        }
    }

    fn columns(&mut self) -> [&mut Column; 4] {
        [&mut self.instances, &mut self.io_ops, &mut self.failed_builds, &mut self.stock]
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
