//! The dnsmasq processes of this host: found by the configuration that they were started with, so that nothing depends on
//! who started them or on a file that says who they are. They outlive nova-compute.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nova_core::network::MacAddress;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::links::{failed, run_in_namespace};
use super::super::namespace;
use super::DnsmasqFiles;
use crate::network::PlumbingError;

/// How long a process that was told to end may take.
const END: Duration = Duration::from_secs(2);
/// What the arguments of ours begin with.
const CONFIG: &str = "--conf-file=";

/// A dnsmasq that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    pid: i32,
    config: PathBuf,
    /// The number of its network namespace.
    namespace: Option<u64>,
}

/// The dnsmasq processes of this host, as they were when it looked.
#[derive(Debug)]
pub struct Daemons {
    root: PathBuf,
    running: Vec<Running>,
}

/// One that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Daemon<'a> {
    /// The folder of its files, which is no other's.
    pub folder: &'a Path,
    /// The namespace that it runs in.
    pub namespace: &'a str,
    /// That namespace's number.
    pub number: u64,
    /// How long a guest keeps its address.
    pub lease_time: Duration,
    /// What it is told.
    pub files: &'a DnsmasqFiles,
}

/// What a process knows, as far as it was told by this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    pid: i32,
    /// Of the files that it read last.
    digest: String,
    /// Whom it may have leased which address, since it was started.
    leases: BTreeMap<IpAddr, MacAddress>,
    /// Since when those are not wanted any more, in seconds since 1970.
    #[serde(default)]
    unwanted: BTreeMap<IpAddr, u64>,
}

impl Told {
    /// Takes up what it may lease from now on, and forgets what is not wanted and whose lease has ended since: it is
    /// not given again without being told.
    fn lease(&mut self, wanted: &BTreeMap<IpAddr, MacAddress>, now: u64, lease_time: Duration) {
        self.unwanted.retain(|address, _| !wanted.contains_key(address));
        for address in self.leases.keys().filter(|address| !wanted.contains_key(*address)) {
            self.unwanted.entry(*address).or_insert(now);
        }
        let ended = |since: &u64| now.saturating_sub(*since) > lease_time.as_secs();
        self.leases.retain(|address, _| !self.unwanted.get(address).is_some_and(ended));
        self.unwanted.retain(|_, since| !ended(since));
        self.leases.extend(wanted);
    }
}

/// What is to be done about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Keep,
    /// It reads its files again.
    Reload(i32),
    Start,
}

impl Daemons {
    /// Looks for all processes with a configuration under that folder.
    pub async fn look(root: &Path) -> Result<Self, PlumbingError> {
        let folder = root.to_owned();
        let running = run_in_namespace(None, move || find(&folder)).await?;
        Ok(Self { root: root.to_owned(), running })
    }

