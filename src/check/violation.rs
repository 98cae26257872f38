//! What was found, and what to do about it.

use std::fmt;

use nova_core::ids::{
    FloatingIpId, HostName, ImageId, InstanceId, PortId, RequestId, SubnetId, TaskId, VolumeAttachmentId, VolumeId,
    VolumeSnapshotId, VolumeTaskId,
};
use nova_core::state::PowerState;

/// Something is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `I2`, …, or `config`.
    pub invariant: &'static str,
    /// Which things, by kind and id: `instance`, `host`, `task`, `request`, `project`, …
    pub subject: Vec<(&'static str, String)>,
    /// What is wrong.
    pub text: String,
    /// The state of all rows that it speaks of, as one number: equal if nothing of it changed.
    pub stamp: u64,
    /// What mends it, where there is one right answer.
    pub repair: Option<Repair>,
}

impl Violation {
    /// One without a repair.
    pub fn new(invariant: &'static str, subject: Vec<(&'static str, String)>, text: impl Into<String>) -> Self {
        Self { invariant, subject, text: text.into(), stamp: 0, repair: None }
    }

    /// The same, with the state of what it speaks of.
    #[must_use]
    pub fn stamped(mut self, parts: impl IntoIterator<Item = u128>) -> Self {
        self.stamp = stamp(parts);
        self
    }

    /// The same, with what mends it.
    #[must_use]
    pub fn mended_by(self, repair: impl Into<Option<Repair>>) -> Self {
        Self { repair: repair.into(), ..self }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.invariant, self.stamp, &self.subject) == (other.invariant, other.stamp, &other.subject)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        for (kind, id) in &self.subject {
            write!(f, " {kind}={id}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Those of the second reading that stood in the first as well, with nothing of it changed.
pub fn standing(first: &[Violation], second: &[Violation]) -> Vec<Violation> {
    second.iter().filter(|found| first.iter().any(|before| before.is_same(found))).cloned().collect()
}

/// FNV-1a over the parts: the same in every run, and all that is needed to tell equal from changed.
fn stamp(parts: impl IntoIterator<Item = u128>) -> u64 {
    let bytes = parts.into_iter().flat_map(u128::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What mends a violation. In the order in which several are carried out: accounts come last, from what is then true.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// Remove a guest that nobody owns there.
    DestroyGuest {
        /// From here.
        host: HostName,
        /// This one.
        instance: InstanceId,
    },
    /// Remove a task of an instance that is gone.
    DropTask {
        /// This one.
        task: TaskId,
        /// As it was read.
        generation: u64,
    },
    /// Write that nothing works on the instance: `error`, with a fault that says so.
    FailInstance {
        /// This one.
        instance: InstanceId,
        /// As it was read.
        generation: u64,
    },
    /// Write that the instance is off: `stopped`, with that power state.
    StopInstance {
        /// This one.
        instance: InstanceId,
        /// As it was read.
        generation: u64,
        /// What the host says of its guest.
        power_state: PowerState,
    },
    /// Write that an action failed that nothing carries out.
    FinishAction {
        /// Of this instance.
        instance: InstanceId,
        /// Of this request.
        request: RequestId,
    },
    /// Remove an image that will never get its data.
    DropImage {
        /// This one.
        image: ImageId,
        /// As it was read.
        generation: u64,
    },
    /// Give back what an instance holds where it is not.
    DeleteAllocation {
        /// This one's.
        instance: InstanceId,
        /// There.
        host: HostName,
    },
    /// Give back a port whose server has no use for it.
    ReleasePort {
        /// This one.
        port: PortId,
        /// As it was read.
        generation: u64,
    },
    /// Write that a port is where its server is.
    BindPort {
        /// This one.
        port: PortId,
        /// As it was read.
        generation: u64,
    },
    /// Make a floating address stand for nothing.
    DisassociateFloatingIp {
        /// This one.
        floating_ip: FloatingIpId,
        /// As it was read.
        generation: u64,
    },
    /// Write the addresses of a subnet as they are used.
    MendAddresses {
        /// Of this subnet.
        subnet: SubnetId,
    },
    /// Remove a task of a volume that is gone.
    DropVolumeTask {
        /// This one.
        task: VolumeTaskId,
        /// As it was read.
        generation: u64,
    },
    /// Write that nothing works on the volume: an error, or, where nothing can be lost, what it was before.
    FailVolume {
        /// This one.
        volume: VolumeId,
        /// As it was read.
        generation: u64,
    },
    /// Write that nothing works on the snapshot.
    FailVolumeSnapshot {
        /// This one.
        snapshot: VolumeSnapshotId,
        /// As it was read.
        generation: u64,
    },
    /// Take a volume back from a server that is deleted. One that is connected to a host is first disconnected, by its volume
    /// host.
    EndAttachment {
        /// Of this volume.
        volume: VolumeId,
        /// This one.
        attachment: VolumeAttachmentId,
        /// As the volume was read.
        generation: u64,
    },
    /// Write the state that a volume's attachments make of it.
    SettleVolume {
        /// This one.
        volume: VolumeId,
        /// As it was read.
        generation: u64,
    },
    /// Count again: volumes of projects and pools.
    RecountVolumes,
    /// Count again: usage of projects, use of nodes, allocations of settled instances.
    RebuildAccounts,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DestroyGuest { host, instance } => {
                write!(f, "destroy the guest of instance {instance} on host {host}")
            }
            Self::DropTask { task, .. } => write!(f, "remove task {task}"),
            Self::FailInstance { instance, .. } => write!(f, "set instance {instance} to error, with a fault"),
            Self::StopInstance { instance, .. } => write!(f, "set instance {instance} to stopped"),
            Self::FinishAction { instance, request } => {
                write!(f, "end action {request} of instance {instance} in error")
            }
            Self::DropImage { image, .. } => write!(f, "remove image {image}"),
            Self::DeleteAllocation { instance, host } => {
                write!(f, "give back what instance {instance} holds on host {host}")
            }
            Self::ReleasePort { port, .. } => write!(f, "give back port {port}"),
            Self::BindPort { port, .. } => write!(f, "bind port {port} to the host of its server"),
            Self::DisassociateFloatingIp { floating_ip, .. } => {
                write!(f, "make floating address {floating_ip} stand for nothing")
            }
            Self::MendAddresses { subnet } => write!(f, "write the addresses of subnet {subnet} as they are used"),
            Self::DropVolumeTask { task, .. } => write!(f, "remove task {task} of a volume"),
            Self::FailVolume { volume, .. } => write!(f, "write that nothing works on volume {volume}"),
            Self::FailVolumeSnapshot { snapshot, .. } => write!(f, "set snapshot {snapshot} to error"),
            Self::EndAttachment { attachment, .. } => write!(f, "end attachment {attachment}"),
            Self::SettleVolume { volume, .. } => write!(f, "set volume {volume} to what its attachments say"),
            Self::RecountVolumes => f.write_str("count volumes, snapshots and pools again"),
            Self::RebuildAccounts => f.write_str("count usage, bookings and nodes again"),
        }
    }
}
