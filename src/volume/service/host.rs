//! The service: what it listens to, what it does by itself, who works on what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nova_core::error::chain;
use nova_core::ids::{VolumeId, VolumeTaskId};
use nova_core::rpc::volume::{FinishTask, RunTask};
use nova_core::volume::{PoolName, VolumeTask};
use nova_db::StoreError;
use nova_queue::{BusError, Dispatcher, RunningService, Subscription};
use tokio::sync::{OwnedMutexGuard, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{HostOptions, Parts};

/// Messages in hand at once.
const PREFETCH: usize = 64;
/// Tasks taken up by one look.
const BATCH: usize = 256;

/// The service of a volume host. Cheap to clone.
#[derive(Clone)]
pub struct VolumeHost {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) parts: Parts,
    /// Tasks that are worked on here; the channel closes when one is over.
    working: Mutex<BTreeMap<VolumeTaskId, watch::Receiver<()>>>,
    /// One operation at a time on a volume, and on what it reads.
    volumes: Mutex<BTreeMap<VolumeId, Arc<tokio::sync::Mutex<()>>>>,
    workers: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl VolumeHost {
    /// A service that does nothing yet.
    pub fn new(parts: Parts) -> Self {
        let workers = Semaphore::new(parts.options.workers.max(1));
        let inner = Inner {
            parts,
            working: Mutex::default(),
            volumes: Mutex::default(),
            workers,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn options(&self) -> &HostOptions {
        &self.inner.parts.options
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.parts.clock.now()
    }

    pub(super) fn later(&self, by: Duration) -> Timestamp {
        self.now().saturating_add(signed(by)).unwrap_or(Timestamp::MAX)
    }

    /// The name of its pool.
    pub fn pool(&self) -> PoolName {
        let options = self.options();
        PoolName { host: options.host.clone(), backend: options.backend.clone(), pool: options.pool.clone() }
    }

    /// Says that its pool is there, lets hosts to their volumes again, listens on the bus, and looks for tasks.
    ///
    /// # Errors
    /// The bus can't be used.
    pub async fn start(self) -> Result<RunningService, BusError> {
        let host = self.options().host.clone();
        let subscription = Subscription { prefetch: PREFETCH, ..Subscription::on("volume", host) };
        let serving = self.inner.parts.rpc.bus().serve(subscription, Arc::new(self.dispatcher())).await?;
        let running = RunningService::new(serving, &CancellationToken::new());
        let (reporting, sweeping) = (self.clone(), self);
        Ok(running
            .with(|stop| async move { reporting.report_until(stop).await })
            .with(|stop| async move { sweeping.sweep_until(stop).await }))
    }

    fn dispatcher(&self) -> Dispatcher {
        let (run, finish) = (self.clone(), self.clone());
        Dispatcher::new("volume")
            .method::<RunTask, _, _>(move |_, request| {
                // The task is in the store: it is worked on, not waited for.
                run.begin(request.task);
                async { Ok(()) }
            })
            .method::<FinishTask, _, _>(move |_, request| {
                let mut over = finish.begin(request.task);
                async move {
                    // An error says that it is over.
                    while over.changed().await.is_ok() {}
                    Ok(())
                }
            })
    }

    async fn report_until(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.report().await {
                tracing::warn!("the pool was not reported: {error}");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.options().report_interval) => {}
            }
        }
    }

    async fn sweep_until(&self, stop: CancellationToken) {
        self.let_in_again().await;
        loop {
            if let Err(error) = self.sweep().await {
                tracing::warn!("tasks were not looked for: {}", chain(&error));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.options().sweep_interval) => {}
            }
        }
        // What is in hand is put down, and taken up again by whoever comes next.
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Takes up what nobody works on, and ends what should have ended, also of hosts that are away.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let store = &self.inner.parts.store;
        for task in store.due_volume_tasks(&self.options().host, self.now(), BATCH).await? {
            self.begin(task.id);
        }
        for task in store.overdue_volume_tasks(self.now(), BATCH).await? {
            if task.host != self.options().host {
                self.give_up(task).await;
            }
        }
        Ok(())
    }

    /// Waits until nothing is in hand.
    pub async fn idle(&self) {
        loop {
            let next = self.working().values().next().cloned();
            let Some(mut over) = next else { return };
            while over.changed().await.is_ok() {}
        }
    }

    fn working(&self) -> MutexGuard<'_, BTreeMap<VolumeTaskId, watch::Receiver<()>>> {
        self.inner.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on a task, unless that is being done already. The channel closes when it is over here, well or not.
    pub(super) fn begin(&self, id: VolumeTaskId) -> watch::Receiver<()> {
        let mut working = self.working();
        if let Some(over) = working.get(&id) {
            return over.clone();
        }
        let (hold, over) = watch::channel(());
        working.insert(id, over.clone());
        drop(working);
        let service = self.clone();
        self.inner.tasks.spawn(async move {
            let stop = service.inner.stop.clone();
            tokio::select! {
                biased;
                () = service.work_on(id) => {}
                () = stop.cancelled() => service.put_down(id).await,
            }
            service.working().remove(&id);
            drop(hold);
        });
        over
    }

    async fn work_on(&self, id: VolumeTaskId) {
        let Ok(_turn) = self.inner.workers.acquire().await else { return };
        match self.claim(id).await {
            Ok(task) => self.run(task).await,
            // Over, or somebody else's.
            Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {}
            Err(error) => tracing::warn!(task = %id, "a task was not taken up: {}", chain(&error)),
        }
    }

    async fn put_down(&self, id: VolumeTaskId) {
        let released = self.inner.parts.store.release_volume_task(id, &self.options().owner, self.now()).await;
        if let Err(error) = released {
            tracing::debug!(task = %id, "its lease has to end by itself: {}", chain(&error));
        }
    }

    pub(super) async fn claim(&self, id: VolumeTaskId) -> Result<VolumeTask, StoreError> {
        let (options, now) = (self.options(), self.now());
        self.inner.parts.store.claim_volume_task(id, &options.owner, now, self.later(options.lease)).await
    }

    /// Holds on to the task's lease until the work is done; `None`: the task is not ours any more.
    pub(super) async fn holding<T>(&self, id: VolumeTaskId, work: impl Future<Output = T> + Send) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = tokio::time::sleep(self.options().lease / 3) => {}
            }
            match self.claim(id).await {
                Ok(_) => {}
                Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => return None,
                Err(error) => tracing::warn!(task = %id, "a lease was not renewed: {}", chain(&error)),
            }
        }
    }

    /// Keeps others off these volumes; in the order of their ids, so that nobody waits in a circle.
    pub(super) async fn alone(&self, volumes: impl IntoIterator<Item = VolumeId>) -> Vec<OwnedMutexGuard<()>> {
        let ids: std::collections::BTreeSet<VolumeId> = volumes.into_iter().collect();
        let mut held = Vec::with_capacity(ids.len());
        for id in ids {
            let lock = {
                let mut known = self.inner.volumes.lock().unwrap_or_else(PoisonError::into_inner);
                known.retain(|_, lock| Arc::strong_count(lock) > 1);
                Arc::clone(known.entry(id).or_default())
            };
            held.push(lock.lock_owned().await);
        }
        held
    }
}
