//! What an operator may set about the service.

use std::time::Duration;

use nova_core::ids::HostName;
use nova_core::options::{Config, Opt, OptionDecl};

use crate::network::Gateways;

const BOTH: &[&str] = &["nova-api", "nova-network"];

/// `DEFAULT.multi_host`
pub const MULTI_HOST: Opt<bool> = Opt::boolean("DEFAULT", "multi_host").default("true").roles(BOTH).help(
    "Every compute host is the gateway of its own guests: it routes, answers DHCP and holds their floating addresses. \
     Otherwise one host does all of that for all (`network_host`).",
);
/// `DEFAULT.network_host`
pub const NETWORK_HOST: Opt<String> = Opt::string("DEFAULT", "network_host").roles(BOTH).help(
    "The compute host that is everybody's gateway, where `multi_host` is off. It runs nova-compute, disabled or not.",
);
/// `DEFAULT.agent_down_time`
pub const AGENT_DOWN_TIME: Opt<Duration> = Opt::seconds("DEFAULT", "agent_down_time", 2, 86_400)
    .default("75")
    .roles(&["nova-api"])
    .help("A host's network agent that was not heard of for so long is shown as not alive.");

/// Options of the service between books and hosts.
pub const HOSTS_OPTIONS: &[OptionDecl] = &[MULTI_HOST.decl(), NETWORK_HOST.decl(), AGENT_DOWN_TIME.decl()];

/// Where gateways are, by the configuration.
pub fn gateways(config: &Config) -> Gateways {
    if config.get(&MULTI_HOST) {
        return Gateways::EveryHost;
    }
    Gateways::Node(HostName::new(config.get(&NETWORK_HOST)))
}

/// Is there a gateway? An entry of [`Registry::check`](nova_core::options::Registry::check).
///
/// # Errors
/// The option and what is wrong with it.
pub fn gateways_fit(config: &Config) -> Result<(), (&'static str, String)> {
    if !config.get(&MULTI_HOST) && config.get(&NETWORK_HOST).is_empty() {
        return Err(("DEFAULT.network_host", "must name a host, as multi_host is off".to_owned()));
    }
    Ok(())
}

/// The service's settings.
#[derive(Debug, Clone)]
pub struct HostsOptions {
    /// Where gateways are.
    pub gateways: Gateways,
    /// Changes of so long a time are told together.
    pub window: Duration,
}

impl Default for HostsOptions {
    fn default() -> Self {
        Self { gateways: Gateways::EveryHost, window: Duration::from_millis(50) }
    }
}

impl HostsOptions {
    /// Reads what the configuration says. The registry must know [`HOSTS_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        Self { gateways: gateways(config), ..Self::default() }
    }
}
