//! What the compute API is configured by.

use std::time::Duration;

use crate::conductor::SHELVED_OFFLOAD_TIME;
use crate::console::{self, ConsoleUrls};
use jiff::SignedDuration;
use nova_core::ids::ZoneName;
use nova_core::options::{Config, Opt, OptionDecl, common};
use nova_core::quota::Limits;

/// Options of the compute API.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputeOptions {
    /// `api.max_limit`: items of a list at most.
    pub max_limit: usize,
    /// `quota.instances`, `quota.cores`, `quota.ram`.
    pub limits: Limits,
    /// `quota.key_pairs`; `None`: without limit.
    pub key_pairs: Option<u64>,
    /// `quota.metadata_items` per server; `None`: without limit.
    pub metadata_items: Option<u64>,
    /// `quota.injected_files` per server; shown until 2.56.
    pub injected_files: Option<u64>,
    /// `quota.injected_file_content_bytes`; shown until 2.56.
    pub injected_file_content_bytes: Option<u64>,
    /// `quota.injected_file_path_length`; shown until 2.56.
    pub injected_file_path_length: Option<u64>,
    /// `quota.server_groups`.
    pub server_groups: Option<u64>,
    /// `quota.server_group_members`.
    pub server_group_members: Option<u64>,
    /// `api.enable_instance_password`: answers to create carry `adminPass`.
    pub enable_instance_password: bool,
    /// `DEFAULT.password_length`: characters of a generated password.
    pub password_length: usize,
    /// `DEFAULT.default_schedule_zone`: for servers that ask for none.
    pub default_schedule_zone: Option<ZoneName>,
    /// `DEFAULT.default_availability_zone`: where hosts are that say nothing.
    pub default_availability_zone: ZoneName,
    /// `DEFAULT.internal_service_availability_zone`: where control services are.
    pub internal_service_availability_zone: ZoneName,
    /// `DEFAULT.service_down_time`: a service not heard of for longer is down.
    pub service_down_time: SignedDuration,
    /// How long a build may take before it fails.
    pub instance_build_timeout: Duration,
    /// How long any other operation may take before it fails.
    pub operation_timeout: Duration,
    /// `DEFAULT.shelved_offload_time` is 0: a shelved server leaves its host at once.
    pub offloads_at_once: bool,
    /// `DEFAULT.allow_resize_to_same_host`: a resize may end on the host that the server is on.
    pub allow_resize_to_same_host: bool,
    /// `DEFAULT.reclaim_instance_interval`: deleted servers can be restored for so long; zero: not at all.
    pub reclaim_instance_interval: Duration,
    /// `scheduler.max_attempts`: hosts tried for one build, the first included.
    pub max_attempts: usize,
    /// Servers that one request may ask for.
    pub max_servers_per_request: u32,
    /// `DEFAULT.max_local_block_devices`: disks on the host that a request may name; `None`: without limit.
    pub max_local_block_devices: Option<usize>,
    /// The hypervisor's name for a server (`DEFAULT.instance_name_template`).
    pub instance_name_template: String,
    /// Where consoles are.
    pub consoles: ConsoleUrls,
}

impl Default for ComputeOptions {
    fn default() -> Self {
        Self {
            max_limit: 1000,
            limits: Limits { instances: Some(10), cores: Some(20), ram: Some(51_200) },
            key_pairs: Some(100),
            metadata_items: Some(128),
            injected_files: Some(5),
            injected_file_content_bytes: Some(10_240),
            injected_file_path_length: Some(255),
            server_groups: Some(10),
            server_group_members: Some(10),
            enable_instance_password: true,
            password_length: 12,
            default_schedule_zone: None,
            default_availability_zone: ZoneName::new("nova"),
            internal_service_availability_zone: ZoneName::new("internal"),
            service_down_time: SignedDuration::from_secs(60),
            instance_build_timeout: Duration::from_secs(1800),
            operation_timeout: Duration::from_secs(900),
            reclaim_instance_interval: Duration::ZERO,
            offloads_at_once: true,
            allow_resize_to_same_host: false,
            max_attempts: 3,
            max_servers_per_request: 1000,
            max_local_block_devices: Some(3),
            instance_name_template: "instance-%08x".to_owned(),
            consoles: ConsoleUrls::default(),
        }
    }
}

const API: &[&str] = &["nova-api"];

/// `api.enable_instance_password`
pub const ENABLE_INSTANCE_PASSWORD: Opt<bool> = Opt::boolean("api", "enable_instance_password")
    .default("true")
    .reloads()
    .roles(API)
    .help("Whether answers to create requests carry the server's first administrator password.");
/// `DEFAULT.password_length`
pub const PASSWORD_LENGTH: Opt<i64> = Opt::integer("DEFAULT", "password_length", 1, 255)
    .default("12")
    .unit("characters")
    .reloads()
    .roles(API)
    .help("How long generated administrator passwords are.");
/// `DEFAULT.default_schedule_zone`
pub const DEFAULT_SCHEDULE_ZONE: Opt<Option<String>> = Opt::string("DEFAULT", "default_schedule_zone")
    .reloads()
    .roles(API)
    .help("The availability zone of servers that ask for none. Not set: any.")
    .optional();
