//! The image service over HTTP, for a host agent that runs apart from it: downloads by the grant that an order carries.
//!
//! A host has no account and no token. It streams the data (nothing is kept but the piece that is handed on), and a download
//! that breaks off goes on where it ended: a restart of the image service costs time, not a build.

mod download;
mod endpoint;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageData, ImageService, ImageServiceError};
use nova_core::entropy::Entropy;
use nova_core::ids::ImageId;
use nova_core::image::{ImageGrant, ImageMeta};
use nova_core::options::Config;

use download::Download;
use endpoint::Endpoint;
pub use endpoint::{EndpointError, GLANCE_ENDPOINT_OVERRIDE};
pub(crate) use upload::FileData;

/// How long a download waits for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpImageOptions {
    /// For a connection.
    pub connect_timeout: Duration,
    /// For the next byte.
    pub idle_timeout: Duration,
    /// How long one that makes no headway is tried again.
    pub patience: Duration,
    /// Before the first try after a failure; doubled for each further one, and jittered.
    pub first_wait: Duration,
    /// Before any try.
    pub longest_wait: Duration,
}

impl Default for HttpImageOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(3),
        }
    }
}

/// Images by HTTP (Glance v2's `GET /v2/images/{id}/file`), with grants in the place of tokens. Cheap to clone.
#[derive(Clone)]
pub struct HttpImageService {
    endpoint: Arc<Endpoint>,
    options: Arc<HttpImageOptions>,
    entropy: Arc<dyn Entropy>,
}

impl HttpImageService {
    /// Images of the service at `endpoint`, such as `http://controller:8774/image`.
    ///
    /// # Errors
    /// [`EndpointError`] for what is no `http://` URL.
    pub fn new(endpoint: &str, options: HttpImageOptions, entropy: Arc<dyn Entropy>) -> Result<Self, EndpointError> {
        let endpoint = Arc::new(Endpoint::parse(GLANCE_ENDPOINT_OVERRIDE.decl().key(), endpoint)?);
        Ok(Self { endpoint, options: Arc::new(options), entropy })
    }

    /// Images of the service that the configuration names: `glance.endpoint_override`, or where the API is.
    ///
    /// # Errors
    /// [`EndpointError`] names the option that is wrong.
    pub fn from_config(config: &Config, entropy: Arc<dyn Entropy>) -> Result<Self, EndpointError> {
        let endpoint = Arc::new(Endpoint::from_config(config)?);
        Ok(Self { endpoint, options: Arc::default(), entropy })
    }

    /// Where images come from.
    pub fn endpoint(&self) -> String {
        self.endpoint.to_string()
    }
}

#[async_trait]
impl ImageService for HttpImageService {
    /// The API's business: a host is told all that it needs by its order.
    async fn bootable_image(&self, _: &RequestContext, _: ImageId) -> Result<ImageMeta, ImageServiceError> {
        Err(ImageServiceError::Unsupported("a host asks for the data of images only, never for images"))
    }

    async fn download(&self, id: ImageId, grant: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        let Some(grant) = grant else {
            return Err(ImageServiceError::Refused { id, reason: "the order came without a grant for it" });
        };
        Ok(Box::new(Download::begin(self.clone(), id, grant.clone()).await?))
    }

    async fn upload(
        &self,
        id: ImageId,
        grant: Option<&ImageGrant>,
        size: u64,
        data: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        let Some(grant) = grant else {
            return Err(ImageServiceError::Refused { id, reason: "the order came without a grant for it" });
        };
        upload::upload(self, id, grant, size, data).await
    }
}

impl std::fmt::Debug for HttpImageService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpImageService").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}
