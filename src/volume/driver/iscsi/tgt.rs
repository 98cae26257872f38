//! The daemon `tgtd` and what it is told by `tgtadm`. It is this driver's alone: its control socket is in the run folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_core::volume::connection::ChapSecret;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::{PortalOptions, Result};
use crate::volume::driver::VolumeDriverError;
use crate::volume::driver::tools;

/// The logical unit of a target that is the volume; 0 is the target's controller.
pub(super) const LUN: u32 = 1;
const DRIVER: &str = "iscsi";
/// Our daemon is the only one that has this socket, so the number says nothing.
const CONTROL: &str = "1";
/// How often the daemon is looked after.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long it has to begin, or to end.
const STARTING: Duration = Duration::from_secs(10);
/// The longest path that a socket may have, with the number that the daemon adds.
const SOCKET_PATH: usize = 100;

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) iqn: String,
    pub(super) path: PathBuf,
    pub(super) serial: String,
    pub(super) read_only: bool,
    pub(super) auth: ChapSecret,
}

/// A target that the daemon has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    tid: u32,
    iqn: String,
    /// It was made to its end: hosts are let in.
    whole: bool,
}

pub(super) struct Targets {
    portal: String,
    socket: PathBuf,
    pid_file: PathBuf,
    limit: Duration,
    wanted: Mutex<BTreeMap<String, Served>>,
}

