//! What an operator may set about a host.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use nova_core::flavor::Resources;
use nova_core::ids::{HostName, ZoneName};
use nova_core::options::{Address, Config, Opt, OptionDecl, common, hosts};

use crate::console::SerialTls;
use crate::image_client::GLANCE_ENDPOINT_OVERRIDE;
use crate::stats::Monitors;

/// `DEFAULT.max_concurrent_snapshots`
pub const MAX_CONCURRENT_SNAPSHOTS: Opt<i64> = Opt::integer("DEFAULT", "max_concurrent_snapshots", 0, 10_000)
    .default("5")
    .unit("snapshots")
    .roles(&["nova-compute"])
    .help("How many images of servers a host makes at once; 0: as many as are asked for.");

/// `DEFAULT.resume_guests_state_on_host_boot`
pub const RESUME_GUESTS_STATE_ON_HOST_BOOT: Opt<bool> = Opt::boolean("DEFAULT", "resume_guests_state_on_host_boot")
    .default("false")
    .roles(&["nova-compute"])
    .help("Whether guests that ran when their host went down are started with it; otherwise their servers are SHUTOFF then.");

/// `migration.listen`
pub const MIGRATION_LISTEN: Opt<Address> = Opt::address("migration", "listen")
    .default("127.0.0.1:0")
    .roles(&["nova-compute"])
    .help(
        "Where a host serves the disks of servers that leave it to the hosts that they go to. It must be an address that \
         other hosts reach, on a private network; port 0: any that is free.",
    );

/// `vnc.server_proxyclient_address`
pub const VNC_SERVER_PROXYCLIENT_ADDRESS: Opt<Option<String>> = Opt::string("vnc", "server_proxyclient_address")
    .roles(&["nova-compute"])
    .help(
        "The address at which proxies of consoles reach the screens of this host's guests. Not set: vnc.server_listen.",
    )
    .optional();

/// `spice.server_proxyclient_address`
pub const SPICE_SERVER_PROXYCLIENT_ADDRESS: Opt<Option<String>> = Opt::string("spice", "server_proxyclient_address")
    .roles(&["nova-compute"])
    .help("The address at which proxies of consoles reach screens over SPICE. Not set: spice.server_listen.")
    .optional();

/// `serial_console.listen`
pub const SERIAL_LISTEN: Opt<Address> = Opt::address("serial_console", "listen")
    .default("127.0.0.1:0")
    .roles(&["nova-compute"])
    .help(
        "Where a host serves the serial ports of its guests to proxies of consoles, who come with tickets. It must be an \
         address that proxies reach, on a private network; port 0: any that is free.",
    );
/// `serial_console.proxyclient_address`
pub const SERIAL_PROXYCLIENT_ADDRESS: Opt<Option<String>> = Opt::string("serial_console", "proxyclient_address")
    .roles(&["nova-compute"])
    .help("The address at which proxies of consoles reach serial_console.listen. Not set: the same.")
    .optional();
/// `serial_console.tls_cert`
pub const SERIAL_TLS_CERT: Opt<Option<PathBuf>> = Opt::path("serial_console", "tls_cert")
    .roles(&["nova-compute"])
    .help(
        "The host's certificate for serial_console.listen, PEM, which names the address at which proxies reach it; \
         serial_console.tls_key is its key. Set: proxies must come by TLS, and need serial_console.ca_certs.",
    )
    .optional();
/// `serial_console.tls_key`
pub const SERIAL_TLS_KEY: Opt<Option<PathBuf>> = Opt::path("serial_console", "tls_key")
    .roles(&["nova-compute"])
    .help("The key of serial_console.tls_cert, PEM. Not set: it is in the same file.")
    .optional();
/// `serial_console.tls_client_ca`
pub const SERIAL_TLS_CLIENT_CA: Opt<Option<PathBuf>> = Opt::path("serial_console", "tls_client_ca")
    .roles(&["nova-compute"])
    .help("The authorities that sign proxies' certificates, PEM. Set: proxies must show one (serial_console.client_cert).")
    .optional();

/// `compute.hypervisor_timeout`
pub const HYPERVISOR_TIMEOUT: Opt<Duration> = Opt::seconds("compute", "hypervisor_timeout", 1, 3600)
    .default("30")
    .roles(&["nova-compute"])
    .help(
        "How long the hypervisor of a host may fail or be silent before the host has itself taken out of scheduling. It is \
         put back when the hypervisor answers.",
    );

/// Options that only host agents have.
pub const COMPUTE_OPTIONS: &[OptionDecl] = &[
    GLANCE_ENDPOINT_OVERRIDE.decl(),
    MAX_CONCURRENT_SNAPSHOTS.decl(),
    RESUME_GUESTS_STATE_ON_HOST_BOOT.decl(),
    MIGRATION_LISTEN.decl(),
    VNC_SERVER_PROXYCLIENT_ADDRESS.decl(),
    SPICE_SERVER_PROXYCLIENT_ADDRESS.decl(),
    SERIAL_LISTEN.decl(),
    SERIAL_PROXYCLIENT_ADDRESS.decl(),
    FORCE_RAW_IMAGES.decl(),
    SERIAL_TLS_CERT.decl(),
    SERIAL_TLS_KEY.decl(),
    SERIAL_TLS_CLIENT_CA.decl(),
    HYPERVISOR_TIMEOUT.decl(),
    IMAGE_CACHE_MANAGER_INTERVAL.decl(),
    REMOVE_UNUSED_BASE_IMAGES.decl(),
    REMOVE_UNUSED_ORIGINAL_MINIMUM_AGE.decl(),
];

