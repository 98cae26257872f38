//! `table inet nova_nat` of the host: what routers may reach over it, and under which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use nova_core::network::{Cidr, IpVersion};

use super::super::router::LINKS;
use super::{Forwarding, Table, elements};

/// What the host's table is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRules {
    /// The interface that leads to the world.
    pub public: String,
    /// The host's address there, under which routers without one appear.
    pub address: Option<Ipv4Addr>,
    /// The UDP port of the hosts' tunnels.
    pub vxlan_port: u16,
    /// The host is no router but for these: what comes from the world goes to them only.
    pub only_routers: bool,
    /// Who sees to the same for version 6.
    pub six: Forwarding,
    /// Bridges of the host, where rules see to it.
    pub bridges: Vec<String>,
    /// What is behind each link to a router, by the link's name.
    pub links: BTreeMap<String, Sources>,
}

/// What is behind a link: what may come from there, and what is reached there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The router's address on the link.
    pub own: Option<Ipv4Addr>,
    /// Addresses that the host announces for it: floating ones and its own outer one.
    pub announced: BTreeSet<Ipv4Addr>,
    /// Ranges behind it that are reached as they are.
    pub routed: BTreeSet<Cidr>,
}

/// Nothing of version 6 passes between interfaces that are no routers'. What is bridged passes by here as from a bridge to
/// itself, also on bridges that are newer than this rule.
fn between_others(bridges: &[String]) -> String {
    let of = |bridge: &String| format!("    meta nfproto ipv6 iifname \"{bridge}\" oifname != \"{bridge}\" drop\n");
    let kinds = ["iifkind", "oifkind"].map(|end| format!("    meta nfproto ipv6 meta {end} != \"bridge\" drop\n"));
    kinds.into_iter().chain(bridges.iter().map(of)).collect()
}

