//! Telling the neighbours on a wire that an address is here now (RFC 826, RFC 5227).

use std::io;
use std::net::Ipv4Addr;

use nova_core::network::MacAddress;
use pnet_datalink::{Channel, Config, NetworkInterface};

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

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

/// Sends both frames for each address on a link of the calling thread's namespace.
pub fn announcement(link: u32, mac: MacAddress, addresses: &[Ipv4Addr]) -> io::Result<()> {
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
        for reply in [false, true] {
            let sent = sender.send_to(&gratuitous_arp(mac, *address, reply), None);
            sent.unwrap_or_else(|| Err(io::Error::other("no room for a frame")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
