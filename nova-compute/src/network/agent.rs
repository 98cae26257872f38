//! The host's network agent: asks what the network is to be, has it made so, says how far it is.
//!
//! One loop does all of it, one round after the other. Who needs the newest state asks for a round that begins from now on
//! and waits for its end; many who ask share one. Without being asked it syncs every half minute, and makes the network what
//! it is to be every ten seconds: a bridge that somebody removed comes back, whether or not a network service answers. What
//! is to be is kept in a file, and made so again at the start before anything else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId, PortId, RequestId};
use nova_core::network::{BOOKS_PLUMBING, HostNetwork, PortStatus, Vif};
use nova_core::rpc::network::{ReportHost, ReportHostRequest, SyncHost, SyncHostRequest};
use nova_queue::{BusError, RpcClient};
use nova_virt::InterfaceSpec;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::state::{Readiness, in_force, load, readiness, save};
use super::{Converged, HostNetworkAgent, Plumbing, PlumbingError};
use crate::metadata::MetadataServer;

/// A service that takes longer than this to answer is asked again.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The service is not asked more often than this while it does not answer.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// A port that the books do not have here, though its guest is ordered, is waited for so long.
const MISSING_TIMEOUT: Duration = Duration::from_secs(10);

/// Guests' ends come a moment after their ports: for so long it is looked often whether they are there.
const SETTLING: Duration = Duration::from_secs(60);

/// How often it is looked then.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// After a guest is removed, its ports are given back within about that time.
const AFTER_REMOVAL: Duration = Duration::from_secs(2);

/// Every so many reports all ports are told, not only those that changed.
const FULL_REPORT: u64 = 20;

/// The agent's settings.
#[derive(Debug, Clone)]
pub struct NetworkAgentOptions {
    /// The host.
    pub host: HostName,
    /// Where tunnels to it end (`network.tunnel_ip`, or else `DEFAULT.my_ip`).
    pub tunnel_ip: Option<IpAddr>,
    /// The physical networks that it is on (`network.interface_mappings`, `network.bridge_mappings`).
    pub physical_networks: Vec<String>,
    /// Where what is to be is kept.
    pub state_file: Option<PathBuf>,
    /// How often it asks by itself; some do earlier, some later.
    pub sync_interval: Duration,
    /// How often the network is made what it is to be by itself.
    pub converge_interval: Duration,
    /// How long a guest's build waits for its ports.
    pub ready_timeout: Duration,
}

impl NetworkAgentOptions {
    /// The usual for a host of that name.
    pub fn new(host: impl Into<HostName>) -> Self {
        Self {
            host: host.into(),
            tunnel_ip: None,
            physical_networks: Vec::new(),
            state_file: None,
            sync_interval: Duration::from_secs(30),
            converge_interval: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(60),
        }
    }
}

/// What an agent is built from.
pub struct NetworkAgentParts {
    /// What makes the network.
    pub plumbing: Arc<dyn Plumbing>,
    /// Its way onto the bus.
    pub rpc: RpcClient,
    /// Randomness, for ids of messages and for when it asks.
    pub entropy: Arc<dyn Entropy>,
    /// Who answers at the doors that the plumbing opens.
    pub metadata: Option<MetadataServer>,
    /// Settings.
    pub options: NetworkAgentOptions,
}

/// The agent. Cheap to clone; works while [`NetworkAgent::run`] does.
#[derive(Clone)]
pub struct NetworkAgent {
    inner: Arc<Inner>,
}

struct Inner {
    parts: NetworkAgentParts,
    state: Mutex<State>,
    /// Raised by everyone who needs a round that begins from then on.
    asked: AtomicU64,
    wake: Notify,
    rounds: watch::Sender<Round>,
}

#[derive(Default)]
struct State {
    /// Something is known; before that nothing is touched.
    known: bool,
    wanted: HostNetwork,
    converged: Option<Converged>,
    /// Sync at that time, if not before.
    sync_at: Option<Instant>,
    /// Look often until then.
    settling_until: Option<Instant>,
    reported: Reported,
}

/// What the service was told last.
#[derive(Default)]
struct Reported {
    count: u64,
    applied: BTreeMap<String, String>,
    ports: BTreeMap<PortId, PortStatus>,
    problems: Vec<String>,
}

/// The last round that ended.
#[derive(Debug, Clone, Default)]
struct Round {
    /// Everybody who asked up to here is served.
    covers: u64,
    /// What went wrong.
    trouble: Option<String>,
    /// There will be no more.
    ended: bool,
}

/// When the loop does what.
struct Timers {
    sync: Instant,
    converge: Instant,
    covered: u64,
    failures: u32,
}

