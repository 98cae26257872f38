//! What an operator may set about consoles, under Nova's names where Nova has them.

use std::path::PathBuf;
use std::time::Duration;

use nova_core::options::{Config, Opt, OptionDecl};

const API: &[&str] = &["nova-api"];

/// `consoleauth.token_ttl`
pub const TOKEN_TTL: Opt<Duration> = Opt::seconds("consoleauth", "token_ttl", 1, 86_400)
    .default("60")
    .reloads()
    .roles(API)
    .help("How long the address of a console is good for opening it. Nova's default is 600.");
/// `vnc.enabled`
pub const VNC_ENABLED: Opt<bool> = Opt::boolean("vnc", "enabled")
    .default("true")
    .reloads()
    .roles(API)
    .help("Whether users get the addresses of screens.");
/// `vnc.novncproxy_base_url`
pub const NOVNCPROXY_BASE_URL: Opt<String> = Opt::url("vnc", "novncproxy_base_url", &["http", "https"])
    .default("http://127.0.0.1:6080/vnc_auto.html")
    .reloads()
    .roles(&["nova-api", "nova-novncproxy"])
    .help("Where users reach nova-novncproxy, or what stands in front of several of them, with the path of the page.");
/// `serial_console.enabled`
pub const SERIAL_ENABLED: Opt<bool> = Opt::boolean("serial_console", "enabled")
    .default("true")
    .reloads()
    .roles(API)
    .help("Whether users get the addresses of serial ports.");
/// `serial_console.base_url`
pub const SERIAL_BASE_URL: Opt<String> = Opt::url("serial_console", "base_url", &["ws", "wss", "http", "https"])
    .default("ws://127.0.0.1:6080/")
    .reloads()
    .roles(&["nova-api", "nova-novncproxy"])
    .help(
        "Where users reach serial ports: the websocket itself, as with Nova, or the page of a terminal, \
         http://127.0.0.1:6080/serial.html. nova-novncproxy serves both.",
    );

/// `spice.html5proxy_base_url`
pub const SPICE_BASE_URL: Opt<String> = Opt::url("spice", "html5proxy_base_url", &["http", "https"])
    .default("http://127.0.0.1:6080/spice_auto.html")
    .reloads()
    .roles(&["nova-api", "nova-novncproxy"])
    .help(
        "Where users reach screens over SPICE, with the path of the page; nova-novncproxy serves it. Whether there are such \
         screens, each host says (spice.enabled).",
    );

const AUTH: &[&str] = &["nova-consoleauth"];
const PROXY: &[&str] = &["nova-novncproxy"];

/// `consoleauth.single_use`
pub const SINGLE_USE: Opt<bool> = Opt::boolean("consoleauth", "single_use").default("true").roles(AUTH).help(
    "Whether the address of a console opens it once. Off, as in Nova: as often as one likes until token_ttl is over.",
);
/// `consoleauth.max_session`
pub const MAX_SESSION: Opt<Duration> = Opt::seconds("consoleauth", "max_session", 1, 31_536_000)
    .default("28800")
    .roles(AUTH)
    .help("How long a console stays open at most.");
/// `consoleauth.resume`
pub const RESUME: Opt<bool> = Opt::boolean("consoleauth", "resume").default("true").roles(AUTH).help(
    "Whether a browser may go on with its session when its proxy is gone: by a cookie that is good once and as long as the \
     session may last, and that goes with the session when that ends in order. Screens over SPICE need it for their channels: \
     off, it is good for those alone that are opened in the session's first minute.",
);
/// `vnc.novncproxy_host`
pub const NOVNCPROXY_HOST: Opt<String> = Opt::string("vnc", "novncproxy_host")
    .default("127.0.0.1")
    .roles(PROXY)
    .help("The address that nova-novncproxy listens on. Nova's default is all of them, 0.0.0.0.");
