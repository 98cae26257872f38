//! What can go wrong when the table is changed or a scheduler is set up.
//!
//! Written out instead of derived: the derive's own dependencies would double the time that this crate takes to build.

use std::error::Error;
use std::fmt;

/// An error of this crate, apart from [`NoValidHost`](crate::NoValidHost), which is an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulerError {
    /// The list of dimensions can't be used.
    InvalidDimensions {
        /// What is wrong with it.
        reason: String,
    },
    /// A resource was named that the table doesn't count.
    UnknownDimension {
        /// The name that was given.
        name: String,
    },
    /// The host isn't in the table: add it first, or drop the change.
    UnknownHost {
        /// The name that was given.
        host: String,
    },
    /// A host's description has a value that can't be used; the table is as it was.
    InvalidInventory {
        /// The host that was described.
        host: String,
        /// The field with the bad value.
        field: &'static str,
        /// Why it can't be used.
        reason: String,
    },
    /// The host has no room for this; the table is as it was. Choose again.
    InsufficientCapacity {
        /// The host that was asked.
        host: String,
        /// The first dimension without room.
        dimension: String,
        /// How much was asked of it.
        asked: u64,
        /// How much is left of it.
        free: u64,
    },
    /// The consumer holds another amount on this host already; see
    /// [`HostTable::reallocate`](crate::HostTable::reallocate).
    AllocationDiffers {
        /// The consumer's number.
        consumer: u128,
        /// The host.
        host: String,
    },
    /// The host's NUMA cells or devices don't take the guest; the table is as it was. Choose again.
    TopologyDoesNotFit {
        /// The host that was asked.
        host: String,
    },
    /// A configuration names a filter or weigher that doesn't exist.
    UnknownName {
        /// The option's name.
        option: &'static str,
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A batch can't be placed as it is written; nothing of it is booked.
    InvalidBatch {
        /// The number of the item.
        item: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration names an algorithm that doesn't exist.
    UnknownScheduler {
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// An option of an algorithm has a value that can't be used.
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Why its value can't be used.
        reason: String,
    },
}

impl Error for SchedulerError {}

impl fmt::Display for SchedulerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidDimensions { reason } => write!(f, "resource dimensions: {reason}"),
            Self::UnknownDimension { name } => write!(f, "there is no resource dimension `{name}`"),
            Self::UnknownHost { host } => write!(f, "host `{host}` is not in the table"),
            Self::InvalidInventory { host, field, reason } => write!(f, "host `{host}`: {field}: {reason}"),
            Self::InsufficientCapacity { host, dimension, asked, free } => {
                write!(f, "host `{host}` has {free} of {dimension} left, {asked} asked")
            }
            Self::AllocationDiffers { consumer, host } => {
                write!(f, "consumer {consumer:032x} holds another amount on host `{host}`")
            }
            Self::TopologyDoesNotFit { host } => {
                write!(f, "host `{host}` has no NUMA cells or devices left for this")
            }
            Self::UnknownName { option, name, known } => {
                write!(f, "scheduler option `{option}`: there is no `{name}` (known: {known})")
            }
            Self::InvalidBatch { item, reason } => write!(f, "item {item} of the batch {reason}"),
            Self::UnknownScheduler { name, known } => write!(f, "there is no scheduler `{name}` (known: {known})"),
            Self::InvalidOption { option, reason } => write!(f, "scheduler option `{option}`: {reason}"),
        }
    }
}
