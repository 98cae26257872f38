//! Guests: the far ends of taps, on which frames are sent and heard one by one.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nova_core::ids::PortId;
use nova_core::network::{MacAddress, tap_name};

use super::frames::{self, EVERYBODY};
use super::{Namespace, ip4, mac, port_id};

/// Where guests are.
pub struct Guests {
    namespace: Namespace,
}

/// One interface of a guest.
pub struct Guest {
    /// Its number: of port, MAC address and addresses.
    pub number: u16,
    /// The host's end.
    pub tap: String,
    socket: OwnedFd,
}

impl Guests {
    /// None yet.
    pub fn new() -> Self {
        Self { namespace: Namespace::new("guests") }
    }

    /// Plugs the guest of that number into a host: its tap is there now, on no bridge.
    pub fn plug(&self, host: &Namespace, number: u16) -> Guest {
        self.plug_port(host, number, port_id(number))
    }

    /// Plugs in a port of another id.
    pub fn plug_port(&self, host: &Namespace, number: u16, port: PortId) -> Guest {
        let tap = tap_name(port);
        let inner = format!("g{}-{tap}", NEXT.fetch_add(1, Ordering::Relaxed)).chars().take(15).collect::<String>();
        let there = self.namespace.name();
        let mac = mac(number).to_string();
        host.output("ip", &["link", "add", &tap, "type", "veth", "peer", "name", &inner, "netns", there]);
        self.namespace.output("sysctl", &["-qw", &format!("net.ipv6.conf.{inner}.disable_ipv6=1")]);
        host.output("sysctl", &["-qw", &format!("net.ipv6.conf.{tap}.disable_ipv6=1")]);
        self.namespace.output("ip", &["link", "set", &inner, "address", &mac, "arp", "off", "up"]);
        host.output("ip", &["link", "set", &tap, "up"]);
        let socket = self.namespace.run(move || open(&inner));
        Guest { number, tap, socket }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);

fn open(interface: &str) -> OwnedFd {
    let kind = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Raw, kind, SockProtocol::EthAll).unwrap();
    let addresses = getifaddrs().unwrap().filter(|address| address.interface_name == interface);
    let link = addresses.filter_map(|address| address.address?.as_link_addr().copied()).next().unwrap();
    bind(socket.as_raw_fd(), &link).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
    socket
}

/// Sends a frame out of an interface of the thread's namespace.
pub fn send_on(interface: &str, frame: &[u8]) {
    send(open(interface).as_raw_fd(), frame, MsgFlags::empty()).unwrap();
}

impl Guest {
    /// Its MAC address.
    pub fn mac(&self) -> MacAddress {
        mac(self.number)
    }

    /// Does the other hear that frame? It is followed by one of the same sender that everybody hears.
    pub fn reaches(&self, other: &Self, frame: &[u8]) -> bool {
        self.reaches_before(other, frame, self)
    }

    /// The same, where `fence` can be heard and this guest can't.
    pub fn reaches_before(&self, other: &Self, frame: &[u8], fence: &Self) -> bool {
        other.hears(frame, fence, || self.send(frame))
    }

    /// Does it hear that frame, which that sends, before what `fence` sends then?
    pub fn hears(&self, frame: &[u8], fence: &Self, send: impl FnOnce()) -> bool {
        // What it heard before is of no interest.
        let mut buffer = [0; 2048];
        while recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        let end = fence.honest();
        send();
        fence.send(&end);
        let mut heard = false;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
                .unwrap_or_else(|e| panic!("guest {} hears nothing of {}: {e}", self.number, fence.number));
            let found = &buffer[..length];
            heard |= found.starts_with(frame);
            if found.starts_with(&end) {
                return heard;
            }
        }
    }

    fn send(&self, frame: &[u8]) {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
    }

    /// A question that every guest may ask everybody; another one each time.
    fn honest(&self) -> Vec<u8> {
        let [.., a, b, c] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        frames::arp(1, (self.mac(), ip4(self.number)), [100, a, b, c].into(), EVERYBODY)
    }
}
