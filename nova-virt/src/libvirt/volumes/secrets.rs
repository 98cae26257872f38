//! Passwords of volumes, which libvirt keeps for QEMU.

use nova_core::ids::VolumeId;
use nova_core::volume::connection::ConnectionTarget;
use virt::connect::Connect;

use super::{Inner, Result, has_password};
use crate::libvirt::{domain_xml, errors};
use crate::{DiskAttachment, HypervisorError};

const DURING: &str = "keeping a volume's password";

impl Inner {
    /// Gives libvirt the passwords that these volumes need.
    pub(in crate::libvirt) async fn keep_secrets(&self, volumes: &[DiskAttachment]) -> Result<()> {
        for volume in volumes.iter().filter(|volume| has_password(volume)) {
            let volume = volume.clone();
            self.call(move |conn| keep(conn, &volume)).await?;
        }
        Ok(())
    }

    /// Takes a password back from libvirt. One that stays opens nothing: its volume lets this host in no more.
    pub(super) async fn drop_secret(&self, volume: VolumeId) {
        let dropped = self.call(move |conn| {
            match conn.lookup_secret_by_uuid_string(&volume.to_string()) {
                Ok(secret) => {
                    secret.undefine().map_err(|error| errors::failed("forgetting a volume's password", error))
                }
                // There is none, as for most volumes.
                Err(_) => Ok(()),
            }
        });
        if let Err(error) = dropped.await {
            tracing::warn!(%volume, %error, "libvirt keeps a volume's password");
        }
    }
}

fn keep(conn: &Connect, volume: &DiskAttachment) -> Result<()> {
    let ConnectionTarget::Iscsi(iscsi) = &volume.connection.target else { return Ok(()) };
    let Some(auth) = &iscsi.auth else { return Ok(()) };
    let xml = domain_xml::secret(volume).map_err(|error| errors::file(DURING, error))?;
    let failed = |error| -> HypervisorError { errors::failed(DURING, error) };
    let secret = conn.define_secret_xml(&xml, 0).map_err(failed)?;
    secret.set_value(auth.auth_password.as_bytes(), 0).map_err(failed)
}
