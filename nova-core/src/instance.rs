//! The instance: a server from its request to its deletion.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::flavor::{Flavor, Resources};
use crate::ids::{
    HostName, InstanceId, ProjectId, RequestId, ReservationId, ServerGroupId, UserId, VolumeId, ZoneName,
};
use crate::image::ImageMeta;
use crate::metadata::DevicePlace;
use crate::quota::Usage;
use crate::request::ImageWish;
use crate::server_group::group_of_hints;
use crate::state::{LockedBy, PowerState, Situation, States, TaskState, VmState};
use crate::topology::{self, GuestTopology};
use crate::volume::ServerVolume;

/// Where [`Instance::trusted_certs`] are kept.
const TRUSTED_CERTS: &str = "trusted_certs";
/// What a flavor counts to which the server is being resized, under the names that Nova's `system_metadata` had.
const NEW_VCPUS: &str = "new_instance_type_vcpus";
const NEW_MEMORY_MB: &str = "new_instance_type_memory_mb";

/// A server (nova/objects/instance.py). One row; every change names the generation that it read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The id.
    pub id: InstanceId,
    /// A number of its own, from which hypervisors get the name `instance-%08x`. The store gives it.
    #[serde(default)]
    pub number: i64,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// All servers of one request share it.
    pub reservation_id: ReservationId,
    /// Its place among those.
    #[serde(default)]
    pub launch_index: u32,
    /// The API call that made it.
    pub request_id: RequestId,
    /// Display name.
    pub display_name: String,
    /// Free text (2.19).
    #[serde(default)]
    pub display_description: Option<String>,
    /// The name that the guest gives itself.
    pub hostname: String,
    /// The image as it was then; `None` for boot from volume.
    pub image: Option<ImageMeta>,
    /// Of one that boots from a volume: what that remembers of the image that it was made of, or what the image says that the
    /// server was asked for with (`volume_image_metadata`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volume_image: BTreeMap<String, String>,
    /// The flavor as it was then.
    pub flavor: Flavor,
    /// Blank disks on its host, where it was asked for others than its flavor has.
    #[serde(default, skip_serializing_if = "LocalDisks::is_as_flavor")]
    pub local_disks: LocalDisks,
    /// The volumes that it has, or is to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ServerVolume>,
    /// Where its guest has the devices that have a tag, as its host said last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_places: Vec<DevicePlace>,
    /// The key's name.
    #[serde(default)]
    pub key_name: Option<String>,
    /// The key itself.
    #[serde(default)]
    pub key_data: Option<String>,
    /// Base64, at most 65535 characters.
    #[serde(default)]
    pub user_data: Option<String>,
    /// Asked for with the server.
    #[serde(default)]
    pub config_drive: bool,
    /// The user's labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Tags (2.26).
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Zone of the host that it is on.
    #[serde(default)]
    pub availability_zone: Option<ZoneName>,
    /// Zone that was asked for and binds every move (2.96).
    #[serde(default)]
    pub pinned_availability_zone: Option<ZoneName>,
    /// Hints to the scheduler, as given (2.100 shows them).
    #[serde(default)]
    pub scheduler_hints: BTreeMap<String, serde_json::Value>,
    /// The host that it is on.
    #[serde(default)]
    pub host: Option<HostName>,
    /// The hypervisor on that host.
    #[serde(default)]
    pub node: Option<String>,
    /// Stable state.
    pub vm_state: VmState,
    /// What runs now.
    #[serde(default)]
    pub task_state: Option<TaskState>,
    /// The stable state from before a suspension or a resize, to which the way back leads (Nova's `old_vm_state`).
    #[serde(default)]
    pub previous_vm_state: Option<VmState>,
    /// When it was soft-deleted: from then on `reclaim_instance_interval` counts.
    #[serde(default)]
    pub soft_deleted_at: Option<Timestamp>,
    /// Extras of Nova's `system_metadata` that operations keep with the server: `password_0`… of os-server-password.
    #[serde(default)]
    pub system_metadata: BTreeMap<String, String>,
    /// Last reading of the hypervisor.
    pub power_state: PowerState,
    /// Per cent.
    #[serde(default)]
    pub progress: u8,
    /// Who locked it.
    #[serde(default)]
    pub locked: Option<LockedBy>,
    /// Why (2.73).
    #[serde(default)]
    pub locked_reason: Option<String>,
    /// As the user set it.
    #[serde(default)]
    pub access_ip_v4: Option<String>,
    /// As the user set it, in canonical form.
    #[serde(default)]
    pub access_ip_v6: Option<String>,
    /// `OS-DCF:diskConfig` is AUTO.
    #[serde(default)]
    pub auto_disk_config: bool,
    /// Names of security groups asked for.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// The latest fault.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it first ran.
    #[serde(default)]
    pub launched_at: Option<Timestamp>,
    /// When it was stopped for good.
    #[serde(default)]
    pub terminated_at: Option<Timestamp>,
    /// When it was deleted.
    #[serde(default)]
    pub deleted_at: Option<Timestamp>,
    /// Fencing token: grows with every task; hosts refuse what carries a lower one than they have seen.
    #[serde(default)]
    pub epoch: u64,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

