//! Making an image of a guest's root disk (nova/compute/manager.py, `snapshot_instance`, `backup_instance`): the driver
//! writes a copy, which is brought to the image service by the order's grant and removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_core::contracts::ImageServiceError;
use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::{Order, SnapshotInstance, SnapshotOrder};
use nova_core::rpc::conductor::{ReportUpload, ReportUploadRequest, StepOutcome};
use nova_queue::Dispatcher;
use nova_virt::{DiskFormat, HypervisorError, Operation, Quiesce, SnapshotRequest};

use crate::agent::Agent;
use crate::image_client::FileData;

/// Tries to bring an image to a service that does not answer.
const TRIES: u32 = 6;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
enum SnapshotError {
    /// The driver.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// The disk of this host.
    #[error("the copy at {path} cannot be kept")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The image service.
    #[error("the image could not be brought to the image service")]
    Upload(#[source] ImageServiceError),
    /// The server is being deleted, or another operation took this one's place.
    #[error("a later order came")]
    Overtaken,
}

impl Agent {
    /// Takes these orders, too.
    pub(crate) fn snapshot_orders(&self, dispatcher: Dispatcher) -> Dispatcher {
        self.on_order::<SnapshotInstance, _, _, _>(dispatcher, |agent, order| async move {
            match agent.snapshot(&order).await {
                Ok(()) => agent.done(&order, Vec::new()).await,
                Err(SnapshotError::Hypervisor(
                    error @ HypervisorError::Unsupported { operation: Operation::Quiesce },
                )) => StepOutcome::Failed {
                    message: agent.cannot_quiesce(order.instance_id),
                    details: chain(&error),
                    retryable: true,
                },
                Err(SnapshotError::Hypervisor(error)) => {
                    crate::life::not_done(&error, "No image could be made of the server.", true)
                }
                Err(error) => StepOutcome::Failed {
                    message: "No image could be made of the server.".into(),
                    details: chain(&error),
                    retryable: true,
                },
            }
        })
    }

    /// As Nova says it (nova/exception.py, `QemuGuestAgentNotEnabled`, `InstanceQuiesceNotSupported`).
    pub(crate) fn cannot_quiesce(&self, instance: InstanceId) -> String {
        match self.hypervisor.capabilities().quiesce {
            true => "QEMU guest agent is not enabled".to_owned(),
            false => format!("Quiescing is not supported in instance {instance}"),
        }
    }

    async fn snapshot(&self, order: &Order<SnapshotOrder>) -> Result<(), SnapshotError> {
        // Each copy is large, and as many as there may be at once are being made.
        let _slot = self.snapshots.acquire().await.map_err(|_| SnapshotError::Overtaken)?;
        self.still_due(order)?;
        let folder = self.options.snapshots.clone();
        make_private(&folder).await.map_err(|source| SnapshotError::Disk { path: folder.clone(), source })?;
        let path = folder.join(format!("{}-{}", order.task_id, order.epoch));
        remove(&path).await;
        let made = self.copy_and_bring(order, &path).await;
        remove(&path).await;
        made
    }

    async fn copy_and_bring(&self, order: &Order<SnapshotOrder>, path: &Path) -> Result<(), SnapshotError> {
        let format = if order.body.disk_format == "qcow2" { DiskFormat::Qcow2 } else { DiskFormat::Raw };
        let quiesce = if order.body.quiesce { Quiesce::Required } else { Quiesce::IfPossible };
        let request = SnapshotRequest { destination: path.to_owned(), format, quiesce };
        self.tell_upload(order, false).await;
        self.hypervisor.snapshot(order.instance_id, &request).await?;
        self.tell_upload(order, true).await;
        let mut wait = Duration::from_millis(500);
        for attempt in 1.. {
            self.still_due(order)?;
            match self.bring(order, path).await {
                Err(SnapshotError::Upload(error @ ImageServiceError::Unavailable { .. })) if attempt < TRIES => {
                    tracing::warn!(image = %order.body.image_id, "it is brought once more: {}", chain(&error));
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                brought => return brought,
            }
        }
        Err(SnapshotError::Overtaken)
    }

    /// What users see of it; nothing depends on it.
    async fn tell_upload(&self, order: &Order<SnapshotOrder>, uploading: bool) {
        let (task_id, instance_id, epoch) = (order.task_id, order.instance_id, order.epoch);
        let report = ReportUploadRequest { task_id, instance_id, epoch, uploading };
        if let Err(error) = self.rpc.cast::<ReportUpload>(&self.context(), &report).await {
            tracing::debug!(instance = %instance_id, "how far its image is was not reported: {}", chain(&error));
        }
    }

    async fn bring(&self, order: &Order<SnapshotOrder>, path: &Path) -> Result<(), SnapshotError> {
        let disk = |source| SnapshotError::Disk { path: path.to_owned(), source };
        let file = tokio::fs::File::open(path).await.map_err(disk)?;
        let size = file.metadata().await.map_err(disk)?.len();
        let (id, grant) = (order.body.image_id, Some(&order.body.grant));
        let brought = self.images.service().upload(id, grant, size, Box::new(FileData(file))).await;
        brought.map_err(SnapshotError::Upload)
    }

    fn still_due(&self, order: &Order<SnapshotOrder>) -> Result<(), SnapshotError> {
        let overtaken = self.instances.overtaken(order.instance_id, order.epoch);
        if overtaken { Err(SnapshotError::Overtaken) } else { Ok(()) }
    }

    /// Removes the copies that a crash has left: whoever made them is gone, and makes them anew.
    pub(crate) async fn drop_old_snapshots(&self) {
        let Ok(mut entries) = tokio::fs::read_dir(&self.options.snapshots).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            remove(&entry.path()).await;
        }
    }
}

/// A folder that only this user may enter: what is in it are disks of tenants.
pub(crate) async fn make_private(folder: &Path) -> std::io::Result<()> {
    tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).await
}

async fn remove(path: &Path) {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "a copy of a disk was not removed: {error}");
        }
        _ => {}
    }
}
