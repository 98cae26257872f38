//! Links as the kernel tells of them.

use std::net::IpAddr;

use nova_core::network::MacAddress;
use rtnetlink::packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVlan, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

/// What kind of link it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LinkKind {
    /// A network card, the loopback, or a kind that this does not know.
    #[default]
    Other,
    /// A bridge.
    Bridge(BridgeState),
    /// One end of a pair.
    Veth,
    /// A tap or tun.
    Tun,
    /// A tunnel between hosts.
    Vxlan(VxlanState),
    /// A tag on another link.
    Vlan(u16),
}

/// A bridge's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgeState {
    /// Spanning tree is on.
    pub stp: bool,
    /// Its IP packets pass iptables and nftables of the family `inet`.
    pub call_iptables: bool,
    /// Same for IPv6.
    pub call_ip6tables: bool,
    /// It listens to IGMP and MLD.
    pub multicast_snooping: bool,
}

/// A tunnel's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VxlanState {
    /// The network's identifier.
    pub vni: u32,
    /// The address that its packets come from.
    pub local: Option<IpAddr>,
    /// The port that they go to.
    pub port: u16,
    /// It learns which host a MAC address is on.
    pub learning: bool,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkState {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its address, if it has an Ethernet one.
    pub mac: Option<MacAddress>,
    /// The largest packet.
    pub mtu: u32,
    /// It is set up by the administrator.
    pub up: bool,
    /// Frames can pass: it is up, and so is what it is connected to. The kernel takes a moment to notice.
    pub running: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The other end of a pair, or the link below a VLAN. Its number is one of another namespace if `peer_elsewhere`.
    pub peer: Option<u32>,
    /// That is in another namespace.
    pub peer_elsewhere: bool,
    /// A text that stays with it (`ifalias`).
    pub alias: Option<String>,
}

impl From<&LinkMessage> for LinkState {
    fn from(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let (up, running) = (flags.contains(LinkFlags::Up), flags.contains(LinkFlags::Running));
        let mut link = Self { index: message.header.index, up, running, ..Self::default() };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => {
                    link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddress::from_bytes);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.master = Some(*index).filter(|index| *index != 0),
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::LinkInfo(infos) => link.kind = kind_of(infos),
                _ => {}
            }
        }
        link
    }
}

fn kind_of(infos: &[LinkInfo]) -> LinkKind {
    let data = infos.iter().find_map(|info| if let LinkInfo::Data(data) = info { Some(data) } else { None });
    let kind = infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    match (kind, data) {
        (Some(InfoKind::Bridge), Some(InfoData::Bridge(data))) => LinkKind::Bridge(bridge(data)),
        (Some(InfoKind::Veth), _) => LinkKind::Veth,
        (Some(InfoKind::Tun), _) => LinkKind::Tun,
        (Some(InfoKind::Vxlan), Some(InfoData::Vxlan(data))) => LinkKind::Vxlan(vxlan(data)),
        (Some(InfoKind::Vlan), Some(InfoData::Vlan(data))) => {
            let tag = data.iter().find_map(|info| if let InfoVlan::Id(tag) = info { Some(*tag) } else { None });
            LinkKind::Vlan(tag.unwrap_or(0))
        }
        _ => LinkKind::Other,
    }
}

fn bridge(data: &[InfoBridge]) -> BridgeState {
    let mut state = BridgeState::default();
    for info in data {
        match info {
            InfoBridge::StpState(stp) => state.stp = u32::from(*stp) != 0,
            InfoBridge::NfCallIpTables(on) => state.call_iptables = *on,
            InfoBridge::NfCallIp6Tables(on) => state.call_ip6tables = *on,
            InfoBridge::MulticastSnooping(on) => state.multicast_snooping = *on,
            _ => {}
        }
    }
    state
}

fn vxlan(data: &[InfoVxlan]) -> VxlanState {
    let mut state = VxlanState::default();
    for info in data {
        match info {
            InfoVxlan::Id(vni) => state.vni = *vni,
            InfoVxlan::Local(local) => state.local = Some(IpAddr::V4(*local)),
            InfoVxlan::Local6(local) => state.local = Some(IpAddr::V6(*local)),
            InfoVxlan::Port(port) => state.port = *port,
            InfoVxlan::Learning(on) => state.learning = *on,
            _ => {}
        }
    }
    state
}
