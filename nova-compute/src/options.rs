//! What an operator may set about a host.

use std::path::PathBuf;
use std::time::Duration;

use nova_core::flavor::Resources;
use nova_core::ids::{HostName, ZoneName};

/// The host agent's settings.
#[derive(Debug, Clone)]
pub struct ComputeOptions {
    /// The host's name (`DEFAULT.host`).
    pub host: HostName,
    /// Its zone.
    pub zone: ZoneName,
    /// Where images are cached.
    pub image_cache: PathBuf,
    /// How often it says that it lives (`report_interval`).
    pub report_interval: Duration,
    /// How often inventory and guests are compared with what the conductor has (`update_resources_interval`).
    pub reconcile_interval: Duration,
    /// How often power states are compared (`sync_power_state_interval`).
    pub power_sync_interval: Duration,
    /// Kept for the host itself (`reserved_host_cpus`, `_memory_mb`, and disk).
    pub reserved: Resources,
    /// How often each processor may be sold (`initial_cpu_allocation_ratio`).
    pub cpu_ratio: f64,
    /// How often each MiB may be sold.
    pub ram_ratio: f64,
    /// How often each GiB may be sold.
    pub disk_ratio: f64,
    /// Guests that are built at once (`max_concurrent_builds`).
    pub max_concurrent_builds: usize,
}

impl ComputeOptions {
    /// Nova's defaults for a host of that name.
    pub fn new(host: impl Into<HostName>, image_cache: impl Into<PathBuf>) -> Self {
        Self {
            host: host.into(),
            zone: ZoneName::new("nova"),
            image_cache: image_cache.into(),
            report_interval: Duration::from_secs(10),
            reconcile_interval: Duration::from_secs(60),
            power_sync_interval: Duration::from_secs(600),
            reserved: Resources { vcpus: 0, memory_mb: 512, disk_gb: 0 },
            cpu_ratio: 4.0,
            ram_ratio: 1.0,
            disk_ratio: 1.0,
            max_concurrent_builds: 10,
        }
    }
}
