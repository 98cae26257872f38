//! Base images of this host's guests: fetched once, checked against the checksum that the order carries, inspected, shared
//! by all guests made of them, and removed when none has been for long (nova/virt/imagecache.py).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nova_core::contracts::{ImageService, ImageServiceError};
use nova_core::disk_format::{self, Format, InspectError};
use nova_core::image::{ImageGrant, ImageMeta};
use nova_virt::{DiskFormat, Hypervisor, HypervisorError};
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
    /// Its data is not an image of its format, or names other files.
    #[error("image {id} is unacceptable")]
    Unacceptable {
        /// The image.
        id: String,
        /// What was found.
        #[source]
        source: InspectError,
    },
    /// It could not be made a raw one.
    #[error("image {id} could not be converted")]
    Convert {
        /// The image.
        id: String,
        /// What happened.
        #[source]
        source: HypervisorError,
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
    /// What makes raw images of others, if they shall be raw.
    converter: Option<Arc<dyn Hypervisor>>,
    fetching: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Files that were asked for since they were last seen in use.
    asked: Mutex<BTreeSet<PathBuf>>,
    unused: Mutex<Unused>,
}

/// Since when files are known to be of no use.
pub(crate) type Unused = BTreeMap<PathBuf, Timestamp>;

/// Which of the files to remove, given those that are in use; remembers since when the others are not. A file counts as
/// unused from the first look on that finds it so: whoever is building from it now has until it is old.
pub(crate) fn outdated(
    unused: &mut Unused,
    files: &BTreeSet<PathBuf>,
    in_use: &BTreeSet<PathBuf>,
    now: Timestamp,
    age: Duration,
) -> Vec<PathBuf> {
    unused.retain(|file, _| files.contains(file) && !in_use.contains(file));
    for file in files.difference(in_use) {
        unused.entry(file.clone()).or_insert(now);
    }
    let old = |since: Timestamp| Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed >= age);
    unused.iter().filter(|(_, since)| old(**since)).map(|(file, _)| file.clone()).collect()
}

