//! What passes between guests, frame by frame.

mod addresses;
mod groups;
mod lasting;

use std::net::IpAddr;

use nova_compute::Plumbing;
use nova_core::network::{Carrier, MacAddress, PortStatus};

use crate::support::frames::{self, ACK, SYN, SYN_ACK};
use crate::support::{Guest, Guests, Host, Scene, ip4, ip6};

/// Guests 1 to 3 on one network of one host, each in group 1, which lets in what `rules` say.
pub struct Lan {
    host: Host,
    scene: Scene,
    guests: Guests,
    one: Guest,
    two: Guest,
    three: Guest,
}

impl Lan {
    async fn new(rules: &[nova_core::network::GroupRule]) -> Self {
        let host = Host::new().await;
        let mut scene = Scene::default();
        scene.network(1, Carrier::Local);
        scene.group(1, rules);
        for number in 1..=3 {
            scene.port(1, number, Some(&[1]));
        }
        let guests = Guests::new();
        let [one, two, three] = [1, 2, 3].map(|number| guests.plug(&host.namespace, number));
        host.converge(&scene.wanted).await;
        Self { host, scene, guests, one, two, three }
    }

    /// Was what differs put in force without a look at the rest?
    async fn adjust(&self) -> bool {
        let adjusted = self.host.plumbing.adjust(&self.scene.wanted).await.unwrap();
        let active = |converged: nova_compute::Converged| {
            assert_eq!(converged.ports.values().filter(|status| **status == PortStatus::Active).count(), 3);
        };
        adjusted.map(active).is_some()
    }

    async fn converge(&self) {
        self.host.converge(&self.scene.wanted).await;
    }
}

pub fn macs(from: &Guest, to: &Guest) -> (MacAddress, MacAddress) {
    (from.mac(), to.mac())
}

pub fn four(from: &Guest, to: &Guest) -> (IpAddr, IpAddr) {
    (ip4(from.number).into(), ip4(to.number).into())
}

pub fn six(from: &Guest, to: &Guest) -> (IpAddr, IpAddr) {
    (ip6(from.number).into(), ip6(to.number).into())
}

/// The first packet of a connection to that port.
pub fn syn(from: &Guest, to: &Guest, port: u16) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::tcp(macs(from, to), (a, 40_000), (b, port), SYN, (1, 0))
}

/// The answer to it.
pub fn syn_ack(from: &Guest, to: &Guest, port: u16) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::tcp(macs(from, to), (a, port), (b, 40_000), SYN_ACK, (1, 2))
}

/// A packet of an open connection to that port.
pub fn ack(from: &Guest, to: &Guest, port: u16) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::tcp(macs(from, to), (a, 40_000), (b, port), ACK, (2, 2))
}

/// A packet of an open connection from that port.
pub fn answer(from: &Guest, to: &Guest, port: u16) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::tcp(macs(from, to), (a, port), (b, 40_000), ACK, (2, 2))
}

pub fn udp(from: &Guest, to: &Guest, ports: (u16, u16)) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::udp(macs(from, to), (a, ports.0), (b, ports.1))
}

pub fn udp6(from: &Guest, to: &Guest, ports: (u16, u16)) -> Vec<u8> {
    let (a, b) = six(from, to);
    frames::udp(macs(from, to), (a, ports.0), (b, ports.1))
}

pub fn ping(from: &Guest, to: &Guest, number: u16) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::echo(macs(from, to), a, b, false, number)
}

pub fn pong(from: &Guest, to: &Guest, number: u16) -> Vec<u8> {
    let (a, b) = four(from, to);
    frames::echo(macs(from, to), a, b, true, number)
}

/// Opens a connection to that port.
pub fn open(from: &Guest, to: &Guest, port: u16) {
    assert!(from.reaches(to, &syn(from, to, port)));
    assert!(to.reaches(from, &syn_ack(to, from, port)));
    assert!(from.reaches(to, &ack(from, to, port)));
}
