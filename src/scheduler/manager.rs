//! The scheduler as a service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::instance::Instance;
use nova_core::request::{NoValidHost, RequestSpec, Selection};
use nova_core::rpc::scheduler::{HostsChanged, SelectDestinations};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_db::{InstanceQuery, Store, StoreError};
use nova_queue::{BusError, Dispatcher, HandlerError, MessageBus, RunningService, Subscription};
use nova_sched::{Scheduler, SchedulerError, SchedulerRng};
use tokio_util::sync::CancellationToken;

use super::reading::Reading;
use super::{Hosts, Stored, images};
use nova_core::error::chain;

/// However many requests ask for a fresh view, the store is not read more often.
const BETWEEN_READINGS: Duration = Duration::from_millis(500);

/// Hosts that a reading is compared with at once; between, decisions are made.
const AT_ONCE: usize = 256;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// How often the table is read anew.
    pub refresh_interval: Duration,
    /// A host that was not heard of for so long is down (`service_down_time`).
    pub service_down_time: Duration,
    /// The images of servers are weighed (`filter_scheduler.image_props_weight_multiplier` is not 0), so they are read.
    pub weighs_images: bool,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(10),
            service_down_time: Duration::from_secs(60),
            weighs_images: false,
        }
    }
}

/// What a scheduler service is built from.
pub struct Parts {
    /// The algorithm.
    pub algorithm: Box<dyn Scheduler>,
    /// Where hosts and allocations are read.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub bus: Arc<dyn MessageBus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Gives the seed of the algorithm's randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: ServiceOptions,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerService {
    inner: Arc<Inner>,
}

struct Inner {
    algorithm: Box<dyn Scheduler>,
    source: Box<dyn Source>,
    bus: Arc<dyn MessageBus>,
    clock: Arc<dyn Clock>,
    options: ServiceOptions,
    /// Held for single decisions and small parts of a reading, never while something is waited for.
    state: Mutex<State>,
    /// Held by the one who reads the store; the others who need a reading wait for it and share it.
    reading: tokio::sync::Mutex<()>,
}

struct State {
    hosts: Hosts,
    rng: SchedulerRng,
    /// When the last reading that is in the table began.
    read: Option<Timestamp>,
}

/// Where the table is read from.
#[async_trait]
trait Source: Send + Sync {
    async fn read(&self) -> Result<Stored, StoreError>;

    /// All instances, for what reads their images.
    async fn instances(&self) -> Result<Vec<Instance>, StoreError>;
}

#[async_trait]
impl Source for Arc<dyn Store> {
    async fn read(&self) -> Result<Stored, StoreError> {
        Stored::read(&**self).await
    }

    async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        self.list_instances(&InstanceQuery::default()).await
    }
}

/// What became of a request.
enum Decided {
    /// Places, or a refusal that is not stale.
    Answer(Result<Vec<Selection>, NoValidHost>),
    /// First the store is to be read; the last reading rests since that long.
    Read(Duration),
}

impl SchedulerService {
    /// A service that does nothing yet.
    ///
    /// # Errors
    /// The algorithm reads a resource that hosts do not report.
    pub fn new(parts: Parts) -> Result<Self, SchedulerError> {
        let store = Arc::clone(&parts.store);
        Self::reading_from(parts, Box::new(store))
    }

