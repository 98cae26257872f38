//! The control services, each a part by itself: the API with identity and images, the conductor, the scheduler.

mod api;
mod workers;

use std::sync::Arc;

use nova::network::{NetworkManager, NetworkOptions, Notifier};
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::ids::HostName;
use nova_core::options::{Config, common};
use nova_core::rpc::{Role, Sender};
use nova_db::Store;
use nova_queue::{MessageBus, RpcClient};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use api::ApiPart;
pub use workers::{ConductorPart, SchedulerPart, algorithm, tell_life};

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
    /// The books of networks, and who tells of what that service changes.
    fn networks(&self, config: &Config, role: Role) -> Arc<NetworkManager> {
        let (store, options) = (self.store.clone(), NetworkOptions::from_config(config));
        let manager = NetworkManager::new(store, self.clock.clone(), self.entropy.clone(), options);
        Arc::new(manager.telling(Notifier::new(self.client(config, role), self.entropy.clone())))
    }

    fn client(&self, config: &Config, role: Role) -> RpcClient {
        let sender = Sender { role, host: HostName::new(config.get(&common::HOST)) };
        RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone())
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
