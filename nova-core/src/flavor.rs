//! Flavors: the sizes in which servers are sold.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{FlavorId, ProjectId};
use crate::topology::asks_dedicated;

/// A size of server (nova/objects/flavor.py). Instances keep a copy of the one that they were made from, so that a
/// flavor may be changed or deleted without touching them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flavor {
    /// What users call it by in `flavorRef`.
    pub id: FlavorId,
    /// Unique display name.
    pub name: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Root disk in GiB; 0 means as large as the image.
    pub root_gb: u64,
    /// Ephemeral disk in GiB.
    #[serde(default)]
    pub ephemeral_gb: u64,
    /// Swap disk in MiB.
    #[serde(default)]
    pub swap_mb: u64,
    /// Network bandwidth factor of old; kept because clients show it.
    #[serde(default = "one")]
    pub rxtx_factor: f64,
    /// Hidden from new servers (nothing sets it any more, as in Nova).
    #[serde(default)]
    pub disabled: bool,
    /// Visible to everyone; otherwise only to the projects in `access`.
    pub is_public: bool,
    /// Free text (2.55).
    #[serde(default)]
    pub description: Option<String>,
    /// `hw:*`, `quota:*`, `trait:*` and others.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use a private flavor.
    #[serde(default)]
    pub access: BTreeSet<ProjectId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
    /// Grows with every change; names the version that a writer read.
    #[serde(default)]
    pub generation: u64,
}

const VCPU: &str = "resources:VCPU";
const MEMORY_MB: &str = "resources:MEMORY_MB";
const DISK_GB: &str = "resources:DISK_GB";

/// More than any host has of anything.
const MOST: u64 = 1 << 40;

/// What extra specs ask for that no host has: resources of other classes (`resources:CUSTOM_GPU`), and of groups of their
/// own (`resources1:VCPU`), by what stands before the amount.
pub fn foreign_resources(extra_specs: &BTreeMap<String, String>) -> Vec<&str> {
    let asked = extra_specs.iter().filter(|(key, amount)| {
        let class = key.strip_prefix("resources").and_then(|rest| rest.split_once(':')).map(|(_, class)| class);
        let amount = amount.trim().parse::<u64>().is_ok_and(|amount| amount > 0);
        class.is_some_and(|class| !class.is_empty()) && amount && ![VCPU, MEMORY_MB, DISK_GB].contains(&key.as_str())
    });
    asked.map(|(key, _)| key.strip_prefix("resources:").unwrap_or(key)).collect()
}

fn one() -> f64 {
    1.0
}

impl Flavor {
    /// What an instance of this flavor takes from its host: what the extra specs `resources:VCPU`, `resources:MEMORY_MB` and
    /// `resources:DISK_GB` say instead of the flavor counts (nova/scheduler/utils.py, `ResourceRequest`). Quota goes by the
    /// flavor itself.
    pub fn resources(&self) -> Resources {
        let disk_gb = self.root_gb + self.ephemeral_gb + self.swap_mb.div_ceil(1024);
        Resources {
            vcpus: self.instead(VCPU).unwrap_or(u64::from(self.vcpus)),
            memory_mb: self.instead(MEMORY_MB).unwrap_or(self.memory_mb),
            disk_gb: self.instead(DISK_GB).unwrap_or(disk_gb),
        }
    }

    /// What is no number, or more than any host has, was never meant.
    fn instead(&self, key: &str) -> Option<u64> {
        self.extra_specs.get(key)?.trim().parse().ok().filter(|amount| *amount <= MOST)
    }

    /// What an instance of this flavor and of an image with these properties books on its host. CPUs of its own are booked
    /// one by one (see [`crate::topology`]), not in the account of those that are shared.
    pub fn booked_resources(&self, image: &BTreeMap<String, String>) -> Resources {
        let all = self.resources();
        if asks_dedicated(&self.extra_specs, image) { Resources { vcpus: 0, ..all } } else { all }
    }

    /// May this project use it?
    pub fn visible_to(&self, project: &ProjectId) -> bool {
        self.is_public || self.access.contains(project)
    }
}

/// Amounts of the three resources that every instance takes: what Placement calls VCPU, MEMORY_MB and DISK_GB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual processors.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in GiB.
    pub disk_gb: u64,
}

impl Resources {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus + other.vcpus,
            memory_mb: self.memory_mb + other.memory_mb,
            disk_gb: self.disk_gb + other.disk_gb,
        }
    }

    /// Of each, the larger amount.
    pub fn larger(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.max(other.vcpus),
            memory_mb: self.memory_mb.max(other.memory_mb),
            disk_gb: self.disk_gb.max(other.disk_gb),
        }
    }

    /// What remains; never below zero.
    pub fn minus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mb: self.memory_mb.saturating_sub(other.memory_mb),
            disk_gb: self.disk_gb.saturating_sub(other.disk_gb),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(extra_specs: &[(&str, &str)]) -> Flavor {
        Flavor {
            id: FlavorId::new("1"),
            name: "small".into(),
            vcpus: 2,
            memory_mb: 512,
            root_gb: 1,
            ephemeral_gb: 2,
            swap_mb: 1025,
            rxtx_factor: 1.0,
            disabled: false,
            is_public: true,
            description: None,
            extra_specs: extra_specs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            access: BTreeSet::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
            generation: 0,
        }
    }

    #[test]
    fn extra_specs_say_what_is_taken_instead() {
        let taken = |specs: &[(&str, &str)]| {
            let Resources { vcpus, memory_mb, disk_gb } = flavor(specs).resources();
            (vcpus, memory_mb, disk_gb)
        };
        assert_eq!(taken(&[]), (2, 512, 5));
        assert_eq!(taken(&[("resources:VCPU", "0"), ("resources:DISK_GB", " 7 ")]), (0, 512, 7));
        assert_eq!(taken(&[("resources:MEMORY_MB", "lots"), ("resources:VCPU", "-1")]), (2, 512, 5));
        assert_eq!(taken(&[("resources:VCPU", "18446744073709551615"), ("resources1:VCPU", "9")]), (2, 512, 5));
    }

    #[test]
    fn what_no_host_has_is_named() {
        let specs = [
            ("resources:CUSTOM_GPU", "1"),
            ("resources:CUSTOM_NONE", "0"),
            ("resources:VCPU", "4"),
            ("resources1:VCPU", "4"),
            ("resources_NET:SRIOV_NET_VF", "1"),
            ("resources:", "1"),
            ("resources:CUSTOM_TEXT", "some"),
            ("hw:cpu_policy", "shared"),
        ];
        let flavor = flavor(&specs);
        let named = foreign_resources(&flavor.extra_specs);
        assert_eq!(named, ["resources1:VCPU", "CUSTOM_GPU", "resources_NET:SRIOV_NET_VF"]);
    }
}
