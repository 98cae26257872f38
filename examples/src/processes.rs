//! A hypervisor driver of your own, in one file: processes as "VMs".
//!
//! [`ProcessHypervisor`] keeps the contract of [`Hypervisor`] with the least there is. A guest is a process of a program
//! that you name, in a session of its own, so that it outlives the driver; a folder holds a file for each guest (what it was
//! ordered as, and its process) and its console. There are no disks and no network.
//!
//! What to look at when you write yours:
//!
//! - [`capabilities`](Hypervisor::capabilities) says what it can do. The trait answers `Unsupported` for the rest.
//! - Each operation may be repeated, and operations on one guest come one after the other: here one lock does both.
//! - A process id alone proves nothing, since the kernel uses it again: beside it stands when the process began.
//! - The order's epoch is kept with the guest, and older orders are refused.
//! - `examples/tests/it/processes.rs` holds it to the suite that every driver passes, which is one macro.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use nova_virt::{
    Capabilities, GuestEvent, GuestEventKind, GuestInfo, GuestSpec, Hypervisor, HypervisorError, NodeResources,
    Operation, RebootKind,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

type Result<T> = std::result::Result<T, HypervisorError>;

const EVENT_BUFFER: usize = 1024;
const CONSOLE_BYTES: u64 = 1 << 20;
/// The version that the API shows: 1.0.0.
const VERSION: i64 = 1_000_000;

/// What is kept of a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    epoch: u64,
    name: String,
    process: Option<Process>,
    /// It was off by our order, rather than by itself.
    stopped: bool,
}

/// A process, and when it began, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    id: i32,
    began: u64,
}

/// A [`Hypervisor`] whose guests are processes.
pub struct ProcessHypervisor {
    hostname: String,
    folder: PathBuf,
    program: Vec<String>,
    /// Those that this driver started: they must be waited for when they end. One lock for all that it does.
    children: Mutex<BTreeMap<InstanceId, Child>>,
    events: broadcast::Sender<GuestEvent>,
}

impl ProcessHypervisor {
    /// Guests run `program`, a name and its arguments; what is to outlive this process is in `folder`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(hostname: impl Into<String>, folder: impl Into<PathBuf>, program: &[&str]) -> io::Result<Self> {
        let folder = folder.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let program = program.iter().map(|word| (*word).to_owned()).collect();
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Ok(Self { hostname: hostname.into(), folder, program, children: Mutex::default(), events })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: InstanceId, kind: &str) -> PathBuf {
        self.folder.join(format!("{id}.{kind}"))
    }

    /// What is kept of a guest; `None`: nothing.
    fn read(&self, id: InstanceId) -> Result<Option<Kept>> {
        match fs::read(self.file(id, "json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed("reading a guest", error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading a guest", error)),
        }
    }

    fn find(&self, id: InstanceId) -> Result<Kept> {
        self.read(id)?.ok_or(HypervisorError::NotFound { instance: id })
    }

    /// Whole, or not at all.
    fn write(&self, id: InstanceId, kept: &Kept) -> Result<()> {
        const DURING: &str = "keeping a guest";
        let bytes = serde_json::to_vec(kept).map_err(|error| failed(DURING, error))?;
        let new = self.file(id, "new");
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, self.file(id, "json"))).map_err(|e| failed(DURING, e))
    }

    fn start(&self, id: InstanceId, kept: &mut Kept, children: &mut BTreeMap<InstanceId, Child>) -> Result<()> {
        const DURING: &str = "starting a guest";
        match power_state(kept) {
            PowerState::Running => return Ok(()),
            PowerState::Paused => {
                signal(kept.process, Signal::CONT)?;
                self.tell(id, GuestEventKind::Resumed);
                return Ok(());
            }
            _ => {}
        }
        let [program, arguments @ ..] = self.program.as_slice() else {
            return Err(HypervisorError::Failed { during: DURING, source: "no program is named".into() });
        };
        let mut options = OpenOptions::new();
        let console = options.create(true).append(true).mode(0o600).open(self.file(id, "console"));
        let console = console.map_err(|error| failed(DURING, error))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(console.try_clone().map_err(|error| failed(DURING, error))?)
            .stderr(console)
            // What is sent to our group, an interrupt from a terminal for example, is not for guests.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(DURING, error))?;
        let process = i32::try_from(child.id()).ok().and_then(|id| Some(Process { id, began: began(id)? }));
        (kept.process, kept.stopped) = (process, false);
        self.reap(id, children);
        children.insert(id, child);
        self.write(id, kept)?;
        self.tell(id, GuestEventKind::Started);
        Ok(())
    }

    fn stop(&self, id: InstanceId, kept: &mut Kept, children: &mut BTreeMap<InstanceId, Child>) -> Result<()> {
        let was_up = matches!(power_state(kept), PowerState::Running | PowerState::Paused);
        if was_up {
            signal(kept.process, Signal::KILL)?;
        }
        self.reap(id, children);
        (kept.process, kept.stopped) = (None, true);
        self.write(id, kept)?;
        if was_up {
            self.tell(id, GuestEventKind::Stopped);
        }
        Ok(())
    }

    /// The kernel keeps what has ended until its parent has asked. It has ended, or was just killed: this does not take long.
    fn reap(&self, id: InstanceId, children: &mut BTreeMap<InstanceId, Child>) {
        if let Some(mut child) = children.remove(&id)
            && let Err(error) = child.wait()
        {
            tracing::warn!(instance = %id, %error, "a guest's end was not learned");
        }
    }

    fn tell(&self, instance: InstanceId, kind: GuestEventKind) {
        // Without a receiver there is nobody to tell.
        let _ = self.events.send(GuestEvent { instance, kind });
    }

    /// Something with a guest that is there.
    fn with(
        &self,
        id: InstanceId,
        act: impl FnOnce(&mut Kept, &mut BTreeMap<InstanceId, Child>) -> Result<()>,
    ) -> Result<()> {
        let mut children = self.lock();
        let mut kept = self.find(id)?;
        act(&mut kept, &mut children)
    }

    fn halt(&self, id: InstanceId, operation: Operation, from: PowerState, to: PowerState) -> Result<()> {
        self.with(id, |kept, _| match power_state(kept) {
            state if state == to => Ok(()),
            state if state == from => {
                let paused = to == PowerState::Paused;
                signal(kept.process, if paused { Signal::STOP } else { Signal::CONT })?;
                self.tell(id, if paused { GuestEventKind::Paused } else { GuestEventKind::Resumed });
                Ok(())
            }
            state => Err(HypervisorError::InvalidState { instance: id, operation, state }),
        })
    }
}

