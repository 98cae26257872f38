//! The options that every deployment knows: Nova's own where Nova has them, kept under sixty.
//!
//! Every binary knows all of them, so that one file serves all services.

use std::path::PathBuf;
use std::time::Duration;

use super::{Address, Config, Opt, OptionDecl, Registry};

const API: &[&str] = &["nova-api"];
const COMPUTE: &[&str] = &["nova-compute"];
const CONDUCTOR: &[&str] = &["nova-conductor"];
const CONTROL: &[&str] = &["nova-api", "nova-scheduler", "nova-conductor"];

// ---- where things are ------------------------------------------------------------------------------------------------

/// `DEFAULT.state_path`
pub const STATE_PATH: Opt<PathBuf> = Opt::path("DEFAULT", "state_path")
    .default("~/.local/share/nova")
    .help("Folder of everything that a service keeps on disk: database, images, disks of guests, keys.");
/// `DEFAULT.host`
pub const HOST: Opt<String> = Opt::string("DEFAULT", "host")
    .default("localhost")
    .computed("the machine's host name")
    .help("Name of this host in the cloud. Must be unique, and must not change while servers are on it.");
/// `DEFAULT.transport_url`
pub const TRANSPORT_URL: Opt<String> =
    Opt::url("DEFAULT", "transport_url", &["memory", "rabbit", "amqp", "amqps"]).default("memory:").secret().help(
        "The message queue: 'memory:' for all services in one process, or rabbit://user:password@host:5672/vhost \
         (amqp and amqps, with TLS, are understood too).",
    );
/// `database.connection`
pub const DATABASE_CONNECTION: Opt<String> =
    Opt::url("database", "connection", &["sqlite", "postgresql", "mysql", "memory"])
        .default("sqlite:$state_path/nova.db")
        .secret()
        .roles(CONTROL)
        .help(
            "The database: sqlite:FILE, postgresql://user:password@host/name, mysql://user:password@host/name, or \
             'memory:', which forgets everything at the end of the process.",
        );
/// `queue.management_url`
pub const QUEUE_MANAGEMENT_URL: Opt<Option<String>> = Opt::url("queue", "management_url", &["http", "https"])
    .secret()
    .roles(CONTROL)
    .help("RabbitMQ's management interface, with user and password, for creating accounts of compute hosts.")
    .optional();

// ---- the API ---------------------------------------------------------------------------------------------------------

/// `DEFAULT.enabled_apis`
pub const ENABLED_APIS: Opt<Vec<String>> =
    Opt::list("DEFAULT", "enabled_apis").default("identity, osapi_compute, image, network, volume").roles(API).help(
        "The applications to serve: NAME at api.listen, or NAME@host:port at an address of its own. The catalog lists \
         only these.",
    );
/// `api.listen`
pub const API_LISTEN: Opt<Address> = Opt::address("api", "listen")
    .default("127.0.0.1:8774")
    .roles(API)
    .help("Address of the one listener that serves all APIs by path.");
/// `api.public_url`
pub const API_PUBLIC_URL: Opt<Option<String>> = Opt::url("api", "public_url", &["http", "https"])
    .roles(API)
    .help("How clients reach api.listen, without a path; stands in the catalog. Not set: http:// and that address.")
    .optional();
/// `api.max_limit`
pub const API_MAX_LIMIT: Opt<i64> = Opt::integer("api", "max_limit", 1, 100_000)
    .default("1000")
    .unit("items")
    .reloads()
    .roles(API)
    .help("The longest page of a list. A longer 'limit' of a request is cut to it.");
/// `[pipeline:NAME] pipeline`
pub const PIPELINE: Opt<Vec<String>> = Opt::words("pipeline:*", "pipeline")
    .roles(API)
    .help("The filters of the pipeline of that name, in order, and at the end its application.");
