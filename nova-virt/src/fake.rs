//! A hypervisor without a machine: guests are entries in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::host_facts::CpuTimes;
use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use nova_core::topology::{HostCell, HugePages};
use tokio::sync::{Notify, broadcast};

use crate::{
    Capabilities, ErrorKind, GuestEvent, GuestEventKind, GuestInfo, GuestSpec, Hypervisor, HypervisorError,
    InterfaceSpec, NodeResources, Operation, RebootKind, VncEndpoint,
};

mod faults;
mod guests;
mod journal;
mod world;

use faults::{Faults, Strike};
use guests::{Effect, Guest, Guests, find, is_up, move_between, start, stop};
use journal::Journal;
pub use journal::{JournalEntry, JournalOutcome};
pub use world::{CpuViolation, FakeWorld, WorldViolation};

/// How many events a slow receiver may be behind before it loses some.
const EVENT_BUFFER: usize = 4096;
/// What the fake's screens pretend to listen on: 5900 and up, as QEMU does.
const FIRST_VNC_PORT: u16 = 5900;

/// What a [`FakeHypervisor`] is like.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// The compute node's name.
    pub hostname: String,
    /// The address that it says it has.
    pub host_ip: String,
    /// Logical processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in GiB.
    pub disk_gb: u64,
    /// How long each operation takes, on tokio's clock.
    pub latency: Duration,
    /// How long single operations take instead.
    pub latencies: BTreeMap<Operation, Duration>,
    /// Where guests are kept, so that they outlive the process as real ones do. `None`: in memory only. While the file
    /// can't be read or written, every operation is `Unavailable`.
    pub state_file: Option<PathBuf>,
    /// Has base images fetched to its host like a driver that reads them, although it does not.
    pub needs_images: bool,
    /// The world that this fake shares with others.
    pub world: FakeWorld,
    /// How many journal entries are kept; the hash covers all.
    pub journal_limit: usize,
    /// What it says that it can do, besides what every fake can.
    pub traits: BTreeSet<String>,
    /// How busy it is at first.
    pub load: FakeLoad,
    /// Its NUMA cells; none: one, with all that it has.
    pub cells: Vec<HostCell>,
}

impl FakeOptions {
    /// Spreads CPUs and memory over so many cells, each with so much memory as pages of 2 MiB.
    pub fn spread_over(&mut self, nodes: u32, huge_pages_mb: u64) {
        let nodes = nodes.clamp(1, self.vcpus.max(1));
        let memory_mb = self.memory_mb / u64::from(nodes);
        let huge_pages_mb = huge_pages_mb.min(memory_mb);
        let pages = HugePages { size_kb: 2048, count: huge_pages_mb / 2 };
        let first = |cell: u32| (u64::from(cell) * u64::from(self.vcpus) / u64::from(nodes)) as u32;
        let cell = |id| HostCell {
            id,
            shared_cpus: (first(id)..first(id + 1)).collect(),
            memory_mb: memory_mb - huge_pages_mb,
            huge_pages: (pages.count > 0).then_some(pages).into_iter().collect(),
            ..HostCell::default()
        };
        self.cells = (0..nodes).map(cell).collect();
    }

    fn all_cells(&self) -> Vec<HostCell> {
        if !self.cells.is_empty() {
            return self.cells.clone();
        }
        let (shared_cpus, memory_mb) = ((0..self.vcpus).collect(), self.memory_mb);
        vec![HostCell { shared_cpus, memory_mb, ..HostCell::default() }]
    }
}

/// How busy a fake host says that it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FakeLoad {
    /// Share of processor time in programs, 0 to 100.
    pub cpu_percent: u8,
    /// Share of processor time waiting for disks; both together at most 100.
    pub iowait_percent: u8,
    /// Processes that run or wait, in thousandths.
    pub load_average_milli: u64,
}

impl FakeOptions {
    /// A host of that name with 32 processors, 64 GiB of memory and 2 TiB of disk, that answers at once.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            host_ip: "127.0.0.1".into(),
            vcpus: 32,
            memory_mb: 64 << 10,
            disk_gb: 2048,
            latency: Duration::ZERO,
            latencies: BTreeMap::new(),
            state_file: None,
            needs_images: false,
            world: FakeWorld::new(),
            journal_limit: 100_000,
            traits: BTreeSet::new(),
            load: FakeLoad::default(),
            cells: Vec::new(),
        }
    }
}