impl NetworkAgent {
    /// An agent that does nothing yet.
    pub fn new(parts: NetworkAgentParts) -> Self {
        let (rounds, _) = watch::channel(Round::default());
        let inner = Inner { parts, state: Mutex::default(), asked: AtomicU64::new(0), wake: Notify::new(), rounds };
        Self { inner: Arc::new(inner) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn options(&self) -> &NetworkAgentOptions {
        &self.inner.parts.options
    }

    fn is_books(&self) -> bool {
        self.inner.parts.plumbing.name() == BOOKS_PLUMBING
    }

    /// What the network is to be, as far as it is known.
    pub fn wanted(&self) -> HostNetwork {
        self.state().wanted.clone()
    }

    /// Makes the network what it last was to be, and then works until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        self.restore().await;
        let now = Instant::now();
        let mut timers =
            Timers { sync: now, converge: now + self.options().converge_interval, covered: 0, failures: 0 };
        while !stop.is_cancelled() {
            let at = self.next(&timers);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            }
            tokio::select! {
                biased;
                // A convergence that is cut off goes on at the next start.
                () = stop.cancelled() => break,
                () = self.round(&mut timers) => {}
            }
        }
        self.inner.rounds.send_modify(|round| round.ended = true);
    }

    async fn restore(&self) {
        let Some(path) = self.options().state_file.clone() else { return };
        let Some(wanted) = load(path).await else { return };
        {
            let mut state = self.state();
            (state.wanted, state.known) = (wanted, true);
        }
        if let Err(trouble) = self.converge().await {
            tracing::warn!("the network is not yet what it was before the start: {trouble}");
        }
    }

    /// When there is something to do without being asked.
    fn next(&self, timers: &Timers) -> Instant {
        let state = self.state();
        let sync = state.sync_at.map_or(timers.sync, |at| at.min(timers.sync));
        if state.known { sync.min(timers.converge) } else { sync }
    }

    async fn round(&self, timers: &mut Timers) {
        let covers = self.inner.asked.load(Ordering::SeqCst);
        let began = Instant::now();
        let told_to = self.state().sync_at.is_some_and(|at| at <= began);
        let (mut trouble, mut changed) = (None, false);
        if covers > timers.covered || told_to || timers.sync <= began {
            self.state().sync_at = None;
            match self.meanwhile(timers, self.sync()).await {
                Ok(news) => {
                    changed = news;
                    timers.failures = 0;
                    timers.sync = Instant::now() + self.jittered(self.options().sync_interval);
                }
                Err(error) => {
                    trouble = Some(format!("the network service did not answer: {}", chain(&error)));
                    timers.failures = timers.failures.saturating_add(1);
                    let wait = LEAST_WAIT.saturating_mul(1 << timers.failures.min(10));
                    timers.sync = Instant::now() + self.jittered(wait.min(self.options().sync_interval));
                }
            }
            timers.covered = covers;
        }
        let unmade = {
            let state = self.state();
            state.known && state.converged.is_none()
        };
        if changed || unmade || timers.converge <= Instant::now() {
            // What is to be is in the file before anybody is told that it is in force.
            let keep = async {
                if changed {
                    self.keep().await;
                }
            };
            let make = async {
                // The full look at what is there has a time of its own, which small changes do not put off.
                let small = changed && !unmade && timers.converge > Instant::now();
                if small && self.adjust().await { None } else { self.converge_now(timers).await }
            };
            trouble = tokio::join!(make, keep).0.or(trouble);
        } else if self.is_settling() {
            timers.converge = timers.converge.min(Instant::now() + SETTLE_INTERVAL);
        }
        if let Some(trouble) = &trouble {
            tracing::debug!("{trouble}");
        }
        self.inner.rounds.send_replace(Round { covers: timers.covered, trouble, ended: false });
        self.meanwhile(timers, self.report()).await;
    }

