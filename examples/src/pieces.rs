//! Control services in processes of their own: what such a process does from its start to its end, whichever service is
//! in it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use nova_compute::HttpImageService;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::options::{Config, common};

use crate::cli::{ConfigArgs, StartError};
use crate::clouds;
use crate::control::{
    ApiPart, Background, ConductorPart, ConsoleAuthPart, Foundation, NetworkPart, SchedulerPart, VolumePart, tell_life,
};
use crate::health::{HealthPage, Vitals};
use crate::parts;
use crate::process::{self, Asked, OsEntropy, Signals, SystemClock};
use crate::transport::Transport;

/// A control service that can be a process of its own.
#[async_trait]
pub trait Piece: Send + Sized {
    /// The program's name.
    const PROGRAM: &'static str;
    /// It answers `/healthz` among its own pages and needs no `health.listen`.
    const HAS_PAGES: bool = false;

    /// Starts it on its foundation.
    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError>;

    /// Takes over what may change.
    fn reload(&self, _config: &Config) {}

    /// Takes nothing new and waits for what is in hand. The caller bounds the wait.
    async fn stop(self);
}

#[async_trait]
impl Piece for ConductorPart {
    const PROGRAM: &'static str = "nova-conductor";

    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError> {
        let part = Self::start(config, on).await?;
        tell_life(config, on, &[Self::PROGRAM], background);
        Ok(part)
    }

    fn reload(&self, config: &Config) {
        Self::reload(self, config);
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

#[async_trait]
impl Piece for SchedulerPart {
    const PROGRAM: &'static str = "nova-scheduler";

    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError> {
        let part = Self::start(config, on).await?;
        tell_life(config, on, &[Self::PROGRAM], background);
        Ok(part)
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

#[async_trait]
impl Piece for NetworkPart {
    const PROGRAM: &'static str = "nova-network";

    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError> {
        let part = Self::start(config, on).await?;
        tell_life(config, on, &[Self::PROGRAM], background);
        Ok(part)
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

#[async_trait]
impl Piece for ConsoleAuthPart {
    const PROGRAM: &'static str = "nova-consoleauth";

    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError> {
        let part = Self::start(config, on, None).await?;
        tell_life(config, on, &[Self::PROGRAM], background);
        Ok(part)
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

#[async_trait]
impl Piece for VolumePart {
    const PROGRAM: &'static str = "nova-volume";

    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError> {
        let images = HttpImageService::from_config(config, on.entropy.clone())
            .map_err(|error| StartError::config(vec![error.to_string()]))?;
        let part = Self::start(config, on, Arc::new(images)).await?;
        tell_life(config, on, &[Self::PROGRAM], background);
        Ok(part)
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

#[async_trait]
impl Piece for ApiPart {
    const PROGRAM: &'static str = "nova-api";
    const HAS_PAGES: bool = true;

    async fn start(config: &Config, on: &Foundation, background: &Background) -> Result<Self, StartError> {
        let state = config.get(&common::STATE_PATH);
        parts::make_private(&state)?;
        let mut part = Self::build(config, &state, on, background).await?;
        part.serve(background);
        announce(Self::PROGRAM, &part, &state);
        Ok(part)
    }

    fn reload(&self, config: &Config) {
        Self::reload(self, config);
    }

    async fn stop(self) {
        self.close();
    }
}

/// Says where the cloud is and how to use it.
pub fn announce(program: &str, api: &ApiPart, state: &Path) {
    let clouds = clouds::path(state);
    println!("{program} serves at {}", api.public_url);
    if api.first_start {
        println!("users admin and demo were made; their passwords are in {}", clouds.display());
    }
    if clouds.exists() {
        println!("  export OS_CLIENT_CONFIG_FILE={}\n  openstack --os-cloud nova server list", clouds.display());
    }
}

/// One service, until the process is told to stop.
///
/// # Errors
/// What the options name can't be used or reaches no other process, or the schema isn't this program's. A broker or a
/// database that is away is waited for.
pub async fn run<P: Piece>(arguments: &ConfigArgs) -> Result<(), StartError> {
    let mut config = arguments.load()?;
    process::start_log(&config);
    Transport::require_shared(&config)?;
    require_shared_database(&config)?;
    let mut signals = Signals::listen()?;
    let background = Background::default();
    let vitals = Arc::new(OnceLock::new());
    if !P::HAS_PAGES
        && let Some(page) = HealthPage::bind(&config).await?
    {
        background.spawn(|stop| page.serve(vitals.clone(), stop));
    }
    let piece = tokio::select! {
        biased;
        asked = signals.until_stop() => return asked,
        started = start::<P>(&config, &background, &vitals) => started?,
    };
    tracing::info!("{} is ready", P::PROGRAM);
    while signals.next().await == Asked::Reload {
        config = process::reload(arguments, config);
        piece.reload(&config);
    }
    let patience = config.get(&common::GRACEFUL_SHUTDOWN_TIMEOUT);
    tracing::info!("stopping: what is in hand may take {} s", patience.as_secs());
    let stopping = async {
        piece.stop().await;
        background.stop().await;
    };
    if tokio::time::timeout(patience, stopping).await.is_err() {
        tracing::warn!("not everything ended in time; another process goes on with it, or this one at its next start");
    }
    Ok(())
}

async fn start<P: Piece>(config: &Config, background: &Background, vitals: &OnceLock<Vitals>) -> Result<P, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let transport = Transport::from_config(config, &clock, &entropy)?;
    let store = parts::wait_for_store(config, &*entropy).await?;
    let name = format!("{}@{}", P::PROGRAM, config.get(&common::HOST));
    let bus = transport.connect(&name).await?;
    let on = Foundation { store, bus, clock, entropy };
    let piece = P::start(config, &on, background).await?;
    if !P::HAS_PAGES {
        let _ = vitals.set(Vitals::of(&on.store, &on.bus));
    }
    Ok(piece)
}

/// Refuses a database that no other process sees.
fn require_shared_database(config: &Config) -> Result<(), StartError> {
    if !config.get(&common::DATABASE_CONNECTION).starts_with("memory:") {
        return Ok(());
    }
    Err(StartError::config(vec![
        "database.connection: what is in 'memory:' is known to one process alone, and the services need to share it"
            .to_owned(),
    ]))
}
