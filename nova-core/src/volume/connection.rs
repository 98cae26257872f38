//! How a host reaches a volume: what the volume's driver tells it, and what the host says of itself before
//! (Cinder's `connection_info` and `connector`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ids::{HostName, VolumeId};

/// What a host must know to reach one volume, for one attachment. In JSON it is flat, with Cinder's keys where Cinder has
/// the protocol: `driver_volume_type` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// The volume. The host checks that it found this one, and no other, before a guest sees it (OSSA-2023-003).
    pub volume_id: VolumeId,
    /// Whether it may be written.
    #[serde(default)]
    pub access_mode: AccessMode,
    /// Where it is.
    #[serde(flatten)]
    pub target: ConnectionTarget,
}

/// Whether a volume may be written through an attachment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AccessMode {
    /// Read and written.
    #[default]
    #[serde(rename = "rw")]
    ReadWrite,
    /// Only read.
    #[serde(rename = "ro")]
    ReadOnly,
}

impl AccessMode {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
        }
    }
}

/// Where a volume's bytes are, as one host sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver_volume_type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ConnectionTarget {
    /// A network block device export. Its bytes are the disk's, whatever is behind it.
    Nbd(NbdTarget),
    /// A logical unit of an iSCSI target. Its bytes are the disk's.
    Iscsi(IscsiTarget),
    /// A file on the host, its own or on a file system that hosts share.
    File(FileTarget),
    /// A block device on the host.
    Local(DeviceTarget),
}

impl ConnectionTarget {
    /// The word of `driver_volume_type`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Nbd(_) => "nbd",
            Self::Iscsi(_) => "iscsi",
            Self::File(_) => "file",
            Self::Local(_) => "local",
        }
    }

    /// Whether the place means the same on every host, so that a guest takes it along when it moves.
    pub const fn is_network(&self) -> bool {
        matches!(self, Self::Nbd(_) | Self::Iscsi(_))
    }
}

/// An NBD export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NbdTarget {
    /// Address of the server: an IP address or a host name.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The export's name.
    pub export: String,
    /// How the two sides prove who they are; `None`: neither does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<NbdTls>,
}

/// TLS of an NBD export. The host has its material (`ca-cert.pem`, `client-cert.pem`, `client-key.pem`) already, where its
/// hypervisor looks for it; none of it travels with an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NbdTls {
    /// The name that the server's certificate has to have.
    pub server_name: String,
}

/// A logical unit of an iSCSI target, with the keys of Cinder's iSCSI drivers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IscsiTarget {
    /// `address:port`, `[address]:port` for IPv6.
    pub target_portal: String,
    /// The target's name, `iqn.…`.
    pub target_iqn: String,
    /// The logical unit.
    pub target_lun: u32,
    /// The name and password with which a host logs in.
    #[serde(flatten)]
    pub auth: Option<ChapSecret>,
}

/// A name and a password of CHAP (RFC 3720, section 11.1). The password is in no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChapSecret {
    /// Always `CHAP`.
    pub auth_method: ChapMethod,
    /// The name.
    pub auth_username: String,
    /// The password.
    pub auth_password: String,
}

/// The one method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChapMethod {
    /// Challenge handshake.
    #[default]
    #[serde(rename = "CHAP")]
    Chap,
}

impl fmt::Debug for IscsiTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IscsiTarget")
            .field("target_portal", &self.target_portal)
            .field("target_iqn", &self.target_iqn)
            .field("target_lun", &self.target_lun)
            .field("auth", &self.auth)
            .finish()
    }
}

impl fmt::Debug for ChapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChapSecret").field("auth_username", &self.auth_username).finish_non_exhaustive()
    }
}

/// A file that is a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTarget {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// What its bytes are. It is never guessed from them: a guest wrote them.
    pub format: FileFormat,
}

/// How the bytes of a volume's file are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// As the guest sees them.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

impl FileFormat {
    /// The name by which QEMU's programs and libvirt know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A block device on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTarget {
    /// Absolute path, `/dev/…`.
    pub device_path: PathBuf,
}

