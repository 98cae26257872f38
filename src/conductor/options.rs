//! What an operator may set about the conductor.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::instance::hypervisor_name;
use nova_core::options::{Config, Opt, OptionDecl, common};

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
/// The options that are declared here.
pub const CONDUCTOR_OPTIONS: &[OptionDecl] = &[PRECACHE_CONCURRENCY.decl()];

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
    /// For so long news for the schedulers is gathered into one message.
    pub news_window: Duration,
    /// What guests are told besides what their users say.
    pub guests: GuestOptions,
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
            news_window: Duration::from_millis(200),
            guests: GuestOptions::default(),
            instance_name_template: "instance-%08x".into(),
        }
    }
}

impl ConductorOptions {
    /// What the configuration says, whose registry must know [`CONDUCTOR_OPTIONS`] and
    /// [`METADATA_OPTIONS`](crate::metadata::METADATA_OPTIONS); `name` must be another one at each start.
    pub fn from_config(config: &Config, name: String) -> Self {
        Self {
            name,
            task_lease: config.get(&common::TASK_LEASE),
            service_down_time: config.get(&common::SERVICE_DOWN_TIME),
            max_attempts: usize::try_from(config.get(&common::SCHEDULER_MAX_ATTEMPTS)).unwrap_or(1),
            precache_concurrency: usize::try_from(config.get(&PRECACHE_CONCURRENCY)).unwrap_or(1),
            shutdown_timeout: config.get(&common::SHUTDOWN_TIMEOUT),
            guests: GuestOptions::from_config(config),
            instance_name_template: config.get(&common::INSTANCE_NAME_TEMPLATE),
            ..Self::default()
        }
    }

    /// The hypervisor's name for an instance: `%08x`, `%x` and `%d` stand for its number, `%(uuid)s` for its id.
    pub fn instance_name(&self, number: i64, id: InstanceId) -> String {
        hypervisor_name(&self.instance_name_template, number, id)
    }
}
