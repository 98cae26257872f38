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

use std::time::Duration;

use async_trait::async_trait;
use nova_core::host_facts::CpuTimes;
use nova_core::ids::InstanceId;
use tokio::sync::broadcast;

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod fake;
mod guest;
#[cfg(feature = "libvirt")]
mod libvirt;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;

pub use error::{BoxError, ErrorKind, HypervisorError, Operation};
pub use fake::{
    CpuViolation, FakeHypervisor, FakeLoad, FakeOptions, FakeWorld, JournalEntry, JournalOutcome, WorldViolation,
};
pub use guest::{
    AttachmentSource, Capabilities, ConfigDrive, DiskAttachment, DiskFormat, DiskRole, DiskSource, DiskSpec,
    GuestEvent, GuestEventKind, GuestInfo, GuestSpec, InterfaceSpec, NodeResources, RebootKind, SnapshotRequest,
    VncEndpoint,
};
#[cfg(feature = "libvirt")]
pub use libvirt::{LibvirtHypervisor, LibvirtOptions};

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

    /// What the guest wrote to its serial console since it was made: the last MiB of it.
    async fn console_log(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError>;

    /// Where the screen of a running guest is served. A guest that does not run is `InvalidState`.
    async fn vnc_endpoint(&self, _id: InstanceId) -> Result<VncEndpoint, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::VncEndpoint })
    }

    /// Attaches a disk and returns its device name in the guest. One with that serial is Ok.
    async fn attach_disk(&self, _id: InstanceId, _disk: &DiskAttachment) -> Result<String, HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::AttachDisk })
    }

    /// Detaches the disk with that serial. An absent one is Ok.
    async fn detach_disk(&self, _id: InstanceId, _serial: &str) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::DetachDisk })
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

    /// Writes a copy of the guest's root disk, which stands on no other file.
    async fn snapshot(&self, _id: InstanceId, _request: &SnapshotRequest) -> Result<(), HypervisorError> {
        Err(HypervisorError::Unsupported { operation: Operation::Snapshot })
    }

    /// What happens to guests from now on, by our order or not. A receiver that falls far behind loses events: what
    /// must be right compares with [`list`](Self::list). Events while the hypervisor was out of reach are lost, too.
    fn events(&self) -> broadcast::Receiver<GuestEvent>;

    /// Ok when the hypervisor answers.
    async fn ping(&self) -> Result<(), HypervisorError>;
}
