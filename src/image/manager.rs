//! What happens to images: records in the store, data in the folder, and nothing in between for long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::ImageId;
use nova_core::image::{Image, ImageStatus};
use nova_db::{ImageStore, StoreError};
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::data::{DataError, DataFolder, Incoming, Stored};
use super::policy::{not_found, require_owner, visible};
use super::{GrantKey, ImageOptions};
use crate::api::ApiError;

/// Pieces of an upload that wait for the disk.
const PIECES_WAITING: usize = 4;
/// How often a change is tried again when somebody else changed the image meanwhile.
const ATTEMPTS: usize = 5;

/// Why the image service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageManagerError {
    /// The folder of the data cannot be used.
    #[error("the folder of images '{path}' cannot be used")]
    Folder {
        /// The folder.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store said no, or nothing.
    #[error("the image service's store failed")]
    Store(#[source] StoreError),
}

/// The built-in image service.
pub struct ImageManager {
    pub(super) store: Arc<dyn ImageStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) options: ImageOptions,
    pub(super) folder: DataFolder,
    pub(super) grants: GrantKey,
    /// The longest data of one image, bytes; may change while the service runs.
    max_size: AtomicU64,
    uploads: Arc<Semaphore>,
    creating: Mutex<()>,
}

impl ImageManager {
    /// Opens the folder, and puts right what a crash left: uploads that broke off are `queued` again, their remains are
    /// removed. Uploads that another process is receiving into the same folder are left alone.
    ///
    /// # Errors
    /// [`ImageManagerError`].
    pub async fn open(
        store: Arc<dyn ImageStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        options: ImageOptions,
    ) -> Result<Self, ImageManagerError> {
        let unusable = |source| ImageManagerError::Folder { path: options.data_path.display().to_string(), source };
        let folder = DataFolder::open(&options.data_path).map_err(unusable)?;
        let uploads = Arc::new(Semaphore::new(options.max_uploads.max(1)));
        let max_size = AtomicU64::new(options.max_size);
        let creating = Mutex::new(());
        let grants = GrantKey::shared(&*store, &*entropy).await.map_err(ImageManagerError::Store)?;
        let manager =
            Self { max_size, store, clock, entropy, options: options.clone(), folder, grants, uploads, creating };
        let images = manager.requeue_broken_uploads().await.map_err(ImageManagerError::Store)?;
        let has_data = |id| images.iter().any(|image: &Image| image.id == id && image.size.is_some());
        let removed = manager.folder.clean(has_data).map_err(unusable)?;
        if removed > 0 {
            tracing::info!(removed, "removed what broken uploads left");
        }
        Ok(manager)
    }

    /// Takes over what may change while the service runs: the largest image.
    pub fn reload(&self, options: &ImageOptions) {
        self.max_size.store(options.max_size, Ordering::Relaxed);
    }

