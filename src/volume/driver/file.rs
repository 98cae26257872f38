//! Volumes in files that hosts open by themselves: on a file system that they share (Cinder's NFS driver), or on the one host
//! that there is. Guests see them grow while they run.

use std::fmt;

use async_trait::async_trait;
use nova_core::ids::{VolumeAttachmentId, VolumeId};
use nova_core::volume::connection::{ConnectionInfo, ConnectionTarget, Connector, FileFormat, FileTarget};

use super::pool::{FilePool, Granted, LiveCopier, PoolOptions, Pooled};
use super::{AttachmentOf, DriverCapabilities, VolumeDriverError};

type Result<T> = std::result::Result<T, VolumeDriverError>;

/// Files that hosts share.
pub struct FileVolumes {
    pool: FilePool,
}

impl fmt::Debug for FileVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileVolumes").finish_non_exhaustive()
    }
}

impl FileVolumes {
    /// Opens the pool. Hosts must have its folder at the same path.
    pub async fn open(options: PoolOptions) -> Result<Self> {
        if !options.folder.is_absolute() {
            let source = format!("{} is no absolute path", options.folder.display());
            return Err(VolumeDriverError::failed("starting the volume driver", source));
        }
        Ok(Self { pool: FilePool::open(options).await? })
    }
}

/// Writes to a file are nobody's to stop here.
impl LiveCopier for FileVolumes {}

#[async_trait]
impl Pooled for FileVolumes {
    fn pool(&self) -> &FilePool {
        &self.pool
    }

    fn describe(&self) -> DriverCapabilities {
        DriverCapabilities {
            driver: "file",
            storage_protocol: "file",
            vendor: "Open Source",
            online_extend: true,
            multiattach: true,
            live_snapshot: false,
            live_copy: false,
            thin: true,
            cuts_off: false,
        }
    }

    async fn admit(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        _connector: &Connector,
    ) -> Result<ConnectionInfo> {
        let target = FileTarget { path: self.pool.path(volume), format: FileFormat::Raw };
        let (access_mode, target) = (attachment.access, ConnectionTarget::File(target));
        Ok(ConnectionInfo { volume_id: volume, access_mode, target })
    }

    async fn expel(&self, _volume: VolumeId, _attachment: VolumeAttachmentId, _granted: &Granted) -> Result<()> {
        Ok(())
    }

    async fn answers(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    use super::*;
    use crate::volume::driver::VolumeDriver;
    use crate::volume::driver::conformance::VolumeBench;

    struct Bench {
        driver: FileVolumes,
        _temp: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let options = PoolOptions {
                folder: temp.path().join("pool"),
                over_subscription_ratio: 20.0,
                reserved_percentage: 0,
                tool_limit: Duration::from_secs(60),
            };
            Self { driver: FileVolumes::open(options).await.unwrap(), _temp: temp }
        }

        fn path(info: &ConnectionInfo) -> std::path::PathBuf {
            match &info.target {
                ConnectionTarget::File(file) => file.path.clone(),
                other => panic!("no file: {other:?}"),
            }
        }
    }

    #[async_trait]
    impl VolumeBench for Bench {
        fn driver(&self) -> &dyn VolumeDriver {
            &self.driver
        }
        async fn write(
            &self,
            info: &ConnectionInfo,
            _attachment: VolumeAttachmentId,
            offset: u64,
            pattern: u8,
            length: usize,
        ) -> bool {
            let file = OpenOptions::new().write(true).open(Self::path(info)).unwrap();
            file.write_all_at(&vec![pattern; length], offset).is_ok()
        }
        async fn reads(
            &self,
            info: &ConnectionInfo,
            _attachment: VolumeAttachmentId,
            offset: u64,
            pattern: u8,
            length: usize,
        ) -> bool {
            let mut read = vec![!pattern; length];
            let file = OpenOptions::new().read(true).open(Self::path(info)).unwrap();
            file.read_exact_at(&mut read, offset).is_ok() && read.iter().all(|byte| *byte == pattern)
        }
    }

    mod contract {
        use super::*;
        // `qemu-img` is asked for an image of a volume.
        crate::volume_driver_conformance!(Bench::new(), ignore = "needs NOVA_TEST_VOLUMES: qemu-img");
    }

    /// A file that lost some of its bytes, or became a link, is given to nobody.
    #[tokio::test]
    async fn a_damaged_volume_is_given_to_nobody() {
        use crate::volume::driver::VolumeErrorKind;
        use crate::volume::driver::conformance::{host, ids, small, writer};
        let bench = Bench::new().await;
        bench.driver.create(&small(1)).await.unwrap();
        let info = bench.driver.connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
        bench.driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
        let path = Bench::path(&info);
        let set_len = |bytes| OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        set_len(4096);
        let refused = bench.driver.connect_host(ids::volume(1), &writer(1), &host("h1")).await;
        assert_eq!(refused.unwrap_err().kind(), VolumeErrorKind::Failed);
        assert!(bench.driver.inventory().await.unwrap().volumes[&ids::volume(1)].connections.is_empty());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        bench.driver.connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap_err();
        bench.driver.delete(ids::volume(1)).await.unwrap();
        assert!(std::fs::exists("/etc/passwd").unwrap() && !std::fs::exists(&path).unwrap());
    }

    #[tokio::test]
    async fn the_folder_must_mean_the_same_everywhere() {
        let options = PoolOptions {
            folder: "relative".into(),
            over_subscription_ratio: 1.0,
            reserved_percentage: 0,
            tool_limit: Duration::from_secs(1),
        };
        FileVolumes::open(options).await.unwrap_err();
        assert!(!std::path::Path::new("relative").exists());
    }
}
