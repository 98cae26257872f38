//! What an operator may set about a host's network.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nova_core::ids::HostName;
use nova_core::network::Cidr;
use nova_core::options::guests::DHCP_DOMAIN;
use nova_core::options::{Config, Opt, OptionDecl, common};
use sha2::{Digest as _, Sha256};

const COMPUTE: &[&str] = &["nova-compute"];

/// `network.plumbing`
pub const PLUMBING: Opt<String> =
    Opt::choice("network", "plumbing", &["books", "linux"]).default("books").roles(COMPUTE).help(
        "How hosts plug guests in: 'linux' with bridges, VXLAN or VLAN, dnsmasq and nftables (needs root), 'books' not \
         at all: addresses are in the books and no packet flows.",
    );
/// `network.tunnel_ip`
pub const TUNNEL_IP: Opt<Option<String>> = Opt::string("network", "tunnel_ip")
    .roles(COMPUTE)
    .help("The address under which other hosts reach this one's tunnels (VXLAN). Not set: DEFAULT.my_ip.")
    .optional();
/// `DEFAULT.my_ip`
pub const MY_IP: Opt<String> = Opt::string("DEFAULT", "my_ip")
    .default("127.0.0.1")
    .roles(COMPUTE)
    .help("The address of this host on the network that the cloud's hosts share.");
/// `network.interface_mappings`
pub const INTERFACE_MAPPINGS: Opt<Vec<String>> = Opt::list("network", "interface_mappings").roles(COMPUTE).help(
    "The interface of this host for each physical network, as physnet1:eth1: for networks of type vlan and flat_dhcp. \
     The interface becomes a port of a bridge, so it should carry no address of the host.",
);
/// `network.bridge_mappings`
pub const BRIDGE_MAPPINGS: Opt<Vec<String>> = Opt::list("network", "bridge_mappings").roles(COMPUTE).help(
    "The bridge of this host for each physical network, as physnet1:br0: for networks of type flat. The operator makes \
     it.",
);
/// `network.vxlan_port`
pub const VXLAN_PORT: Opt<i64> = Opt::integer("network", "vxlan_port", 1, 65_535)
    .default("4789")
    .roles(COMPUTE)
    .help("The UDP port of tunnels; the same on all hosts.");
/// `DEFAULT.public_interface`
pub const PUBLIC_INTERFACE: Opt<Option<String>> = Opt::string("DEFAULT", "public_interface")
    .roles(COMPUTE)
    .help("The interface of this host that floating addresses are on. Not set: that of the default route.")
    .optional();
/// `DEFAULT.dhcp_lease_time`
pub const DHCP_LEASE_TIME: Opt<Duration> = Opt::seconds("DEFAULT", "dhcp_lease_time", 120, 31_536_000)
    .default("86400")
    .roles(COMPUTE)
    .help("How long a guest keeps its address before it asks again.");
/// `DEFAULT.dnsmasq_config_file`
pub const DNSMASQ_CONFIG_FILE: Opt<Option<PathBuf>> = Opt::path("DEFAULT", "dnsmasq_config_file")
    .roles(COMPUTE)
    .help("A configuration file of dnsmasq to read as well, for all networks.")
    .optional();
/// `network.dnsmasq_path`
pub const DNSMASQ_PATH: Opt<PathBuf> = Opt::path("network", "dnsmasq_path")
    .default("/run/nova-network")
    .roles(COMPUTE)
    .help("Where dnsmasq finds its files, which it reads without the rights of root. Nothing there must outlive a restart of the machine.");
/// `DEFAULT.dns_server`
pub const DNS_SERVER: Opt<Vec<String>> = Opt::list("DEFAULT", "dns_server")
    .roles(COMPUTE)
    .help("Name servers that guests are told of besides their network's own, where their subnet names none.");
/// `network.namespace_prefix`
pub const NAMESPACE_PREFIX: Opt<String> = Opt::string("network", "namespace_prefix")
    .default("")
    .roles(COMPUTE)
    .help("What the names of this host's network namespaces begin with; needed where several hosts share a machine.");

/// `network.routed_ranges`
pub const ROUTED_RANGES: Opt<Vec<String>> = Opt::list("network", "routed_ranges").roles(COMPUTE).help(
    "Ranges of addresses in which subnets of projects are reached from outside as they are, where routers don't \
     translate (IPv6, or source NAT off): this host has routes to them. Projects choose their ranges themselves; those \
     outside of these are not reached and do not leave. Not set: none.",
);

