//! A hypervisor without a machine: guests are entries in a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::host_facts::CpuTimes;
use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

#[cfg(doc)]
use crate::Hypervisor;
use crate::{DiskRole, ErrorKind, GuestEvent, GuestEventKind, GuestSpec, HypervisorError, Operation, RescueSpec};

mod disks;
mod driver;
mod faults;
mod guests;
mod journal;
mod life;
mod migration;
mod options;
mod places;
mod serial;
mod stash;
mod table;
mod volumes;
mod world;

use faults::{Faults, Strike};
use guests::{Effect, Guest, is_up};
use journal::Journal;
pub use journal::{JournalEntry, JournalOutcome};
use migration::Moving;
pub use options::{FakeLoad, FakeOptions};
use table::Table;
pub use world::{CpuViolation, FakeWorld, WorldViolation};

/// How many events a slow receiver may be behind before it loses some.
const EVENT_BUFFER: usize = 4096;

/// A [`Hypervisor`] for tests and for trying the control plane without a machine.
///
/// It reads no clock but tokio's, draws no random numbers and, with tokio's paused clock on one thread, does the same
/// at each run: [`journal_hash`](Self::journal_hash) shows it.
pub struct FakeHypervisor {
    options: FakeOptions,
    host: Arc<Host>,
    released: Notify,
}

/// What a live migration reaches of another fake.
#[derive(Debug)]
struct Host {
    state: Mutex<State>,
    state_file: Option<PathBuf>,
    events: broadcast::Sender<GuestEvent>,
}

#[derive(Debug)]
struct State {
    table: Table,
    journal: Journal,
    faults: Faults,
    latencies: BTreeMap<Operation, Duration>,
    load: FakeLoad,
    spent: CpuTimes,
    /// Live migrations from here.
    moving: BTreeMap<InstanceId, Moving>,
    /// Swaps of volumes here, each with what ends it.
    copying: BTreeMap<InstanceId, Arc<Notify>>,
    /// When guests were started, as far as this process saw it.
    started: BTreeMap<InstanceId, Instant>,
    /// Why the state file can't be read.
    broken: Option<String>,
}

impl Host {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, state: &mut State) {
        let Some(path) = &self.state_file else {
            return;
        };
        if state.broken.is_some() {
            return;
        }
        if let Err(error) = table::save(path, &state.table) {
            state.broken = Some(format!("state file: {error}"));
        }
    }

    fn emit(&self, event: GuestEvent) {
        // Without a receiver there is nobody to tell.
        let _ = self.events.send(event);
    }
}

impl FakeHypervisor {
    /// A fake with those options and the guests of its state file. A file that can't be read makes every operation
    /// fail, rather than losing guests.
    pub fn new(options: FakeOptions) -> Self {
        let (table, broken) = match options.state_file.as_deref().map(table::load) {
            None => (Table::default(), None),
            Some(Ok(table)) => (table, None),
            Some(Err(error)) => (Table::default(), Some(format!("state file: {error}"))),
        };
        for (instance, guest) in &table.guests {
            if is_up(guest.power_state) {
                options.world.started(&options.hostname, *instance);
            }
        }
        let state = State {
            table,
            journal: Journal::new(options.journal_limit),
            faults: Faults::default(),
            latencies: options.latencies.clone(),
            load: options.load,
            spent: CpuTimes::default(),
            moving: BTreeMap::new(),
            copying: BTreeMap::new(),
            started: BTreeMap::new(),
            broken,
        };
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        let host = Arc::new(Host { state: Mutex::new(state), state_file: options.state_file.clone(), events });
        options.world.join(&options.hostname, &host);
        Self { options, host, released: Notify::new() }
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

    /// Of the calls of the operation from now on, the `nth` (from 1) fails with that error and does nothing.
    pub fn fail_nth(&self, operation: Operation, nth: u32, kind: ErrorKind) {
        let mut state = self.lock();
        state.faults.let_pass(operation, nth.saturating_sub(1));
        state.faults.queue(operation, 1, Strike::Before, kind);
    }

    /// The operation takes so long from now on.
    pub fn set_latency(&self, operation: Operation, latency: Duration) {
        self.lock().latencies.insert(operation, latency);
    }

    /// Calls of the operation, from now on, wait until it is [released](Self::release). A live migration that hangs shows
    /// as one that does not converge: it can be aborted and forced; a swap of volumes can be aborted.
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
        self.lock().table.get(&instance).and_then(|guest| guest.spec.clone())
    }

