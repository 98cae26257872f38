//! Volumes: every operation, with a volume host that fails or dies, and a database and a broker that go away, at each step. Whatever happened, the books and the disks
//! agree in the end, nothing is left behind, and quota is exact.

mod deeds;
pub mod mortal_driver;
mod world;

use std::sync::Arc;
use std::time::Duration;

use nova::volume::MadeOf;
use nova::volume::driver::{VolumeErrorKind, VolumeFault};
use nova_core::volume::VolumeStatus;
use nova_db::Outage;
use nova_queue::Chances;

use deeds::Deed;
use mortal_driver::MortalDriver;
use world::World;

/// More calls of the driver than any operation makes.
const MOMENTS: usize = 12;

/// More questions and transactions than a volume host has until an operation is over.
const QUESTIONS: u32 = 100;

/// Methods of the driver that change something.
const METHODS: [&str; 10] = [
    "create",
    "create_from_volume",
    "create_from_snapshot",
    "write_image",
    "read_image",
    "delete",
    "extend",
    "create_snapshot",
    "delete_snapshot",
    "connect_host",
];

/// Nothing happens: everything works, and what it leaves is right.
#[test]
fn operations_work() {
    for deed in Deed::ALL {
        let world = World::new();
        world.run(async |world| deed.prepare(world).await);
        world.run(async |world| deed.done(world).await);
        world.recover();
        world.run(async |world| {
            deed.ended_well(world).await;
            world.agrees(&format!("{deed:?}")).await;
        });
    }
}

/// The service dies before and after each call of its driver, without a word; another one is started in its place.
#[test]
fn a_service_that_dies_is_made_up_for() {
    for deed in Deed::ALL {
        for moment in 0..MOMENTS {
            for after in [false, true] {
                let world = World::new();
                world.run(async |world| deed.prepare(world).await);
                let driver = Arc::new(MortalDriver::new(world.disks.clone(), moment, after));
                let died = world.run_until_death(&driver, async |world| deed.done(world).await);
                world.recover();
                let label = format!("{deed:?}, call {moment}, after: {after}");
                world.run(async |world| {
                    deed.ended_well(world).await;
                    world.agrees(&label).await;
                });
                if !died {
                    assert!(moment > 0 || deed.is_quiet(), "{deed:?} never asks the driver");
                    break;
                }
            }
        }
    }
}

/// The driver fails once, for a while or for good, before or after it has done the work.
#[test]
fn a_driver_that_fails_leaves_nothing_behind() {
    for deed in Deed::ALL {
        for method in METHODS {
            for kind in [VolumeErrorKind::Unavailable, VolumeErrorKind::Failed, VolumeErrorKind::NoSpace] {
                for fault in [VolumeFault::Before(kind), VolumeFault::After(kind)] {
                    let world = World::new();
                    world.run(async |world| deed.prepare(world).await);
                    world.disks.fail_next(method, fault);
                    world.run(async |world| deed.done(world).await);
                    world.recover();
                    let label = format!("{deed:?}, {method} {fault:?}");
                    world.run(async |world| {
                        if kind == VolumeErrorKind::Unavailable {
                            deed.ended_well(world).await;
                        }
                        world.agrees(&label).await;
                        // What failed can be removed, and then nothing is left.
                        world.remove_everything(&label).await;
                    });
                }
            }
        }
    }
}

/// The database goes away before and after each question and transaction of the volume host, and comes back.
#[test]
fn a_database_that_goes_away_is_made_up_for() {
    for deed in Deed::ALL {
        for late in [false, true] {
            for after in 0..QUESTIONS {
                let world = World::new();
                world.run(async |world| deed.prepare(world).await);
                world.run_without_host(async |world| deed.done(world).await);
                world.database.go_away(Some(Outage { after, lasts: 3, late }));
                world.recover();
                let went = !world.database.will_be_away();
                world.database.go_away(None);
                world.recover();
                let label = format!("{deed:?}, after {after} questions, late: {late}");
                world.run(async |world| {
                    deed.ended_well(world).await;
                    world.agrees(&label).await;
                });
                if !went {
                    assert!(after > 0, "{deed:?} never asks the database");
                    break;
                }
            }
        }
    }
}

/// The broker loses, refuses or repeats every word: they only shorten the wait.
#[test]
fn a_broker_that_goes_away_is_made_up_for() {
    let longest_delay = Duration::from_millis(200);
    for chances in [
        Chances { lose: 1000, ..Chances::default() },
        Chances { fail: 1000, ..Chances::default() },
        Chances { repeat: 1000, delay: 1000, longest_delay, ..Chances::default() },
    ] {
        for deed in Deed::ALL {
            let world = World::new();
            world.run(async |world| deed.prepare(world).await);
            world.broker.set_chances(chances);
            world.run(async |world| deed.done(world).await);
            world.broker.set_chances(Chances::default());
            world.recover();
            let label = format!("{deed:?}, {chances:?}");
            world.run(async |world| {
                deed.ended_well(world).await;
                world.agrees(&label).await;
            });
        }
    }
}

/// A volume host that is away for ever: another one ends what it was told to do, in failure.
#[test]
fn what_a_lost_host_was_told_ends_in_time() {
    let world = World::new();
    world.run(async |world| world.settled().await);
    let create = async |world: &World| world.create("new", 1, MadeOf::Nothing).await.unwrap();
    let volume = world.run_without_host(create);
    world.pass(4000);
    world.run_elsewhere(async |host| host.sweep().await.unwrap());
    world.run(async |world| {
        let volume = world.volume(volume).await;
        assert_eq!(volume.status, VolumeStatus::Error);
        assert!(volume.fault.unwrap().contains("was away"));
        assert!(world.tasks().await.is_empty());
    });
}

/// Doing everything again changes nothing.
#[test]
fn a_second_start_changes_nothing() {
    let world = World::new();
    world.run(async |world| {
        Deed::CompleteAttachment.prepare(world).await;
        Deed::CompleteAttachment.done(world).await;
    });
    let before = world.run(async |world| world.everything().await);
    world.recover();
    world.recover();
    assert_eq!(world.run(async |world| world.everything().await), before);
}