/// `oslo_middleware.max_request_body_size`
pub const MAX_REQUEST_BODY_SIZE: Opt<i64> = Opt::integer("oslo_middleware", "max_request_body_size", 1024, 1 << 30)
    .default("114688")
    .unit("bytes")
    .roles(API)
    .help("The longest body of a request; a longer one is answered with 413. Image uploads are not bound by it.");
/// `health.listen`
pub const HEALTH_LISTEN: Opt<Option<Address>> = Opt::address("health", "listen")
    .help("Where a service without an API answers /healthz and /metrics. Not set: nowhere.")
    .optional();

// ---- identity and images ---------------------------------------------------------------------------------------------

/// `token.expiration`
pub const TOKEN_EXPIRATION: Opt<Duration> = Opt::seconds("token", "expiration", 60, 31_536_000)
    .default("3600")
    .reloads()
    .roles(API)
    .help("How long a token is good. A change holds for tokens issued later.");
/// `identity.argon2_memory_kib`
pub const ARGON2_MEMORY_KIB: Opt<i64> = Opt::integer("identity", "argon2_memory_kib", 8, 4_194_304)
    .default("19456")
    .unit("KiB")
    .roles(API)
    .help("Memory that hashing one password takes. Stored passwords keep the cost that they were hashed with.");
/// `identity.argon2_iterations`
pub const ARGON2_ITERATIONS: Opt<i64> = Opt::integer("identity", "argon2_iterations", 1, 100)
    .default("2")
    .unit("passes")
    .roles(API)
    .help("Passes over that memory.");
/// `image.image_size_cap`
pub const IMAGE_SIZE_CAP: Opt<i64> = Opt::integer("image", "image_size_cap", 1, i64::MAX)
    .default("1099511627776")
    .unit("bytes")
    .reloads()
    .roles(API)
    .help("The largest image that may be uploaded; more is refused while it arrives.");

// ---- quota -----------------------------------------------------------------------------------------------------------

const fn quota(name: &'static str, default: &'static str, help: &'static str) -> Opt<i64> {
    Opt::integer("quota", name, -1, i64::MAX).default(default).reloads().roles(API).help(help)
}

/// `quota.instances`
pub const QUOTA_INSTANCES: Opt<i64> = quota("instances", "10", "Servers that a project may have; -1 is any number.");
/// `quota.cores`
pub const QUOTA_CORES: Opt<i64> =
    quota("cores", "20", "Virtual CPUs that the servers of a project may have together; -1 is any number.");
/// `quota.ram`
pub const QUOTA_RAM: Opt<i64> =
    quota("ram", "51200", "Memory that the servers of a project may have together; -1 is any amount.").unit("MiB");
/// `quota.key_pairs`
pub const QUOTA_KEY_PAIRS: Opt<i64> = quota("key_pairs", "100", "Key pairs that a user may have; -1 is any number.");
/// `quota.metadata_items`
pub const QUOTA_METADATA_ITEMS: Opt<i64> =
    quota("metadata_items", "128", "Metadata items that a server may have; -1 is any number.");
/// `quota.injected_files`
pub const QUOTA_INJECTED_FILES: Opt<i64> =
    quota("injected_files", "5", "Files that a create request may carry (up to 2.56); -1 is any number.");
/// `quota.injected_file_content_bytes`
pub const QUOTA_INJECTED_FILE_CONTENT_BYTES: Opt<i64> =
    quota("injected_file_content_bytes", "10240", "Size of such a file; -1 is any size.").unit("bytes");
/// `quota.injected_file_path_length`
pub const QUOTA_INJECTED_FILE_PATH_LENGTH: Opt<i64> =
    quota("injected_file_path_length", "255", "Length of the path of such a file; -1 is any length.")
        .unit("characters");
/// `quota.server_groups`
pub const QUOTA_SERVER_GROUPS: Opt<i64> =
    quota("server_groups", "10", "Server groups that a project may have; -1 is any number.");
/// `quota.server_group_members`
pub const QUOTA_SERVER_GROUP_MEMBERS: Opt<i64> =
    quota("server_group_members", "10", "Servers that a server group may hold; -1 is any number.");

