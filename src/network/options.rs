//! What an operator may set about the built-in network service, under Neutron's names.

use nova_core::network::{Cidr, NetworkLimits, NetworkResource, check_subnet};
use nova_core::options::{Config, Opt, OptionDecl};

use super::{Gateways, SegmentOptions, service};

const API: &[&str] = &["nova-api"];

macro_rules! quotas {
    ($($name:ident: $key:literal, $default:literal, $resource:ident, $what:literal;)+) => {
        $(
            #[doc = concat!("`quotas.", $key, "`")]
            pub const $name: Opt<i64> = Opt::integer("quotas", $key, -1, i64::MAX)
                .default($default)
                .roles(API)
                .help(concat!("How many ", $what, " a project may have that has no limit of its own. -1 is no limit."));
        )+
        const QUOTAS: &[(NetworkResource, &Opt<i64>)] = &[$((NetworkResource::$resource, &$name)),+];

        /// Options that only the built-in network service has.
        pub const NETWORK_OPTIONS: &[OptionDecl] = &[
            $($name.decl(),)+
            GLOBAL_PHYSNET_MTU.decl(),
            MAX_LIMIT.decl(),
            AUTO_SUBNET.decl(),
            PUBLIC_SUBNET.decl(),
        ];
    };
}

/// `DEFAULT.global_physnet_mtu`
pub const GLOBAL_PHYSNET_MTU: Opt<i64> = Opt::integer("DEFAULT", "global_physnet_mtu", 68, 65535)
    .default("1500")
    .unit("bytes")
    .roles(API)
    .help("The largest packet that the hosts' network carries; new networks begin with it.");
/// `DEFAULT.pagination_max_limit`
pub const MAX_LIMIT: Opt<i64> = Opt::integer("DEFAULT", "pagination_max_limit", -1, 1_000_000)
    .default("-1")
    .unit("items")
    .roles(API)
    .help("Items of a page of networks, ports and the like at most. -1 is no limit.");

/// `network.auto_subnet`
pub const AUTO_SUBNET: Opt<String> =
    Opt::string("network", "auto_subnet").default("10.0.0.0/24").unit("CIDR").roles(API).help(
        "The range of the subnet that a project gets with its auto-allocated topology (servers created with `--nic \
         auto`). Each project's is its own, so all may have the same. Empty: there are no such topologies.",
    );
/// `network.public_subnet`
pub const PUBLIC_SUBNET: Opt<String> =
    Opt::string("network", "public_subnet").default("172.24.4.0/24").unit("CIDR").roles(API).help(
        "The range of the outer network `public` that is made at the first start of a deployment, for routers and \
         floating addresses. Empty: none is made.",
    );

quotas! {
    QUOTA_NETWORK: "quota_network", "100", Network, "networks";
    QUOTA_SUBNET: "quota_subnet", "100", Subnet, "subnets";
    QUOTA_PORT: "quota_port", "500", Port, "ports";
    QUOTA_ROUTER: "quota_router", "10", Router, "routers";
    QUOTA_FLOATINGIP: "quota_floatingip", "50", FloatingIp, "floating addresses";
    QUOTA_SECURITY_GROUP: "quota_security_group", "10", SecurityGroup, "security groups";
    QUOTA_SECURITY_GROUP_RULE: "quota_security_group_rule", "100", SecurityGroupRule, "rules of security groups";
}

/// Options of the network service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// `quotas.quota_*`.
    pub limits: NetworkLimits,
    /// `DEFAULT.global_physnet_mtu`.
    pub mtu: u32,
    /// `DEFAULT.pagination_max_limit`.
    pub max_limit: Option<usize>,
    /// `network.auto_subnet`.
    pub auto_subnet: Option<Cidr>,
    /// `network.public_subnet`.
    pub public_subnet: Option<Cidr>,
    /// What carries networks.
    pub segments: SegmentOptions,
    /// Where gateways are (`DEFAULT.multi_host`, `DEFAULT.network_host`).
    pub gateways: Gateways,
    /// `DEFAULT.agent_down_time`.
    pub agent_down_time: std::time::Duration,
}

/// Is what is said of ranges such? An entry of [`Registry::check`](nova_core::options::Registry::check).
///
/// # Errors
/// The option and what is wrong with it.
pub fn ranges_fit(config: &Config) -> Result<(), (&'static str, String)> {
    let fits = |text: &str| match text.parse::<Cidr>() {
        Ok(cidr) => check_subnet(&cidr, true).map_err(|problem| problem.to_string()),
        Err(error) => Err(error.to_string()),
    };
    for (name, option) in [("network.auto_subnet", &AUTO_SUBNET), ("network.public_subnet", &PUBLIC_SUBNET)] {
        let text = config.get(option);
        if !text.is_empty() {
            fits(&text).map_err(|problem| (name, problem))?;
        }
    }
    Ok(())
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            limits: NetworkLimits::default(),
            mtu: 1500,
            max_limit: None,
            auto_subnet: "10.0.0.0/24".parse().ok(),
            public_subnet: None,
            segments: SegmentOptions::default(),
            gateways: Gateways::EveryHost,
            agent_down_time: std::time::Duration::from_secs(75),
        }
    }
}

impl NetworkOptions {
    /// Reads what the configuration says. The registry must know [`NETWORK_OPTIONS`],
    /// [`SEGMENT_OPTIONS`](super::SEGMENT_OPTIONS) and [`service::HOSTS_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let limits = QUOTAS.iter().map(|(resource, option)| (*resource, u64::try_from(config.get(option)).ok()));
        Self {
            limits: NetworkLimits(limits.collect()),
            mtu: u32::try_from(config.get(&GLOBAL_PHYSNET_MTU)).unwrap_or(1500),
            max_limit: usize::try_from(config.get(&MAX_LIMIT)).ok(),
            auto_subnet: config.get(&AUTO_SUBNET).parse().ok(),
            public_subnet: config.get(&PUBLIC_SUBNET).parse().ok(),
            segments: SegmentOptions::from_config(config),
            gateways: service::gateways(config),
            agent_down_time: config.get(&service::AGENT_DOWN_TIME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_defaults_are_neutrons() {
        let defaults = NetworkLimits::default();
        for (resource, option) in QUOTAS {
            let text = option.decl().default.unwrap_or_default().to_owned();
            assert_eq!(text.parse().ok(), defaults.of(*resource), "{}", resource.as_str());
        }
        assert_eq!(QUOTAS.len(), NetworkResource::ALL.len());
    }
}
