//! Small numbers for things that the kernel knows by number only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Numbers from 1 to 65535 by name. One that was given back is not soon given out again, since something may still
/// remember it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    last: u16,
    taken: BTreeMap<String, u16>,
}

impl Numbers {
    /// Exactly these names have numbers; those that had one keep it. A name without a number means that there are none
    /// left.
    pub fn keep(&mut self, names: impl IntoIterator<Item = String>) {
        let names: BTreeSet<String> = names.into_iter().collect();
        self.taken.retain(|name, _| names.contains(name));
        let mut used: BTreeSet<u16> = self.taken.values().copied().collect();
        for name in names {
            if self.taken.contains_key(&name) || used.len() >= usize::from(u16::MAX) {
                continue;
            }
            loop {
                self.last = self.last.checked_add(1).unwrap_or(1);
                if used.insert(self.last) {
                    break;
                }
            }
            self.taken.insert(name, self.last);
        }
    }

    /// The number of that name.
    pub fn get(&self, name: &str) -> Option<u16> {
        self.taken.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_are_not_soon_used_again() {
        let mut numbers = Numbers::default();
        numbers.keep(["a".to_owned(), "b".to_owned()]);
        assert_eq!((numbers.get("a"), numbers.get("b")), (Some(1), Some(2)));
        numbers.keep(["b".to_owned(), "c".to_owned()]);
        assert_eq!((numbers.get("a"), numbers.get("b"), numbers.get("c")), (None, Some(2), Some(3)));
        numbers.last = u16::MAX;
        numbers.keep(["b".to_owned(), "d".to_owned(), "e".to_owned()]);
        assert_eq!((numbers.get("d"), numbers.get("e")), (Some(1), Some(3)));
    }
}