fn failed(during: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> HypervisorError {
    HypervisorError::Failed { during, source: Box::new(error) }
}

/// The fields of `/proc/PID/stat` behind the name, which may have spaces of its own: the state is the first.
fn stat(id: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn began(id: i32) -> Option<u64> {
    stat(id)?.get(19)?.parse().ok()
}

fn power_state(kept: &Kept) -> PowerState {
    let alive = kept.process.filter(|process| began(process.id) == Some(process.began));
    let state = alive.and_then(|process| stat(process.id)?.into_iter().next());
    match state.as_deref() {
        Some("T") => PowerState::Paused,
        // A zombie has ended.
        Some("Z" | "X") | None if kept.process.is_some() && !kept.stopped => PowerState::Crashed,
        Some("Z" | "X") | None => PowerState::Shutdown,
        Some(_) => PowerState::Running,
    }
}

fn signal(process: Option<Process>, signal: Signal) -> Result<()> {
    const DURING: &str = "sending a guest a signal";
    let alive = process.filter(|process| began(process.id) == Some(process.began));
    let Some(id) = alive.and_then(|process| Pid::from_raw(process.id)) else { return Ok(()) };
    match kill_process(id, signal) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        sent => sent.map_err(|error| failed(DURING, io::Error::from(error)))?,
    }
    // It is delivered a moment later; whoever looks next must see it.
    while signal == Signal::STOP && stat(id.as_raw_nonzero().get()).is_some_and(|fields| fields[0] != "T") {
        std::thread::yield_now();
    }
    Ok(())
}

#[async_trait]
impl Hypervisor for ProcessHypervisor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            driver: "processes".into(),
            hypervisor_type: "process".into(),
            hypervisor_version: VERSION,
            architectures: vec![std::env::consts::ARCH.into()],
            convert_image: false,
            quiesce: false,
            needs_images: false,
            pause: true,
            suspend: false,
            snapshot: false,
            vnc: false,
            spice: false,
            serial: false,
            attach_disk: false,
            attach_interface: false,
            rescue: false,
            rebuild: false,
            set_admin_password: false,
            inject_nmi: false,
            diagnostics: false,
            migrate: false,
            live_migrate: false,
        }
    }

    async fn resources(&self) -> Result<NodeResources> {
        let vcpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        Ok(NodeResources {
            hypervisor_hostname: self.hostname.clone(),
            hypervisor_type: "process".into(),
            hypervisor_version: VERSION,
            vcpus,
            // A process takes what it takes: these say how many guests there may be.
            memory_mb: 16 << 10,
            disk_gb: 100,
            disk_free_gb: 100,
            cpu_info: serde_json::json!({ "arch": std::env::consts::ARCH }),
            host_ip: "127.0.0.1".into(),
            uptime: String::new(),
            traits: ["COMPUTE_NODE".to_owned()].into(),
            cells: Vec::new(),
            guests_see_cpu: false,
        })
    }

    async fn list(&self) -> Result<Vec<GuestInfo>> {
        let _one_at_a_time = self.lock();
        let entries = fs::read_dir(&self.folder).map_err(|error| failed("listing the guests", error))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<InstanceId> =
            names.filter_map(|name| name.strip_suffix(".json")?.parse::<InstanceId>().ok()).collect();
        ids.sort();
        ids.into_iter().map(|id| Ok(info(id, &self.find(id)?))).collect()
    }

    async fn info(&self, id: InstanceId) -> Result<GuestInfo> {
        let _one_at_a_time = self.lock();
        Ok(info(id, &self.find(id)?))
    }

    async fn spawn(&self, guest: &GuestSpec) -> Result<()> {
        guest.validate()?;
        let (id, asked) = (guest.instance, guest.epoch);
        let mut children = self.lock();
        let known = self.read(id)?;
        if let Some(current) = known.as_ref().map(|known| known.epoch).filter(|current| *current > asked) {
            return Err(HypervisorError::Stale { instance: id, asked, current });
        }
        let process = known.as_ref().and_then(|known| known.process);
        let stopped = known.as_ref().is_none_or(|known| known.stopped);
        let mut kept = Kept { epoch: asked, name: guest.name.clone(), process, stopped };
        self.write(id, &kept)?;
        let before = power_state(&kept);
        let start = guest.running && before != PowerState::Paused;
        let mut started = if start { self.start(id, &mut kept, &mut children) } else { Ok(()) };
        // It is held before anybody else hears of it: to the process, its first instant may be over.
        if started.is_ok() && start && guest.held && before != PowerState::Running {
            started = signal(kept.process, Signal::STOP);
        }
        if started.is_err() && known.is_none() {
            remove(&self.folder, id)?;
        }
        started
    }

    async fn destroy(&self, id: InstanceId) -> Result<()> {
        let mut children = self.lock();
        if let Some(mut kept) = self.read(id)? {
            self.stop(id, &mut kept, &mut children)?;
        }
        remove(&self.folder, id)
    }

    async fn power_on(&self, id: InstanceId) -> Result<()> {
        self.with(id, |kept, children| self.start(id, kept, children))
    }

    async fn power_off(&self, id: InstanceId, _graceful: Option<Duration>) -> Result<()> {
        // A process without an operating system has nothing to finish.
        self.with(id, |kept, children| self.stop(id, kept, children))
    }

    async fn reboot(&self, id: InstanceId, _kind: RebootKind) -> Result<()> {
        self.with(id, |kept, children| {
            self.stop(id, kept, children)?;
            self.start(id, kept, children)
        })
    }

    async fn pause(&self, id: InstanceId) -> Result<()> {
        self.halt(id, Operation::Pause, PowerState::Running, PowerState::Paused)
    }

    async fn unpause(&self, id: InstanceId) -> Result<()> {
        self.halt(id, Operation::Unpause, PowerState::Paused, PowerState::Running)
    }

    async fn console_log(&self, id: InstanceId) -> Result<Vec<u8>> {
        let _one_at_a_time = self.lock();
        self.find(id)?;
        tail(&self.file(id, "console")).map_err(|error| failed("reading the console log", error))
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.events.subscribe()
    }

    async fn ping(&self) -> Result<()> {
        fs::metadata(&self.folder).map(drop).map_err(|error| failed("looking for the folder", error))
    }
}

fn info(instance: InstanceId, kept: &Kept) -> GuestInfo {
    GuestInfo { instance, name: kept.name.clone(), power_state: power_state(kept), epoch: kept.epoch }
}

fn remove(folder: &Path, id: InstanceId) -> Result<()> {
    // The file that makes it a guest goes last.
    for kind in ["console", "new", "json"] {
        match fs::remove_file(folder.join(format!("{id}.{kind}"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("removing a guest's files", error)),
            _ => {}
        }
    }
    Ok(())
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
