//! Placement by what hosts can do and by how busy they say that they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nova_core::flavor::Flavor;
use nova_core::ids::{HostName, ImageId, InstanceId};
use nova_core::state::VmState;
use nova_sched::SchedulerOptions;
use nova_virt::{ErrorKind, FakeLoad, Operation};
use serde_json::json;

use crate::support::{Cloud, CloudOptions};

/// Longer than heartbeats are apart.
const A_BEAT: Duration = Duration::from_secs(15);
/// Longer than hosts' comparisons, and so their measurements, are apart.
const A_MEASUREMENT: Duration = Duration::from_secs(65);

/// A flavor of one processor and so much memory, the name of the flavor, with these extra specs.
fn asking(cloud: &Cloud, memory_mb: u64, specs: &[(&str, &str)]) -> Flavor {
    let specs = specs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Flavor { extra_specs: specs.collect(), ..cloud.flavor(1, memory_mb) }
}

/// One server after the other; where each is.
async fn boot(cloud: &Cloud, count: usize, flavor: &Flavor) -> Vec<Option<HostName>> {
    let mut hosts = Vec::new();
    for _ in 0..count {
        let id = one(cloud, flavor).await;
        cloud.settle().await;
        hosts.push(cloud.get(id).await.host);
    }
    hosts
}

async fn one(cloud: &Cloud, flavor: &Flavor) -> InstanceId {
    cloud.boot(1, flavor.clone()).await.unwrap()[0]
}

fn host(name: &str) -> Option<HostName> {
    Some(HostName::new(name))
}

