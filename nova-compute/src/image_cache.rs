//! Base images of this host's guests: fetched once, checked against the checksum that the order carries, shared by
//! all guests made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nova_core::contracts::{ImageService, ImageServiceError};
use nova_core::image::{ImageGrant, ImageMeta};
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

    /// The path of the verified image; fetches it, by this grant, if it is not there. One fetch serves all who wait for it.
    pub async fn get(&self, image: &ImageMeta, grant: Option<&ImageGrant>) -> Result<PathBuf, ImageCacheError> {
        self.fetched(image, grant).await.map(|(path, _)| path)
    }

    /// The same, and whether it was there before.
    pub async fn fetched(
        &self,
        image: &ImageMeta,
        grant: Option<&ImageGrant>,
    ) -> Result<(PathBuf, bool), ImageCacheError> {
        let name = file_name(image);
        let path = self.folder.join(&name);
        let turn = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            fetching.entry(name.clone()).or_default().clone()
        };
        let held = turn.lock().await;
        let there = match tokio::fs::try_exists(&path).await {
            Ok(true) => Ok(true),
            Ok(false) => self.fetch(image, grant, &path).await.map(|()| false),
            Err(error) => Err(disk(&path, error)),
        };
        drop(held);
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        // The map and this call. While others wait for the same turn it must stay the only one: a second would let two
        // fetches write the same file.
        if Arc::strong_count(&turn) == 2 {
            fetching.remove(&name);
        }
        there.map(|existed| (path, existed))
    }

    async fn fetch(&self, image: &ImageMeta, grant: Option<&ImageGrant>, path: &Path) -> Result<(), ImageCacheError> {
        let part = path.with_extension("part");
        tokio::fs::create_dir_all(&self.folder).await.map_err(|e| disk(&self.folder, e))?;
        let fetched = self.fetch_to(image, grant, &part).await;
        if fetched.is_err() {
            // Whatever is there is not the image; a failure to remove it is met again by the next fetch.
            let _ = tokio::fs::remove_file(&part).await;
        }
        fetched?;
        tokio::fs::rename(&part, path).await.map_err(|e| disk(path, e))
    }

    async fn fetch_to(
        &self,
        image: &ImageMeta,
        grant: Option<&ImageGrant>,
        part: &Path,
    ) -> Result<(), ImageCacheError> {
        let mut data = self.service.download(image.id, grant).await.map_err(ImageCacheError::Fetch)?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use nova_core::context::RequestContext;
    use nova_core::contracts::ImageData;
    use nova_core::ids::ImageId;

    use super::*;

    /// Fails the first download, and counts how many it has in hand.
    #[derive(Default)]
    struct Service {
        begun: AtomicUsize,
        now: Arc<AtomicUsize>,
        most: AtomicUsize,
        grants: Mutex<Vec<Option<ImageGrant>>>,
    }

    struct Data {
        left: usize,
        fails: bool,
        now: Arc<AtomicUsize>,
    }

    impl Drop for Data {
        fn drop(&mut self) {
            self.now.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[async_trait]
    impl ImageData for Data {
        async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
            tokio::task::yield_now().await;
            if self.left == 0 && self.fails {
                return Err(ImageServiceError::Unavailable { source: "gone".into() });
            }
            self.left = self.left.saturating_sub(1);
            Ok((self.left > 0).then(|| vec![7]))
        }
    }

    #[async_trait]
    impl ImageService for Service {
        async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
            Err(ImageServiceError::NotFound { id: id.to_string() })
        }

        async fn download(
            &self,
            _: ImageId,
            grant: Option<&ImageGrant>,
        ) -> Result<Box<dyn ImageData>, ImageServiceError> {
            self.grants.lock().unwrap().push(grant.cloned());
            self.most.fetch_max(self.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let fails = self.begun.fetch_add(1, Ordering::Relaxed) == 0;
            Ok(Box::new(Data { left: if fails { 0 } else { 101 }, fails, now: self.now.clone() }))
        }
    }

    /// One that fails while others wait does not let two write the same file.
    #[tokio::test]
    async fn one_fetches_at_a_time_also_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let service = Arc::new(Service::default());
        let cache = ImageCache::new(folder.path().join("cache"), service.clone());
        let image = ImageMeta {
            id: "70a599e0-31e7-49b7-b260-868f441e862b".parse().unwrap(),
            name: None,
            disk_format: "raw".into(),
            size: 100,
            sha512: Sha512::digest([7; 100]).iter().map(|b| format!("{b:02x}")).collect(),
            min_ram: 0,
            min_disk: 0,
            virtual_size: 100,
            properties: BTreeMap::new(),
        };
        let grant = ImageGrant::new("1.a");
        let first = async {
            assert!(matches!(cache.get(&image, Some(&grant)).await, Err(ImageCacheError::Fetch(_))));
            cache.get(&image, Some(&grant)).await
        };
        let (first, second) = tokio::join!(first, cache.get(&image, Some(&grant)));
        assert_eq!(std::fs::read(first.unwrap()).unwrap(), [7; 100]);
        second.unwrap();
        assert_eq!((service.begun.load(Ordering::Relaxed), service.most.load(Ordering::Relaxed)), (2, 1));
        assert!(service.grants.lock().unwrap().iter().all(|shown| *shown == Some(grant.clone())));
        assert!(cache.fetching.lock().unwrap().is_empty());
    }
}