const COMPUTE: &[&str] = &["nova-compute"];

/// `DEFAULT.force_raw_images`
pub const FORCE_RAW_IMAGES: Opt<bool> = Opt::boolean("DEFAULT", "force_raw_images").default("true").roles(COMPUTE).help(
    "Whether qcow2 images are kept as raw ones on this host: they take more of its disk, are read faster, and can't grow      without it being seen. False: they are used as they are.",
);
/// `image_cache.manager_interval`
pub const IMAGE_CACHE_MANAGER_INTERVAL: Opt<Duration> = Opt::seconds("image_cache", "manager_interval", 0, 1 << 31)
    .default("2400")
    .roles(COMPUTE)
    .help("How often a host looks which of its images no guest needs any more. 0: never.");
/// `image_cache.remove_unused_base_images`
pub const REMOVE_UNUSED_BASE_IMAGES: Opt<bool> = Opt::boolean("image_cache", "remove_unused_base_images")
    .default("true")
    .roles(COMPUTE)
    .help("Whether images that no guest needs any more are removed.");
/// `image_cache.remove_unused_original_minimum_age_seconds`
pub const REMOVE_UNUSED_ORIGINAL_MINIMUM_AGE: Opt<Duration> =
    Opt::seconds("image_cache", "remove_unused_original_minimum_age_seconds", 3600, 1 << 31)
        .default("86400")
        .roles(COMPUTE)
        .help("How long nothing must have needed an image before it is removed; at least longer than any build takes.");

/// The host agent's settings.
#[derive(Debug, Clone)]
pub struct ComputeOptions {
    /// The host's name (`DEFAULT.host`).
    pub host: HostName,
    /// Its zone.
    pub zone: ZoneName,
    /// Where images are cached.
    pub image_cache: PathBuf,
    /// qcow2 images are kept as raw ones, where the driver can convert them (`force_raw_images`).
    pub force_raw_images: bool,
    /// How often unused images are looked for; `None`: never, and none is removed.
    pub image_cache_interval: Option<Duration>,
    /// How long an image must have been unused (`image_cache.remove_unused_original_minimum_age_seconds`).
    pub image_cache_age: Duration,
    /// How often it says that it lives (`report_interval`).
    pub report_interval: Duration,
    /// How long the hypervisor may fail or be silent (`compute.hypervisor_timeout`).
    pub hypervisor_timeout: Duration,
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
    /// Copies of guests' disks that are made at once (`max_concurrent_snapshots`).
    pub max_concurrent_snapshots: usize,
    /// Start what ran when the machine went down (`resume_guests_state_on_host_boot`).
    pub resume_guests_state_on_host_boot: bool,
    /// Where such a copy is until the image service has it; this host's alone.
    pub snapshots: PathBuf,
    /// Where disks are served that go to other hosts (`migration.listen`).
    pub migration_listen: Address,
    /// What the operator says that the host can do (`compute.traits`).
    pub traits: BTreeSet<String>,
    /// CPUs that guests share (`compute.cpu_shared_set`).
    pub cpu_shared_set: Option<BTreeSet<u32>>,
    /// CPUs for guests of their own (`compute.cpu_dedicated_set`).
    pub cpu_dedicated_set: Option<BTreeSet<u32>>,
    /// Failed builds in a row that take the host out (`compute.consecutive_build_service_disable_threshold`).
    pub build_failure_threshold: u32,
    /// The address at which proxies reach screens (`vnc.server_proxyclient_address`); `None`: where the hypervisor says that it listens.
    pub vnc_proxyclient_address: Option<String>,
    /// The same for screens over SPICE (`spice.server_proxyclient_address`).
    pub spice_proxyclient_address: Option<String>,
    /// Where the host serves serial ports to proxies (`serial_console.listen`).
    pub serial_listen: Address,
    /// The address at which proxies reach that (`serial_console.proxyclient_address`); `None`: the same.
    pub serial_proxyclient_address: Option<String>,
    /// The certificate with which serial ports are served (`serial_console.tls_cert`); `None`: without TLS.
    pub serial_tls: Option<SerialTls>,
    /// What is measured of the machine (`compute_monitors`), every [`Self::reconcile_interval`].
    pub monitors: Monitors,
}

