//! What the rulesets are, and how one becomes another.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{NetworkId, PortId, SecurityGroupId};
use nova_core::network::{
    Carrier, Direction, EtherType, Group, GroupRule, HostNetwork, HostPort, PortSecurity, Remote, Segment,
};

use super::rules::{Compare, GROUP_CHAIN, add_chain, add_members, chain_name, outermost};
use super::*;
use crate::network::PlumbingOptions;
use crate::network::linux::layout::segment_layout;

fn group_id(number: u32) -> SecurityGroupId {
    format!("{number:08x}-0000-4000-8000-000000000003").parse().unwrap()
}

fn network_id() -> NetworkId {
    "00000001-0000-4000-8000-000000000002".parse().unwrap()
}

fn rule(protocol: Option<u8>, ports: (Option<u16>, Option<u16>), remote: Remote) -> GroupRule {
    GroupRule { direction: Direction::Ingress, ethertype: EtherType::V4, protocol, ports, remote }
}

fn tcp(first: u16, last: u16, remote: Remote) -> GroupRule {
    rule(Some(6), (Some(first), Some(last)), remote)
}

fn prefix(text: &str) -> Remote {
    Remote::Prefix(text.parse().unwrap())
}

fn group(rules: impl IntoIterator<Item = GroupRule>, members: &[&str]) -> Group {
    let members = members.iter().map(|member| member.parse().unwrap()).collect();
    Group { rules: rules.into_iter().collect(), members, stateful: true }
}

/// The rules of a group's chain, with the sets that it brought.
fn chain(rules: impl IntoIterator<Item = GroupRule>, compare: Compare) -> (Vec<String>, Table) {
    let mut table = Table::default();
    let groups = BTreeMap::from([(group_id(1), group(rules, &[])), (group_id(2), group([], &["10.0.0.0/8"]))]);
    add_chain(&mut table, group_id(1), &groups, Direction::Ingress, compare);
    (table.chains[&chain_name(group_id(1), Direction::Ingress, compare)].rules.clone(), table)
}

#[test]
fn rules_that_differ_in_ports_or_ranges_only_become_one() {
    let rules = (0..2000).map(|n| tcp(n * 2, n * 2, Remote::Any));
    let (chain_of_ports, table) = chain(rules, Compare::Connection);
    let (name, set) = table.sets.first_key_value().unwrap();
    assert_eq!(chain_of_ports, [format!("meta nfproto ipv4 meta l4proto 6 ct original proto-dst @{name} accept")]);
    assert_eq!(set.elements.len(), 2000);

    let rules = (0..=255).map(|n| tcp(22, 22, prefix(&format!("192.0.{n}.0/24"))));
    let (chain_of_ranges, table) = chain(rules, Compare::Connection);
    let (name, set) = table.sets.first_key_value().unwrap();
    assert_eq!(
        chain_of_ranges,
        [format!("meta l4proto 6 ct original proto-dst 22 ct original ip saddr @{name} accept")]
    );
    assert_eq!(set.elements.len(), 256);
}

#[test]
fn overlapping_ports_and_ranges_are_joined() {
    let rules = [tcp(10, 20, Remote::Any), tcp(15, 30, Remote::Any), tcp(31, 31, Remote::Any)];
    assert_eq!(
        chain(rules, Compare::Connection).0,
        ["meta nfproto ipv4 meta l4proto 6 ct original proto-dst 10-31 accept"]
    );
    let ranges = ["10.0.0.0/8", "10.1.0.0/16", "10.255.255.255/32", "11.0.0.0/8"].map(|text| text.parse().unwrap());
    let left: Vec<String> = outermost(ranges.iter()).iter().map(ToString::to_string).collect();
    assert_eq!(left, ["10.0.0.0/8", "11.0.0.0/8"]);
    // Whoever may come from anywhere needs no range besides.
    let rules = [tcp(22, 22, prefix("10.0.0.0/8")), tcp(22, 22, prefix("0.0.0.0/0"))];
    assert_eq!(
        chain(rules, Compare::Connection).0,
        ["meta nfproto ipv4 meta l4proto 6 ct original proto-dst 22 accept"]
    );
}

