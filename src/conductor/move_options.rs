//! What an operator may set about moves between hosts.

use std::time::Duration;

use nova_core::flavor::Flavor;
use nova_core::options::{Config, Opt, OptionDecl};
use nova_core::rpc::compute::LiveMigrationLimits;

const CONDUCTOR: &[&str] = &["nova-conductor"];

/// `resize_confirm_window`
pub const RESIZE_CONFIRM_WINDOW: Opt<Duration> = Opt::seconds("DEFAULT", "resize_confirm_window", 0, 31_536_000)
    .default("0")
    .reloads()
    .roles(CONDUCTOR)
    .help("How long after a resize it is confirmed without its owner; 0: never.");

/// `max_concurrent_live_migrations`
pub const MAX_CONCURRENT_LIVE_MIGRATIONS: Opt<i64> =
    Opt::integer("DEFAULT", "max_concurrent_live_migrations", 0, 1_000)
        .default("1")
        .reloads()
        .roles(CONDUCTOR)
        .help("How many guests leave a host at once while they run; others wait. 0: without limit.");

/// `libvirt.live_migration_completion_timeout`
pub const COMPLETION_TIMEOUT: Opt<i64> = Opt::integer("libvirt", "live_migration_completion_timeout", 0, 86_400)
    .default("800")
    .unit("seconds per GiB of memory and disk")
    .reloads()
    .roles(CONDUCTOR)
    .help(
        "How long a live migration may take for each GiB that is sent, at least 2; 0: until the operation's deadline.",
    );

/// `libvirt.live_migration_timeout_action`
pub const TIMEOUT_ACTION: Opt<String> =
    Opt::choice("libvirt", "live_migration_timeout_action", &["abort", "force_complete"])
        .default("abort")
        .reloads()
        .roles(CONDUCTOR)
        .help("What becomes of a live migration that takes too long: it is aborted, or ended at the price of a pause.");

/// `libvirt.live_migration_downtime`
pub const DOWNTIME: Opt<i64> = Opt::integer("libvirt", "live_migration_downtime", 100, 1_000_000)
    .default("500")
    .unit("milliseconds")
    .reloads()
    .roles(CONDUCTOR)
    .help("The longest pause at the end of a live migration.");

/// `libvirt.live_migration_permit_auto_converge`
pub const AUTO_CONVERGE: Opt<bool> = Opt::boolean("libvirt", "live_migration_permit_auto_converge")
    .default("false")
    .reloads()
    .roles(CONDUCTOR)
    .help("Slow down guests that change their memory faster than it is sent.");

/// `libvirt.live_migration_permit_post_copy`
pub const POST_COPY: Opt<bool> = Opt::boolean("libvirt", "live_migration_permit_post_copy")
    .default("false")
    .reloads()
    .roles(CONDUCTOR)
    .help(
        "A live migration that is to end soon lets the guest go on at its new host at once, with memory that comes when it is \
         needed: no long pause, but a guest that is lost when one of both hosts is lost meanwhile. Both kernels must allow \
         userfaultfd.",
    );

/// `libvirt.live_migration_bandwidth`
pub const BANDWIDTH: Opt<i64> = Opt::integer("libvirt", "live_migration_bandwidth", 0, 1_000_000)
    .default("0")
    .unit("MiB/s")
    .reloads()
    .roles(CONDUCTOR)
    .help("How fast a guest is sent at most; 0: as fast as it goes.");

/// `shelved_offload_time`
pub const SHELVED_OFFLOAD_TIME: Opt<i64> = Opt::integer("DEFAULT", "shelved_offload_time", -1, 31_536_000)
    .default("0")
    .unit("seconds")
    .reloads()
    .roles(&["nova-conductor", "nova-api"])
    .help("How long after it was shelved a server leaves its host; 0: at once, -1: never by itself.");

