//! The table of the family `inet`: groups' rules, with connections. Bridged packets come here through br_netfilter.
//!
//! A packet is asked about twice: on arrival for the sender's groups, when it is passed on for the receiver's. Rules are
//! compared with the *first* packet of the connection, so that packets of either direction can be judged at any time.
//! A connection that passed both is stamped with the generation of the rules, and passes from then on without being
//! looked at. When rules narrow, the generation goes up: every connection is judged once more, those that are still
//! allowed notice nothing, and those that are not are cut in both directions. Nothing has to be deleted from the
//! kernel's table of connections, where the next packet would only begin the connection anew.

use std::collections::BTreeSet;

use nova_core::ids::SecurityGroupId;
use nova_core::network::{Direction, HostNetwork, Remote};

use super::bridge::quoted;
use super::diff::replace_chains;
use super::model::{Shape, Table};
use super::plan::{Marks, Plan, Profile};
use super::rules::{Compare, add_chain, add_members, chain_name};

/// Marks of packets have this in their upper half, by how the groups are compared; the lower half is the profile.
const CONNECTION: u32 = 0x4e56_0000;
const PACKET: u32 = 0x4e57_0000;
/// Matches a packet with such a mark.
pub const PACKET_MARKS: &str = "0xfffe0000 == 0x4e560000";

const ZONES: Shape = Shape::map("typeof iifname : ct zone");
const BRIDGES: Shape = Shape::set("type ifname");
const CONNECTIONS: Shape = Shape::map("typeof ct direction . meta mark : verdict");
const PACKETS: Shape = Shape::map("typeof meta mark : verdict");

/// The mark of packets from a link that nobody knows to another such one.
pub const STRANGERS: u32 = 0x4e58_0000;

/// The mark of packets that a profile is to be asked about.
pub fn mark(profile: &Profile, marks: &Marks) -> Option<String> {
    let number = marks.profiles.get(&profile.key())?;
    let kind = if profile.compare == Compare::Connection { CONNECTION } else { PACKET };
    Some(format!("{:#010x}", kind | u32::from(number)))
}

/// The table.
pub fn table(plan: &Plan, wanted: &HostNetwork, marks: &Marks) -> Table {
    let mut table = Table::default();
    for (name, shape) in [
        ("zones", ZONES),
        ("bridges", BRIDGES),
        ("own", BRIDGES),
        ("source", CONNECTIONS),
        ("target", CONNECTIONS),
        ("packet_source", PACKETS),
        ("packet_target", PACKETS),
    ] {
        table.set(name, shape);
    }
    chains(&mut table);
    add_generation(&mut table, marks.generation);
    for (bridge, network) in &plan.bridges {
        add(&mut table, "bridges", quoted(bridge), "");
        if let Some(zone) = marks.zones.get(&network.to_string()) {
            add(&mut table, "zones", quoted(bridge), &zone.to_string());
        }
    }
    for bridge in &plan.own {
        add(&mut table, "own", quoted(bridge), "");
    }
    let profiles = plan.profiles();
    for profile in &profiles {
        add_profile(&mut table, profile, wanted, marks);
    }
    let used: BTreeSet<(SecurityGroupId, Compare)> =
        profiles.iter().flat_map(|profile| profile.groups.iter().map(|id| (*id, profile.compare))).collect();
    let mut named = BTreeSet::new();
    for (id, _) in &used {
        let rules = wanted.groups.get(id).into_iter().flat_map(|group| &group.rules);
        named.extend(rules.filter_map(|rule| if let Remote::Group(id) = &rule.remote { Some(*id) } else { None }));
    }
    for id in named {
        if let Some(group) = wanted.groups.get(&id) {
            add_members(&mut table, id, group);
        }
    }
    for (id, compare) in used {
        for direction in [Direction::Ingress, Direction::Egress] {
            add_chain(&mut table, id, &wanted.groups, direction, compare);
        }
    }
    table
}

