//! Real guests, through libvirt and QEMU.
//!
//! libvirt's calls block. They run on a few threads of their own ([`workers`]), so that one that hangs stalls nobody
//! else. One connection is kept up by a thread ([`connection`]); guests are recognised by an element in their
//! metadata ([`domain_xml`]). Each guest has a folder with its disks, config drive and console log ([`folder`]).
//!
//! Nova's driver of the same purpose is `nova/virt/libvirt/driver.py`.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::host_facts::CpuTimes;
use nova_core::ids::{InstanceId, VolumeId};
use nova_core::metadata::DevicePlace;
use nova_core::state::PowerState;
use tokio::sync::{broadcast, mpsc};
use virt::sys;

use crate::{
    AttachedDisk, Capabilities, Diagnostics, DiskAttachment, DiskFormat, ExportRequest, GuestEvent, GuestInfo,
    GuestSpec, Hypervisor, HypervisorError, IncomingAddress, InterfaceSpec, LiveMigration, MigrationProgress,
    NodeResources, Operation, Quiesce, RebootKind, RescueSpec, SerialPort, SnapshotRequest, SpiceEndpoint, StashInfo,
    VncEndpoint,
};

mod cells;
mod connection;
mod diagnostics;
mod domain_xml;
mod domains;
mod errors;
mod ffi;
mod folder;
mod host;
mod interfaces;
mod migration;
mod operations;
mod options;
mod places;
mod qemu_img;
mod read_xml;
mod rebuild;
mod rescue;
mod serial;
mod snapshot;
mod stash;
mod states;
mod tools;
mod traits;
mod volumes;
mod workers;
mod xml_tree;

use connection::{Connection, OnConnect, OnEvent};
use domains::{Guest, Known};
use migration::Migrating;
use operations::{Inner, Locks};
pub use options::{LibvirtOptions, Preallocate, SpiceOptions};
use qemu_img::Image;
use volumes::swap::Swapping;
use workers::Workers;

/// How many events a slow receiver may be behind before it loses some.
const EVENT_BUFFER: usize = 4096;

/// A [`Hypervisor`] that runs guests with QEMU, through the libvirt daemon of this machine.
///
/// Guests belong to the daemon: they run on when this driver, its process or the daemon itself ends, and a new driver
/// finds them. While the daemon is away, operations are `Unavailable`; the connection comes back by itself.
///
/// Disks of the role `Ephemeral` and `Swap` are empty: the guest formats them. A started guest may send
/// [`Resumed`](crate::GuestEventKind::Resumed) beside [`Started`](crate::GuestEventKind::Started), as QEMU begins
/// halted.
pub struct LibvirtHypervisor {
    inner: Arc<Inner>,
    version: Arc<AtomicI64>,
}

impl LibvirtHypervisor {
    /// A driver that begins to connect; it needs no daemon yet. Fails on options that can't work.
    pub fn new(options: LibvirtOptions) -> Result<Self, HypervisorError> {
        const DURING: &str = "starting the libvirt driver";
        options.validate()?;
        let known = Arc::new(Known::default());
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let version = Arc::new(AtomicI64::new(0));
        let workers = Workers::new(options.threads, options.queue_limit, options.hung_after)
            .map_err(|error| errors::file(DURING, error))?;
        let (failed, failures) = mpsc::unbounded_channel();
        let on_event = forward_events(known.clone(), events.clone(), failed);
        let on_connect = learn(known.clone(), version.clone());
        let connection = Connection::start(options.connection_uri.clone(), on_event, on_connect)
            .map_err(|error| errors::file(DURING, error))?;
        let locks = Locks::default();
        let (migrating, swapping) = (Migrating::default(), Swapping::default());
        let inner = Arc::new(Inner { options, connection, workers, known, events, locks, migrating, swapping });
        // Without a runtime, nobody looks after guests either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(volumes::mend::run(failures, Arc::downgrade(&inner)));
            runtime.spawn(snapshot::thaw_what_was_left(Arc::downgrade(&inner)));
        }
        Ok(Self { inner, version })
    }

    /// The options that it was made with.
    pub fn options(&self) -> &LibvirtOptions {
        &self.inner.options
    }

    /// Runs an operation to its end in a task of its own; the caller waits so long for it.
    async fn bounded<T, F>(
        &self,
        operation: Operation,
        extra: Duration,
        work: impl FnOnce(Arc<Inner>) -> F,
    ) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HypervisorError>> + Send + 'static,
    {
        let after = self.inner.options.operation_limit + extra;
        let task = tokio::spawn(work(self.inner.clone()));
        match tokio::time::timeout(after, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(HypervisorError::Failed { during: operation.as_str(), source: error.into() }),
            Err(_) => Err(HypervisorError::TimedOut { during: operation.as_str(), after }),
        }
    }

    async fn run<T, F>(&self, operation: Operation, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, HypervisorError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HypervisorError>> + Send + 'static,
    {
        self.bounded(operation, Duration::ZERO, work).await
    }
}