impl Default for FakeOptions {
    fn default() -> Self {
        Self::new("fake")
    }
}

/// A [`Hypervisor`] for tests and for trying the control plane without a machine.
///
/// It reads no clock but tokio's, draws no random numbers and, with tokio's paused clock on one thread, does the same
/// at each run: [`journal_hash`](Self::journal_hash) shows it.
pub struct FakeHypervisor {
    options: FakeOptions,
    state: Mutex<State>,
    released: Notify,
    events: broadcast::Sender<GuestEvent>,
}

struct State {
    guests: Guests,
    journal: Journal,
    faults: Faults,
    load: FakeLoad,
    spent: CpuTimes,
    /// Why the state file can't be read.
    broken: Option<String>,
}

impl FakeHypervisor {
    /// A fake with those options and the guests of its state file. A file that can't be read makes every operation
    /// fail, rather than losing guests.
    pub fn new(options: FakeOptions) -> Self {
        let (guests, broken) = match options.state_file.as_deref().map(guests::load) {
            None => (Guests::new(), None),
            Some(Ok(guests)) => (guests, None),
            Some(Err(error)) => (Guests::new(), Some(format!("state file: {error}"))),
        };
        for (instance, guest) in &guests {
            if is_up(guest.power_state) {
                options.world.started(&options.hostname, *instance);
            }
        }
        let journal = Journal::new(options.journal_limit);
        let (faults, load, spent) = (Faults::default(), options.load, CpuTimes::default());
        let state = Mutex::new(State { guests, journal, faults, load, spent, broken });
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Self { options, state, released: Notify::new(), events }
    }

    /// The options that it was made with.
    pub fn options(&self) -> &FakeOptions {
        &self.options
    }

