//! What an operator may set about the built-in network service, under Neutron's names.

use nova_core::network::{NetworkLimits, NetworkResource};
use nova_core::options::{Config, Opt, OptionDecl};

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
        pub const NETWORK_OPTIONS: &[OptionDecl] = &[$($name.decl(),)+ GLOBAL_PHYSNET_MTU.decl(), MAX_LIMIT.decl()];
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
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self { limits: NetworkLimits::default(), mtu: 1500, max_limit: None }
    }
}

impl NetworkOptions {
    /// Reads what the configuration says. The registry must know [`NETWORK_OPTIONS`].
    pub fn from_config(config: &Config) -> Self {
        let limits = QUOTAS.iter().map(|(resource, option)| (*resource, u64::try_from(config.get(option)).ok()));
        Self {
            limits: NetworkLimits(limits.collect()),
            mtu: u32::try_from(config.get(&GLOBAL_PHYSNET_MTU)).unwrap_or(1500),
            max_limit: usize::try_from(config.get(&MAX_LIMIT)).ok(),
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
