//! The bytes of images, as files that only this service can read.
//!
//! Data goes to `<id>.part`, which is locked while it is written, is inspected there, and only then gets its name. What a
//! crash leaves is a `.part` that nobody locks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use md5::Md5;
use nova_core::disk_format::{self, InspectError, Inspected};
use nova_core::ids::ImageId;
use sha2::{Digest, Sha512};

/// Bytes that a reader gets at once.
pub(super) const CHUNK: usize = 256 * 1024;

/// The folder of all data. Everything here may block.
#[derive(Debug, Clone)]
pub(super) struct DataFolder {
    path: PathBuf,
}

/// What is known of data once it is stored. As long as this lives, the data counts as being written.
#[derive(Debug)]
pub(super) struct Stored {
    _lock: File,
    pub size: u64,
    pub virtual_size: u64,
    pub md5: String,
    pub sha512: String,
}

/// Why data was not stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataError {
    #[error("The image exceeds the limit of {limit} bytes.")]
    TooLong { limit: u64 },
    #[error(transparent)]
    Inspect(InspectError),
    #[error("the image's data cannot be written")]
    Io(#[source] io::Error),
}

impl From<io::Error> for DataError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl DataFolder {
    /// Makes the folder, which only this user may enter.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        Ok(Self { path: path.to_owned() })
    }

    /// An id has no separators, so that this stays within the folder.
    fn file(&self, id: ImageId) -> PathBuf {
        self.path.join(id.to_string())
    }

    fn part(&self, id: ImageId) -> PathBuf {
        self.path.join(format!("{id}.part"))
    }

    /// Begins to take data, at most `limit` bytes.
    pub(super) fn begin(&self, id: ImageId, limit: u64) -> io::Result<Incoming> {
        let path = self.part(id);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // Whoever holds the lock is writing; what is there otherwise is left over. The name must still mean this file: the
        // one before may have finished and given it another.
        file.try_lock().map_err(io::Error::from)?;
        if fs::metadata(&path).map(|named| named.ino()).ok() != Some(file.metadata()?.ino()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        file.set_len(0)?;
        let folder = self.clone();
        Ok(Incoming { folder, id, path, file, limit, size: 0, md5: Md5::new(), sha512: Sha512::new(), kept: false })
    }

    /// Opens stored data.
    pub(super) fn read(&self, id: ImageId) -> io::Result<File> {
        File::open(self.file(id))
    }

    /// Removes stored data; there may be none.
    pub(super) fn remove(&self, id: ImageId) -> io::Result<()> {
        match fs::remove_file(self.file(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Images whose data is here.
    pub(super) fn stored(&self) -> io::Result<Vec<ImageId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<ImageId>().ok()));
        }
        Ok(found)
    }

    /// Is somebody writing the data of that image now, this process or another?
    pub(super) fn is_being_written(&self, id: ImageId) -> bool {
        let locked = |path| File::open(path).is_ok_and(|file| file.try_lock().is_err());
        locked(self.part(id)) || locked(self.file(id))
    }

    /// Removes what a crash left: parts that nobody writes, and data of images that `wanted` does not know.
    pub(super) fn clean(&self, wanted: impl Fn(ImageId) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let left_over = match (name.strip_suffix(".part"), name.parse::<ImageId>()) {
                (Some(id), _) => id.parse().is_ok_and(|id| !self.is_being_written(id)),
                (None, Ok(id)) => !wanted(id) && !self.is_being_written(id),
                // Not ours.
                (None, Err(_)) => false,
            };
            if left_over {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes names in the folder durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Data on its way in. Dropped before [`Incoming::finish`], it leaves nothing.
pub(super) struct Incoming {
    folder: DataFolder,
    id: ImageId,
    path: PathBuf,
    file: File,
    limit: u64,
    size: u64,
    md5: Md5,
    sha512: Sha512,
    kept: bool,
}

impl Incoming {
    /// Takes the next piece.
    pub(super) fn write(&mut self, piece: &Bytes) -> Result<(), DataError> {
        self.size = self.size.saturating_add(piece.len() as u64);
        if self.size > self.limit {
            return Err(DataError::TooLong { limit: self.limit });
        }
        self.md5.update(piece);
        self.sha512.update(piece);
        self.file.write_all(piece).map_err(DataError::Io)
    }

    /// Inspects the data as stored, makes it durable and gives it its name.
    pub(super) fn finish(mut self, disk_format: &str, max_virtual_size: u64) -> Result<Stored, DataError> {
        let found: Inspected = match disk_format::inspect(&self.file, disk_format, max_virtual_size) {
            Ok(found) => found,
            Err(InspectError::Io(error)) => return Err(DataError::Io(error)),
            Err(error) => return Err(DataError::Inspect(error)),
        };
        self.file.sync_all()?;
        let lock = self.file.try_clone()?;
        fs::rename(&self.path, self.folder.file(self.id))?;
        self.kept = true;
        self.folder.sync()?;
        Ok(Stored {
            // The lock belongs to the open file, of which this is another handle.
            _lock: lock,
            size: self.size,
            virtual_size: found.virtual_size,
            md5: hex(&std::mem::take(&mut self.md5).finalize()),
            sha512: hex(&std::mem::take(&mut self.sha512).finalize()),
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, image = %self.id, "an upload's remains stay until the next start");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;

    use super::*;

    fn folder() -> (tempfile::TempDir, DataFolder) {
        let place = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&place.path().join("state/images")).unwrap();
        (place, folder)
    }

    fn files(folder: &DataFolder) -> Vec<String> {
        fs::read_dir(&folder.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn stored_data_is_hashed_and_private() {
        let (_place, folder) = folder();
        let id = ImageId::generate(&SeededEntropy::new(1));
        let mut incoming = folder.begin(id, 100).unwrap();
        incoming.write(&Bytes::from_static(b"ab")).unwrap();
        incoming.write(&Bytes::from_static(b"c")).unwrap();
        assert!(folder.is_being_written(id));
        let stored = incoming.finish("raw", 100).unwrap();
        assert_eq!((stored.size, stored.virtual_size), (3, 3));
        assert!(folder.is_being_written(id), "until it is recorded");
        assert_eq!(stored.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert!(stored.sha512.starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(files(&folder), [id.to_string()]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.path), mode(&folder.file(id))), (0o700, 0o600));
        folder.remove(id).unwrap();
        folder.remove(id).unwrap();
        assert!(files(&folder).is_empty());
    }

    #[test]
    fn what_is_refused_leaves_nothing() {
        let (_place, folder) = folder();
        let id = ImageId::generate(&SeededEntropy::new(1));
        let mut incoming = folder.begin(id, 4).unwrap();
        assert!(matches!(incoming.write(&Bytes::from_static(b"12345")), Err(DataError::TooLong { limit: 4 })));
        drop(incoming);
        assert!(files(&folder).is_empty());
        let mut incoming = folder.begin(id, 100).unwrap();
        incoming.write(&Bytes::from_static(b"QFI\xfb\0\0\0\x03")).unwrap();
        assert!(matches!(incoming.finish("raw", 100), Err(DataError::Inspect(InspectError::Mismatch { .. }))));
        assert!(files(&folder).is_empty());
    }

    #[test]
    fn remains_of_a_crash_go_and_what_is_in_use_stays() {
        let (_place, folder) = folder();
        let entropy = SeededEntropy::new(1);
        let [crashed, writing, wanted, orphan] = [(); 4].map(|()| ImageId::generate(&entropy));
        fs::write(folder.part(crashed), "x").unwrap();
        fs::write(folder.file(wanted), "x").unwrap();
        fs::write(folder.file(orphan), "x").unwrap();
        fs::write(folder.path.join("README"), "an operator's").unwrap();
        let incoming = folder.begin(writing, 10).unwrap();
        assert_eq!(folder.clean(|id| id == wanted).unwrap(), 2);
        let mut left = files(&folder);
        left.sort();
        let mut expected = [format!("{writing}.part"), wanted.to_string(), "README".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
        drop(incoming);
    }
}
