use super::summary::NOTHING;
use super::*;
use crate::{Ratios, UsedLoad, fixtures};

fn free(table: &HostTable, host: &str) -> u64 {
    table.host(host).unwrap().free(0)
}

#[test]
fn capacity_is_total_less_reserved_times_ratio() {
    let mut table = fixtures::table(0, 1);
    let mut host = fixtures::host(0, 1);
    host.reserved = [2, 512, 0].into();
    host.ratio = Ratios::from([4.0, 1.0]);
    table.upsert_host(host).unwrap();
    table.allocate("host-0", 1, &[56, 65_024, 1_000].into()).unwrap();
    for (dimension, one) in [[1, 0, 0], [0, 1, 0], [0, 0, 1]].into_iter().enumerate() {
        let error = table.allocate("host-0", 2, &one.into()).unwrap_err();
        let name = fixtures::DIMENSIONS[dimension].to_owned();
        let expected =
            SchedulerError::InsufficientCapacity { host: "host-0".to_owned(), dimension: name, asked: 1, free: 0 };
        assert_eq!(error, expected);
    }
}

#[test]
fn booking_twice_is_booking_once() {
    let mut table = fixtures::table(2, 1);
    assert_eq!(table.allocate("host-0", 1, &[4, 0, 0].into()), Ok(Applied::Now));
    assert_eq!(table.allocate("host-0", 1, &[4, 0, 0].into()), Ok(Applied::Before));
    assert!(matches!(
        table.allocate("host-0", 1, &[5, 0, 0].into()),
        Err(SchedulerError::AllocationDiffers { consumer: 1, .. })
    ));
    assert_eq!(free(&table, "host-0"), 12);
    assert_eq!(table.reallocate("host-0", 1, &[16, 0, 0].into()), Ok(Applied::Now));
    assert!(table.reallocate("host-0", 1, &[17, 0, 0].into()).is_err());
    assert_eq!(free(&table, "host-0"), 0);
    assert!(table.release(1));
    assert!(!table.release(1));
    assert_eq!(free(&table, "host-0"), 16);
}

#[test]
fn a_consumer_may_hold_two_hosts_during_a_move() {
    let mut table = fixtures::table(3, 1);
    table.allocate("host-0", 7, &[4, 0, 0].into()).unwrap();
    table.allocate("host-1", 7, &[4, 0, 0].into()).unwrap();
    table.allocate("host-2", 7, &[2, 0, 0].into()).unwrap();
    assert!(table.release_on(7, "host-0"));
    assert!(!table.release_on(7, "host-0"));
    assert!(!table.release_on(7, "unknown"));
    let hosts: Vec<String> = table.holdings(7).into_iter().map(|holding| holding.host).collect();
    assert_eq!(hosts, ["host-1", "host-2"]);
    assert_eq!((free(&table, "host-0"), free(&table, "host-1")), (16, 12));
    assert!(table.release(7));
    assert_eq!((free(&table, "host-1"), free(&table, "host-2")), (16, 16));
    assert!(table.consumers_on("host-1").is_empty());
}

#[test]
fn a_host_may_change_zone_and_size_under_its_instances() {
    let mut table = fixtures::table(3, 1);
    table.allocate("host-1", 1, &[10, 0, 0].into()).unwrap();
    let mut host = fixtures::host(1, 1);
    host.zone = "elsewhere".to_owned();
    host.total = [8, 1, 1].into();
    table.upsert_host(host).unwrap();
    assert_eq!(table.zones(), [("elsewhere".to_owned(), 1), ("zone-0".to_owned(), 2)]);
    let view = table.host("host-1").unwrap();
    assert_eq!((view.zone(), view.used(0), view.free(0), view.capacity(0)), ("elsewhere", 10, 0, 8));
    assert!(table.allocate("host-1", 2, &[1, 0, 0].into()).is_err());
    assert!(table.release_on(1, "host-1"));
    assert_eq!(free(&table, "host-1"), 8);
}

#[test]
fn facts_are_recorded_even_beyond_the_capacity() {
    let mut table = fixtures::table(1, 1);
    assert_eq!(table.record_allocation("host-0", 1, &[20, 0, 0].into()), Ok(Applied::Now));
    assert_eq!(table.record_allocation("host-0", 1, &[20, 0, 0].into()), Ok(Applied::Before));
    assert_eq!((free(&table, "host-0"), table.host("host-0").unwrap().used(0)), (0, 20));
    assert!(table.record_allocation("host-0", 2, &[u64::MAX, 0, 0].into()).is_err());
    assert_eq!(table.record_allocation("host-0", 1, &[3, 0, 0].into()), Ok(Applied::Now));
    assert_eq!(free(&table, "host-0"), 13);
}

#[test]
fn a_removed_host_takes_its_allocations_along() {
    let mut table = fixtures::table(2, 1);
    table.allocate("host-0", 1, &[1, 0, 0].into()).unwrap();
    table.allocate("host-1", 1, &[1, 0, 0].into()).unwrap();
    assert!(table.remove_host("host-0"));
    assert!(!table.remove_host("host-0"));
    assert_eq!(table.holdings(1).len(), 1);
    // The place is used again, and nothing of the old host is left on it.
    table.upsert_host(fixtures::host(5, 1)).unwrap();
    assert_eq!((free(&table, "host-5"), table.consumers_on("host-5").len()), (16, 0));
    assert!(table.host("host-0").is_none());
}

