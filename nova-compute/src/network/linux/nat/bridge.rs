//! `table bridge nova_services`: who may ask for metadata under which address, and what of the services on a bridge stays
//! on this host.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::super::dhcp::{SERVICE_ADDRESS, SERVICE_MAC};
use super::{Table, elements};

/// What the table is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeRules {
    /// Guests' ends whose network this host serves.
    pub served: BTreeSet<String>,
    /// Those of them that are told their address by DHCP.
    pub told: BTreeSet<String>,
    /// All guests' ends.
    pub ports: BTreeSet<String>,
    /// Under which addresses each of them asks for metadata.
    pub callers: BTreeSet<(String, Ipv4Addr)>,
    /// Ends of services whose frames stay on this host.
    pub services: BTreeSet<String>,
    /// Legs that other hosts have, too: of these leaves what is forwarded.
    pub legs: BTreeSet<String>,
}

/// The table.
pub fn bridge_table(rules: &BridgeRules) -> Table {
    let quoted = |names: &BTreeSet<String>| elements(names.iter().map(|name| format!("\"{name}\"")));
    let callers = elements(rules.callers.iter().map(|(port, address)| format!("\"{port}\" . {address}")));
    let (served, told, ports) = (quoted(&rules.served), quoted(&rules.told), quoted(&rules.ports));
    let (services, legs) = (quoted(&rules.services), quoted(&rules.legs));
    let outwards = "oifname != \"tap*\" oifname != \"ns*\"";
    let body = format!(
        "  set served {{
    type ifname
{served}  }}
  set told {{
    type ifname
{told}  }}
  set ports {{
    type ifname
{ports}  }}
  set callers {{
    type ifname . ipv4_addr
{callers}  }}
  set services {{
    type ifname
{services}  }}
  set legs {{
    type ifname
{legs}  }}
  chain prerouting {{
    type filter hook prerouting priority -310; policy accept;
    iifname @ports ip daddr {SERVICE_ADDRESS} tcp dport 80 iifname . ip saddr != @callers drop
    iifname @served ip daddr {SERVICE_ADDRESS} ether daddr set {SERVICE_MAC}
  }}
  chain forward {{
    type filter hook forward priority -310; policy accept;
    oifname @services iifname != \"tap*\" iifname != \"ns*\" drop
    oifname @legs iifname != \"tap*\" iifname != \"ns*\" drop
    iifname @services {outwards} drop
    iifname @legs {outwards} jump leaving
    iifname @served {outwards} arp daddr ip {SERVICE_ADDRESS} drop
    iifname @told {outwards} jump asking
  }}
  chain leaving {{
    ether type arp drop
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop
    icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }} drop
  }}
  chain asking {{
    udp sport 68 udp dport 67 drop
    udp sport 546 udp dport 547 drop
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
            legs: ["nsl1".to_owned()].into(),
            ..BridgeRules::default()
        };
        let body = bridge_table(&rules).body;
        assert!(body.contains("elements = { \"tap1\", \"tap2\" }"), "{body}");
        assert!(body.contains("elements = { \"tap1\" . 10.0.0.5 }"), "{body}");
        assert!(body.contains("set legs {\n    type ifname\n    elements = { \"nsl1\" }\n"), "{body}");
        assert!(body.contains("ether daddr set 02:00:a9:fe:a9:fe"), "{body}");
    }
}