#[tokio::test(start_paused = true)]
async fn traits_lead_to_the_host_that_has_them_and_away_from_it() {
    for scheduler in ["random", "availability_zone", "least_load", "filter"] {
        let cloud = Cloud::start(CloudOptions {
            scheduler,
            dress: |name, machine, settings| match name {
                "host01" => drop(settings.traits.insert("CUSTOM_FAST".into())),
                "host02" => drop(machine.traits.insert("HW_CPU_X86_AVX2".into())),
                _ => {}
            },
            ..CloudOptions::default()
        })
        .await;
        let fast = asking(&cloud, 256, &[("trait:CUSTOM_FAST", "required")]);
        assert_eq!(boot(&cloud, 3, &fast).await, vec![host("host01"); 3], "{scheduler}");
        let slow = asking(&cloud, 257, &[("trait:CUSTOM_FAST", "forbidden"), ("trait:HW_CPU_X86_AVX2", "forbidden")]);
        assert_eq!(boot(&cloud, 3, &slow).await, vec![host("host00"); 3], "{scheduler}");
        let avx = asking(&cloud, 258, &[("trait:HW_CPU_X86_AVX2", "required"), ("trait:COMPUTE_NODE", "required")]);
        assert_eq!(boot(&cloud, 1, &avx).await, [host("host02")], "{scheduler}");
        let none = asking(&cloud, 259, &[("trait:CUSTOM_SLOW", "required")]);
        let id = one(&cloud, &none).await;
        cloud.settle().await;
        let refused = cloud.get(id).await;
        assert_eq!(refused.vm_state, VmState::Error);
        assert!(refused.fault.unwrap().details.contains("trait"), "{scheduler}");
        cloud.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_fails_builds_is_chosen_last_and_then_takes_itself_out() {
    let cloud = Cloud::start(CloudOptions {
        scheduler: "filter",
        hosts: 2,
        dress: |name, machine, settings| {
            settings.build_failure_threshold = 3;
            // Without its failures it is the better one by far.
            machine.memory_mb *= if name == "host00" { 4 } else { 1 };
        },
        ..CloudOptions::default()
    })
    .await;
    let bad = &cloud.hosts[&HostName::new("host00")];
    let small = asking(&cloud, 256, &[]);
    bad.fail_next(Operation::Spawn, 2, ErrorKind::Failed);
    assert_eq!(boot(&cloud, 2, &small).await, vec![host("host01"); 2], "the second host is tried next");
    cloud.pass(A_BEAT).await;
    assert_eq!(cloud.store.node_of_host(&HostName::new("host00")).await.unwrap().stats.failed_builds, 2);
    let tries = bad.journal().len();
    assert_eq!(boot(&cloud, 1, &small).await, [host("host01")]);
    let spawned = |from: usize| bad.journal()[from..].iter().any(|entry| entry.operation == Operation::Spawn);
    assert!(!spawned(tries), "it was not even tried");

    bad.fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    let image = ImageId::generate(&*cloud.entropy);
    let body = json!({"server": {"name": "forced", "flavorRef": "1-256", "imageRef": image, "networks": "none",
        "availability_zone": "nova:host00"}});
    let (status, answer) = cloud.call_as_admin("POST", "/compute/v2.1/servers", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    let forced: InstanceId = answer["server"]["id"].as_str().unwrap().parse().unwrap();
    cloud.settle().await;
    assert_eq!(cloud.get(forced).await.vm_state, VmState::Error);
    assert_eq!(cloud.call_as_admin("DELETE", &format!("/compute/v2.1/servers/{forced}"), None).await.0, 204);
    cloud.settle().await;
    cloud.pass(A_BEAT).await;
    let services = cloud.store.list_services().await.unwrap();
    let service = services.iter().find(|service| service.host.as_str() == "host00").unwrap();
    assert!(service.disabled);
    assert_eq!(service.disabled_reason.as_deref(), Some("Auto-disabled due to 3 build failures"));
    // An operator mends it and puts it back: it begins with a clean slate.
    let path = format!("/compute/v2.1/os-services/{}", service.id);
    let (status, answer) = cloud.call_as_admin("PUT", &path, Some(json!({"status": "enabled"}))).await;
    assert_eq!(status, 200, "{answer}");
    cloud.pass(A_BEAT).await;
    assert_eq!(boot(&cloud, 1, &small).await, [host("host00")]);
    cloud.check().await;
}

#[tokio::test(start_paused = true)]
async fn metrics_choose_and_their_lack_keeps_hosts_out() {
    let mut algorithm = SchedulerOptions::default();
    algorithm.filter.enabled_filters = vec!["ComputeFilter".into(), "MetricsFilter".into()];
    algorithm.filter.metrics.weight_setting = vec![("cpu.percent".into(), -1.0)];
    algorithm.filter.metrics.weight_multiplier = 1e6;
    let cloud = Cloud::start(CloudOptions {
        scheduler: "filter",
        algorithm,
        dress: |name, machine, settings| {
            // The first host has no monitor, the second is idle, the third busy.
            settings.monitors.cpu = name != "host00";
            machine.load.cpu_percent = if name == "host02" { 90 } else { 10 };
        },
        ..CloudOptions::default()
    })
    .await;
    let small = asking(&cloud, 256, &[]);
    assert_eq!(boot(&cloud, 3, &small).await, vec![host("host01"); 3]);
    let load = |cpu_percent| FakeLoad { cpu_percent, ..FakeLoad::default() };
    cloud.hosts[&HostName::new("host01")].set_load(load(95));
    cloud.hosts[&HostName::new("host02")].set_load(load(5));
    cloud.pass(A_MEASUREMENT).await;
    assert_eq!(boot(&cloud, 3, &small).await, vec![host("host02"); 3]);
    let node = cloud.store.node_of_host(&HostName::new("host02")).await.unwrap();
    assert_eq!((node.stats.metrics["cpu.percent"], node.stats.metrics["cpu.idle.percent"]), (5.0, 95.0));
    cloud.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_with_many_builds_in_hand_takes_no_more() {
    let mut algorithm = SchedulerOptions::default();
    algorithm.filter.enabled_filters = vec!["ComputeFilter".into(), "IoOpsFilter".into()];
    algorithm.filter.max_io_ops_per_host = 2;
    let cloud = Cloud::start(CloudOptions {
        scheduler: "filter",
        hosts: 2,
        algorithm,
        dress: |name, machine, _| machine.memory_mb *= if name == "host00" { 8 } else { 1 },
        ..CloudOptions::default()
    })
    .await;
    let busy = &cloud.hosts[&HostName::new("host00")];
    let small = asking(&cloud, 256, &[]);
    busy.hang(Operation::Spawn);
    let building = [one(&cloud, &small).await, one(&cloud, &small).await];
    cloud.pass(A_BEAT).await;
    for id in building {
        assert_eq!(cloud.get(id).await.host, host("host00"));
    }
    assert_eq!(cloud.store.node_of_host(&HostName::new("host00")).await.unwrap().stats.io_ops, 2);
    let third = one(&cloud, &small).await;
    cloud.pass(Duration::from_secs(1)).await;
    assert_eq!(cloud.get(third).await.host, host("host01"));
    busy.release(Operation::Spawn);
    cloud.settle().await;
    cloud.pass(A_BEAT).await;
    assert_eq!(boot(&cloud, 1, &small).await, [host("host00")], "it has time again");
    cloud.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_least_loaded_host_is_the_one_that_says_so() {
    for source in ["cpu", "reported"] {
        let mut algorithm = SchedulerOptions::default();
        algorithm.load_source = Some(source.into());
        let cloud = Cloud::start(CloudOptions {
            algorithm,
            dress: |name, machine, settings| {
                (settings.monitors.cpu, settings.monitors.load) = (true, true);
                let busy = name != "host01";
                machine.load.cpu_percent = if busy { 60 } else { 20 };
                machine.load.load_average_milli = if busy { 6000 } else { 2000 };
            },
            ..CloudOptions::default()
        })
        .await;
        let small = asking(&cloud, 256, &[]);
        assert_eq!(boot(&cloud, 3, &small).await, vec![host("host01"); 3], "{source}");
        let fresh = FakeLoad { cpu_percent: 1, load_average_milli: 8, ..FakeLoad::default() };
        cloud.hosts[&HostName::new("host02")].set_load(fresh);
        cloud.pass(A_MEASUREMENT).await;
        assert_eq!(boot(&cloud, 3, &small).await, vec![host("host02"); 3], "{source}");
        cloud.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn servers_of_like_images_are_kept_together_where_that_is_weighed() {
    let mut algorithm = SchedulerOptions::default();
    algorithm.filter.image_props_weight_multiplier = 1e6;
    let cloud = Cloud::start(CloudOptions { scheduler: "filter", algorithm, ..CloudOptions::default() }).await;
    let small = asking(&cloud, 256, &[]);
    let [debian, fedora] = ["deb10000-0000-4000-8000-000000000001", "fed00000-0000-4000-8000-000000000001"];
    let mut hosts: BTreeMap<&str, BTreeSet<HostName>> = BTreeMap::new();
    for round in 0..3 {
        for image in [debian, fedora] {
            let id = cloud.boot_from(image.parse().unwrap(), 1, small.clone()).await.unwrap()[0];
            cloud.settle().await;
            hosts.entry(image).or_default().extend(cloud.get(id).await.host);
        }
        // What was promised is read of the store from here on.
        cloud.pass(Duration::from_secs(if round == 1 { 90 } else { 0 })).await;
    }
    assert_eq!((hosts[debian].len(), hosts[fedora].len()), (1, 1), "{hosts:?}");
    assert!(hosts[debian].is_disjoint(&hosts[fedora]), "the emptier host took the first of the second kind");
    cloud.check().await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_quiet_hosts_write_nothing_but_that_they_live() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    cloud.pass(A_MEASUREMENT).await;
    let generations = || async {
        let nodes = cloud.store.list_nodes().await.unwrap();
        nodes.into_iter().map(|node| (node.host, node.generation)).collect::<BTreeMap<_, _>>()
    };
    let before = generations().await;
    cloud.pass(A_MEASUREMENT).await;
    assert_eq!(generations().await, before);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_say_that_they_live_share_a_transaction() {
    const HOSTS: usize = 12;
    let cloud = Cloud::start(CloudOptions { hosts: HOSTS, ..CloudOptions::default() }).await;
    cloud.pass(A_MEASUREMENT).await;
    let (commits, messages) = (cloud.store.commits(), cloud.bus.counters().messages);
    cloud.pass(A_MEASUREMENT).await;
    let beats = A_MEASUREMENT.as_secs() / 10;
    let (commits, messages) = (cloud.store.commits() - commits, cloud.bus.counters().messages - messages);
    // The services of the controller say it too.
    assert!(commits >= beats && commits <= 4 * beats, "{commits} transactions for {beats} times {HOSTS} signs of life");
    let looks = 2 * HOSTS as u64;
    assert!(messages <= beats * HOSTS as u64 + looks, "{messages} messages: an inventory that is known is told again");
    let seen = cloud.store.list_services().await.unwrap();
    let now = cloud.now();
    assert!(seen.iter().all(|service| now.duration_since(service.last_seen_up).as_secs() <= 11), "{seen:?}");
}
