//! The compute API: servers and what belongs to them (nova/api/openstack/compute/).

pub mod orders;

use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::contracts::{IdentityService, ImageService};
use nova_core::entropy::Entropy;
use nova_db::Store;

pub use orders::{OrderError, Orders};
pub use options::ComputeOptions;

mod options;

/// What the resources of the compute API share.
#[derive(Clone)]
pub struct ComputeApi {
    /// Every fact.
    pub store: Arc<dyn Store>,
    /// Images to boot from.
    pub images: Arc<dyn ImageService>,
    /// Tokens.
    pub identity: Arc<dyn IdentityService>,
    /// Conductors and hosts.
    pub orders: Arc<dyn Orders>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness: ids and passwords.
    pub entropy: Arc<dyn Entropy>,
    /// The configuration.
    pub options: Arc<ComputeOptions>,
}