#[test]
fn each_kind_of_rule() {
    let icmp = |kind, code| rule(Some(1), (kind, code), Remote::Any);
    let six = |protocol, remote| GroupRule { ethertype: EtherType::V6, ..rule(Some(protocol), (None, None), remote) };
    let cases = [
        (rule(None, (None, None), Remote::Any), "meta nfproto ipv4 accept"),
        (rule(Some(47), (Some(3), None), Remote::Any), "meta nfproto ipv4 meta l4proto 47 accept"),
        (rule(Some(6), (None, None), Remote::Any), "meta nfproto ipv4 meta l4proto 6 accept"),
        (icmp(None, None), "meta nfproto ipv4 meta l4proto 1 accept"),
        (icmp(Some(8), None), "meta nfproto ipv4 meta l4proto 1 icmp type 8 accept"),
        (icmp(Some(3), Some(4)), "meta nfproto ipv4 meta l4proto 1 icmp type 3 icmp code 4 accept"),
        (six(1, Remote::Any), "meta nfproto ipv6 meta l4proto 58 accept"),
        (six(17, prefix("fd00::/64")), "meta l4proto 17 ct original ip6 saddr fd00::/64 accept"),
    ];
    for (rule, text) in cases {
        assert_eq!(chain([rule.clone()], Compare::Connection).0, [text], "{rule:?}");
    }
    let by_packet = chain([tcp(1, 2, prefix("10.0.0.0/8"))], Compare::Packet).0;
    assert_eq!(by_packet, ["meta l4proto 6 th dport 1-2 ip saddr 10.0.0.0/8 accept"]);
    // A range that is of the other version says nothing.
    assert!(chain([tcp(1, 2, prefix("fd00::/64"))], Compare::Connection).0.is_empty());
}

#[test]
fn members_are_looked_up_in_sets() {
    let remote = Remote::Group(group_id(2));
    let rules = chain([rule(Some(6), (None, None), remote)], Compare::Connection).0;
    let name = "00000002000040008000000000000003";
    assert_eq!(
        rules,
        [
            format!("meta l4proto 6 ct original ip saddr @m4_{name} accept"),
            format!("meta l4proto 6 ct original ip saddr @m4_{name}_nets accept"),
        ]
    );
    let mut table = Table::default();
    add_members(&mut table, group_id(2), &group([], &["10.0.0.1/32", "10.1.0.0/16", "10.1.2.0/24", "fd00::1/128"]));
    let elements = |set: &str| table.sets[set].elements.keys().cloned().collect::<Vec<_>>();
    assert_eq!(elements(&format!("m4_{name}")), ["10.0.0.1"]);
    assert_eq!(elements(&format!("m4_{name}_nets")), ["10.1.0.0/16"]);
    assert_eq!(elements(&format!("m6_{name}")), ["fd00::1"]);
}

/// Ports of one network on a host, each with its groups.
fn host(ports: &[(u32, &[u32])], groups: impl IntoIterator<Item = (u32, Group)>) -> HostNetwork {
    let port = |(number, groups): &(u32, &[u32])| {
        let id: PortId = format!("{number:08x}-0000-4000-8000-000000000001").parse().unwrap();
        let subnet = "00000001-0000-4000-8000-000000000004".parse().unwrap();
        let port = HostPort {
            mac: format!("fa:16:3e:00:00:{number:02x}").parse().unwrap(),
            addresses: vec![(subnet, format!("10.0.0.{number}").parse().unwrap())],
            hostname: String::new(),
            instance: None,
            admin_state_up: true,
            security: Some(PortSecurity {
                groups: groups.iter().map(|group| group_id(*group)).collect(),
                pairs: Vec::new(),
            }),
        };
        (id, port)
    };
    let segment = Segment {
        carrier: Carrier::Local,
        mtu: 1450,
        admin_state_up: true,
        dns_domain: String::new(),
        subnets: BTreeMap::new(),
        serves: false,
        ports: ports.iter().map(port).collect(),
        elsewhere: Vec::new(),
    };
    let groups = groups.into_iter().map(|(number, group)| (group_id(number), group)).collect();
    HostNetwork { segments: [(network_id(), segment)].into(), groups, routers: BTreeMap::new() }
}

fn made(wanted: &HostNetwork, marks: &mut Marks) -> Ruleset {
    let options = PlumbingOptions::new("host-1", "/nowhere", "192.0.2.1".parse().unwrap());
    let layouts =
        wanted.segments.iter().map(|(id, segment)| (*id, segment_layout(&options, *id, segment).unwrap())).collect();
    let plan = Plan::new(wanted, &layouts, BTreeSet::new());
    plan.number(marks);
    ruleset(&plan, wanted, marks)
}

