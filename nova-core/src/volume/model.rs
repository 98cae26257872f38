//! Volumes, snapshots, types, attachments, transfers, pools: as the store keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::connection::{AccessMode, ConnectionInfo, Connector};
use super::{Holds, SnapshotStatus, VolumeStatus};
use crate::ids::{
    HostName, ImageId, InstanceId, ProjectId, UserId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTransferId,
    VolumeTypeId, ZoneName,
};

/// Bytes of a gibibyte, in which volumes are counted.
pub const GIB: u64 = 1 << 30;

/// The type of volumes for which none was named, where operators name none (cinder/volume/volume_types.py).
pub const DEFAULT_TYPE: &str = "__DEFAULT__";

/// `host@backend#pool`: where volumes are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName {
    /// The volume host.
    pub host: HostName,
    /// Its driver's name.
    pub backend: String,
    /// The pool's name.
    pub pool: String,
}

/// The text is no `host@backend#pool`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not host@backend#pool")]
pub struct InvalidPoolName(String);

impl PoolName {
    /// `host@backend`, as services are called.
    pub fn service(&self) -> String {
        format!("{}@{}", self.host, self.backend)
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}", self.host, self.backend, self.pool)
    }
}

impl FromStr for PoolName {
    type Err = InvalidPoolName;

    fn from_str(text: &str) -> Result<Self, InvalidPoolName> {
        let invalid = || InvalidPoolName(text.chars().take(64).collect());
        let (host, rest) = text.split_once('@').ok_or_else(invalid)?;
        let (backend, pool) = rest.split_once('#').ok_or_else(invalid)?;
        if host.is_empty() || backend.is_empty() || pool.is_empty() {
            return Err(invalid());
        }
        Ok(Self { host: host.into(), backend: backend.to_owned(), pool: pool.to_owned() })
    }
}

impl TryFrom<String> for PoolName {
    type Error = InvalidPoolName;

    fn try_from(text: String) -> Result<Self, InvalidPoolName> {
        text.parse()
    }
}

impl From<PoolName> for String {
    fn from(name: PoolName) -> Self {
        name.to_string()
    }
}

/// What a volume host says of a pool, and what is promised of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// The zone that its volumes are in.
    pub zone: ZoneName,
    /// Size in GiB.
    pub total_gb: u64,
    /// What is not written to, in GiB.
    pub free_gb: u64,
    /// What volumes and snapshots there may become, at most: thin pools may promise more than they have.
    pub limit_gb: u64,
    /// Disks take room only for what is written.
    #[serde(default)]
    pub thin: bool,
    /// It can grow a disk that is in use.
    #[serde(default)]
    pub online_extend: bool,
    /// It can give one disk to several hosts.
    #[serde(default)]
    pub multiattach: bool,
    /// It can take snapshots of disks that are in use.
    #[serde(default)]
    pub live_snapshot: bool,
    /// It can copy disks that are in use, and make images of them.
    #[serde(default)]
    pub live_copy: bool,
    /// What types can ask for: `volume_backend_name`, `storage_protocol`, ….
    #[serde(default)]
    pub capabilities: BTreeMap<String, String>,
    /// Sizes of all volumes and snapshots there; the store's to count.
    #[serde(default)]
    pub booked_gb: u64,
    /// How many volumes there are; the store's to count.
    #[serde(default)]
    pub volumes: u64,
    /// When its host last spoke of it.
    pub heard_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

impl Pool {
    /// GiB that may still be promised.
    pub fn room_gb(&self) -> u64 {
        self.limit_gb.saturating_sub(self.booked_gb)
    }
}

/// A disk that outlives servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// The id.
    pub id: VolumeId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who made it.
    pub user_id: UserId,
    /// Display name; not unique, may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Size in GiB.
    pub size_gb: u64,
    /// The size that it is to have, while it grows: room and quota are held for it.
    #[serde(default)]
    pub growing_to_gb: Option<u64>,
    /// Where it is in its life.
    pub status: VolumeStatus,
    /// Where it is; `None`: no pool could take it.
    pub pool: Option<PoolName>,
    /// Its zone.
    pub availability_zone: ZoneName,
    /// Its type.
    pub volume_type_id: Option<VolumeTypeId>,
    /// Servers can boot from it.
    pub bootable: bool,
    /// It may be in several hands.
    pub multiattach: bool,
    /// Nobody may write to it.
    #[serde(default)]
    pub readonly: bool,
    /// Users' labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What is remembered of the image that it was made of.
    #[serde(default)]
    pub image_metadata: BTreeMap<String, String>,
    /// The snapshot that it was made of.
    #[serde(default)]
    pub snapshot_id: Option<VolumeSnapshotId>,
    /// The volume that it was made of.
    #[serde(default)]
    pub source_volid: Option<VolumeId>,
    /// The image that it was made of.
    #[serde(default)]
    pub image_id: Option<ImageId>,
    /// Why the last operation failed, for operators.
    #[serde(default)]
    pub fault: Option<String>,
    /// In whose hands it is. What changes here is written with the volume, under its generation.
    #[serde(default)]
    pub attachments: BTreeMap<VolumeAttachmentId, Attachment>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was ready first.
    #[serde(default)]
    pub launched_at: Option<Timestamp>,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