impl fmt::Debug for LibvirtHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = &self.options().connection_uri;
        f.debug_struct("LibvirtHypervisor").field("uri", uri).finish_non_exhaustive()
    }
}

/// Turns libvirt's events into ours. Runs on libvirt's event thread.
fn forward_events(
    known: Arc<Known>,
    events: broadcast::Sender<GuestEvent>,
    failed: mpsc::UnboundedSender<InstanceId>,
) -> OnEvent {
    Arc::new(move |raw| {
        let Ok(instance) = raw.uuid.parse::<InstanceId>() else { return };
        let others = known.is_others(instance);
        if matches!(raw.event, sys::VIR_DOMAIN_EVENT_DEFINED | sys::VIR_DOMAIN_EVENT_UNDEFINED) {
            known.forget(instance);
        }
        let io_error = (sys::VIR_DOMAIN_EVENT_SUSPENDED, sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR);
        if (raw.event, raw.detail) == io_error && !others {
            // Without a receiver there is nobody to mend it.
            let _ = failed.send(instance);
        }
        if let Some(kind) = states::event_kind(raw.event, raw.detail)
            && !others
        {
            // Without a receiver there is nobody to tell.
            let _ = events.send(GuestEvent { instance, kind });
        }
    })
}

/// What is read from each new connection. Runs on the connection's own thread, before anyone uses it.
fn learn(known: Arc<Known>, version: Arc<AtomicI64>) -> OnConnect {
    Box::new(move |conn| {
        known.forget_all();
        match conn.hyp_version() {
            Ok(number) => version.store(i64::from(number), Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "can't read the hypervisor's version"),
        }
        // So that events of domains that are not ours are known for what they are.
        if let Err(error) = domains::list(conn, &known) {
            tracing::warn!(%error, "can't list the guests");
        }
    })
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            driver: errors::DRIVER.into(),
            hypervisor_type: host::HYPERVISOR_TYPE.into(),
            hypervisor_version: self.version.load(Ordering::Relaxed),
            architectures: vec!["x86_64".into()],
            needs_images: true,
            convert_image: true,
            pause: true,
            suspend: true,
            snapshot: true,
            quiesce: true,
            vnc: true,
            spice: self.inner.options.spice.is_some(),
            serial: true,
            attach_disk: true,
            attach_interface: true,
            rescue: true,
            rebuild: true,
            set_admin_password: true,
            inject_nmi: true,
            diagnostics: true,
            migrate: true,
            live_migrate: true,
        }
    }

    async fn resources(&self) -> Result<NodeResources, HypervisorError> {
        self.run(Operation::Resources, async |inner: Arc<Inner>| {
            let options = inner.options.clone();
            inner.call(move |conn| host::resources(conn, &options)).await
        })
        .await
    }

    async fn cpu_times(&self) -> Result<CpuTimes, HypervisorError> {
        // The kernel's own files: no call to libvirt, nothing that waits.
        host::cpu_times()
    }

    async fn list(&self) -> Result<Vec<GuestInfo>, HypervisorError> {
        self.run(Operation::List, |inner| async move { inner.list().await }).await
    }

    async fn info(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError> {
        self.run(Operation::Info, move |inner| async move { inner.with(id, Guest::info).await }).await
    }

    async fn spawn(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        let guest = guest.clone();
        self.run(Operation::Spawn, |inner| async move { inner.spawn(guest).await }).await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::Destroy, move |inner| async move { inner.destroy(id).await }).await
    }

    async fn power_on(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::PowerOn, move |inner| async move { inner.power_on(id).await }).await
    }

    async fn power_off(&self, id: InstanceId, graceful: Option<Duration>) -> Result<(), HypervisorError> {
        self.bounded(Operation::PowerOff, graceful.unwrap_or_default(), move |inner| async move {
            inner.power_off(id, graceful).await
        })
        .await
    }

    async fn reboot(&self, id: InstanceId, kind: RebootKind) -> Result<(), HypervisorError> {
        let extra = self.inner.options.soft_reboot_wait;
        self.bounded(Operation::Reboot, extra, move |inner| async move { inner.reboot(id, kind).await }).await
    }

    async fn pause(&self, id: InstanceId) -> Result<(), HypervisorError> {
        const FROM: &[PowerState] = &[PowerState::Running];
        self.run(Operation::Pause, move |inner| async move {
            inner.transition(id, Operation::Pause, FROM, PowerState::Paused, Guest::pause).await
        })
        .await
    }

    async fn unpause(&self, id: InstanceId) -> Result<(), HypervisorError> {
        const FROM: &[PowerState] = &[PowerState::Paused];
        self.run(Operation::Unpause, move |inner| async move {
            inner.transition(id, Operation::Unpause, FROM, PowerState::Running, Guest::start).await
        })
        .await
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), HypervisorError> {
        const FROM: &[PowerState] = &[PowerState::Running, PowerState::Paused];
        self.run(Operation::Suspend, move |inner| async move {
            inner.transition(id, Operation::Suspend, FROM, PowerState::Suspended, Guest::save).await
        })
        .await
    }

    async fn resume(&self, id: InstanceId) -> Result<(), HypervisorError> {
        const FROM: &[PowerState] = &[PowerState::Suspended];
        self.run(Operation::Resume, move |inner| async move {
            inner.transition(id, Operation::Resume, FROM, PowerState::Running, Guest::start).await
        })
        .await
    }

    async fn console_log(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError> {
        self.run(Operation::ConsoleLog, move |inner| async move {
            match inner.with(id, |_| Ok(())).await {
                Err(HypervisorError::NotFound { .. }) if inner.was_sent(id).await? => {}
                known => known?,
            }
            folder::console(&inner.options, id).await
        })
        .await
    }

    async fn vnc_endpoint(&self, id: InstanceId) -> Result<VncEndpoint, HypervisorError> {
        const OPERATION: Operation = Operation::VncEndpoint;
        self.run(OPERATION, move |inner| async move {
            inner
                .with(id, move |guest| match guest.vnc()? {
                    Some((host, port)) => Ok(VncEndpoint { host, port }),
                    None => {
                        let state = guest.power_state;
                        Err(HypervisorError::InvalidState { instance: id, operation: OPERATION, state })
                    }
                })
                .await
        })
        .await
    }

    async fn spice_endpoint(&self, id: InstanceId) -> Result<SpiceEndpoint, HypervisorError> {
        if self.inner.options.spice.is_none() {
            return Err(HypervisorError::Unsupported { operation: Operation::SpiceEndpoint });
        }
        self.run(Operation::SpiceEndpoint, move |inner| async move { inner.with(id, |guest| guest.spice()).await })
            .await
    }

    async fn open_serial(&self, id: InstanceId) -> Result<SerialPort, HypervisorError> {
        self.run(Operation::OpenSerial, move |inner| async move {
            let uri = inner.options.connection_uri.clone();
            inner.call(move |_| serial::open(&uri, id)).await
        })
        .await
    }

    async fn devices(&self, id: InstanceId) -> Result<Vec<DevicePlace>, HypervisorError> {
        self.run(Operation::Devices, move |inner| async move { inner.with(id, Guest::places).await }).await
    }

    async fn interfaces(&self, id: InstanceId) -> Result<Vec<String>, HypervisorError> {
        self.run(Operation::Interfaces, move |inner| async move { inner.with(id, |guest| guest.interfaces()).await })
            .await
    }

    async fn attach_interface(&self, id: InstanceId, interface: &InterfaceSpec) -> Result<(), HypervisorError> {
        let interface = interface.clone();
        self.run(Operation::AttachInterface, move |inner| async move { inner.attach_interface(id, interface).await })
            .await
    }

    async fn detach_interface(&self, id: InstanceId, mac_address: &str) -> Result<(), HypervisorError> {
        let (extra, mac) = (self.inner.options.detach_wait, mac_address.to_ascii_lowercase());
        self.bounded(
            Operation::DetachInterface,
            extra,
            move |inner| async move { inner.detach_interface(id, mac).await },
        )
        .await
    }

    async fn attach_disk(&self, id: InstanceId, disk: &DiskAttachment) -> Result<String, HypervisorError> {
        let disk = disk.clone();
        self.run(Operation::AttachDisk, move |inner| async move { inner.attach_disk(id, disk).await }).await
    }

    async fn detach_disk(&self, id: InstanceId, volume: VolumeId) -> Result<(), HypervisorError> {
        let extra = self.inner.options.detach_wait;
        self.bounded(Operation::DetachDisk, extra, move |inner| async move { inner.detach_disk(id, volume).await })
            .await
    }

    async fn attached_disks(&self, id: InstanceId) -> Result<Vec<AttachedDisk>, HypervisorError> {
        self.run(Operation::AttachedDisks, move |inner| async move { inner.with(id, Guest::attached_disks).await })
            .await
    }

    async fn extend_disk(&self, id: InstanceId, volume: VolumeId, bytes: u64) -> Result<(), HypervisorError> {
        self.run(Operation::ExtendDisk, move |inner| async move { inner.extend_disk(id, volume, bytes).await }).await
    }

    async fn swap_disk(&self, id: InstanceId, volume: VolumeId, new: &DiskAttachment) -> Result<(), HypervisorError> {
        let (new, extra) = (new.clone(), self.inner.options.copy_limit);
        self.bounded(Operation::SwapDisk, extra, move |inner| async move { inner.swap_disk(id, volume, new).await })
            .await
    }

    async fn abort_swap(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.inner.swapping.end(id);
        Ok(())
    }

    async fn settle_swap(&self, id: InstanceId, old: VolumeId, new: VolumeId) -> Result<bool, HypervisorError> {
        self.run(Operation::SettleSwap, move |inner| async move { inner.settle_swap(id, old, new).await }).await
    }

    async fn snapshot(&self, id: InstanceId, request: &SnapshotRequest) -> Result<(), HypervisorError> {
        let (request, extra) = (request.clone(), self.inner.options.copy_limit);
        self.bounded(Operation::Snapshot, extra, move |inner| async move { inner.snapshot(id, request).await }).await
    }

    async fn quiesce(&self, id: InstanceId, quiesce: Quiesce) -> Result<(), HypervisorError> {
        self.run(Operation::Quiesce, move |inner| async move { inner.quiesce(id, quiesce).await }).await
    }

    async fn unquiesce(&self, id: InstanceId) -> Result<bool, HypervisorError> {
        self.run(Operation::Unquiesce, move |inner| async move { inner.unquiesce(id).await }).await
    }

    async fn rescue(&self, id: InstanceId, rescue: &RescueSpec) -> Result<(), HypervisorError> {
        let rescue = rescue.clone();
        self.run(Operation::Rescue, move |inner| async move { inner.rescue(id, rescue).await }).await
    }

    async fn unrescue(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::Unrescue, move |inner| async move { inner.unrescue(id).await }).await
    }

    async fn rebuild(&self, guest: &GuestSpec, preserve_ephemeral: bool) -> Result<(), HypervisorError> {
        let guest = guest.clone();
        self.run(Operation::Rebuild, move |inner| async move { inner.rebuild(guest, preserve_ephemeral).await }).await
    }

    async fn set_admin_password(
        &self,
        id: InstanceId,
        user: Option<&str>,
        password: &str,
    ) -> Result<(), HypervisorError> {
        let (user, password) = (user.map(str::to_owned), password.to_owned());
        self.run(Operation::SetAdminPassword, move |inner| async move {
            inner.locked_with(id, move |guest| guest.set_password(user.as_deref(), &password)).await
        })
        .await
    }

    async fn inject_nmi(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::InjectNmi, move |inner| async move { inner.locked_with(id, Guest::inject_nmi).await }).await
    }

    async fn diagnostics(&self, id: InstanceId) -> Result<Diagnostics, HypervisorError> {
        self.run(Operation::Diagnostics, move |inner| async move {
            let virt_type = inner.options.virt_type.clone();
            inner.with(id, move |guest| guest.diagnostics(&virt_type)).await
        })
        .await
    }

    async fn export_disk(&self, id: InstanceId, request: &ExportRequest) -> Result<(), HypervisorError> {
        let (request, extra) = (request.clone(), self.inner.options.copy_limit);
        self.bounded(Operation::ExportDisk, extra, move |inner| async move { inner.export_disk(id, request).await })
            .await
    }

    async fn stash(&self, id: InstanceId, epoch: u64) -> Result<(), HypervisorError> {
        self.run(Operation::Stash, move |inner| async move { inner.stash(id, epoch).await }).await
    }

    async fn unstash(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        let guest = guest.clone();
        self.run(Operation::Unstash, move |inner| async move { inner.unstash(guest).await }).await
    }

    async fn drop_stash(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::DropStash, move |inner| async move { inner.drop_stash(id).await }).await
    }

    async fn list_stashes(&self) -> Result<Vec<StashInfo>, HypervisorError> {
        self.run(Operation::ListStashes, move |inner| async move { inner.list_stashes().await }).await
    }

    async fn prepare_incoming(&self, guest: &GuestSpec) -> Result<IncomingAddress, HypervisorError> {
        let guest = guest.clone();
        self.run(Operation::PrepareIncoming, move |inner| async move { inner.prepare_incoming(guest).await }).await
    }

    async fn live_migrate(&self, id: InstanceId, migration: &LiveMigration) -> Result<(), HypervisorError> {
        let (migration, extra) = (migration.clone(), self.inner.options.copy_limit);
        self.bounded(Operation::LiveMigrate, extra, move |inner| async move { inner.live_migrate(id, migration).await })
            .await
    }

    async fn migration_progress(&self, id: InstanceId) -> Result<Option<MigrationProgress>, HypervisorError> {
        self.run(Operation::MigrationProgress, move |inner| async move { inner.migration_progress(id).await }).await
    }

    async fn abort_migration(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::AbortMigration, move |inner| async move { inner.abort_migration(id).await }).await
    }

    async fn force_migration(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.run(Operation::ForceMigration, move |inner| async move { inner.force_migration(id).await }).await
    }

    async fn adopt_incoming(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        let guest = guest.clone();
        self.run(Operation::AdoptIncoming, move |inner| async move { inner.adopt_incoming(guest).await }).await
    }

    async fn convert_image(
        &self,
        from: &Path,
        format: DiskFormat,
        to: &Path,
        bytes: u64,
    ) -> Result<(), HypervisorError> {
        let (from, to) = (Image::new(from, format), Image::new(to, DiskFormat::Raw));
        let extra = self.inner.options.copy_limit;
        self.bounded(Operation::ConvertImage, extra, move |inner| async move {
            const DURING: &str = "converting an image";
            let size = qemu_img::inspect(&from, "from").await?;
            if size > bytes {
                return Err(HypervisorError::invalid("from", format!("makes {size} bytes, of {bytes} at most")));
            }
            qemu_img::convert(&from, &to, size, DURING, inner.options.copy_limit).await
        })
        .await
    }

    async fn images_in_use(&self) -> Result<BTreeSet<PathBuf>, HypervisorError> {
        self.run(
            Operation::ImagesInUse,
            |inner| async move { folder::record::bases(&inner.options.instances_path).await },
        )
        .await
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.inner.events.subscribe()
    }

    async fn ping(&self) -> Result<(), HypervisorError> {
        self.run(Operation::Ping, |inner| async move {
            let version = inner.call(|conn| {
                conn.lib_version().map_err(|error| errors::failed("asking libvirt for its version", error))
            });
            version.await.map(drop)
        })
        .await
    }
}
