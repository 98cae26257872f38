//! Why a volume operation was not taken on.

use nova_core::contracts::ImageServiceError;
use nova_core::volume::VolumeProblem;
use nova_db::StoreError;

/// Why a volume operation was not taken on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The books say so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image service says so.
    #[error(transparent)]
    Image(#[from] ImageServiceError),
    /// The volume host has not done it in time; it is still being seen to.
    #[error("the volume host {host} does not answer")]
    NoAnswer {
        /// Which.
        host: String,
    },
    /// The volume host could not do it. The text is for operators; users read that it failed.
    #[error("{what} failed on the volume host: {fault}")]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// What was met.
        fault: String,
    },
}

impl From<VolumeProblem> for VolumeError {
    fn from(problem: VolumeProblem) -> Self {
        Self::Store(problem.into())
    }
}
