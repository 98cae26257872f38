//! Rows in memory: for tests, simulations and trying out. Nothing outlives the process.
//!
//! Tables are ordered maps behind one lock that is fair in order of arrival, so that the same calls give the same
//! answers in the same order, always. A write transaction keeps an undo log; its error takes everything back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::StoreError;
use crate::ops::RowStore;
use crate::rows::{
    Backend, Condition, Fail, Lock, Output, Row, Select, Sequence, TRIES, Table, Transaction, Value, WriteOperation,
};

/// The schema version that memory claims: it has no history.
const VERSION: u32 = 1;

/// Keeps rows in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    kept: Arc<Kept>,
    outage: Mutex<Option<Outage>>,
}

/// What all ways to the same rows have in common.
#[derive(Debug, Default)]
struct Kept {
    data: RwLock<Data>,
    commits: AtomicU64,
}

/// A database that goes away in the middle and comes back, for tests of whoever uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// So many questions and transactions are answered before.
    pub after: u32,
    /// So many are not; then it is back.
    pub lasts: u32,
    /// The first of them is a transaction that was carried out, if it is one: only its answer is lost.
    pub late: bool,
}

impl RowStore<MemoryBackend> {
    /// From now on it goes away and comes back like this; `None`: it stays. What was to come before does not.
    pub fn go_away(&self, outage: Option<Outage>) {
        *self.backend().outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }

    /// Is an outage still to come, or not over?
    pub fn will_be_away(&self) -> bool {
        self.backend().outage.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Is it away now?
    pub fn is_away(&self) -> bool {
        let outage = *self.backend().outage.lock().unwrap_or_else(PoisonError::into_inner);
        outage.is_some_and(|outage| outage.after == 0)
    }

    /// Another way to the same rows, which goes away by itself: who only looks does not count.
    pub fn beside(&self) -> Self {
        Self::over(MemoryBackend { kept: self.backend().kept.clone(), outage: Mutex::default() })
    }

    /// An empty store.
    pub fn new() -> Self {
        Self::over(MemoryBackend::default())
    }
}

impl Default for RowStore<MemoryBackend> {
    fn default() -> Self {
        Self::new()
    }
}

type Key = Vec<Value>;

#[derive(Debug, Default)]
struct Data {
    tables: BTreeMap<&'static str, Rows>,
    sequences: BTreeMap<Sequence, i64>,
}

/// The rows of a table, and for each of its declared lookups (unique ones first) the keys by those columns.
#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<Key, Row>,
    lookups: Vec<BTreeSet<(Key, Key)>>,
}

fn lookups(table: &Table) -> impl Iterator<Item = &'static [&'static str]> {
    table.unique.iter().chain(table.indexes).copied()
}

fn lookup_values(table: &Table, columns: &[&str], row: &Row) -> Key {
    columns.iter().filter_map(|column| row.values.get(table.position(column)).cloned()).collect()
}

/// All entries of a set of (columns, key) whose columns begin with these.
fn starting_with<'a>(set: &'a BTreeSet<(Key, Key)>, prefix: &'a [Value]) -> impl Iterator<Item = &'a (Key, Key)> {
    set.range((prefix.to_vec(), Key::new())..).take_while(move |(columns, _)| columns.starts_with(prefix))
}

impl Rows {
    fn new(table: &Table) -> Self {
        Self { rows: BTreeMap::new(), lookups: lookups(table).map(|_| BTreeSet::new()).collect() }
    }

    /// Puts a row in the place of the one of its key, or takes that away.
    fn put(&mut self, table: &Table, key: &Key, row: Option<Row>) -> Option<Row> {
        let old = match &row {
            Some(row) => self.rows.insert(key.clone(), row.clone()),
            None => self.rows.remove(key),
        };
        for (set, columns) in self.lookups.iter_mut().zip(lookups(table)) {
            if let Some(old) = &old {
                set.remove(&(lookup_values(table, columns, old), key.clone()));
            }
            if let Some(row) = &row {
                set.insert((lookup_values(table, columns, row), key.clone()));
            }
        }
        old
    }

    /// Is a unique key of this row another row's?
    fn is_taken(&self, table: &Table, row: &Row) -> bool {
        let unique = self.lookups.iter().zip(table.unique);
        unique.into_iter().any(|(set, columns)| {
            let values = lookup_values(table, columns, row);
            starting_with(set, &values).any(|(_, key)| key != row.key(table))
        })
    }

