//! What an operator may set about a host.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nova_core::flavor::Resources;
use nova_core::ids::{HostName, ZoneName};
use nova_core::options::{Config, OptionDecl, common, hosts};

use crate::image_client::GLANCE_ENDPOINT_OVERRIDE;
use crate::stats::Monitors;

/// Options that only host agents have.
pub const COMPUTE_OPTIONS: &[OptionDecl] = &[GLANCE_ENDPOINT_OVERRIDE.decl()];

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
    /// What the operator says that the host can do (`compute.traits`).
    pub traits: BTreeSet<String>,
    /// CPUs that guests share (`compute.cpu_shared_set`).
    pub cpu_shared_set: Option<BTreeSet<u32>>,
    /// CPUs for guests of their own (`compute.cpu_dedicated_set`).
    pub cpu_dedicated_set: Option<BTreeSet<u32>>,
    /// Failed builds in a row that take the host out (`compute.consecutive_build_service_disable_threshold`).
    pub build_failure_threshold: u32,
    /// What is measured of the machine (`compute_monitors`), every [`Self::reconcile_interval`].
    pub monitors: Monitors,
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
            traits: BTreeSet::new(),
            cpu_shared_set: None,
            cpu_dedicated_set: None,
            build_failure_threshold: 10,
            monitors: Monitors::default(),
        }
    }

    /// What the configuration says about that host. The registry must know [`COMPUTE_OPTIONS`] and [`hosts::OPTIONS`].
    pub fn from_config(config: &Config, host: HostName, image_cache: PathBuf) -> Self {
        let amount = |option| u64::try_from(config.get(option)).unwrap_or(0);
        let defaults = Self::new(host, image_cache);
        let builds = usize::try_from(config.get(&common::MAX_CONCURRENT_BUILDS)).unwrap_or(0);
        let power = config.get(&common::SYNC_POWER_STATE_INTERVAL);
        Self {
            zone: ZoneName::new(config.get(&common::DEFAULT_AVAILABILITY_ZONE)),
            report_interval: config.get(&common::REPORT_INTERVAL),
            power_sync_interval: if power.is_zero() { Duration::MAX } else { power },
            reserved: Resources {
                vcpus: amount(&common::RESERVED_HOST_CPUS),
                memory_mb: amount(&common::RESERVED_HOST_MEMORY_MB),
                disk_gb: amount(&common::RESERVED_HOST_DISK_MB).div_ceil(1024),
            },
            cpu_ratio: config.get(&common::INITIAL_CPU_ALLOCATION_RATIO),
            ram_ratio: config.get(&common::INITIAL_RAM_ALLOCATION_RATIO),
            disk_ratio: config.get(&common::INITIAL_DISK_ALLOCATION_RATIO),
            traits: config.get(&hosts::COMPUTE_TRAITS).into_iter().collect(),
            cpu_shared_set: hosts::cpu_set(config, &hosts::CPU_SHARED_SET),
            cpu_dedicated_set: hosts::cpu_set(config, &hosts::CPU_DEDICATED_SET),
            build_failure_threshold: u32::try_from(config.get(&hosts::BUILD_FAILURE_THRESHOLD)).unwrap_or(0),
            monitors: Monitors::named(&config.get(&hosts::COMPUTE_MONITORS)),
            max_concurrent_builds: if builds == 0 { 10_000 } else { builds },
            ..defaults
        }
    }
}
