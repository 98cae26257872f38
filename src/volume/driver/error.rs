//! Why a backend did not do what it was asked.

use std::time::Duration;

use nova_core::disk_format::InspectError;

/// Boxed cause of a failure.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a backend did not do what it was asked. A variant per thing that a caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeDriverError {
    /// The backend has no such thing.
    #[error("there is no {kind} {id} in this backend")]
    NotFound {
        /// `volume`, `snapshot`.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// It is there, but not as asked.
    #[error("{kind} {id} is there already and {difference}")]
    Conflict {
        /// `volume`, `snapshot`.
        kind: &'static str,
        /// The id.
        id: String,
        /// How it differs.
        difference: String,
    },
    /// Something else needs it as it is.
    #[error("volume {id} {reason}")]
    Busy {
        /// The volume.
        id: String,
        /// Why: `is connected to a host`.
        reason: &'static str,
    },
    /// There is no room, or all room that may be promised was.
    #[error("no space left in the pool while {during}")]
    NoSpace {
        /// What was being done, as a gerund.
        during: &'static str,
        /// What was met.
        #[source]
        source: BoxError,
    },
    /// The image is not what it is declared to be, not safe, damaged or too large. May be told to whoever asked.
    #[error("{0}")]
    InvalidImage(String),
    /// A source of bytes (the image service) failed, not the backend.
    #[error("the image's data could not be read")]
    Source {
        /// What was met.
        #[source]
        source: BoxError,
    },
    /// This backend can't; its capabilities say so as well.
    #[error("this volume driver has no {operation}")]
    Unsupported {
        /// What was asked.
        operation: &'static str,
    },
    /// The backend does not answer now. Worth another try.
    #[error("the {driver} volume driver is unavailable")]
    Unavailable {
        /// The driver's name.
        driver: &'static str,
        /// What was met.
        #[source]
        source: BoxError,
    },
    /// No answer in time. The effect may still come about; ask again to learn it.
    #[error("{during} took longer than {after:?}")]
    TimedOut {
        /// What was being done.
        during: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The backend refused or failed.
    #[error("the volume driver failed while {during}")]
    Failed {
        /// What was being done, as a gerund.
        during: &'static str,
        /// What was met.
        #[source]
        source: BoxError,
    },
}

/// The variant of a [`VolumeDriverError`] without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the error of the same name")]
pub enum VolumeErrorKind {
    NotFound,
    Conflict,
    Busy,
    NoSpace,
    InvalidImage,
    Source,
    Unsupported,
    Unavailable,
    TimedOut,
    Failed,
}

impl VolumeDriverError {
    /// Which error it is.
    pub fn kind(&self) -> VolumeErrorKind {
        match self {
            Self::NotFound { .. } => VolumeErrorKind::NotFound,
            Self::Conflict { .. } => VolumeErrorKind::Conflict,
            Self::Busy { .. } => VolumeErrorKind::Busy,
            Self::NoSpace { .. } => VolumeErrorKind::NoSpace,
            Self::InvalidImage(_) => VolumeErrorKind::InvalidImage,
            Self::Source { .. } => VolumeErrorKind::Source,
            Self::Unsupported { .. } => VolumeErrorKind::Unsupported,
            Self::Unavailable { .. } => VolumeErrorKind::Unavailable,
            Self::TimedOut { .. } => VolumeErrorKind::TimedOut,
            Self::Failed { .. } => VolumeErrorKind::Failed,
        }
    }

    /// True when the same request, made again a little later, may well succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::TimedOut { .. } | Self::Source { .. } => true,
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Busy { .. }
            | Self::NoSpace { .. }
            | Self::InvalidImage(_)
            | Self::Unsupported { .. }
            | Self::Failed { .. } => false,
        }
    }

    pub(super) fn no_volume(id: impl ToString) -> Self {
        Self::NotFound { kind: "volume", id: id.to_string() }
    }

    pub(super) fn no_snapshot(id: impl ToString) -> Self {
        Self::NotFound { kind: "snapshot", id: id.to_string() }
    }

    pub(super) fn busy(id: impl ToString, reason: &'static str) -> Self {
        Self::Busy { id: id.to_string(), reason }
    }

    pub(super) fn other_size(id: impl ToString, size_gb: u64) -> Self {
        Self::Conflict { kind: "volume", id: id.to_string(), difference: format!("has {size_gb} GiB") }
    }

    pub(super) fn failed(during: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Failed { during, source: source.into() }
    }

    /// What an inspector found wrong; failures to read are the backend's.
    pub(super) fn inspected(during: &'static str, error: InspectError) -> Self {
        match error {
            InspectError::Io(error) => Self::failed(during, error),
            refused => Self::InvalidImage(refused.to_string()),
        }
    }
}