    fn reading_from(parts: Parts, source: Box<dyn Source>) -> Result<Self, SchedulerError> {
        let hosts = Hosts::new(&*parts.algorithm)?;
        let rng = SchedulerRng::from_seed(parts.entropy.next_u64());
        let inner = Inner {
            algorithm: parts.algorithm,
            source,
            bus: parts.bus,
            clock: parts.clock,
            options: parts.options,
            state: Mutex::new(State { hosts, rng, read: None }),
            reading: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A decision that panicked has changed the table by nothing or by promises, which lapse.
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens on the bus and keeps the table current.
    pub async fn start(self) -> Result<RunningService, BusError> {
        let (selecting, listening) = (self.clone(), self.clone());
        let dispatcher = Dispatcher::new("scheduler")
            .method::<SelectDestinations, _, _>(move |_, spec| {
                let service = selecting.clone();
                async move { service.select_destinations(&spec).await }
            })
            .method::<HostsChanged, _, _>(move |_, news| {
                let service = listening.clone();
                async move {
                    service.state().hosts.apply(&news);
                    Ok(())
                }
            });
        let serving = self.inner.bus.serve(Subscription::shared("scheduler"), Arc::new(dispatcher)).await?;
        let running = RunningService::new(serving, &CancellationToken::new());
        Ok(running.with(|stop| async move { self.refresh_until(stop).await }))
    }

    async fn refresh_until(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.refresh(None).await {
                tracing::warn!("the host table was not read: {}", chain(&error));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.inner.options.refresh_interval) => {}
            }
        }
    }

    /// Reads the store, unless a reading has begun at `since` or later.
    async fn refresh(&self, since: Option<Timestamp>) -> Result<(), StoreError> {
        let _turn = self.inner.reading.lock().await;
        let (mark, read) = {
            let state = self.state();
            (state.hosts.mark(), state.read)
        };
        if since.zip(read).is_some_and(|(since, began)| began >= since) {
            return Ok(());
        }
        let began = self.inner.clock.now();
        let stored = self.inner.source.read().await?;
        let now = self.inner.clock.now();
        let down_time = crate::conductor::signed(self.inner.options.service_down_time);
        let instances = match self.inner.options.weighs_images || images::weighed_by_aggregates(&stored.aggregates) {
            true => Some(self.inner.source.instances().await?),
            false => None,
        };
        let reading = Reading::new(&stored, &mark, now, down_time);
        self.state().hosts.begin_reading(&reading, now);
        for part in reading.parts(AT_ONCE) {
            self.state().hosts.follow_reading(&reading, &part);
            tokio::task::yield_now().await;
        }
        let mut state = self.state();
        state.hosts.end_reading();
        state.hosts.read_topologies(&stored);
        if let Some(instances) = instances {
            state.hosts.note_images(&instances);
        }
        state.read = Some(began);
        Ok(())
    }

    async fn select_destinations(&self, spec: &RequestSpec) -> Result<Vec<Selection>, HandlerError> {
        // A reading that begins after a request came is fresh for it: one serves all who wait.
        let arrived = self.inner.clock.now();
        loop {
            match self.decide(spec, arrived) {
                Decided::Answer(answer) => return answer.map_err(|no| no_valid_host(&no).into()),
                // Requests that no host takes must not make this a mill of readings.
                Decided::Read(rested) if rested < BETWEEN_READINGS => {
                    tokio::time::sleep(BETWEEN_READINGS - rested).await;
                }
                Decided::Read(_) => self.refresh(Some(arrived)).await.map_err(|e| unavailable(&e))?,
            }
        }
    }

    fn decide(&self, spec: &RequestSpec, arrived: Timestamp) -> Decided {
        let (now, mut state) = (self.inner.clock.now(), self.state());
        let State { hosts, rng, read } = &mut *state;
        let Some(began) = *read else { return Decided::Read(BETWEEN_READINGS) };
        let fresh = began >= arrived;
        if fresh || !spec.fresh {
            let answer = hosts.select(&*self.inner.algorithm, spec, rng, now);
            // Otherwise the table may be behind: hosts may have come up, or given something back.
            if fresh || answer.is_ok() {
                return Decided::Answer(answer);
            }
        }
        Decided::Read(Duration::try_from(now.duration_since(began)).unwrap_or_default())
    }
}

fn unavailable(error: &StoreError) -> HandlerError {
    Refusal::new(RefusalKind::Unavailable, chain(error)).into()
}

fn no_valid_host(no: &NoValidHost) -> Refusal {
    tracing::info!("no valid host: {}", no.details);
    Refusal::new(RefusalKind::NoValidHost, serde_json::to_string(no).unwrap_or_else(|_| no.summary.clone()))
}

#[cfg(test)]
mod tests;
