//! `table inet nova` in a router's namespace: floating addresses, what guests without one appear as, and who may pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use nova_core::network::{Cidr, IpVersion};

use super::super::dhcp::SERVICE_ADDRESS;
use super::super::nat::{Table, elements};
use super::OUT;

/// What a router's table is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouterRules {
    /// Floating addresses with the fixed ones that they stand for.
    pub floating: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The same of guests that are on their way here: for what they send only.
    pub coming: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// What the other guests appear as outside; `None`: as they are.
    pub source: Option<Ipv4Addr>,
    /// What they appear as to a guest behind the same router whom they reach by its floating address.
    pub hairpin: Option<Ipv4Addr>,
    /// Ranges on its legs that are reached from outside as they are.
    pub routed: BTreeSet<Cidr>,
}

impl RouterRules {
    /// Of the pairs those of version 4: version 6 has no translation.
    pub fn floating_of(pairs: &BTreeMap<IpAddr, IpAddr>) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let four = |(floating, fixed): (&IpAddr, &IpAddr)| match (floating, fixed) {
            (IpAddr::V4(floating), IpAddr::V4(fixed)) => Some((*floating, *fixed)),
            _ => None,
        };
        pairs.iter().filter_map(four).collect()
    }
}

/// The table. Replies to what was let through need no rule: hosts that share a router each see one direction of what passes
/// between its legs, so nothing there depends on knowing the connection. What is translated on the way out does: without
/// its connection a packet would leave as it is.
pub fn router_table(rules: &RouterRules) -> Table {
    let RouterRules { floating, coming, source, hairpin, routed } = rules;
    let inwards = elements(floating.iter().map(|(floating, fixed)| format!("{floating} : {fixed}")));
    // A fixed address with several floating ones goes out under the first.
    let mut first: BTreeMap<Ipv4Addr, Ipv4Addr> = BTreeMap::new();
    for (floating, fixed) in floating.iter().chain(coming) {
        first.entry(*fixed).or_insert(*floating);
    }
    let outwards = elements(first.iter().map(|(fixed, floating)| format!("{fixed} : {floating}")));
    let of = |version| elements(routed.iter().filter(|range| range.version() == version));
    let (routed_4, routed_6) = (of(IpVersion::V4), of(IpVersion::V6));
    let others = |condition: &str, address: &Option<Ipv4Addr>| match address {
        Some(address) => format!("    meta nfproto ipv4 {condition} snat ip to {address}\n"),
        None => String::new(),
    };
    let leaving = others(&format!("oifname \"{OUT}\""), source);
    let turning = others("iifname \"leg*\" ct status dnat", hairpin);
    let body = format!(
        "  map floating_in {{
    type ipv4_addr : ipv4_addr
{inwards}  }}
  map floating_out {{
    type ipv4_addr : ipv4_addr
{outwards}  }}
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
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    meta nfproto ipv4 dnat ip to ip daddr map @floating_in
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta nfproto ipv4 oifname \"{OUT}\" snat ip to ip saddr map @floating_out
{leaving}    meta nfproto ipv4 iifname \"leg*\" ct status dnat snat ip to ip saddr map @floating_out
{turning}  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname \"leg*\" oifname \"leg*\" accept
    iifname \"leg*\" oifname \"{OUT}\" ip daddr 169.254.0.0/16 drop
    iifname \"leg*\" oifname \"{OUT}\" ip saddr != @routed_4 ct state invalid drop
    iifname \"leg*\" oifname \"{OUT}\" accept
    iifname \"{OUT}\" oifname \"leg*\" ct status dnat accept
    iifname \"{OUT}\" oifname \"leg*\" ct state established,related accept
    iifname \"{OUT}\" oifname \"leg*\" ip daddr @routed_4 accept
    iifname \"{OUT}\" oifname \"leg*\" ip6 daddr @routed_6 accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname \"lo\" accept
    ct state established,related accept
    icmp type echo-request accept
    meta l4proto ipv6-icmp accept
    iifname \"leg*\" ip daddr {SERVICE_ADDRESS} tcp dport 80 accept
  }}
"
    );
    Table { family: "inet", name: "nova", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn floating_addresses_go_both_ways() {
        let floating = [
            ("203.0.113.5", "10.0.0.5"),
            ("203.0.113.9", "10.0.0.5"),
            ("203.0.113.6", "10.0.0.6"),
            ("2001:db8::1", "fd00::1"),
        ];
        let floating: BTreeMap<IpAddr, IpAddr> =
            floating.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
        let rules = RouterRules {
            floating: RouterRules::floating_of(&floating),
            coming: [(address("203.0.113.8"), address("10.0.0.8"))].into(),
            source: Some(address("203.0.113.2")),
            hairpin: Some(address("203.0.113.2")),
            routed: ["2001:db8:5::/64".parse().unwrap()].into(),
        };
        let body = router_table(&rules).body;
        for line in [
            "elements = { 203.0.113.5 : 10.0.0.5, 203.0.113.6 : 10.0.0.6, 203.0.113.9 : 10.0.0.5 }",
            "elements = { 10.0.0.5 : 203.0.113.5, 10.0.0.6 : 203.0.113.6, 10.0.0.8 : 203.0.113.8 }",
            "oifname \"out\" snat ip to 203.0.113.2",
            "iifname \"leg*\" ct status dnat snat ip to 203.0.113.2",
            "elements = { 2001:db8:5::/64 }",
            "iifname \"leg*\" oifname \"out\" ip saddr != @routed_4 ct state invalid drop",
        ] {
            assert!(body.contains(line), "{line} in {body}");
        }
    }

    #[test]
    fn without_translation_guests_go_as_they_are() {
        let rules = RouterRules { hairpin: Some(address("169.254.64.1")), ..RouterRules::default() };
        let body = router_table(&rules).body;
        assert!(!body.contains("oifname \"out\" snat ip to 1"), "{body}");
        assert!(body.contains("ct status dnat snat ip to 169.254.64.1"), "{body}");
    }
}
