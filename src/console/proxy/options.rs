//! The proxy's settings.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_core::options::Config;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::request::page_scheme;
use super::rfb::{Scheme, ServerLogin};
use super::spice::{LONGEST_PASSWORD, SpiceLogin};
use crate::console::options as o;

/// Certificates that cannot be used, or schemes that there are not.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct TlsError {
    option: &'static str,
    problem: String,
}

impl TlsError {
    fn new(option: &'static str, problem: impl ToString) -> Self {
        Self { option, problem: problem.to_string() }
    }
}

/// The proxy's settings.
#[derive(Clone)]
pub struct ProxyOptions {
    /// Names and addresses by which browsers reach it, without ports.
    pub hosts: BTreeSet<String>,
    /// Schemes of the pages that it hands out: `http`, `https`.
    pub schemes: BTreeSet<String>,
    /// `console.allowed_origins`.
    pub allowed_origins: Vec<String>,
    /// `console.require_origin`.
    pub require_origin: bool,
    /// `console.max_sessions`.
    pub max_sessions: usize,
    /// `console.max_connections`.
    pub max_connections: usize,
    /// `console.max_failures`.
    pub max_failures: u32,
    /// `console.trusted_proxies`.
    pub trusted_proxies: Vec<IpAddr>,
    /// `console.max_message_size`.
    pub max_message_size: usize,
    /// `console.client_rate`.
    pub client_rate: u64,
    /// `console.idle_timeout`.
    pub idle_timeout: Duration,
    /// `console.stall_timeout`.
    pub stall_timeout: Duration,
    /// `console.ping_interval`.
    pub ping_interval: Duration,
    /// `console.check_interval`.
    pub check_interval: Duration,
    /// How long sessions may go on that nobody can check.
    pub check_patience: Duration,
    /// `console.drain_timeout`.
    pub drain_timeout: Duration,
    /// How long opening may take, from the request to the first byte.
    pub open_timeout: Duration,
    /// How long a request's head may take.
    pub header_timeout: Duration,
    /// How it shows itself to screens.
    pub login: ServerLogin,
    /// How it shows itself to screens over SPICE, and reaches them.
    pub spice: SpiceLogin,
    /// TLS towards hosts' own doors to serial ports (`serial_console.ca_certs`); `None`: without.
    pub serial_tls: Option<TlsConnector>,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            hosts: ["127.0.0.1".to_owned(), "localhost".to_owned()].into(),
            schemes: ["http".to_owned()].into(),
            allowed_origins: Vec::new(),
            require_origin: true,
            max_sessions: 2000,
            max_connections: 4000,
            max_failures: 60,
            trusted_proxies: Vec::new(),
            max_message_size: 1 << 20,
            client_rate: 1 << 20,
            idle_timeout: Duration::from_secs(3600),
            stall_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(20),
            check_interval: Duration::from_millis(400),
            check_patience: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(15),
            header_timeout: Duration::from_secs(10),
            login: ServerLogin::default(),
            spice: SpiceLogin::default(),
            serial_tls: None,
        }
    }
}

impl std::fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyOptions").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl ProxyOptions {
    /// What the configuration says. The registry must know [`CONSOLE_OPTIONS`](crate::console::CONSOLE_OPTIONS).
    ///
    /// # Errors
    /// Schemes that there are not, and certificates that cannot be read.
    pub fn from_config(config: &Config) -> Result<Self, TlsError> {
        let count = |option| usize::try_from(config.get(option)).unwrap_or(usize::MAX);
        let bases = [&o::NOVNCPROXY_BASE_URL, &o::SERIAL_BASE_URL, &o::SPICE_BASE_URL].map(|base| config.get(base));
        let mut hosts: BTreeSet<String> = config.get(&o::ALLOWED_HOSTS).into_iter().collect();
        hosts.extend(bases.iter().filter_map(|base| host_of(base)));
        hosts.insert(config.get(&o::NOVNCPROXY_HOST));
        if hosts.contains("127.0.0.1") {
            hosts.insert("localhost".to_owned());
        }
        Ok(Self {
            hosts,
            schemes: bases.iter().map(|base| page_scheme(base).to_owned()).collect(),
            allowed_origins: config.get(&o::ALLOWED_ORIGINS),
            require_origin: config.get(&o::REQUIRE_ORIGIN),
            max_sessions: count(&o::MAX_SESSIONS),
            max_connections: count(&o::MAX_CONNECTIONS),
            max_failures: u32::try_from(config.get(&o::MAX_FAILURES)).unwrap_or(u32::MAX),
            trusted_proxies: addresses(&config.get(&o::TRUSTED_PROXIES))?,
            max_message_size: count(&o::MAX_MESSAGE_SIZE),
            client_rate: u64::try_from(config.get(&o::CLIENT_RATE)).unwrap_or(u64::MAX),
            idle_timeout: config.get(&o::IDLE_TIMEOUT),
            stall_timeout: config.get(&o::STALL_TIMEOUT),
            ping_interval: config.get(&o::PING_INTERVAL),
            check_interval: config.get(&o::CHECK_INTERVAL).max(Duration::from_millis(50)),
            drain_timeout: config.get(&o::DRAIN_TIMEOUT),
            login: login(config)?,
            spice: spice(config)?,
            serial_tls: Certificates::of_serial_ports(config).connector()?,
            ..Self::default()
        })
    }
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, TlsError> {
    let wrong = |text| TlsError::new("console.trusted_proxies", format!("'{text}' is no address"));
    texts.iter().map(|text| text.parse().map_err(|_| wrong(text))).collect()
}