/// `vnc.novncproxy_port`
pub const NOVNCPROXY_PORT: Opt<i64> = Opt::integer("vnc", "novncproxy_port", 0, 65_535)
    .default("6080")
    .roles(PROXY)
    .help("Its port; 0: any that is free.");
/// `vnc.auth_schemes`
pub const AUTH_SCHEMES: Opt<Vec<String>> = Opt::list("vnc", "auth_schemes").default("none").roles(PROXY).help(
    "How the proxy shows itself to screens, the best first: vencrypt (TLS with certificates on both sides), vnc (the \
     password of vnc.password), none.",
);
/// `vnc.password`
pub const VNC_PASSWORD: Opt<Option<String>> = Opt::string("vnc", "password")
    .secret()
    .roles(PROXY)
    .help("The password of screens (vnc_password of QEMU's configuration), of which VNC takes 8 characters.")
    .optional();
/// `vnc.vencrypt_ca_certs`
pub const VENCRYPT_CA_CERTS: Opt<Option<PathBuf>> = Opt::path("vnc", "vencrypt_ca_certs")
    .roles(PROXY)
    .help("Certificates of the authorities that sign the screens' certificates, PEM.")
    .optional();
/// `vnc.vencrypt_client_cert`
pub const VENCRYPT_CLIENT_CERT: Opt<Option<PathBuf>> = Opt::path("vnc", "vencrypt_client_cert")
    .roles(PROXY)
    .help("The proxy's own certificate, PEM. Not set: it shows none.")
    .optional();
/// `vnc.vencrypt_client_key`
pub const VENCRYPT_CLIENT_KEY: Opt<Option<PathBuf>> =
    Opt::path("vnc", "vencrypt_client_key").roles(PROXY).help("The key of that certificate, PEM.").optional();
/// `serial_console.ca_certs`
pub const SERIAL_CA_CERTS: Opt<Option<PathBuf>> = Opt::path("serial_console", "ca_certs")
    .roles(PROXY)
    .help(
        "Certificates of the authorities that sign the hosts' certificates for serial ports (serial_console.tls_cert), PEM. \
         Set: serial ports are reached by TLS, and a host without it is not reached. Not set: without TLS.",
    )
    .optional();
/// `serial_console.client_cert`
pub const SERIAL_CLIENT_CERT: Opt<Option<PathBuf>> = Opt::path("serial_console", "client_cert")
    .roles(PROXY)
    .help("The proxy's own certificate towards serial ports, PEM. Not set: it shows none.")
    .optional();
/// `serial_console.client_key`
pub const SERIAL_CLIENT_KEY: Opt<Option<PathBuf>> =
    Opt::path("serial_console", "client_key").roles(PROXY).help("The key of that certificate, PEM.").optional();
/// `spice.password`
pub const SPICE_PASSWORD: Opt<Option<String>> = Opt::string("spice", "password")
    .secret()
    .roles(PROXY)
    .help("The password of screens over SPICE (spice_password of QEMU's configuration), 60 bytes at most.")
    .optional();
/// `spice.ca_certs`
pub const SPICE_CA_CERTS: Opt<Option<PathBuf>> = Opt::path("spice", "ca_certs")
    .roles(PROXY)
    .help(
        "Certificates of the authorities that sign the certificates of screens over SPICE, PEM. Set: they are reached by TLS \
         (spice_tls of QEMU's configuration), and one without it is not reached. Not set: without TLS.",
    )
    .optional();
