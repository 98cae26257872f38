//! The service: what it is made of, what it listens to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::{HostName, NetworkAgentId, RequestId};
use nova_core::network::{HostNetwork, NetworkAgent, NetworkState, item_digest};
use nova_core::rpc::compute::NetworkChanged;
use nova_core::rpc::network::{
    BooksChanged, BooksChangedRequest, Ping, ReportHost, ReportHostRequest, SyncHost, SyncHostReply, SyncHostRequest,
};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_db::{HostScope, NetworkHostStore, StoreError};
use nova_queue::{BusError, Dispatcher, HandlerError, Incoming, RpcClient, RunningService, Subscription};
use tokio_util::sync::CancellationToken;

use super::HostsOptions;
use super::hints::Hints;
use crate::network::{Gateways, host_network};

/// Messages in hand at once.
const PREFETCH: usize = 256;

/// A word to a host is worth so long: after that the host has asked by itself.
const HINT_LIFETIME: Duration = Duration::from_secs(30);

/// A broker that takes longer than this is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Problems of a host that are kept, and characters of each.
const PROBLEMS: (usize, usize) = (50, 500);

/// Names of physical networks that a host may have.
const MOST_WIRES: usize = 64;

/// What the service is built from.
pub struct Parts {
    /// What the books say of hosts.
    pub store: Arc<dyn NetworkHostStore>,
    /// Its way onto the bus.
    pub rpc: RpcClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the ids of agents.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: HostsOptions,
}

/// The service between the books and the hosts. Cheap to clone.
#[derive(Clone)]
pub struct NetworkHosts {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    hints: Hints,
    /// What hosts were told last.
    told: Mutex<BTreeMap<HostName, Told>>,
}

/// What a host was told last.
#[derive(Debug, Default)]
struct Told {
    /// All of it, in one digest.
    digest: String,
    /// It is in force there.
    applied: bool,
    /// The version of the books that it was made of, or of later ones that say the same.
    version: u64,
}

impl NetworkHosts {
    /// A service that does nothing yet.
    pub fn new(parts: Parts) -> Self {
        Self { inner: Arc::new(Inner { parts, hints: Hints::default(), told: Mutex::default() }) }
    }

    /// Listens on the bus.
    ///
    /// # Errors
    /// The bus can't be used.
    pub async fn start(self) -> Result<RunningService, BusError> {
        let subscription = Subscription { prefetch: PREFETCH, ..Subscription::shared("network") };
        let serving = self.inner.parts.rpc.bus().serve(subscription, Arc::new(self.dispatcher())).await?;
        let running = RunningService::new(serving, &CancellationToken::new());
        Ok(running.with(|stop| async move { self.tell_until(stop).await }))
    }

    fn dispatcher(&self) -> Dispatcher {
        let [a, b, c] = std::array::from_fn(|_| self.clone());
        Dispatcher::new("network")
            .method::<BooksChanged, _, _>(move |_, change| {
                a.inner.hints.add(change);
                async { Ok(()) }
            })
            .method::<SyncHost, _, _>(move |incoming, request| {
                let service = b.clone();
                async move { service.sync_host(&incoming, request).await }
            })
            .method::<ReportHost, _, _>(move |incoming, request| {
                let service = c.clone();
                async move { service.report_host(&incoming, request).await }
            })
            .method::<Ping, _, _>(|_, ()| async { Ok(()) })
    }

    async fn sync_host(&self, incoming: &Incoming, request: SyncHostRequest) -> Result<SyncHostReply, HandlerError> {
        speaks_of_itself(incoming, &request.host)?;
        let parts = &self.inner.parts;
        let as_of = parts.clock.now();
        let agent = self.agent(&request)?;
        let (agent, is_new) = parts.store.hear_network_agent(agent).await.map_err(|e| unavailable(&e))?;
        if !agent.plugs() {
            return Ok(SyncHostReply { as_of, ..SyncHostReply::default() });
        }
        // Before the books are read: what changes meanwhile is then of a later version.
        let version = parts.store.books_version().await.map_err(|e| unavailable(&e))?;
        metrics::counter!("nova_network_syncs_total").increment(1);
        if !is_new && self.is_as_told(&request, version) {
            metrics::counter!("nova_network_idle_syncs_total").increment(1);
            return Ok(SyncHostReply { as_of, ..SyncHostReply::default() });
        }
        let began = parts.clock.now();
        let node = parts.options.gateways.node().cloned();
        let scope = HostScope { host: request.host.clone(), network_node: node };
        let books = parts.store.host_books(&scope).await.map_err(|e| unavailable(&e))?;
        let network = host_network(&books, &request.host, &parts.options.gateways);
        let took = parts.clock.now().duration_since(began);
        metrics::histogram!("nova_network_view_seconds").record(took.as_secs_f64());
        if is_new && agent.tunnel_ip.is_some() {
            // The others learn where tunnels to it end.
            let networks = network.segments.keys().copied().collect();
            self.inner.hints.add(BooksChangedRequest { networks, ..BooksChangedRequest::default() });
        }
        let reply = SyncHostReply::between(&request.have, &network, as_of);
        self.note_told(&request.host, &network, version);
        Ok(reply)
    }

