//! nova-compute: the host agent, one per host. It carries out the conductor's orders on its hypervisor, reports how each
//! went, says that it lives and what it has, and closes the gap between the guests that should be here and those that are.
//!
//! What it is not: a client of the database. All that it needs to know comes with an order, or from the conductor on
//! request; this crate does not depend on the store.
//!
//! An order carries the instance's fencing token (its epoch): one that is lower than what this host has seen is late and
//! is not carried out. Orders of one instance run one after the other. Each may come twice.

mod agent;
mod config_drive;
mod console;
mod diagnostics;
mod health;
mod hearing;
mod heartbeat;
mod image_cache;
mod image_cleaner;
mod image_client;
mod instances;
mod interface_sync;
mod interfaces;
mod life;
mod metadata;
mod moves;
mod network;
mod options;
mod orders;
mod quiesce;
mod reconcile;
mod remake;
mod snapshot;
mod stats;
mod steps;
mod tracker;
mod volume_sync;
mod volumes;

pub use agent::{Agent, AgentError, Parts};
pub use console::{SerialTls, SerialTlsError};
pub use image_cache::{ImageCache, ImageCacheError};
pub use image_client::{EndpointError, GLANCE_ENDPOINT_OVERRIDE, HttpImageOptions, HttpImageService};
pub use metadata::{Left, MetadataLimits, MetadataServer, MetadataSource, RpcMetadataSource};
#[cfg(target_os = "linux")]
pub use network::linux;
pub use network::{
    BooksPlumbing, Converged, HostNetworkAgent, MetadataDoor, NETWORK_HOST_OPTIONS, NetworkAgent, NetworkAgentOptions,
    NetworkAgentParts, PLUMBING, Plumbing, PlumbingError, PlumbingOptions, network_options_fit,
};
pub use options::{COMPUTE_OPTIONS, ComputeOptions};
pub use stats::Monitors;
pub use tracker::{Claim, ClaimError, ResourceTracker};
