//! A group's rules as the rules of a chain.
//!
//! A group's chain lets through what one of its rules lets through, and says nothing about the rest. Rules that differ in
//! ports or in ranges only become one rule with a set, so that a group with thousands of them stays short.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::ids::SecurityGroupId;
use nova_core::network::{Cidr, Direction, EtherType, Group, GroupRule, Remote};
use sha2::{Digest, Sha256};

use super::model::{Set, Shape, Table};

/// How the names of groups' chains begin.
pub const GROUP_CHAIN: &str = "g_";

const PORTS: Shape = Shape::intervals("type inet_service");
const NETS: [Shape; 2] = [Shape::intervals("type ipv4_addr"), Shape::intervals("type ipv6_addr")];
const HOSTS: [Shape; 2] = [Shape::set("type ipv4_addr"), Shape::set("type ipv6_addr")];

/// Protocols that have ports: tcp, udp, dccp, sctp, udplite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// What a rule is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compare {
    /// The first packet of its connection: stateful groups.
    Connection,
    /// The packet: stateless groups.
    Packet,
}

/// The chain of a group for one direction.
pub fn chain_name(group: SecurityGroupId, direction: Direction, compare: Compare) -> String {
    let kind = match compare {
        Compare::Connection => "",
        Compare::Packet => "p",
    };
    let way = match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    };
    format!("{GROUP_CHAIN}{}_{way}{kind}", group.to_string().replace('-', ""))
}

/// Adds the sets of a group's members: addresses one by one, and ranges where there are any.
pub fn add_members(table: &mut Table, id: SecurityGroupId, group: &Group) {
    for version in [EtherType::V4, EtherType::V6] {
        let of_version = || group.members.iter().filter(|member| is_of(member, version));
        let hosts = of_version().filter(|member| member.host_bits() == 0).map(|member| member.base().to_string());
        let nets = outermost(of_version().filter(|member| member.host_bits() > 0));
        let place = usize::from(version == EtherType::V6);
        table.sets.insert(hosts_name(id, version), Set::of(HOSTS[place], hosts));
        if !nets.is_empty() {
            table.sets.insert(nets_name(id, version), Set::of(NETS[place], nets.iter().map(ToString::to_string)));
        }
    }
}

/// Adds a group's chain for one direction.
pub fn add_chain(
    table: &mut Table,
    id: SecurityGroupId,
    groups: &BTreeMap<SecurityGroupId, Group>,
    direction: Direction,
    compare: Compare,
) {
    let Some(group) = groups.get(&id) else { return };
    let mut rules = Vec::new();
    for version in [EtherType::V4, EtherType::V6] {
        let wanted: Vec<&GroupRule> =
            group.rules.iter().filter(|rule| rule.direction == direction && rule.ethertype == version).collect();
        let side = Side { version, direction, compare };
        for (what, remotes) in classes(version, &wanted) {
            let what = what.text(table, compare);
            rules.extend(side.remotes(table, groups, &remotes).into_iter().map(|remote| {
                let words = [side.family(&remote), what.as_str(), remote.as_str(), "accept"];
                words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
            }));
        }
    }
    table.chain(&chain_name(id, direction, compare), None, rules);
}

/// What may pass, whoever is on the other side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// Anything.
    All,
    /// A protocol.
    Protocol(u8),
    /// ICMP of a type and a code, if they are named.
    Icmp(u8, Option<u16>, Option<u16>),
    /// A protocol to these ports: ranges that neither overlap nor touch.
    Ports(u8, Vec<(u16, u16)>),
}

/// Puts together rules that differ in ports only, then those that differ in the other side only.
fn classes(version: EtherType, rules: &[&GroupRule]) -> Vec<(What, BTreeSet<Remote>)> {
    let mut ports: BTreeMap<(u8, &Remote), Vec<(u16, u16)>> = BTreeMap::new();
    let mut classes: BTreeMap<What, BTreeSet<Remote>> = BTreeMap::new();
    for rule in rules {
        let protocol = rule.protocol.map(|protocol| of_version(protocol, version));
        let what = match (protocol, rule.ports) {
            (None, _) => What::All,
            (Some(icmp @ (1 | 58)), (None, _)) => What::Protocol(icmp),
            (Some(icmp @ (1 | 58)), (kind, code)) => What::Icmp(icmp, kind, code),
            (Some(protocol), (Some(first), last)) if WITH_PORTS.contains(&protocol) => {
                let range = (first, last.unwrap_or(first));
                ports.entry((protocol, &rule.remote)).or_default().push(range);
                continue;
            }
            (Some(protocol), (None, Some(last))) if WITH_PORTS.contains(&protocol) => {
                ports.entry((protocol, &rule.remote)).or_default().push((0, last));
                continue;
            }
            (Some(protocol), _) => What::Protocol(protocol),
        };
        classes.entry(what).or_default().insert(rule.remote.clone());
    }
    for ((protocol, remote), ranges) in ports {
        classes.entry(What::Ports(protocol, joined(ranges))).or_default().insert(remote.clone());
    }
    classes.into_iter().collect()
}

/// ICMP is another protocol in IPv6, and Neutron takes either name.
fn of_version(protocol: u8, version: EtherType) -> u8 {
    if version == EtherType::V6 && protocol == 1 { 58 } else { protocol }
}