    async fn requeue_broken_uploads(&self) -> Result<Vec<Image>, StoreError> {
        for image in self.store.list_images().await? {
            if image.status == ImageStatus::Saving && !self.folder.is_being_written(image.id) {
                match self.store.update_image(Image { status: ImageStatus::Queued, size: None, ..image }).await {
                    Ok(_) | Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.store.list_images().await
    }

    /// An image that the caller may see.
    pub(super) async fn show(&self, context: &RequestContext, id: &str) -> Result<Image, ApiError> {
        visible(context, self.any(id).await?)
    }

    /// An image, whoever may see it.
    pub(super) async fn any(&self, id: &str) -> Result<Image, ApiError> {
        let parsed = id.parse::<ImageId>().map_err(|_| not_found(id))?;
        match self.store.get_image(parsed).await {
            Ok(image) => Ok(image),
            Err(StoreError::NotFound { .. }) => Err(not_found(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes an image; if somebody else changes it meanwhile, the change is made again on what they left.
    pub(super) async fn change(
        &self,
        context: &RequestContext,
        id: &str,
        change: impl Fn(&mut Image) -> Result<(), ApiError> + Send + Sync,
    ) -> Result<Image, ApiError> {
        for _ in 0..ATTEMPTS {
            let mut image = self.show(context, id).await?;
            let before = image.clone();
            change(&mut image)?;
            if image == before {
                return Ok(image);
            }
            image.updated_at = self.clock.now();
            match self.store.update_image(image).await {
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(not_found(id)),
                other => return Ok(other?),
            }
        }
        Err(ApiError::conflict("The image was changed by others again and again. Please try again."))
    }

    /// Records a new image, if its project may have one more.
    pub(super) async fn create(&self, image: Image) -> Result<Image, ApiError> {
        // One after the other, so that two do not both take the last place.
        let _turn = self.creating.lock().await;
        let images = self.store.list_images().await?;
        if images.iter().filter(|other| other.owner == image.owner).count() >= self.options.max_images {
            return Err(ApiError::TooLarge);
        }
        let id = image.id;
        self.store.create_image(image).await.map_err(|error| match error {
            StoreError::Duplicate { .. } => ApiError::conflict(format!("Image ID {id} already exists!")),
            other => other.into(),
        })
    }

    /// The most bytes that the image's data may have now.
    async fn room(&self, image: &Image) -> Result<u64, ApiError> {
        let max_size = self.max_size.load(Ordering::Relaxed);
        if self.options.project_quota == 0 {
            return Ok(max_size);
        }
        let images = self.store.list_images().await?;
        let used = images.iter().filter(|other| other.owner == image.owner).filter_map(|other| other.size).sum();
        Ok(self.options.project_quota.saturating_sub(used).min(max_size))
    }

    /// Takes an image's data. It goes on to a defined end even when the client goes away: either the image is `active`, or it is
    /// `queued` as before and nothing is left of the data.
    pub(super) async fn upload(
        self: &Arc<Self>,
        context: &RequestContext,
        id: &str,
        declared: Option<u64>,
        body: Body,
    ) -> Result<(), ApiError> {
        let image = self.show(context, id).await?;
        require_owner(context, &image, "upload data for")?;
        self.take(image, u64::MAX, declared, body).await
    }

    /// Takes the data of an image, at most `most` bytes, from whoever may bring it.
    pub(super) async fn take(
        self: &Arc<Self>,
        image: Image,
        most: u64,
        declared: Option<u64>,
        body: Body,
    ) -> Result<(), ApiError> {
        let (format, limit) = self.may_take(&image, most, declared).await?;
        let manager = Arc::clone(self);
        // In a task of its own, as this future is dropped when the client goes away.
        let task = tokio::spawn(async move { manager.receive(image, format, limit, declared, body).await });
        task.await.map_err(ApiError::internal)?
    }

    /// Whether an image may get data now: as which format, and how much.
    pub(super) async fn may_take(
        &self,
        image: &Image,
        most: u64,
        declared: Option<u64>,
    ) -> Result<(String, u64), ApiError> {
        if image.status != ImageStatus::Queued {
            return Err(ApiError::conflict(format!(
                "Image status transition from {} to saving is not allowed",
                image.status.as_str()
            )));
        }
        let (Some(format), Some(_)) = (image.disk_format.clone(), &image.container_format) else {
            return Err(ApiError::bad_request(
                "Properties disk_format, container_format must be set prior to saving data.",
            ));
        };
        let limit = self.room(image).await?.min(most);
        if declared.is_some_and(|length| length > limit) {
            return Err(ApiError::TooLarge);
        }
        Ok((format, limit))
    }

    pub(super) async fn receive(
        &self,
        image: Image,
        format: String,
        limit: u64,
        declared: Option<u64>,
        body: Body,
    ) -> Result<(), ApiError> {
        let _turn = self.uploads.acquire().await.map_err(ApiError::internal)?;
        let id = image.id;
        let folder = self.folder.clone();
        let incoming = blocking(move || folder.begin(id, limit)).await?;
        let incoming = incoming.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ApiError::conflict("Somebody else is uploading this image's data."),
            _ => disk_failed(&error),
        })?;
        // Whoever changes the image first has the right to upload; others find it no longer queued.
        let saving = Image { status: ImageStatus::Saving, updated_at: self.clock.now(), ..image };
        let saving = match self.store.update_image(saving).await {
            Ok(saving) => saving,
            Err(StoreError::Conflict { .. }) => {
                return Err(ApiError::conflict("Somebody else is changing this image."));
            }
            Err(StoreError::NotFound { .. }) => return Err(not_found(&id.to_string())),
            Err(error) => return Err(error.into()),
        };
        let result = self.store_data(incoming, format, declared, body).await;
        self.settle(saving, result).await
    }

    /// Streams the body to disk: hashing and writing happen on a thread that may block, a few pieces ahead at most.
    async fn store_data(
        &self,
        incoming: Incoming,
        format: String,
        declared: Option<u64>,
        body: Body,
    ) -> Result<Stored, ApiError> {
        let (pieces, queue) = mpsc::channel(PIECES_WAITING);
        let largest = self.options.max_virtual_size;
        let writer = tokio::task::spawn_blocking(move || write_all(incoming, queue, &format, largest));
        let sent = self.send_all(pieces, declared, body).await;
        let written = writer.await.map_err(ApiError::internal)?;
        match (sent, written) {
            (Err(error), _) => Err(error),
            (Ok(()), Ok(Some(stored))) => Ok(stored),
            (Ok(()), Ok(None)) => Err(broken_off()),
            (Ok(()), Err(error)) => Err(refusal(error)),
        }
    }

    /// Passes the body on to the writer. Only a body that came to its end is marked as whole; everything else makes the
    /// writer throw away what it has.
    async fn send_all(&self, pieces: mpsc::Sender<Piece>, declared: Option<u64>, body: Body) -> Result<(), ApiError> {
        let mut stream = body.into_data_stream();
        let mut size = 0u64;
        loop {
            let next = tokio::time::timeout(self.options.stall_timeout, stream.next()).await;
            let piece = match next.map_err(|_| ApiError::Timeout)? {
                Some(Ok(piece)) => piece,
                Some(Err(_)) => return Err(broken_off()),
                None => break,
            };
            size = size.saturating_add(piece.len() as u64);
            // A writer that has gone away has an error to tell.
            if pieces.send(Piece::Data(piece)).await.is_err() {
                return Ok(());
            }
        }
        if declared.is_some_and(|length| length != size) {
            return Err(broken_off());
        }
        // If this fails the writer has an error to tell, too.
        let _ = pieces.send(Piece::End).await;
        Ok(())
    }

    /// Records how an upload ended.
    async fn settle(&self, saving: Image, result: Result<Stored, ApiError>) -> Result<(), ApiError> {
        let id = saving.id;
        let (stored, failure) = match result {
            Ok(stored) => (Some(stored), None),
            Err(error) => (None, Some(error)),
        };
        let mut image = saving;
        for _ in 0..ATTEMPTS {
            image.status = if stored.is_some() { ImageStatus::Active } else { ImageStatus::Queued };
            image.updated_at = self.clock.now();
            if let Some(stored) = &stored {
                image.size = Some(stored.size);
                image.virtual_size = Some(stored.virtual_size);
                image.checksum = Some(stored.md5.clone());
                image.os_hash_value = Some(stored.sha512.clone());
            }
            match self.store.update_image(image).await {
                Ok(_) => return failure.map_or(Ok(()), Err),
                // Its name or a property was changed meanwhile: that stays, the data is added.
                Err(StoreError::Conflict { .. }) => match self.store.get_image(id).await {
                    Ok(changed) if changed.status == ImageStatus::Saving => image = changed,
                    _ => break,
                },
                Err(StoreError::NotFound { .. }) => break,
                Err(error) => {
                    self.discard(id).await;
                    return Err(failure.unwrap_or_else(|| error.into()));
                }
            }
        }
        // Deleted while its data came: nothing may be left.
        self.discard(id).await;
        Err(failure.unwrap_or_else(|| ApiError::Gone(format!("Image {id} was deleted during its upload."))))
    }

    /// Removes data that nobody needs. What cannot be removed now goes at the next start.
    pub(super) async fn discard(&self, id: ImageId) {
        let folder = self.folder.clone();
        if let Ok(Err(error)) = blocking(move || folder.remove(id)).await {
            tracing::warn!(error = &error as &dyn std::error::Error, image = %id, "an image's data stays until the next start");
        }
    }

    /// Removes an image: its record first, so that nobody is led to data that is gone.
    pub(super) async fn delete(&self, context: &RequestContext, id: &str) -> Result<(), ApiError> {
        let image = self.show(context, id).await?;
        require_owner(context, &image, "delete")?;
        if image.protected {
            return Err(ApiError::forbidden(format!("Image {id} is protected and cannot be deleted.")));
        }
        match self.store.delete_image(image.id).await {
            Ok(()) => {}
            Err(StoreError::NotFound { .. }) => return Err(not_found(id)),
            Err(error) => return Err(error.into()),
        }
        self.discard(image.id).await;
        Ok(())
    }
}

enum Piece {
    Data(Bytes),
    End,
}

/// `None`: the body did not come to its end.
fn write_all(
    mut incoming: Incoming,
    mut queue: mpsc::Receiver<Piece>,
    format: &str,
    largest: u64,
) -> Result<Option<Stored>, DataError> {
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Data(piece) => incoming.write(&piece)?,
            Piece::End => return incoming.finish(format, largest).map(Some),
        }
    }
    Ok(None)
}

fn refusal(error: DataError) -> ApiError {
    match error {
        DataError::TooLong { .. } => ApiError::TooLarge,
        DataError::Inspect(error) => ApiError::bad_request(error.to_string()),
        DataError::Io(error) => disk_failed(&error),
    }
}

/// A full or broken disk is the operator's to know; the client may come back.
pub(super) fn disk_failed(error: &io::Error) -> ApiError {
    tracing::error!(error = error as &dyn std::error::Error, "an image's data cannot be read or written");
    ApiError::Unavailable { retry_after: 30 }
}

fn broken_off() -> ApiError {
    ApiError::bad_request("The upload broke off before its end.")
}

/// Runs what may block on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
}

impl std::fmt::Debug for ImageManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageManager").field("options", &self.options).finish_non_exhaustive()
    }
}
