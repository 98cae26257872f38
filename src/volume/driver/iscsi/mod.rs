//! Volumes in files, which hosts reach over iSCSI: `tgtd`, a target of its own for each attachment, with a name and password of
//! its own (CHAP, RFC 3720). Guests' hypervisors speak iSCSI themselves.
//!
//! Cinder's counterpart is `cinder/volume/targets/tgt.py`.

mod tgt;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use nova_core::entropy::Entropy;
use nova_core::ids::{VolumeAttachmentId, VolumeId};
use nova_core::volume::connection::{
    AccessMode, ChapMethod, ChapSecret, ConnectionInfo, ConnectionTarget, Connector, IscsiTarget,
};
use sha2::Sha256;
use tokio::task::AbortHandle;

use self::tgt::{Served, Targets};
use super::pool::{FilePool, Granted, LiveCopier, PoolOptions, Pooled, files};
use super::tools::blocking;
use super::{AttachmentOf, DriverCapabilities, VolumeDriverError};

type Result<T> = std::result::Result<T, VolumeDriverError>;

/// What the driver is told.
#[derive(Debug, Clone, PartialEq)]
pub struct IscsiOptions {
    /// Where volumes are.
    pub pool: PoolOptions,
    /// How hosts are let in.
    pub portal: PortalOptions,
}

/// How hosts reach volumes over iSCSI.
#[derive(Debug, Clone, PartialEq)]
pub struct PortalOptions {
    /// The daemon's socket and pid file, and the key of which passwords are made.
    pub run_folder: PathBuf,
    /// The address on which the daemon listens.
    pub listen: String,
    /// The address by which hosts reach it.
    pub advertise: String,
    /// The port.
    pub port: u16,
    /// What the names of targets begin with, `iqn.2010-10.org.openstack`.
    pub prefix: String,
    /// How long the daemon has for one command.
    pub command_limit: Duration,
}

/// Passwords of attachments: made of a key that only this service has, so that they are the same each time.
#[derive(Clone)]
pub(super) struct Passwords(Vec<u8>);

impl Passwords {
    /// Reads the key, or makes it.
    pub(super) async fn open(path: PathBuf, entropy: &dyn Entropy) -> Result<Self> {
        const DURING: &str = "reading the key of passwords";
        let mut fresh = vec![0; 32];
        entropy.fill(&mut fresh);
        let key = blocking(DURING, move || match std::fs::read(&path) {
            Ok(key) if key.len() == 32 => Ok(key),
            Ok(_) => Err(std::io::Error::other("the key is damaged")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let new = files::unfinished(&path);
                let file = files::begin(&new)?;
                std::io::Write::write_all(&mut &file, &fresh)?;
                files::finish(&file, &new, &path)?;
                Ok(fresh)
            }
            Err(error) => Err(error),
        });
        Ok(Self(key.await?))
    }

    /// Name and password of an attachment.
    pub(super) fn of(&self, attachment: VolumeAttachmentId) -> Result<ChapSecret> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .map_err(|error| VolumeDriverError::failed("making a password", error))?;
        mac.update(attachment.to_string().as_bytes());
        let password = mac.finalize().into_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let auth_username = attachment.as_uuid().simple().to_string();
        Ok(ChapSecret { auth_method: ChapMethod::Chap, auth_username, auth_password: password })
    }
}

/// Makes targets of files or devices, and says how they are reached. What iSCSI drivers have in common.
pub(super) struct Exporter {
    options: PortalOptions,
    targets: Arc<Targets>,
    passwords: Passwords,
    keeper: AbortHandle,
}

