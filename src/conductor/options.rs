//! What an operator may set about the conductor.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::instance::hypervisor_name;
use nova_core::options::{Config, Opt, OptionDecl, common};

use super::MoveOptions;
use crate::api::compute::RECLAIM_INSTANCE_INTERVAL;
use crate::metadata::GuestOptions;

/// `image_cache.precache_concurrency`
pub const PRECACHE_CONCURRENCY: Opt<i64> = Opt::integer("image_cache", "precache_concurrency", 1, 1_000)
    .default("1")
    .unit("hosts")
    .reloads()
    .roles(&["nova-conductor"])
    .help(
        "How many hosts of an aggregate fetch an image at once when an administrator has it cached ahead of its use.",
    );
/// `DEFAULT.rescue_timeout`
pub const RESCUE_TIMEOUT: Opt<Duration> = Opt::seconds("DEFAULT", "rescue_timeout", 0, 31_536_000)
    .default("0")
    .reloads()
    .roles(&["nova-conductor"])
    .help("How long a server may be in rescue before it is started from its own disk again; 0: as long as its owner likes.");
/// `DEFAULT.reboot_timeout`
pub const REBOOT_TIMEOUT: Opt<Duration> = Opt::seconds("DEFAULT", "reboot_timeout", 0, 31_536_000)
    .default("0")
    .reloads()
    .roles(&["nova-conductor"])
    .help("How long a soft reboot may take before a hard one takes its place; 0: until its own deadline.");
/// `DEFAULT.vif_plugging_timeout`
pub const VIF_PLUGGING_TIMEOUT: Opt<Duration> = Opt::seconds("DEFAULT", "vif_plugging_timeout", 0, 86_400)
    .default("300")
    .reloads()
    .roles(&["nova-conductor"])
    .help("How long a new server waits, with network.service = neutron, for Neutron to say that its interfaces work; 0: it does not wait.");
/// `DEFAULT.vif_plugging_is_fatal`
pub const VIF_PLUGGING_IS_FATAL: Opt<bool> = Opt::boolean("DEFAULT", "vif_plugging_is_fatal")
    .default("true")
    .reloads()
    .roles(&["nova-conductor"])
    .help("Whether a server fails whose interfaces don't work by then; otherwise it starts without.");
/// The options that are declared here.
pub const CONDUCTOR_OPTIONS: &[OptionDecl] = &[
    PRECACHE_CONCURRENCY.decl(),
    RESCUE_TIMEOUT.decl(),
    REBOOT_TIMEOUT.decl(),
    VIF_PLUGGING_TIMEOUT.decl(),
    VIF_PLUGGING_IS_FATAL.decl(),
];

/// What is done about interfaces that an outside Neutron's agents plug in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluggingOptions {
    /// How long a guest stands still for them (`vif_plugging_timeout`); zero: it does not wait.
    pub timeout: Duration,
    /// A build whose interfaces do not work fails (`vif_plugging_is_fatal`).
    pub fatal: bool,
}

impl Default for PluggingOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), fatal: true }
    }
}

/// The conductor's settings, read from the configuration in one place.
#[derive(Debug, Clone)]
pub struct ConductorOptions {
    /// Name of this process in leases: unique among conductors, and another one after each start.
    pub name: String,
    /// How long an order to a host is waited for before it is given again.
    pub task_lease: Duration,
    /// How long after its begin a task is left to the message that announces it.
    pub start_grace: Duration,
    /// How often tasks are looked for whose lease has run out.
    pub sweep_interval: Duration,
    /// A host that was not heard of for so long is down (`service_down_time`).
    pub service_down_time: Duration,
    /// Hosts that are tried for one instance (`scheduler.max_attempts`).
    pub max_attempts: usize,
    /// How many hosts fetch an image at once ahead of its use (`image_cache.precache_concurrency`).
    pub precache_concurrency: usize,
    /// How long a guest may take to shut down by itself (`shutdown_timeout`).
    pub shutdown_timeout: Duration,
    /// Deleted servers can be restored for so long (`reclaim_instance_interval`); zero: they are deleted at once.
    pub reclaim_instance_interval: Duration,
    /// How long a server may be in rescue (`rescue_timeout`); zero: without limit.
    pub rescue_timeout: Duration,
    /// How long a soft reboot may take (`reboot_timeout`); zero: until its deadline.
    pub reboot_timeout: Duration,
    /// About interfaces that others plug in.
    pub plugging: PluggingOptions,
    /// For so long news for the schedulers is gathered into one message.
    pub news_window: Duration,
    /// What guests are told besides what their users say.
    pub guests: GuestOptions,
    /// About moves between hosts.
    pub moves: MoveOptions,
    /// From an instance's number to the hypervisor's name for it (`instance_name_template`).
    pub instance_name_template: String,
}

impl Default for ConductorOptions {
    fn default() -> Self {
        Self {
            name: "conductor".into(),
            task_lease: Duration::from_secs(30),
            start_grace: Duration::from_secs(5),
            sweep_interval: Duration::from_secs(5),
            service_down_time: Duration::from_secs(60),
            max_attempts: 3,
            precache_concurrency: 1,
            shutdown_timeout: Duration::from_secs(60),
            reclaim_instance_interval: Duration::ZERO,
            rescue_timeout: Duration::ZERO,
            reboot_timeout: Duration::ZERO,
            plugging: PluggingOptions::default(),
            news_window: Duration::from_millis(200),
            guests: GuestOptions::default(),
            moves: MoveOptions::default(),
            instance_name_template: "instance-%08x".into(),
        }
    }
}

impl ConductorOptions {
    /// What the configuration says, whose registry must know [`CONDUCTOR_OPTIONS`], [`MOVE_OPTIONS`](super::MOVE_OPTIONS),
    /// the compute API's options and
    /// [`METADATA_OPTIONS`](crate::metadata::METADATA_OPTIONS); `name` must be another one at each start.
    pub fn from_config(config: &Config, name: String) -> Self {
        Self {
            name,
            task_lease: config.get(&common::TASK_LEASE),
            service_down_time: config.get(&common::SERVICE_DOWN_TIME),
            max_attempts: usize::try_from(config.get(&common::SCHEDULER_MAX_ATTEMPTS)).unwrap_or(1),
            precache_concurrency: usize::try_from(config.get(&PRECACHE_CONCURRENCY)).unwrap_or(1),
            shutdown_timeout: config.get(&common::SHUTDOWN_TIMEOUT),
            reclaim_instance_interval: config.get(&RECLAIM_INSTANCE_INTERVAL),
            rescue_timeout: config.get(&RESCUE_TIMEOUT),
            reboot_timeout: config.get(&REBOOT_TIMEOUT),
            plugging: PluggingOptions {
                timeout: config.get(&VIF_PLUGGING_TIMEOUT),
                fatal: config.get(&VIF_PLUGGING_IS_FATAL),
            },
            guests: GuestOptions::from_config(config),
            moves: MoveOptions::from_config(config),
            instance_name_template: config.get(&common::INSTANCE_NAME_TEMPLATE),
            ..Self::default()
        }
    }

    /// The hypervisor's name for an instance: `%08x`, `%x` and `%d` stand for its number, `%(uuid)s` for its id.
    pub fn instance_name(&self, number: i64, id: InstanceId) -> String {
        hypervisor_name(&self.instance_name_template, number, id)
    }
}