    /// What was asked so far, the oldest first, as far as it is kept.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.lock().journal.entries()
    }

    /// A number that stands for the whole journal since the fake was made: equal runs have equal numbers.
    pub fn journal_hash(&self) -> u64 {
        self.lock().journal.hash()
    }

    /// The next `times` calls of the operation fail with that error and do nothing.
    pub fn fail_next(&self, operation: Operation, times: u32, kind: ErrorKind) {
        self.lock().faults.queue(operation, times, Strike::Before, kind);
    }

    /// The next `times` calls of the operation do their work, and then fail with that error all the same.
    pub fn fail_next_after_effect(&self, operation: Operation, times: u32, kind: ErrorKind) {
        self.lock().faults.queue(operation, times, Strike::After, kind);
    }

    /// Calls of the operation, from now on, wait until it is [released](Self::release).
    pub fn hang(&self, operation: Operation) {
        self.lock().faults.hang(operation);
    }

    /// Lets the calls of a hung operation go on.
    pub fn release(&self, operation: Operation) {
        self.lock().faults.release(operation);
        self.released.notify_waiters();
    }

    /// While false, every operation is `Unavailable`. Guests keep running.
    pub fn set_available(&self, available: bool) {
        self.lock().faults.unavailable = !available;
    }

    /// What a guest was made of.
    pub fn spec_of(&self, instance: InstanceId) -> Option<GuestSpec> {
        self.lock().guests.get(&instance).and_then(|guest| guest.spec.clone())
    }

    /// From now on the host is that busy.
    pub fn set_load(&self, load: FakeLoad) {
        self.lock().load = load;
    }

    /// The guest breaks, as when its process is killed. False when it does not run here.
    pub fn crash_guest(&self, instance: InstanceId) -> bool {
        self.strike(instance, PowerState::Crashed, GuestEventKind::Crashed)
    }

    /// The guest shuts itself down. False when it does not run here.
    pub fn shut_down_guest(&self, instance: InstanceId) -> bool {
        self.strike(instance, PowerState::Shutdown, GuestEventKind::Stopped)
    }

    /// The machine loses power: every guest is off. There are no events, as nothing was left to send them.
    pub fn lose_power(&self) {
        let mut state = self.lock();
        for (instance, guest) in &mut state.guests {
            if is_up(guest.power_state) {
                guest.power_state = PowerState::Shutdown;
                self.options.world.stopped(&self.options.hostname, *instance);
            }
        }
        self.save(&mut state);
    }

    /// Leaves files of a guest that is not defined, as a crash in the midst of `spawn` would on a lesser driver.
    pub fn plant_leftover(&self, instance: InstanceId) {
        let mut state = self.lock();
        let leftover = Guest { spec: None, power_state: PowerState::NoState, boots: 0 };
        state.guests.entry(instance).or_insert(leftover);
        self.save(&mut state);
    }

    /// Removes a guest behind everyone's back: no event, no journal entry. False when there was none.
    pub fn remove_guest(&self, instance: InstanceId) -> bool {
        let mut state = self.lock();
        let removed = state.guests.remove(&instance).is_some();
        self.options.world.stopped(&self.options.hostname, instance);
        self.save(&mut state);
        removed
    }

    fn strike(&self, instance: InstanceId, to: PowerState, kind: GuestEventKind) -> bool {
        let mut state = self.lock();
        let Some(guest) = state.guests.get_mut(&instance).filter(|guest| is_up(guest.power_state)) else {
            return false;
        };
        guest.power_state = to;
        self.options.world.stopped(&self.options.hostname, instance);
        self.save(&mut state);
        self.emit(GuestEvent { instance, kind });
        true
    }

    /// What every operation meets first: its latency, and whatever holds it up.
    async fn arrive(&self, operation: Operation) {
        let latency = self.options.latencies.get(&operation).unwrap_or(&self.options.latency);
        if !latency.is_zero() {
            tokio::time::sleep(*latency).await;
        }
        loop {
            let released = self.released.notified();
            if !self.lock().faults.is_hung(operation) {
                return;
            }
            released.await;
        }
    }

    /// An operation that only looks.
    async fn read<T>(
        &self,
        operation: Operation,
        instance: Option<InstanceId>,
        work: impl FnOnce(&Guests) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        self.arrive(operation).await;
        let mut state = self.lock();
        self.apply(&mut state, operation, instance, None, |guests| Ok((work(guests)?, Vec::new())))
    }

    /// An operation that changes one guest.
    async fn change(
        &self,
        operation: Operation,
        instance: InstanceId,
        epoch: Option<u64>,
        work: impl FnOnce(&mut Guests) -> Effect<()>,
    ) -> Result<(), HypervisorError> {
        self.arrive(operation).await;
        let mut state = self.lock();
        let before = state.guests.get(&instance).map(|guest| guest.power_state);
        let result = self.apply(&mut state, operation, Some(instance), epoch, work);
        let after = state.guests.get(&instance).map(|guest| guest.power_state);
        self.tell_world(instance, before, after);
        self.save(&mut state);
        result
    }

    /// Does the work, unless a failure strikes, and puts it into the journal.
    fn apply<T>(
        &self,
        state: &mut State,
        operation: Operation,
        instance: Option<InstanceId>,
        epoch: Option<u64>,
        work: impl FnOnce(&mut Guests) -> Effect<T>,
    ) -> Result<T, HypervisorError> {
        if let Some(why) = &state.broken {
            return Err(HypervisorError::Unavailable { driver: "fake", source: why.clone().into() });
        }
        let fault = state.faults.take(operation);
        if let Some((Strike::Before, kind)) = fault {
            state.journal.record(operation, instance, epoch, JournalOutcome::Failed(kind));
            return Err(faults::error(kind, operation, instance));
        }
        let (outcome, result) = match (work(&mut state.guests), fault) {
            (Err(error), _) => (JournalOutcome::Failed(error.kind()), Err(error)),
            (Ok((value, events)), fault) => {
                events.into_iter().for_each(|event| self.emit(event));
                match fault {
                    None => (JournalOutcome::Done, Ok(value)),
                    Some((_, kind)) => {
                        (JournalOutcome::DoneButFailed(kind), Err(faults::error(kind, operation, instance)))
                    }
                }
            }
        };
        state.journal.record(operation, instance, epoch, outcome);
        result
    }

    fn tell_world(&self, instance: InstanceId, before: Option<PowerState>, after: Option<PowerState>) {
        match (before.is_some_and(is_up), after.is_some_and(is_up)) {
            (false, true) => self.options.world.started(&self.options.hostname, instance),
            (true, false) => self.options.world.stopped(&self.options.hostname, instance),
            (true, true) | (false, false) => {}
        }
    }

    fn save(&self, state: &mut State) {
        let Some(path) = &self.options.state_file else {
            return;
        };
        if state.broken.is_some() {
            return;
        }
        if let Err(error) = guests::save(path, &state.guests) {
            state.broken = Some(format!("state file: {error}"));
        }
    }

    fn emit(&self, event: GuestEvent) {
        // Without a receiver there is nobody to tell.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FakeHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hostname = &self.options.hostname;
        f.debug_struct("FakeHypervisor").field("hostname", hostname).finish_non_exhaustive()
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            driver: "fake".into(),
            hypervisor_type: "fake".into(),
            hypervisor_version: 1_000_000,
            architectures: vec!["x86_64".into()],
            needs_images: self.options.needs_images,
            pause: true,
            suspend: true,
            snapshot: false,
            vnc: true,
            attach_disk: false,
            attach_interface: true,
        }
    }

    async fn resources(&self) -> Result<NodeResources, HypervisorError> {
        self.read(Operation::Resources, None, |_| {
            Ok(NodeResources {
                hypervisor_hostname: self.options.hostname.clone(),
                hypervisor_type: "fake".into(),
                hypervisor_version: 1_000_000,
                vcpus: self.options.vcpus,
                memory_mb: self.options.memory_mb,
                disk_gb: self.options.disk_gb,
                disk_free_gb: self.options.disk_gb,
                cpu_info: cpu_info(self.options.vcpus),
                host_ip: self.options.host_ip.clone(),
                uptime: "up 1 day".into(),
                traits: self.options.traits.iter().cloned().chain(["COMPUTE_NODE".to_owned()]).collect(),
                cells: self.options.all_cells(),
            })
        })
        .await
    }

    async fn cpu_times(&self) -> Result<CpuTimes, HypervisorError> {
        self.arrive(Operation::CpuTimes).await;
        let mut state = self.lock();
        self.apply(&mut state, Operation::CpuTimes, None, None, |_| Ok(((), Vec::new())))?;
        // From one reading to the next a second passes, however long it takes.
        let share = |percent: u8| u64::from(percent.min(100)) * 10_000_000;
        let State { load, spent, .. } = &mut *state;
        let (user, iowait) = (share(load.cpu_percent), share(load.iowait_percent));
        spent.user_ns += user;
        spent.iowait_ns += iowait;
        spent.idle_ns += share(100).saturating_sub(user + iowait);
        Ok(CpuTimes { frequency_mhz: 2_000, load_average_milli: load.load_average_milli, ..*spent })
    }

    async fn list(&self) -> Result<Vec<GuestInfo>, HypervisorError> {
        self.read(Operation::List, None, |guests| {
            Ok(guests.iter().map(|(instance, guest)| guest.info(*instance)).collect())
        })
        .await
    }

    async fn info(&self, id: InstanceId) -> Result<GuestInfo, HypervisorError> {
        self.read(Operation::Info, Some(id), |guests| {
            let guest = guests.get(&id).filter(|guest| guest.spec.is_some());
            guest.map(|guest| guest.info(id)).ok_or(HypervisorError::NotFound { instance: id })
        })
        .await
    }

    async fn spawn(&self, guest: &GuestSpec) -> Result<(), HypervisorError> {
        let epoch = Some(guest.epoch);
        self.change(Operation::Spawn, guest.instance, epoch, |guests| {
            let made = guests::spawn(guests, guest)?;
            for (cpu, instances) in guests::shared_cpus(guests, guest) {
                self.options.world.cpu_shared(CpuViolation { host: self.options.hostname.clone(), cpu, instances });
            }
            Ok(made)
        })
        .await
    }

    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::Destroy, id, None, |guests| {
            let events = guests.remove(&id).map(|mut guest| stop(id, &mut guest));
            Ok(((), events.unwrap_or_default()))
        })
        .await
    }

    async fn power_on(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.change(Operation::PowerOn, id, None, |guests| Ok(((), start(id, find(guests, id)?)))).await
    }

    async fn power_off(&self, id: InstanceId, _graceful: Option<Duration>) -> Result<(), HypervisorError> {
        self.change(Operation::PowerOff, id, None, |guests| Ok(((), stop(id, find(guests, id)?)))).await
    }

    async fn reboot(&self, id: InstanceId, _kind: RebootKind) -> Result<(), HypervisorError> {
        self.change(Operation::Reboot, id, None, |guests| {
            let guest = find(guests, id)?;
            let mut events = stop(id, guest);
            events.extend(start(id, guest));
            Ok(((), events))
        })
        .await
    }

    async fn pause(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Running], PowerState::Paused);
        self.change(Operation::Pause, id, None, |guests| {
            move_between(guests, id, Operation::Pause, &from, to, GuestEventKind::Paused)
        })
        .await
    }

    async fn unpause(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Paused], PowerState::Running);
        self.change(Operation::Unpause, id, None, |guests| {
            move_between(guests, id, Operation::Unpause, &from, to, GuestEventKind::Resumed)
        })
        .await
    }

    async fn suspend(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Running, PowerState::Paused], PowerState::Suspended);
        self.change(Operation::Suspend, id, None, |guests| {
            move_between(guests, id, Operation::Suspend, &from, to, GuestEventKind::Suspended)
        })
        .await
    }

    async fn resume(&self, id: InstanceId) -> Result<(), HypervisorError> {
        let (from, to) = ([PowerState::Suspended], PowerState::Running);
        self.change(Operation::Resume, id, None, |guests| {
            move_between(guests, id, Operation::Resume, &from, to, GuestEventKind::Started)
        })
        .await
    }

    async fn console_log(&self, id: InstanceId) -> Result<Vec<u8>, HypervisorError> {
        self.read(Operation::ConsoleLog, Some(id), |guests| {
            let guest = guests.get(&id).filter(|guest| guest.spec.is_some());
            guest.map(guests::console).ok_or(HypervisorError::NotFound { instance: id })
        })
        .await
    }

    async fn vnc_endpoint(&self, id: InstanceId) -> Result<VncEndpoint, HypervisorError> {
        self.read(Operation::VncEndpoint, Some(id), |guests| {
            let position = guests.keys().position(|other| *other == id);
            let guest = guests.get(&id).filter(|guest| guest.spec.is_some());
            let (Some(guest), Some(position)) = (guest, position) else {
                return Err(HypervisorError::NotFound { instance: id });
            };
            if !is_up(guest.power_state) {
                let operation = Operation::VncEndpoint;
                return Err(HypervisorError::InvalidState { instance: id, operation, state: guest.power_state });
            }
            let port = FIRST_VNC_PORT.saturating_add(u16::try_from(position).unwrap_or(u16::MAX));
            Ok(VncEndpoint { host: self.options.host_ip.clone(), port })
        })
        .await
    }

    async fn interfaces(&self, id: InstanceId) -> Result<Vec<String>, HypervisorError> {
        self.read(Operation::Interfaces, Some(id), |guests| {
            let spec = guests.get(&id).and_then(|guest| guest.spec.as_ref());
            let spec = spec.ok_or(HypervisorError::NotFound { instance: id })?;
            Ok(spec.interfaces.iter().map(|nic| nic.mac_address.to_ascii_lowercase()).collect())
        })
        .await
    }

    async fn attach_interface(&self, id: InstanceId, interface: &InterfaceSpec) -> Result<(), HypervisorError> {
        interface.validate()?;
        self.change(Operation::AttachInterface, id, None, |guests| guests::attach_interface(guests, id, interface))
            .await
    }

    async fn detach_interface(&self, id: InstanceId, mac_address: &str) -> Result<(), HypervisorError> {
        self.change(Operation::DetachInterface, id, None, |guests| guests::detach_interface(guests, id, mac_address))
            .await
    }

    fn events(&self) -> broadcast::Receiver<GuestEvent> {
        self.events.subscribe()
    }

    async fn ping(&self) -> Result<(), HypervisorError> {
        self.read(Operation::Ping, None, |_| Ok(())).await
    }
}

fn cpu_info(vcpus: u32) -> serde_json::Value {
    serde_json::json!({
        "arch": "x86_64",
        "model": "fake",
        "vendor": "fake",
        "features": [],
        "topology": { "sockets": 1, "cores": vcpus, "threads": 1 },
    })
}

#[cfg(test)]
mod tests;