fn add_profile(table: &mut Table, profile: &Profile, wanted: &HostNetwork, marks: &Marks) {
    let (Some(mark), Some(number)) = (mark(profile, marks), marks.profiles.get(&profile.key())) else { return };
    let chain = |direction| {
        let way = if direction == Direction::Ingress { "in" } else { "out" };
        format!("profile{number}_{way}")
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        // A group that nothing is known of lets nothing through.
        let groups = profile.groups.iter().filter(|id| wanted.groups.contains_key(id));
        let groups = groups.map(|id| format!("jump {}", chain_name(*id, direction, profile.compare)));
        table.chain(&chain(direction), None, groups.chain(["drop".to_owned()]));
    }
    let (into, out) = (format!("goto {}", chain(Direction::Ingress)), format!("goto {}", chain(Direction::Egress)));
    match profile.compare {
        Compare::Connection => {
            // Who sends the first packet needs leave to send; who sends the answer had leave to be asked.
            add(table, "source", format!("original . {mark}"), &out);
            add(table, "source", format!("reply . {mark}"), &into);
            add(table, "target", format!("original . {mark}"), &into);
            add(table, "target", format!("reply . {mark}"), &out);
        }
        Compare::Packet => {
            add(table, "packet_source", mark.clone(), &out);
            add(table, "packet_target", mark, &into);
        }
    }
}

fn chains(table: &mut Table) {
    let asked = |connection: &str, packet: &str| {
        format!(
            "meta mark & 0xffff0000 vmap {{ {CONNECTION:#010x} : goto {connection}, {PACKET:#010x} : goto {packet} }}"
        )
    };
    // Before the kernel puts fragments together (-400), which it does by zone: those of different networks don't mix.
    table.chain(
        "zone",
        Some("type filter hook prerouting priority -450; policy accept;"),
        ["ct zone set iifname map @zones"],
    );
    table.chain(
        "arriving",
        Some("type filter hook prerouting priority -150; policy accept;"),
        [asked("from_connection", "from_packet")],
    );
    table.chain(
        "passing",
        Some("type filter hook forward priority -150; policy accept;"),
        [
            asked("to_connection", "to_packet"),
            format!("meta mark {STRANGERS:#010x} iifname @own drop"),
            format!("meta mark {STRANGERS:#010x} meta mark set 0"),
        ],
    );
    table.chain(
        "from_packet",
        None,
        ["ip daddr 169.254.169.254 tcp dport 80 accept", "meta mark vmap @packet_source", "drop"],
    );
    table.chain(
        "to_packet",
        None,
        ["ip saddr 169.254.169.254 tcp sport 80 accept", "meta mark vmap @packet_target", "drop"],
    );
}

/// Those of [`add_generation`].
pub const GENERATION_CHAINS: &[&str] = &["from_connection", "leaving", "to_connection"];

/// The script that has these chains name another generation.
pub fn generation_script(generation: u32) -> String {
    let mut table = Table::default();
    add_generation(&mut table, generation);
    replace_chains("inet", &table, GENERATION_CHAINS)
}

/// The chains that name the generation of the rules.
pub fn add_generation(table: &mut Table, generation: u32) {
    table.chain(
        "leaving",
        Some("type filter hook postrouting priority 0; policy accept;"),
        [format!("oifname @bridges ct mark != {generation} ct mark set {generation}")],
    );
    for (name, map, direction) in [("from_connection", "source", "original"), ("to_connection", "target", "reply")] {
        let metadata = "meta l4proto tcp ct original proto-dst 80 ct original ip daddr 169.254.169.254";
        table.chain(
            name,
            None,
            [
                format!("ct state established,related ct mark {generation} accept"),
                "ct state invalid drop".to_owned(),
                format!("ct direction {direction} {metadata} accept"),
                format!("ct direction . meta mark vmap @{map}"),
                "drop".to_owned(),
            ],
        );
    }
}

fn add(table: &mut Table, set: &str, key: String, value: &str) {
    if let Some(set) = table.sets.get_mut(set) {
        set.elements.insert(key, value.to_owned());
    }
}
