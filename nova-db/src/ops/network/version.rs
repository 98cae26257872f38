//! How often the books were changed: told by one question, so that nobody reads them in vain.
//!
//! Every transaction that changes what hosts could be told raises one of a few counters, and is seen with it or not at all.
//! It does so last, and holds nothing else for longer than its commit takes.

use super::super::{add, find, replace_or_race};
use crate::records::BooksVersion;
use crate::rows::{Fail, Lock, Record, Select, Transaction, Value, decode};

/// The counter for whoever changes the thing of that id, one of sixteen: ids are drawn at random, so that callers at the same
/// time rarely meet at one.
pub(super) fn part_of(id: impl std::fmt::Display) -> u8 {
    let last = id.to_string().chars().next_back();
    last.and_then(|digit| digit.to_digit(16)).and_then(|digit| u8::try_from(digit).ok()).unwrap_or_default()
}

/// They were changed.
pub(super) async fn raise(tx: &mut dyn Transaction, part: u8) -> Result<(), Fail> {
    let (key, row) = ([Value::Int(i64::from(part))], BooksVersion { part });
    match find::<BooksVersion>(tx, &key, Lock::ForUpdate).await? {
        Some(found) => replace_or_race(tx, &row, found.generation).await,
        None => add(tx, &row).await.map_err(|fail| match fail {
            Fail::Taken { kind, id } => Fail::Raced { kind, id },
            other => other,
        }),
    }
}

/// Higher than at any time before, if they were changed since.
pub(super) async fn current(tx: &mut dyn Transaction) -> Result<u64, Fail> {
    let mut sum = 0;
    for row in tx.select(BooksVersion::TABLE, &Select::all(), Lock::None).await? {
        sum += decode::<BooksVersion>(&row)?.generation;
    }
    Ok(sum)
}
