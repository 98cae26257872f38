//! Images: what servers boot from, and what an instance remembers of the one that it was made from.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ImageId, ProjectId};

/// Where an image is in its life (Glance v2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStatus {
    /// Described, no data yet.
    Queued,
    /// Data is being written.
    Saving,
    /// Ready.
    Active,
    /// Taking the data failed.
    Killed,
    /// Switched off by an administrator.
    Deactivated,
    /// Gone.
    Deleted,
}

impl ImageStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Saving => "saving",
            Self::Active => "active",
            Self::Killed => "killed",
            Self::Deactivated => "deactivated",
            Self::Deleted => "deleted",
        }
    }
}

/// Who may see an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everyone, in every list.
    Public,
    /// Everyone who knows the id.
    Community,
    /// The owner and members.
    Shared,
    /// The owner.
    Private,
}

impl Visibility {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Community => "community",
            Self::Shared => "shared",
            Self::Private => "private",
        }
    }
}

/// What a project made of being shown an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberStatus {
    /// Nothing yet: it sees the image by its id, not in its lists.
    Pending,
    /// It wants it in its lists.
    Accepted,
    /// It does not.
    Rejected,
}

impl MemberStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// A project to which a shared image is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMember {
    /// What it made of it.
    pub status: MemberStatus,
    /// Since when it is shown.
    pub created_at: Timestamp,
    /// When the project last said something.
    pub updated_at: Timestamp,
}

/// An image as the image service keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The id.
    pub id: ImageId,
    /// Display name; not unique.
    pub name: Option<String>,
    /// Where it is in its life.
    pub status: ImageStatus,
    /// Who may see it.
    pub visibility: Visibility,
    /// The project that owns it.
    pub owner: ProjectId,
    /// `qcow2`, `raw`, `iso`, … as declared; data of another format is refused.
    pub disk_format: Option<String>,
    /// `bare` and others; never looked at.
    pub container_format: Option<String>,
    /// Bytes stored.
    pub size: Option<u64>,
    /// Bytes as a disk, read from the data's own header.
    pub virtual_size: Option<u64>,
    /// MD5 of the data, as clients expect it.
    pub checksum: Option<String>,
    /// SHA-512 of the data.
    pub os_hash_value: Option<String>,
    /// The least memory in MiB to boot it with.
    pub min_ram: u64,
    /// The least root disk in GiB to boot it with.
    pub min_disk: u64,
    /// May not be deleted.
    pub protected: bool,
    /// Left out of lists.
    pub os_hidden: bool,
    /// Labels.
    pub tags: BTreeSet<String>,
    /// Everything else that clients attach.
    pub properties: BTreeMap<String, String>,
    /// Projects that a `shared` image is shown to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<ProjectId, ImageMember>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

/// What an instance remembers of its image, so that the image may go (nova/objects/image_meta.py).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMeta {
    /// The image.
    pub id: ImageId,
    /// Its name then.
    #[serde(default)]
    pub name: Option<String>,
    /// The data's format, verified at upload.
    pub disk_format: String,
    /// Bytes stored.
    pub size: u64,
    /// SHA-512 of the data: hosts check what they fetched.
    pub sha512: String,
    /// The least memory in MiB.
    #[serde(default)]
    pub min_ram: u64,
    /// The least root disk in GiB.
    #[serde(default)]
    pub min_disk: u64,
    /// Bytes as a disk.
    #[serde(default)]
    pub virtual_size: u64,
    /// `hw_*`, `os_*`, `architecture` and others.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// What a volume remembers of its image besides the image's properties (cinder/volume/flows/manager/create_volume.py).
pub const REMEMBERED: &[&str] =
    &["image_id", "image_name", "checksum", "container_format", "disk_format", "min_disk", "min_ram", "size"];

impl ImageMeta {
    /// What a volume that is made of it remembers.
    pub fn remembered(&self) -> BTreeMap<String, String> {
        let mut kept = self.properties.clone();
        let own = [
            ("image_id", self.id.to_string()),
            ("image_name", self.name.clone().unwrap_or_default()),
            ("disk_format", self.disk_format.clone()),
            ("container_format", "bare".to_owned()),
            ("min_disk", self.min_disk.to_string()),
            ("min_ram", self.min_ram.to_string()),
            ("size", self.size.to_string()),
        ];
        kept.extend(own.map(|(key, value)| (key.to_owned(), value)));
        kept
    }
}

/// A number that a volume remembers of its image, `min_ram` or `min_disk`; 0 where it does not.
pub fn remembered_number(remembered: &BTreeMap<String, String>, key: &str) -> u64 {
    remembered.get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Leave to read the data of one image for a while: made by the conductor, carried by an order, checked by the image
/// service. Whoever holds it has that leave, so it is not shown. What is in it is its maker's business.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageGrant(String);

impl ImageGrant {
    /// The name of the HTTP header that carries it.
    pub const HEADER: &'static str = "x-image-grant";

    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text, for whoever sends or checks it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for ImageGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImageGrant(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::ImageGrant;

    #[test]
    fn a_grant_is_a_text_that_is_not_shown() {
        let grant = ImageGrant::new("17.abc");
        assert_eq!(serde_json::to_string(&grant).unwrap(), "\"17.abc\"");
        assert!(!format!("{grant:?}").contains("abc"));
    }
}
