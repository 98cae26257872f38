//! The control services, each a part by itself: the API with identity and images, the conductor, the scheduler,
//! the network service, the volume service, consoles.

mod api;
mod consoles;
mod workers;

use std::sync::Arc;

use nova::image::ImageBooks;
use nova::network::{NetworkManager, NetworkOptions, NeutronClient, NeutronOptions, Notifier};
use nova::volume::{CinderClient, CinderOptions, OwnBlockStorage, VolumeManager, VolumeOptions, VolumeParts};
use nova_core::clock::Clock;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::ids::HostName;
use nova_core::options::{Config, common};
use nova_core::rpc::{Role, Sender};
use nova_core::volume::BlockStorage;
use nova_db::Store;
use nova_queue::{MessageBus, RpcClient};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::StartError;
pub use api::ApiPart;
pub use consoles::{ConsoleAuthPart, ConsoleProxyPart, Consoles, ProxyGround, run_proxy};
pub use workers::{ConductorPart, NetworkPart, SchedulerPart, VolumePart, algorithm, tell_life};

/// What the control services of a process are built on.
#[derive(Clone)]
pub struct Foundation {
    /// The store, its schema current.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub bus: Arc<dyn MessageBus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Foundation {
    fn client(&self, config: &Config, role: Role) -> RpcClient {
        let sender = Sender { role, host: HostName::new(config.get(&common::HOST)) };
        RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone())
    }

    /// The built-in network service, which tells hosts of what it changes.
    fn books(&self, config: &Config, role: Role) -> NetworkManager {
        let options = NetworkOptions::from_config(config);
        let notifier = Notifier::new(self.client(config, role), self.entropy.clone());
        NetworkManager::new(self.store.clone(), self.clock.clone(), self.entropy.clone(), options).telling(notifier)
    }

    /// A Cinder of somebody else's, if the configuration says that it keeps the volumes of servers.
    ///
    /// # Errors
    /// A URL that cannot be used.
    pub fn outside_volumes(&self, config: &Config) -> Result<Option<Arc<dyn BlockStorage>>, StartError> {
        let Some(options) = CinderOptions::from_config(config) else { return Ok(None) };
        let client = CinderClient::new(options, self.clock.clone(), self.entropy.clone());
        let client = client.map_err(|error| StartError::config(vec![error.to_string()]))?;
        Ok(Some(Arc::new(client)))
    }

    /// The books of volumes, as others than volume hosts use them.
    fn volume_books(&self, config: &Config, role: Role, images: Arc<dyn ImageService>) -> VolumeManager {
        VolumeManager::new(VolumeParts {
            store: self.store.clone(),
            images: Some(images),
            rpc: self.client(config, role),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            options: VolumeOptions::from_config(config),
        })
    }

    /// Where servers' volumes come from: the built-in service, or a Cinder of somebody else's.
    fn block_storage(&self, config: &Config, role: Role) -> Result<Arc<dyn BlockStorage>, StartError> {
        if let Some(outside) = self.outside_volumes(config)? {
            return Ok(outside);
        }
        let images = Arc::new(ImageBooks::new(self.store.clone()));
        Ok(Arc::new(OwnBlockStorage::new(Arc::new(self.volume_books(config, role, images)))))
    }

    /// A Neutron of somebody else's, if the configuration says that it keeps the networks.
    fn outside_network(&self, config: &Config) -> Result<Option<NeutronClient>, StartError> {
        let Some(options) = NeutronOptions::from_config(config) else { return Ok(None) };
        let client = NeutronClient::new(options, self.clock.clone(), self.entropy.clone());
        let client = client.map_err(|error| StartError::config(vec![error.to_string()]))?;
        Ok(Some(client))
    }
}

/// What runs beside the services of a process until all is told to stop.
#[derive(Default)]
pub struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Background {
    /// Runs something that ends when its token is cancelled.
    pub fn spawn<F>(&self, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(work(self.stop.clone()));
    }

    /// Ends all of it and waits.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
