//! The aggregates that hosts are in, as the store and the news tell.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
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
    /// What was told since the last reading began, in the scheduler's count of what it heard.
    told: BTreeMap<i64, (u64, AggregateNews)>,
    /// When what is known of aggregates that were spoken of was written.
    at: BTreeMap<i64, Timestamp>,
}

impl Aggregates {
    /// These are all, but for what was told since `began`; every host is settled anew after this.
    pub(super) fn replace(&mut self, aggregates: Vec<Aggregate>, began: u64) {
        self.told.retain(|_, (heard, _)| *heard > began);
        (self.all, self.by_host) = Default::default();
        for aggregate in aggregates {
            self.put(aggregate);
        }
        for (_, news) in self.told.clone().values() {
            self.take_over(news);
        }
    }

    fn put(&mut self, aggregate: Aggregate) {
        for host in &aggregate.hosts {
            self.by_host.entry(host.clone()).or_default().insert(aggregate.number);
        }
        self.all.insert(aggregate.number, aggregate);
    }

    /// Takes over what is new. Returns the hosts that were or are in the aggregate; none for news that came late.
    pub(super) fn apply(&mut self, news: &AggregateNews, heard: u64) -> BTreeSet<HostName> {
        let number = news.aggregate.number;
        if self.at.get(&number).is_some_and(|known| *known > news.at) {
            return BTreeSet::new();
        }
        self.at.insert(number, news.at);
        self.told.insert(number, (heard, news.clone()));
        self.take_over(news)
    }

    fn take_over(&mut self, news: &AggregateNews) -> BTreeSet<HostName> {
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

    /// All, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Aggregate> {
        self.all.values()
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

    /// The zone that a host reports itself, which is in `now`.
    pub(super) fn own_zone(&self, host: &HostName, now: &str) -> ZoneName {
        self.own.get(host).cloned().unwrap_or_else(|| ZoneName::new(now))
    }

    /// The zone of a host that was in `before` until now.
    pub(super) fn resettle(&mut self, host: &HostName, before: &str) -> ZoneName {
        let own = self.own_zone(host, before);
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
        AggregateNews { aggregate, deleted, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn what_was_told_since_a_reading_began_is_newer_than_the_reading() {
        let second = |n| Timestamp::from_second(n).unwrap();
        let at = |news: AggregateNews, n| AggregateNews { at: second(n), ..news };
        let read = vec![aggregate(1, Some("west"), &["h1"])];
        let mut known = Aggregates::default();
        known.replace(read.clone(), 0);
        let east = aggregate(1, Some("east"), &["h1"]);
        assert_eq!(known.apply(&at(news(east, false), 5), 1).len(), 1);
        assert!(known.apply(&at(news(read[0].clone(), false), 4), 2).is_empty(), "what comes late is none");
        let zone = |known: &Aggregates| known.of(&"h1".into()).first().and_then(|a| a.availability_zone());
        known.replace(read.clone(), 0);
        assert_eq!(zone(&known), Some("east".into()));
        known.replace(read.clone(), 1);
        assert_eq!(zone(&known), Some("west".into()), "that reading began later");
        known.apply(&at(news(read[0].clone(), true), 6), 2);
        known.replace(read, 1);
        assert_eq!(zone(&known), None);
    }

    #[test]
    fn hosts_follow_their_aggregates_and_come_home() {
        let (h1, h2, own) = (HostName::from("h1"), HostName::from("h2"), ZoneName::from("nova"));
        let mut known = Aggregates::default();
        known.replace(vec![aggregate(1, Some("west"), &["h1"]), aggregate(2, None, &["h1", "h2"])], 0);
        assert_eq!((known.settle(&h1, &own).as_str(), known.settle(&h2, &own).as_str()), ("west", "nova"));
        assert_eq!(known.of(&h1).iter().map(|a| a.number).collect::<Vec<_>>(), [1, 2]);
        // Another host takes the place of the first: both are touched, and the first is where it says to be.
        let touched = known.apply(&news(aggregate(1, Some("west"), &["h2"]), false), 1);
        assert_eq!(touched, [h1.clone(), h2.clone()].into());
        assert_eq!((known.resettle(&h1, "west").as_str(), known.resettle(&h2, "nova").as_str()), ("nova", "west"));
        known.apply(&news(aggregate(1, Some("east"), &["h2"]), false), 1);
        assert_eq!(known.resettle(&h2, "west").as_str(), "east");
        known.apply(&news(aggregate(1, Some("east"), &["h2"]), true), 1);
        assert_eq!(known.resettle(&h2, "east").as_str(), "nova", "its own zone is not forgotten");
        assert_eq!(known.of(&h2).len(), 1);
    }
}