fn ssh() -> GroupRule {
    tcp(22, 22, Remote::Group(group_id(1)))
}

#[test]
fn ports_with_the_same_groups_share_everything_but_their_addresses() {
    let mut marks = Marks::default();
    let one = made(&host(&[(1, &[1])], [(1, group([ssh()], &["10.0.0.1/32"]))]), &mut marks);
    let ports: Vec<(u32, &[u32])> = (1..100).map(|number| (number, &[1][..])).collect();
    let many = made(&host(&ports, [(1, group([ssh()], &["10.0.0.1/32"]))]), &mut marks);
    let chains =
        |ruleset: &Ruleset| ruleset.tables.values().flat_map(|table| table.chains.keys().cloned()).collect::<Vec<_>>();
    assert_eq!(chains(&one), chains(&many));
    let sources = &many.tables["bridge"].sets["sources4"].elements;
    assert!(sources.contains_key("\"tap00000007-00\" . fa:16:3e:00:00:07 . 10.0.0.7"), "{sources:?}");
}

#[test]
fn a_member_more_is_one_element_and_cuts_nothing() {
    let mut marks = Marks::default();
    let old = made(&host(&[(1, &[1])], [(1, group([ssh()], &["10.0.0.1/32"]))]), &mut marks);
    let new = made(&host(&[(1, &[1])], [(1, group([ssh()], &["10.0.0.1/32", "10.0.0.2/32"]))]), &mut marks);
    let set = "m4_00000001000040008000000000000003";
    let more = difference(&old, &new).unwrap();
    assert_eq!(more.script, format!("add element inet nova {set} {{ 10.0.0.2 }}\n"));
    assert_eq!((more.garbage.as_str(), more.narrows), ("", false));
    let less = difference(&new, &old).unwrap();
    assert_eq!(less.script, format!("delete element inet nova {set} {{ 10.0.0.2 }}\n"));
    assert!(less.narrows);
    assert_eq!(difference(&old, &old), Some(Change::default()));
}

#[test]
fn a_rule_more_lets_more_through_and_a_rule_less_narrows() {
    let mut marks = Marks::default();
    let web = tcp(80, 80, prefix("10.0.0.0/8"));
    let old = made(&host(&[(1, &[1])], [(1, group([ssh()], &[]))]), &mut marks);
    let new = made(&host(&[(1, &[1])], [(1, group([ssh(), web], &[]))]), &mut marks);
    let chain = format!("{GROUP_CHAIN}00000001000040008000000000000003_in");
    let more = difference(&old, &new).unwrap();
    assert!(more.script.starts_with(&format!("flush chain inet nova {chain}\n")), "{}", more.script);
    assert_eq!(more.script.lines().count(), 3);
    assert!(!more.narrows);
    assert!(difference(&new, &old).unwrap().narrows);
}

#[test]
fn a_port_comes_and_goes() {
    let mut marks = Marks::default();
    let groups = || [(1, group([ssh()], &[])), (2, group([ssh()], &[]))];
    let old = made(&host(&[(1, &[1])], groups()), &mut marks);
    let before = marks.clone();
    let new = made(&host(&[(1, &[1]), (2, &[2])], groups()), &mut marks);
    let change = difference(&old, &new).unwrap();
    assert!(!change.narrows, "{}", change.script);
    assert!(change.script.contains("add element bridge nova arrive { \"tap00000002-00\" : goto from_guest }"));
    assert!(!change.script.contains("tap00000001-00"), "{}", change.script);
    // The chains are there before the elements that lead to them.
    let place = |text: &str| change.script.find(text).unwrap_or_else(|| panic!("{text}: {}", change.script));
    assert!(place("add chain inet nova profile2_in") < place("add element inet nova source"));
    let back = difference(&new, &old).unwrap();
    assert!(back.narrows);
    assert!(back.garbage.contains("delete chain inet nova profile2_in"), "{}", back.garbage);
    assert!(!back.script.contains("delete chain"));
    // The first port has kept its numbers.
    assert_eq!(before.zones, marks.zones);
}