/// Ranges that overlap or touch become one.
fn joined(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

impl What {
    fn text(&self, table: &mut Table, compare: Compare) -> String {
        match self {
            Self::All => String::new(),
            Self::Protocol(protocol) => format!("meta l4proto {protocol}"),
            Self::Icmp(protocol, kind, code) => {
                let word = if *protocol == 58 { "icmpv6" } else { "icmp" };
                let kind = kind.map(|kind| format!(" {word} type {kind}")).unwrap_or_default();
                let code = code.map(|code| format!(" {word} code {code}")).unwrap_or_default();
                format!("meta l4proto {protocol}{kind}{code}")
            }
            Self::Ports(protocol, ranges) => {
                let port = match compare {
                    Compare::Connection => "ct original proto-dst",
                    Compare::Packet => "th dport",
                };
                let range = |(first, last): &(u16, u16)| {
                    if first == last { first.to_string() } else { format!("{first}-{last}") }
                };
                let ports = match ranges.as_slice() {
                    [one] => range(one),
                    more => shared(table, PORTS, more.iter().map(range).collect()),
                };
                format!("meta l4proto {protocol} {port} {ports}")
            }
        }
    }
}

/// Where the other side's address is.
#[derive(Clone, Copy)]
struct Side {
    version: EtherType,
    direction: Direction,
    compare: Compare,
}

impl Side {
    /// A match for each kind of other side; an empty one is anybody.
    fn remotes(
        self,
        table: &mut Table,
        groups: &BTreeMap<SecurityGroupId, Group>,
        remotes: &BTreeSet<Remote>,
    ) -> Vec<String> {
        let everybody = |remote: &Remote| match remote {
            Remote::Any => true,
            Remote::Prefix(cidr) => cidr.prefix() == 0,
            Remote::Group(_) => false,
        };
        if remotes.iter().any(everybody) {
            return vec![String::new()];
        }
        let address = self.address();
        let mut found = Vec::new();
        let prefixes = remotes.iter().filter_map(|r| if let Remote::Prefix(cidr) = r { Some(cidr) } else { None });
        let prefixes = outermost(prefixes.filter(|cidr| is_of(cidr, self.version)));
        match prefixes.as_slice() {
            [] => {}
            [one] => found.push(format!("{address} {one}")),
            more => {
                let shape = NETS[usize::from(self.version == EtherType::V6)];
                let name = shared(table, shape, more.iter().map(ToString::to_string).collect());
                found.push(format!("{address} {name}"));
            }
        }
        for remote in remotes {
            let Remote::Group(id) = remote else { continue };
            let Some(group) = groups.get(id) else { continue };
            found.push(format!("{address} @{}", hosts_name(*id, self.version)));
            if group.members.iter().any(|member| member.host_bits() > 0 && is_of(member, self.version)) {
                found.push(format!("{address} @{}", nets_name(*id, self.version)));
            }
        }
        found
    }

    fn address(self) -> String {
        let family = if self.version == EtherType::V4 { "ip" } else { "ip6" };
        let side = if self.direction == Direction::Ingress { "saddr" } else { "daddr" };
        match self.compare {
            Compare::Connection => format!("ct original {family} {side}"),
            Compare::Packet => format!("{family} {side}"),
        }
    }

    /// An address says which family it is of; where none is named it must be said.
    fn family(self, remote: &str) -> &'static str {
        match (remote.is_empty(), self.version) {
            (false, _) => "",
            (true, EtherType::V4) => "meta nfproto ipv4",
            (true, EtherType::V6) => "meta nfproto ipv6",
        }
    }
}

/// A set of that content, shared by whoever has the same.
fn shared(table: &mut Table, shape: Shape, elements: Vec<String>) -> String {
    let digest = Sha256::digest(elements.join(",").as_bytes());
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let kind = shape.of.trim_start_matches("type ").chars().take(4).collect::<String>();
    let name = format!("{kind}_{digits}");
    table.sets.entry(name.clone()).or_insert_with(|| Set::of(shape, elements));
    format!("@{name}")
}

/// The set of a group's members that are single addresses.
pub fn hosts_name(id: SecurityGroupId, version: EtherType) -> String {
    let number = if version == EtherType::V4 { 4 } else { 6 };
    format!("m{number}_{}", id.to_string().replace('-', ""))
}

fn nets_name(id: SecurityGroupId, version: EtherType) -> String {
    format!("{}_nets", hosts_name(id, version))
}

fn is_of(cidr: &Cidr, version: EtherType) -> bool {
    matches!(cidr.base(), IpAddr::V4(_)) == (version == EtherType::V4)
}

/// Without those that are within others. Two ranges of this kind never overlap otherwise.
pub fn outermost<'a>(ranges: impl Iterator<Item = &'a Cidr>) -> Vec<Cidr> {
    let mut ranges: Vec<Cidr> = ranges.copied().collect();
    ranges.sort_by_key(|range| (range.first(), range.prefix()));
    let mut outermost: Vec<Cidr> = Vec::new();
    for range in ranges {
        if !outermost.last().is_some_and(|before| before.contains(range.base())) {
            outermost.push(range);
        }
    }
    outermost
}
