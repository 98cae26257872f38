//! Statements for the row interface. Plain SQL that every database takes: no RETURNING, no upsert, no nulls.

use sea_query::{
    CaseStatement, Cond, DeleteStatement, Expr, ExprTrait, InsertStatement, IntoCondition, Order, Query,
    SelectStatement, UpdateStatement,
};

use crate::Direction;
use crate::rows::{Condition, Lock, Row, Select, Sequence, Table, Value};

/// The column that holds the generation.
pub(super) const GENERATION: &str = "generation";
/// The column that holds the document.
pub(super) const BODY: &str = "body";
/// The table of sequences.
pub(super) const SEQUENCES: &str = "sequences";

fn expr(value: &Value) -> Expr {
    match value {
        Value::Int(number) => Expr::val(*number),
        Value::Text(text) => Expr::val(text.as_str()),
    }
}

fn number(generation: u64) -> Expr {
    Expr::val(i64::try_from(generation).unwrap_or(i64::MAX))
}

/// Names of all columns, in the order in which rows are read.
fn columns(table: &'static Table) -> impl Iterator<Item = &'static str> {
    table.columns.iter().map(|column| column.name).chain([GENERATION, BODY])
}

fn condition(which: &Condition) -> Cond {
    let one = |expr: Expr| expr.into_condition();
    match which {
        Condition::All(parts) => parts.iter().map(condition).fold(Cond::all(), Cond::add),
        Condition::Any(parts) if parts.is_empty() => never(),
        Condition::Any(parts) => parts.iter().map(condition).fold(Cond::any(), Cond::add),
        Condition::In(_, values) if values.is_empty() => never(),
        Condition::In(column, values) => one(Expr::col(*column).is_in(values.iter().map(expr))),
        Condition::Is(column, value) => one(Expr::col(*column).eq(expr(value))),
        Condition::Above(column, value) => one(Expr::col(*column).gt(expr(value))),
        Condition::Below(column, value) => one(Expr::col(*column).lt(expr(value))),
        Condition::AtLeast(column, value) => one(Expr::col(*column).gte(expr(value))),
        Condition::AtMost(column, value) => one(Expr::col(*column).lte(expr(value))),
    }
}

fn never() -> Cond {
    Expr::val(1_i64).eq(2_i64).into_condition()
}

pub(super) fn select(table: &'static Table, select: &Select, lock: Lock) -> SelectStatement {
    let mut query = Query::select();
    query.columns(columns(table)).from(table.name).cond_where(condition(&select.which));
    for (column, direction) in &select.order {
        let order = match direction {
            Direction::Ascending => Order::Asc,
            Direction::Descending => Order::Desc,
        };
        query.order_by(*column, order);
    }
    if let Some(limit) = select.limit {
        // Servers count in signed numbers.
        query.limit(i64::try_from(limit).unwrap_or(i64::MAX).unsigned_abs());
    }
    if lock == Lock::ForUpdate {
        // Left out where rows have no locks.
        query.lock_exclusive();
    }
    query
}

pub(super) fn insert(table: &'static Table, rows: &[Row]) -> Result<InsertStatement, sea_query::error::Error> {
    let mut query = Query::insert();
    query.into_table(table.name).columns(columns(table));
    for row in rows {
        let body = Expr::val(row.body.as_str());
        query.values(row.values.iter().map(expr).chain([number(row.generation), body]))?;
    }
    Ok(query)
}

pub(super) fn update(table: &'static Table, row: &Row, expected: u64) -> UpdateStatement {
    let mut query = replacement(table, row, number(row.generation));
    query.and_where(Expr::col(GENERATION).eq(number(expected)));
    query
}

/// The row of that key, whatever its generation.
pub(super) fn overwrite(table: &'static Table, row: &Row) -> UpdateStatement {
    replacement(table, row, Expr::col(GENERATION).add(1_i64))
}

fn replacement(table: &'static Table, row: &Row, generation: Expr) -> UpdateStatement {
    let mut query = Query::update();
    query.table(table.name);
    for (column, value) in table.columns.iter().zip(&row.values).skip(table.key) {
        query.value(column.name, expr(value));
    }
    query.value(GENERATION, generation).value(BODY, row.body.as_str());
    query.cond_where(condition(&Condition::key(table, row.key(table))));
    query
}

/// Several rows of a table whose columns are all part of its key, so that only documents and generations change.
pub(super) fn update_bodies(table: &'static Table, rows: &[(Row, u64)]) -> UpdateStatement {
    let (mut generations, mut bodies) = (CaseStatement::new(), CaseStatement::new());
    let mut which = Cond::any();
    for (row, expected) in rows {
        let key = condition(&Condition::key(table, row.key(table)));
        generations = generations.case(key.clone(), number(row.generation));
        bodies = bodies.case(key.clone(), Expr::val(row.body.as_str()));
        which = which.add(key.add(Expr::col(GENERATION).eq(number(*expected))));
    }
    let mut query = Query::update();
    query.table(table.name).value(GENERATION, generations).value(BODY, bodies).cond_where(which);
    query
}

pub(super) fn set(table: &'static Table, which: &Condition, values: &[(&'static str, Value)]) -> UpdateStatement {
    let mut query = Query::update();
    query.table(table.name);
    for (column, value) in values {
        query.value(*column, expr(value));
    }
    query.cond_where(condition(which));
    query
}

pub(super) fn delete(table: &'static Table, which: &Condition) -> DeleteStatement {
    let mut query = Query::delete();
    query.from_table(table.name).cond_where(condition(which));
    query
}

/// The row of that key and generation.
pub(super) fn delete_one(table: &'static Table, key: &[Value], expected: u64) -> DeleteStatement {
    let mut query = delete(table, &Condition::key(table, key));
    query.and_where(Expr::col(GENERATION).eq(number(expected)));
    query
}

pub(super) fn advance(sequence: Sequence, by: u32) -> UpdateStatement {
    let mut query = Query::update();
    query.table(SEQUENCES).value("value", Expr::col("value").add(i64::from(by)));
    query.and_where(Expr::col("name").eq(sequence.name()));
    query
}

pub(super) fn current(sequence: Sequence) -> SelectStatement {
    let mut query = Query::select();
    query.column("value").from(SEQUENCES).and_where(Expr::col("name").eq(sequence.name()));
    query
}