/// The options that are declared here.
pub const MOVE_OPTIONS: &[OptionDecl] = &[
    RESIZE_CONFIRM_WINDOW.decl(),
    MAX_CONCURRENT_LIVE_MIGRATIONS.decl(),
    COMPLETION_TIMEOUT.decl(),
    TIMEOUT_ACTION.decl(),
    DOWNTIME.decl(),
    AUTO_CONVERGE.decl(),
    POST_COPY.decl(),
    BANDWIDTH.decl(),
    SHELVED_OFFLOAD_TIME.decl(),
];

/// Settings of moves.
#[derive(Debug, Clone)]
pub struct MoveOptions {
    /// After so long a resize is confirmed without its owner; `None`: never.
    pub resize_confirm_window: Option<Duration>,
    /// How many guests leave a host at once while they run; 0: without limit.
    pub max_concurrent_live_migrations: usize,
    /// How long a live migration may take per GiB; `None`: until the deadline.
    pub completion_timeout_per_gib: Option<Duration>,
    /// A live migration that takes too long is ended at the price of a pause, and not aborted.
    pub force_complete: bool,
    /// The longest pause at the end.
    pub max_downtime: Duration,
    /// Slow guests down that change their memory faster than it is sent.
    pub auto_converge: bool,
    /// Let guests go on at their new host with memory that is still at the old one, when they are to arrive soon.
    pub post_copy: bool,
    /// Bytes per second at most.
    pub bandwidth: Option<u64>,
    /// After so long a shelved server leaves its host; `None`: never by itself.
    pub shelved_offload_time: Option<Duration>,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            resize_confirm_window: None,
            max_concurrent_live_migrations: 1,
            completion_timeout_per_gib: Some(Duration::from_secs(800)),
            force_complete: false,
            max_downtime: Duration::from_millis(500),
            auto_converge: false,
            post_copy: false,
            bandwidth: None,
            shelved_offload_time: Some(Duration::ZERO),
        }
    }
}

impl MoveOptions {
    /// What the configuration says, whose registry must know [`MOVE_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let amount = |option| u64::try_from(config.get(option)).unwrap_or(0);
        let some = |number: u64| (number > 0).then_some(number);
        let window = config.get(&RESIZE_CONFIRM_WINDOW);
        Self {
            resize_confirm_window: (!window.is_zero()).then_some(window),
            max_concurrent_live_migrations: usize::try_from(amount(&MAX_CONCURRENT_LIVE_MIGRATIONS)).unwrap_or(0),
            completion_timeout_per_gib: some(amount(&COMPLETION_TIMEOUT)).map(Duration::from_secs),
            force_complete: config.get(&TIMEOUT_ACTION) == "force_complete",
            max_downtime: Duration::from_millis(amount(&DOWNTIME)),
            auto_converge: config.get(&AUTO_CONVERGE),
            post_copy: config.get(&POST_COPY),
            bandwidth: some(amount(&BANDWIDTH)).map(|mib| mib << 20),
            shelved_offload_time: u64::try_from(config.get(&SHELVED_OFFLOAD_TIME)).ok().map(Duration::from_secs),
        }
    }

    /// What a live migration of a guest of that flavor may take (nova/virt/libvirt/migration.py, `should_abort`).
    pub fn limits(&self, flavor: &Flavor) -> LiveMigrationLimits {
        let gib = flavor.memory_mb.div_ceil(1024).max(2) + flavor.root_gb + flavor.ephemeral_gb;
        let gib = u32::try_from(gib).unwrap_or(u32::MAX);
        LiveMigrationLimits {
            completion_timeout: self.completion_timeout_per_gib.map(|each| each.saturating_mul(gib)),
            force_complete: self.force_complete,
            max_downtime: self.max_downtime,
            // As Nova: who may go on elsewhere needs not be slowed down.
            auto_converge: self.auto_converge && !self.post_copy,
            post_copy: self.post_copy,
            bandwidth: self.bandwidth,
        }
    }
}
