//! The row interface over a connection.

use async_trait::async_trait;
use sea_query_sqlx::{SqlxBinder, SqlxValues};

use super::dialect::{Dialect, Trouble};
use super::link::Link;
use super::{migrations, statements};
use crate::rows::{Condition, Fail, Lock, Row, Select, Sequence, Table, Transaction, Value};
use crate::{Kind, StoreError};

/// Runs the row interface on a connection; whoever made it begins and ends the transaction around it.
pub(super) struct SqlTransaction<'a> {
    link: Box<dyn Link + 'a>,
    wrote: bool,
    trouble: Option<Trouble>,
}

impl<'a> SqlTransaction<'a> {
    pub(super) fn new(link: impl Link + 'a) -> Self {
        Self { link: Box::new(link), wrote: false, trouble: None }
    }

    /// Has anything been written?
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// What the database's last refusal means for the transaction as a whole.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    fn build(&self, statement: &impl SqlxBinder) -> (String, SqlxValues) {
        self.link.dialect().build(statement)
    }

    fn failed(&mut self, error: sqlx::Error) -> Fail {
        let dialect = self.link.dialect();
        let trouble = dialect.trouble(&error);
        self.trouble = Some(trouble);
        failed(dialect, trouble, error)
    }

    /// The same for what may meet a unique key.
    fn refused(&mut self, table: &Table, row: Option<&Row>, error: sqlx::Error) -> Fail {
        match self.link.dialect().trouble(&error) {
            Trouble::Unique => taken(table, row),
            _ => self.failed(error),
        }
    }

    async fn execute(&mut self, statement: &impl SqlxBinder) -> Result<u64, sqlx::Error> {
        let (sql, values) = self.build(statement);
        let met = self.link.execute(sql, values).await?;
        self.wrote |= met > 0;
        Ok(met)
    }
}

fn failed(dialect: Dialect, trouble: Trouble, error: sqlx::Error) -> Fail {
    if trouble == Trouble::MissingTable {
        return StoreError::SchemaStale { found: 0, needed: migrations::newest() }.into();
    }
    dialect.unavailable(error).into()
}

fn taken(table: &Table, row: Option<&Row>) -> Fail {
    Fail::Taken { kind: table.kind, id: row.map(|row| table.key_text(&row.values)).unwrap_or_default() }
}

#[async_trait]
impl Transaction for SqlTransaction<'_> {
    async fn get(&mut self, table: &'static Table, key: &[Value], lock: Lock) -> Result<Option<Row>, Fail> {
        let which = Condition::key(table, key);
        Ok(self.select(table, &Select::new(which), lock).await?.into_iter().next())
    }

    async fn select(&mut self, table: &'static Table, select: &Select, lock: Lock) -> Result<Vec<Row>, Fail> {
        let (sql, values) = self.build(&statements::select(table, select, lock));
        let rows = self.link.rows(table, sql, values).await.map_err(|error| self.failed(error))?;
        Ok(rows?)
    }

    async fn insert(&mut self, table: &'static Table, rows: Vec<Row>) -> Result<(), Fail> {
        let dialect = self.link.dialect();
        let at_once = (dialect.max_values() / (table.columns.len() + 2)).max(1);
        for part in rows.chunks(at_once) {
            let statement = statements::insert(table, part)
                .map_err(|error| StoreError::Unavailable { backend: dialect.name(), source: Box::new(error) })?;
            let done = self.execute(&statement).await;
            done.map_err(|error| self.refused(table, part.first(), error))?;
        }
        Ok(())
    }

    async fn update(&mut self, table: &'static Table, row: Row, expected: u64) -> Result<bool, Fail> {
        let met = self.execute(&statements::update(table, &row, expected)).await;
        let met = met.map_err(|error| self.refused(table, Some(&row), error))?;
        Ok(met > 0)
    }

    async fn update_all(&mut self, table: &'static Table, rows: Vec<(Row, u64)>) -> Result<bool, Fail> {
        if rows.len() < 2 || table.columns.len() != table.key {
            for (row, expected) in rows {
                if !self.update(table, row, expected).await? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let per_row = 3 * table.key + 3;
        for part in rows.chunks((self.link.dialect().max_values() / per_row).max(1)) {
            let met =
                self.execute(&statements::update_bodies(table, part)).await.map_err(|error| self.failed(error))?;
            if met != part.len() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn overwrite(&mut self, table: &'static Table, row: Row) -> Result<bool, Fail> {
        let met = self.execute(&statements::overwrite(table, &row)).await;
        Ok(met.map_err(|error| self.refused(table, Some(&row), error))? > 0)
    }

    async fn delete_one(&mut self, table: &'static Table, key: &[Value], expected: u64) -> Result<bool, Fail> {
        let met = self.execute(&statements::delete_one(table, key, expected)).await;
        Ok(met.map_err(|error| self.failed(error))? > 0)
    }

    async fn set(
        &mut self,
        table: &'static Table,
        which: &Condition,
        values: &[(&'static str, Value)],
    ) -> Result<u64, Fail> {
        self.execute(&statements::set(table, which, values)).await.map_err(|error| self.failed(error))
    }

    async fn delete(&mut self, table: &'static Table, which: &Condition) -> Result<u64, Fail> {
        self.execute(&statements::delete(table, which)).await.map_err(|error| self.failed(error))
    }

    async fn advance(&mut self, sequence: Sequence, by: u32) -> Result<i64, Fail> {
        self.execute(&statements::advance(sequence, by)).await.map_err(|error| self.failed(error))?;
        self.current(sequence).await
    }

    async fn current(&mut self, sequence: Sequence) -> Result<i64, Fail> {
        let (sql, values) = self.build(&statements::current(sequence));
        let number = self.link.number(sql, values).await.map_err(|error| self.failed(error))?;
        number.ok_or_else(|| {
            let id = format!("sequence {}", sequence.name());
            StoreError::Corrupt { kind: numbered(sequence), id, source: "it is missing".into() }.into()
        })
    }
}

/// What a sequence counts.
const fn numbered(sequence: Sequence) -> Kind {
    match sequence {
        Sequence::Instance => Kind::Instance,
        Sequence::Service => Kind::Service,
        Sequence::ComputeNode => Kind::ComputeNode,
        Sequence::Keypair => Kind::Keypair,
        Sequence::Identity => Kind::Domain,
        Sequence::Aggregate | Sequence::AggregateChange => Kind::Aggregate,
        Sequence::ServerGroup => Kind::ServerGroup,
        Sequence::Migration => Kind::Migration,
    }
}
