//! Servers in zones and in server groups.

use std::collections::BTreeMap;

use nova::scheduler::{Parts, SchedulerService, ServiceOptions};
use nova_core::ids::{FlavorId, HostName, ImageId, InstanceId};
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_db::InstanceQuery;
use nova_queue::RunningService;
use nova_sched::SchedulerOptions;
use serde_json::{Value, json};

use crate::support::{Cloud, CloudOptions};

const SCHEDULERS: [&str; 4] = ["random", "availability_zone", "least_load", "filter"];

async fn flavor(cloud: &Cloud) {
    let flavor = nova_core::flavor::Flavor { id: FlavorId::new("small"), ..cloud.flavor(1, 256) };
    cloud.store.create_flavor(flavor).await.unwrap();
}

/// An aggregate of these hosts that makes a zone.
async fn zone(cloud: &Cloud, name: &str, hosts: &[&str]) -> i64 {
    let body = json!({"aggregate": {"name": name, "availability_zone": name}});
    let (status, made) = cloud.call_as_admin("POST", "/compute/v2.1/os-aggregates", Some(body)).await;
    assert_eq!(status, 200, "{made}");
    let id = made["aggregate"]["id"].as_i64().unwrap();
    for host in hosts {
        let (status, answer) = aggregate(cloud, id, json!({"add_host": {"host": host}})).await;
        assert_eq!(status, 200, "{answer}");
    }
    id
}

async fn aggregate(cloud: &Cloud, id: i64, action: Value) -> (u16, Value) {
    cloud.call_as_admin("POST", &format!("/compute/v2.1/os-aggregates/{id}/action"), Some(action)).await
}

async fn group(cloud: &Cloud, policy: &str, max_server_per_host: Option<u32>) -> String {
    let rules = max_server_per_host.map_or(json!({}), |max| json!({"max_server_per_host": max}));
    let body = json!({"server_group": {"name": policy, "policy": policy, "rules": rules}});
    let (status, made) = cloud.call("POST", "/compute/v2.1/os-server-groups", Some(body)).await;
    assert_eq!(status, 200, "{made}");
    made["server_group"]["id"].as_str().unwrap().to_owned()
}

/// `POST /servers` with these keys and hints.
fn server(cloud: &Cloud, keys: Value, hints: Value) -> Value {
    let image = ImageId::generate(&*cloud.entropy);
    let mut server = json!({"name": "server", "flavorRef": "small", "imageRef": image, "networks": "none"});
    for (key, value) in keys.as_object().unwrap() {
        server[key] = value.clone();
    }
    json!({"server": server, "os:scheduler_hints": hints})
}

async fn boot(cloud: &Cloud, keys: Value, hints: Value) -> InstanceId {
    let (status, answer) = cloud.call("POST", "/compute/v2.1/servers", Some(server(cloud, keys, hints))).await;
    assert_eq!(status, 202, "{answer}");
    answer["server"]["id"].as_str().unwrap().parse().unwrap()
}

/// So many servers of one group, one after the other; what became of them.
async fn boot_in(cloud: &Cloud, group: &str, count: usize) -> Vec<Instance> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let id = boot(cloud, json!({}), json!({"group": group})).await;
        cloud.settle().await;
        servers.push(cloud.get(id).await);
    }
    servers
}

fn hosts(servers: &[Instance]) -> BTreeMap<HostName, usize> {
    let mut hosts = BTreeMap::new();
    for host in servers.iter().filter_map(|server| server.host.clone()) {
        *hosts.entry(host).or_default() += 1;
    }
    hosts
}

#[tokio::test(start_paused = true)]
async fn servers_go_where_their_zone_is() {
    for scheduler in SCHEDULERS {
        let cloud = Cloud::start(CloudOptions { scheduler, hosts: 4, ..CloudOptions::default() }).await;
        flavor(&cloud).await;
        let west = zone(&cloud, "west", &["host01", "host02"]).await;
        for (zone, expected) in [("west", ["host01", "host02"]), ("nova", ["host00", "host03"])] {
            for _ in 0..4 {
                let id = boot(&cloud, json!({"availability_zone": zone}), json!({})).await;
                cloud.settle().await;
                let server = cloud.get(id).await;
                let host = server.host.as_ref().map(HostName::as_str).unwrap_or_default();
                assert!(expected.contains(&host), "{scheduler}: {zone} {host} {:?}", server.fault);
                assert_eq!(server.availability_zone.as_ref().unwrap().as_str(), zone);
            }
        }
        let refused = aggregate(&cloud, west, json!({"add_host": {"host": "host00"}})).await;
        assert_eq!(refused.0, 409, "{refused:?}");
        let metadata = json!({"set_metadata": {"metadata": {"availability_zone": "east"}}});
        assert_eq!(aggregate(&cloud, west, metadata).await.0, 400);
        cloud.check().await;
        cloud.stop().await;
    }
}