    /// How it is rescued, if it is.
    pub fn rescue_of(&self, instance: InstanceId) -> Option<RescueSpec> {
        self.lock().table.get(&instance).and_then(|guest| guest.rescue.clone())
    }

    /// The password that was set last, and for whom.
    pub fn password_of(&self, instance: InstanceId) -> Option<(Option<String>, String)> {
        self.lock().table.get(&instance).and_then(|guest| guest.password.clone())
    }

    /// How often its file systems stood still for a copy.
    pub fn freezes_of(&self, instance: InstanceId) -> u32 {
        self.lock().table.get(&instance).map_or(0, |guest| guest.freezes)
    }

    /// Do its file systems stand still now?
    pub fn is_frozen(&self, instance: InstanceId) -> bool {
        self.lock().table.get(&instance).is_some_and(|guest| guest.frozen && guest.power_state == PowerState::Running)
    }

    /// How many non-maskable interrupts it got.
    pub fn nmis_of(&self, instance: InstanceId) -> u32 {
        self.lock().table.get(&instance).map_or(0, |guest| guest.nmis)
    }

    /// What is written on the guest's disk of that role, the first if there are several: what it was made of, or what
    /// [`write_disk`](Self::write_disk) wrote. It goes where the disk goes.
    pub fn disk_of(&self, instance: InstanceId, role: DiskRole) -> Option<String> {
        let state = self.lock();
        let disks = &state.table.get(&instance)?.disks;
        disks.iter().find(|disk| disk.role == role).map(|disk| disk.content.clone())
    }

    /// The guest writes onto its disk of that role. False when it has none.
    pub fn write_disk(&self, instance: InstanceId, role: DiskRole, content: &str) -> bool {
        let mut state = self.lock();
        let disks = state.table.get_mut(&instance).map(|guest| guest.disks.iter_mut());
        let Some(disk) = disks.and_then(|mut disks| disks.find(|disk| disk.role == role)) else { return false };
        disk.content = content.to_owned();
        self.save(&mut state);
        true
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
        for (instance, guest) in &mut state.table.guests {
            if is_up(guest.power_state) {
                guest.power_state = PowerState::Shutdown;
                self.options.world.stopped(&self.options.hostname, *instance);
            }
        }
        state.started.clear();
        self.save(&mut state);
    }

    /// The whole host is lost: it has no power, and every operation is `Unavailable` until it [comes back](Self::bring_back).
    pub fn lose_host(&self) {
        self.lose_power();
        self.set_available(false);
    }

    /// A lost host is there again, with its guests' disks, and none of them running.
    pub fn bring_back(&self) {
        self.set_available(true);
    }

    /// Leaves files of a guest that is not defined, as a crash in the midst of `spawn` would on a lesser driver.
    pub fn plant_leftover(&self, instance: InstanceId) {
        let mut state = self.lock();
        state.table.entry(instance).or_insert_with(|| Guest::leftover(PowerState::NoState));
        self.save(&mut state);
    }

    /// Removes a guest behind everyone's back: no event, no journal entry. False when there was none.
    pub fn remove_guest(&self, instance: InstanceId) -> bool {
        let mut state = self.lock();
        let removed = state.table.remove(&instance).is_some();
        self.options.world.stopped(&self.options.hostname, instance);
        self.save(&mut state);
        removed
    }

