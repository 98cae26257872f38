//! How fast it is (`make soak`). Prints figures, and fails only where an aim is missed by far: a shared machine is no place to measure.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nova_compute::Plumbing;
use nova_core::network::{Carrier, Cidr, GroupRule, MacAddress, PortStatus, Remote, tap_name};

use crate::support::{Host, Namespace, Scene, group_id, mac, port_id};

const PORTS: u16 = 1000;

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low)
}

/// Twenty rules that are all different, of which three name the group itself.
fn rules(group: u16, seed: u16) -> Vec<GroupRule> {
    let port = |n: u16| Some(1000 + (seed % 40) * 1000 + n * 7);
    let prefix = |n: u16| Remote::Prefix(Cidr::around(address(seed * 16 + n).into(), 28).unwrap());
    let mut rules: Vec<GroupRule> = (0..7).map(|n| Scene::rule(Some(6), (port(n), port(n)), Remote::Any)).collect();
    rules.extend((7..14).map(|n| Scene::rule(Some(17), (port(n), port(n + 1)), prefix(n))));
    rules.extend((14..17).map(|n| Scene::rule(Some(6), (port(n), port(n)), Remote::Group(group_id(group)))));
    rules.push(Scene::rule(Some(1), (Some(8), None), Remote::Any));
    // The two that let everything out are the rest.
    rules
}

/// A host with taps for that many ports, each the end of a pair whose other end is of no interest.
async fn crowded() -> (Host, Namespace) {
    let (host, far) = (Host::new().await, Namespace::new("far"));
    let mut batch = String::new();
    for number in 1..=PORTS {
        let tap = tap_name(port_id(number));
        writeln!(batch, "link add {tap} type veth peer name f{number} netns {}", far.name()).unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), batch).unwrap();
    host.namespace.output("ip", &["-b", file.path().to_str().unwrap()]);
    (host, far)
}

fn ports(scene: &mut Scene, group_of: impl Fn(u16) -> u16) {
    scene.network(1, Carrier::Local);
    for number in 1..=PORTS {
        let port = scene.port(1, number, Some(&[group_of(number)]));
        port.mac = mac(number);
        port.addresses[0].1 = address(number).into();
        port.addresses.truncate(1);
    }
}

async fn timed(host: &Host, scene: &Scene) -> Duration {
    let start = Instant::now();
    let converged = host.plumbing.converge(&scene.wanted).await.unwrap();
    let took = start.elapsed();
    assert_eq!(converged.problems, Vec::<String>::new());
    assert!(converged.ports.values().all(|status| *status == PortStatus::Active));
    took
}

fn told(what: &str, took: Duration, aim: Duration) {
    println!("{what}: {:.3} s (aim {:.3} s, profile {})", took.as_secs_f64(), aim.as_secs_f64(), profile());
    assert!(took < aim * 20, "{what} took {took:?}");
}

/// As the host's agent does it: small changes by themselves.
async fn adjusted(host: &Host, scene: &Scene) -> Duration {
    let start = Instant::now();
    let converged = host.plumbing.adjust(&scene.wanted).await.unwrap().expect("it is a small change");
    let took = start.elapsed();
    assert!(converged.ports.values().all(|status| *status == PortStatus::Active));
    took
}

/// Members change one by one, as when servers come and go: the best of several, since other work comes and goes.
async fn members_change(host: &Host, scene: &mut Scene, group: u16, what: &str) {
    let tenth = Duration::from_millis(100);
    let member: Cidr = "10.99.0.1/32".parse().unwrap();
    let (mut more, mut less, mut nothing) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        scene.wanted.groups.get_mut(&group_id(group)).unwrap().members.insert(member);
        more = more.min(adjusted(host, scene).await);
        scene.wanted.groups.get_mut(&group_id(group)).unwrap().members.remove(&member);
        less = less.min(adjusted(host, scene).await);
        nothing = nothing.min(timed(host, scene).await);
    }
    told(&format!("{what}: one member more"), more, tenth);
    told(&format!("{what}: one member less"), less, tenth);
    told(&format!("{what}: nothing changes"), nothing, tenth);
}

