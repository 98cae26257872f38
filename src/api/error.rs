//! What a handler or filter may answer instead of success. One enum for all HTTP APIs; how it looks on the wire is the
//! business of each application's [`Dialect`](super::Dialect).

use http::StatusCode;
use nova_core::contracts::{BoxError, IdentityError, ImageServiceError};
use nova_core::network::{NetworkProblem, ProblemClass};
use nova_core::volume::{VolumeProblem, VolumeProblemClass};
use nova_db::StoreError;

use crate::volume::VolumeError;

/// Why a request was not served. The text is for the client; causes of [`ApiError::Internal`] are only logged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// 400: the request itself is wrong; the text names the field.
    #[error("{0}")]
    BadRequest(String),
    /// 401: no token, or one that does not count. Which of these is not told.
    #[error("The request you have made requires authentication.")]
    Unauthorized,
    /// 403: the caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// 403: the project has no quota left for it. Nova wraps this as `forbidden`.
    #[error("{0}")]
    OverQuota(String),
    /// 404: there is no such thing, or none that this caller may know of.
    #[error("{0}")]
    NotFound(String),
    /// 405: the path exists, the method does not. The compute API answers 404 in its place, as Nova.
    #[error("The method is not allowed for this resource.")]
    MethodNotAllowed,
    /// 406: a version that is not offered.
    #[error("{0}")]
    NotAcceptable(String),
    /// 408: the client was too slow to send its body.
    #[error("The request body was not received in time.")]
    Timeout,
    /// 409: not in this state, or someone else was faster.
    #[error("{0}")]
    Conflict(String),
    /// Whatever status a problem of the network has, with Neutron's name for it.
    #[error("{text}")]
    Network {
        /// The status.
        status: StatusCode,
        /// `IpAddressInUse` and its kin.
        name: &'static str,
        /// For the client.
        text: String,
    },
    /// Whatever status a problem of a volume has.
    #[error("{text}")]
    Volume {
        /// The status.
        status: StatusCode,
        /// For the client.
        text: String,
    },
    /// 410: it was there once.
    #[error("{0}")]
    Gone(String),
    /// 413: the body is longer than allowed.
    #[error("Request is too large.")]
    TooLarge,
    /// 415: the body's type is not understood.
    #[error("Unsupported Content-Type")]
    UnsupportedMediaType,
    /// 429: slower, please.
    #[error("This request was rate-limited.")]
    TooManyRequests {
        /// Seconds until it may work.
        retry_after: u64,
    },
    /// 501: known, but not offered here.
    #[error("{0}")]
    NotImplemented(String),
    /// 503: something behind us does not answer; trying again may help.
    #[error("Service is unavailable at this time.")]
    Unavailable {
        /// Seconds until it may work.
        retry_after: u64,
    },
    /// 500: a defect, or damage. The client learns nothing of it but the request id.
    #[error("Unexpected API Error.")]
    Internal(#[source] BoxError),
}

impl ApiError {
    /// A 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::BadRequest(text.into())
    }

    /// A 403.
    pub fn forbidden(text: impl Into<String>) -> Self {
        Self::Forbidden(text.into())
    }

    /// A 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::NotFound(text.into())
    }

    /// The 404 of a path that leads nowhere (the text is webob's, as Nova's clients know it).
    pub fn no_such_resource() -> Self {
        Self::NotFound("The resource could not be found.".to_owned())
    }

    /// A 409.
    pub fn conflict(text: impl Into<String>) -> Self {
        Self::Conflict(text.into())
    }

    /// A 500.
    pub fn internal(cause: impl Into<BoxError>) -> Self {
        Self::Internal(cause.into())
    }

    /// The status on the wire.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::OverQuota(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable(_) => StatusCode::NOT_ACCEPTABLE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Network { status, .. } | Self::Volume { status, .. } => *status,
            Self::Gone(_) => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When the client should come back, in seconds.
    pub const fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooManyRequests { retry_after } | Self::Unavailable { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// The one place where what the store says becomes an HTTP status. Handlers that have a better text (Nova's "Instance …
/// could not be found.") match before.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::NotFound(format!("{error}.")),
            StoreError::Conflict { .. } | StoreError::Duplicate { .. } => Self::Conflict(format!("{error}.")),
            StoreError::Network(problem) => problem.into(),
            StoreError::Volume(problem) => problem.into(),
            StoreError::Quota(exceeded) => Self::OverQuota(exceeded.to_string()),
            StoreError::Unavailable { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store does not answer");
                Self::Unavailable { retry_after: 1 }
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}

impl From<NetworkProblem> for ApiError {
    fn from(problem: NetworkProblem) -> Self {
        let status = match problem.class() {
            ProblemClass::BadRequest => StatusCode::BAD_REQUEST,
            ProblemClass::NotFound => StatusCode::NOT_FOUND,
            ProblemClass::Conflict => StatusCode::CONFLICT,
            ProblemClass::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::Network { status, name: problem.name(), text: problem.to_string() }
    }
}

impl From<VolumeProblem> for ApiError {
    fn from(problem: VolumeProblem) -> Self {
        let status = match problem.class() {
            VolumeProblemClass::BadRequest => StatusCode::BAD_REQUEST,
            VolumeProblemClass::NotFound => StatusCode::NOT_FOUND,
            VolumeProblemClass::Conflict => StatusCode::CONFLICT,
            VolumeProblemClass::OverQuota => StatusCode::PAYLOAD_TOO_LARGE,
        };
        Self::Volume { status, text: problem.to_string() }
    }
}

impl From<VolumeError> for ApiError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Store(error) => error.into(),
            VolumeError::Image(error) => error.into(),
            VolumeError::NoAnswer { .. } => {
                tracing::warn!("{error}");
                Self::Unavailable { retry_after: 5 }
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Unauthorized => Self::Unauthorized,
            IdentityError::Unavailable { source } => {
                tracing::error!(error = &*source as &dyn std::error::Error, "identity does not answer");
                Self::Unavailable { retry_after: 1 }
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}

impl From<ImageServiceError> for ApiError {
    fn from(error: ImageServiceError) -> Self {
        match error {
            ImageServiceError::NotFound { .. } | ImageServiceError::NotActive { .. } => {
                Self::BadRequest(error.to_string())
            }
            ImageServiceError::Unavailable { source } => {
                tracing::error!(error = &*source as &dyn std::error::Error, "the image service does not answer");
                Self::Unavailable { retry_after: 1 }
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}
