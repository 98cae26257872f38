//! Networks of several hosts, of the operator's bridge, and what can't be done.

use std::net::IpAddr;

use nova_compute::linux::dhcp::{SERVICE_ADDRESS, SERVICE_MAC};
use nova_compute::linux::links::enter_namespace;
use nova_compute::linux::namespace::{Namespaces, Purpose};
use nova_compute::{Plumbing, PlumbingError, PlumbingOptions};
use nova_core::network::{Carrier, HostRouter, PortStatus, Remote, RemotePort, RouterLeg, Vif, VifAddress};

use crate::firewall::{ack, answer, macs, open, syn, udp};
use crate::support::frames::{self, EVERYBODY};
use crate::support::{Guest, Guests, Host, Namespace, Scene, ip4, ip6, network_id, port_id, send_on, underlay};

fn vxlan(vni: u32, peers: &[&str]) -> Carrier {
    Carrier::Vxlan { vni, peers: peers.iter().map(|peer| peer.parse().unwrap()).collect() }
}

/// What joins two hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wire {
    /// Tunnels between their addresses.
    Tunnels,
    /// A trunk that carries tags.
    Tags,
}

impl Wire {
    /// The network of that number, which both hosts have.
    fn carrier(self, number: u16) -> Carrier {
        match self {
            Self::Tunnels => vxlan(number.into(), &["192.0.2.1", "192.0.2.2"]),
            Self::Tags => Carrier::Vlan { physical_network: "racks".into(), tag: number },
        }
    }

    /// Those that the kernel has. One that is to have tags, and doesn't, fails.
    fn all() -> Vec<Self> {
        let namespace = Namespace::new("probe");
        namespace.output("ip", &["link", "add", "eth9", "type", "veth", "peer", "name", "eth8"]);
        let add = ["ip", "link", "add", "name", "eth9.5", "link", "eth9", "type", "vlan", "id", "5"];
        let probe =
            std::process::Command::new("ip").args(["netns", "exec", namespace.name()]).args(add).output().unwrap();
        assert!(probe.status.success() || std::env::var_os("NOVA_TEST_VLAN").is_none(), "{probe:?}");
        if probe.status.success() { vec![Self::Tunnels, Self::Tags] } else { vec![Self::Tunnels] }
    }
}

/// Guest 1 on the first host, guests 2 on the second, of a network that both have; whether the hosts serve it is said by
/// the test.
struct Two {
    wire: Wire,
    hosts: [Host; 2],
    scenes: [Scene; 2],
    guests: Guests,
    underlay: Namespace,
    one: Guest,
    two: Guest,
}

impl Two {
    async fn new(change: impl Fn(&mut Scene)) -> Self {
        Self::over(Wire::Tunnels, change).await
    }

