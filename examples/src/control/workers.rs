//! Conductor, scheduler, network and volume service: control services that only the bus reaches.

use std::sync::Arc;

use nova::conductor::{Conductor, ConductorOptions};
use nova::live::Live;
use nova::network::service::{HostsOptions, NetworkHosts};
use nova::scheduler::{SchedulerService, ServiceOptions};
use nova::servicegroup::Membership;
use nova::volume::service::VolumeHost;
use nova_core::contracts::{ImageService, NetworkService};
use nova_core::error::chain;
use nova_core::ids::{HostName, ZoneName};
use nova_core::options::{Config, common};
use nova_core::rpc::Role;
use nova_queue::RunningService;
use nova_sched::Scheduler;

use super::{Background, Foundation};
use crate::cli::StartError;

/// A conductor at work.
pub struct ConductorPart {
    options: Live<ConductorOptions>,
    running: RunningService,
}

impl ConductorPart {
    /// Listens on the bus and takes up tasks.
    pub async fn start(config: &Config, on: &Foundation) -> Result<Self, StartError> {
        let name = format!("{}/{}", config.get(&common::HOST), on.entropy.hex(8));
        let options = Live::new(ConductorOptions::from_config(config, name));
        let conductor = Conductor::new(nova::conductor::Parts {
            store: on.store.clone(),
            rpc: on.client(config, Role::Conductor),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: options.clone(),
        });
        let network: Arc<dyn NetworkService> = match on.outside_network(config)? {
            Some(outside) => Arc::new(outside),
            None => Arc::new(on.books(config, Role::Conductor)),
        };
        let volumes = on.block_storage(config, Role::Conductor)?;
        let conductor = conductor.with_network(network).with_block_storage(volumes);
        let running = conductor.start().await.map_err(|e| StartError::new("the conductor cannot start", &e))?;
        Ok(Self { options, running })
    }

    /// Takes over what may change.
    pub fn reload(&self, config: &Config) {
        let name = self.options.get().name.clone();
        self.options.set(ConductorOptions::from_config(config, name));
    }

    /// Takes no more messages and waits for what is in hand.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// The service between the books of the network and the hosts, at work.
pub struct NetworkPart {
    running: RunningService,
}

impl NetworkPart {
    /// Listens on the bus.
    pub async fn start(config: &Config, on: &Foundation) -> Result<Self, StartError> {
        let service = NetworkHosts::new(nova::network::service::Parts {
            store: on.store.clone(),
            rpc: on.client(config, Role::Network),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: HostsOptions::from_config(config),
        });
        let running = service.start().await.map_err(|e| StartError::new("the network service cannot start", &e))?;
        Ok(Self { running })
    }

    /// Takes no more messages and waits for what is in hand.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// The service of a volume host, at work.
pub struct VolumePart {
    running: RunningService,
}

impl VolumePart {
    /// Opens the driver and takes up tasks. `images`: where images come from.
    pub async fn start(config: &Config, on: &Foundation, images: Arc<dyn ImageService>) -> Result<Self, StartError> {
        let driver = nova::volume::driver::open(config, &*on.entropy).await;
        let driver = driver.map_err(|e| StartError::new("the volume driver cannot be used", &e))?;
        let grants = nova::image::GrantKey::shared(&*on.store, &*on.entropy).await;
        let owner = format!("{}/{}", config.get(&common::HOST), on.entropy.hex(8));
        let service = VolumeHost::new(nova::volume::service::Parts {
            store: on.store.clone(),
            driver,
            images: Some(images),
            grants: Some(grants.map_err(|e| StartError::new("the volume service cannot start", &e))?),
            rpc: on.client(config, Role::Volume),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: nova::volume::host_options(config, owner),
        });
        let running = service.start().await.map_err(|e| StartError::new("the volume service cannot start", &e))?;
        Ok(Self { running })
    }

    /// The same; a machine that cannot keep volumes goes without, and says why.
    pub async fn start_if_possible(config: &Config, on: &Foundation, images: Arc<dyn ImageService>) -> Option<Self> {
        match Self::start(config, on, images).await {
            Ok(part) => Some(part),
            Err(error) => {
                tracing::warn!("this host keeps no volumes: {}", chain(&error));
                None
            }
        }
    }

    /// Takes no more messages; what is in hand is put down, and taken up again at the next start.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// A scheduler at work.
pub struct SchedulerPart {
    running: RunningService,
}

impl SchedulerPart {
    /// Listens on the bus and keeps its table of hosts.
    pub async fn start(config: &Config, on: &Foundation) -> Result<Self, StartError> {
        let scheduler = SchedulerService::new(nova::scheduler::Parts {
            algorithm: algorithm(config)?,
            store: on.store.clone(),
            bus: on.bus.clone(),
            clock: on.clock.clone(),
            entropy: on.entropy.clone(),
            options: ServiceOptions::from_config(config),
        });
        let scheduler = scheduler.map_err(|e| StartError::new("the scheduler cannot start", &e))?;
        let running = scheduler.start().await.map_err(|e| StartError::new("the scheduler cannot start", &e))?;
        Ok(Self { running })
    }

    /// Takes no more messages and waits for what is in hand.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// The algorithm that `scheduler.driver` names, with its options.
///
/// # Errors
/// An option of it that cannot be used.
pub fn algorithm(config: &Config) -> Result<Box<dyn Scheduler>, StartError> {
    let name = config.get(&common::SCHEDULER_DRIVER);
    let made = nova::scheduler::algorithm_options(config).and_then(|options| nova_sched::by_name(&name, &options));
    made.map_err(|e| StartError::config(vec![format!("scheduler.driver = {name}: {e}")]))
}

/// Writes signs of life of these services from now on.
pub fn tell_life(config: &Config, on: &Foundation, binaries: &[&'static str], background: &Background) {
    let membership = Membership {
        store: on.store.clone(),
        clock: on.clock.clone(),
        entropy: on.entropy.clone(),
        host: HostName::new(config.get(&common::HOST)),
        zone: ZoneName::new(config.get(&common::INTERNAL_SERVICE_AVAILABILITY_ZONE)),
        binaries: binaries.to_vec(),
        interval: config.get(&common::REPORT_INTERVAL),
    };
    background.spawn(|stop| membership.run(stop));
}