    /// What a host says of itself, as it is kept.
    fn agent(&self, request: &SyncHostRequest) -> Result<NetworkAgent, Refusal> {
        let wrong = |what: &str| Refusal::new(RefusalKind::Malformed, format!("that can't be a host's {what}"));
        let short = |text: &String| !text.is_empty() && text.len() <= 64;
        if !short(&request.plumbing) {
            return Err(wrong("plumbing"));
        }
        if request.physical_networks.len() > MOST_WIRES || !request.physical_networks.iter().all(short) {
            return Err(wrong("list of physical networks"));
        }
        if request.tunnel_ip.is_some_and(|address| address.is_unspecified() || address.is_multicast()) {
            return Err(wrong("tunnel address"));
        }
        let now = self.inner.parts.clock.now();
        Ok(NetworkAgent {
            host: request.host.clone(),
            id: NetworkAgentId::generate(&*self.inner.parts.entropy),
            plumbing: request.plumbing.clone(),
            tunnel_ip: request.tunnel_ip,
            physical_networks: request.physical_networks.clone(),
            created_at: now,
            heard_at: now,
        })
    }

    async fn report_host(&self, incoming: &Incoming, request: ReportHostRequest) -> Result<(), HandlerError> {
        speaks_of_itself(incoming, &request.host)?;
        let (most, longest) = PROBLEMS;
        let shorten = |text: String| text.chars().filter(|c| !c.is_control()).take(longest).collect();
        self.note_applied(&request);
        let state = NetworkState {
            host: request.host,
            applied: request.applied,
            problems: request.problems.into_iter().take(most).map(shorten).collect(),
            reported_at: self.inner.parts.clock.now(),
        };
        let changed = self.inner.parts.store.report_network(state, request.ports).await;
        let changed = changed.map_err(|error| unavailable(&error))?;
        for port in changed {
            tracing::debug!(port = %port.id, status = port.status.as_str(), "a port's state is another");
        }
        Ok(())
    }

    /// Tells hosts that their network is to be otherwise, until it is to stop.
    async fn tell_until(&self, stop: CancellationToken) {
        while let Some(change) = self.inner.hints.next(self.inner.parts.options.window, &stop).await {
            match self.hosts_to_tell(&change).await {
                Ok(hosts) => self.tell(hosts).await,
                Err(error) => tracing::warn!("hosts are not told of a change, and will ask: {}", chain(&error)),
            }
        }
    }

    /// Those where something is plugged in, so that it must change.
    async fn hosts_to_tell(&self, change: &BooksChangedRequest) -> Result<BTreeSet<HostName>, StoreError> {
        let parts = &self.inner.parts;
        let mut hosts = parts.store.hosts_concerned(change).await?;
        if let Gateways::Node(node) = &parts.options.gateways {
            hosts.insert(node.clone());
        }
        let hosts: Vec<HostName> = hosts.into_iter().collect();
        let agents = parts.store.list_network_agents(Some(&hosts)).await?;
        Ok(agents.into_iter().filter(NetworkAgent::plugs).map(|agent| agent.host).collect())
    }

    async fn tell(&self, hosts: BTreeSet<HostName>) {
        let parts = &self.inner.parts;
        let rpc = parts.rpc.clone().with_cast_lifetime(HINT_LIFETIME);
        let context = RequestContext::internal(RequestId::generate(&*parts.entropy));
        let all = async {
            for host in hosts {
                if let Err(error) = rpc.cast_to::<NetworkChanged>(&host, &context, &()).await {
                    tracing::debug!(%host, "it was not told of a change, and will ask: {}", chain(&error));
                }
            }
        };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            tracing::debug!("not all hosts were told of a change, and will ask: the broker does not answer");
        }
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<HostName, Told>> {
        self.inner.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the host what it was told last, and have the books not changed since?
    fn is_as_told(&self, request: &SyncHostRequest, version: u64) -> bool {
        let has = item_digest(&request.have);
        self.told().get(&request.host).is_some_and(|told| told.version == version && told.digest == has)
    }

    fn note_told(&self, host: &HostName, network: &HostNetwork, version: u64) {
        let digest = item_digest(&network.digests());
        let mut told = self.told();
        let entry = told.entry(host.clone()).or_default();
        entry.version = version;
        if entry.digest != digest {
            (entry.digest, entry.applied) = (digest, false);
        }
        count_behind(&told);
    }

    fn note_applied(&self, request: &ReportHostRequest) {
        let items: BTreeMap<&String, &String> =
            request.applied.iter().filter(|(key, _)| !key.starts_with("port:")).collect();
        let digest = item_digest(&items);
        let mut told = self.told();
        if let Some(entry) = told.get_mut(&request.host) {
            entry.applied = entry.digest == digest;
        }
        count_behind(&told);
    }
}

fn count_behind(told: &BTreeMap<HostName, Told>) {
    let behind = told.values().filter(|told| !told.applied).count();
    metrics::gauge!("nova_network_hosts_behind").set(behind as f64);
}

/// A host may speak of itself only.
fn speaks_of_itself(incoming: &Incoming, host: &HostName) -> Result<(), Refusal> {
    if incoming.sender.host == *host {
        return Ok(());
    }
    tracing::warn!(sender = %incoming.sender.host, %host, "a host spoke for another one");
    Err(Refusal::new(RefusalKind::Forbidden, "a host may speak of itself only"))
}

fn unavailable(error: &StoreError) -> HandlerError {
    Refusal::new(RefusalKind::Unavailable, chain(error)).into()
}
