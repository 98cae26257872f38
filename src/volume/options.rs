//! What an operator may set about volumes, under Cinder's names.

use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl, common};
use nova_core::volume::{DEFAULT_TYPE, VolumeLimits, VolumeResource};

use super::service::HostOptions;

const API: &[&str] = &["nova-api"];
const HOST: &[&str] = &["nova-volume"];
const BOTH: &[&str] = &["nova-api", "nova-volume"];

/// `volume.default_volume_type`
pub const DEFAULT_VOLUME_TYPE: Opt<String> = Opt::string("volume", "default_volume_type")
    .default(DEFAULT_TYPE)
    .roles(API)
    .help("The type of volumes for which none is named. `__DEFAULT__` is made at the first start.");
/// `volume.storage_availability_zone`
pub const STORAGE_ZONE: Opt<String> = Opt::string("volume", "storage_availability_zone")
    .default("nova")
    .roles(HOST)
    .help("The zone that this host's volumes are in.");
/// `volume.backend`
pub const BACKEND: Opt<String> = Opt::string("volume", "volume_backend_name").default("files").roles(HOST).help(
    "The name of this host's backend: volumes are at `host@NAME#pool`, and types ask for it with `volume_backend_name`.",
);
/// `volume.pool_name`
pub const POOL: Opt<String> =
    Opt::string("volume", "pool_name").default("pool").roles(HOST).help("The name of this host's pool.");
/// `volume.osapi_max_limit`
pub const MAX_LIMIT: Opt<i64> = Opt::integer("volume", "osapi_max_limit", 1, 1_000_000)
    .default("1000")
    .unit("items")
    .roles(API)
    .help("Items of a page of volumes, snapshots and the like at most.");
/// `volume.quota_volumes`
pub const QUOTA_VOLUMES: Opt<i64> = Opt::integer("volume", "quota_volumes", -1, i64::MAX)
    .default("10")
    .roles(API)
    .help("How many volumes a project may have that has no limit of its own. -1 is no limit.");
/// `volume.quota_snapshots`
pub const QUOTA_SNAPSHOTS: Opt<i64> = Opt::integer("volume", "quota_snapshots", -1, i64::MAX)
    .default("10")
    .roles(API)
    .help("How many snapshots of volumes a project may have that has no limit of its own. -1 is no limit.");
/// `volume.quota_gigabytes`
pub const QUOTA_GIGABYTES: Opt<i64> = Opt::integer("volume", "quota_gigabytes", -1, i64::MAX)
    .default("1000")
    .unit("GiB")
    .roles(API)
    .help("How large all volumes and snapshots of a project may be that has no limit of its own. -1 is no limit.");
/// `volume.per_volume_size_limit`
pub const PER_VOLUME_SIZE_LIMIT: Opt<i64> = Opt::integer("volume", "per_volume_size_limit", -1, i64::MAX)
    .default("-1")
    .unit("GiB")
    .roles(API)
    .help("How large one volume may be. -1 is no limit.");
/// `volume.task_deadline`
pub const TASK_DEADLINE: Opt<Duration> = Opt::seconds("volume", "task_deadline", 10, 604_800)
    .default("3600")
    .unit("seconds")
    .roles(BOTH)
    .help("An operation on a volume that is not over after so long has failed, and is undone.");

/// Options of the volume service and its API.
pub const VOLUME_OPTIONS: &[OptionDecl] = &[
    DEFAULT_VOLUME_TYPE.decl(),
    STORAGE_ZONE.decl(),
    BACKEND.decl(),
    POOL.decl(),
    MAX_LIMIT.decl(),
    QUOTA_VOLUMES.decl(),
    QUOTA_SNAPSHOTS.decl(),
    QUOTA_GIGABYTES.decl(),
    PER_VOLUME_SIZE_LIMIT.decl(),
    TASK_DEADLINE.decl(),
];

/// Settings of what the API and other control services ask.
#[derive(Debug, Clone)]
pub struct VolumeOptions {
    /// Limits of projects that have none of their own.
    pub limits: VolumeLimits,
    /// The name of the type of volumes for which none is named.
    pub default_type: String,
    /// Pools and services that were not heard of for so long are away.
    pub down_time: Duration,
    /// An operation must be over then.
    pub deadline: Duration,
    /// How long a caller waits for a host to connect or disconnect a volume.
    pub patience: Duration,
    /// Items of a page at most.
    pub max_limit: usize,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        Self {
            limits: VolumeLimits::default(),
            default_type: DEFAULT_TYPE.to_owned(),
            down_time: Duration::from_secs(60),
            deadline: Duration::from_secs(3600),
            patience: Duration::from_secs(60),
            max_limit: 1000,
        }
    }
}

impl VolumeOptions {
    /// Reads what the configuration says. The registry must know [`VOLUME_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let number = |option| u64::try_from(config.get(option)).ok();
        let mut limits = VolumeLimits::default();
        for (resource, option) in [
            (VolumeResource::Volumes, &QUOTA_VOLUMES),
            (VolumeResource::Snapshots, &QUOTA_SNAPSHOTS),
            (VolumeResource::Gigabytes, &QUOTA_GIGABYTES),
            (VolumeResource::PerVolumeGigabytes, &PER_VOLUME_SIZE_LIMIT),
        ] {
            limits.0.insert(resource, number(option));
        }
        Self {
            limits,
            default_type: config.get(&DEFAULT_VOLUME_TYPE),
            down_time: config.get(&common::SERVICE_DOWN_TIME),
            deadline: config.get(&TASK_DEADLINE),
            max_limit: usize::try_from(config.get(&MAX_LIMIT)).unwrap_or(usize::MAX),
            ..Self::default()
        }
    }
}

/// Settings of a volume host's service. The registry must know [`VOLUME_OPTIONS`]. `owner` is unique to the process.
pub fn host_options(config: &Config, owner: String) -> HostOptions {
    HostOptions {
        host: config.get(&common::HOST).into(),
        backend: config.get(&BACKEND),
        pool: config.get(&POOL),
        zone: config.get(&STORAGE_ZONE).into(),
        owner,
        report_interval: config.get(&common::REPORT_INTERVAL),
        ..HostOptions::default()
    }
}
