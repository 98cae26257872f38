//! Volumes in files, which hosts reach over the network: a storage daemon of QEMU per compute host, told what to export by
//! QMP, with TLS by which both sides prove who they are.
//!
//! See [`door`] for why each host has a daemon of its own. Connections stand in the pool before an export is made and until
//! it is gone, so a process that starts makes the exports again that should be there, on the ports that hosts know.

mod door;
mod live;
mod qmp;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId};
use nova_core::volume::connection::{ConnectionInfo, ConnectionTarget, Connector, NbdTarget, NbdTls};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use self::door::{Door, Export};
pub use self::tls::TlsFolder;
use super::pool::{FilePool, Granted, PoolOptions, Pooled, files};
use super::tools::blocking;
use super::{AttachmentOf, DriverCapabilities, VolumeDriverError};

type Result<T> = std::result::Result<T, VolumeDriverError>;

const DRIVER: &str = "nbd";

/// What the driver is told.
#[derive(Debug, Clone, PartialEq)]
pub struct NbdOptions {
    /// Where volumes are.
    pub pool: PoolOptions,
    /// Sockets and pid files of the daemons, and which host has which port.
    pub run_folder: PathBuf,
    /// The address on which daemons listen.
    pub listen: String,
    /// The address by which hosts reach them.
    pub advertise: String,
    /// The first port, and how many there may be: one for each compute host.
    pub first_port: u16,
    /// How many ports.
    pub ports: u16,
    /// Certificates; `None`: whoever reaches a port reads what is behind it, so only loopback addresses may be listened on.
    pub tls: Option<TlsFolder>,
    /// How long a daemon has for one command.
    pub command_limit: Duration,
}

impl NbdOptions {
    /// Refuses to serve volumes to everybody.
    fn check(&self) -> Result<()> {
        if self.tls.is_none() && !is_loopback(&self.listen) {
            let source =
                format!("without TLS, only loopback addresses may be listened on, and {} is none", self.listen);
            return Err(VolumeDriverError::failed("starting the volume driver", source));
        }
        if self.ports == 0 || self.first_port.checked_add(self.ports - 1).is_none() {
            return Err(VolumeDriverError::failed("starting the volume driver", "there are no ports"));
        }
        Ok(())
    }
}

/// Files over NBD.
pub struct NbdVolumes {
    options: Arc<NbdOptions>,
    pool: Arc<FilePool>,
    doors: Mutex<Doors>,
}

struct Doors {
    ports: Ports,
    open: BTreeMap<HostName, (Arc<Door>, AbortHandle)>,
}

/// Which host's daemon listens on which port: kept, so that guests find it again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ports(BTreeMap<HostName, u16>);

impl fmt::Debug for NbdVolumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NbdVolumes").field("pool", &self.options.pool.folder).finish_non_exhaustive()
    }
}

impl NbdVolumes {
    /// Opens the pool, makes what certificates are missing, and serves again what was served before.
    pub async fn open(options: NbdOptions) -> Result<Self> {
        options.check()?;
        if let Some(tls) = &options.tls {
            tls.ensure().await?;
        }
        let options = Arc::new(options);
        let pool = Arc::new(FilePool::open(options.pool.clone()).await?);
        let ports_file = options.run_folder.join("ports");
        let ports = blocking("reading which host has which port", move || read_ports(&ports_file)).await?;
        let driver = Self { options, pool, doors: Mutex::new(Doors { ports, open: BTreeMap::new() }) };
        driver.restore().await?;
        Ok(driver)
    }

    /// A daemon that can't be started now is tried again by its keeper: the rest goes on.
    async fn restore(&self) -> Result<()> {
        let mut wanted: BTreeMap<HostName, BTreeMap<VolumeAttachmentId, Export>> = BTreeMap::new();
        for (volume, entry) in &self.pool.table().volumes {
            for (id, granted) in &entry.connections {
                let export = Export { volume: *volume, path: self.pool.path(*volume), access: granted.access };
                wanted.entry(granted.host.clone()).or_default().insert(*id, export);
            }
        }
        let mut doors = self.doors.lock().await;
        let known: BTreeSet<HostName> = doors.ports.0.keys().cloned().collect();
        for host in known.iter().chain(wanted.keys()).cloned().collect::<BTreeSet<_>>() {
            let exports = wanted.remove(&host).unwrap_or_default();
            let door = self.door_in(&mut doors, &host, exports).await?;
            if let Err(error) = door.restore().await {
                tracing::error!(%host, error = %error, "volumes can't be served to a host now");
            }
        }
        Ok(())
    }

    async fn door(&self, host: &HostName) -> Result<Arc<Door>> {
        let mut doors = self.doors.lock().await;
        self.door_in(&mut doors, host, BTreeMap::new()).await
    }

