//! `volume certificate`: what a compute host proves itself by when it comes for a volume.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use nova::volume::driver::TlsFolder;
use nova_core::ids::HostName;
use nova_core::options::Config;

use super::Done;
use crate::cli::StartError;

/// Volume hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum VolumeCommand {
    /// Make the certificate by which a compute host is let in to its volumes; done on the volume host
    ///
    /// Prints the folder that holds it: ca-cert.pem, client-cert.pem, client-key.pem. Copy it to the compute host, into the
    /// folder that its libvirt names (nbd_tls_x509_cert_dir in qemu.conf). One that is there already is shown and left as it
    /// is. The authority is that of volume_driver.tls_path, made if there is none.
    ///
    /// Exit code: 0 it is there, 2 it could not be made.
    Certificate {
        /// The compute host, by its DEFAULT.host
        host: String,
        /// Make a new one in its place. The old one is good until it ends by itself
        #[arg(long)]
        renew: bool,
    },
}

pub(super) async fn run(config: &Config, command: &VolumeCommand, out: &mut (dyn Write + Send)) -> Done {
    let VolumeCommand::Certificate { host, renew } = command;
    let unset =
        || "volume_driver.tls_path: is not set, so volumes are served without TLS and nobody needs a certificate";
    let tls = TlsFolder::from_config(config).ok_or_else(|| StartError::config(vec![unset().to_owned()]))?;
    let host = HostName::new(host.clone());
    let made = async {
        tls.ensure().await?;
        if *renew { tls.renew(&host).await } else { tls.issue(&host).await }
    };
    let folder = made.await.map_err(|error| StartError::new("the certificate cannot be made", &error))?;
    writeln!(out, "{}", folder.display())?;
    Ok(ExitCode::SUCCESS)
}