/// The host of a URL, without its port.
fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase())
}

fn login(config: &Config) -> Result<ServerLogin, TlsError> {
    const SCHEMES: &str = "vnc.auth_schemes";
    let password = config.get(&o::VNC_PASSWORD);
    let mut schemes = Vec::new();
    for name in config.get(&o::AUTH_SCHEMES) {
        schemes.push(match name.as_str() {
            "none" => Scheme::None,
            "vnc" if password.is_none() => return Err(TlsError::new(SCHEMES, "'vnc' needs vnc.password")),
            "vnc" => Scheme::Password,
            "vencrypt" => Scheme::VeNCrypt,
            other => {
                return Err(TlsError::new(SCHEMES, format!("there is no '{other}': vencrypt, vnc or none")));
            }
        });
    }
    if schemes.is_empty() {
        return Err(TlsError::new(SCHEMES, "must name one: vencrypt, vnc or none"));
    }
    let tls = if schemes.contains(&Scheme::VeNCrypt) {
        const CA: &str = "vnc.vencrypt_ca_certs";
        let connector = Certificates::of_screens(config).connector()?;
        Some(connector.ok_or_else(|| TlsError::new(CA, "must be set for vnc.auth_schemes = vencrypt"))?)
    } else {
        None
    };
    Ok(ServerLogin { schemes, password, tls })
}

fn spice(config: &Config) -> Result<SpiceLogin, TlsError> {
    let password = config.get(&o::SPICE_PASSWORD);
    if password.as_ref().is_some_and(|password| password.len() > LONGEST_PASSWORD) {
        return Err(TlsError::new("spice.password", format!("SPICE takes {LONGEST_PASSWORD} bytes at most")));
    }
    Ok(SpiceLogin { password, tls: Certificates::of_spice(config).connector()? })
}

/// What TLS towards hosts needs: each file with the name of its option.
struct Certificates {
    authorities: (&'static str, Option<PathBuf>),
    certificate: (&'static str, Option<PathBuf>),
    key: (&'static str, Option<PathBuf>),
}

impl Certificates {
    fn of_screens(config: &Config) -> Self {
        Self {
            authorities: ("vnc.vencrypt_ca_certs", config.get(&o::VENCRYPT_CA_CERTS)),
            certificate: ("vnc.vencrypt_client_cert", config.get(&o::VENCRYPT_CLIENT_CERT)),
            key: ("vnc.vencrypt_client_key", config.get(&o::VENCRYPT_CLIENT_KEY)),
        }
    }

    /// SPICE's servers ask for no certificate.
    fn of_spice(config: &Config) -> Self {
        let none = ("spice.ca_certs", None);
        Self { authorities: ("spice.ca_certs", config.get(&o::SPICE_CA_CERTS)), certificate: none.clone(), key: none }
    }

    fn of_serial_ports(config: &Config) -> Self {
        Self {
            authorities: ("serial_console.ca_certs", config.get(&o::SERIAL_CA_CERTS)),
            certificate: ("serial_console.client_cert", config.get(&o::SERIAL_CLIENT_CERT)),
            key: ("serial_console.client_key", config.get(&o::SERIAL_CLIENT_KEY)),
        }
    }

    /// TLS with hosts whose certificates are of the given authorities, and of no others; `None` where none are given.
    fn connector(self) -> Result<Option<TlsConnector>, TlsError> {
        let (ca, authorities) = self.authorities;
        let own = match (self.certificate, self.key) {
            ((_, None), (_, None)) => None,
            ((cert, Some(certificate)), (key_name, Some(key))) => Some((cert, certificate, key_name, key)),
            ((name, None), _) | (_, (name, None)) => {
                return Err(TlsError::new(name, "a certificate and its key go together"));
            }
        };
        let Some(authorities) = authorities else {
            return match own {
                None => Ok(None),
                Some(_) => Err(TlsError::new(ca, "must be set for the proxy's own certificate to be of use")),
            };
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, &authorities)? {
            roots.add(certificate).map_err(|error| TlsError::new(ca, error))?;
        }
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let tls = match own {
            Some((name, certificate, key_name, key)) => {
                let key = PrivateKeyDer::from_pem_file(&key)
                    .map_err(|error| TlsError::new(key_name, format!("{}: {error}", key.display())))?;
                let chain = certificates(name, &certificate)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::new(name, error))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Some(TlsConnector::from(Arc::new(tls))))
    }
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error: &dyn std::fmt::Display| TlsError::new(option, format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    match read {
        Ok(found) if found.is_empty() => Err(failed(&"no certificate is in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(failed(&error)),
    }
}
