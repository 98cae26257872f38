use proptest::prelude::*;

use super::*;
use crate::query::Overlay;
use crate::{
    Aggregate, GroupPolicy, HostAttributes, HostStats, HostView, ImageRef, Purpose, Ratios, ServerGroup,
    SupportedInstance, fixtures,
};

crate::scheduler_conformance!(Box::new(FilterScheduler::new(&FilterOptions::default()).unwrap()));

mod with_everything {
    use super::*;

    crate::scheduler_conformance!(Box::new(everything()));
}

/// Every filter and weigher that says nothing to a request which asks for nothing special.
fn everything() -> FilterScheduler {
    let mut options = FilterOptions { host_subset_size: 3, max_instances_per_host: 1_000, ..FilterOptions::default() };
    options.enabled_filters = filters::FILTERS.map(str::to_owned).to_vec();
    options.num_instances_weight_multiplier = -1.0;
    options.image_props_weight_multiplier = 1.0;
    FilterScheduler::new(&options).unwrap()
}

fn scattered(seed: u64, hosts: usize) -> HostTable {
    let mut rng = SchedulerRng::from_seed(seed);
    let mut table = fixtures::table(0, 1);
    for number in 0..hosts {
        let mut host = fixtures::host(number, 3);
        host.up = rng.below(12) > 0;
        host.enabled = rng.below(12) > 0;
        host.total = [8 << rng.below(3), 16_000 << rng.below(3), 500 + rng.below(3) * 100].into();
        host.reserved = [0, 512 * rng.below(2), 0].into();
        host.ratio = Ratios::from([[1.0, 4.0][rng.index(2)], 1.0, 1.0]);
        host.stats = HostStats {
            io_ops: rng.below(12) as u32,
            failed_builds: rng.below(20) as u32 / 18,
            metrics: (rng.below(10) > 0).then(|| ("cpu".to_owned(), rng.below(100) as f64)).into_iter().collect(),
        };
        host.attributes = HostAttributes {
            hypervisor_type: "QEMU".to_owned(),
            hypervisor_version: 7_000_000 + rng.below(3),
            supported_instances: vec![SupportedInstance::new(["x86_64", "aarch64"][rng.index(2)], "qemu", "hvm")],
            capabilities: [("tier".to_owned(), rng.below(3).to_string())].into(),
            ..HostAttributes::default()
        }
        .into();
        let name = host.name.clone();
        table.upsert_host(host).unwrap();
        for instance in 0..rng.below(4) {
            let amounts = [rng.below(6), rng.below(6_000), rng.below(100)];
            let consumer = number as u128 * 10 + u128::from(instance);
            let _ = table.allocate(&name, consumer, &amounts.into());
        }
    }
    let some = |rng: &mut SchedulerRng| (0..hosts / 4).map(|_| format!("host-{}", rng.index(hosts))).collect();
    let aggregate = |id, key: &str, value: &str, rng: &mut SchedulerRng| Aggregate {
        id,
        name: id.to_string(),
        metadata: [(key.to_owned(), value.to_owned())].into(),
        hosts: some(rng),
    };
    table.set_aggregates([
        aggregate(1, "disk", "ssd,nvme", &mut rng),
        aggregate(2, "cpu_weight_multiplier", "-2.5", &mut rng),
        aggregate(3, "max_io_ops_per_host", "3", &mut rng),
        aggregate(4, "build_failure_weight_multiplier", "7", &mut rng),
    ]);
    table
}

