//! Where an outside Neutron is, and as whom we speak to it: Nova's group `neutron`.

use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl};

use crate::outside::Account;

const CONTROL: &[&str] = &["nova-api", "nova-conductor"];

/// `network.service`
pub const NETWORK_SERVICE: Opt<String> = Opt::choice("network", "service", &["built-in", "neutron"])
    .default("built-in")
    .roles(CONTROL)
    .help("Who keeps the networks: this cloud itself, or a Neutron that the group 'neutron' names.");
/// `neutron.endpoint_override`
pub const ENDPOINT_OVERRIDE: Opt<Option<String>> = Opt::url("neutron", "endpoint_override", &["http"])
    .roles(CONTROL)
    .help("Where that Neutron is, e.g. http://controller:9696. Not set: where the catalog of neutron.auth_url says.")
    .optional();
/// `neutron.auth_url`
pub const AUTH_URL: Opt<Option<String>> = Opt::url("neutron", "auth_url", &["http"])
    .roles(CONTROL)
    .help("The Keystone that gives tokens for it, e.g. http://controller:5000/v3.")
    .optional();
/// `neutron.username`
pub const USERNAME: Opt<String> =
    Opt::string("neutron", "username").default("").roles(CONTROL).help("Who asks there. Needs the role admin.");
/// `neutron.password`
pub const PASSWORD: Opt<String> =
    Opt::string("neutron", "password").default("").secret().roles(CONTROL).help("That user's password.");
/// `neutron.project_name`
pub const PROJECT_NAME: Opt<String> =
    Opt::string("neutron", "project_name").default("service").roles(CONTROL).help("The project to ask for.");
/// `neutron.user_domain_name`
pub const USER_DOMAIN_NAME: Opt<String> =
    Opt::string("neutron", "user_domain_name").default("Default").roles(CONTROL).help("The user's domain.");
/// `neutron.project_domain_name`
pub const PROJECT_DOMAIN_NAME: Opt<String> =
    Opt::string("neutron", "project_domain_name").default("Default").roles(CONTROL).help("The project's domain.");
/// `neutron.region_name`
pub const REGION_NAME: Opt<String> = Opt::string("neutron", "region_name")
    .default("")
    .roles(CONTROL)
    .help("The region of the catalog to take. Empty: the first.");
/// `neutron.default_floating_pool`
pub const DEFAULT_FLOATING_POOL: Opt<String> = Opt::string("neutron", "default_floating_pool")
    .default("nova")
    .roles(CONTROL)
    .help("The outer network that floating addresses come from if a request names none.");
/// `neutron.http_retries`
pub const HTTP_RETRIES: Opt<i64> = Opt::integer("neutron", "http_retries", 0, 100)
    .default("3")
    .unit("tries")
    .roles(CONTROL)
    .help("How often a request is tried again that met no answer, where that does no harm.");
/// `neutron.timeout`
pub const TIMEOUT: Opt<Duration> =
    Opt::seconds("neutron", "timeout", 1, 3600).default("60").roles(CONTROL).help("How long an answer is waited for.");
/// `neutron.connect_timeout`
pub const CONNECT_TIMEOUT: Opt<Duration> = Opt::seconds("neutron", "connect_timeout", 1, 3600)
    .default("10")
    .roles(CONTROL)
    .help("How long a connection is waited for.");
/// `neutron.extension_sync_interval`
pub const EXTENSION_SYNC_INTERVAL: Opt<Duration> = Opt::seconds("neutron", "extension_sync_interval", 0, 86_400)
    .default("600")
    .roles(CONTROL)
    .help("How long it is remembered what that Neutron can do.");

/// Options of the client of an outside Neutron.
pub const NEUTRON_OPTIONS: &[OptionDecl] = &[
    NETWORK_SERVICE.decl(),
    ENDPOINT_OVERRIDE.decl(),
    AUTH_URL.decl(),
    USERNAME.decl(),
    PASSWORD.decl(),
    PROJECT_NAME.decl(),
    USER_DOMAIN_NAME.decl(),
    PROJECT_DOMAIN_NAME.decl(),
    REGION_NAME.decl(),
    DEFAULT_FLOATING_POOL.decl(),
    HTTP_RETRIES.decl(),
    TIMEOUT.decl(),
    CONNECT_TIMEOUT.decl(),
    EXTENSION_SYNC_INTERVAL.decl(),
];

/// How to reach an outside Neutron.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeutronOptions {
    /// Where it is; `None`: as the catalog says.
    pub endpoint: Option<String>,
    /// As whom it is asked.
    pub account: Account,
    /// The outer network that floating addresses come from.
    pub default_floating_pool: String,
    /// How long the list of extensions is remembered.
    pub extensions_for: Duration,
}

impl NeutronOptions {
    /// Nova's defaults, with tokens from that Keystone for that user.
    pub fn new(auth_url: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            account: Account::new(auth_url, username, password),
            default_floating_pool: "nova".into(),
            extensions_for: Duration::from_secs(600),
        }
    }

    /// What the configuration says, if it says that networks are an outside Neutron's. The registry must know
    /// [`NEUTRON_OPTIONS`].
    pub fn from_config(config: &Config) -> Option<Self> {
        if config.get(&NETWORK_SERVICE) != "neutron" {
            return None;
        }
        let auth_url = config.get(&AUTH_URL).unwrap_or_default();
        let base = Account::new(auth_url, config.get(&USERNAME), config.get(&PASSWORD));
        let account = Account {
            project_name: config.get(&PROJECT_NAME),
            user_domain_name: config.get(&USER_DOMAIN_NAME),
            project_domain_name: config.get(&PROJECT_DOMAIN_NAME),
            region_name: config.get(&REGION_NAME),
            retries: u32::try_from(config.get(&HTTP_RETRIES)).unwrap_or(0),
            timeout: config.get(&TIMEOUT),
            connect_timeout: config.get(&CONNECT_TIMEOUT),
            ..base
        };
        Some(Self {
            endpoint: config.get(&ENDPOINT_OVERRIDE),
            account,
            default_floating_pool: config.get(&DEFAULT_FLOATING_POOL),
            extensions_for: config.get(&EXTENSION_SYNC_INTERVAL),
        })
    }
}

/// Whoever asks an outside Neutron must say where it gets tokens, and as whom: for `Registry::check`.
///
/// # Errors
/// The option that is missing.
pub fn neutron_fits(config: &Config) -> Result<(), (&'static str, String)> {
    let needed = || "is needed when network.service is 'neutron'".to_owned();
    if config.get(&NETWORK_SERVICE) != "neutron" {
        return Ok(());
    }
    if config.get(&AUTH_URL).is_none() {
        return Err(("neutron.auth_url", needed()));
    }
    match (config.get(&USERNAME).is_empty(), config.get(&PASSWORD).is_empty()) {
        (true, _) => Err(("neutron.username", needed())),
        (_, true) => Err(("neutron.password", needed())),
        (false, false) => Ok(()),
    }
}
