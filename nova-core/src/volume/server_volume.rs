//! The volumes of a server, as its row has them (nova/objects/block_device.py): by which attachments it has them, where they
//! are plugged in, and what becomes of them when it is deleted.

use serde::{Deserialize, Serialize};

use super::BlockSource;
use crate::ids::{BlockDeviceId, HostName, TaskId, VolumeAttachmentId, VolumeId, VolumeSnapshotId};

/// A volume that a server has, or is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerVolume {
    /// The id of this mapping (2.89 shows it as `bdm_uuid`).
    pub id: BlockDeviceId,
    /// The volume; of one that is still to be made, the key that it is asked for with.
    pub volume_id: VolumeId,
    /// What it is to be made of; `None`: it is there.
    #[serde(default)]
    pub make: Option<VolumeToMake>,
    /// By which attachments the server has it. One, but on the way from host to host.
    #[serde(default)]
    pub holds: Vec<Hold>,
    /// As the server sees it, `/dev/vdb`.
    #[serde(default)]
    pub device: Option<String>,
    /// The user's word for it (2.32).
    #[serde(default)]
    pub tag: Option<String>,
    /// Its place in the order in which the guest is booted from its disks; 0 is the root disk, `None`: not booted from.
    #[serde(default)]
    pub boot_index: Option<u32>,
    /// It is deleted with the server.
    #[serde(default)]
    pub delete_on_termination: bool,
    /// Other servers may have it, too.
    #[serde(default)]
    pub shareable: bool,
    /// The guest may only read it.
    #[serde(default)]
    pub read_only: bool,
    /// The one that is taking its place.
    #[serde(default)]
    pub swap: Option<VolumeSwap>,
}

/// A volume that takes another one's place under a running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSwap {
    /// Which.
    pub volume_id: VolumeId,
    /// By which attachments the server has it already.
    #[serde(default)]
    pub holds: Vec<Hold>,
    /// Other servers may have it, too.
    #[serde(default)]
    pub shareable: bool,
    /// The guest may only read it.
    #[serde(default)]
    pub read_only: bool,
}

/// What a volume is to be made of on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeToMake {
    /// Made of this.
    pub source: BlockSource,
    /// GiB; `None`: as large as that.
    #[serde(default)]
    pub size_gb: Option<u64>,
    /// Of the type of this name or id.
    #[serde(default)]
    pub volume_type: Option<String>,
    /// In this zone.
    #[serde(default)]
    pub availability_zone: Option<String>,
}

/// A promise of the volume to the server, and the host that may come to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The attachment.
    pub attachment_id: VolumeAttachmentId,
    /// The host; `None`: none yet.
    #[serde(default)]
    pub host: Option<HostName>,
}

impl ServerVolume {
    /// Is it the disk that the server boots from?
    pub fn is_root(&self) -> bool {
        self.boot_index == Some(0)
    }

    /// The attachment that is for that host.
    pub fn hold_of(&self, host: &HostName) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.host.as_ref() == Some(host))
    }

    /// Is it that volume, or shall that one take its place?
    pub fn is_or_becomes(&self, id: VolumeId) -> bool {
        self.volume_id == id || self.swap.as_ref().is_some_and(|swap| swap.volume_id == id)
    }

    /// All attachments by which the server has it, and the one that is taking its place.
    pub fn all_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.iter().chain(self.swap.iter().flat_map(|swap| &swap.holds))
    }

    /// As it will be once the other one has taken its place; as it is, if none does.
    #[must_use]
    pub fn swapped(&self) -> Self {
        let Some(swap) = self.swap.clone() else { return self.clone() };
        Self {
            volume_id: swap.volume_id,
            holds: swap.holds,
            shareable: swap.shareable,
            read_only: swap.read_only,
            swap: None,
            ..self.clone()
        }
    }

    /// The attachment that is shown: the one of the host that the server is on, or else any.
    pub fn attachment(&self, host: Option<&HostName>) -> Option<VolumeAttachmentId> {
        let here = host.and_then(|host| self.hold_of(host));
        here.or_else(|| self.holds.first()).map(|hold| hold.attachment_id)
    }
}

/// The key of an attachment that a task asks for, for that host or for none: a repetition asks with the same one.
pub fn attachment_key(task: TaskId, volume: VolumeId, host: Option<&HostName>, counter: u64) -> VolumeAttachmentId {
    VolumeAttachmentId::from_uuid(key(task, volume, counter, host.map_or("", HostName::as_str)))
}

/// The key of the snapshot that a task takes of a volume.
pub fn snapshot_key(task: TaskId, volume: VolumeId) -> VolumeSnapshotId {
    VolumeSnapshotId::from_uuid(key(task, volume, 0, "snapshot"))
}

fn key(task: TaskId, volume: VolumeId, counter: u64, word: &str) -> uuid::Uuid {
    // FNV-1a of 128 bits over all of them.
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let (task, volume, counter) = (task.as_uuid().as_bytes(), volume.as_uuid().as_bytes(), counter.to_be_bytes());
    let all = [&task[..], &volume[..], &counter[..], word.as_bytes()];
    for byte in all.into_iter().flatten() {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    }
    uuid::Builder::from_random_bytes(hash.to_be_bytes()).into_uuid()
}

/// The next device name that is free, `/dev/vdb` (nova/compute/utils.py, `get_next_device_name`).
pub fn next_device(prefix: &str, taken: &[&str]) -> String {
    let name = |number: usize| {
        let mut letters = String::new();
        let mut rest = number;
        loop {
            letters.insert(0, char::from(b'a' + u8::try_from(rest % 26).unwrap_or_default()));
            if rest < 26 {
                break;
            }
            rest = rest / 26 - 1;
        }
        format!("/dev/{prefix}{letters}")
    };
    let free = (0..=taken.len()).map(name).find(|name| !taken.contains(&name.as_str()));
    free.unwrap_or_else(|| name(taken.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_again_and_others_for_others() {
        let task = TaskId::from_uuid(uuid::Uuid::from_u128(1));
        let [one, two] = [1, 2].map(|number| VolumeId::from_uuid(uuid::Uuid::from_u128(number)));
        let host = HostName::new("a");
        let key = attachment_key(task, one, Some(&host), 0);
        assert_eq!(key, attachment_key(task, one, Some(&host), 0));
        let others = [
            attachment_key(task, two, Some(&host), 0),
            attachment_key(task, one, None, 0),
            attachment_key(task, one, Some(&HostName::new("b")), 0),
            attachment_key(task, one, Some(&host), 1),
        ];
        assert!(others.iter().all(|other| *other != key));
    }

    #[test]
    fn devices_are_named_in_order() {
        assert_eq!(next_device("vd", &[]), "/dev/vda");
        assert_eq!(next_device("vd", &["/dev/vda", "/dev/vdc"]), "/dev/vdb");
        let many: Vec<String> = (0..26).map(|n| format!("/dev/vd{}", char::from(b'a' + n))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(next_device("vd", &many), "/dev/vdaa");
    }
}
