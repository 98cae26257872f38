//! Which hosts may have become better, in order: what an index that was right a while ago must look at to be right again.

use super::layout::Row;

/// So many changes are remembered; an index that is further behind starts anew.
const KEPT: usize = 8_192;

/// The last changes for the better.
#[derive(Clone, Default)]
pub(crate) struct ChangeLog {
    ring: Vec<Row>,
    next: u64,
}

impl ChangeLog {
    #[inline]
    pub(crate) fn push(&mut self, row: Row) {
        if self.ring.len() < KEPT {
            self.ring.push(row);
        } else {
            self.ring[self.next as usize % KEPT] = row;
        }
        self.next += 1;
    }

    /// The number of the change that comes next.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The changes from that number on; `None` when they are forgotten.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = Row> + '_> {
        let missed = self.next.saturating_sub(seen);
        (missed <= KEPT as u64).then(|| (seen..self.next).map(|number| self.ring[number as usize % KEPT]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back_in_order() {
        let mut log = ChangeLog::default();
        for row in 0..20_000 {
            log.push(row);
        }
        let last: Vec<Row> = log.since(20_000 - KEPT as u64).unwrap().collect();
        assert_eq!((last.len(), last[0], last[KEPT - 1]), (KEPT, 20_000 - KEPT as Row, 19_999));
        assert_eq!(log.since(log.next()).unwrap().count(), 0);
        assert!(log.since(0).is_none());
    }
}