impl Volume {
    /// GiB that count against pool and quota.
    pub fn booked_gb(&self) -> u64 {
        self.growing_to_gb.unwrap_or(self.size_gb)
    }

    /// In whose hands it is, counted.
    pub fn holds(&self) -> Holds {
        let mut holds = Holds::default();
        for attachment in self.attachments.values() {
            match attachment.status {
                AttachmentStatus::Reserved => holds.reserved += 1,
                AttachmentStatus::Attaching => holds.attaching += 1,
                AttachmentStatus::Attached => holds.attached += 1,
                AttachmentStatus::Detaching => holds.detaching += 1,
            }
        }
        holds
    }
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentStatus {
    /// The volume is promised.
    Reserved,
    /// The host may have it.
    Attaching,
    /// The server has it.
    Attached,
    /// The host may not have it any more; this is being seen to.
    Detaching,
}

impl AttachmentStatus {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

/// A volume in a server's hands, from being promised to it until its host has let go of it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The id.
    pub id: VolumeAttachmentId,
    /// The volume.
    pub volume_id: VolumeId,
    /// The server; `None`: somebody else, as a host that boots from it.
    pub instance_id: Option<InstanceId>,
    /// How far it is.
    pub status: AttachmentStatus,
    /// What may be done with it.
    #[serde(default)]
    pub mode: AccessMode,
    /// The device as the server sees it.
    #[serde(default)]
    pub mountpoint: Option<String>,
    /// What the host said of itself.
    #[serde(default)]
    pub connector: Option<Connector>,
    /// How the host comes to the volume, with what it proves itself by: never logged, never in lists.
    #[serde(default)]
    pub connection_info: Option<ConnectionInfo>,
    /// Since when the server has it.
    #[serde(default)]
    pub attached_at: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl Attachment {
    /// The host that may have the volume.
    pub fn host(&self) -> Option<&str> {
        self.connector.as_ref().map(|connector| connector.host.as_str())
    }
}

/// Without what it is proven by.
impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("id", &self.id)
            .field("volume_id", &self.volume_id)
            .field("instance_id", &self.instance_id)
            .field("status", &self.status)
            .field("host", &self.host())
            .finish_non_exhaustive()
    }
}

/// What a volume was at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The id.
    pub id: VolumeSnapshotId,
    /// Of which volume.
    pub volume_id: VolumeId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Who took it.
    pub user_id: UserId,
    /// Display name; not unique, may be empty.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The volume's size then, in GiB.
    pub size_gb: u64,
    /// Where it is in its life.
    pub status: SnapshotStatus,
    /// Where it is: with its volume.
    pub pool: Option<PoolName>,
    /// Its volume's type.
    pub volume_type_id: Option<VolumeTypeId>,
    /// Users' labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Why the last operation failed, for operators.
    #[serde(default)]
    pub fault: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

/// A kind of volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeType {
    /// The id.
    pub id: VolumeTypeId,
    /// Unique.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// Every project may use it.
    pub is_public: bool,
    /// What its pools must be able to do, and what is done with its volumes.
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use it where not all may.
    #[serde(default)]
    pub projects: BTreeSet<ProjectId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

impl VolumeType {
    /// May this project use it?
    pub fn is_for(&self, project: &ProjectId) -> bool {
        self.is_public || self.projects.contains(project)
    }

    /// Are its volumes for several hands? (`multiattach='<is> True'`)
    pub fn is_multiattach(&self) -> bool {
        self.extra_specs.get("multiattach").is_some_and(|value| asks_for_true(value))
    }
}

fn asks_for_true(value: &str) -> bool {
    value.trim().strip_prefix("<is>").is_some_and(|rest| rest.trim().eq_ignore_ascii_case("true"))
}