impl Exporter {
    pub(super) async fn open(options: &PortalOptions, entropy: &dyn Entropy) -> Result<Self> {
        let folder = options.run_folder.clone();
        blocking("making the folder of the iSCSI daemon", move || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        })
        .await?;
        let passwords = Passwords::open(options.run_folder.join("key"), entropy).await?;
        let targets = Arc::new(Targets::new(options)?);
        let keeper = tokio::spawn(targets.clone().keep()).abort_handle();
        Ok(Self { options: options.clone(), targets, passwords, keeper })
    }

    pub(super) async fn admit(
        &self,
        volume: VolumeId,
        path: &Path,
        attachment: &AttachmentOf,
    ) -> Result<ConnectionInfo> {
        let auth = self.passwords.of(attachment.id)?;
        self.targets.open(self.served(volume, path, attachment.id, attachment.access)?).await?;
        let portal = match self.options.advertise.contains(':') {
            true => format!("[{}]:{}", self.options.advertise, self.options.port),
            false => format!("{}:{}", self.options.advertise, self.options.port),
        };
        let target = IscsiTarget {
            target_portal: portal,
            target_iqn: iqn(&self.options.prefix, attachment.id),
            target_lun: tgt::LUN,
            auth: Some(auth),
        };
        let target = ConnectionTarget::Iscsi(target);
        Ok(ConnectionInfo { volume_id: volume, access_mode: attachment.access, target })
    }

    /// Serves what should be served, and nothing else. What can't be now is tried again by the keeper.
    pub(super) async fn serve_again(
        &self,
        all: Vec<(VolumeId, PathBuf, VolumeAttachmentId, AccessMode)>,
    ) -> Result<()> {
        for (volume, path, attachment, access) in all {
            self.targets.expect(self.served(volume, &path, attachment, access)?).await;
        }
        if let Err(error) = self.targets.settle().await {
            tracing::error!(error = %error, "volumes can't be served over iSCSI now");
        }
        Ok(())
    }

    fn served(
        &self,
        volume: VolumeId,
        path: &Path,
        attachment: VolumeAttachmentId,
        access: AccessMode,
    ) -> Result<Served> {
        Ok(Served {
            iqn: iqn(&self.options.prefix, attachment),
            path: path.to_owned(),
            serial: volume.as_uuid().simple().to_string(),
            read_only: access == AccessMode::ReadOnly,
            auth: self.passwords.of(attachment)?,
        })
    }

    pub(super) async fn expel(&self, attachment: VolumeAttachmentId) -> Result<()> {
        self.targets.close(&iqn(&self.options.prefix, attachment)).await
    }

    pub(super) async fn answers(&self) -> Result<()> {
        self.targets.ping().await
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // No two processes may look after one daemon.
        self.keeper.abort();
    }
}

fn iqn(prefix: &str, attachment: VolumeAttachmentId) -> String {
    format!("{prefix}:attachment-{attachment}")
}

/// Files over iSCSI.
pub struct IscsiVolumes {
    pool: FilePool,
    exporter: Exporter,
}

impl fmt::Debug for IscsiVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IscsiVolumes").finish_non_exhaustive()
    }
}

impl IscsiVolumes {
    /// Opens the pool, and serves again what was served before.
    pub async fn open(options: IscsiOptions, entropy: &dyn Entropy) -> Result<Self> {
        let pool = FilePool::open(options.pool.clone()).await?;
        let exporter = Exporter::open(&options.portal, entropy).await?;
        let mut again = Vec::new();
        for (volume, entry) in &pool.table().volumes {
            for (attachment, granted) in &entry.connections {
                again.push((*volume, pool.path(*volume), *attachment, granted.access));
            }
        }
        exporter.serve_again(again).await?;
        Ok(Self { pool, exporter })
    }
}

impl LiveCopier for IscsiVolumes {}

#[async_trait]
impl Pooled for IscsiVolumes {
    fn pool(&self) -> &FilePool {
        &self.pool
    }

    fn describe(&self) -> DriverCapabilities {
        DriverCapabilities {
            driver: "iscsi",
            storage_protocol: "iSCSI",
            vendor: "Open Source",
            // A daemon that has a file open goes on with the size that it had.
            online_extend: false,
            multiattach: true,
            live_snapshot: false,
            live_copy: false,
            thin: true,
            cuts_off: true,
        }
    }

    async fn admit(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        _connector: &Connector,
    ) -> Result<ConnectionInfo> {
        self.exporter.admit(volume, &self.pool.path(volume), attachment).await
    }

    async fn expel(&self, _volume: VolumeId, attachment: VolumeAttachmentId, _granted: &Granted) -> Result<()> {
        self.exporter.expel(attachment).await
    }

    async fn answers(&self) -> Result<()> {
        self.exporter.answers().await
    }
}

#[cfg(test)]
pub(super) mod tests;
