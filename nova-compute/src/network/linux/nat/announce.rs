//! Telling the neighbours on a wire that an address is here now (RFC 826, RFC 5227; RFC 4861, 7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nova_core::network::MacAddress;
use pnet_datalink::{Channel, Config, NetworkInterface};

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The frame: an ARP request or reply of an address about itself. Some neighbours heed one of them, some the other.
pub fn gratuitous_arp(mac: MacAddress, address: Ipv4Addr, reply: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST);
    frame.extend(mac.bytes());
    frame.extend(ETHERTYPE_ARP);
    // Ethernet, IPv4, their lengths, the operation.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, if reply { 2 } else { 1 }]);
    frame.extend(mac.bytes());
    frame.extend(address.octets());
    frame.extend(if reply { BROADCAST } else { [0; 6] });
    frame.extend(address.octets());
    frame
}

/// The frame: a neighbour advertisement of a router that nobody asked for, and that overrides what is known.
pub fn neighbour_advertisement(mac: MacAddress, address: Ipv6Addr) -> Vec<u8> {
    // Type, code, checksum; router and override; what it is about, and the option that says where that is.
    let mut message = vec![136, 0, 0, 0, 0xa0, 0, 0, 0];
    message.extend(address.octets());
    message.extend([2, 1]);
    message.extend(mac.bytes());
    let sum = checksum(address, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(mac.bytes());
    frame.extend(ETHERTYPE_IPV6);
    // Version; length; what follows; only from this wire.
    frame.extend([0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

/// Of a message from there to all nodes (RFC 4443, 2.3).
fn checksum(source: Ipv6Addr, message: &[u8]) -> u16 {
    let length = [0, 0, 0, 32, 0, 0, 0, ICMPV6];
    let header = source.octets().into_iter().chain(ALL_NODES.octets()).chain(length);
    let bytes: Vec<u8> = header.chain(message.iter().copied()).collect();
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

/// Sends what tells of each address on a link of the calling thread's namespace.
pub fn announcement(link: u32, mac: MacAddress, addresses: &[IpAddr]) -> io::Result<()> {
    // Only the number is looked at.
    let interface = NetworkInterface {
        name: String::new(),
        description: String::new(),
        index: link,
        mac: None,
        ips: Vec::new(),
        flags: 0,
    };
    let Channel::Ethernet(mut sender, _) = pnet_datalink::channel(&interface, Config::default())? else {
        return Err(io::Error::other("the link carries no Ethernet frames"));
    };
    for address in addresses {
        let frames = match address {
            IpAddr::V4(four) => [false, true].map(|reply| gratuitous_arp(mac, *four, reply)).to_vec(),
            IpAddr::V6(six) => vec![neighbour_advertisement(mac, *six)],
        };
        for frame in frames {
            let sent = sender.send_to(&frame, None);
            sent.unwrap_or_else(|| Err(io::Error::other("no room for a frame")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_tells_where_it_is() {
        let mac: MacAddress = "02:00:00:00:00:07".parse().unwrap();
        let frame = neighbour_advertisement(mac, "2001:db8::1".parse().unwrap());
        assert_eq!((frame.len(), &frame[..6], frame[54], frame[58]), (86, &[0x33, 0x33, 0, 0, 0, 1][..], 136, 0xa0));
        assert_eq!((&frame[62..78], &frame[80..]), (&frame[22..38], &mac.bytes()[..]));
        // A message with its checksum sums up to nothing.
        assert_eq!(checksum("2001:db8::1".parse().unwrap(), &frame[54..]), 0);
    }

    #[test]
    fn an_address_tells_about_itself() {
        let mac: MacAddress = "02:00:00:00:00:07".parse().unwrap();
        let frame = gratuitous_arp(mac, Ipv4Addr::new(203, 0, 113, 5), false);
        let expected = "ffffffffffff020000000007080600010800060400010200000000\
                        07cb007105000000000000cb007105";
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.replace(' ', ""));
        let reply = gratuitous_arp(mac, Ipv4Addr::new(203, 0, 113, 5), true);
        assert_eq!((reply[21], &reply[32..38]), (2, &BROADCAST[..]));
    }
}