/// Would a type with these specs have its volumes in that pool? Specs with a scope other than `capabilities:` are for the
/// driver, not for the choice (cinder/scheduler/filters/capabilities_filter.py). `RESKEY:availability_zones` names zones.
pub fn type_allows(specs: &BTreeMap<String, String>, pool: &Pool) -> bool {
    specs.iter().all(|(key, wanted)| {
        if key == "RESKEY:availability_zones" {
            return wanted.split(',').any(|zone| zone.trim() == pool.zone.as_str());
        }
        let name = match key.split_once(':') {
            Some(("capabilities", name)) => name,
            Some(_) => return true,
            None => key,
        };
        if name == "multiattach" {
            return pool.multiattach || !asks_for_true(wanted);
        }
        pool.capabilities.get(name).is_some_and(|found| matches(found, wanted))
    })
}

/// `<is>`, `<in>`, `<or>`, or the very text.
fn matches(found: &str, wanted: &str) -> bool {
    let wanted = wanted.trim();
    if let Some(flag) = wanted.strip_prefix("<is>") {
        return found.eq_ignore_ascii_case(flag.trim());
    }
    if let Some(part) = wanted.strip_prefix("<in>") {
        return found.contains(part.trim());
    }
    if wanted.starts_with("<or>") {
        return wanted.split("<or>").map(str::trim).any(|one| !one.is_empty() && one == found);
    }
    found == wanted
}

/// An offer of a volume to whoever knows its key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// The id.
    pub id: VolumeTransferId,
    /// The volume.
    pub volume_id: VolumeId,
    /// Whose it was when it was offered.
    pub project_id: ProjectId,
    /// Display name; may be empty.
    pub name: String,
    /// Snapshots stay behind: only a volume without any can be given so.
    pub no_snapshots: bool,
    /// Random, for the digest.
    pub salt: String,
    /// SHA-256 of salt and key; the key itself is told once and kept nowhere.
    pub digest: String,
    /// When it was offered.
    pub created_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub generation: u64,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("id", &self.id).field("volume_id", &self.volume_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(capabilities: &[(&str, &str)]) -> Pool {
        Pool {
            name: "store1@nbd#main".parse().unwrap(),
            zone: "nova".into(),
            total_gb: 100,
            free_gb: 100,
            limit_gb: 200,
            thin: true,
            online_extend: true,
            multiattach: false,
            live_snapshot: false,
            live_copy: false,
            capabilities: capabilities.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            booked_gb: 150,
            volumes: 3,
            heard_at: Timestamp::UNIX_EPOCH,
            generation: 1,
        }
    }

    fn specs(specs: &[(&str, &str)]) -> BTreeMap<String, String> {
        specs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn pools_are_named_as_cinder_names_them() {
        let name: PoolName = "store1@nbd#main".parse().unwrap();
        assert_eq!((name.to_string(), name.service()), ("store1@nbd#main".into(), "store1@nbd".into()));
        for wrong in ["store1", "store1@nbd", "@nbd#main", "store1@#main", "store1@nbd#"] {
            assert!(wrong.parse::<PoolName>().is_err(), "{wrong}");
        }
        assert_eq!(pool(&[]).room_gb(), 50);
    }

    #[test]
    fn types_ask_for_what_pools_can_do() {
        let fast = pool(&[("volume_backend_name", "fast"), ("qos", "True")]);
        for (wanted, fits) in [
            (specs(&[]), true),
            (specs(&[("volume_backend_name", "fast")]), true),
            (specs(&[("volume_backend_name", "slow")]), false),
            (specs(&[("capabilities:qos", "<is> true")]), true),
            (specs(&[("qos", "<is> False")]), false),
            (specs(&[("volume_backend_name", "<or> slow <or> fast")]), true),
            (specs(&[("volume_backend_name", "<in> as")]), true),
            (specs(&[("unknown", "1")]), false),
            (specs(&[("driver:anything", "1")]), true),
            (specs(&[("multiattach", "<is> True")]), false),
            (specs(&[("multiattach", "<is> False")]), true),
            (specs(&[("RESKEY:availability_zones", "east, nova")]), true),
            (specs(&[("RESKEY:availability_zones", "east")]), false),
        ] {
            assert_eq!(type_allows(&wanted, &fast), fits, "{wanted:?}");
        }
    }

    #[test]
    fn nobody_reads_secrets_in_logs() {
        let attachment = Attachment {
            id: VolumeAttachmentId::from_uuid(uuid::Uuid::from_u128(1)),
            volume_id: VolumeId::from_uuid(uuid::Uuid::from_u128(2)),
            instance_id: None,
            status: AttachmentStatus::Attaching,
            mode: AccessMode::ReadWrite,
            mountpoint: None,
            connector: Some(Connector { initiator: Some("canary".into()), ..Connector::of("c1".into()) }),
            connection_info: None,
            attached_at: None,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let shown = format!("{attachment:?}");
        assert!(shown.contains("c1") && !shown.contains("canary"), "{shown}");
    }
}