// ---- services, heartbeats and zones ----------------------------------------------------------------------------------

/// `DEFAULT.report_interval`
pub const REPORT_INTERVAL: Opt<Duration> =
    Opt::seconds("DEFAULT", "report_interval", 1, 3600).default("10").help("How often a service says that it lives.");
/// `DEFAULT.service_down_time`
pub const SERVICE_DOWN_TIME: Opt<Duration> = Opt::seconds("DEFAULT", "service_down_time", 2, 86_400)
    .default("60")
    .help("How long a service may be silent before it counts as down. Must be longer than report_interval.");
/// `DEFAULT.default_availability_zone`
pub const DEFAULT_AVAILABILITY_ZONE: Opt<String> = Opt::string("DEFAULT", "default_availability_zone")
    .default("nova")
    .roles(CONTROL)
    .help("The zone of compute hosts that no aggregate puts into another.");
/// `DEFAULT.internal_service_availability_zone`
pub const INTERNAL_SERVICE_AVAILABILITY_ZONE: Opt<String> =
    Opt::string("DEFAULT", "internal_service_availability_zone")
        .default("internal")
        .roles(API)
        .help("The zone in which services other than nova-compute are shown.");
/// `DEFAULT.graceful_shutdown_timeout`
pub const GRACEFUL_SHUTDOWN_TIMEOUT: Opt<Duration> = Opt::seconds("DEFAULT", "graceful_shutdown_timeout", 0, 3600)
    .default("60")
    .help("How long a service may finish what is in hand after SIGTERM.");
/// `DEFAULT.debug`
pub const DEBUG: Opt<bool> = Opt::boolean("DEFAULT", "debug").reloads().help("Log details of every step.");
/// `DEFAULT.default_log_levels`
pub const DEFAULT_LOG_LEVELS: Opt<Vec<String>> = Opt::list("DEFAULT", "default_log_levels")
    .default("sqlx=WARN, lapin=WARN, hyper=WARN")
    .reloads()
    .help("Log levels of single parts, as part=LEVEL (ERROR, WARN, INFO, DEBUG, TRACE).");

// ---- scheduling and tasks --------------------------------------------------------------------------------------------

/// `scheduler.driver`
pub const SCHEDULER_DRIVER: Opt<String> = Opt::choice(
    "scheduler",
    "driver",
    &["random", "availability_zone", "least_load", "filter"],
)
.default("least_load")
.roles(&["nova-scheduler"])
.help(
    "How a host is picked: at random over all zones, at random inside the zone asked for, the one with the least load, or \
     the best by Nova's filters and weighers (filter_scheduler.enabled_filters).",
);
/// `scheduler.max_attempts`
pub const SCHEDULER_MAX_ATTEMPTS: Opt<i64> = Opt::integer("scheduler", "max_attempts", 1, 100)
    .default("3")
    .unit("hosts")
    .reloads()
    .roles(CONDUCTOR)
    .help("On how many hosts a build is tried before the server goes to ERROR.");
/// `conductor.task_lease`
pub const TASK_LEASE: Opt<Duration> = Opt::seconds("conductor", "task_lease", 1, 3600)
    .default("30")
    .roles(CONDUCTOR)
    .help("How long an order to a host is waited for before it is given again, and after how long another conductor takes over \
         the tasks of one that died.");
/// `conductor.task_deadline`
pub const TASK_DEADLINE: Opt<Duration> = Opt::seconds("conductor", "task_deadline", 10, 604_800)
    .default("3600")
    .reloads()
    .roles(CONDUCTOR)
    .help("How long an accepted request may take in all; then it is undone and ends as a failure. Longer than task_lease.");
/// `DEFAULT.instance_build_timeout`
pub const INSTANCE_BUILD_TIMEOUT: Opt<Duration> = Opt::seconds("DEFAULT", "instance_build_timeout", 0, 604_800)
    .default("600")
    .reloads()
    .roles(CONDUCTOR)
    .help("How long a server may be in BUILD before it goes to ERROR; 0 leaves that to conductor.task_deadline.");

