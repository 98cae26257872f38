//! Frames as guests send them, honest or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nova_core::network::MacAddress;

/// To everybody.
pub const EVERYBODY: MacAddress = MacAddress::from_bytes([0xff; 6]);
/// TCP's flags.
pub const SYN: u8 = 0x02;
/// An answer to it.
pub const SYN_ACK: u8 = 0x12;
/// Data.
pub const ACK: u8 = 0x10;

/// A frame.
pub fn ethernet(from: MacAddress, to: MacAddress, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to.bytes()[..], &from.bytes(), &kind.to_be_bytes(), payload].concat()
}

/// ARP: a question (1) or an answer (2), in a frame of the same sender.
pub fn arp(operation: u16, from: (MacAddress, Ipv4Addr), about: Ipv4Addr, to: MacAddress) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    let payload =
        [&head[..], &operation.to_be_bytes(), &from.0.bytes(), &from.1.octets(), &to.bytes(), &about.octets()].concat();
    ethernet(from.0, to, 0x0806, &payload)
}

/// An IP packet in a frame.
pub fn ip(macs: (MacAddress, MacAddress), from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(20 + payload.len()).unwrap();
            let mut head = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
            head[2..4].copy_from_slice(&length.to_be_bytes());
            let mut head = [&head[..], &from.octets(), &to.octets()].concat();
            let sum = checksum(&[&head]);
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            ethernet(macs.0, macs.1, 0x0800, &[&head[..], payload].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let head = [0x60, 0, 0, 0, length[0], length[1], protocol, 255];
            let packet = [&head[..], &from.octets(), &to.octets(), payload].concat();
            ethernet(macs.0, macs.1, 0x86dd, &packet)
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// UDP from a port to a port.
pub fn udp(macs: (MacAddress, MacAddress), from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let mut payload = [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &[0, 16, 0, 0], b"payload!"].concat();
    let sum = transport_checksum(from.0, to.0, 17, &payload);
    payload[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(macs, from.0, to.0, 17, &payload)
}

/// TCP with these flags, numbers (own, the other's) and no data.
pub fn tcp(
    macs: (MacAddress, MacAddress),
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    flags: u8,
    numbers: (u32, u32),
) -> Vec<u8> {
    let mut payload = [
        &from.1.to_be_bytes()[..],
        &to.1.to_be_bytes(),
        &numbers.0.to_be_bytes(),
        &numbers.1.to_be_bytes(),
        &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0],
    ]
    .concat();
    let sum = transport_checksum(from.0, to.0, 6, &payload);
    payload[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(macs, from.0, to.0, 6, &payload)
}

/// ICMP or ICMPv6 of a type and a code.
pub fn icmp(macs: (MacAddress, MacAddress), from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut payload = [&[kind, code, 0, 0][..], rest].concat();
    let four = from.is_ipv4();
    let sum = if four { checksum(&[&payload]) } else { transport_checksum(from, to, 58, &payload) };
    payload[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(macs, from, to, if four { 1 } else { 58 }, &payload)
}

/// An echo request (or its answer) of that number.
pub fn echo(macs: (MacAddress, MacAddress), from: IpAddr, to: IpAddr, answer: bool, number: u16) -> Vec<u8> {
    let kind = match (from.is_ipv4(), answer) {
        (true, false) => 8,
        (true, true) => 0,
        (false, false) => 128,
        (false, true) => 129,
    };
    icmp(macs, from, to, kind, 0, &[&number.to_be_bytes()[..], &[0, 1, 1, 2, 3, 4]].concat())
}

/// Neighbour discovery about an address: 135 asks, 136 answers.
pub fn neighbour(macs: (MacAddress, MacAddress), from: Ipv6Addr, to: Ipv6Addr, kind: u8, about: Ipv6Addr) -> Vec<u8> {
    let rest = [&[0x20, 0, 0, 0][..], &about.octets()].concat();
    icmp(macs, from.into(), to.into(), kind, 0, &rest)
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

fn transport_checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    checksum(&[&octets(from), &octets(to), &length, &[0, 0, 0, protocol], payload])
}