/// What a host says of itself when it asks for a volume (`os-brick`'s connector properties). Drivers let in whom it names; the
/// service must have checked that the attachment is this host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connector {
    /// The host's name.
    pub host: HostName,
    /// The address from which it comes.
    #[serde(default)]
    pub ip: Option<String>,
    /// The name with which it logs in to iSCSI targets.
    #[serde(default)]
    pub initiator: Option<String>,
    /// The device that the guest sees it as.
    #[serde(default)]
    pub mountpoint: Option<String>,
    /// Whatever else was said: kept, never looked at.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Connector {
    /// Of a host, nothing but its name.
    pub fn of(host: HostName) -> Self {
        Self { host, ip: None, initiator: None, mountpoint: None, other: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume() -> VolumeId {
        "00000000-0000-4000-8000-00000000000a".parse().unwrap()
    }

    fn iscsi(auth: Option<ChapSecret>) -> ConnectionInfo {
        let target = IscsiTarget {
            target_portal: "192.0.2.1:3260".into(),
            target_iqn: "iqn.2010-10.org.openstack:volume-a".into(),
            target_lun: 1,
            auth,
        };
        ConnectionInfo {
            volume_id: volume(),
            access_mode: AccessMode::ReadWrite,
            target: ConnectionTarget::Iscsi(target),
        }
    }

    fn chap() -> ChapSecret {
        ChapSecret { auth_method: ChapMethod::Chap, auth_username: "nova".into(), auth_password: "canary-1234".into() }
    }

    #[test]
    fn iscsi_has_cinders_keys_and_comes_back() {
        let info = iscsi(Some(chap()));
        let value = serde_json::to_value(&info).unwrap();
        let expected = json!({
            "volume_id": volume(), "access_mode": "rw", "driver_volume_type": "iscsi",
            "target_portal": "192.0.2.1:3260", "target_iqn": "iqn.2010-10.org.openstack:volume-a", "target_lun": 1,
            "auth_method": "CHAP", "auth_username": "nova", "auth_password": "canary-1234",
        });
        assert_eq!(value, expected);
        assert_eq!(serde_json::from_value::<ConnectionInfo>(value).unwrap(), info);
        let open = iscsi(None);
        let value = serde_json::to_value(&open).unwrap();
        assert!(value.get("auth_method").is_none());
        assert_eq!(serde_json::from_value::<ConnectionInfo>(value).unwrap(), open);
    }

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", iscsi(Some(chap())));
        assert!(shown.contains("nova") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn the_others_come_back_too() {
        let nbd = NbdTarget {
            host: "192.0.2.1".into(),
            port: 10809,
            export: "e".into(),
            tls: Some(NbdTls { server_name: "volumes1".into() }),
        };
        let file = FileTarget { path: "/v/volume-a".into(), format: FileFormat::Qcow2 };
        let device = DeviceTarget { device_path: "/dev/nova-volumes/volume-a".into() };
        for (target, kind, network) in [
            (ConnectionTarget::Nbd(nbd), "nbd", true),
            (ConnectionTarget::File(file), "file", false),
            (ConnectionTarget::Local(device), "local", false),
        ] {
            assert_eq!((target.as_str(), target.is_network()), (kind, network));
            let info = ConnectionInfo { volume_id: volume(), access_mode: AccessMode::ReadOnly, target };
            let value = serde_json::to_value(&info).unwrap();
            assert_eq!(value["driver_volume_type"], kind);
            assert_eq!(value["access_mode"], "ro");
            assert_eq!(serde_json::from_value::<ConnectionInfo>(value).unwrap(), info);
        }
    }

    #[test]
    fn a_connector_of_another_cloud_is_kept_whole() {
        let said = json!({
            "host": "compute1", "ip": "192.0.2.7", "initiator": "iqn.x", "mountpoint": null,
            "platform": "x86_64", "os_type": "linux", "multipath": false,
        });
        let connector: Connector = serde_json::from_value(said.clone()).unwrap();
        assert_eq!(connector.host.as_str(), "compute1");
        assert_eq!(connector.other.len(), 3);
        assert_eq!(serde_json::to_value(&connector).unwrap(), said);
        assert_eq!(serde_json::from_value::<Connector>(json!({"host": "h"})).unwrap(), Connector::of("h".into()));
    }
}