    async fn over(wire: Wire, change: impl Fn(&mut Scene)) -> Self {
        let racks =
            |options: &mut PlumbingOptions| drop(options.interface_mappings.insert("racks".into(), "underlay".into()));
        let hosts = [Host::with("host-1", "192.0.2.1", racks).await, Host::with("host-2", "192.0.2.2", racks).await];
        let underlay = underlay(&[&hosts[0], &hosts[1]]);
        let guests = Guests::new();
        let one = guests.plug(&hosts[0].namespace, 1);
        let two = guests.plug(&hosts[1].namespace, 2);
        let scenes = [1_u16, 2].map(|number| {
            let mut scene = Scene::default();
            scene.network(1, wire.carrier(101));
            scene.group(1, &[Scene::rule(Some(6), (Some(22), Some(22)), Remote::Any)]);
            scene.port(1, number, Some(&[1]));
            change(&mut scene);
            scene
        });
        for (host, scene) in hosts.iter().zip(&scenes) {
            host.converge(&scene.wanted).await;
        }
        underlay.links_run().await;
        Self { wire, hosts, scenes, guests, underlay, one, two }
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn guests_of_two_hosts_reach_each_other_and_no_other_project() {
    for wire in Wire::all() {
        let both = Two::over(wire, |_| {}).await;
        reach_each_other(both).await;
    }
}

async fn reach_each_other(mut both: Two) {
    {
        let Two { one, two, .. } = &both;
        open(one, two, 22);
        assert!(!one.reaches(two, &syn(one, two, 23)));
        assert!(two.reaches(one, &answer(two, one, 22)));
    }
    // Another project with the same addresses, on the same hosts.
    for (scene, number) in both.scenes.iter_mut().zip([257, 258]) {
        scene.network(2, both.wire.carrier(102));
        scene.group(2, &[]);
        scene.port(2, number, Some(&[2]));
    }
    let other_one = both.guests.plug(&both.hosts[0].namespace, 257);
    let other_two = both.guests.plug(&both.hosts[1].namespace, 258);
    for (host, scene) in both.hosts.iter().zip(&both.scenes) {
        host.converge(&scene.wanted).await;
    }
    let Two { one, two, .. } = &both;
    assert!(!other_one.reaches(&other_two, &ack(&other_one, &other_two, 22)), "open there, not here");
    assert!(!other_one.reaches_before(two, &syn(&other_one, two, 22), one));
    let question = frames::arp(1, (other_one.mac(), ip4(1)), ip4(2), EVERYBODY);
    assert!(!other_one.reaches_before(two, &question, one));

    if both.wire == Wire::Tags {
        // Who is on the wire sees the tags, and is answered under them only.
        let seen = both.hosts[0].namespace.links().await.get("underlay.101").await.unwrap().unwrap();
        assert!(seen.master.is_some() && seen.up, "{seen:?}");
        return;
    }
    // The second host has the network no more.
    both.scenes[0].network(1, Carrier::Local).carrier = vxlan(101, &["192.0.2.1"]);
    both.hosts[0].converge(&both.scenes[0].wanted).await;
    let tunnel = both.hosts[0].namespace.links().await.get("vx-101").await.unwrap().unwrap();
    assert!(both.hosts[0].namespace.links().await.fdb(&tunnel).await.unwrap().is_empty());
}

/// Frames of a network leave a host under its tag, and such as come under another tag, or none, are no guest's.
#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn tags_keep_networks_apart_on_the_wire() {
    if !Wire::all().contains(&Wire::Tags) {
        return;
    }
    let both = Two::over(Wire::Tags, |_| {}).await;
    let Two { one, two, underlay, .. } = &both;
    // A machine on the wire that speaks under some tag: where guest 2 would be, if it were on that network.
    let frame = frames::arp(1, (two.mac(), ip4(2)), ip4(1), EVERYBODY);
    let from_the_wire = |tag: Option<u16>| {
        let tagged = match tag {
            Some(tag) => [&frame[..12], &[0x81, 0], &tag.to_be_bytes(), &frame[12..]].concat(),
            None => frame.clone(),
        };
        one.hears(&frame, two, || underlay.run(move || send_on("port0", &tagged)))
    };
    assert!(from_the_wire(Some(101)));
    assert!(!from_the_wire(Some(102)));
    assert!(!from_the_wire(None));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn who_is_no_host_of_a_network_gets_no_frame_into_it() {
    let both = Two::new(|_| {}).await;
    let Two { one, two, hosts, underlay, .. } = &both;
    underlay.output("ip", &["addr", "add", "192.0.2.9/24", "dev", "switch"]);
    let frame = frames::arp(1, (two.mac(), ip4(2)), ip4(1), EVERYBODY);
    let packet = [&[8, 0, 0, 0, 0, 0, 101, 0], &frame[..]].concat();
    let heard = |space: &Namespace| {
        let packet = packet.clone();
        one.hears(&frame, two, || {
            let sent =
                space.run(move || std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(&packet, "192.0.2.1:4789"));
            sent.unwrap();
        })
    };
    assert!(heard(&hosts[1].namespace), "a host of the network");
    assert!(!heard(underlay), "somebody else");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn one_node_is_asked_for_metadata_by_guests_of_all_hosts() {
    let mut both = Two::new(|_| {}).await;
    let node = both.scenes[1].wanted.segments.get_mut(&network_id(1)).unwrap();
    node.serves = true;
    let caller = ("0000000e-0000-4000-8000-000000000001".parse().unwrap(), port_id(1));
    node.elsewhere.push(RemotePort {
        mac: both.one.mac(),
        addresses: vec![ip4(1).into()],
        tunnel: None,
        hostname: String::new(),
        asks: Some(caller),
    });
    let answers = || both.hosts[1].namespace.output("nft", &["list", "set", "bridge", "nova", "own_answers"]);
    assert!(!answers().contains("vx-101"), "nobody is served");
    both.hosts[1].converge(&both.scenes[1].wanted).await;
    assert!(!answers().contains("vx-101"), "guests of other hosts are");
    let doors = both.hosts[1].plumbing.metadata_doors().await;
    assert_eq!(doors[0].callers.get(&ip4(1).into()), Some(&caller));
    let rules = both.hosts[1].namespace.output("nft", &["list", "set", "bridge", "nova", "asked"]);
    assert!(rules.contains("vx-101"), "{rules}");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_host_that_nobody_reaches_says_so() {
    let host = Host::named("host-1", "127.0.0.1").await;
    let mut scene = Scene::default();
    scene.network(1, vxlan(101, &["127.0.0.1"]));
    scene.network(2, vxlan(102, &[]));
    scene.port(1, 1, None);
    scene.port(2, 2, None);
    let converged = host.plumbing.converge(&scene.wanted).await.unwrap();
    assert!(converged.problems.iter().any(|problem| problem.contains("network.tunnel_ip")), "{converged:?}");
    assert_eq!((converged.ports[&port_id(1)], converged.ports[&port_id(2)]), (PortStatus::Error, PortStatus::Down));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_each_host_has_for_its_own_guests_does_not_cross() {
    let shared = |distributed| {
        move |scene: &mut Scene| {
            let all = Remote::Prefix("fd00::/16".parse().unwrap());
            scene.group(1, &[Scene::rule(None, (None, None), Remote::Any), Scene::rule(None, (None, None), all)]);
            scene.network(1, Carrier::Local).serves = distributed;
            // The second guest hears whatever comes to its host.
            if scene.wanted.segments[&network_id(1)].ports.contains_key(&port_id(2)) {
                scene.edit(2).security = None;
            }
            let leg = RouterLeg {
                network: network_id(1),
                mac: crate::support::mac(254),
                addresses: vec![
                    (ip4(254).into(), "10.0.0.0/24".parse().unwrap()),
                    (ip6(254).into(), "fd00::/64".parse().unwrap()),
                ],
                distributed,
            };
            let router = HostRouter { legs: vec![leg], routes: Vec::new(), outside: None };
            scene.wanted.routers.insert("0000000a-0000-4000-8000-000000000001".parse().unwrap(), router);
        }
    };
    for (wire, distributed) in Wire::all().into_iter().flat_map(|wire| [(wire, true), (wire, false)]) {
        let both = Two::over(wire, shared(distributed)).await;
        let Two { one, two, .. } = &both;
        let own: IpAddr = ip4(1).into();
        let local: std::net::Ipv6Addr = "fe80::f816:3eff:fe00:1".parse().unwrap();
        let everybody = (one.mac(), EVERYBODY);
        let asks = [
            frames::arp(1, (one.mac(), ip4(1)), ip4(254), EVERYBODY),
            frames::neighbour(everybody, ip6(1), "ff02::1:ff00:fe".parse().unwrap(), 135, ip6(254)),
            frames::icmp(everybody, local.into(), "ff02::2".parse().unwrap(), 133, 0, &[0; 4]),
            frames::udp(everybody, ([0; 4].into(), 68), ([255; 4].into(), 67)),
            frames::udp(everybody, (local.into(), 546), ("ff02::1:2".parse().unwrap(), 547)),
        ];
        for (number, ask) in asks.iter().enumerate() {
            assert_eq!(one.reaches(two, ask), !distributed, "{wire:?} {number}");
        }
        if distributed {
            let answers = both.hosts[0].namespace.output("nft", &["list", "set", "bridge", "nova", "own_answers"]);
            let uplink = if wire == Wire::Tags { "underlay.101" } else { "vx-101" };
            assert!(answers.contains(uplink), "what DHCP answers stays here: {answers}");
            let metadata = frames::arp(1, (one.mac(), ip4(1)), [169, 254, 169, 254].into(), EVERYBODY);
            assert!(!one.reaches(two, &metadata));
            // Its service has the MAC address of theirs: heard there, their bridge would look for theirs here.
            let service = frames::arp(1, (SERVICE_MAC, SERVICE_ADDRESS), ip4(9), EVERYBODY);
            let inside = Namespaces::of(&both.hosts[0].options).name(Purpose::Service(network_id(1)));
            let spoken = service.clone();
            let say = move || {
                enter_namespace(&inside).unwrap();
                send_on("link0", &spoken);
            };
            assert!(!two.hears(&service, one, || std::thread::spawn(say).join().unwrap()), "{wire:?}");
            // Nor is it taken up where it comes all the same.
            let spoken = service.clone();
            let heard = one.hears(&service, two, || both.hosts[1].namespace.run(move || send_on(uplink, &spoken)));
            let places = both.hosts[0].namespace.output("bridge", &["fdb", "show"]);
            let place =
                places.lines().filter(|line| line.starts_with(&SERVICE_MAC.to_string()) && line.contains("master"));
            assert!(
                !heard && place.clone().all(|line| !line.contains(uplink)),
                "{wire:?}: {}",
                place.collect::<String>()
            );
        }
        let asks = frames::tcp(macs(one, two), (own, 40_000), ([169, 254, 169, 254].into(), 80), frames::SYN, (1, 0));
        assert!(!one.reaches(two, &asks), "metadata is asked for at home");
        // What is for others does.
        assert!(one.reaches(two, &frames::arp(1, (one.mac(), ip4(1)), ip4(2), EVERYBODY)));
        assert!(one.reaches(two, &frames::udp(macs(one, two), (own, 5), (ip4(2).into(), 6))));
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn the_operators_bridge_stays_the_operators() {
    let host = Host::with("host-1", "192.0.2.1", |options| {
        options.bridge_mappings.insert("office".into(), "br0".into());
    })
    .await;
    let guests = Guests::new();
    // The operator's own machine is on the bridge, too; here it has the shape of a guest under another name.
    let (one, two, desk) =
        (guests.plug(&host.namespace, 1), guests.plug(&host.namespace, 2), guests.plug(&host.namespace, 3));
    host.namespace.output("ip", &["link", "add", "br0", "type", "bridge", "forward_delay", "0"]);
    host.namespace.output("ip", &["link", "set", "br0", "up"]);
    host.namespace.output("ip", &["addr", "add", "10.0.0.200/24", "dev", "br0"]);
    host.namespace.output("ip", &["link", "set", &desk.tap, "down"]);
    host.namespace.output("ip", &["link", "set", &desk.tap, "name", "eno1"]);
    host.namespace.output("ip", &["link", "set", "eno1", "master", "br0", "up"]);
    let mut scene = Scene::default();
    scene.network(1, Carrier::Bridge { physical_network: "office".into() });
    scene.group(1, &[Scene::rule(Some(6), (Some(22), Some(22)), Remote::Any)]);
    scene.port(1, 1, Some(&[1]));
    scene.port(1, 2, Some(&[1]));
    let converged = host.converge(&scene.wanted).await;
    assert_eq!(converged.ports[&port_id(1)], PortStatus::Active);
    open(&one, &two, 22);
    open(&desk, &one, 22);
    assert!(one.reaches(&desk, &syn(&one, &desk, 99)));
    assert!(!desk.reaches(&one, &syn(&desk, &one, 23)));
    // Of what is between the operator's own machines nothing is said.
    let shelf = guests.plug(&host.namespace, 4);
    host.namespace.output("ip", &["link", "set", &shelf.tap, "master", "br0"]);
    assert!(desk.reaches(&shelf, &udp(&desk, &shelf, (5, 6))));
    assert!(shelf.reaches(&desk, &syn(&shelf, &desk, 23)));
    host.namespace.output("ip", &["link", "del", &shelf.tap]);
    // A guest whose port has gone.
    let gone = guests.plug(&host.namespace, 9);
    host.namespace.output("ip", &["link", "set", &gone.tap, "master", "br0"]);
    host.converge(&scene.wanted).await;
    assert!(!gone.reaches_before(&desk, &udp(&gone, &desk, (5, 6)), &one));

    host.converge(&Scene::default().wanted).await;
    let links = host.namespace.links().await;
    let bridge = links.get("br0").await.unwrap().unwrap();
    assert_eq!(links.addresses(&bridge).await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_part_that_fails_is_told_and_the_rest_is_done() {
    let host = Host::with("host-1", "192.0.2.1", |options| {
        options.interface_mappings.insert("racks".into(), "eth9".into());
        options.bridge_mappings.insert("office".into(), "br9".into());
    })
    .await;
    let namespace = &host.namespace;
    namespace.output("ip", &["link", "add", "eth9", "type", "veth", "peer", "name", "eth8"]);
    namespace.output("ip", &["addr", "add", "192.0.2.1/24", "dev", "eth9"]);
    namespace.output("ip", &["link", "set", "eth9", "up"]);
    namespace.output("ip", &["link", "set", "eth8", "up"]);
    let guests = Guests::new();
    let (one, two) = (guests.plug(namespace, 1), guests.plug(namespace, 2));
    let mut scene = Scene::default();
    scene.network(1, Carrier::Local);
    scene.group(1, &[Scene::rule(Some(6), (Some(22), Some(22)), Remote::Any)]);
    scene.port(1, 1, Some(&[1]));
    scene.port(1, 2, Some(&[1]));
    let carriers = [
        Carrier::Vlan { physical_network: "nowhere".into(), tag: 5 },
        Carrier::Flat { physical_network: Some("racks".into()) },
        Carrier::Bridge { physical_network: "office".into() },
        vxlan(103, &["192.0.2.2"]),
        Carrier::Vlan { physical_network: "racks".into(), tag: 7 },
    ];
    for (carrier, number) in carriers.into_iter().zip(11..) {
        scene.network(number, carrier).mtu = 1500;
        scene.port(number, number, None);
    }
    let converged = host.plumbing.converge(&scene.wanted).await.unwrap();
    let told = |words: &str| converged.problems.iter().any(|problem| problem.contains(words));
    assert!(told("network.interface_mappings"), "{converged:?}");
    assert!(told("eth9 has addresses of the host"), "{converged:?}");
    assert!(told("there is no bridge br9"), "{converged:?}");
    assert!(told("do not fit through a tunnel"), "{converged:?}");
    for number in 11..15 {
        assert_eq!(converged.ports[&port_id(number)], PortStatus::Error, "{number}");
    }
    // Where the kernel knows tags the last of them works.
    let tagged = namespace.links().await.get("eth9.7").await.unwrap().is_some();
    assert_eq!(told("can't make eth9.7"), !tagged, "{converged:?}");
    assert_eq!(converged.ports[&port_id(1)], PortStatus::Active);
    host.namespace.links_run().await;
    open(&one, &two, 22);
    // The host's own address is where it was.
    let link = namespace.links().await.get("eth9").await.unwrap().unwrap();
    assert_eq!(link.master, None);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_guests_interface_is_told_where_it_belongs() {
    let host = Host::new().await;
    let mut scene = Scene::default();
    scene.network(1, Carrier::Local);
    scene.port(1, 1, None);
    let vif = |port: u16| Vif {
        port_id: port_id(port),
        network_id: network_id(1),
        label: "private".into(),
        mtu: 1450,
        mac_address: crate::support::mac(port),
        addresses: Vec::<VifAddress>::new(),
        status: PortStatus::Down,
        host: None,
        delete_with_instance: true,
        tag: None,
        asked_as: None,
    };
    let converged = host.converge(&scene.wanted).await;
    assert_eq!(converged.ports[&port_id(1)], PortStatus::Down);
    let spec = host.plumbing.interface(&scene.wanted, &vif(1)).unwrap();
    assert_eq!((spec.bridge.as_deref(), spec.tap_name.as_str()), (Some("brq00000001-00"), "tap00000001-00"));
    let refused = host.plumbing.interface(&scene.wanted, &vif(2));
    assert!(matches!(refused, Err(PlumbingError::Unsupported(_))), "{refused:?}");
}
