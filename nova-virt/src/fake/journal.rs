//! What was asked of a fake, in order.

use std::collections::VecDeque;
use std::fmt;

use nova_core::ids::InstanceId;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Operation};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalOutcome {
    /// It did what was asked, and said so.
    Done,
    /// It failed and did nothing.
    Failed(ErrorKind),
    /// It did what was asked, but told its caller that it failed.
    DoneButFailed(ErrorKind),
}

/// One operation that came to its end. Its place in the journal is the moment of its effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// Counts from 1 since the fake was made.
    pub sequence: u64,
    /// What was asked.
    pub operation: Operation,
    /// Of which guest, if of one.
    pub instance: Option<InstanceId>,
    /// At which epoch, if the order carries one.
    pub epoch: Option<u64>,
    /// How it ended.
    pub outcome: JournalOutcome,
}

impl fmt::Display for JournalEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, self.operation)?;
        if let Some(instance) = self.instance {
            write!(f, " {instance}")?;
        }
        if let Some(epoch) = self.epoch {
            write!(f, " epoch={epoch}")?;
        }
        match self.outcome {
            JournalOutcome::Done => write!(f, " done"),
            JournalOutcome::Failed(kind) => write!(f, " failed {kind:?}"),
            JournalOutcome::DoneButFailed(kind) => write!(f, " done, told failed {kind:?}"),
        }
    }
}

/// The last entries, and a hash over all there ever were.
#[derive(Debug)]
pub(super) struct Journal {
    entries: VecDeque<JournalEntry>,
    limit: usize,
    last_sequence: u64,
    hash: u64,
}

impl Journal {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit, last_sequence: 0, hash: FNV_OFFSET }
    }

    pub(super) fn record(
        &mut self,
        operation: Operation,
        instance: Option<InstanceId>,
        epoch: Option<u64>,
        outcome: JournalOutcome,
    ) {
        self.last_sequence += 1;
        let entry = JournalEntry { sequence: self.last_sequence, operation, instance, epoch, outcome };
        self.hash = fnv1a(self.hash, format!("{entry}\n").as_bytes());
        if self.entries.len() >= self.limit {
            self.entries.pop_front();
        }
        if self.limit > 0 {
            self.entries.push_back(entry);
        }
    }

    pub(super) fn entries(&self) -> Vec<JournalEntry> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

/// FNV-1a: small, and the same on every machine and in every release, which std's hasher does not promise.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}
