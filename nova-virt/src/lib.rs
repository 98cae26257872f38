//! Hypervisor drivers: what a compute host needs of the machine that it runs guests on.
//!
//! [`Hypervisor`] is the contract. Two drivers keep it:
//!
//! - [`FakeHypervisor`]: guests are entries in a table. It keeps a journal, can be slow and fails on command, and is
//!   deterministic under tokio's paused clock.
//! - `LibvirtHypervisor` (feature `libvirt`): real guests, through libvirt and QEMU.
//!
//! This crate knows nothing of messages, databases or the API: only `nova-compute` holds a [`Hypervisor`].
//! A driver of your own is held to the same contract by the suite behind the feature `conformance`.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use nova_virt::{FakeHypervisor, FakeOptions, Hypervisor};
//!
//! let hypervisor = FakeHypervisor::new(FakeOptions::new("host1"));
//! assert!(hypervisor.list().await?.is_empty());
//! assert_eq!(hypervisor.resources().await?.hypervisor_hostname, "host1");
//! # Ok::<(), nova_virt::HypervisorError>(())
//! # }).unwrap();
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::host_facts::CpuTimes;
use nova_core::ids::{InstanceId, VolumeId};
use nova_core::metadata::DevicePlace;
use tokio::sync::broadcast;

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod fake;
mod guest;
#[cfg(feature = "libvirt")]
mod libvirt;
mod life;
mod serial;
mod settings;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;
mod volume;

pub use error::{BoxError, ErrorKind, HypervisorError, Operation};
pub use fake::{
    CpuViolation, FakeHypervisor, FakeLoad, FakeOptions, FakeWorld, JournalEntry, JournalOutcome, WorldViolation,
};
pub use guest::{
    Capabilities, ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, GuestEvent, GuestEventKind, GuestInfo,
    GuestSpec, Hardware, InterfaceSpec, NodeResources, Quiesce, RebootKind, SnapshotRequest, SpiceEndpoint,
    VncEndpoint,
};
#[cfg(feature = "libvirt")]
pub use libvirt::{LibvirtHypervisor, LibvirtOptions, Preallocate, SpiceOptions};
pub use life::{
    Diagnostics, DiskCounters, ExportRequest, IncomingAddress, InterfaceCounters, LiveMigration, MigrationProgress,
    RescueSpec, StableRescue, StashInfo,
};
pub use serial::{SERIAL_PIECES, SerialPort};
pub use settings::{
    DRIVER_OPTIONS, INSTANCES_PATH, LIVE_MIGRATION_INBOUND_ADDR, LIVE_MIGRATION_SCHEME, PREALLOCATE_IMAGES,
    SPICE_AGENT_ENABLED, SPICE_ENABLED, SPICE_REQUIRE_SECURE, SPICE_SERVER_LISTEN, USE_COW_IMAGES, VNC_SERVER_LISTEN,
    VOLUME_CACHE_MODE, VOLUME_ERROR_POLICY, VOLUME_RECONNECT_DELAY, VOLUME_TLS_PATH,
};
pub use volume::{AttachedDisk, DiskAttachment};

/// A machine that runs guests.
///
/// Every operation may be repeated: when what it asks for is already so, it succeeds and changes nothing. A failed
/// operation leaves nothing half made behind. Operations on one guest happen one after the other, whatever the number
/// of callers. Guests outlive the process that started them: a driver opened anew finds them with [`list`](Self::list).
///
/// Any operation may fail with [`Unavailable`](HypervisorError::Unavailable), [`TimedOut`](HypervisorError::TimedOut)
/// and [`Failed`](HypervisorError::Failed); those that name a guest, [`destroy`](Self::destroy) excepted, with
/// [`NotFound`](HypervisorError::NotFound). Further errors stand at each method.
#[async_trait]
pub trait Hypervisor: Send + Sync {
    /// What this driver can do. Never blocks; the version is 0 until the hypervisor was reached once.
    fn capabilities(&self) -> Capabilities;

    /// What the machine has to give, guests not counted.
    async fn resources(&self) -> Result<NodeResources, HypervisorError>;