/// `api.max_servers_per_request`
pub const MAX_SERVERS_PER_REQUEST: Opt<i64> = Opt::integer("api", "max_servers_per_request", 1, 10_000)
    .default("1000")
    .unit("servers")
    .reloads()
    .roles(API)
    .help("The largest max_count of a create request.");

/// `DEFAULT.max_local_block_devices`
pub const MAX_LOCAL_BLOCK_DEVICES: Opt<i64> = Opt::integer("DEFAULT", "max_local_block_devices", -1, 26)
    .default("3")
    .unit("disks")
    .reloads()
    .roles(API)
    .help("Disks on its host that a server may have, the root disk and those that a create request names; -1: without limit.");

/// `DEFAULT.reclaim_instance_interval`
pub const RECLAIM_INSTANCE_INTERVAL: Opt<Duration> = Opt::seconds("DEFAULT", "reclaim_instance_interval", 0, 31_536_000)
    .default("0")
    .reloads()
    .roles(&["nova-api", "nova-conductor"])
    .help("For how long a deleted server can be restored, after which it is deleted for good; 0: servers are deleted at once.");

/// `DEFAULT.allow_resize_to_same_host`
pub const ALLOW_RESIZE_TO_SAME_HOST: Opt<bool> = Opt::boolean("DEFAULT", "allow_resize_to_same_host")
    .default("false")
    .reloads()
    .roles(API)
    .help("Whether a resize may end on the host that the server is on. Servers with CPUs of their own always change hosts.");

/// Options that only the compute API has.
pub const COMPUTE_API_OPTIONS: &[OptionDecl] = &[
    ENABLE_INSTANCE_PASSWORD.decl(),
    PASSWORD_LENGTH.decl(),
    DEFAULT_SCHEDULE_ZONE.decl(),
    MAX_SERVERS_PER_REQUEST.decl(),
    MAX_LOCAL_BLOCK_DEVICES.decl(),
    RECLAIM_INSTANCE_INTERVAL.decl(),
    ALLOW_RESIZE_TO_SAME_HOST.decl(),
    console::TOKEN_TTL.decl(),
    console::VNC_ENABLED.decl(),
    console::NOVNCPROXY_BASE_URL.decl(),
    console::SERIAL_ENABLED.decl(),
    console::SERIAL_BASE_URL.decl(),
];

impl ComputeOptions {
    /// Reads what the configuration says. The registry must know [`COMPUTE_API_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let count = |option: &Opt<i64>| usize::try_from(config.get(option)).unwrap_or(usize::MAX);
        // Everything below zero is "without limit".
        let limit = |option: &Opt<i64>| u64::try_from(config.get(option)).ok();
        let deadline = config.get(&common::TASK_DEADLINE);
        let build = Some(config.get(&common::INSTANCE_BUILD_TIMEOUT)).filter(|timeout| !timeout.is_zero());
        Self {
            max_limit: count(&common::API_MAX_LIMIT),
            limits: Limits {
                instances: limit(&common::QUOTA_INSTANCES),
                cores: limit(&common::QUOTA_CORES),
                ram: limit(&common::QUOTA_RAM),
            },
            key_pairs: limit(&common::QUOTA_KEY_PAIRS),
            metadata_items: limit(&common::QUOTA_METADATA_ITEMS),
            injected_files: limit(&common::QUOTA_INJECTED_FILES),
            injected_file_content_bytes: limit(&common::QUOTA_INJECTED_FILE_CONTENT_BYTES),
            injected_file_path_length: limit(&common::QUOTA_INJECTED_FILE_PATH_LENGTH),
            server_groups: limit(&common::QUOTA_SERVER_GROUPS),
            server_group_members: limit(&common::QUOTA_SERVER_GROUP_MEMBERS),
            enable_instance_password: config.get(&ENABLE_INSTANCE_PASSWORD),
            password_length: count(&PASSWORD_LENGTH),
            default_schedule_zone: config.get(&DEFAULT_SCHEDULE_ZONE).map(ZoneName::new),
            default_availability_zone: ZoneName::new(config.get(&common::DEFAULT_AVAILABILITY_ZONE)),
            internal_service_availability_zone: ZoneName::new(config.get(&common::INTERNAL_SERVICE_AVAILABILITY_ZONE)),
            service_down_time: SignedDuration::try_from(config.get(&common::SERVICE_DOWN_TIME))
                .unwrap_or(SignedDuration::MAX),
            instance_build_timeout: build.unwrap_or(deadline).min(deadline),
            operation_timeout: deadline,
            reclaim_instance_interval: config.get(&RECLAIM_INSTANCE_INTERVAL),
            offloads_at_once: config.get(&SHELVED_OFFLOAD_TIME) == 0,
            allow_resize_to_same_host: config.get(&ALLOW_RESIZE_TO_SAME_HOST),
            max_attempts: count(&common::SCHEDULER_MAX_ATTEMPTS),
            max_servers_per_request: u32::try_from(config.get(&MAX_SERVERS_PER_REQUEST)).unwrap_or(u32::MAX),
            max_local_block_devices: usize::try_from(config.get(&MAX_LOCAL_BLOCK_DEVICES)).ok(),
            instance_name_template: config.get(&common::INSTANCE_NAME_TEMPLATE),
            consoles: ConsoleUrls::from_config(config),
        }
    }
}
