//! The table of the family `bridge`: who may send from which addresses, what never crosses an uplink, and which groups
//! the table of the family `inet` is to ask.
//!
//! The kernel need not know connections in this family (many don't), so all it does with groups is to mark the packet:
//! on arrival with the sender's, when it is passed on with the receiver's. What is always let through has no mark.

use std::net::IpAddr;

use nova_core::network::{Cidr, MacAddress};

use super::inet::{PACKET_MARKS, STRANGERS, mark};
use super::model::{Shape, Table};
use super::plan::{METADATA, Marks, Passes, Plan, Profile};
use crate::network::linux::dhcp::SERVICE_MAC;

const VERDICTS: Shape = Shape::map("typeof iifname : verdict");
const PROFILES: Shape = Shape::map("typeof iifname : meta mark");
const NAMES: Shape = Shape::set("type ifname");
const MACS: Shape = Shape::set("type ifname . ether_addr");
const SOURCES: [Shape; 2] =
    [Shape::set("type ifname . ether_addr . ipv4_addr"), Shape::set("type ifname . ether_addr . ipv6_addr")];
const SOURCE_NETS: [Shape; 2] = [
    Shape::intervals("type ifname . ether_addr . ipv4_addr"),
    Shape::intervals("type ifname . ether_addr . ipv6_addr"),
];
const OWN4: Shape = Shape::set("type ifname . ipv4_addr");
/// The address that a neighbour discovery message is about: 16 bytes after its first 8 (RFC 4861, 4.3 and 4.4).
const TARGETS: Shape = Shape::set("typeof iifname . @th,64,128");

/// The chains are the same on every host; sets and maps say what is there.
pub fn table(plan: &Plan, marks: &Marks) -> Table {
    let mut table = Table::default();
    chains(&mut table);
    let shapes = [
        ("arrive", VERDICTS),
        ("leave", VERDICTS),
        ("profiles", PROFILES),
        ("inside", NAMES),
        ("macs", MACS),
        ("sources4", SOURCES[0]),
        ("sources6", SOURCES[1]),
        ("nets4", SOURCE_NETS[0]),
        ("nets6", SOURCE_NETS[1]),
        ("targets", TARGETS),
        ("any_target", NAMES),
        ("near4", OWN4),
        ("own4", OWN4),
        ("own6", TARGETS),
        ("own_dhcp", NAMES),
        ("own_answers", NAMES),
        ("own_routers", NAMES),
        ("asked", NAMES),
        ("served", NAMES),
        ("loose", NAMES),
        ("callers", OWN4),
    ];
    for (name, shape) in shapes {
        table.set(name, shape);
    }
    let mut into = Filler { table: &mut table };
    for (name, tap) in &plan.taps {
        let (arrives, leaves) = match (&tap.passes, tap.inside) {
            (Passes::Nothing, _) => ("drop", "drop"),
            (Passes::Anything, true) => ("accept", "goto to_inside"),
            (Passes::Anything, false) => ("accept", "accept"),
            (Passes::Groups { .. }, true) => ("goto from_guest", "goto to_inside_guest"),
            (Passes::Groups { .. }, false) => ("goto from_guest", "goto to_guest"),
        };
        into.add("arrive", quoted(name), arrives);
        into.add("leave", quoted(name), leaves);
        if tap.inside {
            into.add("inside", quoted(name), "");
        }
        if let Passes::Groups { profile, sources } = &tap.passes {
            into.guest(name, profile, marks, sources.iter());
        }
    }
    for name in &plan.ends {
        into.add("inside", quoted(name), "");
        into.add("leave", quoted(name), "goto to_inside");
    }
    for (name, rules) in &plan.uplinks {
        into.add("inside", quoted(name), "");
        into.add("arrive", quoted(name), "goto from_uplink");
        into.add("leave", quoted(name), "goto to_uplink");
        for address in &rules.own {
            match address {
                IpAddr::V4(address) => {
                    into.add("near4", format!("{} . {address}", quoted(name)), "");
                    // The service answers whoever asks: who has a service of their own does not.
                    if METADATA != *address {
                        into.add("own4", format!("{} . {address}", quoted(name)), "");
                    }
                }
                IpAddr::V6(address) => into.add("own6", format!("{} . {}", quoted(name), number(*address)), ""),
            }
        }
        if rules.dhcp {
            into.add("own_dhcp", quoted(name), "");
        }
        if rules.answers_own {
            into.add("own_answers", quoted(name), "");
        }
        if rules.asked {
            into.add("asked", quoted(name), "");
        }
        if rules.routers {
            into.add("own_routers", quoted(name), "");
        }
    }
    for name in &plan.asking.served {
        into.add("served", quoted(name), "");
    }
    for name in &plan.asking.loose {
        into.add("loose", quoted(name), "");
    }
    for (name, address) in &plan.asking.callers {
        into.add("callers", format!("{} . {address}", quoted(name)), "");
    }
    table
}

