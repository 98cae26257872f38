//! What the compute side asks of images: may this one be booted, and its bytes.

use std::fs::File;
use std::io::{self, Read};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use nova_core::context::RequestContext;
use nova_core::contracts::{BoxError, ImageData, ImageService, ImageServiceError};
use nova_core::ids::ImageId;
use nova_core::image::{Image, ImageGrant, ImageMeta, ImageStatus};
use nova_db::StoreError;

use super::data::CHUNK;
use super::manager::ImageManager;
use super::policy::may_see;
use crate::api::ApiError;

#[async_trait]
impl ImageService for ImageManager {
    async fn bootable_image(&self, context: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        let image = self.found(id).await?;
        if !may_see(context, &image) {
            return Err(not_found(id));
        }
        meta(image)
    }

    /// For hosts of this process, which could read the folder without asking: the grant is not looked at. Hosts of other
    /// processes come through the API, which does.
    async fn download(
        &self,
        id: ImageId,
        _grant: Option<&ImageGrant>,
    ) -> Result<Box<dyn ImageData>, ImageServiceError> {
        meta(self.found(id).await?)?;
        let folder = self.folder.clone();
        let opened = tokio::task::spawn_blocking(move || folder.read(id)).await.map_err(unavailable)?;
        match opened {
            Ok(file) => Ok(Box::new(Reader { file: Some(file) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found(id)),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn upload(
        &self,
        id: ImageId,
        grant: Option<&ImageGrant>,
        size: u64,
        data: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        let now = self.clock.now();
        let limit = grant.and_then(|grant| self.grants.upload_limit(grant.reveal(), id, now));
        let Some(limit) = limit else {
            return Err(ImageServiceError::Refused { id, reason: "its grant does not count, or no longer" });
        };
        let image = self.found(id).await?;
        if image.status == ImageStatus::Active {
            return Ok(());
        }
        let body = Body::from_stream(stream::try_unfold(data, |mut data| async move {
            let piece = data.next_chunk().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(piece.map(|piece| (Bytes::from(piece), data)))
        }));
        let taken = match self.may_take(&image, limit, Some(size)).await {
            Ok((format, limit)) => self.receive(image, format, limit, Some(size), body).await,
            Err(error) => Err(error),
        };
        taken.map_err(|error| match error {
            ApiError::NotFound(_) | ApiError::Gone(_) => not_found(id),
            ApiError::TooLarge => ImageServiceError::Refused { id, reason: "it is larger than it may be" },
            ApiError::BadRequest(_) => ImageServiceError::Refused { id, reason: "its data is not what it should be" },
            // Somebody else is bringing it: their outcome is found by the next try.
            other => unavailable(other.to_string()),
        })
    }
}

impl ImageManager {
    async fn found(&self, id: ImageId) -> Result<Image, ImageServiceError> {
        match self.store.get_image(id).await {
            Ok(image) => Ok(image),
            Err(StoreError::NotFound { .. }) => Err(not_found(id)),
            Err(error) => Err(unavailable(error)),
        }
    }
}

pub(super) fn not_found(id: ImageId) -> ImageServiceError {
    ImageServiceError::NotFound { id: id.to_string() }
}

pub(super) fn unavailable(error: impl Into<BoxError>) -> ImageServiceError {
    ImageServiceError::Unavailable { source: error.into() }
}

/// What an instance remembers; only of an image that is ready and was inspected.
pub(super) fn meta(image: Image) -> Result<ImageMeta, ImageServiceError> {
    let not_active = ImageServiceError::NotActive { id: image.id };
    if image.status != ImageStatus::Active {
        return Err(not_active);
    }
    let (Some(disk_format), Some(size), Some(sha512)) = (image.disk_format, image.size, image.os_hash_value) else {
        return Err(not_active);
    };
    Ok(ImageMeta {
        id: image.id,
        name: image.name,
        disk_format,
        size,
        sha512,
        min_ram: image.min_ram,
        min_disk: image.min_disk,
        virtual_size: image.virtual_size.unwrap_or(size),
        properties: image.properties,
    })
}

/// Data of an image, read piece by piece on a thread that may block. A delete meanwhile does not break the reader off.
pub(super) struct Reader {
    pub(super) file: Option<File>,
}

impl Reader {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = self.file.take() else { return Ok(None) };
        let (file, piece) = tokio::task::spawn_blocking(move || {
            let mut piece = Vec::with_capacity(CHUNK);
            let result = (&mut file).take(CHUNK as u64).read_to_end(&mut piece);
            (file, result.map(|_| piece))
        })
        .await
        .map_err(io::Error::other)?;
        let piece = piece?;
        if piece.is_empty() {
            return Ok(None);
        }
        self.file = Some(file);
        Ok(Some(piece))
    }
}

#[async_trait]
impl ImageData for Reader {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        self.next().await.map_err(unavailable)
    }
}
