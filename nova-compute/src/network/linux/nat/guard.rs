//! `table inet nova_host`: what of the networks of guests may come to the host itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nova_core::network::{Carrier, HostNetwork, bridge_name};

use super::{Table, elements};

/// The table; `None`: nothing of guests can come here.
///
/// The host has no address on bridges of ours, so that nothing there is for it. Frames in UDP of a network of ours come
/// from the hosts that have it, and from nobody else (RFC 7348, 7): who could send such a packet, a guest by the way out
/// of another host for one, would be on that network. Tunnels of the operator, with other identifiers, are left alone.
pub fn guard_table(wanted: &HostNetwork, vxlan_port: u16) -> Option<Table> {
    let (mut bridges, mut vnis, mut peers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (id, segment) in &wanted.segments {
        match &segment.carrier {
            Carrier::Bridge { .. } => continue,
            Carrier::Vxlan { vni, peers: others } => {
                vnis.insert(*vni);
                peers.extend(others.iter().copied());
            }
            Carrier::Local | Carrier::Flat { .. } | Carrier::Vlan { .. } => {}
        }
        bridges.insert(format!("\"{}\"", bridge_name(*id)));
    }
    if bridges.is_empty() {
        return None;
    }
    let of = |four: bool| elements(peers.iter().filter(|peer: &&IpAddr| peer.is_ipv4() == four));
    let (peers_4, peers_6) = (of(true), of(false));
    let (bridges, vnis) = (elements(bridges), elements(vnis));
    let body = format!(
        "  set bridges {{
    type ifname
{bridges}  }}
  set vnis {{
    typeof @th,96,24
{vnis}  }}
  set peers_4 {{
    type ipv4_addr
{peers_4}  }}
  set peers_6 {{
    type ipv6_addr
{peers_6}  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname @bridges drop
    udp dport {vxlan_port} @th,96,24 @vnis jump tunnel
  }}
  chain tunnel {{
    ip saddr @peers_4 return
    ip6 saddr @peers_6 return
    drop
  }}
"
    );
    Some(Table { family: "inet", name: "nova_host", body })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nova_core::network::Segment;

    use super::*;

    fn network(carrier: Carrier) -> HostNetwork {
        let segment = Segment {
            carrier,
            mtu: 1450,
            admin_state_up: true,
            dns_domain: String::new(),
            subnets: BTreeMap::new(),
            serves: true,
            ports: BTreeMap::new(),
            elsewhere: Vec::new(),
        };
        let id = "00000001-0000-4000-8000-000000000002".parse().unwrap();
        HostNetwork { segments: [(id, segment)].into(), ..HostNetwork::default() }
    }

    #[test]
    fn frames_in_udp_come_from_hosts_of_the_network_only() {
        let peers = ["192.0.2.2", "fd00::2"].map(|peer| peer.parse().unwrap()).into();
        let body = guard_table(&network(Carrier::Vxlan { vni: 70_000, peers }), 8472).unwrap().body;
        for line in [
            "elements = { \"brq00000001-00\" }",
            "elements = { 70000 }",
            "elements = { 192.0.2.2 }",
            "elements = { fd00::2 }",
            "udp dport 8472 @th,96,24 @vnis jump tunnel",
        ] {
            assert!(body.contains(line), "{line} in {body}");
        }
    }

    #[test]
    fn nothing_is_said_of_bridges_of_the_operator() {
        assert_eq!(guard_table(&network(Carrier::Bridge { physical_network: "office".into() }), 4789), None);
        assert_eq!(guard_table(&HostNetwork::default(), 4789), None);
    }
}