impl ImageCache {
    /// A cache in that folder, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>, service: Arc<dyn ImageService>) -> Self {
        Self {
            folder: folder.into(),
            service,
            converter: None,
            fetching: Mutex::default(),
            asked: Mutex::default(),
            unused: Mutex::default(),
        }
    }

    /// Every image becomes a raw one, by this driver (`force_raw_images`).
    #[must_use]
    pub fn raw_by(mut self, converter: Arc<dyn Hypervisor>) -> Self {
        self.converter = Some(converter);
        self
    }

    /// Where images come from and go.
    pub(crate) fn service(&self) -> &dyn ImageService {
        &*self.service
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
        let name = file_name(image, self.converter.is_some());
        let path = self.folder.join(&name);
        lock(&self.asked).insert(path.clone());
        let turn = self.turn(&name);
        let held = turn.lock().await;
        let there = match tokio::fs::try_exists(&path).await {
            Ok(true) => Ok(true),
            Ok(false) => self.fetch(image, grant, &path).await.map(|()| false),
            Err(error) => Err(disk(&path, error)),
        };
        drop(held);
        let mut fetching = lock(&self.fetching);
        // The map and this call. While others wait for the same turn it must stay the only one: a second would let two
        // fetches write the same file.
        if Arc::strong_count(&turn) == 2 {
            fetching.remove(&name);
        }
        there.map(|existed| (path, existed))
    }

    /// Removes what has been of no use for that long: no disk stands on it, and nobody asked for it since the last look.
    /// Returns what went.
    pub async fn remove_unused(
        &self,
        in_use: &BTreeSet<PathBuf>,
        now: Timestamp,
        age: Duration,
    ) -> Result<Vec<PathBuf>, ImageCacheError> {
        let files = self.files().await?;
        let mut used = in_use.clone();
        used.extend(std::mem::take(&mut *lock(&self.asked)));
        let outdated = outdated(&mut lock(&self.unused), &files, &used, now, age);
        let mut removed = Vec::new();
        for path in outdated {
            // Whoever asks for it meanwhile waits for this turn, or has had it.
            let turn = path.file_name().and_then(|name| name.to_str()).map(|name| self.turn(name));
            let held = match &turn {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            if !lock(&self.asked).contains(&path) {
                tokio::fs::remove_file(&path).await.map_err(|error| disk(&path, error))?;
                lock(&self.unused).remove(&path);
                removed.push(path);
            }
            drop(held);
        }
        Ok(removed)
    }

    /// Finished files.
    async fn files(&self) -> Result<BTreeSet<PathBuf>, ImageCacheError> {
        let failed = |error| disk(&self.folder, error);
        let mut files = BTreeSet::new();
        let mut entries = match tokio::fs::read_dir(&self.folder).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(failed(error)),
        };
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            let path = entry.path();
            let finished = path.extension().is_some_and(|kind| kind == "raw" || kind == "qcow2");
            files.extend(finished.then_some(path));
        }
        Ok(files)
    }

    fn turn(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.fetching).entry(name.to_owned()).or_default().clone()
    }

    async fn fetch(&self, image: &ImageMeta, grant: Option<&ImageGrant>, path: &Path) -> Result<(), ImageCacheError> {
        let part = path.with_extension("part");
        self.make_folder().await.map_err(|e| disk(&self.folder, e))?;
        let fetched = self.fetch_to(image, grant, &part).await;
        if fetched.is_err() {
            // Whatever is there is not the image; a failure to remove it is met again by the next fetch.
            let _ = tokio::fs::remove_file(&part).await;
        }
        fetched?;
        match &self.converter {
            Some(converter) if image.disk_format == "qcow2" => {
                let whole = path.with_extension("whole");
                let converted = convert(&**converter, image, &part, &whole).await;
                let _ = tokio::fs::remove_file(&part).await;
                if converted.is_err() {
                    let _ = tokio::fs::remove_file(&whole).await;
                }
                converted?;
                tokio::fs::rename(&whole, path).await.map_err(|e| disk(path, e))
            }
            _ => tokio::fs::rename(&part, path).await.map_err(|e| disk(path, e)),
        }
    }

    /// Images may be private: nobody else on this host lists or replaces them (OSSA-2014-001). Whoever runs guests reads
    /// those whose names it knows.
    async fn make_folder(&self) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        tokio::fs::create_dir_all(&self.folder).await?;
        tokio::fs::set_permissions(&self.folder, std::fs::Permissions::from_mode(0o711)).await
    }

    async fn fetch_to(
        &self,
        image: &ImageMeta,
        grant: Option<&ImageGrant>,
        part: &Path,
    ) -> Result<(), ImageCacheError> {
        let mut data = self.service.download(image.id, grant).await.map_err(ImageCacheError::Fetch)?;
        // Read again when it is inspected.
        let mut options = tokio::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let mut file = options.open(part).await.map_err(|e| disk(part, e))?;
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
        if digest != image.sha512 {
            return Err(damaged(image, "checksum"));
        }
        inspect(image, part, file.into_std().await).await
    }
}

/// Writes the image as raw bytes: no more than were recorded for its disk at upload.
async fn convert(converter: &dyn Hypervisor, image: &ImageMeta, from: &Path, to: &Path) -> Result<(), ImageCacheError> {
    // Left by one that was broken off.
    match tokio::fs::remove_file(to).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(disk(to, error)),
        _ => {}
    }
    let most = if image.virtual_size > 0 { image.virtual_size } else { u64::MAX };
    let converted = converter.convert_image(from, DiskFormat::Qcow2, to, most).await;
    converted.map_err(|source| ImageCacheError::Convert { id: image.id.to_string(), source })
}