/// The table. It says nothing about packets that do not come from a router or go to one.
///
/// Nobody behind a router speaks with the hosts' tunnels: under the host's address a guest would be taken for a host.
/// What connection tracking can't make sense of is not hidden behind the host's address, and so does not leave.
pub fn host_table(rules: &HostRules) -> Table {
    let HostRules { public, address, vxlan_port, only_routers, links, .. } = rules;
    let routed = |version| {
        let ranges = links.values().flat_map(|sources| &sources.routed);
        elements(ranges.filter(move |range| range.version() == version))
    };
    let (routed_4, routed_6) = (routed(IpVersion::V4), routed(IpVersion::V6));
    let announced = elements(links.values().flat_map(|sources| &sources.announced).collect::<BTreeSet<_>>());
    let from = |version: IpVersion| {
        elements(links.iter().flat_map(move |(link, sources)| {
            let four = sources.own.iter().chain(&sources.announced).filter(move |_| version == IpVersion::V4);
            let ranges = sources.routed.iter().filter(move |range| range.version() == version);
            let all = four.map(ToString::to_string).chain(ranges.map(ToString::to_string));
            all.map(move |source| format!("\"{link}\" . {source}"))
        }))
    };
    let (from_4, from_6) = (from(IpVersion::V4), from(IpVersion::V6));
    // Routers that speak with each other over the host do it under the address that the world sees.
    let between = match address {
        Some(address) => format!("    ip saddr {LINKS} oifname \"nvr*\" snat ip to {address}\n"),
        None => String::new(),
    };
    // A bridge's own frames may come by here.
    let world = format!("iifname \"{public}\" oifname != \"{public}\" oifname != \"nvr*\" drop\n");
    let four = if *only_routers { format!("    meta nfproto ipv4 {world}") } else { String::new() };
    let six = match rules.six {
        Forwarding::Operators => String::new(),
        Forwarding::ByInterface => format!("    meta nfproto ipv6 {world}"),
        Forwarding::ByRules => between_others(&rules.bridges),
    };
    let only = four + &six;
    let body = format!(
        "  set announced {{
    type ipv4_addr
{announced}  }}
  set routed_4 {{
    type ipv4_addr
    flags interval
    auto-merge
{routed_4}  }}
  set routed_6 {{
    type ipv6_addr
    flags interval
    auto-merge
{routed_6}  }}
  set from_4 {{
    type ifname . ipv4_addr
    flags interval
{from_4}  }}
  set from_6 {{
    type ifname . ipv6_addr
    flags interval
{from_6}  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname \"nvr*\" jump from_router
  }}
  chain from_router {{
    ct state established,related accept
    icmp type echo-request accept
    icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert }} accept
    drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname \"nvr*\" jump leaving
    oifname \"nvr*\" jump entering
{only}  }}
  chain leaving {{
    udp dport {vxlan_port} drop
    iifname . ip saddr != @from_4 drop
    iifname . ip6 saddr != @from_6 drop
    ip saddr {LINKS} ct state invalid drop
    oifname \"nvr*\" return
    oifname \"{public}\" accept
    drop
  }}
  chain entering {{
    iifname != \"nvr*\" iifname != \"{public}\" drop
    ct state established,related accept
    ip daddr @announced accept
    ip daddr @routed_4 accept
    ip6 daddr @routed_6 accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {LINKS} oifname \"{public}\" masquerade
{between}  }}
"
    );
    Table { family: "inet", name: "nova_nat", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_announced_or_routed_is_reached() {
        let rules = HostRules {
            public: "eth0".into(),
            address: Some(Ipv4Addr::new(198, 51, 100, 2)),
            vxlan_port: 4789,
            only_routers: false,
            six: Forwarding::Operators,
            bridges: Vec::new(),
            links: BTreeMap::from([
                (
                    "nvr1".to_owned(),
                    Sources {
                        own: Some(Ipv4Addr::new(169, 254, 64, 1)),
                        announced: [Ipv4Addr::new(203, 0, 113, 5)].into(),
                        routed: ["2001:db8::/64".parse().unwrap(), "10.0.0.0/24".parse().unwrap()].into(),
                    },
                ),
                (
                    "nvr2".to_owned(),
                    Sources { announced: [Ipv4Addr::new(203, 0, 113, 4)].into(), ..Sources::default() },
                ),
            ]),
        };
        let body = host_table(&rules).body;
        for line in [
            "elements = { 203.0.113.4, 203.0.113.5 }",
            "elements = { 10.0.0.0/24 }",
            "elements = { 2001:db8::/64 }",
            "elements = { \"nvr1\" . 169.254.64.1, \"nvr1\" . 203.0.113.5, \"nvr1\" . 10.0.0.0/24, \"nvr2\" . 203.0.113.4 }",
            "elements = { \"nvr1\" . 2001:db8::/64 }",
            "udp dport 4789 drop",
            "ip saddr 169.254.64.0/18 oifname \"eth0\" masquerade",
            "ip saddr 169.254.64.0/18 oifname \"nvr*\" snat ip to 198.51.100.2",
        ] {
            assert!(body.contains(line), "{line} in {body}");
        }
        let only = "iifname \"eth0\" oifname != \"eth0\" oifname != \"nvr*\" drop";
        assert!(!body.contains(only), "who routes for others goes on to do so");
        let with = |rules: HostRules| host_table(&rules).body;
        let four = with(HostRules { only_routers: true, ..rules.clone() });
        assert!(four.contains(&format!("nfproto ipv4 {only}")) && !four.contains("nfproto ipv6"), "{four}");
        let six = with(HostRules { six: Forwarding::ByInterface, ..rules.clone() });
        assert!(six.contains(&format!("nfproto ipv6 {only}")) && !six.contains("nfproto ipv4"), "{six}");
        let bridges = vec!["br0".to_owned()];
        let six = with(HostRules { six: Forwarding::ByRules, bridges, ..rules });
        for line in ["iifkind != \"bridge\" drop", "iifname \"br0\" oifname != \"br0\" drop"] {
            assert!(
                six.contains(&format!(
                    "meta nfproto ipv6 {}{line}",
                    if line.starts_with("iifk") { "meta " } else { "" }
                ))
            );
        }
        let bare = host_table(&HostRules { public: "eth0".into(), ..HostRules::default() }).body;
        assert!(!bare.contains("elements") && !bare.contains("snat ip"), "{bare}");
    }

    #[test]
    fn nothing_is_said_about_packets_of_the_operator() {
        let body = host_table(&HostRules { public: "eth0".into(), ..HostRules::default() }).body;
        let mut base = "";
        for line in body.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("chain ") {
                base = if ["input", "forward", "postrouting"].iter().any(|b| name.starts_with(b)) { name } else { "" };
            } else if !base.is_empty() && line != "}" && !line.starts_with("type") {
                assert!(line.contains("nvr*") || line.contains("169.254.64.0/18"), "{base}: {line}");
            }
        }
    }
}
