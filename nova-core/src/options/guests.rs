//! Options about what guests are told, by the control plane and by their hosts alike.

use super::Opt;

/// `api.dhcp_domain`
pub const DHCP_DOMAIN: Opt<String> = Opt::string("api", "dhcp_domain")
    .default("novalocal")
    .old_names(&[("DEFAULT", "dhcp_domain")])
    .roles(&["nova-api", "nova-conductor", "nova-compute"])
    .help(
        "The domain that servers are told to be in, by metadata, config drive and DHCP, and in which their names are \
         found, on networks that have none of their own. Empty: they are told their names alone.",
    );
