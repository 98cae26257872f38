//! What can go wrong on the bus, by what a caller can do about it.

use std::time::Duration;

use nova_core::contracts::BoxError;
use nova_core::rpc::Refusal;

/// Why a message was not delivered or answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody has ever served this queue.
    #[error("there is no queue {queue}")]
    Unroutable {
        /// The queue.
        queue: String,
    },
    /// The queue, or the number of calls in flight, is at its bound.
    #[error("{what} is full")]
    Overloaded {
        /// What is full.
        what: String,
    },
    /// No answer in time. Whether it was done is not known.
    #[error("no reply to {method} from {queue} within {timeout:?}")]
    TimedOut {
        /// The method.
        method: String,
        /// The queue.
        queue: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The receiver will not do it.
    #[error("{method} was refused")]
    Refused {
        /// The method.
        method: String,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The answer, or the question, is not what the interface declares.
    #[error("the content of {method} cannot be read")]
    Malformed {
        /// The method.
        method: String,
        /// What is wrong.
        #[source]
        source: BoxError,
    },
    /// A setting of the bus, or a name on it, cannot be.
    #[error("{what}: {why}")]
    Misconfigured {
        /// Which.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The broker does not answer.
    #[error("the message bus is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
}

impl BusError {
    /// Would the same message, later, have a chance?
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unroutable { .. } | Self::Overloaded { .. } | Self::TimedOut { .. } | Self::Unavailable { .. } => {
                true
            }
            Self::Refused { refusal, .. } => refusal.kind == nova_core::rpc::RefusalKind::Unavailable,
            Self::Malformed { .. } | Self::Misconfigured { .. } => false,
        }
    }

    /// The receiver's reason, where it refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}
