//! nova-consoleauth and nova-novncproxy.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use nova::console::proxy::{BusAuthority, ConsoleProxy, Pages, ProxyOptions, ProxyParts};
use nova::console::{self, Access, AuthOptions, AuthParts, ConsoleAuth};
use nova::identity::{Catalog, IdentityManager, IdentityOptions};
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::ids::HostName;
use nova_core::options::{Config, common};
use nova_core::rpc::{Role, Sender};
use nova_queue::{MessageBus, RpcClient, RunningService};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Foundation;
use crate::cli::{ConfigArgs, StartError};
use crate::health::{BusAnswers, HealthPage, Vitals, metrics_text};
use crate::process::{self, Asked, OsEntropy, Signals, SystemClock};
use crate::transport::Transport;

/// What tokens of consoles are worth: at work.
pub struct ConsoleAuthPart {
    running: RunningService,
}

impl ConsoleAuthPart {
    /// Listens on the bus. Roles come from this identity, or from one of its own over the same store.
    pub async fn start(
        config: &Config,
        on: &Foundation,
        identity: Option<Arc<dyn Access>>,
    ) -> Result<Self, StartError> {
        let access = match identity {
            Some(identity) => identity,
            None => own_identity(config, on).await?,
        };
        let service = ConsoleAuth::new(AuthParts {
            store: on.store.clone(),
            access,
            rpc: on.client(config, Role::Consoleauth),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: AuthOptions::from_config(config),
        });
        let running = service.start().await.map_err(|e| StartError::new("nova-consoleauth cannot start", &e))?;
        Ok(Self { running })
    }

    /// Takes no more messages and waits for what is in hand.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// It looks at the store whenever it is asked, and hands out no tokens.
async fn own_identity(config: &Config, on: &Foundation) -> Result<Arc<dyn Access>, StartError> {
    let (clock, entropy) = (on.clock.clone(), on.entropy.clone());
    let options = IdentityOptions::from_config(config);
    let identity = IdentityManager::open(on.store.clone(), clock, entropy, Catalog::new(""), options).await;
    Ok(Arc::new(identity.map_err(|e| StartError::new("identity cannot be read", &e))?))
}

/// The door in front of consoles, at work.
pub struct ConsoleProxyPart {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    serving: TaskTracker,
}

/// What a proxy is built on: it has no database.
pub struct ProxyGround {
    /// The bus.
    pub bus: Arc<dyn MessageBus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl ConsoleProxyPart {
    /// Takes the address and serves.
    pub async fn start(config: &Config, on: ProxyGround) -> Result<Self, StartError> {
        let options = ProxyOptions::from_config(config).map_err(|e| StartError::config(vec![e.to_string()]))?;
        let sender = Sender { role: Role::Novncproxy, host: HostName::new(config.get(&common::HOST)) };
        let rpc = RpcClient::new(on.bus, sender, on.clock.clone(), on.entropy.clone());
        let parts = ProxyParts {
            authority: Arc::new(BusAuthority::new(rpc, on.entropy.clone())),
            pages: Pages::load(config.get(&console::WEB_ROOT).as_deref()),
            clock: on.clock,
            entropy: on.entropy,
            options,
        };
        let host = config.get(&console::NOVNCPROXY_HOST);
        let port = u16::try_from(config.get(&console::NOVNCPROXY_PORT)).unwrap_or(0);
        let unusable = |error| StartError::new(&format!("vnc.novncproxy_port: cannot listen on {host}:{port}"), &error);
        let proxy = ConsoleProxy::bind((&host, port), parts).await.map_err(unusable)?;
        let address = proxy.address().map_err(unusable)?;
        let (stop, serving) = (CancellationToken::new(), TaskTracker::new());
        serving.spawn(proxy.serve(stop.clone()));
        serving.close();
        tracing::info!("consoles are served at http://{address}");
        Ok(Self { address, stop, serving })
    }

    /// Opens nothing new, and lets sessions end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.wait().await;
    }
}

/// Both in one process. Where the proxy's port is somebody else's, the cloud goes without its consoles.
pub struct Consoles {
    auth: ConsoleAuthPart,
    proxy: Option<ConsoleProxyPart>,
}

impl Consoles {
    /// Starts both.
    pub async fn start(config: &Config, on: &Foundation, identity: Arc<dyn Access>) -> Result<Self, StartError> {
        let auth = ConsoleAuthPart::start(config, on, Some(identity)).await?;
        let ground = ProxyGround { bus: on.bus.clone(), clock: on.clock.clone(), entropy: on.entropy.clone() };
        let proxy = match ConsoleProxyPart::start(config, ground).await {
            Ok(proxy) => Some(proxy),
            Err(error) if error.is_configuration() => return Err(error),
            Err(error) => {
                tracing::warn!("consoles are not served: {error}");
                None
            }
        };
        Ok(Self { auth, proxy })
    }

    /// Ends both.
    pub async fn stop(self) {
        if let Some(proxy) = self.proxy {
            proxy.stop().await;
        }
        self.auth.stop().await;
    }
}

/// nova-novncproxy by itself, until it is told to stop.
///
/// # Errors
/// A transport that reaches no other process, an address that cannot be listened on, certificates that cannot be read.
pub async fn run_proxy(arguments: &ConfigArgs) -> Result<(), StartError> {
    let mut config = arguments.load()?;
    process::start_log(&config);
    Transport::require_shared(&config)?;
    let mut signals = Signals::listen()?;
    let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) = (Arc::new(SystemClock), Arc::new(OsEntropy));
    let transport = Transport::from_config(&config, &clock, &entropy)?;
    let vitals = Arc::new(OnceLock::new());
    let stop_page = CancellationToken::new();
    let page = HealthPage::bind(&config).await?;
    let page = page.map(|page| tokio::spawn(page.serve(vitals.clone(), stop_page.clone())));
    let started = async {
        let bus = transport.connect(&format!("nova-novncproxy@{}", config.get(&common::HOST))).await?;
        let carried = bus.clone();
        let _ = vitals.set(Vitals {
            checks: vec![Arc::new(BusAnswers(bus.clone()))],
            metrics: metrics_text(|| None, move || vec![carried.counters()]),
        });
        ConsoleProxyPart::start(&config, ProxyGround { bus, clock, entropy }).await
    };
    let part = tokio::select! {
        biased;
        asked = signals.until_stop() => return asked,
        started = started => started?,
    };
    tracing::info!("nova-novncproxy is ready");
    while signals.next().await == Asked::Reload {
        config = process::reload(arguments, config);
    }
    let patience = config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT);
    if tokio::time::timeout(patience, part.stop()).await.is_err() {
        tracing::warn!("not every console was closed in time");
    }
    stop_page.cancel();
    if let Some(page) = page {
        let _ = page.await;
    }
    Ok(())
}
