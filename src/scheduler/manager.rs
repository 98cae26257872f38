//! The scheduler as a service.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::request::{NoValidHost, RequestSpec, Selection};
use nova_core::rpc::scheduler::{HostsChanged, SelectDestinations};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_db::{InstanceQuery, Store, StoreError};
use nova_queue::{BusError, Dispatcher, HandlerError, MessageBus, RunningService, Subscription};
use nova_sched::{Scheduler, SchedulerError, SchedulerRng};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Hosts, Stored, images};
use nova_core::error::chain;

/// However many requests ask for a fresh view, the store is not read more often.
const BETWEEN_READINGS: Duration = Duration::from_millis(500);

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
    store: Arc<dyn Store>,
    bus: Arc<dyn MessageBus>,
    clock: Arc<dyn Clock>,
    options: ServiceOptions,
    state: Mutex<State>,
}

struct State {
    hosts: Hosts,
    rng: SchedulerRng,
    /// When the last reading began.
    read: Option<Timestamp>,
}

impl SchedulerService {
    /// A service that does nothing yet.
    ///
    /// # Errors
    /// The algorithm reads a resource that hosts do not report.
    pub fn new(parts: Parts) -> Result<Self, SchedulerError> {
        let hosts = Hosts::new(&*parts.algorithm)?;
        let rng = SchedulerRng::from_seed(parts.entropy.next_u64());
        let inner = Inner {
            algorithm: parts.algorithm,
            store: parts.store,
            bus: parts.bus,
            clock: parts.clock,
            options: parts.options,
            state: Mutex::new(State { hosts, rng, read: None }),
        };
        Ok(Self { inner: Arc::new(inner) })
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
                    service.inner.state.lock().await.hosts.apply(&news);
                    Ok(())
                }
            });
        let serving = self.inner.bus.serve(Subscription::shared("scheduler"), Arc::new(dispatcher)).await?;
        let running = RunningService::new(serving, &CancellationToken::new());
        Ok(running.with(|stop| async move { self.refresh_until(stop).await }))
    }

    async fn refresh_until(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.refresh(&mut *self.inner.state.lock().await).await {
                tracing::warn!("the host table was not read: {}", chain(&error));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.inner.options.refresh_interval) => {}
            }
        }
    }

    async fn refresh(&self, state: &mut State) -> Result<(), StoreError> {
        let (store, began) = (&self.inner.store, self.inner.clock.now());
        let stored = Stored::read(&**store).await?;
        let down_time = crate::conductor::signed(self.inner.options.service_down_time);
        state.hosts.read_from(&stored, self.inner.clock.now(), down_time);
        if self.inner.options.weighs_images || images::weighed_by_aggregates(&stored.aggregates) {
            state.hosts.note_images(&store.list_instances(&InstanceQuery::default()).await?);
        }
        state.read = Some(began);
        Ok(())
    }

    async fn select_destinations(&self, spec: &RequestSpec) -> Result<Vec<Selection>, HandlerError> {
        // A reading that begins after a request came is fresh for it: one serves all who wait.
        let arrived = self.inner.clock.now();
        loop {
            let mut state = self.inner.state.lock().await;
            if state.read.is_none() {
                self.refresh(&mut state).await.map_err(|e| unavailable(&e))?;
            }
            let fresh = state.read.is_some_and(|began| began >= arrived);
            if fresh || !spec.fresh {
                let State { hosts, rng, .. } = &mut *state;
                match hosts.select(&*self.inner.algorithm, spec, rng, self.inner.clock.now()) {
                    Ok(selections) => return Ok(selections),
                    Err(no) if fresh => return Err(no_valid_host(&no).into()),
                    // Perhaps the table is behind: hosts may have come up, or given something back.
                    Err(_) => {}
                }
            }
            // Requests that no host takes must not make this a mill of readings, nor hold up the others.
            let rested = state.read.map_or(BETWEEN_READINGS, |began| {
                Duration::try_from(self.inner.clock.now().duration_since(began)).unwrap_or_default()
            });
            if rested >= BETWEEN_READINGS {
                self.refresh(&mut state).await.map_err(|e| unavailable(&e))?;
            } else {
                drop(state);
                tokio::time::sleep(BETWEEN_READINGS - rested).await;
            }
        }
    }
}

fn unavailable(error: &StoreError) -> HandlerError {
    Refusal::new(RefusalKind::Unavailable, chain(error)).into()
}

fn no_valid_host(no: &NoValidHost) -> Refusal {
    tracing::info!("no valid host: {}", no.details);
    Refusal::new(RefusalKind::NoValidHost, serde_json::to_string(no).unwrap_or_else(|_| no.summary.clone()))
}
