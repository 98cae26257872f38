//! Volumes in guests: disks that were made elsewhere, and stay when the guest goes.

use std::net::IpAddr;
use std::path::Path;

use nova_core::ids::VolumeId;
use nova_core::volume::connection::{AccessMode, ConnectionInfo, ConnectionTarget};
use serde::{Deserialize, Serialize};

use crate::HypervisorError;

/// A volume in a guest. Its serial number there is the volume's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskAttachment {
    /// Which volume, and how this host reaches it.
    pub connection: ConnectionInfo,
    /// The device name wished for, `vdb`; `None`, or a name that is taken or of another kind: the next free one.
    #[serde(default)]
    pub device_name: Option<String>,
    /// The guest boots from it.
    #[serde(default)]
    pub boot: bool,
    /// Other guests have it too.
    #[serde(default)]
    pub shareable: bool,
}

/// A volume that a guest has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachedDisk {
    /// The volume.
    pub volume: VolumeId,
    /// The device name in the guest.
    pub device: String,
}

impl DiskAttachment {
    /// A volume by itself.
    pub fn new(connection: ConnectionInfo) -> Self {
        Self { connection, device_name: None, boot: false, shareable: false }
    }

    /// The same without the password with which the host logs in: for others than that host.
    #[must_use]
    pub fn without_secret(&self) -> Self {
        let mut shown = self.clone();
        if let ConnectionTarget::Iscsi(iscsi) = &mut shown.connection.target
            && let Some(auth) = &mut iscsi.auth
        {
            auth.auth_password.clear();
        }
        shown
    }

    /// The volume.
    pub fn volume(&self) -> VolumeId {
        self.connection.volume_id
    }

    /// Whether the guest may only read.
    pub fn read_only(&self) -> bool {
        self.connection.access_mode == AccessMode::ReadOnly
    }

    /// The device name wished for, without `/dev/`.
    pub fn wished_name(&self) -> Option<&str> {
        self.device_name.as_deref().map(|name| name.strip_prefix("/dev/").unwrap_or(name))
    }

    /// Refuses what no driver could reach, naming the field. Drivers call it first.
    pub fn validate(&self) -> Result<(), HypervisorError> {
        let wrong = |field: &str, problem: &str| Err(HypervisorError::invalid(format!("volume.{field}"), problem));
        if let Some(name) = self.wished_name()
            && !((3..=8).contains(&name.len()) && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
        {
            return wrong("device_name", "is no name of a disk");
        }
        match &self.connection.target {
            ConnectionTarget::Nbd(nbd) => {
                if !is_host(&nbd.host) || nbd.port == 0 {
                    return wrong("host", "is no address of a server");
                }
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                if !(1..=255).contains(&nbd.export.len()) || !nbd.export.chars().all(plain) {
                    return wrong("export", "is no name of an export");
                }
                match &nbd.tls {
                    Some(tls) if !is_host(&tls.server_name) => wrong("tls", "names no server"),
                    _ => Ok(()),
                }
            }
            ConnectionTarget::Iscsi(iscsi) => {
                if iscsi_portal(&iscsi.target_portal).is_none() {
                    return wrong("target_portal", "is no address of a target");
                }
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
                if !(1..=223).contains(&iscsi.target_iqn.len()) || !iscsi.target_iqn.chars().all(plain) {
                    return wrong("target_iqn", "is no name of a target");
                }
                let word = |text: &str| !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control);
                match &iscsi.auth {
                    Some(auth) if !word(&auth.auth_username) || !word(&auth.auth_password) => {
                        wrong("auth", "has an empty or unreadable name or password")
                    }
                    _ => Ok(()),
                }
            }
            ConnectionTarget::File(file) if !is_plain_path(&file.path) => wrong("path", "must be absolute and plain"),
            ConnectionTarget::Local(device) if !is_plain_path(&device.device_path) => {
                wrong("device_path", "must be absolute and plain")
            }
            ConnectionTarget::File(_) | ConnectionTarget::Local(_) => Ok(()),
            _ => wrong("driver_volume_type", "is not known here"),
        }
    }
}

/// Address and port of an iSCSI portal.
pub(crate) fn iscsi_portal(portal: &str) -> Option<(&str, u16)> {
    let (host, port) = portal.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host(host).then_some((host, port))
}

fn is_host(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    name.parse::<IpAddr>().is_ok()
        || ((1..=253).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.']))
}

fn is_plain_path(path: &Path) -> bool {
    let text = path.to_str().is_some_and(|text| !text.contains(char::is_control));
    text && path.is_absolute() && !path.components().any(|part| matches!(part, std::path::Component::ParentDir))
}

#[cfg(test)]
mod tests {
    use nova_core::volume::connection::{
        ChapMethod, ChapSecret, FileFormat, FileTarget, IscsiTarget, NbdTarget, NbdTls,
    };

    use super::*;

    fn attachment(target: ConnectionTarget) -> DiskAttachment {
        let volume_id = "00000000-0000-4000-8000-00000000000a".parse().unwrap();
        DiskAttachment::new(ConnectionInfo { volume_id, access_mode: AccessMode::ReadWrite, target })
    }

    fn nbd(host: &str, export: &str, server: &str) -> DiskAttachment {
        let tls = Some(NbdTls { server_name: server.into() });
        attachment(ConnectionTarget::Nbd(NbdTarget { host: host.into(), port: 1, export: export.into(), tls }))
    }

    fn iscsi(portal: &str, iqn: &str, password: &str) -> DiskAttachment {
        let auth =
            ChapSecret { auth_method: ChapMethod::Chap, auth_username: "u".into(), auth_password: password.into() };
        let (target_portal, target_iqn) = (portal.into(), iqn.into());
        attachment(ConnectionTarget::Iscsi(IscsiTarget { target_portal, target_iqn, target_lun: 1, auth: Some(auth) }))
    }

    fn file(path: &str) -> DiskAttachment {
        attachment(ConnectionTarget::File(FileTarget { path: path.into(), format: FileFormat::Raw }))
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for good in [
            nbd("10.0.0.1", "e-1", "volumes1"),
            nbd("fd00::1", "e", "v"),
            iscsi("10.0.0.1:3260", "iqn.2010-10.org.openstack:volume-a", "p a s s"),
            iscsi("[fd00::1]:3260", "iqn.x", "p"),
            file("/v/volume-a"),
        ] {
            good.validate().unwrap();
        }
        for bad in [
            nbd("10.0.0.1,path=/x", "e", "v"),
            nbd("", "e", "v"),
            nbd("h", "a,b=c", "v"),
            nbd("h", "", "v"),
            nbd("h", "e", "v,w"),
            iscsi("10.0.0.1", "iqn.x", "p"),
            iscsi("10.0.0.1:0", "iqn.x", "p"),
            iscsi("10.0.0.1:3260", "iqn/../x", "p"),
            iscsi("10.0.0.1:3260", "iqn.x", ""),
            file("relative"),
            file("/v/../etc/shadow"),
            DiskAttachment { device_name: Some("vd b".into()), ..file("/v") },
        ] {
            bad.validate().unwrap_err();
        }
    }
}
