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

fn one() -> f64 {
    1.0
}

impl Flavor {
    /// What an instance of this flavor takes from its host.
    pub fn resources(&self) -> Resources {
        Resources {
            vcpus: u64::from(self.vcpus),
            memory_mb: self.memory_mb,
            disk_gb: self.root_gb + self.ephemeral_gb + self.swap_mb.div_ceil(1024),
        }
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

    /// What remains; never below zero.
    pub fn minus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mb: self.memory_mb.saturating_sub(other.memory_mb),
            disk_gb: self.disk_gb.saturating_sub(other.disk_gb),
        }
    }
}