/// What was uploaded was inspected then; by whom, this host can't know. Reads the header through the descriptor that wrote it.
async fn inspect(image: &ImageMeta, part: &Path, file: std::fs::File) -> Result<(), ImageCacheError> {
    let declared = image.disk_format.clone();
    let looked = tokio::task::spawn_blocking(move || disk_format::inspect(&file, &declared, u64::MAX)).await;
    match looked {
        Ok(Ok(found)) if image.virtual_size > 0 && found.virtual_size > image.virtual_size => {
            Err(damaged(image, "virtual size"))
        }
        Ok(Ok(found)) => match found.format {
            Format::Raw | Format::Partitioned | Format::Iso | Format::Qcow2 => Ok(()),
            other => {
                let reason = "guests run from raw, qcow2 and iso images".to_owned();
                let source = InspectError::Unsafe { format: other.as_str(), reason };
                Err(ImageCacheError::Unacceptable { id: image.id.to_string(), source })
            }
        },
        Ok(Err(InspectError::Io(error))) => Err(disk(part, error)),
        Ok(Err(source)) => Err(ImageCacheError::Unacceptable { id: image.id.to_string(), source }),
        Err(error) => Err(disk(part, std::io::Error::other(error))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The format of a file of a cache: its name says it.
pub(crate) fn format_of(path: &Path) -> DiskFormat {
    if path.extension().is_some_and(|kind| kind == "qcow2") { DiskFormat::Qcow2 } else { DiskFormat::Raw }
}

/// The name says what is in it: the same image under two ids is one file.
fn file_name(image: &ImageMeta, raw: bool) -> String {
    let checksum: String = image.sha512.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    format!("{checksum}.{}", if image.disk_format == "qcow2" && !raw { "qcow2" } else { "raw" })
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
    use nova_core::disk_format::samples;
    use nova_core::ids::ImageId;
    use nova_virt::testing::guest_spec;
    use nova_virt::{ErrorKind, FakeHypervisor, FakeOptions, Operation, Quiesce, SnapshotRequest};

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
        let image = image("raw", &[7; 100]);
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

    fn set(names: &[&str]) -> BTreeSet<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_unused_for_long_is_outdated() {
        let (mut unused, age) = (Unused::new(), Duration::from_secs(100));
        let files = set(&["a", "b"]);
        assert!(outdated(&mut unused, &files, &set(&["a"]), at(0), age).is_empty(), "b is unused from now on");
        assert!(outdated(&mut unused, &files, &set(&["a"]), at(99), age).is_empty());
        assert!(outdated(&mut unused, &files, &set(&["b"]), at(150), age).is_empty(), "b is used again, a no longer");
        assert!(outdated(&mut unused, &files, &set(&[]), at(200), age).is_empty(), "b begins anew");
        assert_eq!(outdated(&mut unused, &files, &set(&[]), at(250), age), [PathBuf::from("a")]);
        assert_eq!(outdated(&mut unused, &set(&["b"]), &set(&[]), at(300), age), [PathBuf::from("b")]);
        assert_eq!(unused.len(), 1, "what is gone is forgotten");
    }

    #[tokio::test]
    async fn unused_images_go_and_those_in_use_or_just_asked_for_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ImageCache::new(folder.path(), Arc::new(Service::default()));
        for name in ["used.raw", "unused.qcow2", "asked.raw", "half.part"] {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        let (in_use, age) = (BTreeSet::from([path("used.raw")]), Duration::from_secs(100));
        assert!(cache.remove_unused(&in_use, at(0), age).await.unwrap().is_empty());
        lock(&cache.asked).insert(path("asked.raw"));
        assert_eq!(cache.remove_unused(&in_use, at(100), age).await.unwrap(), [path("unused.qcow2")]);
        for (name, there) in [("used.raw", true), ("unused.qcow2", false), ("asked.raw", true), ("half.part", true)] {
            assert_eq!(path(name).exists(), there, "{name}");
        }
    }

    /// Sends these bytes.
    struct Bytes(Vec<u8>);

    #[async_trait]
    impl ImageService for Bytes {
        async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
            Err(ImageServiceError::NotFound { id: id.to_string() })
        }

        async fn download(&self, _: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
            Ok(Box::new(Once(Some(self.0.clone()))))
        }
    }

    struct Once(Option<Vec<u8>>);

    #[async_trait]
    impl ImageData for Once {
        async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
            Ok(self.0.take())
        }
    }

    /// On: what guests stand on is raw, whatever the image is. Off: it is the image as it was uploaded.
    #[tokio::test]
    async fn images_are_raw_if_they_shall_be() {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeHypervisor::new(FakeOptions { needs_images: true, ..FakeOptions::new("host") });
        let guest = guest_spec(7);
        fake.spawn(&guest).await.unwrap();
        let copy = async |format: DiskFormat| {
            let destination = folder.path().join(format.as_str());
            let request = SnapshotRequest { destination, format, quiesce: Quiesce::default() };
            fake.snapshot(guest.instance, &request).await.unwrap();
            std::fs::read(&request.destination).unwrap()
        };
        let (qcow2, raw) = (copy(DiskFormat::Qcow2).await, copy(DiskFormat::Raw).await);
        let image = ImageMeta { virtual_size: raw.len() as u64, ..image("qcow2", &qcow2) };
        let converter: Arc<dyn Hypervisor> = Arc::new(fake);
        let cache = |name: &str| ImageCache::new(folder.path().join(name), Arc::new(Bytes(qcow2.clone())));
        let as_it_is = cache("off").get(&image, None).await.unwrap();
        assert_eq!((format_of(&as_it_is), std::fs::read(as_it_is).unwrap()), (DiskFormat::Qcow2, qcow2.clone()));
        let made = cache("on").raw_by(converter.clone()).get(&image, None).await.unwrap();
        assert_eq!((format_of(&made), std::fs::read(&made).unwrap()), (DiskFormat::Raw, raw.clone()));
        assert_eq!(std::fs::read_dir(made.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
        // A driver that fails leaves nothing, either.
        let broken = FakeHypervisor::new(FakeOptions { needs_images: true, ..FakeOptions::new("host") });
        broken.fail_next(Operation::ConvertImage, 1, ErrorKind::Failed);
        let refused = cache("broken").raw_by(Arc::new(broken)).get(&image, None).await.unwrap_err();
        assert!(matches!(refused, ImageCacheError::Convert { .. }), "{refused:?}");
        assert_eq!(std::fs::read_dir(folder.path().join("broken")).unwrap().count(), 0);
        // Nor does an image that makes more than was recorded for it.
        let (from, to) = (folder.path().join("qcow2"), folder.path().join("x"));
        let larger = converter.convert_image(&from, DiskFormat::Qcow2, &to, 9);
        assert_eq!(larger.await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    /// OSSA-2024-002 (row 3): whatever the image service says that it is. What is refused is not kept.
    #[tokio::test]
    async fn data_that_is_not_what_it_is_called_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let get = async |image: ImageMeta, bytes: &[u8]| {
            ImageCache::new(folder.path(), Arc::new(Bytes(bytes.to_vec()))).get(&image, None).await
        };
        let backed = samples::qcow2_with(8, &512u64.to_be_bytes());
        for (called, bytes) in [
            ("raw", samples::qcow2()),
            ("raw", backed.clone()),
            ("qcow2", backed),
            ("qcow2", samples::raw()),
            ("raw", samples::good_vmdk()),
            ("vmdk", samples::good_vmdk()),
        ] {
            let refused = get(ImageMeta { virtual_size: 0, ..image(called, &bytes) }, &bytes).await.unwrap_err();
            assert!(matches!(refused, ImageCacheError::Unacceptable { .. }), "{called}: {refused:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{called}");
        }
        let bytes = vec![7; 4096];
        let larger = get(ImageMeta { virtual_size: 100, ..image("raw", &bytes) }, &bytes).await.unwrap_err();
        assert!(matches!(larger, ImageCacheError::Damaged { what: "virtual size", .. }), "{larger:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        get(image("raw", &bytes), &bytes).await.unwrap();
    }

    fn image(disk_format: &str, data: &[u8]) -> ImageMeta {
        ImageMeta {
            id: "70a599e0-31e7-49b7-b260-868f441e862b".parse().unwrap(),
            name: None,
            disk_format: disk_format.into(),
            size: data.len() as u64,
            sha512: Sha512::digest(data).iter().map(|b| format!("{b:02x}")).collect(),
            min_ram: 0,
            min_disk: 0,
            virtual_size: data.len() as u64,
            properties: BTreeMap::new(),
        }
    }
}
