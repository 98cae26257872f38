//! The aggregates that hosts are in, as the store and the news tell.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::aggregate::Aggregate;
use nova_core::ids::{HostName, ZoneName};
use nova_core::rpc::scheduler::AggregateNews;

/// All aggregates, by number and by host.
#[derive(Debug, Default)]
pub(super) struct Aggregates {
    all: BTreeMap<i64, Aggregate>,
    by_host: BTreeMap<HostName, BTreeSet<i64>>,
    /// The zones that hosts report themselves, where an aggregate put them into another.
    own: BTreeMap<HostName, ZoneName>,
}

impl Aggregates {
    /// Forgets what was known: these are all, and every host is settled anew after this.
    pub(super) fn replace(&mut self, aggregates: Vec<Aggregate>) {
        *self = Self::default();
        for aggregate in aggregates {
            self.put(aggregate);
        }
    }

    fn put(&mut self, aggregate: Aggregate) {
        for host in &aggregate.hosts {
            self.by_host.entry(host.clone()).or_default().insert(aggregate.number);
        }
        self.all.insert(aggregate.number, aggregate);
    }

    /// Takes over what is new. Returns the hosts that were or are in the aggregate.
    pub(super) fn apply(&mut self, news: &AggregateNews) -> BTreeSet<HostName> {
        let number = news.aggregate.number;
        let mut touched = self.all.remove(&number).map(|old| old.hosts).unwrap_or_default();
        for host in &touched {
            if let Some(numbers) = self.by_host.get_mut(host) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.by_host.remove(host);
                }
            }
        }
        if !news.deleted {
            touched.extend(news.aggregate.hosts.iter().cloned());
            self.put(news.aggregate.clone());
        }
        touched
    }

    /// The aggregates of a host, by number.
    pub(super) fn of(&self, host: &HostName) -> Vec<&Aggregate> {
        self.by_host.get(host).into_iter().flatten().filter_map(|number| self.all.get(number)).collect()
    }

    /// The zone of a host that says to be in `own`.
    pub(super) fn settle(&mut self, host: &HostName, own: &ZoneName) -> ZoneName {
        let zone = self.of(host).into_iter().find_map(Aggregate::availability_zone).unwrap_or_else(|| own.clone());
        if zone == *own {
            self.own.remove(host);
        } else {
            self.own.insert(host.clone(), own.clone());
        }
        zone
    }

    /// The zone of a host that was in `before` until now.
    pub(super) fn resettle(&mut self, host: &HostName, before: &str) -> ZoneName {
        let own = self.own.get(host).cloned().unwrap_or_else(|| ZoneName::new(before));
        self.settle(host, &own)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use nova_core::aggregate::ZONE_KEY;
    use nova_core::ids::AggregateId;

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

    fn news(aggregate: Aggregate, deleted: bool) -> AggregateNews {
        AggregateNews { aggregate, deleted }
    }

    #[test]
    fn hosts_follow_their_aggregates_and_come_home() {
        let (h1, h2, own) = (HostName::from("h1"), HostName::from("h2"), ZoneName::from("nova"));
        let mut known = Aggregates::default();
        known.replace(vec![aggregate(1, Some("west"), &["h1"]), aggregate(2, None, &["h1", "h2"])]);
        assert_eq!((known.settle(&h1, &own).as_str(), known.settle(&h2, &own).as_str()), ("west", "nova"));
        assert_eq!(known.of(&h1).iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2]);
        // Another host takes the place of the first: both are touched, and the first is where it says to be.
        let touched = known.apply(&news(aggregate(1, Some("west"), &["h2"]), false));
        assert_eq!(touched, [h1.clone(), h2.clone()].into());
        assert_eq!((known.resettle(&h1, "west").as_str(), known.resettle(&h2, "nova").as_str()), ("nova", "west"));
        known.apply(&news(aggregate(1, Some("east"), &["h2"]), false));
        assert_eq!(known.resettle(&h2, "west").as_str(), "east");
        known.apply(&news(aggregate(1, Some("east"), &["h2"]), true));
        assert_eq!(known.resettle(&h2, "east").as_str(), "nova", "its own zone is not forgotten");
        assert_eq!(known.of(&h2).len(), 1);
    }
}