/// `console.allowed_origins`
pub const ALLOWED_ORIGINS: Opt<Vec<String>> = Opt::list("console", "allowed_origins").default("").roles(PROXY).help(
    "Pages of which other origins may open consoles: host names, or whole origins as https://dashboard.example:8443.",
);
/// `console.allowed_hosts`
pub const ALLOWED_HOSTS: Opt<Vec<String>> = Opt::list("console", "allowed_hosts").default("").roles(PROXY).help(
    "Further names by which browsers may reach the proxy, besides those of vnc.novncproxy_base_url and \
     serial_console.base_url and spice.html5proxy_base_url. A request that names another host is refused.",
);
/// `console.require_origin`
pub const REQUIRE_ORIGIN: Opt<bool> = Opt::boolean("console", "require_origin").default("true").roles(PROXY).help(
    "Whether a websocket must say from which page it is opened. Browsers always do; switch it off for other clients.",
);
/// `console.max_sessions`
pub const MAX_SESSIONS: Opt<i64> = Opt::integer("console", "max_sessions", 1, 1_000_000)
    .default("2000")
    .unit("sessions")
    .roles(PROXY)
    .help("Consoles that one proxy has open at once, each channel of a screen over SPICE counted; one more is answered with 503.");
/// `console.max_connections`
pub const MAX_CONNECTIONS: Opt<i64> = Opt::integer("console", "max_connections", 1, 1_000_000)
    .default("4000")
    .unit("connections")
    .roles(PROXY)
    .help("Connections that one proxy has open at once, those that ask for pages included.");
/// `console.max_failures`
pub const MAX_FAILURES: Opt<i64> = Opt::integer("console", "max_failures", 1, 1_000_000)
    .default("60")
    .unit("a minute")
    .roles(PROXY)
    .help("Openings with bad tokens that one address may try in a minute; after them it is answered with 429.");
/// `console.trusted_proxies`
pub const TRUSTED_PROXIES: Opt<Vec<String>> = Opt::list("console", "trusted_proxies").default("").roles(PROXY).help(
    "Addresses of what stands in front of the proxy. Who asks is read from their X-Forwarded-For: without, all users are one to \
     max_failures.",
);
/// `console.max_message_size`
pub const MAX_MESSAGE_SIZE: Opt<i64> = Opt::integer("console", "max_message_size", 4096, 1 << 30)
    .default("1048576")
    .unit("bytes")
    .roles(PROXY)
    .help("The longest message that a client may send; a longer one ends its session.");
/// `console.client_rate`
pub const CLIENT_RATE: Opt<i64> = Opt::integer("console", "client_rate", 1024, 1 << 40)
    .default("1048576")
    .unit("bytes a second")
    .roles(PROXY)
    .help("What a client may send in the long run, each message counted with 64 bytes more; what is faster waits.");
/// `console.idle_timeout`
pub const IDLE_TIMEOUT: Opt<Duration> = Opt::seconds("console", "idle_timeout", 1, 31_536_000)
    .default("3600")
    .roles(PROXY)
    .help("A session whose client has sent nothing for so long is closed; over SPICE, no key and no pointer.");
/// `console.stall_timeout`
pub const STALL_TIMEOUT: Opt<Duration> = Opt::seconds("console", "stall_timeout", 1, 3600)
    .default("60")
    .roles(PROXY)
    .help("A session whose client takes nothing for so long, while there is something for it, is closed.");
/// `console.ping_interval`
pub const PING_INTERVAL: Opt<Duration> = Opt::seconds("console", "ping_interval", 1, 3600)
    .default("20")
    .roles(PROXY)
    .help("How often a client is asked whether it is there; one that says nothing three times is gone.");
/// `console.check_interval`
pub const CHECK_INTERVAL: Opt<Duration> = Opt::seconds("console", "check_interval", 0, 10)
    .default("0.4")
    .roles(PROXY)
    .help("How often a proxy asks which of its sessions have to end. With 0.4, they end within a second.");
/// `console.drain_timeout`
pub const DRAIN_TIMEOUT: Opt<Duration> = Opt::seconds("console", "drain_timeout", 0, 86_400)
    .default("5")
    .roles(PROXY)
    .help("How long open consoles may go on when a proxy is stopped; then browsers are told to go on with another.");
/// `console.web_root`
pub const WEB_ROOT: Opt<Option<PathBuf>> = Opt::path("console", "web_root")
    .roles(PROXY)
    .help("The folder with noVNC and xterm.js as dev/web leaves it. Not set: where this program was built.")
    .optional();