fn everybody() -> std::collections::BTreeSet<Cidr> {
    (1..=PORTS).map(|number| Cidr::around(address(number).into(), 32).unwrap()).collect()
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn soak_a_thousand_ports_of_one_group() {
    let (host, _far) = crowded().await;
    let mut scene = Scene::default();
    scene.group(1, &rules(1, 1)).members = everybody();
    ports(&mut scene, |_| 1);
    told("1000 ports of one group, from nothing", timed(&host, &scene).await, Duration::from_secs(5));
    members_change(&host, &mut scene, 1, "1000 ports of one group").await;
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn soak_a_thousand_ports_with_groups_of_their_own() {
    let (host, _far) = crowded().await;
    let mut scene = Scene::default();
    for number in 1..=PORTS {
        scene.group(number, &rules(number, number)).members =
            [Cidr::around(IpAddr::from(address(number)), 32).unwrap()].into();
    }
    ports(&mut scene, |number| number);
    let took = timed(&host, &scene).await;
    told("1000 ports, 1000 groups, 20000 rules, from nothing", took, Duration::from_secs(5));
    members_change(&host, &mut scene, 1, "1000 groups").await;
}

/// What one guest sends to another in two seconds, by iperf3: bits in a second.
async fn throughput(from: &Namespace, to: &Namespace, server: Ipv4Addr) -> f64 {
    let server = server.to_string();
    let listener = Command::new("ip")
        .args(["netns", "exec", to.name(), "iperf3", "--server", "--one-off", "--forceflush", "--bind", &server])
        .stdout(Stdio::piped())
        .spawn();
    let mut listener = listener.unwrap();
    let said = BufReader::new(listener.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line.contains("listening")), "iperf3 does not listen");
    let json = from.output("iperf3", &["--client", &server, "--time", "2", "--json"]);
    listener.wait().unwrap();
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    told["end"]["sum_received"]["bits_per_second"].as_f64().unwrap()
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn soak_throughput_with_and_without_rules() {
    let (host, _far) = crowded().await;
    let mut scene = Scene::default();
    for number in 1..=PORTS {
        let mut rules = rules(number, number);
        rules.push(Scene::rule(Some(6), (Some(5201), Some(5201)), Remote::Any));
        scene.group(number, &rules);
    }
    ports(&mut scene, |number| number);
    // Guests 1 and 2 are real: their taps are replaced.
    let guests = [1, 2].map(|number| {
        let guest = Namespace::new("guest");
        let tap = tap_name(port_id(number));
        let text = MacAddress::to_string(&mac(number));
        host.namespace.output("ip", &["link", "del", &tap]);
        host.namespace.output(
            "ip",
            &["link", "add", &tap, "type", "veth", "peer", "name", "eth0", "netns", guest.name(), "address", &text],
        );
        guest.output("ip", &["link", "set", "eth0", "mtu", "1450", "up"]);
        guest.output("ip", &["addr", "add", &format!("{}/16", address(number)), "dev", "eth0"]);
        guest
    });
    host.plumbing.converge(&scene.wanted).await.unwrap();
    let mut best = [0.0_f64; 2];
    // In turns, and the best of each: other work on the machine comes and goes.
    for _ in 0..6 {
        host.plumbing.converge(&scene.wanted).await.unwrap();
        best[0] = best[0].max(throughput(&guests[0], &guests[1], address(2)).await);
        host.namespace.output("nft", &["flush", "ruleset"]);
        for rule in ["table inet plain", "chain inet plain c { type filter hook forward priority 0 ; }"] {
            host.namespace.output("nft", &["add", rule]);
        }
        host.namespace.output("nft", &["add rule inet plain c ct state established,related accept"]);
        best[1] = best[1].max(throughput(&guests[0], &guests[1], address(2)).await);
        host.namespace.output("nft", &["flush", "ruleset"]);
    }
    let gigabits = best.map(|bits| bits / 1e9);
    let ratio = best[0] / best[1];
    println!(
        "throughput with 20000 rules {:.2} Gbit/s, with connection tracking and no rules {:.2} Gbit/s: {ratio:.3} (aim 0.9)",
        gigabits[0], gigabits[1]
    );
    assert!(ratio > 0.5, "{ratio}");
}
