//! Limits per project (cinder/quota.py): in all, and of each type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::VolumeTypeId;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeResource {
    /// Volumes.
    Volumes,
    /// Snapshots.
    Snapshots,
    /// GiB of both.
    Gigabytes,
    /// GiB of any one volume: a limit without usage.
    PerVolumeGigabytes,
}

impl VolumeResource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Volumes, Self::Snapshots, Self::Gigabytes, Self::PerVolumeGigabytes];

    /// As clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volumes => "volumes",
            Self::Snapshots => "snapshots",
            Self::Gigabytes => "gigabytes",
            Self::PerVolumeGigabytes => "per_volume_gigabytes",
        }
    }

    /// The resource of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == text)
    }

    /// Cinder's default.
    pub const fn default_limit(self) -> Option<u64> {
        match self {
            Self::Volumes | Self::Snapshots => Some(10),
            Self::Gigabytes => Some(1000),
            Self::PerVolumeGigabytes => None,
        }
    }
}

/// Whose limit it is: of all of a kind, or of those of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeQuotaKey {
    /// What is counted.
    pub resource: VolumeResource,
    /// Of this type only.
    pub volume_type: Option<VolumeTypeId>,
}

impl VolumeQuotaKey {
    /// All of a kind.
    pub const fn of(resource: VolumeResource) -> Self {
        Self { resource, volume_type: None }
    }

    /// Those of one type.
    pub const fn of_type(resource: VolumeResource, volume_type: VolumeTypeId) -> Self {
        Self { resource, volume_type: Some(volume_type) }
    }
}

/// Limits of projects that have none of their own; `None` is without limit. Types have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeLimits(pub BTreeMap<VolumeResource, Option<u64>>);

impl Default for VolumeLimits {
    fn default() -> Self {
        Self(VolumeResource::ALL.into_iter().map(|resource| (resource, resource.default_limit())).collect())
    }
}

impl VolumeLimits {
    /// The limit of a resource.
    pub fn of(&self, key: VolumeQuotaKey) -> Option<u64> {
        match key.volume_type {
            None => self.0.get(&key.resource).copied().flatten(),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cinders() {
        for resource in VolumeResource::ALL {
            assert_eq!(VolumeResource::parse(resource.as_str()), Some(resource));
            assert_eq!(serde_json::to_value(resource).unwrap(), resource.as_str());
        }
        let fast = VolumeTypeId::from_uuid(uuid::Uuid::nil());
        let limits = VolumeLimits::default();
        assert_eq!(limits.of(VolumeQuotaKey::of(VolumeResource::Gigabytes)), Some(1000));
        assert_eq!(limits.of(VolumeQuotaKey::of_type(VolumeResource::Gigabytes, fast)), None);
    }
}