    /// Keys of all rows that can fit: by the key or lookup that the condition pins best, or all.
    fn candidates(&self, table: &Table, which: &Condition) -> Vec<&Row> {
        let pinned = |columns: &mut dyn Iterator<Item = &'static str>| -> Key {
            columns.map_while(|column| which.pinned(column).cloned()).collect()
        };
        let by_key = pinned(&mut table.columns.iter().take(table.key).map(|column| column.name));
        let best = self.lookups.iter().zip(lookups(table)).map(|(set, c)| (set, pinned(&mut c.iter().copied())));
        let best = best.max_by_key(|(_, values)| values.len()).filter(|(_, values)| values.len() > by_key.len());
        match best {
            Some((set, values)) => starting_with(set, &values).filter_map(|(_, key)| self.rows.get(key)).collect(),
            None if by_key.is_empty() => self.rows.values().collect(),
            None => {
                let from = self.rows.range(by_key.clone()..);
                from.take_while(|(key, _)| key.starts_with(&by_key)).map(|(_, row)| row).collect()
            }
        }
    }

    fn matching(&self, table: &Table, which: &Condition) -> Vec<&Row> {
        if let Condition::In(column, values) = which
            && table.key == 1
            && table.columns.first().is_some_and(|first| first.name == *column)
        {
            let keys: BTreeSet<&Value> = values.iter().collect();
            return keys.into_iter().filter_map(|value| self.rows.get(std::slice::from_ref(value))).collect();
        }
        let mut rows = self.candidates(table, which);
        rows.retain(|row| which.holds(table, row));
        rows
    }
}

impl Data {
    fn get(&self, table: &Table, key: &[Value]) -> Option<Row> {
        self.tables.get(table.name)?.rows.get(key).cloned()
    }

    fn select(&self, table: &Table, select: &Select) -> Vec<Row> {
        let Some(rows) = self.tables.get(table.name) else { return Vec::new() };
        let mut found = rows.matching(table, &select.which);
        found.sort_by(|a, b| select.compare(table, a, b).then_with(|| a.key(table).cmp(b.key(table))));
        found.truncate(select.limit.unwrap_or(usize::MAX));
        found.into_iter().cloned().collect()
    }

    fn table(&mut self, table: &'static Table) -> &mut Rows {
        self.tables.entry(table.name).or_insert_with(|| Rows::new(table))
    }
}

/// A change, and how to take it back.
#[derive(Debug)]
enum Undo {
    Row { table: &'static Table, key: Key, before: Option<Row> },
    Sequence { sequence: Sequence, before: i64 },
}

struct Write<'a> {
    data: &'a mut Data,
    undo: Vec<Undo>,
}

impl Write<'_> {
    fn put(&mut self, table: &'static Table, key: Key, row: Option<Row>) {
        let before = self.data.table(table).put(table, &key, row);
        self.undo.push(Undo::Row { table, key, before });
    }

    /// Keeps what was written. Returns whether anything was.
    fn commit(mut self) -> bool {
        !std::mem::take(&mut self.undo).is_empty()
    }

    fn keys(&self, table: &'static Table, which: &Condition) -> Vec<Key> {
        let Some(rows) = self.data.tables.get(table.name) else { return Vec::new() };
        rows.matching(table, which).into_iter().map(|row| row.key(table).to_vec()).collect()
    }
}

/// What was not committed, be it for an error, a panic or a caller that left, never happened.
impl Drop for Write<'_> {
    fn drop(&mut self) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::Row { table, key, before } => {
                    self.data.table(table).put(table, &key, before);
                }
                Undo::Sequence { sequence, before } => {
                    self.data.sequences.insert(sequence, before);
                }
            }
        }
    }
}

#[async_trait]
impl Transaction for Write<'_> {
    async fn get(&mut self, table: &'static Table, key: &[Value], _lock: Lock) -> Result<Option<Row>, Fail> {
        Ok(self.data.get(table, key))
    }

    async fn select(&mut self, table: &'static Table, select: &Select, _lock: Lock) -> Result<Vec<Row>, Fail> {
        Ok(self.data.select(table, select))
    }

    async fn insert(&mut self, table: &'static Table, rows: Vec<Row>) -> Result<(), Fail> {
        for row in rows {
            let key = row.key(table).to_vec();
            let known = self.data.table(table);
            if known.rows.contains_key(&key) || known.is_taken(table, &row) {
                return Err(Fail::Taken { kind: table.kind, id: table.key_text(&key) });
            }
            self.put(table, key, Some(row));
        }
        Ok(())
    }

    async fn update(&mut self, table: &'static Table, row: Row, expected: u64) -> Result<bool, Fail> {
        let key = row.key(table).to_vec();
        let known = self.data.table(table);
        if known.rows.get(&key).is_none_or(|old| old.generation != expected) {
            return Ok(false);
        }
        if known.is_taken(table, &row) {
            return Err(Fail::Taken { kind: table.kind, id: table.key_text(&key) });
        }
        self.put(table, key, Some(row));
        Ok(true)
    }

    async fn set(
        &mut self,
        table: &'static Table,
        which: &Condition,
        values: &[(&'static str, Value)],
    ) -> Result<u64, Fail> {
        let keys = self.keys(table, which);
        let count = keys.len() as u64;
        for key in keys {
            let Some(mut row) = self.data.get(table, &key) else { continue };
            for (column, value) in values {
                if let Some(place) = row.values.get_mut(table.position(column)) {
                    *place = value.clone();
                }
            }
            self.put(table, key, Some(row));
        }
        Ok(count)
    }

    async fn delete(&mut self, table: &'static Table, which: &Condition) -> Result<u64, Fail> {
        let keys = self.keys(table, which);
        let count = keys.len() as u64;
        for key in keys {
            self.put(table, key, None);
        }
        Ok(count)
    }

    async fn advance(&mut self, sequence: Sequence, by: u32) -> Result<i64, Fail> {
        let value = self.data.sequences.entry(sequence).or_default();
        self.undo.push(Undo::Sequence { sequence, before: *value });
        *value += i64::from(by);
        Ok(*value)
    }

    async fn current(&mut self, sequence: Sequence) -> Result<i64, Fail> {
        Ok(self.data.sequences.get(&sequence).copied().unwrap_or_default())
    }
}

struct Read<'a> {
    data: RwLockReadGuard<'a, Data>,
}

