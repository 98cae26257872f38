//! The service of a volume host: takes up the tasks of its host and carries them out with its driver.
//!
//! A task is taken up by a lease, which is held while it is worked on. Every step may be done again: what a service that died
//! began is done once more by the one that is started in its place, which finds the task in the store. A task that is not
//! over by its deadline has failed; what was made of it is undone.

mod host;
mod outcome;
mod report;
mod work;

use std::sync::Arc;
use std::time::Duration;

use nova_core::clock::Clock;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::ids::{HostName, ZoneName};
use nova_db::Store;
use nova_queue::RpcClient;

pub use host::VolumeHost;

use super::driver::VolumeDriver;
use crate::image::GrantKey;

/// What the service is built from.
pub struct Parts {
    /// The books.
    pub store: Arc<dyn Store>,
    /// The disks.
    pub driver: Arc<dyn VolumeDriver>,
    /// Where images come from and go to.
    pub images: Option<Arc<dyn ImageService>>,
    /// Makes leave to read and write images, where the image service is elsewhere.
    pub grants: Option<GrantKey>,
    /// Its way onto the bus.
    pub rpc: RpcClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: HostOptions,
}

/// Settings of a volume host's service.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The host.
    pub host: HostName,
    /// Its backend's name.
    pub backend: String,
    /// Its pool's name.
    pub pool: String,
    /// The zone that its volumes are in.
    pub zone: ZoneName,
    /// The process's name, unique to it: whose leases are its own.
    pub owner: String,
    /// How often the host speaks of its pool.
    pub report_interval: Duration,
    /// How often it looks for tasks that it was not told of.
    pub sweep_interval: Duration,
    /// How long nobody else touches a task that it works on; held on to while it does.
    pub lease: Duration,
    /// A task that could not be done now is tried again after so long.
    pub retry: Duration,
    /// Tasks worked on at once.
    pub workers: usize,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            host: HostName::new("localhost"),
            backend: "files".to_owned(),
            pool: "pool".to_owned(),
            zone: ZoneName::new("nova"),
            owner: "localhost/0".to_owned(),
            report_interval: Duration::from_secs(10),
            sweep_interval: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            retry: Duration::from_secs(2),
            workers: 8,
        }
    }
}
