//! Live migration between the fakes of one world.

use std::sync::Arc;
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::{self, Strike};
use super::guests::{Effect, Guest, is_up};
use super::life::wrong_state;
use super::places::settle;
use super::table::Table;
use super::{FakeHypervisor, FakeOptions, JournalOutcome, State};
use crate::{
    GuestEvent, GuestEventKind, GuestSpec, HypervisorError, IncomingAddress, LiveMigration, MigrationProgress,
    Operation,
};

const DURING: &str = "migrating the guest";
const SCHEME: &str = "fake://";

/// A live migration on its way.
#[derive(Debug, Clone)]
pub(super) struct Moving {
    since: Instant,
    takes: Duration,
    block: bool,
    decision: Option<Decision>,
    decided: Arc<Notify>,
}

/// How somebody ends a migration before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Abort,
    Force,
}

impl Moving {
    /// As much as of its time has passed; nearly all, of one that takes longer.
    pub(super) fn progress(&self, guest: Option<&Guest>) -> MigrationProgress {
        let spec = guest.and_then(|guest| guest.spec.as_ref());
        let memory = spec.map_or(0, |spec| spec.memory_mb << 20);
        let gb: u64 = spec.map_or(0, |spec| spec.disks.iter().map(|disk| disk.size_gb).sum());
        let disk = if self.block { gb << 30 } else { 0 };
        let passed = match self.takes.as_millis() {
            0 => 99,
            all => (self.since.elapsed().as_millis() * 100 / all).min(99) as u64,
        };
        let done = |total: u64| total / 100 * passed;
        MigrationProgress {
            memory_total: memory,
            memory_processed: done(memory),
            memory_remaining: memory - done(memory),
            disk_total: disk,
            disk_processed: done(disk),
            disk_remaining: disk - done(disk),
        }
    }
}

/// Where guests are sent that come here.
pub(super) fn address(options: &FakeOptions) -> IncomingAddress {
    IncomingAddress {
        volumes: Vec::new(),
        driver: "fake".into(),
        uri: format!("{SCHEME}{}", options.hostname),
        shared_disks: options.shared_disks,
        host: options.hostname.clone(),
    }
}

pub(super) fn prepare(table: &mut Table, spec: &GuestSpec) -> Effect<()> {
    spec.validate()?;
    let (instance, asked) = (spec.instance, spec.epoch);
    let guest = table.get(&instance).filter(|guest| guest.spec.is_some()).map(Guest::epoch);
    let prepared = table.incoming.get(&instance).map_or(0, |spec| spec.epoch);
    let current = prepared.max(guest.unwrap_or(0));
    if current > asked {
        return Err(HypervisorError::Stale { instance, asked, current });
    }
    // One that came already needs nothing more.
    if guest.is_none() {
        table.incoming.insert(instance, spec.clone());
    }
    Ok(((), Vec::new()))
}

pub(super) fn adopt(guest: &mut Guest, spec: &GuestSpec) -> Effect<()> {
    spec.validate()?;
    let (instance, asked, current) = (spec.instance, spec.epoch, guest.epoch());
    if current > asked {
        return Err(HypervisorError::Stale { instance, asked, current });
    }
    guest.spec = Some(spec.clone());
    settle(guest);
    Ok(((), Vec::new()))
}

impl FakeHypervisor {
    pub(super) fn decide(&self, state: &mut State, instance: InstanceId, decision: Decision) {
        if let Some(moving) = state.moving.get_mut(&instance) {
            moving.decision.get_or_insert(decision);
            moving.decided.notify_waiters();
        }
    }