impl Targets {
    pub(super) fn new(options: &PortalOptions) -> Result<Self> {
        const DURING: &str = "starting the iSCSI driver";
        let socket = options.run_folder.join("tgtd");
        if socket.as_os_str().len() > SOCKET_PATH {
            let source = format!("{} is too long a path for a socket", socket.display());
            return Err(VolumeDriverError::failed(DURING, source));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if !options.prefix.starts_with("iqn.") || !options.prefix.chars().all(plain) {
            return Err(VolumeDriverError::failed(DURING, format!("{} is no beginning of a name", options.prefix)));
        }
        let portal = match options.listen.contains(':') {
            true => format!("portal=[{}]:{}", options.listen, options.port),
            false => format!("portal={}:{}", options.listen, options.port),
        };
        let (pid_file, limit) = (options.run_folder.join("tgtd.pid"), options.command_limit);
        Ok(Self { portal, socket, pid_file, limit, wanted: Mutex::default() })
    }

    /// What is to be served from the beginning.
    pub(super) async fn expect(&self, served: Served) {
        self.wanted.lock().await.insert(served.iqn.clone(), served);
    }

    /// Makes the daemon what it should be.
    pub(super) async fn settle(&self) -> Result<()> {
        self.apply(&*self.wanted.lock().await).await
    }

    pub(super) async fn open(&self, served: Served) -> Result<()> {
        let mut wanted = self.wanted.lock().await;
        let iqn = served.iqn.clone();
        let before = wanted.insert(iqn.clone(), served);
        let applied = self.apply(&wanted).await;
        if applied.is_err() && before.is_none() {
            wanted.remove(&iqn);
            // As it was, as far as that goes; the keeper tries again.
            let _ = self.apply(&wanted).await;
        }
        applied
    }

    /// When this returns, the target is gone, and whoever was logged in is cut off.
    pub(super) async fn close(&self, iqn: &str) -> Result<()> {
        let mut wanted = self.wanted.lock().await;
        wanted.remove(iqn);
        match self.apply(&wanted).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(error = %error, "the iSCSI daemon does not let go; it is ended");
                self.end().await?;
                if wanted.is_empty() { Ok(()) } else { self.apply(&wanted).await }
            }
        }
    }

    pub(super) async fn ping(&self) -> Result<()> {
        if self.wanted.lock().await.is_empty() {
            return Ok(());
        }
        self.show()
            .await
            .map(drop)
            .map_err(|error| VolumeDriverError::Unavailable { driver: DRIVER, source: Box::new(error) })
    }

    /// Starts the daemon again whenever it is gone.
    pub(super) async fn keep(self: std::sync::Arc<Self>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let wanted = self.wanted.lock().await;
            if wanted.is_empty() || self.runs().await {
                continue;
            }
            tracing::warn!("the iSCSI daemon is gone; starting it again");
            if let Err(error) = self.apply(&wanted).await {
                tracing::error!(error = %error, "the iSCSI daemon can't be started");
            }
        }
    }

    async fn apply(&self, wanted: &BTreeMap<String, Served>) -> Result<()> {
        if wanted.is_empty() {
            return self.end().await;
        }
        if !self.runs().await {
            self.start().await?;
        }
        let all = match self.show().await {
            Ok(all) => all,
            // It is about to be gone, or hangs.
            Err(_) => {
                self.start().await?;
                self.show().await?
            }
        };
        let mut taken = BTreeSet::new();
        let mut there = BTreeSet::new();
        for found in all {
            if found.whole && wanted.contains_key(&found.iqn) {
                taken.insert(found.tid);
                there.insert(found.iqn);
            } else {
                let tid = found.tid.to_string();
                self.admin(&["--op", "delete", "--mode", "target", "--force", "--tid", &tid]).await?;
            }
        }
        for served in wanted.values().filter(|served| !there.contains(&served.iqn)) {
            let tid = (1..).find(|tid| !taken.contains(tid)).unwrap_or(1);
            taken.insert(tid);
            self.make(tid, served).await?;
        }
        Ok(())
    }

    /// Hosts are let in last: until then, nobody sees what is half made.
    async fn make(&self, tid: u32, served: &Served) -> Result<()> {
        let (tid, lun) = (tid.to_string(), LUN.to_string());
        let path = text(&served.path)?;
        let params = format!(
            "scsi_sn={},vendor_id=NOVA,product_id=VOLUME{}",
            served.serial,
            if served.read_only { ",readonly=1" } else { "" }
        );
        let (user, password) = (served.auth.auth_username.as_str(), served.auth.auth_password.as_str());
        self.admin(&["--op", "new", "--mode", "target", "--tid", &tid, "-T", &served.iqn]).await?;
        self.admin(&["--op", "new", "--mode", "logicalunit", "--tid", &tid, "--lun", &lun, "-b", path]).await?;
        self.admin(&["--op", "update", "--mode", "logicalunit", "--tid", &tid, "--lun", &lun, "--params", &params])
            .await?;
        // An account outlives its target; it may be there.
        let account = self.admin(&["--op", "new", "--mode", "account", "--user", user, "--password", password]).await;
        if let Err(error) = account
            && !says(&error, "already exists")
        {
            return Err(error);
        }
        self.admin(&["--op", "bind", "--mode", "account", "--tid", &tid, "--user", user]).await?;
        self.admin(&["--op", "bind", "--mode", "target", "--tid", &tid, "-I", "ALL"]).await
    }

    async fn show(&self) -> Result<Vec<Found>> {
        let printed = self.tgtadm(&["--op", "show", "--mode", "target"]).await?;
        Ok(read(&printed))
    }

    async fn admin(&self, words: &[&str]) -> Result<()> {
        self.tgtadm(words).await.map(drop)
    }

    async fn tgtadm(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("tgtadm");
        command.args(["--control-port", CONTROL, "--lld", "iscsi"]).args(words).env("TGT_IPC_SOCKET", &self.socket);
        tools::command(&mut command, "tgtadm", "telling the iSCSI daemon", self.limit).await
    }

    async fn start(&self) -> Result<()> {
        const DURING: &str = "starting the iSCSI daemon";
        self.end().await?;
        let pid_file = text(&self.pid_file)?;
        let mut command = Command::new("tgtd");
        let words = ["--control-port", CONTROL, "--iscsi", &self.portal, "--pid-file", pid_file];
        command.args(words).env("TGT_IPC_SOCKET", &self.socket);
        tools::command(&mut command, "tgtd", DURING, self.limit).await?;
        let deadline = Instant::now() + STARTING;
        loop {
            // It answers before it has written its pid file, without which nobody would find it again.
            match (self.show().await, self.runs().await) {
                (Ok(_), true) => return Ok(()),
                (Err(error), _) if Instant::now() > deadline => return Err(error),
                (Ok(_), false) if Instant::now() > deadline => {
                    return Err(VolumeDriverError::TimedOut { during: DURING, after: STARTING });
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn pid(&self) -> Option<u32> {
        tokio::fs::read_to_string(&self.pid_file).await.ok()?.trim().parse().ok()
    }

    async fn runs(&self) -> bool {
        let Some(pid) = self.pid().await else { return false };
        let Ok(words) = tokio::fs::read(format!("/proc/{pid}/cmdline")).await else { return false };
        words.split(|byte| *byte == 0).any(|word| word == self.pid_file.as_os_str().as_encoded_bytes())
    }

    /// Ends the daemon. It does not listen to a gentle word while it has targets.
    async fn end(&self) -> Result<()> {
        const DURING: &str = "ending the iSCSI daemon";
        let deadline = Instant::now() + STARTING;
        while self.runs().await {
            if let Some(pid) = self.pid().await {
                let killed = tools::administer("kill", ["-9", &pid.to_string()], DURING, self.limit).await;
                if let Err(error @ VolumeDriverError::TimedOut { .. }) = killed {
                    return Err(error);
                }
            }
            if Instant::now() > deadline {
                return Err(VolumeDriverError::TimedOut { during: DURING, after: STARTING });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let socket = self.socket.with_extension(CONTROL);
        if tokio::fs::try_exists(&socket).await.unwrap_or(false) {
            // One that has lost its pid file still listens to this; one that is gone says nothing.
            let _ = self.admin(&["--op", "delete", "--mode", "system", "--force"]).await;
        }
        for path in [self.pid_file.clone(), socket.clone(), socket.with_extension(format!("{CONTROL}.lock"))] {
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(tools::file(DURING, error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| VolumeDriverError::failed("telling the iSCSI daemon", format!("{} is no text", path.display())))
}

fn says(error: &VolumeDriverError, words: &str) -> bool {
    use std::error::Error;
    error.source().is_some_and(|source| source.to_string().contains(words))
}

/// Targets in what `tgtadm` shows: `Target 1: iqn.…`, and whom it lets in.
fn read(printed: &str) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    let mut in_acl = false;
    for line in printed.lines() {
        if let Some((tid, iqn)) = line.strip_prefix("Target ").and_then(|rest| rest.split_once(": ")) {
            if let Ok(tid) = tid.parse() {
                all.push(Found { tid, iqn: iqn.trim().to_owned(), whole: false });
            }
            in_acl = false;
        } else if line.trim() == "ACL information:" {
            in_acl = true;
        } else if in_acl
            && line.trim() == "ALL"
            && let Some(last) = all.last_mut()
        {
            last.whole = true;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_from_what_is_shown() {
        let shown = "Target 1: iqn.x:a\n    System information:\n        Driver: iscsi\n    Account information:\n\
            \x20       u\n    ACL information:\n        ALL\nTarget 7: iqn.x:b\n    ACL information:\n";
        let found = |tid, iqn: &str, whole| Found { tid, iqn: iqn.to_owned(), whole };
        assert_eq!(read(shown), [found(1, "iqn.x:a", true), found(7, "iqn.x:b", false)]);
        assert!(read("").is_empty());
    }
}