/// Options of consoles.
pub const CONSOLE_OPTIONS: &[OptionDecl] = &[
    TOKEN_TTL.decl(),
    VNC_ENABLED.decl(),
    NOVNCPROXY_BASE_URL.decl(),
    SERIAL_ENABLED.decl(),
    SERIAL_BASE_URL.decl(),
    SPICE_BASE_URL.decl(),
    SINGLE_USE.decl(),
    MAX_SESSION.decl(),
    RESUME.decl(),
    NOVNCPROXY_HOST.decl(),
    NOVNCPROXY_PORT.decl(),
    AUTH_SCHEMES.decl(),
    VNC_PASSWORD.decl(),
    VENCRYPT_CA_CERTS.decl(),
    VENCRYPT_CLIENT_CERT.decl(),
    VENCRYPT_CLIENT_KEY.decl(),
    SERIAL_CA_CERTS.decl(),
    SERIAL_CLIENT_CERT.decl(),
    SERIAL_CLIENT_KEY.decl(),
    SPICE_PASSWORD.decl(),
    SPICE_CA_CERTS.decl(),
    ALLOWED_ORIGINS.decl(),
    ALLOWED_HOSTS.decl(),
    REQUIRE_ORIGIN.decl(),
    MAX_SESSIONS.decl(),
    MAX_CONNECTIONS.decl(),
    MAX_FAILURES.decl(),
    TRUSTED_PROXIES.decl(),
    MAX_MESSAGE_SIZE.decl(),
    CLIENT_RATE.decl(),
    IDLE_TIMEOUT.decl(),
    STALL_TIMEOUT.decl(),
    PING_INTERVAL.decl(),
    CHECK_INTERVAL.decl(),
    DRAIN_TIMEOUT.decl(),
    WEB_ROOT.decl(),
];

/// Where the API sends users, and how long what it gives them lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleUrls {
    /// `consoleauth.token_ttl`.
    pub token_ttl: Duration,
    /// `vnc.novncproxy_base_url`; `None`: `vnc.enabled` is off.
    pub novnc: Option<String>,
    /// `serial_console.base_url`; `None`: `serial_console.enabled` is off.
    pub serial: Option<String>,
    /// `spice.html5proxy_base_url`.
    pub spice: String,
}

impl Default for ConsoleUrls {
    fn default() -> Self {
        Self {
            token_ttl: Duration::from_secs(60),
            novnc: Some("http://127.0.0.1:6080/vnc_auto.html".to_owned()),
            serial: Some("ws://127.0.0.1:6080/".to_owned()),
            spice: "http://127.0.0.1:6080/spice_auto.html".to_owned(),
        }
    }
}

impl ConsoleUrls {
    /// What the configuration says. Where the registry does not know [`CONSOLE_OPTIONS`], the defaults.
    pub fn from_config(config: &Config) -> Self {
        Self {
            token_ttl: config.get(&TOKEN_TTL),
            novnc: config.get(&VNC_ENABLED).then(|| config.get(&NOVNCPROXY_BASE_URL)),
            serial: config.get(&SERIAL_ENABLED).then(|| config.get(&SERIAL_BASE_URL)),
            spice: config.get(&SPICE_BASE_URL),
        }
    }
}

/// How nova-consoleauth judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthOptions {
    /// `consoleauth.single_use`.
    pub single_use: bool,
    /// `consoleauth.max_session`.
    pub max_session: Duration,
    /// `consoleauth.resume`.
    pub resume: bool,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self { single_use: true, max_session: Duration::from_secs(28_800), resume: true }
    }
}

impl AuthOptions {
    /// What the configuration says. The registry must know [`CONSOLE_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        Self { single_use: config.get(&SINGLE_USE), max_session: config.get(&MAX_SESSION), resume: config.get(&RESUME) }
    }
}
