//! `table bridge nova_services`: who may ask for metadata under which address, and where that is.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::super::dhcp::{SERVICE_ADDRESS, SERVICE_MAC};
use super::{Table, elements};

/// What the table is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeRules {
    /// Guests' ends whose network this host serves.
    pub served: BTreeSet<String>,
    /// All guests' ends.
    pub ports: BTreeSet<String>,
    /// Under which addresses each of them asks for metadata.
    pub callers: BTreeSet<(String, Ipv4Addr)>,
}

/// The table. A guest asks for metadata under its own addresses, whatever else its port may send: who answers tells guests
/// apart by that. A guest that does not know that the service is on its own link sends to its gateway; its frames are
/// given the right way here.
pub fn bridge_table(rules: &BridgeRules) -> Table {
    let quoted = |names: &BTreeSet<String>| elements(names.iter().map(|name| format!("\"{name}\"")));
    let callers = elements(rules.callers.iter().map(|(port, address)| format!("\"{port}\" . {address}")));
    let (served, ports) = (quoted(&rules.served), quoted(&rules.ports));
    let body = format!(
        "  set served {{
    type ifname
{served}  }}
  set ports {{
    type ifname
{ports}  }}
  set callers {{
    type ifname . ipv4_addr
{callers}  }}
  chain prerouting {{
    type filter hook prerouting priority -310; policy accept;
    iifname @ports ip daddr {SERVICE_ADDRESS} tcp dport 80 iifname . ip saddr != @callers drop
    iifname @served ip daddr {SERVICE_ADDRESS} ether daddr set {SERVICE_MAC}
  }}
"
    );
    Table { family: "bridge", name: "nova_services", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_asks_under_its_own_addresses() {
        let rules = BridgeRules {
            ports: ["tap1".to_owned(), "tap2".to_owned()].into(),
            callers: [("tap1".to_owned(), Ipv4Addr::new(10, 0, 0, 5))].into(),
            ..BridgeRules::default()
        };
        let body = bridge_table(&rules).body;
        assert!(body.contains("elements = { \"tap1\", \"tap2\" }"), "{body}");
        assert!(body.contains("elements = { \"tap1\" . 10.0.0.5 }"), "{body}");
        assert!(body.contains("ether daddr set 02:00:a9:fe:a9:fe"), "{body}");
    }
}
