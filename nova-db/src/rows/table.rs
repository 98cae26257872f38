//! What a table is made of, declared as data.

use jiff::Timestamp;

use crate::Kind;

/// A column's value. There is no null: an absent text is empty, an absent number or time is the smallest one. Databases
/// disagree about where nulls sort, and keyset paging through them is a trap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    /// Numbers, flags (0, 1) and times (microseconds).
    Int(i64),
    /// Text, compared byte by byte.
    Text(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(i64::from(flag))
    }
}

impl From<Timestamp> for Value {
    fn from(time: Timestamp) -> Self {
        Self::Int(micros(time))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(time: Option<Timestamp>) -> Self {
        Self::Int(time.map_or(i64::MIN, micros))
    }
}

impl Value {
    /// The text of an id or name.
    pub(crate) fn text(id: impl std::fmt::Display) -> Self {
        Self::Text(id.to_string())
    }

    /// The text of an id or name that may be absent.
    pub(crate) fn optional(id: Option<impl std::fmt::Display>) -> Self {
        Self::Text(id.map(|id| id.to_string()).unwrap_or_default())
    }

    /// As a number; `None` for a text.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(_) => None,
        }
    }

    /// As a text; `None` for a number.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Int(_) => None,
            Self::Text(text) => Some(text),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// A time as columns hold it.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// What a column can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    /// Text of at most so many characters.
    Text(u32),
    /// 64 bits.
    Int,
    /// Microseconds since 1970, UTC.
    Time,
    /// 0 or 1.
    Flag,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name in every database.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) ty: ColumnType,
}

impl Column {
    /// Text of at most so many characters.
    pub(crate) const fn text(name: &'static str, length: u32) -> Self {
        Self { name, ty: ColumnType::Text(length) }
    }
    /// A UUID in its usual form.
    pub(crate) const fn uuid(name: &'static str) -> Self {
        Self::text(name, 36)
    }
    /// A number.
    pub(crate) const fn int(name: &'static str) -> Self {
        Self { name, ty: ColumnType::Int }
    }
    /// A time.
    pub(crate) const fn time(name: &'static str) -> Self {
        Self { name, ty: ColumnType::Time }
    }
    /// Yes or no.
    pub(crate) const fn flag(name: &'static str) -> Self {
        Self { name, ty: ColumnType::Flag }
    }
}

/// A table: its columns (the first `key` of them are the primary key), what else is unique, and what is looked up by.
/// Every table has the columns `generation` and `body` besides.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name in every database.
    pub(crate) name: &'static str,
    /// What its rows are about, for errors.
    pub(crate) kind: Kind,
    /// The declared columns, key first.
    pub(crate) columns: &'static [Column],
    /// How many of them are the key.
    pub(crate) key: usize,
    /// Sets of columns that are unique besides the key.
    pub(crate) unique: &'static [&'static [&'static str]],
    /// Sets of columns that rows are looked up by.
    pub(crate) indexes: &'static [&'static [&'static str]],
}

impl Table {
    /// Where a column stands. Names are literals of this crate; an unknown one is a mistake that a test finds.
    pub(crate) fn position(&self, column: &str) -> usize {
        let found = self.columns.iter().position(|c| c.name == column);
        debug_assert!(found.is_some(), "{} has no column {column}", self.name);
        found.unwrap_or(0)
    }
}

/// A row as backends see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// One value for each declared column, in order.
    pub(crate) values: Vec<Value>,
    /// Grows with every change that others must not miss.
    pub(crate) generation: u64,
    /// The record as JSON.
    pub(crate) body: String,
}

impl Row {
    /// The key's values.
    pub(crate) fn key(&self, table: &Table) -> &[Value] {
        self.values.get(..table.key).unwrap_or(&self.values)
    }
}

/// Sources of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sequence {
    /// Numbers of instances, from which hypervisors make names.
    Instance,
    /// Numbers of services.
    Service,
    /// Numbers of compute nodes.
    ComputeNode,
    /// Numbers of key pairs.
    Keypair,
    /// How often identity changed.
    Identity,
    /// Numbers of aggregates.
    Aggregate,
    /// How often aggregates changed: changes wait for each other here.
    AggregateChange,
    /// Numbers of server groups.
    ServerGroup,
    /// Numbers of migrations.
    Migration,
}

impl Sequence {
    /// The key of its row.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Service => "service",
            Self::ComputeNode => "compute_node",
            Self::Keypair => "keypair",
            Self::Identity => "identity",
            Self::Aggregate => "aggregate",
            Self::AggregateChange => "aggregate_change",
            Self::ServerGroup => "server_group",
            Self::Migration => "migration",
        }
    }
}
