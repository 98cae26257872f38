//! The steps of each operation. Each runs as a task of its own, under its guest's lock, to its end, also when its
//! caller stops waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::PowerState;
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::time::{Instant, MissedTickBehavior};
use virt::connect::Connect;

use super::connection::Connection;
use super::domain_xml::Shape;
use super::domains::{self, Guest, Known, Owner};
use super::folder::{self, Made};
use super::migration::Migrating;
use super::options::LibvirtOptions;
use super::volumes::swap::Swapping;
use super::workers::Workers;
use super::{domain_xml, errors, migration, rescue, volumes};
use crate::{GuestEvent, GuestInfo, GuestSpec, HypervisorError, Operation, RebootKind};

type Result<T> = std::result::Result<T, HypervisorError>;

/// How often a guest that was asked to shut down is looked at, and asked again: it may not have listened yet.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const ASK_EVERY: Duration = Duration::from_secs(10);

/// What all operations share.
pub(super) struct Inner {
    pub(super) options: LibvirtOptions,
    pub(super) connection: Connection,
    pub(super) workers: Workers,
    pub(super) known: Arc<Known>,
    pub(super) events: broadcast::Sender<GuestEvent>,
    pub(super) locks: Locks,
    pub(super) migrating: Migrating,
    pub(super) swapping: Swapping,
}