/// Reads are not handed out for writing: that would be a mistake of this crate, answered as a conflict.
fn read_only(table: &Table) -> Fail {
    debug_assert!(false, "write to {} in a read", table.name);
    Fail::Store(StoreError::Conflict { kind: table.kind, id: "read only".to_owned() })
}

#[async_trait]
impl Transaction for Read<'_> {
    async fn get(&mut self, table: &'static Table, key: &[Value], _lock: Lock) -> Result<Option<Row>, Fail> {
        Ok(self.data.get(table, key))
    }

    async fn select(&mut self, table: &'static Table, select: &Select, _lock: Lock) -> Result<Vec<Row>, Fail> {
        Ok(self.data.select(table, select))
    }

    async fn insert(&mut self, table: &'static Table, _rows: Vec<Row>) -> Result<(), Fail> {
        Err(read_only(table))
    }

    async fn update(&mut self, table: &'static Table, _row: Row, _expected: u64) -> Result<bool, Fail> {
        Err(read_only(table))
    }

    async fn set(
        &mut self,
        table: &'static Table,
        _which: &Condition,
        _values: &[(&'static str, Value)],
    ) -> Result<u64, Fail> {
        Err(read_only(table))
    }

    async fn delete(&mut self, table: &'static Table, _which: &Condition) -> Result<u64, Fail> {
        Err(read_only(table))
    }

    async fn advance(&mut self, sequence: Sequence, _by: u32) -> Result<i64, Fail> {
        self.current(sequence).await
    }

    async fn current(&mut self, sequence: Sequence) -> Result<i64, Fail> {
        Ok(self.data.sequences.get(&sequence).copied().unwrap_or_default())
    }
}

fn away() -> StoreError {
    StoreError::Unavailable { backend: "memory", source: "it is away for a test".into() }
}

impl MemoryBackend {
    /// Counts a call. Is the database away, and does it carry out what it does not answer to?
    fn is_away(&self) -> Option<bool> {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let Outage { after, lasts, late } = (*outage)?;
        if after > 0 {
            *outage = Some(Outage { after: after - 1, lasts, late });
            return None;
        }
        *outage = lasts.checked_sub(1).filter(|left| *left > 0).map(|lasts| Outage { after: 0, lasts, late: false });
        (lasts > 0).then_some(late)
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn read(&self) -> Result<Box<dyn Transaction + '_>, StoreError> {
        if self.is_away().is_some() {
            return Err(away());
        }
        Ok(Box::new(Read { data: self.kept.data.read().await }))
    }

    async fn write(&self, operation: WriteOperation) -> Result<Output, StoreError> {
        let lost = match self.is_away() {
            Some(false) => return Err(away()),
            Some(true) => true,
            None => false,
        };
        let mut data = self.kept.data.write().await;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut write = Write { data: &mut data, undo: Vec::new() };
            match operation(&mut write).await {
                Ok(output) => {
                    self.kept.commits.fetch_add(u64::from(write.commit()), Ordering::Relaxed);
                    return if lost { Err(away()) } else { Ok(output) };
                }
                Err(fail) if fail.is_race() && tries < TRIES => {}
                Err(fail) => return Err(fail.into_store_error()),
            }
        }
    }

    fn commits(&self) -> u64 {
        self.kept.commits.load(Ordering::Relaxed)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn schema_version(&self) -> Result<(u32, u32), StoreError> {
        Ok((VERSION, VERSION))
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
