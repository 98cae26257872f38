//! One storage daemon, for one compute host.
//!
//! QEMU's NBD server decides who may come in per server, not per export, and lists its exports to all who may. So each
//! compute host has a server of its own, whose only guest by certificate it is.
//!
//! The daemon outlives this process (guests must); a new one finds it by its socket. Its death is noticed at once: it is
//! started again on the same port, with the same exports, and hypervisors that wait reconnect.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_core::ids::{HostName, VolumeAttachmentId, VolumeId};
use nova_core::volume::connection::AccessMode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};

use super::qmp::{Qmp, QmpError, SharedQmp};
use super::{NbdOptions, tls};
use crate::volume::driver::{VolumeDriverError, tools};

type Result<T> = std::result::Result<T, VolumeDriverError>;

/// The longest path that a socket may have.
const SOCKET_PATH: usize = 107;
/// How long a daemon has to end that was asked or told to.
const ENDING: Duration = Duration::from_secs(5);

/// What one attachment is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) volume: VolumeId,
    pub(super) path: PathBuf,
    pub(super) access: AccessMode,
}

/// The daemon of one host, and what it is to serve.
pub(super) struct Door {
    pub(super) host: HostName,
    pub(super) port: u16,
    options: Arc<NbdOptions>,
    /// Socket and pid file, without their endings.
    base: PathBuf,
    state: Mutex<State>,
    /// Changes whenever a daemon was started or found.
    started: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    exports: BTreeMap<VolumeAttachmentId, Export>,
    qmp: Option<SharedQmp>,
    closed: bool,
}

impl Door {
    pub(super) fn new(options: Arc<NbdOptions>, host: HostName, port: u16) -> Result<Arc<Self>> {
        let mut name = String::from("nbd-");
        for byte in &Sha256::digest(host.as_str().as_bytes())[..8] {
            let _ = write!(name, "{byte:02x}");
        }
        let base = options.run_folder.join(name);
        if socket(&base).as_os_str().len() > SOCKET_PATH {
            let source = format!("{} is too long a path for a socket", base.display());
            return Err(VolumeDriverError::failed("starting a storage daemon", source));
        }
        let started = watch::Sender::new(0);
        Ok(Arc::new(Self { host, port, options, base, state: Mutex::default(), started }))
    }

    /// Serves one more attachment; Ok if it does already.
    pub(super) async fn open(&self, id: VolumeAttachmentId, export: Export) -> Result<()> {
        let mut state = self.state.lock().await;
        let before = state.exports.insert(id, export);
        let opened = self.settle(&mut state).await;
        if opened.is_err() {
            match before {
                Some(before) => drop(state.exports.insert(id, before)),
                None => {
                    state.exports.remove(&id);
                    // As it was, as far as that goes; whoever asks again goes on from here.
                    let _ = self.settle(&mut state).await;
                }
            }
        }
        opened
    }

    /// What is to be served from the beginning, before anyone asks.
    pub(super) async fn expect(&self, exports: BTreeMap<VolumeAttachmentId, Export>) {
        self.state.lock().await.exports = exports;
    }

    /// Makes the daemon what it should be, starting it if need be.
    pub(super) async fn restore(&self) -> Result<()> {
        self.settle(&mut *self.state.lock().await).await
    }