// ---- compute hosts ---------------------------------------------------------------------------------------------------

/// `DEFAULT.compute_driver`
pub const COMPUTE_DRIVER: Opt<String> = Opt::choice("DEFAULT", "compute_driver", &["fake", "libvirt"])
    .default("fake")
    .roles(COMPUTE)
    .help("What runs the guests: libvirt, or fake, which only pretends.");
/// `DEFAULT.reserved_host_memory_mb`
pub const RESERVED_HOST_MEMORY_MB: Opt<i64> = Opt::integer("DEFAULT", "reserved_host_memory_mb", 0, 1 << 40)
    .default("512")
    .unit("MiB")
    .roles(COMPUTE)
    .help("Memory of the host that guests never get.");
/// `DEFAULT.reserved_host_disk_mb`
pub const RESERVED_HOST_DISK_MB: Opt<i64> = Opt::integer("DEFAULT", "reserved_host_disk_mb", 0, 1 << 40)
    .default("0")
    .unit("MiB")
    .roles(COMPUTE)
    .help("Disk of the host that guests never get.");
/// `DEFAULT.reserved_host_cpus`
pub const RESERVED_HOST_CPUS: Opt<i64> = Opt::integer("DEFAULT", "reserved_host_cpus", 0, 1 << 20)
    .default("0")
    .unit("CPUs")
    .roles(COMPUTE)
    .help("CPUs of the host that guests never get.");
/// `DEFAULT.initial_cpu_allocation_ratio`
pub const INITIAL_CPU_ALLOCATION_RATIO: Opt<f64> = ratio("initial_cpu_allocation_ratio", "4", "Virtual CPUs per CPU");
/// `DEFAULT.initial_ram_allocation_ratio`
pub const INITIAL_RAM_ALLOCATION_RATIO: Opt<f64> =
    ratio("initial_ram_allocation_ratio", "1", "Guest memory per memory");
/// `DEFAULT.initial_disk_allocation_ratio`
pub const INITIAL_DISK_ALLOCATION_RATIO: Opt<f64> = ratio("initial_disk_allocation_ratio", "1", "Guest disk per disk");

const fn ratio(name: &'static str, default: &'static str, help: &'static str) -> Opt<f64> {
    Opt::float("DEFAULT", name, 0.01, 1000.0).default(default).unit("times what the host has").roles(COMPUTE).help(help)
}

/// `DEFAULT.max_concurrent_builds`
pub const MAX_CONCURRENT_BUILDS: Opt<i64> = Opt::integer("DEFAULT", "max_concurrent_builds", 0, 10_000)
    .default("10")
    .unit("builds")
    .roles(COMPUTE)
    .help("How many servers a host builds at once; more wait. 0 is any number.");
/// `DEFAULT.sync_power_state_interval`
pub const SYNC_POWER_STATE_INTERVAL: Opt<Duration> =
    Opt::seconds("DEFAULT", "sync_power_state_interval", 0, 86_400).default("600").roles(COMPUTE).help(
        "How often a host compares all its guests with the records; 0 never does. Events of the hypervisor are faster.",
    );
/// `DEFAULT.shutdown_timeout`
pub const SHUTDOWN_TIMEOUT: Opt<Duration> = Opt::seconds("DEFAULT", "shutdown_timeout", 0, 86_400)
    .default("60")
    .reloads()
    .roles(COMPUTE)
    .help("How long a guest may take to shut itself down before its power is cut.");
/// `DEFAULT.instance_name_template`
pub const INSTANCE_NAME_TEMPLATE: Opt<String> = Opt::string("DEFAULT", "instance_name_template")
    .default("instance-%08x")
    .help("Name of a guest at the hypervisor: %08x or %d is the server's number, %(uuid)s its id.");
/// `libvirt.virt_type`
pub const LIBVIRT_VIRT_TYPE: Opt<String> = Opt::choice("libvirt", "virt_type", &["kvm", "qemu"])
    .default("kvm")
    .roles(COMPUTE)
    .help("kvm needs CPU support for virtualization; qemu runs anywhere, slowly.");
