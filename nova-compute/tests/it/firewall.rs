//! What passes between guests, frame by frame.

use std::net::IpAddr;

use nova_core::network::{Carrier, PortStatus, Remote};

use crate::support::frames::{self, SYN};
use crate::support::{Guest, Guests, Host, Scene, ip4, ip6, port_id};

/// Two guests of group 1 (tcp 22 from anywhere) on one network.
async fn two_guests() -> (Host, Scene, Guests, Guest, Guest) {
    let host = Host::new().await;
    let mut scene = Scene::default();
    scene.network(1, Carrier::Local);
    scene.group(1, &[Scene::rule(Some(6), (Some(22), Some(22)), Remote::Any)]);
    scene.port(1, 1, Some(&[1]));
    scene.port(1, 2, Some(&[1]));
    let guests = Guests::new();
    let (one, two) = (guests.plug(&host.namespace, 1), guests.plug(&host.namespace, 2));
    host.converge(&scene.wanted).await;
    (host, scene, guests, one, two)
}

fn macs(from: &Guest, to: &Guest) -> (nova_core::network::MacAddress, nova_core::network::MacAddress) {
    (from.mac(), to.mac())
}

fn syn(from: &Guest, to: &Guest, port: u16) -> Vec<u8> {
    let (a, b): (IpAddr, IpAddr) = (ip4(from.number).into(), ip4(to.number).into());
    frames::tcp(macs(from, to), (a, 40_000 + port), (b, port), SYN, (1, 0))
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_the_group_allows_passes_and_nothing_else() {
    let (host, scene, _guests, one, two) = two_guests().await;
    assert!(one.reaches(&two, &syn(&one, &two, 22)));
    assert!(!one.reaches(&two, &syn(&one, &two, 23)));
    let converged = host.converge(&scene.wanted).await;
    assert_eq!(converged.ports[&port_id(1)], PortStatus::Active);
    let six: (IpAddr, IpAddr) = (ip6(1).into(), ip6(2).into());
    assert!(!one.reaches(&two, &frames::echo(macs(&one, &two), six.0, six.1, false, 7)));
}
