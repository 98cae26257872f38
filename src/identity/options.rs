//! What an operator may set about the built-in identity.

use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl, common};

const API: &[&str] = &["nova-api"];

/// `identity.hash_threads`
pub const HASH_THREADS: Opt<i64> = Opt::integer("identity", "hash_threads", 1, 64)
    .default("2")
    .unit("threads")
    .roles(API)
    .help("Passwords that are hashed at once; each takes argon2_memory_kib.");
/// `identity.max_waiting_logins`
pub const MAX_WAITING_LOGINS: Opt<i64> = Opt::integer("identity", "max_waiting_logins", 0, 100_000)
    .default("256")
    .unit("logins")
    .roles(API)
    .help("Logins that wait for their turn to be hashed; one more is answered with 503 and Retry-After.");
/// `identity.refresh_interval`
pub const REFRESH_INTERVAL: Opt<Duration> = Opt::seconds("identity", "refresh_interval", 1, 60)
    .default("2")
    .roles(API)
    .help("How soon tokens that were taken back by another API process stop counting in this one.");

/// Options that only the built-in identity has.
pub const IDENTITY_OPTIONS: &[OptionDecl] = &[HASH_THREADS.decl(), MAX_WAITING_LOGINS.decl(), REFRESH_INTERVAL.decl()];

/// Cost and place of password hashing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordOptions {
    /// Memory of one hash in KiB. The default is OWASP's least for argon2id.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Hashes computed at once, each on a thread that may block.
    pub threads: usize,
    /// Logins that may wait for their turn; further ones get 503.
    pub max_waiting: usize,
    /// Computes on the caller's thread instead: for simulations that must run on one thread.
    pub inline: bool,
}

impl Default for PasswordOptions {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2, lanes: 1, threads: 2, max_waiting: 256, inline: false }
    }
}

impl PasswordOptions {
    /// The least cost that there is, on the caller's thread: for tests and simulations, never for a real cloud.
    pub fn cheap() -> Self {
        Self { memory_kib: 8, passes: 1, lanes: 1, inline: true, ..Self::default() }
    }
}

/// Options of the built-in identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityOptions {
    /// How long a token lasts (Keystone's `[token] expiration`).
    pub token_expiration: Duration,
    /// How often changes made by other processes are looked for.
    pub refresh_interval: Duration,
    /// Passwords.
    pub password: PasswordOptions,
}

impl Default for IdentityOptions {
    fn default() -> Self {
        Self {
            token_expiration: Duration::from_secs(3600),
            refresh_interval: Duration::from_secs(2),
            password: PasswordOptions::default(),
        }
    }
}

impl IdentityOptions {
    /// Reads what the configuration says. The registry must know [`IDENTITY_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let cost = |option: &Opt<i64>| u32::try_from(config.get(option)).unwrap_or(u32::MAX);
        let count = |option: &Opt<i64>| usize::try_from(config.get(option)).unwrap_or(usize::MAX);
        Self {
            token_expiration: config.get(&common::TOKEN_EXPIRATION),
            refresh_interval: config.get(&REFRESH_INTERVAL),
            password: PasswordOptions {
                memory_kib: cost(&common::ARGON2_MEMORY_KIB),
                passes: cost(&common::ARGON2_ITERATIONS),
                threads: count(&HASH_THREADS),
                max_waiting: count(&MAX_WAITING_LOGINS),
                ..PasswordOptions::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use nova_core::options::Source;

    use super::*;

    #[test]
    fn the_declared_defaults_are_the_ones_of_the_struct() {
        let registry = common::registry().with(IDENTITY_OPTIONS);
        let config = Config::load(&registry, [(Source::CommandLine, "state_path=/srv/nova")]).unwrap();
        assert_eq!(IdentityOptions::from_config(&config), IdentityOptions::default());
    }
}