/// Options of the network of hosts.
pub const NETWORK_HOST_OPTIONS: &[OptionDecl] = &[
    PLUMBING.decl(),
    TUNNEL_IP.decl(),
    MY_IP.decl(),
    INTERFACE_MAPPINGS.decl(),
    BRIDGE_MAPPINGS.decl(),
    VXLAN_PORT.decl(),
    PUBLIC_INTERFACE.decl(),
    DHCP_DOMAIN.decl(),
    DHCP_LEASE_TIME.decl(),
    DNSMASQ_CONFIG_FILE.decl(),
    DNSMASQ_PATH.decl(),
    DNS_SERVER.decl(),
    NAMESPACE_PREFIX.decl(),
    ROUTED_RANGES.decl(),
];

/// The settings of a host's plumbing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlumbingOptions {
    /// The network namespace that plays the host (as `ip netns` names it); `None`: that of this process.
    pub namespace: Option<String>,
    /// The host's name; MAC addresses of its own are made of it.
    pub host: HostName,
    /// The folder for what must outlive the process.
    pub state: PathBuf,
    /// The folder for dnsmasq's files: all may enter it.
    pub dnsmasq: PathBuf,
    /// The address that tunnels come from.
    pub tunnel_ip: IpAddr,
    /// The UDP port of tunnels.
    pub vxlan_port: u16,
    /// Interfaces by physical network.
    pub interface_mappings: BTreeMap<String, String>,
    /// Bridges of the operator by physical network.
    pub bridge_mappings: BTreeMap<String, String>,
    /// The interface that floating addresses are on; `None`: that of the default route.
    pub public_interface: Option<String>,
    /// The domain of servers' names where the network has none.
    pub dhcp_domain: String,
    /// How long a guest keeps its address.
    pub dhcp_lease_time: Duration,
    /// A configuration file of dnsmasq to read as well.
    pub dnsmasq_config_file: Option<PathBuf>,
    /// Name servers for guests whose subnet names none.
    pub dns_servers: Vec<IpAddr>,
    /// What the names of its network namespaces begin with.
    pub namespace_prefix: String,
    /// Ranges in which subnets of projects may be routed by the host.
    pub routed_ranges: Vec<Cidr>,
}

impl PlumbingOptions {
    /// The defaults for a host of that name.
    pub fn new(host: impl Into<HostName>, state: impl Into<PathBuf>, tunnel_ip: IpAddr) -> Self {
        let state = state.into();
        Self {
            namespace: None,
            host: host.into(),
            dnsmasq: state.join("dnsmasq"),
            state,
            tunnel_ip,
            vxlan_port: 4789,
            interface_mappings: BTreeMap::new(),
            bridge_mappings: BTreeMap::new(),
            public_interface: None,
            dhcp_domain: "novalocal".to_owned(),
            dhcp_lease_time: Duration::from_secs(86_400),
            dnsmasq_config_file: None,
            dns_servers: Vec::new(),
            namespace_prefix: String::new(),
            routed_ranges: Vec::new(),
        }
    }

    /// What the configuration says about that host. The registry must know [`NETWORK_HOST_OPTIONS`], and the
    /// configuration must have passed [`network_options_fit`].
    pub fn from_config(config: &Config, host: HostName) -> Self {
        let my_ip = config.get(&TUNNEL_IP).unwrap_or_else(|| config.get(&MY_IP));
        let tunnel_ip = my_ip.parse().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let state = config.get(&common::STATE_PATH).join("network").join(host.as_str());
        // Hosts of one name, of several deployments on one machine, have folders of their own.
        let own = Sha256::digest(state.as_os_str().as_encoded_bytes());
        let own: String = own.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self {
            dnsmasq: config.get(&DNSMASQ_PATH).join(format!("{host}-{own}")),
            vxlan_port: u16::try_from(config.get(&VXLAN_PORT)).unwrap_or(4789),
            interface_mappings: mappings(&config.get(&INTERFACE_MAPPINGS)).unwrap_or_default(),
            bridge_mappings: mappings(&config.get(&BRIDGE_MAPPINGS)).unwrap_or_default(),
            public_interface: config.get(&PUBLIC_INTERFACE),
            dhcp_domain: config.get(&DHCP_DOMAIN),
            dhcp_lease_time: config.get(&DHCP_LEASE_TIME),
            dnsmasq_config_file: config.get(&DNSMASQ_CONFIG_FILE),
            dns_servers: config.get(&DNS_SERVER).iter().filter_map(|server| server.parse().ok()).collect(),
            namespace_prefix: config.get(&NAMESPACE_PREFIX),
            routed_ranges: config.get(&ROUTED_RANGES).iter().filter_map(|range| range.parse().ok()).collect(),
            ..Self::new(host, state, tunnel_ip)
        }
    }
}

