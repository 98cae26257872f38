//! What the rulesets are made of: the ports with their taps, and what else is on their bridges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nova_core::ids::{NetworkId, SecurityGroupId};
use nova_core::network::{Carrier, Cidr, HostNetwork, HostPort, MacAddress, PortSecurity, Segment, tap_name};
use serde::{Deserialize, Serialize};

use super::rules::Compare;
use crate::network::linux::layout::{SegmentLayout, own_ends};
use crate::network::linux::numbers::Numbers;

/// Numbers that must not change while connections live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// A zone of connection tracking for each bridge, so that networks with the same addresses are kept apart.
    pub zones: Numbers,
    /// A mark for each combination of groups that a port has.
    pub profiles: Numbers,
    /// Connections that were let through under this number need not be looked at again.
    pub generation: u32,
}

/// The groups of a port. Ports with the same ones share their rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Profile {
    /// The groups; none: nothing may pass.
    pub groups: BTreeSet<SecurityGroupId>,
    /// How their rules are compared: by packet if none of them is stateful.
    pub compare: Compare,
}

impl Profile {
    /// Its name in the table of marks.
    pub fn key(&self) -> String {
        let groups = self.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        format!("{:?}:{groups}", self.compare)
    }
}

/// A guest's end on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// Its bridge has nothing on it but what is known.
    pub inside: bool,
    /// What may pass.
    pub passes: Passes,
}

/// What may pass a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passes {
    /// Nothing.
    Nothing,
    /// Anything.
    Anything,
    /// What comes from its own addresses, and what its groups say.
    Groups {
        /// Its groups.
        profile: Profile,
        /// What it may send from.
        sources: BTreeSet<(MacAddress, Cidr)>,
    },
}

/// What joins a bridge of ours with others, and what must not cross there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UplinkRules {
    /// Addresses that each host has for its own guests: nobody asks for them across.
    pub own: BTreeSet<IpAddr>,
    /// This host answers DHCP for its guests.
    pub dhcp: bool,
    /// And for nobody else's: its answers are of no use on other hosts.
    pub answers_own: bool,
    /// Each host advertises itself as router.
    pub routers: bool,
    /// Guests of other hosts ask here for their metadata. Over tunnels only, where their hosts let none forge its address:
    /// on a wire there may be anybody.
    pub asked: bool,
}

/// All that the rulesets are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Guests' ends by name.
    pub taps: BTreeMap<String, Tap>,
    /// Links on bridges of ours to what the host keeps there for itself.
    pub ends: BTreeSet<String>,
    /// Links on bridges of ours that lead to other hosts.
    pub uplinks: BTreeMap<String, UplinkRules>,
    /// Bridges by name with what their zone is called.
    pub bridges: BTreeMap<String, NetworkId>,
    /// Those of them that are ours: nobody else has anything there.
    pub own: BTreeSet<String>,
    /// How guests find the services on their bridges.
    pub asking: Asking,
}

/// Who asks for metadata, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// Ends whose network this host serves.
    pub served: BTreeSet<String>,
    /// Ends that may send from addresses which are not theirs.
    pub loose: BTreeSet<String>,
    /// Under which addresses these ask nevertheless: their own.
    pub callers: BTreeSet<(String, Ipv4Addr)>,
}

impl Asking {
    fn note(&mut self, segment: &Segment, tap: &str, port: &HostPort) {
        if segment.serves {
            self.served.insert(tap.to_owned());
        }
        // One that may use addresses of others (security off, or pairs of addresses) must not ask in their name.
        if port.security.as_ref().is_none_or(|security| !security.pairs.is_empty()) {
            self.loose.insert(tap.to_owned());
            self.callers.extend(port.addresses.iter().filter_map(|(_, address)| match address {
                IpAddr::V4(address) => Some((tap.to_owned(), *address)),
                IpAddr::V6(_) => None,
            }));
        }
    }
}

/// Where guests ask for their metadata.
pub const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