/// Blank disks on a server's host that are not simply those of its flavor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalDisks {
    /// Sizes of ephemeral disks in GiB; none: one as large as the flavor's.
    #[serde(default)]
    pub ephemeral_gb: Vec<u64>,
    /// Swap space in MiB; `None`: as much as the flavor's.
    #[serde(default)]
    pub swap_mb: Option<u64>,
}

impl LocalDisks {
    fn is_as_flavor(&self) -> bool {
        *self == Self::default()
    }
}

impl Instance {
    /// Sizes of its ephemeral disks, GiB.
    pub fn ephemerals_gb(&self) -> Vec<u64> {
        let all = &self.local_disks.ephemeral_gb;
        let of_flavor = Some(self.flavor.ephemeral_gb).filter(|size| *size > 0 && all.is_empty());
        all.iter().copied().chain(of_flavor).collect()
    }

    /// Its swap space in MiB: never more than its flavor has by now.
    pub fn swap_mb(&self) -> u64 {
        self.local_disks.swap_mb.unwrap_or(self.flavor.swap_mb).min(self.flavor.swap_mb)
    }

    /// What it books on its host.
    pub fn booked_resources(&self) -> Resources {
        let booked = self.flavor.booked_resources(self.image_properties());
        // Its root disk is a volume, and none of the host's.
        let volume = if self.root_volume().is_some() { self.flavor.root_gb } else { 0 };
        Resources { disk_gb: booked.disk_gb.saturating_sub(volume), ..booked }
    }

    /// `hw_*`, `os_*` and others, of what it boots from.
    pub fn image_properties(&self) -> &BTreeMap<String, String> {
        self.image.as_ref().map_or(&self.volume_image, |image| &image.properties)
    }

    /// What filters read of what it boots from.
    pub fn image_wish(&self) -> Option<ImageWish> {
        match &self.image {
            Some(image) => Some(ImageWish { id: image.id, properties: image.properties.clone() }),
            None => ImageWish::of_volume(&self.volume_image),
        }
    }

    /// The volume that it boots from.
    pub fn root_volume(&self) -> Option<&ServerVolume> {
        self.volumes.iter().find(|volume| volume.is_root())
    }

    /// A volume of its own.
    pub fn volume(&self, id: VolumeId) -> Option<&ServerVolume> {
        self.volumes.iter().find(|volume| volume.volume_id == id)
    }

    /// The cells, CPUs and pages that it asks for. What it could not ask for was refused when it was made.
    pub fn topology(&self) -> Option<GuestTopology> {
        let flavor = &self.flavor;
        topology::asked(&flavor.extra_specs, self.image_properties(), flavor.vcpus, flavor.memory_mb).ok().flatten()
    }

    /// What it counts against its project's limits: nothing once it is deleted, and nothing while it is soft-deleted, unless
    /// it is being restored (nova/objects/instance.py, `InstanceList.get_counts`).
    pub fn usage(&self) -> Usage {
        let waits = self.vm_state == VmState::SoftDelete && self.task_state != Some(TaskState::Restoring);
        if self.is_deleted() || waits {
            return Usage::default();
        }
        let new = |key| self.system_metadata.get(key).and_then(|text| text.parse().ok()).unwrap_or(0);
        let cores = u64::from(self.flavor.vcpus).max(new(NEW_VCPUS));
        Usage { instances: 1, cores, ram: self.flavor.memory_mb.max(new(NEW_MEMORY_MB)) }
    }