/// Checks what no option's type says: for [`nova_core::options::Registry::check`].
pub fn network_options_fit(config: &Config) -> Result<(), (&'static str, String)> {
    let lists = [("network.interface_mappings", &INTERFACE_MAPPINGS), ("network.bridge_mappings", &BRIDGE_MAPPINGS)];
    for (name, option) in lists {
        let read = mappings(&config.get(option));
        read.map_err(|item| (name, format!("'{item}' is not of the form physical-network:interface")))?;
    }
    let one = [("DEFAULT.my_ip", Some(config.get(&MY_IP))), ("network.tunnel_ip", config.get(&TUNNEL_IP))];
    let one = one.into_iter().filter_map(|(name, address)| address.map(|address| (name, address)));
    let prefix = config.get(&NAMESPACE_PREFIX);
    if prefix.len() > 64 || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(("network.namespace_prefix", format!("'{prefix}' is not of letters, digits and dashes")));
    }
    for range in config.get(&ROUTED_RANGES) {
        let wrong = |_| ("network.routed_ranges", format!("'{range}' is not a range of addresses"));
        range.parse::<Cidr>().map_err(wrong)?;
    }
    let servers = config.get(&DNS_SERVER).into_iter().map(|address| ("DEFAULT.dns_server", address));
    for (name, address) in one.chain(servers) {
        address.parse::<IpAddr>().map_err(|_| (name, format!("'{address}' is not an IP address")))?;
    }
    Ok(())
}

/// `physnet1:eth1` and so on; or the item that is not like that. The kernel's names have up to 15 bytes.
fn mappings(items: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for item in items {
        let fits = |name: &str| {
            (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
        };
        let pair = item.split_once(':').map(|(network, name)| (network.trim(), name.trim()));
        match pair.filter(|(network, name)| !network.is_empty() && fits(name)) {
            Some((network, name)) => found.insert(network.to_owned(), name.to_owned()),
            None => return Err(item.clone()),
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use nova_core::options::Source;

    use super::*;

    fn read(settings: &[&str]) -> Result<PlumbingOptions, String> {
        let registry = common::registry().with(NETWORK_HOST_OPTIONS).check(network_options_fit);
        let home = (Source::CommandLine, "DEFAULT.state_path=/srv/nova");
        let sources = settings.iter().map(|text| (Source::CommandLine, *text)).chain([home]);
        let config = Config::load(&registry, sources).map_err(|errors| format!("{errors:?}"))?;
        Ok(PlumbingOptions::from_config(&config, HostName::new("host-1")))
    }

    #[test]
    fn a_host_is_described() {
        let options = read(&[
            "DEFAULT.my_ip=192.0.2.1",
            "network.interface_mappings=physnet1:eth1, physnet2:eth2",
            "network.bridge_mappings=office:br0",
            "DEFAULT.dns_server=9.9.9.9",
        ])
        .unwrap();
        assert_eq!(options.tunnel_ip.to_string(), "192.0.2.1");
        assert_eq!(options.interface_mappings["physnet2"], "eth2");
        assert_eq!(options.bridge_mappings["office"], "br0");
        assert_eq!(options.state, PathBuf::from("/srv/nova/network/host-1"));
        let tunnel = read(&["DEFAULT.my_ip=192.0.2.1", "network.tunnel_ip=fd00::1"]).unwrap().tunnel_ip;
        assert_eq!(tunnel.to_string(), "fd00::1");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_option() {
        for (setting, option) in [
            ("network.interface_mappings=eth1", "interface_mappings"),
            ("network.bridge_mappings=a:a name with spaces", "bridge_mappings"),
            ("network.bridge_mappings=a:sixteen-letters-", "bridge_mappings"),
            ("network.tunnel_ip=here", "tunnel_ip"),
            ("DEFAULT.dns_server=ns.example", "dns_server"),
            ("network.routed_ranges=10.0.0.0/33", "routed_ranges"),
            ("network.namespace_prefix=a/b", "namespace_prefix"),
        ] {
            let error = read(&[setting]).unwrap_err();
            assert!(error.contains(option), "{setting}: {error}");
        }
    }
}