struct Filler<'a> {
    table: &'a mut Table,
}

impl Filler<'_> {
    fn add(&mut self, set: &str, key: String, value: &str) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(key, value.to_owned());
        }
    }

    fn guest<'a>(
        &mut self,
        tap: &str,
        profile: &Profile,
        marks: &Marks,
        sources: impl Iterator<Item = &'a (MacAddress, Cidr)>,
    ) {
        let tap = quoted(tap);
        // Without a number there would be no mark, and so no rules: then nothing is let through.
        match mark(profile, marks) {
            Some(mark) => self.add("profiles", tap.clone(), &mark),
            None => self.add("arrive", tap.clone(), "drop"),
        }
        for (mac, range) in sources {
            self.add("macs", format!("{tap} . {mac}"), "");
            let family = if range.base().is_ipv4() { 4 } else { 6 };
            if range.host_bits() == 0 {
                self.add(&format!("sources{family}"), format!("{tap} . {mac} . {}", range.base()), "");
                if let IpAddr::V6(address) = range.base() {
                    self.add("targets", format!("{tap} . {}", number(address)), "");
                }
            } else if !self.covered(family, &tap, *mac, range) {
                self.add(&format!("nets{family}"), format!("{tap} . {mac} . {range}"), "");
                if family == 6 {
                    self.add("any_target", tap.clone(), "");
                }
            }
        }
    }

    /// A wider range of the same tap and MAC address is there: ranges come in order, the wider first. The kernel takes
    /// none that overlaps another.
    fn covered(&self, family: u8, tap: &str, mac: MacAddress, range: &Cidr) -> bool {
        let set = self.table.sets.get(&format!("nets{family}"));
        set.is_some_and(|set| {
            (0..range.prefix())
                .filter_map(|prefix| Cidr::around(range.base(), prefix))
                .any(|wider| set.elements.contains_key(&format!("{tap} . {mac} . {wider}")))
        })
    }
}

/// Guests ask for metadata under their own addresses, whatever else their ports may send: who answers tells them apart by
/// that. A guest that does not know that the service is on its own link sends to its gateway; its frames are given the
/// right way here.
fn asking(table: &mut Table) {
    table.chain(
        "asking",
        Some("type filter hook prerouting priority -310; policy accept;"),
        [
            "iifname @loose ip daddr 169.254.169.254 tcp dport 80 iifname . ip saddr != @callers drop".to_owned(),
            format!("iifname @served ip daddr 169.254.169.254 ether daddr set {SERVICE_MAC}"),
        ],
    );
}