    async fn door_in(
        &self,
        doors: &mut Doors,
        host: &HostName,
        exports: BTreeMap<VolumeAttachmentId, Export>,
    ) -> Result<Arc<Door>> {
        if let Some((door, _)) = doors.open.get(host) {
            return Ok(door.clone());
        }
        let port = match doors.ports.0.get(host) {
            Some(port) => *port,
            None => self.draw_port(&mut doors.ports, host).await?,
        };
        let door = Door::new(self.options.clone(), host.clone(), port)?;
        door.expect(exports).await;
        let keeper = tokio::spawn(door.clone().keep()).abort_handle();
        doors.open.insert(host.clone(), (door.clone(), keeper));
        Ok(door)
    }

    /// The first port that no host has, written down before it is used.
    async fn draw_port(&self, ports: &mut Ports, host: &HostName) -> Result<u16> {
        const DURING: &str = "choosing a port for a host";
        let taken: BTreeSet<u16> = ports.0.values().copied().collect();
        let all = (0..self.options.ports).map(|number| self.options.first_port + number);
        let free = all.into_iter().find(|port| !taken.contains(port) && is_free(&self.options.listen, *port));
        let Some(port) = free else {
            return Err(VolumeDriverError::failed(DURING, "each port has a host, or somebody else's program"));
        };
        ports.0.insert(host.clone(), port);
        let path = self.options.run_folder.join("ports");
        let kept = match serde_json::to_vec(&ports) {
            Ok(bytes) => blocking(DURING, move || write_file(&path, &bytes)).await,
            Err(error) => Err(VolumeDriverError::failed(DURING, error)),
        };
        if kept.is_err() {
            ports.0.remove(host);
        }
        kept.map(|()| port)
    }

    fn info(&self, volume: VolumeId, attachment: &AttachmentOf, port: u16) -> ConnectionInfo {
        let tls = self.options.tls.as_ref().map(|tls| NbdTls { server_name: tls.server_name.clone() });
        let host = self.options.advertise.clone();
        let target = NbdTarget { host, port, export: attachment.id.to_string(), tls };
        ConnectionInfo { volume_id: volume, access_mode: attachment.access, target: ConnectionTarget::Nbd(target) }
    }

    /// Ends the keepers and leaves the daemons, as the end of the process does.
    pub async fn close(self) {
        for (door, keeper) in self.doors.lock().await.open.values() {
            door.forget().await;
            keeper.abort();
        }
    }
}

impl Drop for NbdVolumes {
    fn drop(&mut self) {
        // No two processes may look after one daemon.
        for (_, keeper) in self.doors.get_mut().open.values() {
            keeper.abort();
        }
    }
}

fn read_ports(path: &Path) -> std::io::Result<Ports> {
    if let Some(folder) = path.parent() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::other),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ports::default()),
        Err(error) => Err(error),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = files::unfinished(path);
    let file = files::begin(&new)?;
    std::io::Write::write_all(&mut &file, bytes)?;
    files::finish(&file, &new, path)
}

/// Whether only this machine reaches that address.
pub(super) fn is_loopback(listen: &str) -> bool {
    listen.parse::<IpAddr>().map_or(listen == "localhost", |address| address.is_loopback())
}

fn is_free(listen: &str, port: u16) -> bool {
    std::net::TcpListener::bind((listen, port)).is_ok()
}

#[async_trait]
impl Pooled for NbdVolumes {
    fn pool(&self) -> &FilePool {
        &self.pool
    }

    fn describe(&self) -> DriverCapabilities {
        DriverCapabilities {
            driver: DRIVER,
            storage_protocol: "nbd",
            vendor: "Open Source",
            // A server can't tell a client of another size while it is connected.
            online_extend: false,
            multiattach: true,
            live_snapshot: true,
            live_copy: true,
            thin: true,
            cuts_off: true,
        }
    }

    async fn admit(
        &self,
        volume: VolumeId,
        attachment: &AttachmentOf,
        connector: &Connector,
    ) -> Result<ConnectionInfo> {
        let door = self.door(&connector.host).await?;
        let export = Export { volume, path: self.pool.path(volume), access: attachment.access };
        door.open(attachment.id, export).await?;
        Ok(self.info(volume, attachment, door.port))
    }

    async fn expel(&self, _volume: VolumeId, attachment: VolumeAttachmentId, granted: &Granted) -> Result<()> {
        self.door(&granted.host).await?.close(attachment).await
    }

    async fn answers(&self) -> Result<()> {
        let doors: Vec<_> = self.doors.lock().await.open.values().map(|(door, _)| door.clone()).collect();
        for door in doors {
            door.ping().await?;
        }
        Ok(())
    }
}
