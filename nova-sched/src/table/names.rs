//! Hosts by name.

use super::layout::Row;

/// Rows by the hash of a name. The names themselves are with the hosts, so that a place takes eight bytes.
///
/// Open addressing, at most three quarters full; whoever goes lets those behind it move up.
#[derive(Clone, Default)]
pub(super) struct Names {
    /// A power of two of them.
    slots: Vec<Slot>,
    len: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    hash: u32,
    /// [`VACANT`] when there is none.
    row: Row,
}

const VACANT: Row = Row::MAX;

impl Names {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The row of that hash for which `is_it` says so.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Row) -> bool) -> Option<Row> {
        self.place_of(hash, is_it).map(|place| self.slots[place].row)
    }

    /// Notes a row; none of that name is there.
    pub(super) fn insert(&mut self, hash: u32, row: Row) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mut place = self.home(hash);
        while self.slots[place].row != VACANT {
            place = self.next(place);
        }
        self.slots[place] = Slot { hash, row };
        self.len += 1;
    }

    /// Forgets a row.
    pub(super) fn remove(&mut self, hash: u32, row: Row) {
        let Some(mut hole) = self.place_of(hash, |other| other == row) else { return };
        let mut place = self.next(hole);
        while self.slots[place].row != VACANT {
            let home = self.home(self.slots[place].hash);
            let distance = |from: usize| place.wrapping_sub(from) & (self.slots.len() - 1);
            // It may not move before its home, from where it is looked for.
            if distance(home) >= distance(hole) {
                self.slots[hole] = self.slots[place];
                hole = place;
            }
            place = self.next(place);
        }
        self.slots[hole].row = VACANT;
        self.len -= 1;
    }

    fn place_of(&self, hash: u32, is_it: impl Fn(Row) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut place = self.home(hash);
        loop {
            let slot = self.slots[place];
            if slot.row == VACANT {
                return None;
            }
            if slot.hash == hash && is_it(slot.row) {
                return Some(place);
            }
            place = self.next(place);
        }
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let places = (self.slots.len() * 2).max(8);
        let old = std::mem::replace(&mut self.slots, vec![Slot { hash: 0, row: VACANT }; places]);
        self.len = 0;
        old.into_iter().filter(|slot| slot.row != VACANT).for_each(|slot| self.insert(slot.hash, slot.row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Many come and go, few hashes: the same as a map knows.
    #[test]
    fn it_agrees_with_a_map() {
        let mut rng = crate::SchedulerRng::from_seed(3);
        let (mut names, mut map) = (Names::default(), BTreeMap::new());
        let hash_of = |key: u32| key % 37 * 0x0101_0101;
        for _ in 0..20_000 {
            let key = rng.below(300) as u32;
            let found = names.find(hash_of(key), |row| row == key * 2);
            assert_eq!(found, map.get(&key).copied());
            match found {
                Some(row) => {
                    names.remove(hash_of(key), row);
                    map.remove(&key);
                }
                None => {
                    names.insert(hash_of(key), key * 2);
                    map.insert(key, key * 2);
                }
            }
            assert_eq!(names.len(), map.len());
        }
        for key in 0..300 {
            assert_eq!(names.find(hash_of(key), |row| row == key * 2), map.get(&key).copied());
        }
    }
}
