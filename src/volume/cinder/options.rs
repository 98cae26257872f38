//! Where an outside Cinder is, and as whom we speak to it: Nova's group `cinder`.

use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl};

use crate::outside::Account;

const CONTROL: &[&str] = &["nova-api", "nova-conductor"];

/// `volume.service`
pub const VOLUME_SERVICE: Opt<String> = Opt::choice("volume", "service", &["built-in", "cinder"])
    .default("built-in")
    .roles(CONTROL)
    .help("Who keeps the volumes of servers: this cloud itself, or a Cinder that the group 'cinder' names.");
/// `cinder.endpoint_template`
pub const ENDPOINT_TEMPLATE: Opt<Option<String>> = Opt::string("cinder", "endpoint_template")
    .roles(CONTROL)
    .help("Where that Cinder is, e.g. http://controller:8776/v3/%(project_id)s. Not set: where the catalog of cinder.auth_url says.")
    .optional();
/// `cinder.auth_url`
pub const AUTH_URL: Opt<Option<String>> = Opt::url("cinder", "auth_url", &["http"])
    .roles(CONTROL)
    .help("The Keystone that gives tokens for it, e.g. http://controller:5000/v3.")
    .optional();
/// `cinder.username`
pub const USERNAME: Opt<String> = Opt::string("cinder", "username").default("").roles(CONTROL).help(
    "Who asks there. Needs the role admin, and a role in each project for which volumes are made: one that is inherited will do.",
);
/// `cinder.password`
pub const PASSWORD: Opt<String> =
    Opt::string("cinder", "password").default("").secret().roles(CONTROL).help("That user's password.");
/// `cinder.project_name`
pub const PROJECT_NAME: Opt<String> =
    Opt::string("cinder", "project_name").default("service").roles(CONTROL).help("The project to ask for.");
/// `cinder.user_domain_name`
pub const USER_DOMAIN_NAME: Opt<String> =
    Opt::string("cinder", "user_domain_name").default("Default").roles(CONTROL).help("The user's domain.");
/// `cinder.project_domain_name`
pub const PROJECT_DOMAIN_NAME: Opt<String> =
    Opt::string("cinder", "project_domain_name").default("Default").roles(CONTROL).help("The project's domain.");
/// `cinder.os_region_name`
pub const OS_REGION_NAME: Opt<String> = Opt::string("cinder", "os_region_name")
    .default("")
    .roles(CONTROL)
    .help("The region of the catalog to take. Empty: the first.");
/// `cinder.http_retries`
pub const HTTP_RETRIES: Opt<i64> = Opt::integer("cinder", "http_retries", 0, 100)
    .default("3")
    .unit("tries")
    .roles(CONTROL)
    .help("How often a request is tried again that met no answer, where that does no harm.");
/// `cinder.timeout`
pub const TIMEOUT: Opt<Duration> = Opt::seconds("cinder", "timeout", 1, 3600)
    .default("300")
    .roles(CONTROL)
    .help("How long an answer is waited for. Cinder answers to a connection when it is made.");
/// `cinder.connect_timeout`
pub const CONNECT_TIMEOUT: Opt<Duration> = Opt::seconds("cinder", "connect_timeout", 1, 3600)
    .default("10")
    .roles(CONTROL)
    .help("How long a connection is waited for.");

/// Options of the client of an outside Cinder.
pub const CINDER_OPTIONS: &[OptionDecl] = &[
    VOLUME_SERVICE.decl(),
    ENDPOINT_TEMPLATE.decl(),
    AUTH_URL.decl(),
    USERNAME.decl(),
    PASSWORD.decl(),
    PROJECT_NAME.decl(),
    USER_DOMAIN_NAME.decl(),
    PROJECT_DOMAIN_NAME.decl(),
    OS_REGION_NAME.decl(),
    HTTP_RETRIES.decl(),
    TIMEOUT.decl(),
    CONNECT_TIMEOUT.decl(),
];

/// How to reach an outside Cinder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CinderOptions {
    /// Where it is, `%(project_id)s` standing for the token's project; `None`: as the catalog says.
    pub endpoint: Option<String>,
    /// As whom it is asked.
    pub account: Account,
}

impl CinderOptions {
    /// Nova's defaults, with tokens from that Keystone for that user.
    pub fn new(auth_url: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        let account = Account { timeout: Duration::from_secs(300), ..Account::new(auth_url, username, password) };
        Self { endpoint: None, account }
    }

    /// What the configuration says, if it says that volumes are an outside Cinder's. The registry must know
    /// [`CINDER_OPTIONS`].
    pub fn from_config(config: &Config) -> Option<Self> {
        if config.get(&VOLUME_SERVICE) != "cinder" {
            return None;
        }
        let auth_url = config.get(&AUTH_URL).unwrap_or_default();
        let base = Account::new(auth_url, config.get(&USERNAME), config.get(&PASSWORD));
        let account = Account {
            project_name: config.get(&PROJECT_NAME),
            user_domain_name: config.get(&USER_DOMAIN_NAME),
            project_domain_name: config.get(&PROJECT_DOMAIN_NAME),
            region_name: config.get(&OS_REGION_NAME),
            retries: u32::try_from(config.get(&HTTP_RETRIES)).unwrap_or(0),
            timeout: config.get(&TIMEOUT),
            connect_timeout: config.get(&CONNECT_TIMEOUT),
            ..base
        };
        Some(Self { endpoint: config.get(&ENDPOINT_TEMPLATE), account })
    }
}

/// Whoever asks an outside Cinder must say where it gets tokens, and as whom: for `Registry::check`.
///
/// # Errors
/// The option that is missing.
pub fn cinder_fits(config: &Config) -> Result<(), (&'static str, String)> {
    let needed = || "is needed when volume.service is 'cinder'".to_owned();
    if config.get(&VOLUME_SERVICE) != "cinder" {
        return Ok(());
    }
    if config.get(&AUTH_URL).is_none() {
        return Err(("cinder.auth_url", needed()));
    }
    match (config.get(&USERNAME).is_empty(), config.get(&PASSWORD).is_empty()) {
        (true, _) => Err(("cinder.username", needed())),
        (_, true) => Err(("cinder.password", needed())),
        (false, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use nova_core::options::{Registry, Source, common};

    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let registry = Registry::new().with(common::OPTIONS).with(CINDER_OPTIONS).check(cinder_fits);
        let text = format!("[DEFAULT]\nstate_path = /state\n{text}");
        let loaded = Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text.as_str())]);
        loaded.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn whoever_asks_an_outside_cinder_says_as_whom() {
        assert_eq!(CinderOptions::from_config(&load("").unwrap()), None);
        let mut text = "[volume]\nservice = cinder\n[cinder]\n".to_owned();
        for (missing, line) in [
            ("cinder.auth_url", "auth_url = http://k:5000/v3\n"),
            ("cinder.username", "username = nova\n"),
            ("cinder.password", "password = secret\n"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(missing), "{error}");
            text.push_str(line);
        }
        text.push_str("endpoint_template = http://c:8776/v3/%(project_id)s\nos_region_name = east\n");
        let options = CinderOptions::from_config(&load(&text).unwrap()).unwrap();
        assert_eq!((options.account.region_name.as_str(), options.account.retries), ("east", 3));
        assert_eq!(options.endpoint.as_deref(), Some("http://c:8776/v3/%(project_id)s"));
    }
}
