//! How tightly instances are packed, against the best that can be.

use nova_sched::{Dimensions, HostInventory, HostTable, Request, SchedulerOptions, SchedulerRng, by_name};

const HOST: [u64; 2] = [64, 262_144];

/// Sizes after the published shares of a public cloud: two thirds with one core and less than 2 GiB, up to 8 cores and
/// 32 GiB.
fn size(rng: &mut SchedulerRng) -> [u64; 2] {
    match rng.below(12) {
        0..=7 => [1, 1_024 + 512 * rng.below(2)],
        8 => [2, 4_096],
        9 => [4, [8_192, 16_384][rng.index(2)]],
        10 => [8, [16_384, 32_768][rng.index(2)]],
        _ => [[2, 4][rng.index(2)], 8_192],
    }
}

/// Hosts used beyond the lower bound, in percent, after so many instances have come.
fn waste(seed: u64) -> f64 {
    let mut rng = SchedulerRng::from_seed(seed);
    let mut options = SchedulerOptions::default();
    options.load_source = Some("pack".to_owned());
    let scheduler = by_name("least_load", &options).unwrap();
    let mut table = HostTable::new(Dimensions::new(["vcpus", "memory_mb"]).unwrap());
    scheduler.register(&mut table).unwrap();
    for number in 0..200 {
        table.upsert_host(HostInventory::new(format!("host-{number}"), "here", HOST.into())).unwrap();
    }
    let mut sum = [0, 0];
    for consumer in 0..4_000_u128 {
        let size = size(&mut rng);
        let chosen = scheduler.select_destinations(&table, &Request::new(size.into()), &mut rng).unwrap();
        table.allocate(&chosen[0].host, consumer, &size.into()).unwrap();
        (0..2).for_each(|index| sum[index] += size[index]);
    }
    let used = table.hosts().filter(|host| host.consumers() > 0).count();
    let bound = (0..2).map(|index| sum[index].div_ceil(HOST[index])).max().unwrap();
    (used as f64 / bound as f64 - 1.0) * 100.0
}

#[test]
fn packing_wastes_few_hosts() {
    let wastes: Vec<f64> = (0..10).map(waste).collect();
    println!("hosts beyond the lower bound, percent: {wastes:.2?}");
    assert!(wastes.iter().all(|waste| *waste <= 2.0), "{wastes:?}");
}