/// An administrator's `zone:host`, and a host that no scheduler was told of before.
#[tokio::test(start_paused = true)]
async fn a_host_is_taken_by_name() {
    let cloud = Cloud::start(CloudOptions { hosts: 3, ..CloudOptions::default() }).await;
    flavor(&cloud).await;
    for text in ["nova:host02", ":host02", "nova:host02:host02"] {
        let body = server(&cloud, json!({"availability_zone": text}), json!({}));
        let (status, answer) = cloud.call_as_admin("POST", "/compute/v2.1/servers", Some(body.clone())).await;
        assert_eq!(status, 202, "{text} {answer}");
        cloud.settle().await;
        let made = cloud.get(answer["server"]["id"].as_str().unwrap().parse().unwrap()).await;
        assert_eq!(made.host.map(|host| host.to_string()).as_deref(), Some("host02"), "{text} {:?}", made.fault);
        assert_eq!(cloud.call("POST", "/compute/v2.1/servers", Some(body)).await.0, 403);
    }
    cloud.stop().await;
}

/// Filters are passed over for a host that is named, as in Nova; the booking is not.
#[tokio::test(start_paused = true)]
async fn a_named_host_does_not_break_the_rule() {
    let cloud = Cloud::start(CloudOptions { hosts: 2, ..CloudOptions::default() }).await;
    flavor(&cloud).await;
    let body = json!({"server_group": {"name": "apart", "policy": "anti-affinity"}});
    let (_, made) = cloud.call_as_admin("POST", "/compute/v2.1/os-server-groups", Some(body)).await;
    let hints = json!({"group": made["server_group"]["id"]});
    let mut states = Vec::new();
    for _ in 0..2 {
        let body = server(&cloud, json!({"availability_zone": "nova:host01"}), hints.clone());
        let (status, answer) = cloud.call_as_admin("POST", "/compute/v2.1/servers", Some(body)).await;
        assert_eq!(status, 202, "{answer}");
        cloud.settle().await;
        let made = cloud.get(answer["server"]["id"].as_str().unwrap().parse().unwrap()).await;
        states.push((made.vm_state, made.fault.map(|fault| fault.details).unwrap_or_default()));
    }
    assert_eq!(states[0].0, VmState::Active);
    assert_eq!(states[1].0, VmState::Error);
    assert!(states[1].1.contains("anti-affinity"), "{states:?}");
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn anti_affinity_spreads_until_hosts_run_out() {
    for scheduler in SCHEDULERS {
        let cloud = Cloud::start(CloudOptions { scheduler, hosts: 3, ..CloudOptions::default() }).await;
        flavor(&cloud).await;
        let apart = group(&cloud, "anti-affinity", None).await;
        let servers = boot_in(&cloud, &apart, 4).await;
        assert_eq!(hosts(&servers).len(), 3, "{scheduler}");
        let last = &servers[3];
        assert_eq!((last.vm_state, last.host.clone()), (VmState::Error, None));
        let fault = last.fault.as_ref().unwrap();
        assert!(fault.message.starts_with("No valid host was found."), "{}", fault.message);
        assert!(fault.details.contains("anti-affinity"), "{}", fault.details);
        assert!(!fault.message.contains("host0"), "tenants read no host's name: {}", fault.message);
        // A place that is given back is free for the next.
        assert!(cloud.act(servers[0].id, Action::Delete).await);
        cloud.settle().await;
        assert_eq!(boot_in(&cloud, &apart, 1).await[0].vm_state, VmState::Active, "{scheduler}");
        let pairs = group(&cloud, "anti-affinity", Some(2)).await;
        let spread = hosts(&boot_in(&cloud, &pairs, 7).await);
        assert_eq!(spread.into_values().collect::<Vec<_>>(), [2, 2, 2], "{scheduler}");
        cloud.check().await;
        cloud.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn affinity_and_wishes() {
    for scheduler in SCHEDULERS {
        // Each host takes 4 of 256 MiB, besides the 512 that it keeps.
        let options = CloudOptions { scheduler, hosts: 3, memory_mb: 1536, ..CloudOptions::default() };
        let cloud = Cloud::start(options).await;
        flavor(&cloud).await;
        let together = group(&cloud, "affinity", None).await;
        let servers = boot_in(&cloud, &together, 5).await;
        assert_eq!(hosts(&servers).into_values().collect::<Vec<_>>(), [4], "{scheduler}");
        assert_eq!(servers[4].vm_state, VmState::Error);
        let wish = group(&cloud, "soft-affinity", None).await;
        let mut counts: Vec<_> = hosts(&boot_in(&cloud, &wish, 6).await).into_values().collect();
        counts.sort_unstable();
        assert_eq!(counts, [2, 4], "{scheduler}: one host until it is full, then the next");
        for server in cloud.store.list_instances(&InstanceQuery::default()).await.unwrap() {
            assert!(cloud.act(server.id, Action::Delete).await);
        }
        cloud.settle().await;
        let apart = group(&cloud, "soft-anti-affinity", None).await;
        let spread = hosts(&boot_in(&cloud, &apart, 6).await);
        assert_eq!(spread.into_values().collect::<Vec<_>>(), [2, 2, 2], "{scheduler}");
        cloud.check().await;
        cloud.stop().await;
    }
}

/// Servers of one request are members of one group: placed one after the other, all or none.
#[tokio::test(start_paused = true)]
async fn a_request_for_many_keeps_to_its_group() {
    let cloud = Cloud::start(CloudOptions { hosts: 3, ..CloudOptions::default() }).await;
    flavor(&cloud).await;
    for (count, placed) in [(3, 3), (4, 0)] {
        let apart = group(&cloud, "anti-affinity", None).await;
        let keys = json!({"min_count": count, "max_count": count});
        boot(&cloud, keys, json!({"group": apart})).await;
        cloud.settle().await;
        let (_, shown) = cloud.call("GET", &format!("/compute/v2.1/os-server-groups/{apart}"), None).await;
        let mut members = Vec::new();
        for id in shown["server_group"]["members"].as_array().unwrap() {
            members.push(cloud.get(id.as_str().unwrap().parse().unwrap()).await);
        }
        assert_eq!((members.len(), hosts(&members).len()), (count, placed));
    }
    cloud.check().await;
    cloud.stop().await;
}

async fn more_schedulers(cloud: &Cloud, count: usize) -> Vec<RunningService> {
    let mut running = Vec::new();
    for _ in 0..count {
        let service = SchedulerService::new(Parts {
            algorithm: nova_sched::by_name("random", &SchedulerOptions::default()).unwrap(),
            store: cloud.store.clone(),
            bus: cloud.bus.clone(),
            clock: cloud.clock.clone(),
            entropy: cloud.entropy.clone(),
            options: ServiceOptions::default(),
        });
        running.push(service.unwrap().start().await.unwrap());
    }
    running
}

/// 64 creates at once, placed by four schedulers that know nothing of each other: no two members share a host, and every
/// host that could take one did.
#[tokio::test(start_paused = true)]
async fn concurrent_members_never_share_a_host() {
    for count in [16, 80] {
        let options = CloudOptions { scheduler: "random", hosts: count, ..CloudOptions::default() };
        let cloud = Cloud::start(options).await;
        flavor(&cloud).await;
        let others = more_schedulers(&cloud, 3).await;
        let apart = group(&cloud, "anti-affinity", None).await;
        let creates = (0..64).map(|_| boot(&cloud, json!({}), json!({"group": apart})));
        let ids = futures_util::future::join_all(creates).await;
        cloud.settle().await;
        let mut servers = Vec::new();
        for id in ids {
            servers.push(cloud.get(id).await);
        }
        let shared = hosts(&servers);
        assert!(shared.values().all(|members| *members == 1), "{shared:?}");
        let active = servers.iter().filter(|server| server.vm_state == VmState::Active).count();
        assert_eq!(active, count.min(64), "of {count} hosts");
        for lost in servers.iter().filter(|server| server.vm_state != VmState::Active) {
            let fault = lost.fault.as_ref().unwrap();
            assert!(fault.message.starts_with("No valid host was found."), "{fault:?}");
        }
        cloud.check().await;
        for scheduler in others {
            scheduler.stop().await;
        }
        cloud.stop().await;
    }
}