    /// Waits for others, and meanwhile goes on to make the network what it is to be.
    async fn meanwhile<T>(&self, timers: &mut Timers, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep_until(timers.converge) => drop(self.converge_now(timers).await),
            }
        }
    }

    /// What went wrong.
    async fn converge_now(&self, timers: &mut Timers) -> Option<String> {
        let failed = self.converge().await.err();
        if let Some(failed) = &failed {
            tracing::warn!("the network is not what it is to be: {failed}");
        }
        timers.converge = Instant::now() + self.converge_wait();
        failed
    }

    fn jittered(&self, interval: Duration) -> Duration {
        let percent = 90 + self.inner.parts.entropy.next_u64() % 21;
        interval.mul_f64(percent as f64 / 100.0)
    }

    fn is_settling(&self) -> bool {
        let state = self.state();
        let waits = |status: &PortStatus| *status != PortStatus::Active;
        let some_wait = state.converged.as_ref().is_some_and(|converged| converged.ports.values().any(waits));
        some_wait && state.settling_until.is_some_and(|until| until > Instant::now())
    }

    fn converge_wait(&self) -> Duration {
        let usual = self.options().converge_interval;
        if self.is_settling() { SETTLE_INTERVAL.min(usual) } else { usual }
    }

    fn context(&self) -> RequestContext {
        RequestContext::internal(RequestId::generate(&*self.inner.parts.entropy))
    }

    /// Asks what is to be. True: it is another than before.
    async fn sync(&self) -> Result<bool, BusError> {
        let (parts, options) = (&self.inner.parts, self.options());
        let have = {
            let state = self.state();
            if state.known { state.wanted.digests() } else { BTreeMap::new() }
        };
        let request = SyncHostRequest {
            host: options.host.clone(),
            plumbing: parts.plumbing.name().to_owned(),
            tunnel_ip: options.tunnel_ip,
            physical_networks: options.physical_networks.clone(),
            have,
        };
        let rpc = parts.rpc.clone().with_call_timeout(CALL_TIMEOUT);
        let reply = rpc.call::<SyncHost>(&self.context(), &request).await?;
        if self.is_books() {
            return Ok(false);
        }
        let mut state = self.state();
        if state.known && reply.is_empty() {
            return Ok(false);
        }
        reply.apply_to(&mut state.wanted);
        state.known = true;
        Ok(true)
    }

    /// Keeps over a restart what the network is to be.
    async fn keep(&self) {
        let Some(path) = self.options().state_file.clone() else { return };
        let wanted = self.wanted();
        if let Err(error) = save(path, wanted).await {
            tracing::warn!("what the network is to be is not kept over a restart: {}", chain(&error));
        }
    }

    /// Has a small change in force without a look at the rest. False: the whole is to be made what it is to be.
    async fn adjust(&self) -> bool {
        let wanted = self.wanted();
        let began = Instant::now();
        match self.inner.parts.plumbing.adjust(&wanted).await {
            Ok(Some(converged)) => {
                metrics::histogram!("nova_host_network_adjust_seconds").record(began.elapsed().as_secs_f64());
                self.state().converged = Some(converged);
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::warn!("a change of the network is made with all the rest: {}", chain(&error));
                false
            }
        }
    }

    /// Makes the network what it is to be.
    async fn converge(&self) -> Result<(), String> {
        let wanted = {
            let state = self.state();
            if state.known { state.wanted.clone() } else { return Ok(()) }
        };
        let plumbing = &self.inner.parts.plumbing;
        let began = Instant::now();
        let converged = plumbing.converge(&wanted).await;
        metrics::histogram!("nova_host_network_converge_seconds").record(began.elapsed().as_secs_f64());
        if let Some(metadata) = &self.inner.parts.metadata {
            metadata.refresh(&**plumbing).await;
        }
        match converged {
            Ok(converged) => {
                for problem in &converged.problems {
                    tracing::warn!("the host's network: {problem}");
                }
                self.state().converged = Some(converged);
                Ok(())
            }
            Err(error) => {
                self.state().converged = None;
                Err(chain(&error))
            }
        }
    }

    /// Says how far it is, if that is another than what was said.
    async fn report(&self) {
        let Some(report) = self.news() else { return };
        let rpc = self.inner.parts.rpc.clone().with_call_timeout(CALL_TIMEOUT);
        match rpc.call::<ReportHost>(&self.context(), &report).await {
            Ok(()) => {
                let mut state = self.state();
                let reported = &mut state.reported;
                reported.count += 1;
                (reported.applied, reported.problems) = (report.applied, report.problems);
                reported.ports.extend(report.ports);
            }
            Err(error) => tracing::debug!("nobody heard how far the network is: {}", chain(&error)),
        }
    }

    fn news(&self) -> Option<ReportHostRequest> {
        let mut state = self.state();
        let State { wanted, converged, reported, .. } = &mut *state;
        let converged = converged.as_ref()?;
        reported.ports.retain(|id, _| converged.ports.contains_key(id));
        let all = reported.count.is_multiple_of(FULL_REPORT);
        let is_news = |(id, status): &(&PortId, &PortStatus)| reported.ports.get(*id) != Some(*status);
        let applied = in_force(wanted, converged);
        let changed: BTreeMap<PortId, PortStatus> =
            converged.ports.iter().filter(|port| all || is_news(port)).map(|(id, status)| (*id, *status)).collect();
        let same = applied == reported.applied && converged.problems == reported.problems;
        if same && !converged.ports.iter().any(|port| is_news(&port)) && reported.count > 0 {
            return None;
        }
        let (host, problems) = (self.inner.parts.options.host.clone(), converged.problems.clone());
        Some(ReportHostRequest { host, applied, ports: changed, problems })
    }

    /// A round that begins from now on; what went wrong in it.
    async fn round_from_now(&self) -> Result<Option<String>, &'static str> {
        let mut rounds = self.inner.rounds.subscribe();
        let mine = self.inner.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.inner.wake.notify_one();
        let done = rounds.wait_for(|round| round.ended || round.covers >= mine).await;
        match done {
            Ok(round) if !round.ended => Ok(round.trouble.clone()),
            _ => Err("the host's network agent is stopping"),
        }
    }

    /// The specifications of the interfaces, if all are ready; otherwise the first that is not.
    fn specs(&self, vifs: &[Vif]) -> Result<Vec<InterfaceSpec>, NotReady> {
        let state = self.state();
        for vif in vifs {
            match readiness(&state.wanted, state.converged.as_ref(), vif) {
                Readiness::Ready => {}
                Readiness::Missing => return Err(NotReady::Missing(vif.port_id)),
                Readiness::Broken => {
                    let problems = state.converged.as_ref().map(|converged| converged.problems.join("; "));
                    return Err(NotReady::Broken(vif.port_id, problems.unwrap_or_default()));
                }
            }
        }
        let specs = vifs.iter().map(|vif| self.inner.parts.plumbing.interface(&state.wanted, vif));
        specs.collect::<Result<_, _>>().map_err(NotReady::Plumbing)
    }

    async fn until_ready(&self, vifs: &[Vif]) -> Result<Vec<InterfaceSpec>, PlumbingError> {
        let missing_until = Instant::now() + MISSING_TIMEOUT;
        let mut wait = Duration::from_millis(200);
        loop {
            let trouble = self.round_from_now().await.map_err(|why| failed("waiting for the host's network", why))?;
            let not_ready = match self.specs(vifs) {
                Ok(specs) => return Ok(specs),
                Err(not_ready) => not_ready,
            };
            match (not_ready, trouble) {
                (NotReady::Plumbing(error), _) => return Err(error),
                (NotReady::Broken(port, problems), _) => {
                    return Err(failed(&format!("plugging port {port}"), &problems));
                }
                (NotReady::Missing(port), None) if Instant::now() >= missing_until => {
                    return Err(failed(&format!("plugging port {port}"), "the books do not have it on this host"));
                }
                (NotReady::Missing(_), None) => {}
                (NotReady::Missing(port), Some(trouble)) => tracing::info!(%port, "not plugged in yet: {trouble}"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }
}

/// Why interfaces are not ready.
enum NotReady {
    Missing(PortId),
    Broken(PortId, String),
    Plumbing(PlumbingError),
}

fn failed(doing: &str, why: &str) -> PlumbingError {
    PlumbingError::Failed { doing: doing.to_owned(), source: why.to_owned().into() }
}

#[async_trait]
impl HostNetworkAgent for NetworkAgent {
    async fn ready(&self, vifs: &[Vif]) -> Result<Vec<InterfaceSpec>, PlumbingError> {
        if self.is_books() {
            let nothing = HostNetwork::default();
            return vifs.iter().map(|vif| self.inner.parts.plumbing.interface(&nothing, vif)).collect();
        }
        self.state().settling_until = Some(Instant::now() + SETTLING);
        match tokio::time::timeout(self.options().ready_timeout, self.until_ready(vifs)).await {
            Ok(ready) => ready,
            Err(_) => Err(failed("plugging the guest's ports", "the network service did not tell of them in time")),
        }
    }

    async fn arrived(&self, vifs: &[Vif]) {
        let wanted = self.state().wanted.clone();
        let networks = vifs.iter().map(|vif| vif.network_id).collect();
        if let Err(error) = self.inner.parts.plumbing.announce_gateways(&wanted, &networks).await {
            tracing::warn!("a guest that has come may take a while to find its gateway: {}", chain(&error));
        }
    }

    async fn gone(&self, instance: InstanceId) {
        tracing::debug!(%instance, "its ports are given back soon");
        let at = Instant::now() + AFTER_REMOVAL;
        let mut state = self.state();
        state.sync_at = Some(state.sync_at.map_or(at, |earlier| earlier.min(at)));
        drop(state);
        self.inner.wake.notify_one();
    }

    fn changed(&self) {
        self.inner.asked.fetch_add(1, Ordering::SeqCst);
        self.inner.wake.notify_one();
    }
}
