//! Base images of this host's guests: fetched once, checked against the checksum that the order carries, shared by
//! all guests made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nova_core::contracts::{ImageService, ImageServiceError};
use nova_core::image::ImageMeta;
use sha2::{Digest, Sha512};
use tokio::io::AsyncWriteExt;

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageCacheError {
    /// The image service.
    #[error("the image could not be fetched")]
    Fetch(#[source] ImageServiceError),
    /// What came is not what was recorded at upload.
    #[error("image {id}: the data differs from its recorded {what}")]
    Damaged {
        /// The image.
        id: String,
        /// `size` or `checksum`.
        what: &'static str,
    },
    /// The disk of this host.
    #[error("the image cache at {path} cannot be written")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
}

/// A folder of verified base images, named by checksum.
pub struct ImageCache {
    folder: PathBuf,
    service: Arc<dyn ImageService>,
    fetching: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl ImageCache {
    /// A cache in that folder, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>, service: Arc<dyn ImageService>) -> Self {
        Self { folder: folder.into(), service, fetching: Mutex::default() }
    }

    /// The path of the verified image; fetches it if it is not there. One fetch serves all who wait for it.
    pub async fn get(&self, image: &ImageMeta) -> Result<PathBuf, ImageCacheError> {
        let name = file_name(image);
        let path = self.folder.join(&name);
        let turn = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            fetching.entry(name.clone()).or_default().clone()
        };
        let _turn = turn.lock().await;
        let there = match tokio::fs::try_exists(&path).await {
            Ok(true) => Ok(()),
            Ok(false) => self.fetch(image, &path).await,
            Err(error) => Err(disk(&path, error)),
        };
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        there.map(|()| path)
    }

    async fn fetch(&self, image: &ImageMeta, path: &Path) -> Result<(), ImageCacheError> {
        let part = path.with_extension("part");
        tokio::fs::create_dir_all(&self.folder).await.map_err(|e| disk(&self.folder, e))?;
        let fetched = self.fetch_to(image, &part).await;
        if fetched.is_err() {
            // Whatever is there is not the image; a failure to remove it is met again by the next fetch.
            let _ = tokio::fs::remove_file(&part).await;
        }
        fetched?;
        tokio::fs::rename(&part, path).await.map_err(|e| disk(path, e))
    }

    async fn fetch_to(&self, image: &ImageMeta, part: &Path) -> Result<(), ImageCacheError> {
        let mut data = self.service.download(image.id).await.map_err(ImageCacheError::Fetch)?;
        let mut file = tokio::fs::File::create(part).await.map_err(|e| disk(part, e))?;
        let (mut hash, mut size) = (Sha512::new(), 0u64);
        while let Some(chunk) = data.next_chunk().await.map_err(ImageCacheError::Fetch)? {
            size += chunk.len() as u64;
            if size > image.size {
                return Err(damaged(image, "size"));
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(|e| disk(part, e))?;
        }
        file.sync_all().await.map_err(|e| disk(part, e))?;
        if size != image.size {
            return Err(damaged(image, "size"));
        }
        let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if digest == image.sha512 { Ok(()) } else { Err(damaged(image, "checksum")) }
    }
}

/// The name says what is in it: the same image under two ids is one file.
fn file_name(image: &ImageMeta) -> String {
    let checksum: String = image.sha512.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    format!("{checksum}.{}", if image.disk_format == "qcow2" { "qcow2" } else { "raw" })
}

fn damaged(image: &ImageMeta, what: &'static str) -> ImageCacheError {
    ImageCacheError::Damaged { id: image.id.to_string(), what }
}

fn disk(path: &Path, source: std::io::Error) -> ImageCacheError {
    ImageCacheError::Disk { path: path.to_owned(), source }
}