impl Plan {
    /// The plan of a host's network. `strangers` are taps on its bridges that nobody wants there.
    pub fn new(
        wanted: &HostNetwork,
        layouts: &BTreeMap<NetworkId, SegmentLayout>,
        strangers: impl IntoIterator<Item = String>,
    ) -> Self {
        let nothing = |name| (name, Tap { inside: false, passes: Passes::Nothing });
        let mut plan = Self { taps: strangers.into_iter().map(nothing).collect(), ..Self::default() };
        for (id, segment) in &wanted.segments {
            let layout = layouts.get(id);
            for (port_id, port) in &segment.ports {
                let inside = layout.is_some_and(|layout| layout.ours);
                let passes = if layout.is_some() { passes(wanted, segment, port) } else { Passes::Nothing };
                plan.asking.note(segment, &tap_name(*port_id), port);
                plan.taps.insert(tap_name(*port_id), Tap { inside, passes });
            }
            let Some(layout) = layout else { continue };
            plan.bridges.insert(layout.bridge.clone(), *id);
            if layout.ours {
                plan.own.insert(layout.bridge.clone());
                plan.ends.extend(own_ends(*id, wanted));
                if let Some(uplink) = &layout.uplink {
                    plan.uplinks.insert(uplink.name().to_owned(), uplink_rules(wanted, *id, segment));
                }
            }
        }
        plan
    }

    /// The profiles that are in use.
    pub fn profiles(&self) -> BTreeSet<&Profile> {
        self.taps
            .values()
            .filter_map(|tap| if let Passes::Groups { profile, .. } = &tap.passes { Some(profile) } else { None })
            .collect()
    }

    /// Sees to it that everything has its number, and that what is gone has none.
    pub fn number(&self, marks: &mut Marks) {
        marks.zones.keep(self.bridges.values().map(ToString::to_string));
        marks.profiles.keep(self.profiles().into_iter().map(Profile::key));
    }
}

fn passes(wanted: &HostNetwork, segment: &Segment, port: &HostPort) -> Passes {
    if !(segment.admin_state_up && port.admin_state_up) {
        return Passes::Nothing;
    }
    let Some(security) = &port.security else { return Passes::Anything };
    let stateful = |id| wanted.groups.get(id).is_none_or(|group| group.stateful);
    let stateless = !security.groups.is_empty() && !security.groups.iter().any(stateful);
    let compare = if stateless { Compare::Packet } else { Compare::Connection };
    let profile = Profile { groups: security.groups.clone(), compare };
    Passes::Groups { profile, sources: sources(port, security) }
}

fn sources(port: &HostPort, security: &PortSecurity) -> BTreeSet<(MacAddress, Cidr)> {
    let mut sources: BTreeSet<(MacAddress, Cidr)> = BTreeSet::new();
    let mut add = |mac: MacAddress, range: Option<Cidr>| sources.extend(range.map(|range| (mac, range)));
    add(port.mac, single(link_local(port.mac).into()));
    for (_, address) in &port.addresses {
        add(port.mac, single(*address));
    }
    for pair in &security.pairs {
        let mac = pair.mac_address.unwrap_or(port.mac);
        add(mac, Some(pair.ip_address));
        if pair.ip_address.base().is_ipv6() {
            add(mac, single(link_local(mac).into()));
        }
    }
    sources
}

fn single(address: IpAddr) -> Option<Cidr> {
    Cidr::around(address, if address.is_ipv4() { 32 } else { 128 })
}

/// The address that an interface gives itself (RFC 4291, appendix A).
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes().map(u16::from);
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

fn uplink_rules(wanted: &HostNetwork, network: NetworkId, segment: &Segment) -> UplinkRules {
    let legs = wanted.routers.values().flat_map(|router| &router.legs);
    let legs: Vec<_> = legs.filter(|leg| leg.network == network && leg.distributed).collect();
    let mut own: BTreeSet<IpAddr> =
        legs.iter().flat_map(|leg| leg.addresses.iter().map(|(address, _)| *address)).collect();
    if segment.serves {
        own.insert(METADATA);
    }
    let tunnels = matches!(segment.carrier, Carrier::Vxlan { .. });
    let others = segment.elsewhere.iter().any(|port| port.asks.is_some());
    UplinkRules {
        own,
        dhcp: segment.serves,
        answers_own: segment.serves && !others,
        routers: !legs.is_empty(),
        asked: tunnels && others,
    }
}
