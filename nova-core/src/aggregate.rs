//! Host aggregates: named sets of hosts with metadata; one key of it makes them an availability zone
//! (nova/objects/aggregate.py, nova/availability_zones.py).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{AggregateId, HostName, ZoneName};

/// The metadata key that makes an aggregate a zone.
pub const ZONE_KEY: &str = "availability_zone";

/// A named set of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The id that clients see from 2.41 on, beside the number.
    pub id: AggregateId,
    /// The number by which clients ask for it; the store gives it.
    #[serde(default)]
    pub number: i64,
    /// Its name; no two live ones share it.
    pub name: String,
    /// What filters and weighers read; [`ZONE_KEY`] makes it a zone.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Its hosts.
    #[serde(default)]
    pub hosts: BTreeSet<HostName>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its name or metadata last changed.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
}

impl Aggregate {
    /// The zone that it makes of its hosts.
    pub fn availability_zone(&self) -> Option<ZoneName> {
        self.metadata.get(ZONE_KEY).map(|zone| ZoneName::new(zone.as_str()))
    }
}

/// In which zones hosts are, as aggregates say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneMap(BTreeMap<HostName, ZoneName>);

impl ZoneMap {
    /// Reads all aggregates. A host is in one zone at most; should rows say otherwise, the oldest aggregate wins.
    pub fn of(aggregates: &[Aggregate]) -> Self {
        let mut zones = BTreeMap::new();
        for aggregate in aggregates {
            let Some(zone) = aggregate.availability_zone() else { continue };
            for host in &aggregate.hosts {
                zones.entry(host.clone()).or_insert_with(|| zone.clone());
            }
        }
        Self(zones)
    }

    /// The zone that aggregates make of a host's; none for one that is where it says itself.
    pub fn made(&self, host: &HostName) -> Option<&ZoneName> {
        self.0.get(host)
    }

    /// The hosts that aggregates put into a zone.
    pub fn hosts_in<'a>(&'a self, zone: &'a ZoneName) -> impl Iterator<Item = &'a HostName> {
        self.0.iter().filter(move |(_, made)| *made == zone).map(|(host, _)| host)
    }

    /// The zone of a host: that of its aggregate, else the one that it reports itself
    /// (`DEFAULT.default_availability_zone` where it runs).
    pub fn zone<'a>(&'a self, host: &HostName, own: &'a ZoneName) -> &'a ZoneName {
        self.0.get(host).unwrap_or(own)
    }
}

/// Why an aggregate cannot be changed so; the texts are Nova's (nova/compute/api.py, `AggregateAPI`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AggregateProblem {
    /// A host may be in one zone only.
    #[error("One or more hosts already in availability zone(s) [{}]", quoted(.0))]
    OtherZone(Vec<ZoneName>),
    /// A zone's name cannot be taken away while the aggregate lives.
    #[error("Aggregate {0} does not support empty named availability zone")]
    EmptyZone(String),
    /// Servers do not change their zone.
    #[error("One or more hosts contain instances in this zone")]
    HasInstances,
    /// The same, for one host that comes or goes.
    #[error(
        "The host cannot be {verb} the aggregate as the availability zone of the host would change from '{from}' to \
         '{to}' but the host already has {instances} instance(s). Changing the AZ of an existing instance is not \
         supported by this action. Move the instances away from this host then try again. If you need to move the \
         instances between AZs then you can use shelve_offload and unshelve to achieve this."
    )]
    MovesInstances {
        /// `added to` or `removed from`.
        verb: &'static str,
        /// The zone that the host is in.
        from: ZoneName,
        /// The zone that it would be in.
        to: ZoneName,
        /// How many servers are on it or on their way to it.
        instances: u64,
    },
    /// Only an empty one can be deleted.
    #[error("Host aggregate is not empty")]
    NotEmpty,
    /// The host is in it already.
    #[error("Aggregate {number} already has host {host}.")]
    HostExists {
        /// Of the aggregate.
        number: i64,
        /// The host.
        host: HostName,
    },
    /// The host is not in it.
    #[error("Aggregate {number} has no host {host}.")]
    HostMissing {
        /// Of the aggregate.
        number: i64,
        /// The host.
        host: HostName,
    },
}

fn quoted(zones: &[ZoneName]) -> String {
    zones.iter().map(|zone| format!("'{zone}'")).collect::<Vec<_>>().join(", ")
}

/// May hosts that are in these other aggregates be in that zone?
///
/// # Errors
/// [`AggregateProblem::OtherZone`] with every other zone that they are in.
pub fn check_single_zone<'a>(
    zone: &ZoneName,
    others: impl IntoIterator<Item = &'a Aggregate>,
) -> Result<(), AggregateProblem> {
    let conflicting: Vec<ZoneName> =
        others.into_iter().filter_map(Aggregate::availability_zone).filter(|other| other != zone).collect();
    if conflicting.is_empty() { Ok(()) } else { Err(AggregateProblem::OtherZone(conflicting)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(number: i64, zone: Option<&str>, hosts: &[&str]) -> Aggregate {
        Aggregate {
            id: AggregateId::from_uuid(uuid::Uuid::from_u128(number as u128)),
            number,
            name: format!("a{number}"),
            metadata: zone.map(|zone| (ZONE_KEY.to_owned(), zone.to_owned())).into_iter().collect(),
            hosts: hosts.iter().map(|host| HostName::from(*host)).collect(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: None,
        }
    }

    #[test]
    fn a_host_is_in_the_zone_of_its_aggregate_or_in_its_own() {
        let zones = ZoneMap::of(&[
            aggregate(1, None, &["h1"]),
            aggregate(2, Some("west"), &["h1", "h2"]),
            aggregate(3, None, &[]),
        ]);
        let own = ZoneName::from("nova");
        assert_eq!(zones.zone(&"h1".into(), &own).as_str(), "west");
        assert_eq!(zones.zone(&"h3".into(), &own).as_str(), "nova");
    }

    #[test]
    fn a_host_has_one_zone() {
        let others =
            [aggregate(1, Some("east"), &["h"]), aggregate(2, None, &["h"]), aggregate(3, Some("west"), &["h"])];
        let problem = check_single_zone(&"west".into(), &others).unwrap_err();
        assert_eq!(problem.to_string(), "One or more hosts already in availability zone(s) ['east']");
        assert_eq!(check_single_zone(&"west".into(), &others[1..]), Ok(()));
    }
}
