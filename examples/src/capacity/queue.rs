//! Requests that wait for room, in the order of arrival, found by what they ask for.

use std::collections::{BTreeMap, VecDeque};

use super::trace::Arrival;

/// Requests of one shape are all placed or none: each shape has a line of its own, so that a look at the whole queue costs as
/// much as there are shapes, however many wait.
#[derive(Debug, Default)]
pub struct Queue {
    lines: BTreeMap<usize, VecDeque<(u64, Arrival)>>,
    next: u64,
    len: u64,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a request behind all others.
    pub fn push(&mut self, arrival: Arrival) {
        self.lines.entry(arrival.shape).or_default().push_back((self.next, arrival));
        self.next += 1;
        self.len += 1;
    }

    /// The first of those whose shape is wanted.
    pub fn first(&self, wanted: impl Fn(usize) -> bool) -> Option<Arrival> {
        let heads = self.lines.iter().filter(|(shape, _)| wanted(**shape)).filter_map(|(_, line)| line.front());
        heads.min_by_key(|(number, _)| *number).map(|(_, arrival)| *arrival)
    }

    /// Takes away the first of that shape.
    pub fn pop(&mut self, shape: usize) {
        let Some(line) = self.lines.get_mut(&shape) else { return };
        self.len -= u64::from(line.pop_front().is_some());
        if line.is_empty() {
            self.lines.remove(&shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_wanted_shapes_comes_next() {
        let mut queue = Queue::default();
        for (at_ms, shape) in [(1, 7), (2, 3), (3, 7), (4, 3)] {
            queue.push(Arrival { at_ms, lifetime_ms: None, shape });
        }
        let first =
            |queue: &Queue, unwanted: usize| queue.first(|shape| shape != unwanted).map(|arrival| arrival.at_ms);
        assert_eq!((first(&queue, 0), first(&queue, 7)), (Some(1), Some(2)));
        queue.pop(7);
        assert_eq!((first(&queue, 0), queue.len()), (Some(2), 3));
        queue.pop(3);
        queue.pop(3);
        queue.pop(3);
        assert_eq!((first(&queue, 0), first(&queue, 7), queue.len()), (Some(3), None, 1));
        queue.pop(7);
        assert!(queue.is_empty());
    }
}