#[test]
fn a_group_that_nothing_is_known_of_lets_nothing_through() {
    let ruleset = made(&host(&[(1, &[1, 9])], [(1, group([ssh()], &[]))]), &mut Marks::default());
    let jumps = &ruleset.tables["inet"].chains["profile1_in"].rules;
    assert_eq!(*jumps, ["jump g_00000001000040008000000000000003_in", "drop"]);
}

#[test]
fn another_shape_means_the_whole() {
    let mut marks = Marks::default();
    let old = made(&host(&[(1, &[1])], [(1, group([ssh()], &[]))]), &mut marks);
    let mut new = old.clone();
    std::sync::Arc::make_mut(new.tables.get_mut("inet").unwrap()).sets.get_mut("bridges").unwrap().shape =
        Shape::set("type ipv4_addr");
    assert_eq!(difference(&old, &new), None);
    assert_eq!(difference(&Ruleset::default(), &old), None);
}

#[test]
fn the_whole_is_one_transaction_in_an_order_that_the_kernel_takes() {
    let mut marks = Marks { generation: 7, ..Marks::default() };
    let text = made(&host(&[(1, &[1])], [(1, group([ssh()], &["10.0.0.1/32"]))]), &mut marks).to_string();
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in {text}"));
    let order = [
        "table bridge nova {}\ndelete table bridge nova\n",
        "add element bridge nova arrive",
        "table inet nova {}\ndelete table inet nova\n",
        "set m4_00000001000040008000000000000003 { type ipv4_addr;\n    elements = { 10.0.0.1 }",
        "chain from_connection {\n    ct state established,related ct mark 7 accept\n",
        "chain g_00000001000040008000000000000003_in {\n    meta l4proto 6 ct original proto-dst 22 ct original ip saddr @m4_",
        "chain leaving {\n    type filter hook postrouting priority 0; policy accept;\n    oifname @bridges ct mark != 7 ct mark set 7",
        "chain profile1_in {\n    jump g_00000001000040008000000000000003_in\n    drop\n",
        "add element inet nova source { original . 0x4e560001 : goto profile1_out, reply . 0x4e560001 : goto profile1_in }",
        "add element inet nova zones { \"brq00000001-00\" : 1 }",
    ];
    let places: Vec<usize> = order.iter().map(|part| place(part)).collect();
    assert!(places.is_sorted(), "{places:?}\n{text}");
}

#[test]
fn zones_are_set_before_fragments_are_put_together() {
    let ruleset = made(&host(&[(1, &[1])], [(1, group([ssh()], &[]))]), &mut Marks::default());
    let text = ruleset.to_string();
    assert!(text.contains("type filter hook prerouting priority -450; policy accept;\n    ct zone set"), "{text}");
}

#[test]
fn without_its_file_generations_begin_where_none_was() {
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let known = Memory { marks: Marks { generation: 7, ..Marks::default() }, ..Memory::default() };
    let text = serde_json::to_vec(&known).unwrap();
    assert_eq!(Memory::read(Some(&text), now), known);
    for lost in [None, Some(&text[..9])] {
        assert_eq!(Memory::read(lost, now).marks.generation, 1_700_000_000);
    }
    assert_eq!((following(7), following(u32::MAX)), (8, 1), "0 is that of connections without a stamp");
}

#[test]
fn what_is_in_fragments_or_asks_from_a_wire_is_judged() {
    let ruleset = made(&host(&[(1, &[1])], [(1, group([ssh()], &[]))]), &mut Marks::default());
    let chains = &ruleset.tables["bridge"].chains;
    let first = |chain: &str| chains[chain].rules[0].clone();
    assert_eq!(first("from_guest6"), "exthdr frag exists jump fragment6", "before anything is let through");
    assert_eq!(chains["fragment6"].rules[1], "icmpv6 type { 133, 134, 135, 136, 137 } drop");
    assert_eq!(first("from_uplink"), "ether saddr 02:00:a9:fe:a9:fe iifname @own_dhcp drop");
    assert_eq!(chains["from_uplink"].rules[1], "iifname != @asked ip daddr 169.254.169.254 tcp dport 80 drop");
}

#[test]
fn link_local_addresses_are_made_of_mac_addresses() {
    let address = super::plan::link_local("fa:16:3e:12:34:56".parse().unwrap());
    assert_eq!(address.to_string(), "fe80::f816:3eff:fe12:3456");
}