#[test]
fn heartbeats_keep_a_host_up() {
    let mut table = fixtures::table(3, 1);
    table.heartbeat("host-0", 1_000).unwrap();
    table.heartbeat("host-1", 50_000).unwrap();
    assert!(table.expire_heartbeats(60_000, 60_000).is_empty());
    assert_eq!(table.expire_heartbeats(61_001, 60_000), ["host-0"]);
    assert!(table.expire_heartbeats(61_001, 60_000).is_empty());
    assert!(!table.host("host-0").unwrap().is_up());
    // One that never gave a sign is left to `set_up`.
    assert!(table.host("host-2").unwrap().is_up());
    table.heartbeat("host-0", 61_002).unwrap();
    assert!(table.host("host-0").unwrap().is_up());
}

#[test]
fn descriptions_come_back_as_they_were_given() {
    let mut table = fixtures::table(0, 1);
    let mut host = fixtures::host(0, 1);
    host.node = "node-a".to_owned();
    host.enabled = false;
    host.disabled_reason = Some("maintenance".to_owned());
    host.traits = vec!["gpu".to_owned(), "ssd".to_owned()];
    host.reported_load = 4;
    table.upsert_host(host.clone()).unwrap();
    table.upsert_host(host.clone()).unwrap();
    assert_eq!(table.host("host-0").unwrap().inventory(), host);
    table.set_enabled("host-0", true, None).unwrap();
    assert_eq!(table.host("host-0").unwrap().inventory().disabled_reason, None);
    for (field, broken) in [
        ("name", HostInventory { name: String::new(), ..host.clone() }),
        ("zone", HostInventory { zone: String::new(), ..host.clone() }),
        ("ratio", HostInventory { ratio: Ratios::from([0.0]), ..host.clone() }),
        ("ratio", HostInventory { ratio: Ratios::from([f64::NAN]), ..host.clone() }),
    ] {
        let error = table.upsert_host(broken).unwrap_err();
        assert!(matches!(error, SchedulerError::InvalidInventory { field: named, .. } if named == field));
    }
}

#[test]
fn unknown_names_are_errors() {
    let mut table = fixtures::table(1, 1);
    assert!(matches!(table.set_up("x", true), Err(SchedulerError::UnknownHost { .. })));
    assert!(table.set_enabled("x", true, None).is_err());
    assert!(table.heartbeat("x", 1).is_err());
    assert!(table.allocate("x", 1, &[1].into()).is_err());
    let fourth = table.allocate("host-0", 1, &[0, 0, 0, 1].into());
    assert!(matches!(fourth, Err(SchedulerError::UnknownDimension { .. })));
}

/// Compares every summary with what it summarises.
fn assert_summaries(table: &HostTable) {
    for zone in &table.zones {
        for (position, index) in zone.blocks.iter().enumerate() {
            let block = &table.blocks[*index as usize];
            let most = |column: &[i64; BLOCK]| bits(block.eligible()).map(|bit| column[bit]).max().unwrap_or(NOTHING);
            for (dimension, summary) in zone.most_free.iter().enumerate() {
                assert_eq!(summary.block(position), most(&table.free[dimension][*index as usize]));
            }
            for (load, summary) in table.loads.iter().zip(&zone.best_merit) {
                assert_eq!(summary.block(position), most(&load.merits[*index as usize]));
            }
        }
    }
}

#[test]
fn summaries_follow_every_change() {
    let mut table = fixtures::table(0, 1);
    table.register_load(Arc::new(UsedLoad::cores()));
    let mut rng = crate::SchedulerRng::from_seed(11);
    for round in 0..6_000_u32 {
        let number = rng.index(300);
        let name = format!("host-{number}");
        match rng.below(12) {
            0 | 1 => {
                let mut host = fixtures::host(number, 2);
                host.total = [[16, 64][rng.index(2)] + rng.below(8), 1_000 + rng.below(20), 1_000].into();
                host.zone = format!("zone-{}", rng.below(2));
                table.upsert_host(host).unwrap();
            }
            2 => drop(table.remove_host(&name)),
            3 => drop(table.set_up(&name, rng.below(2) == 0)),
            4 => drop(table.set_enabled(&name, rng.below(2) == 0, None)),
            5..=7 => drop(table.release(u128::from(rng.below(600)))),
            _ => {
                let amounts = [rng.below(9), rng.below(600), rng.below(600)];
                drop(table.allocate(&name, u128::from(rng.below(600)), &amounts.into()));
            }
        }
        // From when the table is about as full as it gets.
        if round > 1_000 {
            assert_summaries(&table);
        }
    }
    let distinct: std::collections::BTreeSet<_> =
        table.snapshot().allocations.iter().map(|held| held.resources.0).collect();
    assert_eq!(table.sizes.len(), distinct.len(), "sizes that nobody holds are kept");
    let kinds: Vec<_> = table.hosts().map(|host| host.inventory()).collect();
    let distinct: std::collections::BTreeSet<_> = kinds.iter().map(|host| host.total.0).collect();
    assert_eq!(table.stocks.len(), distinct.len(), "stocks that no host has are kept");
    // An index that is registered late knows the same as one that was there from the start.
    let mut late = HostTable::from_snapshot(&table.snapshot(), []).unwrap();
    late.register_load(Arc::new(UsedLoad::cores()));
    assert_summaries(&late);
    assert_eq!(late.snapshot(), table.snapshot());
}

#[test]
fn what_changes_on_a_host_that_is_down_stays_out_of_the_summaries() {
    let mut table = fixtures::table(2, 1);
    table.register_load(Arc::new(UsedLoad::cores()));
    table.allocate("host-0", 1, &[8, 8, 8].into()).unwrap();
    table.allocate("host-1", 2, &[4, 4, 4].into()).unwrap();
    table.set_up("host-1", false).unwrap();
    assert_summaries(&table);
    assert!(table.release(2));
    assert_summaries(&table);
    table.set_up("host-1", true).unwrap();
    assert_summaries(&table);
}
