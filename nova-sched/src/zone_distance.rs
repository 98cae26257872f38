//! How far availability zones are from each other.

use std::collections::BTreeMap;

use crate::SchedulerError;

/// A table of distances between zones, in any unit, the same in both directions. A zone is at 0 from itself; zones that
/// no entry names are further apart than any that one does.
///
/// ```
/// use nova_sched::ZoneDistances;
///
/// # fn main() -> Result<(), nova_sched::SchedulerError> {
/// let distances = ZoneDistances::parse(["east:middle=10", "middle:west=10", "east:west=30"])?;
/// assert_eq!(distances.between("west", "east"), 30);
/// assert_eq!(distances.between("east", "elsewhere"), 31);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZoneDistances {
    pairs: BTreeMap<(String, String), u32>,
    largest: u32,
}

impl ZoneDistances {
    /// A table without entries: all other zones are equally far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the distance between two zones, in both directions.
    pub fn set(&mut self, one: &str, other: &str, distance: u32) {
        self.pairs.insert(ordered(one, other), distance);
        self.largest = self.pairs.values().copied().max().unwrap_or(0);
    }

    /// Reads entries of the form `zone:zone=distance`.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::InvalidOption`] for the option `zone_distances`, naming the entry.
    pub fn parse<I, S>(entries: I) -> Result<Self, SchedulerError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut distances = Self::default();
        for entry in entries {
            let entry = entry.as_ref().trim();
            let (one, other, distance) = parse_entry(entry).ok_or_else(|| SchedulerError::InvalidOption {
                option: "zone_distances",
                reason: format!("`{entry}` is not of the form zone:zone=number"),
            })?;
            distances.set(one, other, distance);
        }
        Ok(distances)
    }

    /// How far the zones are apart.
    #[must_use]
    pub fn between(&self, one: &str, other: &str) -> u32 {
        if one == other {
            return 0;
        }
        self.pairs.get(&ordered(one, other)).copied().unwrap_or_else(|| self.largest.saturating_add(1))
    }

    /// How far a zone is from the nearest of some; 0 when there are none.
    #[must_use]
    pub fn to_nearest<'a>(&self, zone: &str, of: impl IntoIterator<Item = &'a str>) -> u32 {
        of.into_iter().map(|other| self.between(zone, other)).min().unwrap_or(0)
    }
}

fn ordered(one: &str, other: &str) -> (String, String) {
    if one <= other { (one.to_owned(), other.to_owned()) } else { (other.to_owned(), one.to_owned()) }
}

fn parse_entry(entry: &str) -> Option<(&str, &str, u32)> {
    let (zones, distance) = entry.rsplit_once('=')?;
    let (one, other) = zones.split_once(':')?;
    let (one, other) = (one.trim(), other.trim());
    if one.is_empty() || other.is_empty() || other.contains(':') {
        return None;
    }
    Some((one, other, distance.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_hold_both_ways_and_unknown_is_furthest() {
        let mut distances = ZoneDistances::parse(["a:b=3", " b : c = 5 "]).unwrap();
        assert_eq!([distances.between("b", "a"), distances.between("c", "b"), distances.between("a", "c")], [3, 5, 6]);
        assert_eq!(distances.between("x", "x"), 0);
        assert_eq!(distances.to_nearest("b", ["c", "a"]), 3);
        assert_eq!(distances.to_nearest("b", []), 0);
        distances.set("c", "a", 1);
        assert_eq!(distances.between("a", "c"), 1);
    }

    #[test]
    fn a_bad_entry_is_named() {
        for entry in ["a=3", "a:b", "a:b=x", ":b=3", "a:b:c=3", "a:b=-1"] {
            let error = ZoneDistances::parse([entry]).unwrap_err().to_string();
            assert!(error.contains(entry) && error.contains("zone_distances"), "{error}");
        }
    }
}