    pub(super) async fn migrate_away(&self, id: InstanceId, how: &LiveMigration) -> Result<(), HypervisorError> {
        let moving = self.begin(id, how).await;
        let fault = self.lock().faults.take(Operation::LiveMigrate);
        let early = match fault {
            Some((Strike::Before, kind)) => Err(faults::error(kind, Operation::LiveMigrate, Some(id))),
            Some((Strike::After, _)) | None => self.allowed(id, how),
        };
        let sent = match early {
            Ok(true) => Ok(()),
            Ok(false) => match self.travel(id, &moving).await {
                Ok(()) => self.hand_over(id, how),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let mut state = self.lock();
        state.moving.remove(&id);
        moving.decided.notify_waiters();
        let (outcome, result) = match (sent, fault) {
            (Ok(()), Some((Strike::After, kind))) => {
                (JournalOutcome::DoneButFailed(kind), Err(faults::error(kind, Operation::LiveMigrate, Some(id))))
            }
            (Ok(()), _) => (JournalOutcome::Done, Ok(())),
            (Err(error), _) => (JournalOutcome::Failed(error.kind()), Err(error)),
        };
        state.journal.record(Operation::LiveMigrate, Some(id), None, outcome);
        self.save(&mut state);
        result
    }

    /// Waits for the turn of this migration: there is one of each guest.
    async fn begin(&self, id: InstanceId, how: &LiveMigration) -> Moving {
        loop {
            let notify = {
                let takes = self.latency(Operation::LiveMigrate);
                let mut state = self.lock();
                match state.moving.get(&id) {
                    Some(other) => other.decided.clone(),
                    None => {
                        let (since, decided) = (Instant::now(), Arc::new(Notify::new()));
                        let moving = Moving { since, takes, block: how.block, decision: None, decided };
                        state.moving.insert(id, moving.clone());
                        return moving;
                    }
                }
            };
            let over = notify.notified();
            if self.lock().moving.contains_key(&id) {
                over.await;
            }
        }
    }

    /// Ok(true): it was sent there before.
    fn allowed(&self, id: InstanceId, how: &LiveMigration) -> Result<bool, HypervisorError> {
        let state = self.lock();
        if let Some(why) = &state.broken {
            return Err(HypervisorError::Unavailable { driver: "fake", source: why.clone().into() });
        }
        match state.table.there(id) {
            Ok(guest) if is_up(guest.power_state) => Ok(false),
            Ok(guest) => Err(wrong_state(id, Operation::LiveMigrate, guest.power_state)),
            Err(_) if state.table.moved.get(&id) == Some(&how.to.uri) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The time that it takes, unless somebody ends it.
    async fn travel(&self, id: InstanceId, moving: &Moving) -> Result<(), HypervisorError> {
        let arrive_at = moving.since + moving.takes;
        loop {
            let (decided, released) = (moving.decided.notified(), self.released.notified());
            let (decision, hung) = {
                let state = self.lock();
                let decision = state.moving.get(&id).and_then(|moving| moving.decision);
                (decision, state.faults.is_hung(Operation::LiveMigrate))
            };
            match decision {
                Some(Decision::Abort) => {
                    return Err(HypervisorError::Failed { during: DURING, source: "it was aborted".into() });
                }
                Some(Decision::Force) => return Ok(()),
                None if !hung && Instant::now() >= arrive_at => return Ok(()),
                None => {}
            }
            tokio::select! {
                () = decided => {}
                () = released => {}
                () = tokio::time::sleep_until(arrive_at), if !hung => {}
            }
        }
    }

    /// The guest leaves this host and is on the other.
    fn hand_over(&self, id: InstanceId, how: &LiveMigration) -> Result<(), HypervisorError> {
        let failed = |why: &str| HypervisorError::Failed { during: DURING, source: why.to_owned().into() };
        if how.to.driver != "fake" {
            return Err(failed("the other host has another driver"));
        }
        if !how.block && !how.to.shared_disks {
            return Err(failed("the disks are not shared, and are not to be sent"));
        }
        let name = how.to.uri.strip_prefix(SCHEME).ok_or_else(|| failed("the other host's address is none"))?;
        let other = self.options.world.host(name).ok_or_else(|| failed("the other host does not answer"))?;
        if Arc::ptr_eq(&other, &self.host) {
            return Err(failed("it is this host"));
        }
        if other.lock().faults.unavailable {
            return Err(failed("the other host does not answer"));
        }
        if !other.lock().table.incoming.contains_key(&id) {
            return Err(failed("the other host is not ready for the guest"));
        }
        let (guest, started) = {
            let mut state = self.lock();
            let guest = state.table.there(id)?;
            if !is_up(guest.power_state) {
                return Err(wrong_state(id, Operation::LiveMigrate, guest.power_state));
            }
            let Some(guest) = state.table.remove(&id) else { return Err(HypervisorError::NotFound { instance: id }) };
            self.options.world.stopped(&self.options.hostname, id);
            (guest, state.started.remove(&id))
        };
        let back = {
            let mut theirs = other.lock();
            if theirs.table.incoming.remove(&id).is_some() {
                let paused = guest.power_state == PowerState::Paused;
                self.options.world.started(name, id);
                theirs.table.moved.remove(&id);
                theirs.table.insert(id, guest);
                theirs.started.extend(started.map(|since| (id, since)));
                other.emit(GuestEvent { instance: id, kind: GuestEventKind::Started });
                if paused {
                    other.emit(GuestEvent { instance: id, kind: GuestEventKind::Paused });
                }
                other.save(&mut theirs);
                None
            } else {
                Some(guest)
            }
        };
        let mut state = self.lock();
        match back {
            None => {
                state.table.moved.insert(id, how.to.uri.clone());
                self.emit(GuestEvent { instance: id, kind: GuestEventKind::Stopped });
                Ok(())
            }
            Some(guest) => {
                // Whoever took the preparation away did not want it there.
                self.options.world.started(&self.options.hostname, id);
                state.table.insert(id, guest);
                state.started.extend(started.map(|since| (id, since)));
                Err(failed("the other host is no longer ready for the guest"))
            }
        }
    }
}