    /// The folders of files that are there, with or without a process.
    pub fn folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten();
        let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        found.extend(self.running.iter().filter_map(|running| running.config.parent().map(Path::to_owned)));
        found.sort();
        found.dedup();
        found
    }

    /// Has it run as it is to: changes its files, has it read them again, or starts it, whatever is needed.
    pub async fn ensure(&self, wanted: Daemon<'_>) -> Result<(), PlumbingError> {
        let config = wanted.folder.join(format!("config-{}", &digest([wanted.files.config.as_str()])[..16]));
        let doing = || format!("write the files of dnsmasq in {}", wanted.folder.display());
        make_folder(&self.root).and_then(|()| make_folder(wanted.folder)).map_err(|e| failed(doing(), e))?;
        for (name, content) in &wanted.files.files {
            write_changed(&wanted.folder.join(name), content).map_err(|e| failed(doing(), e))?;
        }
        write_changed(&config, &wanted.files.config).map_err(|e| failed(doing(), e))?;

        let told_file = wanted.folder.join("told");
        let told: Told =
            std::fs::read(&told_file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let files = digest(wanted.files.files.iter().flat_map(|(name, content)| [*name, content.as_str()]));
        let running = self.of(wanted.folder);
        let tell = |told: &Told| -> Result<(), PlumbingError> {
            let text = serde_json::to_string(told).map_err(|e| failed(doing(), e))?;
            write_changed(&told_file, &text).map_err(|e| failed(doing(), e))
        };
        let leases = &wanted.files.leases;
        match decide(&running, &config, wanted.number, &told, &files, leases) {
            Action::Keep => Ok(()),
            Action::Reload(pid) => {
                let mut told = if told.pid == pid { told } else { Told { pid, ..Told::default() } };
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                told.lease(leases, now, wanted.lease_time);
                told.digest.clear();
                // Before it reads them: who dies in between has it read them once more.
                tell(&told)?;
                signal(pid, &config, Signal::HUP);
                tell(&Told { digest: files, ..told })
            }
            Action::Start => {
                self.end(running).await?;
                self.readable(&config)?;
                self.start(wanted, &config).await?;
                let pid = std::fs::read_to_string(wanted.folder.join("pid")).unwrap_or_default();
                let pid = pid.trim().parse().unwrap_or_default();
                tell(&Told { pid, digest: files, leases: leases.clone(), ..Told::default() })?;
                remove_old(wanted.folder, &config);
                Ok(())
            }
        }
    }

    /// Ends what runs with files of that folder, and removes them.
    pub async fn remove(&self, folder: &Path) -> Result<(), PlumbingError> {
        self.end(self.of(folder)).await?;
        match std::fs::remove_dir_all(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(format!("remove {}", folder.display()), e))
            }
            _ => Ok(()),
        }
    }

    fn of(&self, folder: &Path) -> Vec<Running> {
        self.running.iter().filter(|running| running.config.parent() == Some(folder)).cloned().collect()
    }

    async fn start(&self, wanted: Daemon<'_>, config: &Path) -> Result<(), PlumbingError> {
        let config = format!("{CONFIG}{}", config.display());
        namespace::run(Some(wanted.namespace), "dnsmasq", &[&config], None).await.map(drop)
    }

    async fn end(&self, processes: Vec<Running>) -> Result<(), PlumbingError> {
        if processes.is_empty() {
            return Ok(());
        }
        let work =
            move || processes.iter().filter(|running| !end(running)).map(|running| running.pid).collect::<Vec<_>>();
        let left = run_in_namespace(None, work).await?;
        if left.is_empty() { Ok(()) } else { Err(failed("end dnsmasq", format!("{left:?} still run"))) }
    }

    /// dnsmasq gives its rights up and reads its files again as a user who has none.
    fn readable(&self, config: &Path) -> Result<(), PlumbingError> {
        for folder in config.ancestors().skip(1) {
            let mode = std::fs::metadata(folder).map(|file| file.permissions().mode());
            if mode.is_ok_and(|mode| mode & 1 == 0) {
                let text =
                    format!("dnsmasq gives up root and can't read {} then: make it searchable", folder.display());
                return Err(PlumbingError::Unsupported(text));
            }
        }
        Ok(())
    }
}

/// What is to be done, with what runs and what that was told.
fn decide(
    running: &[Running],
    config: &Path,
    namespace: u64,
    told: &Told,
    files: &str,
    leases: &BTreeMap<IpAddr, MacAddress>,
) -> Action {
    let [one] = running else { return Action::Start };
    let right = one.config == config && one.namespace == Some(namespace);
    // It gives no address that it has leased to somebody else, who may be gone since; started anew, it knows no lease.
    let reassigned = leases.iter().any(|(address, mac)| told.leases.get(address).is_some_and(|had| had != mac));
    if !right || reassigned {
        return Action::Start;
    }
    if told.pid == one.pid && told.digest == files { Action::Keep } else { Action::Reload(one.pid) }
}

fn find(root: &Path) -> Vec<Running> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let config = config_of(pid).filter(|config| config.starts_with(root))?;
        let namespace = namespace::number_of(Path::new(&format!("/proc/{pid}/ns/net")));
        Some(Running { pid, config, namespace })
    })
    .collect()
}

/// The configuration that a process was started with, if it is a dnsmasq.
fn config_of(pid: i32) -> Option<PathBuf> {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = arguments.next()?;
    if Path::new(program.as_ref()).file_name()? != "dnsmasq" {
        return None;
    }
    arguments.find_map(|argument| argument.strip_prefix(CONFIG).map(PathBuf::from))
}

/// Signals a process that is still the one with that configuration.
fn signal(pid: i32, config: &Path, signal: Signal) {
    let Some(number) = Pid::from_raw(pid) else { return };
    // Held open, the number is nobody else's.
    if let Ok(process) = pidfd_open(number, PidfdFlags::empty())
        && config_of(pid).as_deref() == Some(config)
    {
        // It may have ended meanwhile, which the next look will see.
        let _ = pidfd_send_signal(&process, signal);
    }
}

