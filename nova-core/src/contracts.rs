//! Contracts of services that an outside system may take over. The built-in services implement them in process; clients
//! of outside ones implement them over HTTP.

use async_trait::async_trait;

use crate::context::RequestContext;
use crate::ids::ImageId;
use crate::image::{ImageGrant, ImageMeta};
pub use crate::network::{NetworkService, NetworkServiceError};

/// Boxed cause of a failure.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageServiceError {
    /// No such image, or none that this caller may see.
    #[error("Image {id} could not be found.")]
    NotFound {
        /// The id, as it was given.
        id: String,
    },
    /// It is there, but cannot be booted from now.
    #[error("Image {id} is not active.")]
    NotActive {
        /// The id.
        id: ImageId,
    },
    /// This caller may not read it: the grant is missing, of another image, or over.
    #[error("the image service refuses image {id}: {reason}")]
    Refused {
        /// The id.
        id: ImageId,
        /// Why.
        reason: &'static str,
    },
    /// This service does not do that.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The service does not answer; trying again may help.
    #[error("the image service is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// What is left of an image's data to be read.
#[async_trait]
pub trait ImageData: Send {
    /// The next piece, at most about 1 MiB; `None` at the end.
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError>;
}

/// Where images come from (Glance, or the built-in service).
#[async_trait]
pub trait ImageService: Send + Sync {
    /// What a server made from this image has to remember of it. The caller must be allowed to see it.
    async fn bootable_image(&self, context: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError>;

    /// The image's bytes, for a host that was ordered to make a guest of it. The reader checks them against the recorded
    /// checksum. The grant is the order's; a service in the host's own process needs none.
    async fn download(&self, id: ImageId, grant: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError>;

    /// Takes the data of an image that was described before (`queued`), from a host that was ordered to make it of a guest's
    /// disk; `size` is how many bytes there are. The grant is the order's, and says how many there may be. All of it is
    /// stored, or nothing; of an image that has its data already, nothing is changed and the answer is Ok.
    async fn upload(
        &self,
        _id: ImageId,
        _grant: Option<&ImageGrant>,
        _size: u64,
        _data: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        Err(ImageServiceError::Unsupported("images cannot be uploaded here"))
    }
}

/// A named thing of identity, as token bodies show it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Named {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
}

/// Who a token speaks for, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenInfo {
    /// The user.
    pub user: Named,
    /// The user's domain.
    pub user_domain: Named,
    /// The project that it is scoped to; `None`: unscoped, good only for identity.
    pub project: Option<Named>,
    /// The project's domain.
    pub project_domain: Option<Named>,
    /// Roles on that project, implied ones included.
    pub roles: Vec<Named>,
    /// `password`, `token`.
    pub methods: Vec<String>,
    /// Names this token, and the one that it was made from, without giving them away.
    pub audit_ids: Vec<String>,
    /// When it was given out.
    pub issued_at: jiff::Timestamp,
    /// When it ends.
    pub expires_at: jiff::Timestamp,
}

/// Why a token does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Forged, expired, taken back, or of a user that is gone. Which of these is not told.
    #[error("The request you have made requires authentication.")]
    Unauthorized,
    /// Identity does not answer.
    #[error("identity is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// Who can say what a token is worth (Keystone, or the built-in service).
#[async_trait]
pub trait IdentityService: Send + Sync {
    /// Checks a token. The built-in service needs no database for it.
    async fn validate(&self, token: &str) -> Result<TokenInfo, IdentityError>;
}
