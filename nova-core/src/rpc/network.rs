//! The network service's interface: hosts ask what their network is to be, and say how far they are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{HostName, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId};
use crate::network::{Group, HostNetwork, HostRouter, ItemKey, PortStatus, Segment, item_digest};
use crate::rpc_method;

rpc_method! {
    /// The books changed there. Only shortens the wait: hosts ask now and then anyway.
    BooksChanged = "network"."books_changed": Cast from [Api, Conductor, Network], BooksChangedRequest => ()
}
rpc_method! {
    /// What is this host's network to be?
    SyncHost = "network"."sync_host": Call from [Compute], SyncHostRequest => SyncHostReply
}
rpc_method! {
    /// This is what the host's network is now.
    ReportHost = "network"."report_host": Call from [Compute], ReportHostRequest => ()
}
rpc_method! {
    /// Are you there?
    Ping = "network"."ping": Call from [Api, Conductor, Compute, Network], () => ()
}

/// What changed: hosts with ports on these networks, with these groups, or behind these routers are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksChangedRequest {
    /// Networks, with their subnets and ports.
    #[serde(default)]
    pub networks: Vec<NetworkId>,
    /// Groups, with their rules and members.
    #[serde(default)]
    pub groups: Vec<SecurityGroupId>,
    /// Routers, with their floating addresses.
    #[serde(default)]
    pub routers: Vec<RouterId>,
    /// Hosts that a port has come to or gone from.
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// Projects all of whose ports are concerned.
    #[serde(default)]
    pub projects: Vec<ProjectId>,
}

/// What a host is, for its network, and what it has of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncHostRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// What makes its network: `books`, `linux`.
    pub plumbing: String,
    /// Where the other hosts' tunnels end when they lead here.
    #[serde(default)]
    pub tunnel_ip: Option<IpAddr>,
    /// Names of the physical networks that it is on.
    #[serde(default)]
    pub physical_networks: Vec<String>,
    /// Digests of the items that it has.
    #[serde(default)]
    pub have: BTreeMap<String, String>,
}

/// What its network is to be, as far as it does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncHostReply {
    /// Segments that are new or otherwise.
    #[serde(default)]
    pub segments: BTreeMap<NetworkId, Segment>,
    /// Groups that are new or otherwise.
    #[serde(default)]
    pub groups: BTreeMap<SecurityGroupId, Group>,
    /// Routers that are new or otherwise.
    #[serde(default)]
    pub routers: BTreeMap<RouterId, HostRouter>,
    /// Items that are no more.
    #[serde(default)]
    pub gone: Vec<ItemKey>,
    /// When the books were read, by the service's clock.
    pub as_of: Timestamp,
}

/// What a host's network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportHostRequest {
    /// The host; must be the sender.
    pub host: HostName,
    /// Digests of what is in force: items, and ports by `port:<id>`.
    pub applied: BTreeMap<String, String>,
    /// Ports whose state is another than before.
    #[serde(default)]
    pub ports: BTreeMap<PortId, PortStatus>,
    /// What could not be made so, for administrators.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl SyncHostReply {
    /// What a host that has items of these digests must be told, so that it has what it is to have.
    pub fn between(have: &BTreeMap<String, String>, wanted: &HostNetwork, as_of: Timestamp) -> Self {
        let kept: Vec<ItemKey> = have.keys().filter_map(|name| name.parse().ok()).collect();
        let gone = kept.into_iter().filter(|key| !wanted.has(*key)).collect();
        Self {
            segments: news(have, &wanted.segments, ItemKey::Segment),
            groups: news(have, &wanted.groups, ItemKey::Group),
            routers: news(have, &wanted.routers, ItemKey::Router),
            gone,
            as_of,
        }
    }

    /// Nothing is otherwise.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.groups.is_empty() && self.routers.is_empty() && self.gone.is_empty()
    }

    /// Makes what a host has what it is to have.
    pub fn apply_to(self, network: &mut HostNetwork) {
        for key in self.gone {
            match key {
                ItemKey::Segment(id) => drop(network.segments.remove(&id)),
                ItemKey::Group(id) => drop(network.groups.remove(&id)),
                ItemKey::Router(id) => drop(network.routers.remove(&id)),
            }
        }
        network.segments.extend(self.segments);
        network.groups.extend(self.groups);
        network.routers.extend(self.routers);
    }
}

/// The items that a host does not have, or not so.
fn news<K: Copy + Ord, T: Clone + Serialize>(
    have: &BTreeMap<String, String>,
    wanted: &BTreeMap<K, T>,
    key: fn(K) -> ItemKey,
) -> BTreeMap<K, T> {
    let new = |(id, item): &(&K, &T)| have.get(&key(**id).to_string()) != Some(&item_digest(item));
    wanted.iter().filter(new).map(|(id, item)| (*id, item.clone())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::network::{Carrier, SourceNat};

    fn id<T: std::str::FromStr>(number: u8) -> T
    where
        T::Err: std::fmt::Debug,
    {
        format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
    }

    fn segment(mtu: u32) -> Segment {
        Segment {
            carrier: Carrier::Local,
            mtu,
            admin_state_up: true,
            dns_domain: String::new(),
            subnets: BTreeMap::new(),
            serves: true,
            ports: BTreeMap::new(),
            elsewhere: Vec::new(),
        }
    }

    fn router(address: u8) -> HostRouter {
        let source_nat = SourceNat::Address(IpAddr::from([192, 0, 2, address]));
        let outside = crate::network::Outside {
            subnets: Vec::new(),
            source_nat,
            floating: BTreeMap::new(),
            coming: BTreeMap::new(),
        };
        HostRouter { legs: Vec::new(), routes: Vec::new(), outside: Some(outside) }
    }

    /// Networks of few ids with few contents, so that two of them often share some.
    fn networks() -> impl Strategy<Value = HostNetwork> {
        let items = || prop::collection::btree_map(0_u8..6, 0_u8..3, 0..6);
        (items(), items(), items()).prop_map(|(segments, groups, routers)| HostNetwork {
            segments: segments.into_iter().map(|(n, v)| (id(n), segment(1400 + u32::from(v)))).collect(),
            groups: groups
                .into_iter()
                .map(|(n, v)| {
                    let members = (0..v).map(|m| format!("10.0.0.{m}/32").parse().unwrap()).collect();
                    (id(n), Group { members, ..Group::default() })
                })
                .collect(),
            routers: routers.into_iter().map(|(n, v)| (id(n), router(v))).collect(),
        })
    }

    proptest! {
        /// Whatever a host has, what it is told makes it what it is to be, also after a trip as JSON; the second time it is
        /// told nothing.
        #[test]
        fn what_is_told_closes_the_gap(mut has in networks(), wanted in networks()) {
            let reply = SyncHostReply::between(&has.digests(), &wanted, Timestamp::UNIX_EPOCH);
            for (id, segment) in &reply.segments {
                prop_assert_ne!(has.segments.get(id), Some(segment), "told though it is there");
            }
            let text = serde_json::to_string(&reply).unwrap();
            let told: SyncHostReply = serde_json::from_str(&text).unwrap();
            told.apply_to(&mut has);
            prop_assert_eq!(&has, &wanted);
            prop_assert!(SyncHostReply::between(&has.digests(), &wanted, Timestamp::UNIX_EPOCH).is_empty());
        }
    }
}
