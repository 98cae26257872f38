//! Routers, the way to the world, and floating addresses.

use nova_compute::linux::names;
use nova_compute::linux::namespace::Purpose;
use nova_core::network::SourceNat;

use crate::support::Namespace;

use super::stage::{CLIENT, Guest, Host, World, id, ip, network, port, router, seen_as, subnet, tell};

/// A host in the world, with a router on one network and a guest on it.
async fn host_with_guest(world: &World, number: u8, nat: SourceNat, floating: &[(&str, &str)]) -> (Host, Guest) {
    let mut host = Host::in_world("h", world, number).await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_router(1, &[1], true);
    host.outside(1, nat, floating);
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    guest.ask();
    (host, guest)
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn subnets_of_one_router_reach_each_other() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_network(2, "10.2.0.0/24", "10.2.0.1");
    host.add_router(1, &[1, 2], true);
    let one = host.add_guest(1, 5, "10.1.0.5", "one").await;
    let two = host.add_guest(2, 6, "10.2.0.6", "two").await;
    one.ask();
    two.ask();
    tell(&two.space, 80);
    assert!(one.pings("10.1.0.1") && one.pings("10.2.0.1") && one.pings("10.2.0.6"));
    assert_eq!(seen_as(&one.space, "10.2.0.6", 80).as_deref(), Some("10.1.0.5"));
    // The leg goes, and with it the way.
    host.wanted.routers.get_mut(&router(1)).unwrap().legs.truncate(1);
    host.converge().await;
    assert!(one.pings("10.1.0.1") && !one.pings("10.2.0.6"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn guests_appear_outside_as_their_host_or_their_router() {
    let world = World::new().await;
    let (mut host, guest) = host_with_guest(&world, 11, SourceNat::Host, &[]).await;
    tell(&world.client, 80);
    assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
    host.outside(1, SourceNat::Address(ip("203.0.113.40")), &[]);
    host.converge().await;
    assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.40"));
    // Nobody gets in that way.
    assert_eq!(seen_as(&world.client, "203.0.113.40", 80), None);
    world.client.output("ip", &["route", "add", "10.1.0.0/24", "via", "203.0.113.11"]);
    tell(&guest.space, 81);
    assert_eq!(seen_as(&world.client, "10.1.0.5", 81), None);
    host.wanted.routers.get_mut(&router(1)).unwrap().outside = None;
    host.converge().await;
    assert_eq!(seen_as(&guest.space, CLIENT, 80), None);
    let rules = host.space.output("nft", &["list", "ruleset"]);
    assert!(!rules.contains("nova_nat"), "{rules}");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_floating_address_works_both_ways() {
    let world = World::new().await;
    let floating = [("203.0.113.50", "10.1.0.5"), ("203.0.113.51", "10.1.0.6")];
    let (mut host, guest) = host_with_guest(&world, 11, SourceNat::Host, &floating).await;
    let other = host.add_guest(1, 6, "10.1.0.6", "db").await;
    let plain = host.add_guest(1, 7, "10.1.0.7", "plain").await;
    other.ask();
    plain.ask();
    tell(&world.client, 80);
    tell(&guest.space, 22);
    tell(&other.space, 22);
    assert_eq!(seen_as(&world.client, "203.0.113.50", 22).as_deref(), Some(CLIENT));
    assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.50"));
    assert_eq!(seen_as(&plain.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
    // Round the corner: one guest to another's, to its own, and one without any.
    assert_eq!(seen_as(&guest.space, "203.0.113.51", 22).as_deref(), Some("203.0.113.50"));
    assert_eq!(seen_as(&guest.space, "203.0.113.50", 22).as_deref(), Some("203.0.113.50"));
    assert!(seen_as(&plain.space, "203.0.113.50", 22).is_some());
    // The host itself, by the address that the world knows.
    assert_eq!(seen_as(&host.space, "203.0.113.50", 22).as_deref(), Some("203.0.113.11"));
    // It goes to another guest: also for who has spoken with the first.
    host.outside(1, SourceNat::Host, &[("203.0.113.50", "10.1.0.6")]);
    host.converge().await;
    tell(&other.space, 23);
    assert_eq!(seen_as(&world.client, "203.0.113.50", 23).as_deref(), Some(CLIENT));
    assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
    assert_eq!(seen_as(&world.client, "203.0.113.51", 22), None, "that one is gone");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_floating_address_moves_to_another_host() {
    let world = World::new().await;
    let floating = [("203.0.113.50", "10.1.0.5")];
    let (mut one, guest) = host_with_guest(&world, 11, SourceNat::Host, &floating).await;
    let (mut two, there) = host_with_guest(&world, 12, SourceNat::Host, &[]).await;
    tell(&guest.space, 22);
    tell(&there.space, 23);
    let known = || world.client.output("ip", &["neigh", "show", "203.0.113.50"]);
    assert!(seen_as(&world.client, "203.0.113.50", 22).is_some());
    assert!(known().contains("fa:16:3e:00:00:d3"), "{}", known());
    one.outside(1, SourceNat::Host, &[]);
    one.converge().await;
    two.outside(1, SourceNat::Host, &floating);
    two.converge().await;
    // Told, not asked: nothing was sent there since.
    assert!(known().contains("fa:16:3e:00:00:d4"), "{}", known());
    assert_eq!(seen_as(&world.client, "203.0.113.50", 23).as_deref(), Some(CLIENT));
    let left = one.space.output("ip", &["neigh", "show", "proxy"]);
    assert!(!left.contains("203.0.113.50"), "{left}");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn projects_with_the_same_ranges_never_meet() {
    let world = World::new().await;
    let (mut host, guest) = host_with_guest(&world, 11, SourceNat::Host, &[]).await;
    host.add_network(2, "10.1.0.0/24", "10.1.0.1");
    host.add_router(2, &[2], true);
    host.outside(2, SourceNat::Host, &[("203.0.113.50", "10.1.0.6")]);
    let stranger = host.add_guest(2, 6, "10.1.0.6", "stranger").await;
    let twin = host.add_guest(2, 7, "10.1.0.5", "twin").await;
    stranger.ask();
    twin.ask();
    tell(&world.client, 80);
    tell(&stranger.space, 22);
    assert!(!guest.pings("10.1.0.6") && stranger.pings("10.1.0.5"));
    assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
    assert_eq!(seen_as(&twin.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
    // By what is public they do, as whoever is outside.
    assert_eq!(seen_as(&guest.space, "203.0.113.50", 22).as_deref(), Some("203.0.113.11"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn guests_do_not_reach_the_host_itself() {
    let world = World::new().await;
    let (host, guest) = host_with_guest(&world, 11, SourceNat::Host, &[]).await;
    tell(&host.space, 8774);
    assert!(guest.pings("203.0.113.11"));
    assert_eq!(seen_as(&world.client, "203.0.113.11", 8774).as_deref(), Some(CLIENT));
    assert_eq!(seen_as(&guest.space, "203.0.113.11", 8774), None);
    let link = host.space.output("ip", &["-4", "-o", "addr", "show", "dev", &names::way_out(router(1))]);
    let own = link.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
    assert!(own.starts_with("169.254."), "{link}");
    assert_eq!(seen_as(&guest.space, &own, 8774), None);
    assert!(!guest.pings(&own));
}

/// What guests need does not make a router of the host for everybody; one that is a router stays so.
#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_host_routes_for_its_guests_and_for_nobody_else() {
    let world = World::new().await;
    let (host, guest) = host_with_guest(&world, 11, SourceNat::Host, &[]).await;
    let office = Namespace::new("office");
    host.space.output("ip", &["link", "add", "eth5", "type", "veth", "peer", "name", "eth0", "netns", office.name()]);
    for (space, link, address) in [(&host.space, "eth5", "192.0.2.1/24"), (&office, "eth0", "192.0.2.9/24")] {
        space.output("ip", &["addr", "add", address, "dev", link]);
        space.output("ip", &["link", "set", link, "up"]);
    }
    office.output("ip", &["route", "add", "default", "via", "192.0.2.1"]);
    world.client.output("ip", &["route", "add", "192.0.2.0/24", "via", "203.0.113.11"]);
    tell(&office, 82);
    tell(&world.client, 80);
    for (forwards, seen) in [("0", None), ("1", Some(CLIENT))] {
        // This sets all interfaces, too.
        host.space.output("sysctl", &["-qw", &format!("net.ipv4.ip_forward={forwards}")]);
        host.converge().await;
        assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
        assert_eq!(seen_as(&world.client, "192.0.2.9", 82).as_deref(), seen);
        let there = seen_as(&office, CLIENT, 80);
        assert_eq!(there.as_deref(), seen.map(|_| "192.0.2.9"));
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn guests_speak_with_no_tunnel() {
    let world = World::new().await;
    let (_host, guest) = host_with_guest(&world, 11, SourceNat::Host, &[]).await;
    let sockets = world.client.run(|| [4789, 4790].map(|port| std::net::UdpSocket::bind((CLIENT, port)).unwrap()));
    guest.space.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in [4789, 4790] {
            socket.send_to(b"hello", (CLIENT, port)).unwrap();
        }
    });
    let [tunnel, other] = sockets;
    other.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    assert_eq!(other.recv(&mut [0; 9]).unwrap(), 5);
    tunnel.set_nonblocking(true).unwrap();
    assert!(tunnel.recv(&mut [0; 9]).is_err(), "what was sent first was not heard");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_project_takes_no_range_of_the_hosts() {
    let world = World::new().await;
    let mut host = Host::in_world("h", &world, 11).await;
    host.options.routed_ranges = vec!["10.0.0.0/8".parse().unwrap()];
    host.restart().await;
    let routes = [("10.1.0.0/24", "203.0.113.1"), ("10.9.0.0/24", "203.0.113.1")];
    for (range, by) in routes {
        host.space.output("ip", &["route", "add", range, "via", by]);
    }
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_network(2, "192.168.7.0/24", "192.168.7.1");
    host.add_network(3, "10.3.0.0/24", "10.3.0.1");
    host.add_router(1, &[1, 2, 3], true);
    host.outside(1, SourceNat::None, &[("203.0.113.11", "10.1.0.5")]);
    let problems = host.problems().await;
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("203.0.113.11 is the host's own") && problems[1].contains("10.1.0.0/24"));
    let now = host.space.output("ip", &["route"]);
    for (range, by) in routes {
        assert!(now.contains(&format!("{range} via {by} dev eth0")), "{now}");
    }
    assert!(now.contains("10.3.0.0/24 via 169.254.") && !now.contains("192.168.7"), "{now}");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn every_host_is_the_gateway_of_its_own_guests() {
    let world = World::new().await;
    let mut hosts = Vec::new();
    for number in [11, 12] {
        let mut host = Host::in_world("h", &world, number).await;
        host.add_network(1, "10.1.0.0/24", "10.1.0.1");
        host.add_network(2, "10.2.0.0/24", "10.2.0.1");
        host.add_router(1, &[1, 2], true);
        host.outside(1, SourceNat::Host, &[]);
        hosts.push(host);
    }
    let (mut two, mut one) = (hosts.pop().unwrap(), hosts.pop().unwrap());
    let here = one.add_guest(1, 5, "10.1.0.5", "here").await;
    let near = two.add_guest(1, 6, "10.1.0.6", "near").await;
    let far = two.add_guest(2, 7, "10.2.0.7", "far").await;
    one.join(&mut two, 1).await;
    one.join(&mut two, 2).await;
    one.acquaint(&mut two);
    one.converge().await;
    two.converge().await;
    for guest in [&here, &near, &far] {
        assert_eq!(guest.ask()["ip"], guest.address.to_string());
    }
    tell(&far.space, 80);
    tell(&world.client, 80);
    assert!(here.pings("10.1.0.6"), "on the same network");
    assert_eq!(seen_as(&here.space, "10.2.0.7", 80).as_deref(), Some("10.1.0.5"));
    assert_eq!(seen_as(&here.space, CLIENT, 80).as_deref(), Some("203.0.113.11"));
    assert_eq!(seen_as(&far.space, CLIENT, 80).as_deref(), Some("203.0.113.12"));
    // Each knows the gateway by its own host's address.
    let leg = |host: &Host, on: u8| host.wanted.routers[&router(1)].legs[usize::from(on) - 1].mac.to_string();
    let known = |guest: &Guest, gateway: &str| guest.space.output("ip", &["neigh", "show", gateway]);
    assert!(known(&here, "10.1.0.1").contains(&leg(&one, 1)), "{}", known(&here, "10.1.0.1"));
    assert!(far.pings("10.2.0.1") && known(&far, "10.2.0.1").contains(&leg(&two, 2)));
    assert!(near.pings("10.1.0.1") && known(&near, "10.1.0.1").contains(&leg(&two, 1)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn one_node_is_the_gateway_of_all() {
    let world = World::new().await;
    let mut node = Host::in_world("node", &world, 11).await;
    node.add_network(1, "10.1.0.0/24", "10.1.0.1");
    node.add_router(1, &[1], false);
    node.outside(1, SourceNat::Host, &[("203.0.113.50", "10.1.0.5")]);
    node.converge().await;
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    node.join(&mut host, 1).await;
    node.acquaint(&mut host);
    for guest in &mut node.wanted.segments.get_mut(&network(1)).unwrap().elsewhere {
        guest.asks = Some((id('e', 5), port(5)));
    }
    node.converge().await;
    // The guest's own host answers it; then only the node does.
    assert_eq!(guest.ask()["ip"], "10.1.0.5");
    host.wanted.segments.get_mut(&network(1)).unwrap().serves = false;
    host.converge().await;
    assert!(host.dnsmasqs().is_empty());
    assert_eq!(guest.ask()["ip"], "10.1.0.5");
    assert!(guest.pings("169.254.169.254"));
    tell(&world.client, 80);
    tell(&guest.space, 22);
    assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.50"));
    assert_eq!(seen_as(&world.client, "203.0.113.50", 22).as_deref(), Some(CLIENT));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn ranges_of_version_6_are_advertised_and_routed() {
    let world = World::new().await;
    let mut host = Host::in_world("h", &world, 11).await;
    host.options.routed_ranges = vec!["2001:db8::/32".parse().unwrap()];
    host.restart().await;
    host.add_network(6, "2001:db8:6::/64", "2001:db8:6::1");
    let told = host.wanted.segments.get_mut(&network(6)).unwrap().subnets.get_mut(&subnet(6)).unwrap();
    told.ra_mode = Some("slaac".to_owned());
    host.add_router(1, &[6], true);
    host.outside(1, SourceNat::Host, &[]);
    let guest = host.add_guest(6, 5, "2001:db8:6::f816:3eff:fe00:5", "web").await;
    // The kernel's own client asks when the link comes up, and waits for the answer.
    guest.space.output("ip", &["link", "set", "eth0", "down"]);
    guest.space.output("ip", &["link", "set", "eth0", "addrgenmode", "eui64"]);
    let path = "/proc/sys/net/ipv6/conf/eth0/accept_dad";
    guest.space.run(move || std::fs::write(path, "0")).unwrap();
    guest.space.output("ip", &["link", "set", "eth0", "up"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let default = loop {
        let routes = guest.space.output("ip", &["-6", "route", "show", "default"]);
        if !routes.is_empty() {
            break routes;
        }
        assert!(std::time::Instant::now() < deadline, "nobody told it of a router");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert!(default.contains("proto ra"), "{default}");
    let own = guest.space.output("ip", &["-6", "-o", "addr", "show", "dev", "eth0", "scope", "global"]);
    assert!(own.contains("2001:db8:6:0:f816:3eff:fe00:5/64"), "{own}");
    // From outside, by a route to the host.
    host.space.output("ip", &["addr", "add", "2001:db8:9::1/64", "dev", "eth0", "nodad"]);
    world.client.output("ip", &["addr", "add", "2001:db8:9::9/64", "dev", "eth0", "nodad"]);
    world.client.output("ip", &["route", "add", "2001:db8:6::/64", "via", "2001:db8:9::1"]);
    world.client.output("ping", &["-6", "-c", "1", "-W", "3", "2001:db8:6:0:f816:3eff:fe00:5"]);
    assert!(guest.pings("2001:db8:9::9"));
}

/// Frames that come to a guest's interface; the channel is open when this returns.
fn overhear(guest: &Namespace) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (told, heard) = std::sync::mpsc::channel();
    let (ready, open) = std::sync::mpsc::channel();
    let _ear = guest.start(move || {
        let interface = pnet_datalink::interfaces().into_iter().find(|link| link.name == "eth0").unwrap();
        let timeout = std::time::Duration::from_secs(5);
        let config = pnet_datalink::Config { read_timeout: Some(timeout), ..Default::default() };
        let Ok(pnet_datalink::Channel::Ethernet(_, mut frames)) = pnet_datalink::channel(&interface, config) else {
            panic!("no channel on the guest's interface");
        };
        ready.send(()).unwrap();
        // Who has heard enough hangs up.
        while let Ok(frame) = frames.next() {
            if told.send(frame.to_vec()).is_err() {
                break;
            }
        }
    });
    open.recv().unwrap();
    heard
}

/// A guest that came while it ran knows its gateways by the addresses that they had where it was.
#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_guest_that_has_come_is_told_of_its_gateways() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_network(6, "2001:db8:6::/64", "2001:db8:6::1");
    host.add_router(1, &[1, 6], true);
    let four = host.add_guest(1, 5, "10.1.0.5", "four").await;
    let six = host.add_guest(6, 6, "2001:db8:6::5", "six").await;
    four.ask();
    six.space.output("ip", &["addr", "add", "2001:db8:6::5/64", "dev", "eth0", "nodad"]);
    assert!(six.pings("2001:db8:6::1"));
    let before = "fa:16:3e:aa:aa:aa";
    let legs: Vec<_> = host.wanted.routers[&router(1)].legs.iter().map(|leg| leg.mac).collect();
    // Where the frame says who it is from, whose address it is, and the address.
    let cases = [(&four, "10.1.0.1", legs[0], 22, 28), (&six, "2001:db8:6::1", legs[1], 80, 62)];
    for (guest, gateway, leg, says_who, says_what) in cases {
        guest.space.output("ip", &["neigh", "replace", gateway, "lladdr", before, "dev", "eth0", "nud", "stale"]);
        let frames = overhear(&guest.space);
        host.announce_gateways(&[1, 6]).await;
        let own: Vec<u8> = match ip(gateway) {
            std::net::IpAddr::V4(four) => four.octets().to_vec(),
            std::net::IpAddr::V6(six) => six.octets().to_vec(),
        };
        let is_it = |frame: &Vec<u8>| {
            frame.get(6..12) == Some(&leg.bytes()[..])
                && frame.get(says_who..says_who + 6) == Some(&leg.bytes()[..])
                && frame.get(says_what..says_what + own.len()) == Some(&own[..])
        };
        assert!(frames.iter().any(|frame| is_it(&frame)), "nobody told of {gateway}");
        let known = guest.space.output("ip", &["neigh", "show", gateway]);
        assert!(known.contains(&leg.to_string()), "{known}");
        assert!(guest.pings(gateway));
    }
}

/// The same of version 6, where the switch of the kernel is for all interfaces, or was until lately.
#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_host_routes_version_6_for_its_guests_and_for_nobody_else() {
    let world = World::new().await;
    let mut host = Host::in_world("h", &world, 11).await;
    host.options.routed_ranges = vec!["2001:db8::/32".parse().unwrap()];
    host.restart().await;
    let office = Namespace::new("office");
    host.space.output("ip", &["link", "add", "eth5", "type", "veth", "peer", "name", "eth0", "netns", office.name()]);
    for (space, link, address) in [
        (&host.space, "eth0", "2001:db8:9::1/64"),
        (&world.client, "eth0", "2001:db8:9::9/64"),
        (&host.space, "eth5", "2001:db8:5::1/64"),
        (&office, "eth0", "2001:db8:5::9/64"),
    ] {
        space.output("ip", &["addr", "add", address, "dev", link, "nodad"]);
        space.output("ip", &["link", "set", link, "up"]);
    }
    office.output("ip", &["route", "add", "default", "via", "2001:db8:5::1"]);
    world.client.output("ip", &["route", "add", "default", "via", "2001:db8:9::1"]);
    let heeds = "/proc/sys/net/ipv6/conf/eth5/accept_ra";
    let is_host = "/proc/sys/net/ipv6/conf/eth5/forwarding";
    assert_eq!((host_reads(&host.space, heeds), host_reads(&host.space, is_host)), (1, 0));
    host.add_network(6, "2001:db8:6::/64", "2001:db8:6::1");
    host.add_router(1, &[6], true);
    host.outside(1, SourceNat::Host, &[]);
    let guest = host.add_guest(6, 5, "2001:db8:6::5", "web").await;
    guest.space.output("ip", &["addr", "add", "2001:db8:6::5/64", "dev", "eth0", "nodad"]);
    guest.space.output("ip", &["route", "add", "default", "via", "2001:db8:6::1"]);
    assert_eq!(tentative(&host.namespace(Purpose::Router(router(1)))), "", "a router asks for its neighbours at once");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !tentative(host.space.name()).is_empty() {
        assert!(std::time::Instant::now() < deadline, "the host's own addresses are not settled");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(guest.pings("2001:db8:9::9"));
    let pings = |from: &Namespace, to: &'static str| {
        from.run(move || {
            let output = std::process::Command::new("ping").args(["-6", "-c", "1", "-W", "1", to]).output().unwrap();
            output.status.success()
        })
    };
    assert!(pings(&world.client, "2001:db8:6::5") && pings(&office, "2001:db8:5::1"));
    for _ in 0..2 {
        assert!(!pings(&office, "2001:db8:9::9") && !pings(&world.client, "2001:db8:5::9"));
        assert!(!pings(&office, "2001:db8:6::5"), "guests are reached from the world only");
        assert_eq!(host_reads(&host.space, is_host), 0, "it is a host there still");
        assert_ne!(host_reads(&host.space, heeds), 0);
        // By one who does not know what was there.
        host.restart().await;
        host.converge().await;
    }
    // The operator makes a router of it, for everybody.
    host.space.output("sysctl", &["-qw", "net.ipv6.conf.all.forwarding=1"]);
    host.converge().await;
    assert!(pings(&office, "2001:db8:9::9") && pings(&world.client, "2001:db8:5::9"));
    assert!(guest.pings("2001:db8:9::9"));
    host.space.output("sysctl", &["-qw", "net.ipv6.conf.all.forwarding=0"]);
    host.converge().await;
    assert!(guest.pings("2001:db8:9::9") && !pings(&office, "2001:db8:9::9"));
    // Without a router nothing is left of it.
    host.wanted.routers.clear();
    host.converge().await;
    assert!(!pings(&office, "2001:db8:9::9") && !pings(&world.client, "2001:db8:5::9"));
    assert_eq!(host_reads(&host.space, "/proc/sys/net/ipv6/conf/all/forwarding"), 0);
}

/// Addresses that the kernel still looks for elsewhere: until it has, it asks for no neighbour under them.
fn tentative(namespace: &str) -> String {
    let words = ["netns", "exec", namespace, "ip", "-6", "-o", "address", "show", "tentative"];
    let output = std::process::Command::new("ip").args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn host_reads(space: &Namespace, path: &'static str) -> u8 {
    space.run(move || std::fs::read_to_string(path)).unwrap().trim().parse().unwrap()
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_was_tampered_with_comes_back_and_what_is_unwanted_goes() {
    let world = World::new().await;
    let floating = [("203.0.113.50", "10.1.0.5")];
    let (mut host, guest) = host_with_guest(&world, 11, SourceNat::Host, &floating).await;
    tell(&world.client, 80);
    tell(&guest.space, 22);
    let name = host.namespace(Purpose::Router(router(1)));
    let own = host.space.name().to_owned();
    let (link, leg) = (names::way_out(router(1)), names::leg_end(router(1), network(1)));
    let inner = format!("leg{}", &network(1).to_string()[..11]);
    for tampering in [
        format!("netns del {name}"),
        format!("netns exec {own} nft flush chain inet nova_nat postrouting"),
        format!("netns exec {own} nft delete table inet nova_nat"),
        format!("netns exec {name} nft flush ruleset"),
        format!("netns exec {name} nft flush map inet nova floating_in"),
        format!("-n {own} route flush dev {link}"),
        format!("-n {own} neigh del proxy 203.0.113.50 dev eth0"),
        format!("-n {own} link del {link}"),
        format!("-n {own} link del {leg}"),
        format!("-n {own} link set {leg} nomaster"),
        format!("-n {name} addr flush dev {inner}"),
        format!("-n {name} route flush dev {inner}"),
        format!("-n {name} route flush dev out"),
        format!("-n {name} link set out down"),
    ] {
        let output = std::process::Command::new("ip").args(tampering.split(' ')).output().unwrap();
        assert!(output.status.success(), "{tampering}: {}", String::from_utf8_lossy(&output.stderr));
        // Also by one who does not know what was there.
        host.restart().await;
        host.converge().await;
        world.client.output("ip", &["neigh", "flush", "all"]);
        assert_eq!(seen_as(&guest.space, CLIENT, 80).as_deref(), Some("203.0.113.50"), "{tampering}");
        assert_eq!(seen_as(&world.client, "203.0.113.50", 22).as_deref(), Some(CLIENT), "{tampering}");
    }
    host.wanted.routers.clear();
    host.converge().await;
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
    let links = host.space.output("ip", &["-o", "link"]);
    assert!(!links.contains(&link) && !links.contains(&leg), "{links}");
    assert_eq!(host.space.output("ip", &["neigh", "show", "proxy"]), "");
    assert!(!host.space.output("ip", &["route"]).contains("203.0.113.50"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn the_same_again_changes_nothing_and_breaks_no_connection() {
    use std::io::{Read, Write};
    let world = World::new().await;
    let floating = [("203.0.113.50", "10.1.0.5")];
    let (mut host, guest) = host_with_guest(&world, 11, SourceNat::Host, &floating).await;
    let listener = guest.space.run(|| std::net::TcpListener::bind("0.0.0.0:22")).unwrap();
    let mut far = world.client.run(|| std::net::TcpStream::connect("203.0.113.50:22")).unwrap();
    let (mut near, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let mut speak = |text: &[u8; 4]| {
        near.write_all(text).unwrap();
        let mut heard = [0; 4];
        far.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, text);
    };
    speak(b"one.");
    let name = host.namespace(Purpose::Router(router(1)));
    let state = || {
        let inside = |program: &str| {
            let mut command = std::process::Command::new("ip");
            let words = program.split(' ').collect::<Vec<_>>();
            let output = command.args(["netns", "exec", &name]).args(words).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let rules = host.space.output("nft", &["-a", "list", "ruleset"]);
        [
            rules,
            inside("nft -a list ruleset"),
            inside("ip -o link"),
            inside("ip route"),
            inside("ip neigh show nud permanent"),
        ]
    };
    let before = state();
    host.converge().await;
    assert_eq!(state(), before, "not even handles of rules");
    // Another floating address: the table is replaced under the connection.
    host.outside(1, SourceNat::Host, &[("203.0.113.50", "10.1.0.5"), ("203.0.113.51", "10.1.0.9")]);
    host.converge().await;
    speak(b"two.");
    host.restart().await;
    host.converge().await;
    speak(b"four");
}