/// Ends a process; is it gone?
fn end(running: &Running) -> bool {
    let there = || config_of(running.pid).as_ref() == Some(&running.config);
    for how in [Signal::TERM, Signal::KILL] {
        signal(running.pid, &running.config, how);
        let start = Instant::now();
        while start.elapsed() < END {
            if !there() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    !there()
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// Replaces a file whose content differs, at once.
fn write_changed(path: &Path, content: &str) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|present| present == content.as_bytes()) {
        return Ok(());
    }
    let beside = path.with_extension("new");
    std::fs::write(&beside, content)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(beside, path)
}

/// Removes configurations that nobody runs with any more.
fn remove_old(folder: &Path, config: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("config-") && path != config {
            // Left behind it does no harm.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn digest<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    for word in words {
        hasher.update((word.len() as u64).to_be_bytes());
        hasher.update(word.as_bytes());
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(entries: &[(&str, u8)]) -> BTreeMap<IpAddr, MacAddress> {
        let mac = |last| MacAddress::from_bytes([0xfa, 0x16, 0x3e, 0, 0, last]);
        entries.iter().map(|(address, last)| (address.parse().unwrap(), mac(*last))).collect()
    }

    fn running(pid: i32, config: &str, namespace: u64) -> Running {
        Running { pid, config: PathBuf::from(config), namespace: Some(namespace) }
    }

    #[test]
    fn it_starts_anew_only_when_it_must() {
        let told = Told {
            pid: 9,
            digest: "now".into(),
            leases: leases(&[("10.0.0.5", 5), ("10.0.0.6", 6)]),
            ..Told::default()
        };
        let decide = |running: &[Running], files: &str, wanted: &[(&str, u8)]| {
            super::decide(running, Path::new("/s/n/config-1"), 77, &told, files, &leases(wanted))
        };
        let right = running(9, "/s/n/config-1", 77);
        assert_eq!(decide(std::slice::from_ref(&right), "now", &[("10.0.0.5", 5)]), Action::Keep);
        assert_eq!(decide(std::slice::from_ref(&right), "later", &[("10.0.0.5", 5)]), Action::Reload(9));
        let other = running(8, "/s/n/config-1", 77);
        assert_eq!(decide(std::slice::from_ref(&other), "now", &[]), Action::Reload(8), "told somebody else");
        let moved = [("10.0.0.5", 5), ("10.0.0.6", 7)];
        assert_eq!(decide(std::slice::from_ref(&right), "later", &moved), Action::Start, "leased to another");
        for wrong in [running(9, "/s/n/config-2", 77), running(9, "/s/n/config-1", 78)] {
            assert_eq!(decide(&[wrong], "now", &[]), Action::Start);
        }
        assert_eq!(decide(&[], "now", &[]), Action::Start, "it has died");
        assert_eq!(decide(&[right.clone(), right], "now", &[]), Action::Start, "one too many");
    }

    #[test]
    fn what_it_may_have_leased_is_known_until_the_lease_ends() {
        let mut told = Told { leases: leases(&[("10.0.0.5", 5), ("10.0.0.6", 6)]), ..Told::default() };
        let mut after = |now: u64, wanted: &[(&str, u8)]| {
            told.lease(&leases(wanted), now, Duration::from_secs(100));
            told.leases.clone()
        };
        assert_eq!(after(1000, &[("10.0.0.6", 6)]).len(), 2);
        assert_eq!(after(1100, &[("10.0.0.6", 6)]).len(), 2, "it may be in use yet");
        assert_eq!(after(1101, &[("10.0.0.6", 6)]), leases(&[("10.0.0.6", 6)]));
        // Wanted again in between, it counts from when it goes the next time.
        after(2000, &[]);
        after(2050, &[("10.0.0.6", 6)]);
        assert_eq!(after(2120, &[]).len(), 1);
        assert_eq!(after(2221, &[]).len(), 0);
        assert!(told.unwanted.is_empty());
    }

    #[test]
    fn other_processes_are_not_taken_for_ours() {
        assert_eq!(config_of(i32::try_from(std::process::id()).unwrap()), None);
        assert!(find(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn files_are_replaced_only_when_they_differ() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        write_changed(&path, "one").unwrap();
        let number = std::fs::metadata(&path).unwrap().ino();
        write_changed(&path, "one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), number);
        write_changed(&path, "two").unwrap();
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), number);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    }
}