/// `libvirt.connection_uri`
pub const LIBVIRT_CONNECTION_URI: Opt<Option<String>> = Opt::url("libvirt", "connection_uri", &[])
    .roles(COMPUTE)
    .help("The libvirt to use. Not set: qemu:///system.")
    .optional();
/// `libvirt.cpu_mode`
pub const LIBVIRT_CPU_MODE: Opt<Option<String>> =
    Opt::choice("libvirt", "cpu_mode", &["host-model", "host-passthrough", "custom", "none"])
        .roles(COMPUTE)
        .help("Which CPU a guest sees. Not set: host-model with kvm, none with qemu. 'custom' takes cpu_models.")
        .optional();
/// `libvirt.cpu_models`
pub const LIBVIRT_CPU_MODELS: Opt<Vec<String>> = Opt::list("libvirt", "cpu_models")
    .roles(COMPUTE)
    .help("Named CPU models, the most common denominator first. Needs cpu_mode = custom.");
/// `libvirt.tb_cache_size`
pub const LIBVIRT_TB_CACHE_SIZE: Opt<i64> =
    Opt::integer("libvirt", "tb_cache_size", 0, 32_768).default("128").unit("MiB").roles(COMPUTE).help(
        "Translation cache of each qemu guest, which counts against the host's memory; 0 leaves it to QEMU (1 GiB).",
    );
/// `fake.hosts`
pub const FAKE_HOSTS: Opt<i64> = Opt::integer("fake", "hosts", 1, 100_000)
    .default("1")
    .unit("hosts")
    .roles(COMPUTE)
    .help("How many fake compute hosts one process runs, each with its own name, key, queue and connection.");
/// `fake.vcpus`
pub const FAKE_VCPUS: Opt<i64> =
    Opt::integer("fake", "vcpus", 1, 1 << 20).default("64").unit("CPUs").roles(COMPUTE).help("CPUs of a fake host.");
/// `fake.memory_mb`
pub const FAKE_MEMORY_MB: Opt<i64> = Opt::integer("fake", "memory_mb", 1, 1 << 40)
    .default("262144")
    .unit("MiB")
    .roles(COMPUTE)
    .help("Memory of a fake host.");
/// `fake.disk_gb`
pub const FAKE_DISK_GB: Opt<i64> =
    Opt::integer("fake", "disk_gb", 1, 1 << 40).default("4096").unit("GiB").roles(COMPUTE).help("Disk of a fake host.");
/// `fake.boot_latency_ms`
pub const FAKE_BOOT_LATENCY_MS: Opt<i64> = Opt::integer("fake", "boot_latency_ms", 0, 3_600_000)
    .default("0")
    .unit("milliseconds")
    .roles(COMPUTE)
    .help("How long a fake host takes to start a guest.");