impl ComputeOptions {
    /// Nova's defaults for a host of that name.
    pub fn new(host: impl Into<HostName>, image_cache: impl Into<PathBuf>) -> Self {
        let (host, image_cache) = (host.into(), image_cache.into());
        Self {
            snapshots: image_cache.with_file_name("snapshots").join(host.as_str()),
            host,
            zone: ZoneName::new("nova"),
            image_cache,
            force_raw_images: true,
            image_cache_interval: Some(Duration::from_secs(2400)),
            image_cache_age: Duration::from_secs(86_400),
            report_interval: Duration::from_secs(10),
            hypervisor_timeout: Duration::from_secs(30),
            reconcile_interval: Duration::from_secs(60),
            power_sync_interval: Duration::from_secs(600),
            reserved: Resources { vcpus: 0, memory_mb: 512, disk_gb: 0 },
            cpu_ratio: 4.0,
            ram_ratio: 1.0,
            disk_ratio: 1.0,
            max_concurrent_builds: 10,
            max_concurrent_snapshots: 5,
            resume_guests_state_on_host_boot: false,
            migration_listen: Address { host: "127.0.0.1".to_owned(), port: 0 },
            traits: BTreeSet::new(),
            cpu_shared_set: None,
            cpu_dedicated_set: None,
            build_failure_threshold: 10,
            vnc_proxyclient_address: None,
            spice_proxyclient_address: None,
            serial_listen: Address { host: "127.0.0.1".to_owned(), port: 0 },
            serial_proxyclient_address: None,
            serial_tls: None,
            monitors: Monitors::default(),
        }
    }

    /// What the configuration says about that host. The registry must know [`COMPUTE_OPTIONS`] and [`hosts::OPTIONS`].
    pub fn from_config(config: &Config, host: HostName, image_cache: PathBuf) -> Self {
        let amount = |option| u64::try_from(config.get(option)).unwrap_or(0);
        let defaults = Self::new(host, image_cache);
        let builds = usize::try_from(config.get(&common::MAX_CONCURRENT_BUILDS)).unwrap_or(0);
        let snapshots = usize::try_from(config.get(&MAX_CONCURRENT_SNAPSHOTS)).unwrap_or(0);
        let power = config.get(&common::SYNC_POWER_STATE_INTERVAL);
        let images = config.get(&IMAGE_CACHE_MANAGER_INTERVAL);
        let images = Some(images).filter(|every| !every.is_zero() && config.get(&REMOVE_UNUSED_BASE_IMAGES));
        Self {
            zone: ZoneName::new(config.get(&common::DEFAULT_AVAILABILITY_ZONE)),
            force_raw_images: config.get(&FORCE_RAW_IMAGES),
            image_cache_interval: images,
            image_cache_age: config.get(&REMOVE_UNUSED_ORIGINAL_MINIMUM_AGE),
            report_interval: config.get(&common::REPORT_INTERVAL),
            hypervisor_timeout: config.get(&HYPERVISOR_TIMEOUT),
            power_sync_interval: if power.is_zero() { Duration::MAX } else { power },
            reserved: Resources {
                vcpus: amount(&common::RESERVED_HOST_CPUS),
                memory_mb: amount(&common::RESERVED_HOST_MEMORY_MB),
                disk_gb: amount(&common::RESERVED_HOST_DISK_MB).div_ceil(1024),
            },
            cpu_ratio: config.get(&common::INITIAL_CPU_ALLOCATION_RATIO),
            ram_ratio: config.get(&common::INITIAL_RAM_ALLOCATION_RATIO),
            disk_ratio: config.get(&common::INITIAL_DISK_ALLOCATION_RATIO),
            migration_listen: config.get(&MIGRATION_LISTEN),
            traits: config.get(&hosts::COMPUTE_TRAITS).into_iter().collect(),
            cpu_shared_set: hosts::cpu_set(config, &hosts::CPU_SHARED_SET),
            cpu_dedicated_set: hosts::cpu_set(config, &hosts::CPU_DEDICATED_SET),
            build_failure_threshold: u32::try_from(config.get(&hosts::BUILD_FAILURE_THRESHOLD)).unwrap_or(0),
            monitors: Monitors::named(&config.get(&hosts::COMPUTE_MONITORS)),
            vnc_proxyclient_address: config.get(&VNC_SERVER_PROXYCLIENT_ADDRESS),
            spice_proxyclient_address: config.get(&SPICE_SERVER_PROXYCLIENT_ADDRESS),
            serial_listen: config.get(&SERIAL_LISTEN),
            serial_proxyclient_address: config.get(&SERIAL_PROXYCLIENT_ADDRESS),
            serial_tls: config.get(&SERIAL_TLS_CERT).map(|certificate| SerialTls {
                key: config.get(&SERIAL_TLS_KEY).unwrap_or_else(|| certificate.clone()),
                client_authorities: config.get(&SERIAL_TLS_CLIENT_CA),
                certificate,
            }),
            max_concurrent_builds: if builds == 0 { 10_000 } else { builds },
            resume_guests_state_on_host_boot: config.get(&RESUME_GUESTS_STATE_ON_HOST_BOOT),
            max_concurrent_snapshots: if snapshots == 0 { 10_000 } else { snapshots },
            ..defaults
        }
    }
}
