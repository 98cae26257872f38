//! What an operator may set about metadata.

use std::path::{Path, PathBuf};

use nova_core::options::guests::DHCP_DOMAIN;
use nova_core::options::{Config, Opt, OptionDecl};
use serde_json::{Map, Value};

const CONTROL: &[&str] = &["nova-api", "nova-conductor"];
const API: &[&str] = &["nova-api"];

/// `api.vendordata_jsonfile_path`
pub const VENDORDATA_JSONFILE_PATH: Opt<Option<PathBuf>> = Opt::path("api", "vendordata_jsonfile_path")
    .roles(CONTROL)
    .help("A file with a JSON object that every guest is told as vendor_data.json. Read at start.")
    .optional();
/// `neutron.service_metadata_proxy`
pub const SERVICE_METADATA_PROXY: Opt<bool> = Opt::boolean("neutron", "service_metadata_proxy").roles(API).help(
    "The application 'metadata' answers proxies of an outside Neutron, which say in signed headers for which server they \
     ask. Hosts answer their own guests and do not need it.",
);
/// `neutron.metadata_proxy_shared_secret`
pub const METADATA_PROXY_SHARED_SECRET: Opt<String> = Opt::string("neutron", "metadata_proxy_shared_secret")
    .default("")
    .secret()
    .roles(API)
    .help("The secret by which those proxies sign. Empty: none is believed.");

/// Options that only metadata has.
pub const METADATA_OPTIONS: &[OptionDecl] = &[
    DHCP_DOMAIN.decl(),
    VENDORDATA_JSONFILE_PATH.decl(),
    SERVICE_METADATA_PROXY.decl(),
    METADATA_PROXY_SHARED_SECRET.decl(),
];

/// What all guests are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestOptions {
    /// `api.dhcp_domain`; empty: none.
    pub domain: String,
    /// What is in `api.vendordata_jsonfile_path`.
    pub vendor_data: Map<String, Value>,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self { domain: "novalocal".into(), vendor_data: Map::new() }
    }
}

impl GuestOptions {
    /// What the configuration says. The registry must know [`METADATA_OPTIONS`]. As in Nova, a file that cannot be read is
    /// told in the log and stands for an empty one.
    pub fn from_config(config: &Config) -> Self {
        let vendor_data = config.get(&VENDORDATA_JSONFILE_PATH).map(|path| vendor_data(&path)).unwrap_or_default();
        Self { domain: config.get(&DHCP_DOMAIN), vendor_data }
    }

    /// A server's whole name.
    pub fn full_name(&self, hostname: &str) -> String {
        if self.domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{}", self.domain) }
    }
}

fn vendor_data(path: &Path) -> Map<String, Value> {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    match read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
        Ok(object) => object,
        Err(error) => {
            tracing::warn!(path = %path.display(), "no guest is told vendor data: {error}");
            Map::new()
        }
    }
}

/// Whose proxies are believed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// `neutron.service_metadata_proxy`.
    pub enabled: bool,
    /// `neutron.metadata_proxy_shared_secret`.
    pub shared_secret: String,
}

impl ProxyOptions {
    /// What the configuration says. The registry must know [`METADATA_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        Self { enabled: config.get(&SERVICE_METADATA_PROXY), shared_secret: config.get(&METADATA_PROXY_SHARED_SECRET) }
    }
}

impl std::fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyOptions").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}
