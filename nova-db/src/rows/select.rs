//! Questions about declared columns.

use std::cmp::Ordering;

use super::{Row, Table, Value};
use crate::Direction;

/// What must hold of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// All of these; an empty list holds always.
    All(Vec<Condition>),
    /// One of these; an empty list holds never.
    Any(Vec<Condition>),
    /// The column has this value.
    Is(&'static str, Value),
    /// The column has one of these values.
    In(&'static str, Vec<Value>),
    /// The column is greater.
    Above(&'static str, Value),
    /// The column is less.
    Below(&'static str, Value),
    /// The column is greater or equal.
    AtLeast(&'static str, Value),
    /// The column is less or equal.
    AtMost(&'static str, Value),
}

impl Condition {
    /// The row of that key.
    pub(crate) fn key(table: &Table, key: &[Value]) -> Self {
        Self::All(table.columns.iter().zip(key).map(|(c, v)| Self::Is(c.name, v.clone())).collect())
    }

    /// Does it hold?
    pub(crate) fn holds(&self, table: &Table, row: &Row) -> bool {
        let compare = |column: &str, value: &Value| row.values.get(table.position(column)).map(|v| v.cmp(value));
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(table, row)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(table, row)),
            Self::Is(column, value) => compare(column, value) == Some(Ordering::Equal),
            Self::In(column, values) => values.iter().any(|value| compare(column, value) == Some(Ordering::Equal)),
            Self::Above(column, value) => compare(column, value) == Some(Ordering::Greater),
            Self::Below(column, value) => compare(column, value) == Some(Ordering::Less),
            Self::AtLeast(column, value) => compare(column, value).is_some_and(Ordering::is_ge),
            Self::AtMost(column, value) => compare(column, value).is_some_and(Ordering::is_le),
        }
    }

    /// The value that a column must have for the condition to hold, where there is exactly one.
    pub(crate) fn pinned(&self, column: &str) -> Option<&Value> {
        match self {
            Self::Is(name, value) if *name == column => Some(value),
            Self::All(parts) => parts.iter().find_map(|part| part.pinned(column)),
            _ => None,
        }
    }
}

/// A column to sort by.
pub(crate) type Order = (&'static str, Direction);

/// Which rows, in which order, how many.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    /// What must hold.
    pub(crate) which: Condition,
    /// First the most important.
    pub(crate) order: Vec<Order>,
    /// At most that many.
    pub(crate) limit: Option<usize>,
}

impl Select {
    /// All rows that fit.
    pub(crate) fn new(which: Condition) -> Self {
        Self { which, order: Vec::new(), limit: None }
    }

    /// All rows.
    pub(crate) fn all() -> Self {
        Self::new(Condition::All(Vec::new()))
    }

    /// Sorted by these, ascending, after what was said before.
    pub(crate) fn by(mut self, columns: &[&'static str]) -> Self {
        self.order.extend(columns.iter().map(|column| (*column, Direction::Ascending)));
        self
    }

    /// Sorted by these, descending, after what was said before.
    pub(crate) fn newest(mut self, columns: &[&'static str]) -> Self {
        self.order.extend(columns.iter().map(|column| (*column, Direction::Descending)));
        self
    }

    /// At most that many.
    pub(crate) fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Only what comes after this row in the order (keyset paging): for (a, b) that is a > x, or a = x and b > y.
    pub(crate) fn after(mut self, table: &Table, row: &Row) -> Self {
        let mut equal: Vec<Condition> = Vec::new();
        let mut ways = Vec::new();
        for (column, direction) in &self.order {
            let Some(value) = row.values.get(table.position(column)).cloned() else { continue };
            let mut way = equal.clone();
            way.push(match direction {
                Direction::Ascending => Condition::Above(column, value.clone()),
                Direction::Descending => Condition::Below(column, value.clone()),
            });
            ways.push(Condition::All(way));
            equal.push(Condition::Is(column, value));
        }
        self.which = Condition::All(vec![self.which, Condition::Any(ways)]);
        self
    }

    /// The order of two rows.
    pub(crate) fn compare(&self, table: &Table, a: &Row, b: &Row) -> Ordering {
        for (column, direction) in &self.order {
            let position = table.position(column);
            let order = a.values.get(position).cmp(&b.values.get(position));
            let order = if *direction == Direction::Descending { order.reverse() } else { order };
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    }
}
