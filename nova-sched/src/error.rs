//! What can go wrong when the table is changed or a scheduler is set up.

/// An error of this crate, apart from [`NoValidHost`](crate::NoValidHost), which is an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// The list of dimensions can't be used.
    #[error("resource dimensions: {reason}")]
    InvalidDimensions {
        /// What is wrong with it.
        reason: String,
    },
    /// A resource was named that the table doesn't count.
    #[error("there is no resource dimension `{name}`")]
    UnknownDimension {
        /// The name that was given.
        name: String,
    },
    /// The host isn't in the table: add it first, or drop the change.
    #[error("host `{host}` is not in the table")]
    UnknownHost {
        /// The name that was given.
        host: String,
    },
    /// A host's description has a value that can't be used; the table is as it was.
    #[error("host `{host}`: {field}: {reason}")]
    InvalidInventory {
        /// The host that was described.
        host: String,
        /// The field with the bad value.
        field: &'static str,
        /// Why it can't be used.
        reason: String,
    },
    /// The host has no room for this; the table is as it was. Choose again.
    #[error("host `{host}` has {free} of {dimension} left, {asked} asked")]
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
    #[error("consumer {consumer:032x} holds another amount on host `{host}`")]
    AllocationDiffers {
        /// The consumer's number.
        consumer: u128,
        /// The host.
        host: String,
    },
    /// The host's NUMA cells or devices don't take the guest; the table is as it was. Choose again.
    #[error("host `{host}` has no NUMA cells or devices left for this")]
    TopologyDoesNotFit {
        /// The host that was asked.
        host: String,
    },
    /// A configuration names a filter or weigher that doesn't exist.
    #[error("scheduler option `{option}`: there is no `{name}` (known: {known})")]
    UnknownName {
        /// The option's name.
        option: &'static str,
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A batch can't be placed as it is written; nothing of it is booked.
    #[error("item {item} of the batch {reason}")]
    InvalidBatch {
        /// The number of the item.
        item: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A configuration names an algorithm that doesn't exist.
    #[error("there is no scheduler `{name}` (known: {known})")]
    UnknownScheduler {
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// An option of an algorithm has a value that can't be used.
    #[error("scheduler option `{option}`: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Why its value can't be used.
        reason: String,
    },
}
