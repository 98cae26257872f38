//! Failures on command.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;

use crate::{ErrorKind, HypervisorError, Operation};

/// When an injected failure strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strike {
    /// Instead of the effect.
    Before,
    /// After the effect: the work is done, its answer is lost.
    After,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// `None` lets a call pass.
    queued: BTreeMap<Operation, VecDeque<Option<(Strike, ErrorKind)>>>,
    hung: BTreeSet<Operation>,
    pub(super) unavailable: bool,
}

impl Faults {
    pub(super) fn queue(&mut self, operation: Operation, times: u32, strike: Strike, kind: ErrorKind) {
        let queue = self.queued.entry(operation).or_default();
        queue.extend((0..times).map(|_| Some((strike, kind))));
    }

    /// Before the next failure is due, so many calls are none.
    pub(super) fn let_pass(&mut self, operation: Operation, times: u32) {
        self.queued.entry(operation).or_default().extend((0..times).map(|_| None));
    }

    /// The failure that the next call of the operation meets; it is used up.
    pub(super) fn take(&mut self, operation: Operation) -> Option<(Strike, ErrorKind)> {
        if self.unavailable {
            return Some((Strike::Before, ErrorKind::Unavailable));
        }
        self.queued.get_mut(&operation).and_then(VecDeque::pop_front).flatten()
    }

    pub(super) fn hang(&mut self, operation: Operation) {
        self.hung.insert(operation);
    }

    pub(super) fn release(&mut self, operation: Operation) {
        self.hung.remove(&operation);
    }

    pub(super) fn is_hung(&self, operation: Operation) -> bool {
        self.hung.contains(&operation)
    }
}

/// An error of that kind, as if the operation had met it.
pub(super) fn error(kind: ErrorKind, operation: Operation, instance: Option<InstanceId>) -> HypervisorError {
    let during = operation.as_str();
    let cause = "injected failure";
    let of_guest = |make: fn(InstanceId, Operation) -> HypervisorError| match instance {
        Some(instance) => make(instance, operation),
        None => HypervisorError::Failed { during, source: cause.into() },
    };
    match kind {
        ErrorKind::NotFound => of_guest(|instance, _| HypervisorError::NotFound { instance }),
        ErrorKind::Stale => of_guest(|instance, _| HypervisorError::Stale { instance, asked: 0, current: u64::MAX }),
        ErrorKind::InvalidState => of_guest(|instance, operation| HypervisorError::InvalidState {
            instance,
            operation,
            state: PowerState::NoState,
        }),
        ErrorKind::Unsupported => HypervisorError::Unsupported { operation },
        ErrorKind::Unavailable => HypervisorError::Unavailable { driver: "fake", source: cause.into() },
        ErrorKind::NoSpace => HypervisorError::NoSpace { during, source: cause.into() },
        ErrorKind::InvalidInput => HypervisorError::invalid(during, cause),
        ErrorKind::TimedOut => HypervisorError::TimedOut { during, after: Duration::from_secs(60) },
        ErrorKind::Failed => HypervisorError::Failed { during, source: cause.into() },
    }
}
