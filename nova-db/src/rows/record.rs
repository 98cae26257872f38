//! Between records and rows.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Fail, Row, Table, Value};
use crate::StoreError;

/// A thing that is kept in a table of its own.
pub(crate) trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its table.
    const TABLE: &'static Table;

    /// The values of the declared columns, key first.
    fn values(&self) -> Vec<Value>;

    /// Takes over what the row knows better than the document: the generation, and columns that are set on their own.
    fn restore(&mut self, row: &Row) {
        let _ = row;
    }
}

/// A record and the generation of its row, for records that do not carry one.
#[derive(Debug, Clone)]
pub(crate) struct Found<R> {
    /// The record.
    pub(crate) record: R,
    /// Of its row.
    pub(crate) generation: u64,
}

/// The row that keeps a record.
pub(crate) fn row_of<R: Record>(record: &R, generation: u64) -> Result<Row, Fail> {
    let values = record.values();
    debug_assert_eq!(values.len(), R::TABLE.columns.len(), "{}", R::TABLE.name);
    let body = serde_json::to_string(record).map_err(|source| {
        let id = key_text(R::TABLE, &values);
        StoreError::Corrupt { kind: R::TABLE.kind, id, source: source.into() }
    })?;
    Ok(Row { values, generation, body })
}

/// The record that a row keeps.
pub(crate) fn decode<R: Record>(row: &Row) -> Result<Found<R>, Fail> {
    let mut record: R = serde_json::from_str(&row.body).map_err(|source| {
        let id = key_text(R::TABLE, &row.values);
        StoreError::Corrupt { kind: R::TABLE.kind, id, source: source.into() }
    })?;
    record.restore(row);
    Ok(Found { record, generation: row.generation })
}

/// A key as errors show it.
pub(super) fn key_text(table: &Table, values: &[Value]) -> String {
    let key = values.get(..table.key).unwrap_or(values);
    key.iter().map(Value::to_string).collect::<Vec<_>>().join("/")
}

impl Table {
    /// A key as errors show it.
    pub(crate) fn key_text(&self, values: &[Value]) -> String {
        key_text(self, values)
    }
}
