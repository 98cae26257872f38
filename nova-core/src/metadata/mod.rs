//! What a guest may learn about itself, and the form in which it asks (nova/api/metadata/base.py).
//!
//! [`InstanceMetadata`] is all of it; [`lookup`] is the whole metadata service but for the sockets: a path in, a document
//! out. [`config_drive`] writes the same documents as files. Two trees are served: OpenStack's own, as JSON, and the one of
//! Amazon's EC2, one value for each path.

mod devices;
mod ec2;
mod network_data;
mod openstack;
mod password;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::entropy::Entropy;
use crate::ids::{InstanceId, ProjectId};
use crate::network::Vif;

pub use devices::{DeviceBus, DevicePlace, GuestDevice, TaggedVolume, put_places, tells_of_devices};
pub use network_data::network_data;
pub use password::{LONGEST_PASSWORD, as_password, keep_password, kept_password, takes_password};

/// All that a guest may learn about itself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceMetadata {
    /// The server.
    pub instance_id: InstanceId,
    /// Its number, from which EC2's id `i-%08x` is made.
    #[serde(default)]
    pub number: i64,
    /// Whose it is.
    pub project_id: ProjectId,
    /// The name that its user gave.
    pub name: String,
    /// The name that it should give itself, with the domain where there is one.
    pub hostname: String,
    /// The request that made it.
    #[serde(default)]
    pub reservation_id: String,
    /// Its place among the servers of that request.
    #[serde(default)]
    pub launch_index: u32,
    /// Its zone.
    #[serde(default)]
    pub availability_zone: Option<String>,
    /// Public keys to let in.
    #[serde(default)]
    pub keys: Vec<GuestKey>,
    /// Base64, as its user gave it.
    #[serde(default)]
    pub user_data: Option<String>,
    /// The user's labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The flavor's name.
    #[serde(default)]
    pub flavor_name: String,
    /// What it was made from; `None`: a volume.
    #[serde(default)]
    pub image_id: Option<String>,
    /// Names of its security groups.
    #[serde(default)]
    pub security_groups: Vec<String>,
    /// Its disks, in the order in which it sees them.
    #[serde(default)]
    pub disks: Vec<GuestDisk>,
    /// CPUs of the guest that have one of the host's for themselves.
    #[serde(default)]
    pub dedicated_cpus: Vec<u32>,
    /// Its interfaces, in order.
    #[serde(default)]
    pub vifs: Vec<Vif>,
    /// Its volumes that have a tag.
    #[serde(default)]
    pub tagged_volumes: Vec<TaggedVolume>,
    /// Where it finds its devices, as far as its host has said.
    #[serde(default)]
    pub places: Vec<DevicePlace>,
    /// What the operator tells every guest (`vendor_data.json`).
    #[serde(default)]
    pub vendor_data: Map<String, Value>,
    /// First administrator password; only ever on a config drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_password: Option<String>,
    /// What the guest itself left for its owner, encrypted; empty: nothing. Never on a config drive.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub password: String,
}

impl std::fmt::Debug for InstanceMetadata {
    /// Without what users keep secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceMetadata").field("instance_id", &self.instance_id).finish_non_exhaustive()
    }
}

/// A public key with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestKey {
    /// The name.
    pub name: String,
    /// One line in OpenSSH's form, or an X.509 certificate.
    pub data: String,
}

impl GuestKey {
    /// `ssh` or `x509`, told from the key itself.
    pub fn kind(&self) -> &'static str {
        if self.data.trim_start().starts_with("-----BEGIN CERTIFICATE") { "x509" } else { "ssh" }
    }
}

/// What a disk is, to its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestDisk {
    /// What it boots from.
    Root,
    /// Empty extra space.
    Ephemeral,
    /// Swap space.
    Swap,
}

impl GuestDisk {
    /// The disks of a server with so many ephemeral ones, in the order in which drivers attach them.
    pub fn all(root: bool, ephemerals: usize, swap: bool) -> Vec<Self> {
        let root = root.then_some(Self::Root).into_iter();
        let ephemerals = std::iter::repeat_n(Self::Ephemeral, ephemerals);
        root.chain(ephemerals).chain(swap.then_some(Self::Swap)).collect()
    }
}

/// A document that a guest asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `text/plain` or `application/json`.
    pub content_type: &'static str,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Document {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        Self { content_type: "text/plain; charset=UTF-8", body: body.into() }
    }

    fn json(value: &Value) -> Self {
        Self { content_type: "application/json", body: value.to_string().into_bytes() }
    }
}

/// The answer to a path; `None`: there is nothing. Slashes at the end, and more than one in a row, do not matter. `entropy`
/// fills `random_seed`, so it must be fit for secrets.
pub fn lookup(about: &InstanceMetadata, path: &str, entropy: &dyn Entropy) -> Option<Document> {
    let mut tokens = tokens(path)?;
    match tokens.first().copied() {
        Some("openstack") => openstack::answer(about, &tokens[1..], entropy),
        Some("ec2") => {
            tokens.remove(0);
            ec2::answer(about, &tokens)
        }
        _ => ec2::answer(about, &tokens),
    }
}

/// The answer to `/`, which needs no instance.
pub fn versions() -> Document {
    ec2::versions()
}

/// Is it the path of the list of versions, which needs no instance?
pub fn is_root(path: &str) -> bool {
    tokens(path).is_some_and(|tokens| tokens.is_empty())
}

/// The parts of a path, `.` and `..` resolved; `None` for one that no document can have.
fn tokens(path: &str) -> Option<Vec<&str>> {
    const LONGEST: usize = 1024;
    if path.len() > LONGEST {
        return None;
    }
    let mut tokens = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(tokens.pop()),
            part => tokens.push(part),
        }
    }
    Some(tokens)
}

/// The files of a guest's config drive, by path (nova/virt/configdrive.py).
pub fn config_drive(about: &InstanceMetadata, entropy: &dyn Entropy) -> BTreeMap<String, Vec<u8>> {
    let mut files = openstack::files(about, entropy);
    files.extend(ec2::files(about));
    files
}

/// The user data as the guest reads it. The API has checked that it is base64.
fn user_data(about: &InstanceMetadata) -> Option<Vec<u8>> {
    use base64::Engine;
    let text: String = about.user_data.as_deref()?.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