    fn strike(&self, instance: InstanceId, to: PowerState, kind: GuestEventKind) -> bool {
        let mut state = self.lock();
        let Some(guest) = state.table.get_mut(&instance).filter(|guest| is_up(guest.power_state)) else {
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
        let latency = self.latency(operation);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        loop {
            let released = self.released.notified();
            if !self.lock().faults.is_hung(operation) {
                return;
            }
            released.await;
        }
    }

    fn latency(&self, operation: Operation) -> Duration {
        self.lock().latencies.get(&operation).copied().unwrap_or(self.options.latency)
    }

    /// An operation that only looks.
    async fn read<T>(
        &self,
        operation: Operation,
        instance: Option<InstanceId>,
        work: impl FnOnce(&Table) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        self.arrive(operation).await;
        let mut state = self.lock();
        self.apply(&mut state, operation, instance, None, |guests| Ok((work(guests)?, Vec::new())))
    }

    /// The port of a guest's screen: that of the first guest is given, those of others follow.
    async fn screen_port(&self, operation: Operation, id: InstanceId, first: u16) -> Result<u16, HypervisorError> {
        self.read(operation, Some(id), |guests| {
            let position = guests.keys().position(|other| *other == id);
            let guest = guests.get(&id).filter(|guest| guest.spec.is_some());
            let (Some(guest), Some(position)) = (guest, position) else {
                return Err(HypervisorError::NotFound { instance: id });
            };
            match guests::is_up(guest.power_state) {
                true => Ok(first.saturating_add(u16::try_from(position).unwrap_or(u16::MAX))),
                false => Err(HypervisorError::InvalidState { instance: id, operation, state: guest.power_state }),
            }
        })
        .await
    }

    /// An operation that changes one guest.
    async fn change(
        &self,
        operation: Operation,
        instance: InstanceId,
        epoch: Option<u64>,
        work: impl FnOnce(&mut Table) -> Effect<()>,
    ) -> Result<(), HypervisorError> {
        self.arrive(operation).await;
        let mut state = self.lock();
        self.change_now(&mut state, operation, instance, epoch, work)
    }

    /// An operation that changes what is plugged into one guest.
    async fn plug(
        &self,
        operation: Operation,
        instance: InstanceId,
        work: impl FnOnce(&mut Table) -> Effect<()>,
    ) -> Result<(), HypervisorError> {
        self.change(operation, instance, None, |table| {
            let done = work(table)?;
            if let Some(guest) = table.get_mut(&instance) {
                places::settle(guest);
            }
            Ok(done)
        })
        .await
    }

    fn change_now(
        &self,
        state: &mut State,
        operation: Operation,
        instance: InstanceId,
        epoch: Option<u64>,
        work: impl FnOnce(&mut Table) -> Effect<()>,
    ) -> Result<(), HypervisorError> {
        let look = |state: &State| state.table.get(&instance).map(|guest| (guest.power_state, guest.boots));
        let before = look(state);
        let result = self.apply(state, operation, Some(instance), epoch, work);
        let after = look(state);
        self.tell_world(instance, before.map(|(power, _)| power), after.map(|(power, _)| power));
        if before.map(|(_, boots)| boots) != after.map(|(_, boots)| boots) {
            state.started.insert(instance, Instant::now());
        }
        self.save(state);
        result
    }

    /// Does the work, unless a failure strikes, and puts it into the journal.
    fn apply<T>(
        &self,
        state: &mut State,
        operation: Operation,
        instance: Option<InstanceId>,
        epoch: Option<u64>,
        work: impl FnOnce(&mut Table) -> Effect<T>,
    ) -> Result<T, HypervisorError> {
        if let Some(why) = &state.broken {
            return Err(HypervisorError::Unavailable { driver: "fake", source: why.clone().into() });
        }
        let fault = state.faults.take(operation);
        if let Some((Strike::Before, kind)) = fault {
            state.journal.record(operation, instance, epoch, JournalOutcome::Failed(kind));
            return Err(faults::error(kind, operation, instance));
        }
        let (outcome, result) = match (work(&mut state.table), fault) {
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
        self.host.save(state);
    }

    fn emit(&self, event: GuestEvent) {
        self.host.emit(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.host.lock()
    }
}

impl fmt::Debug for FakeHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hostname = &self.options.hostname;
        f.debug_struct("FakeHypervisor").field("hostname", hostname).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
