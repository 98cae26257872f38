//! Links, addresses, routes and neighbours are made as described, and a repeat changes nothing.

use nova_compute::PlumbingError;
use nova_compute::linux::links::{
    Address, BridgeSpec, FdbEntry, LinkKind, Neighbour, Route, VethEnd, VethSpec, VlanSpec, VxlanSpec,
};

use crate::support::Namespace;

fn bridge(mtu: u32) -> BridgeSpec<'static> {
    BridgeSpec { name: "brq1", mac: "fe:16:3e:00:00:01".parse().unwrap(), mtu, alias: "nova:segment:1" }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_bridge_is_made_and_corrected() {
    let host = Namespace::new("host");
    let links = host.links().await;
    let made = links.ensure_bridge(&bridge(1450)).await.unwrap();
    assert_eq!((made.mtu, made.mac, made.up), (1450, Some("fe:16:3e:00:00:01".parse().unwrap()), true));
    let LinkKind::Bridge(state) = made.kind else { panic!("{made:?}") };
    assert!(state.call_iptables && state.call_ip6tables && !state.stp && !state.multicast_snooping, "{state:?}");

    assert_eq!(links.ensure_bridge(&bridge(1450)).await.unwrap().index, made.index);
    host.output("ip", &["link", "set", "brq1", "down", "mtu", "900", "address", "02:00:00:00:00:09"]);
    host.output("ip", &["link", "set", "brq1", "type", "bridge", "nf_call_iptables", "0"]);
    links.ensure_bridge(&bridge(1450)).await.unwrap();
    let mut corrected = links.get("brq1").await.unwrap().unwrap();
    corrected.running = made.running;
    assert_eq!(corrected, made);

    links.delete(&made).await.unwrap();
    links.delete(&made).await.unwrap();
    assert_eq!(links.get("brq1").await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_pair_joins_two_namespaces() {
    let (host, inner) = (Namespace::new("host"), Namespace::new("inner"));
    let links = host.links().await;
    let spec = VethSpec {
        here: VethEnd { name: "nsl0", mac: None },
        peer: VethEnd { name: "eth0", mac: Some("fa:16:3e:00:00:02".parse().unwrap()) },
        peer_namespace: Some(inner.name()),
        mtu: 1400,
        alias: "nova:leg:1",
    };
    let bridge = links.ensure_bridge(&bridge(1450)).await.unwrap();
    let made = links.ensure_veth(&spec).await.unwrap();
    links.set_master(&made, Some(bridge.index)).await.unwrap();
    let peer = inner.links().await.get("eth0").await.unwrap().unwrap();
    assert_eq!((peer.mtu, peer.mac, peer.up), (1400, spec.peer.mac, true));

    let again = links.ensure_veth(&spec).await.unwrap();
    assert_eq!((again.index, again.master), (made.index, Some(bridge.index)));
    inner.output("ip", &["link", "del", "eth0"]);
    let anew = links.ensure_veth(&spec).await.unwrap();
    assert_ne!(anew.index, made.index);
    assert!(inner.links().await.get("eth0").await.unwrap().unwrap().up);
    // Another namespace of the same name: the pair leads nowhere that is wanted.
    host.output("ip", &["link", "set", "nsl0", "alias", "x"]);
    assert_eq!(links.ensure_veth(&spec).await.unwrap().alias.as_deref(), Some("nova:leg:1"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_tunnel_floods_to_its_peers() {
    let host = Namespace::new("host");
    let links = host.links().await;
    let local = "192.0.2.1".parse().unwrap();
    let spec = VxlanSpec { name: "vx-101", vni: 101, local, port: 4789, mtu: 1450, alias: "nova:segment:1" };
    let made = links.ensure_vxlan(&spec).await.unwrap();
    let flood = |last: u8| FdbEntry::flood(std::net::Ipv4Addr::new(192, 0, 2, last).into());
    links.ensure_fdb(&made, &[flood(2), flood(3)]).await.unwrap();
    links.ensure_fdb(&made, &[flood(3), flood(4)]).await.unwrap();
    let mut found = links.fdb(&made).await.unwrap();
    found.sort();
    assert_eq!(found, [flood(3), flood(4)]);

    assert_eq!(links.ensure_vxlan(&spec).await.unwrap().index, made.index);
    let other = links.ensure_vxlan(&VxlanSpec { vni: 102, ..spec.clone() }).await.unwrap();
    assert_ne!(other.index, made.index);
    assert_eq!(links.fdb(&other).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_tag_is_made_or_the_kernel_is_named() {
    let host = Namespace::new("host");
    let links = host.links().await;
    host.output("ip", &["link", "add", "eth9", "type", "veth", "peer", "name", "eth8"]);
    // A tag is up only on what is up.
    host.output("ip", &["link", "set", "eth9", "up"]);
    let spec = VlanSpec { name: "eth9.5", parent: "eth9", tag: 5, mtu: 1500, alias: "nova:segment:1" };
    match links.ensure_vlan(&spec).await {
        Ok(made) => {
            assert_eq!(made.kind, LinkKind::Vlan(5));
            assert_eq!(links.ensure_vlan(&spec).await.unwrap().index, made.index);
        }
        Err(PlumbingError::Unsupported(text)) => assert!(text.contains("eth9.5"), "{text}"),
        Err(e) => panic!("{e:?}"),
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn addresses_routes_and_neighbours_are_exactly_those() {
    let host = Namespace::new("host");
    let links = host.links().await;
    let link = links.ensure_bridge(&bridge(1500)).await.unwrap();
    let address = |text: &str, prefix| Address { address: text.parse().unwrap(), prefix };
    let wanted =
        [address("10.1.0.1", 24), address("fd00::1", 64), address("169.254.169.254", 32), address("fe80::a9fe", 64)];
    host.output("ip", &["addr", "add", "10.9.9.9/24", "dev", "brq1"]);
    assert_eq!(links.ensure_addresses(&link, &wanted).await.unwrap(), wanted);
    assert_eq!(links.ensure_addresses(&link, &wanted).await.unwrap(), []);
    let mut found = links.addresses(&link).await.unwrap();
    found.sort();
    assert_eq!(found, [wanted[0], wanted[2], wanted[1]]);

    let route = |to: &str, via: Option<&str>, onlink| Route {
        destination: to.parse().unwrap(),
        gateway: via.map(|via| via.parse().unwrap()),
        link: link.index,
        onlink,
        source: None,
    };
    let routes = [
        route("0.0.0.0/0", Some("10.1.0.254"), false),
        route("203.0.113.5/32", Some("198.51.100.1"), true),
        route("203.0.113.6/32", None, false),
        route("fd01::/64", Some("fd00::2"), false),
    ];
    links.ensure_routes(link.index, &routes[..3]).await.unwrap();
    links.ensure_routes(link.index, &routes[1..]).await.unwrap();
    links.ensure_routes(link.index, &routes[1..]).await.unwrap();
    let mut found = links.routes().await.unwrap();
    found.sort();
    let mut expected = routes[1..].to_vec();
    expected.sort();
    assert_eq!(found, expected);

    let neighbour = |text: &str, mac: &str| Neighbour { address: text.parse().unwrap(), mac: mac.parse().unwrap() };
    let one = neighbour("10.1.0.7", "fa:16:3e:00:00:07");
    let two = neighbour("fd00::7", "fa:16:3e:00:00:07");
    let moved = neighbour("10.1.0.7", "fa:16:3e:00:00:08");
    links.ensure_neighbours(&link, &[one, two]).await.unwrap();
    links.ensure_neighbours(&link, &[moved]).await.unwrap();
    assert_eq!(links.neighbours(&link).await.unwrap(), [moved]);

    let floating = "203.0.113.9".parse().unwrap();
    links.add_proxy(&link, floating).await.unwrap();
    links.add_proxy(&link, floating).await.unwrap();
    assert_eq!(links.proxies(&link).await.unwrap(), [floating]);
    links.remove_proxy(&link, floating).await.unwrap();
    links.remove_proxy(&link, floating).await.unwrap();
    assert!(links.proxies(&link).await.unwrap().is_empty());
}