/// One lock per guest that something is being done to.
#[derive(Default)]
pub(super) struct Locks(Mutex<BTreeMap<InstanceId, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(super) async fn lock(&self, instance: InstanceId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(instance).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// The guests that something is being done to.
    fn busy(&self) -> BTreeSet<InstanceId> {
        let locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = locks.iter().filter(|(_, lock)| Arc::strong_count(lock) > 1);
        held.map(|(instance, _)| *instance).collect()
    }
}

impl Inner {
    /// Makes a blocking call with the connection, on one of the threads for that.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Connect) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let conn = self
            .connection
            .get(self.options.connect_wait)
            .await
            .map_err(|why| HypervisorError::Unavailable { driver: errors::DRIVER, source: why.to_string().into() })?;
        let result = self.workers.run(move || call(&conn)).await.map_err(errors::refused)?;
        if let Err(HypervisorError::Unavailable { .. }) = &result {
            self.connection.look_now();
        }
        result
    }

    pub(super) async fn owner(&self, instance: InstanceId) -> Result<Owner> {
        self.call(move |conn| domains::owner(conn, instance)).await
    }

    /// Something with one guest, found anew.
    pub(super) async fn with<T: Send + 'static>(
        &self,
        instance: InstanceId,
        act: impl FnOnce(&Guest) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(move |conn| act(&domains::guest(conn, instance)?)).await
    }

    /// As [`with`](Self::with), one after the other for each guest.
    pub(super) async fn locked_with<T: Send + 'static>(
        &self,
        instance: InstanceId,
        act: impl FnOnce(&Guest) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _lock = self.locks.lock(instance).await;
        self.with(instance, act).await
    }

    pub(super) async fn list(&self) -> Result<Vec<GuestInfo>> {
        // Folders first: a guest that is made between the looks is then in the second.
        let folders = folder::instances(&self.options).await?;
        let busy = self.locks.busy();
        let known = self.known.clone();
        let listing = self.call(move |conn| domains::list(conn, &known)).await?;
        let mut guests = listing.guests;
        for instance in folders.difference(&listing.taken) {
            // What is being made or removed right now is no trace.
            let in_hand = busy.contains(instance) || self.locks.busy().contains(instance);
            if !in_hand && folder::is_there(&self.options, *instance).await? {
                let (name, power_state) = (String::new(), PowerState::NoState);
                let epoch = migration::prepared_epoch(&folder::folder_of(&self.options, *instance)).await;
                guests.push(GuestInfo { instance: *instance, name, power_state, epoch });
            }
        }
        guests.sort_by_key(|guest| guest.instance);
        Ok(guests)
    }

    pub(super) async fn spawn(&self, guest: GuestSpec) -> Result<()> {
        self.shape_of(&guest)?;
        let _lock = self.locks.lock(guest.instance).await;
        match self.ours(guest.instance).await? {
            None => self.make(&guest).await,
            Some(existing) if existing.epoch > guest.epoch => {
                Err(HypervisorError::Stale { instance: guest.instance, asked: guest.epoch, current: existing.epoch })
            }
            Some(existing) => self.take_over(&guest, existing).await,
        }
    }

    /// Our guest of that instance, if there is one.
    pub(super) async fn ours(&self, instance: InstanceId) -> Result<Option<Guest>> {
        match self.owner(instance).await? {
            Owner::Nobody => Ok(None),
            Owner::Ours(existing) => Ok(Some(existing)),
            Owner::Others => {
                let source = "a domain that is not ours has the instance's UUID".into();
                Err(HypervisorError::Failed { during: "defining the guest", source })
            }
        }
    }

    /// The guest's machine; refuses what can't be made.
    pub(super) fn shape_of(&self, guest: &GuestSpec) -> Result<Shape> {
        guest.validate()?;
        let shape = Shape::of(&guest.hardware, guest.vcpus, &self.options)?;
        shape.check_disks(guest.disks.len() + usize::from(guest.volumes.iter().any(|volume| volume.boot)))?;
        Ok(shape)
    }

    /// Makes a guest that is not there. On failure, nothing of it remains.
    async fn make(&self, guest: &GuestSpec) -> Result<()> {
        let mut made = Made::default();
        let instance = guest.instance;
        if let Some(host) = folder::owner::another(&self.options, &folder::folder_of(&self.options, instance)).await? {
            // Its disks are the only ones: whoever failed here would remove them.
            let source = format!("the folder of its disks is the host {host}'s").into();
            return Err(HypervisorError::Failed { during: "making the guest's folder", source });
        }
        self.forget_sent(instance).await?;
        let result = async {
            folder::make(&self.options, guest, true, &mut made).await?;
            self.define(guest).await?;
            if guest.running { self.start_for(guest).await } else { Ok(()) }
        }
        .await;
        let Err(error) = result else { return Ok(()) };
        let removed = self
            .call(move |conn| match domains::owner(conn, instance)? {
                Owner::Ours(guest) => guest.remove(),
                Owner::Nobody | Owner::Others => Ok(()),
            })
            .await;
        match removed {
            Ok(()) => made.undo().await,
            // The files stay with the domain that can't be removed now; the list of guests shows both.
            Err(undo_error) => tracing::warn!(%instance, error = %undo_error, "can't undo a failed spawn"),
        }
        Err(error)
    }

    /// Brings a guest that is there to what the order says, without touching its disks.
    async fn take_over(&self, guest: &GuestSpec, existing: Guest) -> Result<()> {
        let newer = guest.epoch > existing.epoch;
        let start = guest.running
            && matches!(existing.power_state, PowerState::Shutdown | PowerState::Crashed | PowerState::NoState);
        if newer || start {
            let mut made = Made::default();
            if let Err(error) = folder::make(&self.options, guest, newer && !existing.active, &mut made).await {
                made.undo().await;
                return Err(error);
            }
        }
        if newer {
            self.redefine(guest, existing).await?;
        } else if start {
            // It may have been broken off between the two.
            self.put_places(guest).await?;
        }
        if start { self.start_for(guest).await } else { Ok(()) }
    }

    /// Makes the definition what the order says, and the guest of its epoch, running or not.
    pub(super) async fn redefine(&self, guest: &GuestSpec, existing: Guest) -> Result<()> {
        self.define(guest).await?;
        // What it was before a rescue is no longer what it will be.
        rescue::forget_original(&folder::folder_of(&self.options, guest.instance)).await?;
        if existing.active {
            let shape = self.shape_of(guest)?;
            let element = domain_xml::metadata(guest, &shape).map_err(|error| errors::file(WRITING_XML, error))?;
            self.call(move |_| existing.set_live_metadata(&element)).await?;
        }
        self.known.forget(guest.instance);
        Ok(())
    }

    pub(super) async fn define(&self, guest: &GuestSpec) -> Result<()> {
        let shape = self.shape_of(guest)?;
        let folder = folder::folder_of(&self.options, guest.instance);
        let files = folder::files_of(&folder, guest, &folder::record::read(&folder).await?);
        let xml = domain_xml::domain(guest, &shape, &files, &self.options)
            .map_err(|error| errors::file(WRITING_XML, error))?;
        volumes::record::write(&folder, &guest.volumes).await?;
        self.keep_secrets(&guest.volumes).await?;
        self.call(move |conn| domains::define(conn, &xml)).await?;
        self.known.forget(guest.instance);
        self.put_places(guest).await
    }

    pub(super) async fn destroy(&self, instance: InstanceId) -> Result<()> {
        // Whatever it is in the midst of, it is to be gone.
        self.stop_sending(instance).await?;
        self.swapping.end(instance);
        let _lock = self.locks.lock(instance).await;
        self.call(move |conn| match domains::owner(conn, instance)? {
            Owner::Ours(guest) => guest.remove(),
            Owner::Nobody | Owner::Others => Ok(()),
        })
        .await?;
        self.known.forget(instance);
        self.forget_passwords(instance).await?;
        folder::remove(&self.options, instance).await
    }

    pub(super) async fn power_on(&self, instance: InstanceId) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        self.start(instance).await
    }

    pub(super) async fn power_off(&self, instance: InstanceId, graceful: Option<Duration>) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        self.shut_down(instance, graceful).await
    }

    pub(super) async fn reboot(&self, instance: InstanceId, kind: RebootKind) -> Result<()> {
        let _lock = self.locks.lock(instance).await;
        let graceful = match kind {
            RebootKind::Soft => Some(self.options.soft_reboot_wait),
            RebootKind::Hard => None,
        };
        // A reset inside the same process is much slower under emulation than a new process.
        self.shut_down(instance, graceful).await?;
        self.start(instance).await
    }

    /// Asks, waits, and cuts the power in the end.
    async fn shut_down(&self, instance: InstanceId, graceful: Option<Duration>) -> Result<()> {
        if let Some(wait) = graceful {
            let deadline = Instant::now() + wait;
            let mut look = tokio::time::interval(LOOK_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut ask_at = Instant::now();
            loop {
                look.tick().await;
                let ask = Instant::now() >= ask_at;
                if ask {
                    ask_at = Instant::now() + ASK_EVERY;
                }
                let listens = self.with(instance, move |guest| ask_or_look(guest, ask)).await?;
                if !listens || Instant::now() >= deadline {
                    break;
                }
            }
        }
        self.with(instance, Guest::stop).await
    }

    /// Moves a guest from one power state to another, the goal itself being Ok.
    pub(super) async fn transition(
        &self,
        instance: InstanceId,
        operation: Operation,
        from: &'static [PowerState],
        to: PowerState,
        act: fn(&Guest) -> Result<()>,
    ) -> Result<()> {
        self.locked_with(instance, move |guest| match guest.power_state {
            state if state == to => Ok(()),
            state if from.contains(&state) => act(guest),
            state => Err(HypervisorError::InvalidState { instance, operation, state }),
        })
        .await
    }
}

const WRITING_XML: &str = "writing the guest's definition";

/// Whether it makes sense to wait for the guest to shut itself down.
fn ask_or_look(guest: &Guest, ask: bool) -> Result<bool> {
    if guest.power_state != PowerState::Running {
        return Ok(guest.active && guest.power_state == PowerState::Shutdown);
    }
    if ask {
        guest.ask_to_shut_down()?;
    }
    Ok(true)
}