fn chains(table: &mut Table) {
    asking(table);
    table.chain(
        "arriving",
        Some("type filter hook prerouting priority -300; policy accept;"),
        ["iifname vmap @arrive"],
    );
    table.chain(
        "from_guest",
        None,
        [
            "meta mark set iifname map @profiles",
            "ether type vmap { ip : goto from_guest4, ip6 : goto from_guest6, arp : goto from_guest_arp }",
            "drop",
        ],
    );
    table.chain(
        "from_guest4",
        None,
        [
            "iifname . ether saddr . ip saddr @sources4 goto may_send4",
            "iifname . ether saddr . ip saddr @nets4 goto may_send4",
            // A guest that has no address yet asks for one.
            "ip saddr 0.0.0.0 udp sport 68 udp dport 67 iifname . ether saddr @macs meta mark set 0 accept",
            "drop",
        ],
    );
    table.chain(
        "may_send4",
        None,
        [
            "meta l4proto != udp accept",
            // No guest is a DHCP server.
            "udp sport 67 udp dport 68 drop",
            "udp sport 68 udp dport 67 meta mark set 0 accept",
            "accept",
        ],
    );
    table.chain(
        "from_guest6",
        None,
        [
            "exthdr frag exists jump fragment6",
            "iifname . ether saddr . ip6 saddr @sources6 goto may_send6",
            "iifname . ether saddr . ip6 saddr @nets6 goto may_send6",
            // Before it uses an address, a guest asks whether somebody has it, and who routes, and what it may listen to.
            "ip6 saddr :: icmpv6 type { 131, 132, 133, 135, 143 } iifname . ether saddr @macs meta mark set 0 accept",
            "drop",
        ],
    );
    // Neighbour discovery is not to be in fragments (RFC 6980), nor is what is sent to be hidden behind headers of which
    // the first fragment has only some: hop-by-hop, routing, another fragment, destination options, mobility.
    table.chain(
        "fragment6",
        None,
        ["frag nexthdr { 0, 43, 44, 60, 135 } drop", "icmpv6 type { 133, 134, 135, 136, 137 } drop"],
    );
    table.chain(
        "may_send6",
        None,
        ["meta l4proto vmap { icmpv6 : goto may_send_icmpv6, udp : goto may_send_udp6 }", "accept"],
    );
    table.chain(
        "may_send_icmpv6",
        None,
        [
            // No guest is a router, nor speaks for another's address.
            "icmpv6 type { 134, 137 } drop",
            "icmpv6 type 136 iifname . @th,64,128 @targets meta mark set 0 accept",
            "icmpv6 type 136 iifname @any_target meta mark set 0 accept",
            "icmpv6 type 136 drop",
            "icmpv6 type { 131, 132, 133, 135, 143 } meta mark set 0 accept",
            "accept",
        ],
    );
    table.chain(
        "may_send_udp6",
        None,
        ["udp sport 547 udp dport 546 drop", "udp sport 546 udp dport 547 meta mark set 0 accept", "accept"],
    );
    table.chain(
        "from_guest_arp",
        None,
        [
            "iifname . ether saddr != @macs drop",
            "iifname . arp saddr ether . arp saddr ip @sources4 accept",
            "iifname . arp saddr ether . arp saddr ip @nets4 accept",
            // Has somebody this address? (RFC 5227)
            "arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs accept",
            "drop",
        ],
    );
    table.chain(
        "from_uplink",
        None,
        [
            // The service's MAC address is the same on all hosts: the bridge would look for it elsewhere from now on.
            &*format!("ether saddr {SERVICE_MAC} iifname @own_dhcp drop"),
            // Metadata is answered to guests of this host: who asks from a wire would do it in the name of one.
            "iifname != @asked ip daddr 169.254.169.254 tcp dport 80 drop",
            // Where each host serves its own guests, nobody else has anything to look for there.
            "iifname @own_routers ip daddr 169.254.169.254 drop",
            "ether type arp iifname @own_routers arp daddr ip 169.254.169.254 drop",
            "ether type arp iifname . arp saddr ip @own4 drop",
            "icmpv6 type 136 iifname . @th,64,128 @own6 drop",
            "icmpv6 type 134 iifname @own_routers drop",
        ],
    );
    table.chain(
        "passing",
        Some("type filter hook forward priority -200; policy accept;"),
        [
            format!("meta mark & {PACKET_MARKS} meta mark set 0"),
            "oifname vmap @leave".to_owned(),
            // Somebody has put something on a bridge of ours: it is alone there.
            "iifname @inside drop".to_owned(),
            // Neither end is known. On a bridge of ours that must not be; which bridge it is the other table sees.
            format!("meta mark 0 meta mark set {STRANGERS:#010x}"),
        ],
    );
    table.chain(
        "leaving",
        Some("type filter hook postrouting priority -300; policy accept;"),
        [format!("meta mark {STRANGERS:#010x} meta mark set 0")],
    );
    table.chain("to_inside", None, ["iifname != @inside drop", "accept"]);
    table.chain("to_inside_guest", None, ["iifname != @inside drop", "goto to_guest"]);
    table.chain(
        "to_guest",
        None,
        [
            // What the bridge sends everywhere because it does not know where it belongs.
            "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @macs drop",
            "ether type vmap { ip : goto to_guest4, ip6 : goto to_guest6, arp : accept }",
            "drop",
        ],
    );
    table.chain(
        "to_guest4",
        None,
        ["udp sport 67 udp dport 68 accept", "meta mark set oifname map @profiles", "accept"],
    );
    table.chain(
        "to_guest6",
        None,
        [
            "icmpv6 type { 130, 134, 135, 136 } accept",
            "udp sport 547 udp dport 546 accept",
            "meta mark set oifname map @profiles",
            "accept",
        ],
    );
    table.chain(
        "to_uplink",
        None,
        [
            "iifname != @inside drop",
            // Nobody there asks it for anything.
            &*format!("ether saddr {SERVICE_MAC} oifname @own_answers drop"),
            "ether type arp oifname . arp daddr ip @near4 drop",
            "ether type arp oifname . arp saddr ip @own4 drop",
            "icmpv6 type { 135, 136 } oifname . @th,64,128 @own6 drop",
            "icmpv6 type { 133, 134 } oifname @own_routers drop",
            "ether type ip udp sport 68 udp dport 67 oifname @own_dhcp drop",
            "ether type ip6 udp sport 546 udp dport 547 oifname @own_dhcp drop",
            "ether type ip udp sport 67 udp dport 68 oifname @own_answers drop",
            "ether type ip6 udp sport 547 udp dport 546 oifname @own_answers drop",
        ],
    );
    table.chain(
        "to_the_host",
        Some("type filter hook input priority -200; policy accept;"),
        // The host has no address on bridges of ours. A tap that is new there and not in the plan yet is not known here:
        // names say nothing, as the operator's machines may have taps, too, on bridges of the operator. What it sends to
        // the host ends in `inet nova_host`, and the next look at the bridges finds it.
        ["iifname @inside drop"],
    );
}

/// A link's name as nft reads it.
pub fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn number(address: std::net::Ipv6Addr) -> String {
    format!("{:#034x}", u128::from(address))
}
