//! DHCP and names of a network: two dnsmasq, in the network's namespace.

mod daemon;
mod files;
mod serve;

use std::net::{Ipv4Addr, Ipv6Addr};

use nova_core::network::MacAddress;

pub use daemon::{Daemon, Daemons};
pub use files::{DnsmasqFiles, Place, dnsmasq_files};
pub(super) use serve::serve;

/// Where guests ask for metadata, addresses and names: on their own link.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The same for version 6 (as Neutron has it), on the link.
pub const SERVICE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
/// An address that nobody uses: dnsmasq serves DHCPv6 on links that have one which is not link-local.
pub const SERVICE_UNIQUE_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfda9, 0xfea9, 0x00fe, 0, 0, 0, 0, 1);
/// The MAC address of all these, on every host. Its frames never leave the host: the firewall sees to it.
pub const SERVICE_MAC: MacAddress = MacAddress::from_bytes([0x02, 0x00, 169, 254, 169, 254]);
/// The link inside the namespace.
pub const LINK: &str = "link0";