/// Every option of this module.
pub const OPTIONS: &[OptionDecl] = &[
    STATE_PATH.decl(),
    HOST.decl(),
    TRANSPORT_URL.decl(),
    DATABASE_CONNECTION.decl(),
    QUEUE_MANAGEMENT_URL.decl(),
    ENABLED_APIS.decl(),
    API_LISTEN.decl(),
    API_PUBLIC_URL.decl(),
    API_MAX_LIMIT.decl(),
    PIPELINE.decl(),
    MAX_REQUEST_BODY_SIZE.decl(),
    HEALTH_LISTEN.decl(),
    TOKEN_EXPIRATION.decl(),
    ARGON2_MEMORY_KIB.decl(),
    ARGON2_ITERATIONS.decl(),
    IMAGE_SIZE_CAP.decl(),
    QUOTA_INSTANCES.decl(),
    QUOTA_CORES.decl(),
    QUOTA_RAM.decl(),
    QUOTA_KEY_PAIRS.decl(),
    QUOTA_METADATA_ITEMS.decl(),
    QUOTA_INJECTED_FILES.decl(),
    QUOTA_INJECTED_FILE_CONTENT_BYTES.decl(),
    QUOTA_INJECTED_FILE_PATH_LENGTH.decl(),
    QUOTA_SERVER_GROUPS.decl(),
    QUOTA_SERVER_GROUP_MEMBERS.decl(),
    REPORT_INTERVAL.decl(),
    SERVICE_DOWN_TIME.decl(),
    DEFAULT_AVAILABILITY_ZONE.decl(),
    INTERNAL_SERVICE_AVAILABILITY_ZONE.decl(),
    GRACEFUL_SHUTDOWN_TIMEOUT.decl(),
    DEBUG.decl(),
    DEFAULT_LOG_LEVELS.decl(),
    SCHEDULER_DRIVER.decl(),
    SCHEDULER_MAX_ATTEMPTS.decl(),
    TASK_LEASE.decl(),
    TASK_DEADLINE.decl(),
    INSTANCE_BUILD_TIMEOUT.decl(),
    COMPUTE_DRIVER.decl(),
    RESERVED_HOST_MEMORY_MB.decl(),
    RESERVED_HOST_DISK_MB.decl(),
    RESERVED_HOST_CPUS.decl(),
    INITIAL_CPU_ALLOCATION_RATIO.decl(),
    INITIAL_RAM_ALLOCATION_RATIO.decl(),
    INITIAL_DISK_ALLOCATION_RATIO.decl(),
    MAX_CONCURRENT_BUILDS.decl(),
    SYNC_POWER_STATE_INTERVAL.decl(),
    SHUTDOWN_TIMEOUT.decl(),
    INSTANCE_NAME_TEMPLATE.decl(),
    LIBVIRT_VIRT_TYPE.decl(),
    LIBVIRT_CONNECTION_URI.decl(),
    LIBVIRT_CPU_MODE.decl(),
    LIBVIRT_CPU_MODELS.decl(),
    LIBVIRT_TB_CACHE_SIZE.decl(),
    FAKE_HOSTS.decl(),
    FAKE_VCPUS.decl(),
    FAKE_MEMORY_MB.decl(),
    FAKE_DISK_GB.decl(),
    FAKE_BOOT_LATENCY_MS.decl(),
];

/// A registry of [`OPTIONS`] with the rules over several of them. Crates that declare more add theirs with
/// [`Registry::with`].
#[must_use]
pub fn registry() -> Registry {
    Registry::new().with(OPTIONS).check(heartbeats_fit).check(lease_fits).check(cpu_models_fit)
}

/// Nova silently takes 2.5 times the interval; to be told is better.
fn heartbeats_fit(config: &Config) -> Result<(), (&'static str, String)> {
    let interval = config.get(&REPORT_INTERVAL);
    if config.get(&SERVICE_DOWN_TIME) > interval {
        return Ok(());
    }
    let what = format!("must be longer than DEFAULT.report_interval, which is {} seconds", interval.as_secs_f64());
    Err(("DEFAULT.service_down_time", what))
}

fn lease_fits(config: &Config) -> Result<(), (&'static str, String)> {
    let lease = config.get(&TASK_LEASE);
    if config.get(&TASK_DEADLINE) > lease {
        return Ok(());
    }
    let what = format!("must be longer than conductor.task_lease, which is {} seconds", lease.as_secs_f64());
    Err(("conductor.task_deadline", what))
}

fn cpu_models_fit(config: &Config) -> Result<(), (&'static str, String)> {
    let custom = config.get(&LIBVIRT_CPU_MODE).as_deref() == Some("custom");
    match (custom, config.get(&LIBVIRT_CPU_MODELS).is_empty()) {
        (true, true) => Err(("libvirt.cpu_mode", "'custom' needs libvirt.cpu_models".to_owned())),
        (false, false) => Err(("libvirt.cpu_models", "needs libvirt.cpu_mode = custom".to_owned())),
        (true, false) | (false, true) => Ok(()),
    }
}
