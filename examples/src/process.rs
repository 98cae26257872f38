//! The world outside: the machine's clock and randomness, the log, signals.

use std::io::IsTerminal;
use std::sync::OnceLock;

use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::options::{Config, common};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::cli::{ConfigArgs, StartError};

/// The machine's clock, to the microsecond (as stores keep it).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// The operating system's randomness: good for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        if let Err(error) = getrandom::fill(buffer) {
            // Without randomness no id and no secret is safe; going on would be worse.
            tracing::error!("the operating system gives no randomness: {error}");
            std::process::abort();
        }
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins to log to standard error, as the options say.
pub fn start_log(config: &Config) {
    let (filter, handle) = reload::Layer::new(log_filter(config));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(true);
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
    for line in config.renamed() {
        tracing::warn!("{line}");
    }
}

/// Takes over changed log options.
pub fn reload_log(config: &Config) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(log_filter(config))
    {
        tracing::warn!("the log options were not taken over: {error}");
    }
}

fn log_filter(config: &Config) -> EnvFilter {
    let level = if config.get(&common::DEBUG) { "debug" } else { "info" };
    // lapin tells of each message that comes back, with its content: passwords are in some. Our own error says enough.
    let mut filter = EnvFilter::new(format!("{level},lapin::returned_messages=off"));
    for text in config.get(&common::DEFAULT_LOG_LEVELS) {
        match text.trim().to_ascii_lowercase().parse() {
            Ok(directive) => filter = filter.add_directive(directive),
            Err(error) => eprintln!("DEFAULT.default_log_levels: '{text}': {error}"),
        }
    }
    filter
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM or SIGINT: finish what is in hand.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that a service listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on the signals are ours.
    pub fn listen() -> Result<Self, StartError> {
        let on = |kind| signal(kind).map_err(|e| StartError::new("signals cannot be received", &e));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits until the process is told to stop; while a program starts, no other wish counts.
    ///
    /// # Errors
    /// Always: it was stopped before it had started.
    pub async fn until_stop<T>(&mut self) -> Result<T, StartError> {
        while self.next().await != Asked::Stop {}
        Err(StartError::because("stopped before it had started"))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// Reads the configuration again: takes over what may change, says what may not. A configuration with mistakes changes
/// nothing.
pub fn reload(arguments: &ConfigArgs, config: Config) -> Config {
    let new = match arguments.load() {
        Ok(new) => new,
        Err(error) => {
            tracing::error!("the configuration was not reloaded, it has mistakes:\n{error}");
            return config;
        }
    };
    let report = config.reload(&new);
    let config = config.reloaded(&new);
    for change in &report.reloaded {
        tracing::info!("reloaded {}: {} (was {})", change.key, change.to, change.from);
    }
    for change in &report.needs_restart {
        tracing::warn!("{} changed to {}, which needs a restart; it stays {}", change.key, change.to, change.from);
    }
    tracing::info!("configuration read again; {} options as they were", report.unchanged);
    reload_log(&config);
    config
}