    /// Ends one attachment. When this returns, nothing comes through it any more, whatever the daemon does.
    pub(super) async fn close(&self, id: VolumeAttachmentId) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.exports.remove(&id).is_none() {
            return Ok(());
        }
        match self.settle(&mut state).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(host = %self.host, error = %error, "a storage daemon does not let go; it is ended");
                state.qmp = None;
                self.end().await?;
                if !state.exports.is_empty() {
                    self.settle(&mut state).await?;
                }
                Ok(())
            }
        }
    }

    /// Attachments that it serves.
    pub(super) async fn attachments(&self) -> BTreeSet<VolumeAttachmentId> {
        self.state.lock().await.exports.keys().copied().collect()
    }

    #[cfg(test)]
    pub(super) fn started_for_tests(&self) -> watch::Receiver<u64> {
        self.started.subscribe()
    }

    /// Asks the daemon, if there should be one.
    pub(super) async fn ping(&self) -> Result<()> {
        let state = self.state.lock().await;
        match &state.qmp {
            Some(qmp) => qmp.run("query-version", json!({})).await.map(drop).map_err(unavailable),
            None if state.exports.is_empty() => Ok(()),
            None => Err(unavailable(QmpError::Gone)),
        }
    }

    /// The daemon, for work on the volumes that it has open.
    pub(super) async fn daemon(&self) -> Result<SharedQmp> {
        let mut state = self.state.lock().await;
        self.settle(&mut state).await?;
        state.qmp.clone().ok_or_else(|| unavailable(QmpError::Gone))
    }

    /// Never touches the daemon again. It goes on.
    pub(super) async fn forget(&self) {
        let mut state = self.state.lock().await;
        state.closed = true;
        state.qmp = None;
        self.started.send_modify(|number| *number += 1);
    }

    /// Keeps the daemon alive until the door is forgotten or has nothing to serve.
    pub(super) async fn keep(self: Arc<Self>) {
        const FIRST_DELAY: Duration = Duration::from_millis(50);
        const LONGEST_DELAY: Duration = Duration::from_secs(2);
        let mut started = self.started.subscribe();
        let mut delay = FIRST_DELAY;
        loop {
            started.borrow_and_update();
            let alive = {
                let state = self.state.lock().await;
                if state.closed {
                    return;
                }
                state.qmp.as_ref().map(|qmp| qmp.alive())
            };
            match alive {
                // Nothing to look after until a daemon is started.
                None if self.attachments().await.is_empty() => {
                    if started.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                None => {}
                Some(mut alive) => {
                    tokio::select! {
                        biased;
                        _ = started.changed() => { delay = FIRST_DELAY; continue }
                        _ = alive.wait_for(|alive| !alive) => {}
                    }
                    let mut state = self.state.lock().await;
                    if state.closed {
                        return;
                    }
                    if state.qmp.as_ref().is_some_and(|qmp| *qmp.alive().borrow()) {
                        continue;
                    }
                    state.qmp = None;
                    if state.exports.is_empty() {
                        continue;
                    }
                    tracing::warn!(host = %self.host, "a storage daemon is gone; starting it again");
                }
            }
            if let Err(error) = self.restore().await {
                tracing::error!(host = %self.host, error = %error, "a storage daemon can't be started");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }

    /// Starts or finds the daemon and makes its exports those that are wanted; ends one that has none.
    async fn settle(&self, state: &mut State) -> Result<()> {
        if state.exports.is_empty() {
            return self.quit(state).await;
        }
        // A daemon that died a moment ago is told by its first answer; then a new one is tried, once.
        for last in [false, true] {
            let qmp = self.reach(state).await?;
            match apply(&qmp, &state.exports).await {
                Ok(()) => return Ok(()),
                Err(QmpError::Gone) if !last => state.qmp = None,
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(())
    }

    async fn reach(&self, state: &mut State) -> Result<SharedQmp> {
        if let Some(qmp) = state.qmp.as_ref().filter(|qmp| qmp.usable()) {
            return Ok(qmp.clone());
        }
        state.qmp = None;
        let path = socket(&self.base);
        let qmp = match Qmp::connect(&path, self.options.command_limit).await {
            Ok(qmp) => qmp,
            Err(QmpError::Gone) => {
                self.start().await?;
                Qmp::connect(&path, self.options.command_limit).await.map_err(unavailable)?
            }
            Err(error) => return Err(unavailable(error)),
        };
        let qmp = Arc::new(qmp);
        self.listen(&qmp).await?;
        state.qmp = Some(qmp.clone());
        self.started.send_modify(|number| *number += 1);
        Ok(qmp)
    }

    /// Starts a daemon. It leaves this process's group, so that it outlives it.
    async fn start(&self) -> Result<()> {
        const DURING: &str = "starting a storage daemon";
        // One that has lost its socket would hold the port.
        self.end().await?;
        let chardev = format!("socket,id=qmp,path={},server=on,wait=off", comma(&socket(&self.base)));
        let pid_file = pid_file(&self.base);
        let args = ["--chardev", &chardev, "--monitor", "chardev=qmp", "--pidfile"];
        let words = args.iter().map(AsRef::as_ref).chain([pid_file.as_os_str(), "--daemonize".as_ref()]);
        tools::administer("qemu-storage-daemon", words, DURING, self.options.command_limit).await.map(drop)
    }

    /// Opens the port, unless it is open.
    async fn listen(&self, qmp: &Qmp) -> Result<()> {
        if let Some(folder) = &self.options.tls {
            let dir = folder.path.to_string_lossy();
            let make = json!({"qom-type": "tls-creds-x509", "id": "tls", "dir": dir, "endpoint": "server",
                              "verify-peer": true});
            made(qmp.run("object-add", make).await).map_err(refused)?;
            let rule = json!({"match": tls::subject(&self.host), "policy": "allow", "format": "exact"});
            let make = json!({"qom-type": "authz-list", "id": "who", "policy": "deny", "rules": [rule]});
            made(qmp.run("object-add", make).await).map_err(refused)?;
        }
        let address = json!({"type": "inet", "data": {"host": self.options.listen, "port": self.port.to_string()}});
        let mut arguments = json!({"addr": address, "max-connections": 0});
        if self.options.tls.is_some() {
            arguments["tls-creds"] = "tls".into();
            arguments["tls-authz"] = "who".into();
        }
        made(qmp.run("nbd-server-start", arguments).await).map_err(refused)
    }

    async fn quit(&self, state: &mut State) -> Result<()> {
        let Some(qmp) = state.qmp.take() else {
            return if pid_file(&self.base).exists() { self.end().await } else { Ok(()) };
        };
        // It may be gone before it answers.
        let _ = qmp.run("quit", json!({})).await;
        let mut alive = qmp.alive();
        let _ = tokio::time::timeout(ENDING, alive.wait_for(|alive| !alive)).await;
        self.end().await
    }

    /// Ends a daemon of ours that still runs, and waits until it does not.
    async fn end(&self) -> Result<()> {
        const DURING: &str = "ending a storage daemon";
        let (pid_path, socket) = (pid_file(&self.base), socket(&self.base));
        if let Ok(text) = tokio::fs::read_to_string(&pid_path).await
            && let Ok(pid) = text.trim().parse::<u32>()
        {
            let deadline = tokio::time::Instant::now() + ENDING;
            while runs(pid, &pid_path).await {
                tools::administer("kill", ["-9", &pid.to_string()], DURING, ENDING).await.map(drop).or_else(
                    // It was faster.
                    |error| if matches!(error, VolumeDriverError::Failed { .. }) { Ok(()) } else { Err(error) },
                )?;
                if tokio::time::Instant::now() > deadline {
                    return Err(VolumeDriverError::TimedOut { during: DURING, after: ENDING });
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        for path in [pid_path, socket] {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(tools::file(DURING, error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether that process is the daemon with that pid file: numbers are used again.
async fn runs(pid: u32, pid_file: &Path) -> bool {
    let Ok(words) = tokio::fs::read(format!("/proc/{pid}/cmdline")).await else { return false };
    words.split(|byte| *byte == 0).any(|word| word == pid_file.as_os_str().as_encoded_bytes())
}

fn socket(base: &Path) -> PathBuf {
    base.with_extension("qmp")
}

fn pid_file(base: &Path) -> PathBuf {
    base.with_extension("pid")
}

/// A path as a value of QEMU's comma-separated options.
fn comma(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn export_id(attachment: VolumeAttachmentId) -> String {
    format!("e-{attachment}")
}

/// The name of the block device behind a volume's exports. QEMU allows 31 bytes, so the id's number is written in 26 digits of
/// 32 kinds.
pub(super) fn node_name(volume: VolumeId) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let number = volume.as_u128();
    let digit = |place: u32| char::from(DIGITS[(number >> (5 * place)) as usize & 31]);
    std::iter::once('v').chain((0..NODE_DIGITS).rev().map(digit)).collect()
}

const NODE_DIGITS: u32 = 26;

/// Makes a daemon's exports those that are wanted.
async fn apply(qmp: &Qmp, wanted: &BTreeMap<VolumeAttachmentId, Export>) -> std::result::Result<(), QmpError> {
    let mut there = exports(qmp).await?;
    let ids: BTreeMap<String, VolumeAttachmentId> = wanted.keys().map(|id| (export_id(*id), *id)).collect();
    for id in there.keys().filter(|id| !ids.contains_key(*id)).cloned().collect::<Vec<_>>() {
        // Whoever is connected is cut off; what it asked for before is finished.
        gone(qmp.run("block-export-del", json!({"id": id, "mode": "hard"})).await)?;
        wait_until_gone(qmp, &id).await?;
        there.remove(&id);
    }
    let mut nodes = nodes(qmp).await?;
    let needed: BTreeSet<String> = wanted.values().map(|export| node_name(export.volume)).collect();
    for node in nodes.iter().filter(|node| !needed.contains(*node)).cloned().collect::<Vec<_>>() {
        gone(qmp.run("blockdev-del", json!({"node-name": node})).await)?;
        nodes.remove(&node);
    }
    for (id, attachment) in ids.iter().filter(|(id, _)| !there.contains_key(*id)) {
        let export = &wanted[attachment];
        let node = node_name(export.volume);
        if !nodes.contains(&node) {
            made(qmp.run("blockdev-add", file_node(&node, &export.path)).await)?;
            nodes.insert(node.clone());
        }
        let arguments = json!({
            "type": "nbd", "id": id, "node-name": node, "name": attachment.to_string(),
            "description": export.volume.to_string(), "writable": export.access == AccessMode::ReadWrite,
        });
        qmp.run("block-export-add", arguments).await?;
    }
    Ok(())
}

/// A raw file as a block device. Not locked: a guest on its way has it open from two hosts, and the pool knows who may have it.
pub(super) fn file_node(name: &str, path: &Path) -> Value {
    let file = json!({"driver": "file", "filename": path.to_string_lossy(), "locking": "off", "discard": "unmap"});
    json!({"driver": "raw", "node-name": name, "discard": "unmap", "file": file})
}

/// What the daemon serves: export ids, and whether they are on their way out.
async fn exports(qmp: &Qmp) -> std::result::Result<BTreeMap<String, bool>, QmpError> {
    let found = qmp.run("query-block-exports", json!({})).await?;
    let read = |export: &Value| Some((export["id"].as_str()?.to_owned(), export["shutting-down"].as_bool()?));
    Ok(found.as_array().into_iter().flatten().filter_map(read).collect())
}

/// Volumes that the daemon has open.
async fn nodes(qmp: &Qmp) -> std::result::Result<BTreeSet<String>, QmpError> {
    let found = qmp.run("query-named-block-nodes", json!({"flat": true})).await?;
    let names = found.as_array().into_iter().flatten().filter_map(|node| node["node-name"].as_str());
    let ours = |name: &&str| name.len() == 1 + NODE_DIGITS as usize && name.starts_with('v');
    Ok(names.filter(ours).map(str::to_owned).collect())
}

async fn wait_until_gone(qmp: &Qmp, id: &str) -> std::result::Result<(), QmpError> {
    let deadline = tokio::time::Instant::now() + ENDING;
    while exports(qmp).await?.contains_key(id) {
        if tokio::time::Instant::now() > deadline {
            return Err(QmpError::TimedOut { command: "block-export-del", after: ENDING });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// What is there already is made.
fn made(answer: std::result::Result<Value, QmpError>) -> std::result::Result<(), QmpError> {
    match answer {
        Err(QmpError::Refused { text, .. })
            if text.contains("already running") || text.contains("duplicate") || text.contains("Duplicate") =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

/// What is not there is gone.
fn gone(answer: std::result::Result<Value, QmpError>) -> std::result::Result<(), QmpError> {
    match answer {
        Err(QmpError::Refused { text, .. })
            if text.contains("is not found")
                || text.contains("already shutting down")
                || text.contains("Failed to find node") =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

pub(super) fn unavailable(error: QmpError) -> VolumeDriverError {
    VolumeDriverError::Unavailable { driver: super::DRIVER, source: error.into() }
}

pub(super) fn refused(error: QmpError) -> VolumeDriverError {
    const DURING: &str = "telling the storage daemon";
    match error {
        QmpError::Refused { ref text, .. } if tools::says_no_space(text) => {
            VolumeDriverError::NoSpace { during: DURING, source: error.into() }
        }
        QmpError::Refused { .. } => VolumeDriverError::failed(DURING, error),
        QmpError::Gone | QmpError::TimedOut { .. } => unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_volume_has_a_node_of_its_own() {
        let name = |text: &str| node_name(text.parse().unwrap());
        let one = name("00000000-0000-4000-8000-000000000001");
        let two = name("00000000-0000-4000-8000-000000000002");
        let high = name("f0000000-0000-4000-8000-000000000001");
        assert_eq!(one.len(), 27);
        assert!(one != two && one != high && high.starts_with("v7g"), "{one} {two} {high}");
    }
}