fn random_request(pick: u64) -> Request {
    let mut rng = SchedulerRng::from_seed(pick);
    let mut request = Request::new([1 + rng.below(4), 500 << rng.below(4), 10].into()).alternates(2);
    match rng.below(8) {
        0 => drop(request.extra_specs.insert("capabilities:tier".to_owned(), "<or> 1 <or> 2".to_owned())),
        1 => drop(request.extra_specs.insert("aggregate_instance_extra_specs:disk".to_owned(), "ssd".to_owned())),
        2 => {
            let properties = [("hw_architecture".to_owned(), "aarch64".to_owned())].into();
            request.image = Some(ImageRef { id: "image".to_owned(), properties });
        }
        3 | 4 => {
            let policy = [
                GroupPolicy::Affinity,
                GroupPolicy::AntiAffinity,
                GroupPolicy::SoftAffinity,
                GroupPolicy::SoftAntiAffinity,
            ][rng.index(4)];
            let members = (0..5).map(|_| u128::from(rng.below(1_000))).collect();
            request.group = Some(ServerGroup::new(policy, members));
        }
        5 => request.zone = Some("zone-1".to_owned()),
        6 => request.ignore_hosts = vec![format!("host-{}", rng.below(50))],
        _ => request.hints.query = Some(r#"["<", "$num_instances", 3]"#.to_owned()),
    }
    request
}

/// The scores of all hosts that pass, best first: as `nova/weights.py` has it, host by host.
fn naive(scheduler: &FilterScheduler, table: &HostTable, request: &Request) -> Vec<(String, f64)> {
    let query = Query::new(table, request, None);
    let overlay = Overlay::default();
    let company = Company::new(&query, &overlay);
    let hosts: Vec<HostView<'_>> = (table.hosts())
        .filter(|host| query.verdict(table.row(host.name()).unwrap(), &overlay).is_ok())
        .filter_map(|host| company.view(table.row(host.name())?))
        .filter(|host| scheduler.filters.iter().all(|filter| filter.host_passes(host, request)))
        .collect();
    let mut scores = vec![0.0; hosts.len()];
    for weigher in scheduler.weighers.iter().filter(|_| hosts.len() > 1) {
        let floor = weigher.least().unwrap_or(f64::NEG_INFINITY);
        let weights: Vec<f64> = hosts.iter().map(|host| weigher.weigh(host, request).max(floor)).collect();
        let weighed = || weights.iter().copied().filter(|weight| *weight > f64::NEG_INFINITY);
        let most = weighed().fold(f64::NEG_INFINITY, f64::max);
        let least = weigher.least().unwrap_or_else(|| weighed().fold(f64::INFINITY, f64::min));
        if weighed().count() < weights.len() {
            // Those without a weight come after all that have one.
            let range = if most > least { most - least } else { 1.0 };
            let part = |weight: f64| weigher.multiplier() * ((weight - least) / range);
            let parts = weights.iter().map(|weight| if *weight > f64::NEG_INFINITY { part(*weight) } else { -1e12 });
            scores.iter_mut().zip(parts).for_each(|(score, part)| *score += part);
            continue;
        }
        if least == most {
            continue;
        }
        for ((score, weight), host) in scores.iter_mut().zip(weights).zip(&hosts) {
            let own = weigher.multiplier_key().and_then(|key| host.aggregate_values(key));
            let own = own.and_then(|values| values.iter().map(|value| value.parse::<f64>().unwrap()).reduce(f64::min));
            let multiplier = own.map_or(weigher.multiplier(), |own| own * weigher.aggregate_sign());
            *score += multiplier * ((weight - least) / (most - least));
        }
    }
    let mut named: Vec<(String, f64)> = hosts.iter().map(|host| host.name().to_owned()).zip(scores).collect();
    named.sort_by(|a, b| b.1.total_cmp(&a.1));
    named
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Columns, bitmaps and verdicts per kind give what host by host gives.
    #[test]
    fn decisions_are_novas(seed in any::<u64>(), hosts in 1_usize..300, pick in any::<u64>()) {
        let mut table = scattered(seed, hosts);
        let request = random_request(pick);
        if pick % 2 == 0 {
            // With one multiplier for all hosts.
            let aggregates = table.aggregates().to_vec();
            table.set_aggregates(aggregates.into_iter().filter(|aggregate| aggregate.id % 2 == 1));
        }
        let mut options = FilterOptions { num_instances_weight_multiplier: -0.5, ..FilterOptions::default() };
        options.enabled_filters = filters::FILTERS.map(str::to_owned).to_vec();
        options.metrics.weight_setting = vec![("cpu".to_owned(), -1.0)];
        if pick % 3 == 0 {
            // Hosts that don't report the metric are not turned away.
            options.enabled_filters.retain(|name| name != "MetricsFilter");
            options.metrics.required = pick % 4 < 2;
        }
        let scheduler = FilterScheduler::new(&options).unwrap();
        let naive = naive(&scheduler, &table, &request);
        let score = |host: &str| naive.iter().find(|(name, _)| name == host).map(|(_, score)| *score);
        match scheduler.select_destinations(&table, &request, &mut SchedulerRng::from_seed(pick)) {
            Ok(chosen) => {
                prop_assert_eq!(score(&chosen[0].host), Some(naive[0].1));
                if request.group.is_none() {
                    prop_assert_eq!(chosen[0].alternates.len(), (naive.len() - 1).min(2));
                    // Alternates are the best of the others, in order.
                    let mut rest = request.clone();
                    rest.ignore_hosts.push(chosen[0].host.to_string());
                    let rest = self::naive(&scheduler, &table, &rest);
                    for (alternate, (_, expected)) in chosen[0].alternates.iter().zip(&rest) {
                        let found = rest.iter().find(|(name, _)| **name == *alternate.host).map(|(_, score)| *score);
                        prop_assert_eq!(found, Some(*expected));
                    }
                }
            }
            Err(no) => {
                prop_assert!(naive.is_empty(), "{}", no);
                prop_assert_eq!(no.reasons.iter().map(|(_, hosts)| hosts).sum::<usize>(), table.len());
            }
        }
    }
}

fn hosts_of(answer: &[Selection]) -> Vec<&str> {
    answer.iter().map(|selection| &*selection.host).collect()
}

#[test]
fn a_group_counts_what_the_request_itself_places() {
    let table = fixtures::table(3, 1);
    let scheduler = FilterScheduler::new(&FilterOptions::default()).unwrap();
    let mut rng = SchedulerRng::from_seed(1);
    let mut request = Request::new([1, 1, 1].into()).instances(3);
    request.group = Some(ServerGroup::new(GroupPolicy::AntiAffinity, vec![]));
    let apart = scheduler.select_destinations(&table, &request, &mut rng).unwrap();
    let distinct: std::collections::BTreeSet<_> = hosts_of(&apart).into_iter().collect();
    assert_eq!(distinct.len(), 3);
    request.num_instances = 4;
    let refused = scheduler.select_destinations(&table, &request, &mut rng).unwrap_err();
    assert_eq!((refused.placed, refused.turned_away("ServerGroupAntiAffinityFilter")), (3, 3));
    assert_eq!(refused.alone, [("ServerGroupAntiAffinityFilter".to_owned(), 3)]);
    request.group = Some(ServerGroup::new(GroupPolicy::Affinity, vec![]));
    let together = scheduler.select_destinations(&table, &request, &mut rng).unwrap();
    assert!(hosts_of(&together).iter().all(|host| *host == hosts_of(&together)[0]));
}

/// A required metric that one host doesn't report puts that host last; it says nothing of the others.
#[test]
fn a_host_without_a_metric_is_last_and_leaves_the_others_in_order() {
    let mut table = fixtures::table(4, 1);
    for (host, figure) in [("host-0", 10.0), ("host-1", 30.0), ("host-2", 20.0)] {
        let metrics = [("cpu".to_owned(), figure)].into();
        table.set_stats(host, HostStats { metrics, ..HostStats::default() }).unwrap();
    }
    let mut options = FilterOptions { weight_classes: vec!["MetricsWeigher".to_owned()], ..FilterOptions::default() };
    options.metrics.weight_setting = vec![("cpu".to_owned(), 1.0)];
    let order = |options: &FilterOptions| {
        let scheduler = FilterScheduler::new(options).unwrap();
        let told = scheduler.explain(&table, &Request::new([1, 1, 1].into()));
        let scores = told.iter().map(|host| (host.host.clone(), host.score.unwrap()));
        scores.collect::<Vec<(String, f64)>>()
    };
    let expected = [("host-1", 1.0), ("host-2", 0.5), ("host-0", 0.0), ("host-3", -1e12)];
    assert_eq!(order(&options), expected.map(|(host, score)| (host.to_owned(), score)));
    // The host keeps its place when less of the metric is better.
    options.metrics.weight_multiplier = -1.0;
    assert_eq!(order(&options)[3].0, "host-3");
    // One that is not required has the weight that Nova gives it, on the same scale.
    options.metrics.weight_multiplier = 1.0;
    options.metrics.required = false;
    options.metrics.weight_of_unavailable = 0.0;
    assert_eq!(order(&options)[3], ("host-3".to_owned(), 0.0));
    assert!((order(&options)[2].1 - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn the_subset_is_drawn_from_the_best() {
    let mut table = fixtures::table(10, 1);
    for number in 0..10 {
        table.allocate(&format!("host-{number}"), number, &[number as u64, 0, 0].into()).unwrap();
    }
    let options = FilterOptions { host_subset_size: 3, ..FilterOptions::default() };
    let scheduler = FilterScheduler::new(&options).unwrap();
    let mut rng = SchedulerRng::from_seed(1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let answer = scheduler.select_destinations(&table, &Request::new([1, 1, 1].into()), &mut rng).unwrap();
        seen.insert(answer[0].host.to_string());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["host-0", "host-1", "host-2"]);
}

#[test]
fn a_rebuild_asks_only_whether_the_image_suits() {
    let mut table = fixtures::table(1, 1);
    let mut host = fixtures::host(0, 1);
    host.attributes = HostAttributes {
        supported_instances: vec![SupportedInstance::new("x86_64", "qemu", "hvm")],
        ..HostAttributes::default()
    }
    .into();
    table.upsert_host(host).unwrap();
    table.allocate("host-0", 1, &[16, 1, 1].into()).unwrap();
    table.set_enabled("host-0", false, None).unwrap();
    let mut request = Request::new([16, 1, 1].into());
    request.requested_host = Some("host-0".to_owned());
    request.instance = Some(1);
    let scheduler = FilterScheduler::new(&FilterOptions::default()).unwrap();
    let mut rng = SchedulerRng::from_seed(1);
    assert!(scheduler.select_destinations(&table, &request, &mut rng).is_err());
    request.purpose = Purpose::Rebuild;
    assert!(scheduler.select_destinations(&table, &request, &mut rng).is_ok());
    let properties = [("hw_architecture".to_owned(), "aarch64".to_owned())].into();
    request.image = Some(ImageRef { id: "image".to_owned(), properties });
    let refused = scheduler.select_destinations(&table, &request, &mut rng).unwrap_err();
    assert_eq!(refused.turned_away("ImagePropertiesFilter"), 1);
    // Algorithms without filters look at the architecture that the request names.
    let plain = crate::LeastLoadScheduler::default();
    assert!(plain.select_destinations(&table, &request, &mut rng).is_ok());
    let request = request.on_architecture("aarch64");
    assert_eq!(plain.select_destinations(&table, &request, &mut rng).unwrap_err().turned_away("architecture"), 1);
}

#[test]
fn unknown_names_and_odd_numbers_are_refused() {
    let options = FilterOptions { enabled_filters: vec!["RamFilter".to_owned()], ..FilterOptions::default() };
    assert!(FilterScheduler::new(&options).is_err());
    let options = FilterOptions { ram_weight_multiplier: f64::NAN, ..FilterOptions::default() };
    assert!(FilterScheduler::new(&options).err().unwrap().to_string().contains("RAMWeigher"));
}