    /// How the host's processors spent their time since it started. Asked at intervals, where monitors are wanted.
    async fn cpu_times(&self) -> Result<CpuTimes, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::CpuTimes })
    }

    /// Every guest of ours, running or not, ordered by instance. Guests that others made are not ours.
    ///
    /// Every trace counts: a guest whose files remain although the hypervisor does not know it (any more) is listed
    /// with [`PowerState::NoState`](nova_core::state::PowerState::NoState); `destroy` removes it. A guest that
    /// this driver is making or removing right now is not taken for a trace.
    async fn list(&self) -> Result<Vec<GuestInfo>, HypervisorError>;

    /// One guest, as in [`list`](Self::list). A mere trace of a guest is `NotFound`.
    async fn info(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError>;

    /// Makes the guest's disks and config drive, defines it and, if `guest.running`, starts it.
    ///
    /// Of a guest that exists: an order of its own epoch changes nothing, except that it starts a guest that should
    /// run and is off. An order of a higher epoch takes the guest over: its disks are kept, a running guest keeps
    /// running, what is defined becomes what the order says. An order of a lower epoch is
    /// [`Stale`](HypervisorError::Stale). Further errors: [`InvalidInput`](HypervisorError::InvalidInput),
    /// [`NoSpace`](HypervisorError::NoSpace).
    async fn spawn(&self, guest: &GuestSpec) -> Result<(), HypervisorError>;

    /// Stops the guest, forgets it and removes each of its files. An absent guest is Ok.
    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Starts the guest, or lets a paused or suspended one go on. A running one is Ok.
    async fn power_on(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Stops the guest: asks it first and waits for so long, if `graceful` says how long; then cuts its power.
    /// One that is off is Ok; what a suspended one had in memory is thrown away.
    async fn power_off(&self, id: InstanceId, graceful: Option<Duration>) -> Result<(), HypervisorError>;

    /// Stops and starts the guest. One that is off is started.
    async fn reboot(&self, id: InstanceId, kind: RebootKind) -> Result<(), HypervisorError>;

    /// Halts a running guest in memory. A paused one is Ok, any other `InvalidState`.
    async fn pause(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Pause })
    }

    /// Lets a paused guest go on. A running one is Ok, any other `InvalidState`.
    async fn unpause(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Unpause })
    }

    /// Writes a running or paused guest's memory to disk and stops it. A suspended one is Ok, any other `InvalidState`.
    async fn suspend(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Suspend })
    }

    /// Lets a suspended guest go on. A running one is Ok, any other `InvalidState`.
    async fn resume(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Resume })
    }

    /// What the guest wrote to its serial console since it was made: the last MiB of it. Where a guest was that was sent to another
    /// host with its disks, what it wrote there may be answered still.
    async fn console_log(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError>;

    /// Where the screen of a running guest is served. A guest that does not run is `InvalidState`.
    async fn vnc_endpoint(&self, _id: InstanceId) -> Result<VncEndpoint, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::VncEndpoint })
    }

    /// Where the screen of a running guest is served over SPICE. A guest that does not run is `InvalidState`; one that has
    /// none, since it was made before the host was told to give guests one, is `Unsupported`.
    async fn spice_endpoint(&self, _id: InstanceId) -> Result<SpiceEndpoint, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::SpiceEndpoint })
    }

    /// Opens the serial port of a running guest, whose log [`console_log`](Self::console_log) is. Whoever had it open before
    /// has it no longer. A guest that does not run is `InvalidState`.
    async fn open_serial(&self, _id: InstanceId) -> Result<SerialPort, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::OpenSerial })
    }

    /// Attaches a volume, now and for each start from now on, and returns its device name in the guest. One that the guest has
    /// is Ok. The host makes sure first that what it reaches is this volume, and one that it can't use (`InvalidInput` when
    /// it is another one, OSSA-2023-003). A suspended guest is `InvalidState`: what it had is on disk.
    async fn attach_disk(&self, _id: InstanceId, _disk: &DiskAttachment) -> Result<String, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AttachDisk })
    }

    /// Detaches a volume, now and for each start from now on. One that the guest does not have is Ok. A guest that runs must let
    /// it go: one that does not in time is `TimedOut`, and has it until it is stopped. Suspended: `InvalidState`.
    async fn detach_disk(&self, _id: InstanceId, _volume: VolumeId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::DetachDisk })
    }

    /// The volumes that the guest has, in the order in which it sees them: of one that runs, those that it has now (also one that
    /// it shall let go of); of any other, those that it will have.
    async fn attached_disks(&self, _id: InstanceId) -> Result<Vec<AttachedDisk>, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AttachedDisks })
    }

    /// Tells a guest that a volume of its has grown to so many bytes. One that is off learns it at its start. A volume that
    /// the guest does not have is `InvalidInput`; a kind of volume that can't be told is `Unsupported`, and the guest learns of it
    /// when it is off and on.
    async fn extend_disk(&self, _id: InstanceId, _volume: VolumeId, _bytes: u64) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::ExtendDisk })
    }

    /// Copies what is on a volume of a running guest onto another one, which is at least as large and takes its place in the
    /// guest, under its device name. Done, or as it was before, or [`settle_swap`](Self::settle_swap) says which. A guest that has
    /// the new one already, and not the old one, is Ok; one that does not run is `InvalidState`.
    async fn swap_disk(
        &self,
        _id: InstanceId,
        _volume: VolumeId,
        _new: &DiskAttachment,
    ) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::SwapDisk })
    }

    /// Has a `swap_disk` that copies fail soon; the guest keeps what it had, unless it has the new volume by then. None running is
    /// Ok.
    async fn abort_swap(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AbortSwap })
    }

    /// Where the guest finds its interfaces and volumes, as its metadata tells it: of one that runs, in its process; of any other,
    /// where they will be. What is there keeps its place, whatever comes and goes beside it.
    async fn devices(&self, _id: InstanceId) -> Result<Vec<DevicePlace>, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Devices })
    }

    /// Ends a swap that may be half done, since whoever began it died: true, the guest has the new volume now, as after
    /// `swap_disk`; false, it has the old one or neither, and no copy runs. One that is done, or was never begun, is told in the
    /// same way.
    async fn settle_swap(&self, _id: InstanceId, _old: VolumeId, _new: VolumeId) -> Result<bool, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::SettleSwap })
    }

    /// Hardware addresses of the guest's interfaces, lower case, in the order in which it sees them: of one that runs, those
    /// that it has now; of any other, those that it will have.
    async fn interfaces(&self, _id: InstanceId) -> Result<Vec<String>, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Interfaces })
    }

    /// Attaches a network interface, now and for each start from now on. One with that hardware address is Ok. A suspended
    /// guest is `InvalidState`: what it had is on disk.
    async fn attach_interface(&self, _id: InstanceId, _interface: &InterfaceSpec) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AttachInterface })
    }

    /// Detaches the interface with that hardware address, now and for each start from now on. An absent one is Ok. A guest
    /// that runs must let it go: one that does not in time is `TimedOut`, and has it until it is stopped. Suspended:
    /// `InvalidState`.
    async fn detach_interface(&self, _id: InstanceId, _mac_address: &str) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::DetachInterface })
    }

    /// Writes a copy of the guest's root disk, which stands on no other file. Of one that runs the file systems stand still for
    /// the moment that the copy is of, as `request.quiesce` says, and go on whatever becomes of the copy; one that must and
    /// can't is [`Unsupported`](HypervisorError::Unsupported) for `quiesce`.
    async fn snapshot(&self, _id: InstanceId, _request: &SnapshotRequest) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Snapshot })
    }

    /// Has the file systems of a running guest stand still, as `quiesce` says, until [`unquiesce`](Self::unquiesce): one that must and
    /// can't is [`Unsupported`](HypervisorError::Unsupported) for `quiesce`. Repeated: Ok. Of a guest that does not run nothing
    /// is asked. A driver that is started anew lets all go on.
    async fn quiesce(&self, _id: InstanceId, _quiesce: Quiesce) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Quiesce })
    }

    /// Lets a guest's file systems go on. False: they did not stand still until now. A guest that is not there is Ok.
    async fn unquiesce(&self, _id: InstanceId) -> Result<bool, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Unquiesce })
    }

    /// Starts the guest from another root disk, made from `rescue.image`, with its own disks beside it; stops it first if it
    /// runs. A guest that is in rescue already is restarted so. Its own disks are not changed by this, only by the guest.
    async fn rescue(&self, _id: InstanceId, _rescue: &RescueSpec) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Rescue })
    }

    /// Stops the guest, removes the rescue disk and starts it from its own root disk. One that is not in rescue is started.
    async fn unrescue(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Unrescue })
    }

    /// Makes the guest anew under its name: stops it, makes its root disk (and config drive) from `guest`, keeps ephemeral and
    /// swap disks if `preserve_ephemeral`, and starts it if `guest.running`. It is not in rescue afterwards. An order of the
    /// epoch that made the guest changes nothing, except that it starts a guest that should run and is off; one of a lower
    /// epoch is [`Stale`](HypervisorError::Stale). The old root disk goes last, so that what
    /// fails before leaves the guest with it, stopped.
    async fn rebuild(&self, _guest: &GuestSpec, _preserve_ephemeral: bool) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Rebuild })
    }

    /// Sets a password inside the running guest, by its agent. `user`: `None` is the administrator of the guest's system. A
    /// guest without an agent that answers is [`Unsupported`](HypervisorError::Unsupported).
    async fn set_admin_password(
        &self,
        _id: InstanceId,
        _user: Option<&str>,
        _password: &str,
    ) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::SetAdminPassword })
    }

    /// Sends a running or paused guest a non-maskable interrupt. Any other is `InvalidState`.
    async fn inject_nmi(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::InjectNmi })
    }

    /// Counters of a guest. Of one that does not run, what is known without it running.
    async fn diagnostics(&self, _id: InstanceId) -> Result<Diagnostics, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Diagnostics })
    }

    /// Writes a copy of one disk of a guest that is off or stashed, which stands on no other file, for another host. It must
    /// be no larger than the disk's size as recorded.
    async fn export_disk(&self, _id: InstanceId, _request: &ExportRequest) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::ExportDisk })
    }

    /// Sets the guest aside: stopped, unknown to the hypervisor, its disks kept under the given epoch. It is no longer
    /// [listed](Self::list), and another guest of the same instance may be made on this host. One that is stashed at this
    /// epoch or a later one is Ok, and a guest beside it is left alone; an older stash is replaced. A guest of a later epoch is
    /// [`Stale`](HypervisorError::Stale).
    async fn stash(&self, _id: InstanceId, _epoch: u64) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Stash })
    }

    /// Takes a stashed guest back with its disks and its definition as `guest` says, under that order's epoch; it is off.
    /// A guest of the instance that is not stashed goes first, with its disks. One that was taken back already is Ok. An order
    /// older than the stash or the guest is [`Stale`](HypervisorError::Stale).
    async fn unstash(&self, _guest: &GuestSpec) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Unstash })
    }

    /// Removes what was stashed, with each of its files. Nothing stashed is Ok.
    async fn drop_stash(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::DropStash })
    }

    /// What is stashed here, ordered by instance.
    async fn list_stashes(&self) -> Result<Vec<StashInfo>, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::ListStashes })
    }

    /// On the destination of a live migration: makes ready for the guest (its disks, empty and of the right size, unless
    /// `guest`'s are shared) and says where the source sends it. Repeated: Ok, the same answer. Until the guest comes it is
    /// listed as a trace, with this order's epoch; `destroy` takes the preparation back.
    async fn prepare_incoming(&self, _guest: &GuestSpec) -> Result<IncomingAddress, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::PrepareIncoming })
    }

    /// On the source: moves the running (or paused) guest to the destination while it runs. Returns when it is there and no
    /// longer here, or when it failed and still runs here. A guest that is not here any more and was moved is Ok.
    async fn live_migrate(&self, _id: InstanceId, _migration: &LiveMigration) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::LiveMigrate })
    }

    /// How far a live migration from here is; `None`: there is none of that guest.
    async fn migration_progress(&self, _id: InstanceId) -> Result<Option<MigrationProgress>, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::MigrationProgress })
    }

    /// Ends a live migration from here: the guest stays. None running is Ok.
    async fn abort_migration(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AbortMigration })
    }

    /// Has a live migration from here end soon, at the price of a pause. None running is `InvalidState`.
    async fn force_migration(&self, _id: InstanceId) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::ForceMigration })
    }

    /// On the destination, after the guest arrived: writes its definition as `guest` says, under that order's epoch.
    async fn adopt_incoming(&self, _guest: &GuestSpec) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AdoptIncoming })
    }

    /// Writes an image as the bytes of its disk, at most `bytes` of them, into a new file. It was inspected as what it is said
    /// to be, and is so again.
    async fn convert_image(
        &self,
        _from: &Path,
        _format: DiskFormat,
        _to: &Path,
        _bytes: u64,
    ) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::ConvertImage })
    }

    /// The files of images that disks of guests and stashes here stand on: they must stay.
    async fn images_in_use(&self) -> Result<BTreeSet<PathBuf>, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::ImagesInUse })
    }

    /// What happens to guests from now on, by our order or not. A receiver that falls far behind loses events: what
    /// must be right compares with [`list`](Self::list). Events while the hypervisor was out of reach are lost, too.
    fn events(&self) -> broadcast::Receiver<GuestEvent>;

    /// Ok when the hypervisor answers.
    async fn ping(&self) -> Result<(), HypervisorError>;
}