    /// While it is being resized it counts for the larger of both flavors, from the transaction in which that began. `None`: it
    /// is what it is.
    pub fn set_resizing_to(&mut self, flavor: Option<&Flavor>) {
        match flavor {
            Some(flavor) => {
                self.system_metadata.insert(NEW_VCPUS.to_owned(), flavor.vcpus.to_string());
                self.system_metadata.insert(NEW_MEMORY_MB.to_owned(), flavor.memory_mb.to_string());
            }
            None => [NEW_VCPUS, NEW_MEMORY_MB].iter().for_each(|key| drop(self.system_metadata.remove(*key))),
        }
    }

    /// The three states together.
    pub fn states(&self) -> States {
        States { vm_state: self.vm_state, task_state: self.task_state, power_state: self.power_state }
    }

    /// Takes over all three states.
    pub fn set_states(&mut self, states: States) {
        self.vm_state = states.vm_state;
        self.task_state = states.task_state;
        self.power_state = states.power_state;
    }

    /// What [`crate::state::decide`] needs to know of it.
    pub fn situation(&self, caller_is_admin: bool, host_up: bool, microversion: u16) -> Situation {
        Situation {
            vm_state: self.vm_state,
            task_state: self.task_state,
            power_state: self.power_state,
            locked: self.locked,
            launched: self.launched_at.is_some(),
            has_host: self.host.is_some(),
            host_up,
            caller_is_admin,
            microversion,
            volume_backed: self.image.is_none(),
            swaps_volume: self.volumes.iter().any(|volume| volume.swap.is_some()),
        }
    }

    /// Is it gone?
    pub fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// Certificates that a signed image was to be held against (2.63), as they were named.
    pub fn trusted_certs(&self) -> Option<Vec<String>> {
        self.system_metadata.get(TRUSTED_CERTS).and_then(|text| serde_json::from_str(text).ok())
    }

    /// Keeps them with the server; none of them forgets what was kept.
    pub fn set_trusted_certs(&mut self, ids: Option<&[String]>) {
        match ids {
            Some(ids) => {
                let list = ids.iter().map(|id| serde_json::Value::String(id.clone())).collect();
                self.system_metadata.insert(TRUSTED_CERTS.to_owned(), serde_json::Value::Array(list).to_string());
            }
            None => drop(self.system_metadata.remove(TRUSTED_CERTS)),
        }
    }

    /// The server group that it was made for; it may be gone since.
    pub fn group(&self) -> Option<ServerGroupId> {
        group_of_hints(&self.scheduler_hints)
    }
}

/// The hypervisor's name for an instance (`DEFAULT.instance_name_template`): `%08x`, `%x` and `%d` stand for its number,
/// `%(uuid)s` for its id.
pub fn hypervisor_name(template: &str, number: i64, id: InstanceId) -> String {
    template
        .replace("%(uuid)s", &id.to_string())
        .replace("%08x", &format!("{number:08x}"))
        .replace("%x", &format!("{number:x}"))
        .replace("%d", &number.to_string())
}

/// A host name that a guest may take, made of a display name (nova/utils.py, `sanitize_hostname`).
pub fn sanitize_hostname(name: &str, fallback: &str) -> String {
    let mapped: String = name
        .chars()
        .filter_map(|c| match c {
            ' ' | '_' | '.' => Some('-'),
            c if c.is_ascii_alphanumeric() || c == '-' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .take(63)
        .collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() { fallback.to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypervisor_names_follow_the_template() {
        let id = InstanceId::from_uuid(uuid::Uuid::nil());
        assert_eq!(hypervisor_name("instance-%08x", 255, id), "instance-000000ff");
        assert_eq!(hypervisor_name("vm-%d-%(uuid)s", 7, id), "vm-7-00000000-0000-0000-0000-000000000000");
    }

    #[test]
    fn host_names_keep_what_dns_takes() {
        assert_eq!(sanitize_hostname("My Server_1.example", "x"), "my-server-1-example");
        assert_eq!(sanitize_hostname("日本", "server-1"), "server-1");
        assert_eq!(sanitize_hostname("-a-", "x"), "a");
        assert_eq!(sanitize_hostname(&"a".repeat(100), "x").len(), 63);
    }
}
