//! Making, changing and removing links.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nova_core::network::MacAddress;
use rtnetlink::packet_route::link::{BridgeStpState, InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan, LinkVxlan};

use super::{LinkKind, LinkState, Links, VxlanState, code_of, errno, failed, namespace_path, or_already};
use crate::network::PlumbingError;

/// A bridge as it is to be: without spanning tree and multicast snooping, its packets passing the firewall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address; without one it would take that of a port, and change.
    pub mac: MacAddress,
    /// The largest packet.
    pub mtu: u32,
    /// The text that says what it is for.
    pub alias: &'a str,
}

/// One end of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VethEnd<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address; `None`: whatever it gets.
    pub mac: Option<MacAddress>,
}

/// A pair: one end in the namespace of the [`Links`], the other in that of `peer_namespace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethSpec<'a> {
    /// The end here.
    pub here: VethEnd<'a>,
    /// The other end.
    pub peer: VethEnd<'a>,
    /// Where the other end is; `None`: here, too.
    pub peer_namespace: Option<&'a str>,
    /// The largest packet, on both ends.
    pub mtu: u32,
    /// The text that says what the end here is for.
    pub alias: &'a str,
}

/// A tunnel as it is to be: one that learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The network's identifier.
    pub vni: u32,
    /// The address that its packets come from.
    pub local: IpAddr,
    /// The port that they go to.
    pub port: u16,
    /// The largest packet inside.
    pub mtu: u32,
    /// The text that says what it is for.
    pub alias: &'a str,
}

/// A tag on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The link below.
    pub parent: &'a str,
    /// The tag.
    pub tag: u16,
    /// The largest packet.
    pub mtu: u32,
    /// The text that says what it is for.
    pub alias: &'a str,
}

impl Links {
    /// A bridge that is as described and up. Its ports stay.
    pub async fn ensure_bridge(&self, spec: &BridgeSpec<'_>) -> Result<LinkState, PlumbingError> {
        let found = self.get(spec.name).await?;
        let link = match found {
            Some(link) if matches!(link.kind, LinkKind::Bridge(_)) => link,
            Some(_) => return Err(PlumbingError::Unsupported(format!("{} is there and is no bridge", spec.name))),
            None => {
                let message = LinkBridge::new(spec.name)
                    .address(spec.mac.bytes().to_vec())
                    .stp_state(BridgeStpState::Disabled)
                    .forward_delay(0)
                    .mcast_snooping(false)
                    .nf_call_iptables(true)
                    .nf_call_ip6tables(true)
                    .mtu(spec.mtu)
                    .alias(spec.alias)
                    .up()
                    .build();
                return self.add(message, spec.name).await;
            }
        };
        self.filter_bridge(&link).await?;
        self.settle(&link, Some(spec.mac), spec.mtu, spec.alias).await
    }

    /// Has a bridge's packets pass the firewall; the rest of it stays as it is.
    pub async fn filter_bridge(&self, link: &LinkState) -> Result<(), PlumbingError> {
        let LinkKind::Bridge(state) = link.kind else {
            return Err(PlumbingError::Unsupported(format!("{} is no bridge", link.name)));
        };
        if state.call_iptables && state.call_ip6tables {
            return Ok(());
        }
        let mut message = LinkMessageBuilder::<LinkBridge>::new(&link.name)
            .index(link.index)
            .nf_call_iptables(true)
            .nf_call_ip6tables(true)
            .build();
        // A link that is up takes no name before Linux 6.2, not even its own.
        message.attributes.retain(|attribute| !matches!(attribute, LinkAttribute::IfName(_)));
        let result = self.handle.link().change(message).execute().await;
        or_already(result, &[], format!("set up bridge {}", link.name))
    }

    /// A pair, both ends up. An end here whose other end has gone elsewhere is replaced; one that is there stays.
    pub async fn ensure_veth(&self, spec: &VethSpec<'_>) -> Result<LinkState, PlumbingError> {
        let there = match spec.peer_namespace {
            Some(name) => Self::in_namespace(name).await?,
            None => self.clone(),
        };
        if let Some(link) = self.get(spec.here.name).await? {
            let peer = there.get(spec.peer.name).await?.filter(|peer| link.peer == Some(peer.index));
            if let (LinkKind::Veth, Some(peer)) = (&link.kind, peer) {
                there.settle(&peer, spec.peer.mac, spec.mtu, "").await?;
                return self.settle(&link, spec.here.mac, spec.mtu, spec.alias).await;
            }
            self.delete(&link).await?;
        }
        // An end without its other end, of the name that is wanted: left from another pair.
        if let Some(stale) = there.get(spec.peer.name).await? {
            there.delete(&stale).await?;
        }
        let namespace = spec.peer_namespace.map(|name| std::fs::File::open(namespace_path(name)));
        let namespace =
            namespace.transpose().map_err(|e| failed(format!("open the namespace of {}", spec.peer.name), e))?;
        let mut peer = LinkUnspec::new_with_name(spec.peer.name).mtu(spec.mtu);
        if let Some(mac) = spec.peer.mac {
            peer = peer.address(mac.bytes().to_vec());
        }
        if let Some(namespace) = &namespace {
            peer = peer.setns_by_fd(namespace.as_raw_fd());
        }
        let mut here = LinkMessageBuilder::<LinkVeth>::new(spec.here.name, spec.peer.name).mtu(spec.mtu);
        if let Some(mac) = spec.here.mac {
            here = here.address(mac.bytes().to_vec());
        }
        let message = here.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();
        let link = self.add(message, spec.here.name).await?;
        if let Some(peer) = there.get(spec.peer.name).await? {
            there.settle(&peer, spec.peer.mac, spec.mtu, "").await?;
        }
        self.settle(&link, spec.here.mac, spec.mtu, spec.alias).await
    }

    /// A tunnel. What can't be changed while it is there is made anew.
    pub async fn ensure_vxlan(&self, spec: &VxlanSpec<'_>) -> Result<LinkState, PlumbingError> {
        let wanted = VxlanState { vni: spec.vni, local: Some(spec.local), port: spec.port, learning: true };
        if let Some(link) = self.get(spec.name).await? {
            if link.kind == LinkKind::Vxlan(wanted) {
                return self.settle(&link, None, spec.mtu, spec.alias).await;
            }
            self.delete(&link).await?;
        }
        let builder = LinkVxlan::new(spec.name, spec.vni).port(spec.port).learning(true).mtu(spec.mtu);
        let builder = match spec.local {
            IpAddr::V4(local) => builder.local(local),
            IpAddr::V6(local) => builder.local6(local),
        };
        let link = self.add(builder.alias(spec.alias).build(), spec.name).await?;
        self.settle(&link, None, spec.mtu, spec.alias).await
    }

    /// A tag on a link. [`PlumbingError::Unsupported`] where the kernel has no 802.1q.
    pub async fn ensure_vlan(&self, spec: &VlanSpec<'_>) -> Result<LinkState, PlumbingError> {
        let parent = self.get(spec.parent).await?;
        let parent =
            parent.ok_or_else(|| PlumbingError::Unsupported(format!("there is no interface {}", spec.parent)))?;
        if let Some(link) = self.get(spec.name).await? {
            if link.kind == LinkKind::Vlan(spec.tag) && link.peer == Some(parent.index) {
                return self.settle(&link, None, spec.mtu, spec.alias).await;
            }
            self.delete(&link).await?;
        }
        let message = LinkVlan::new(spec.name, parent.index, spec.tag).mtu(spec.mtu).alias(spec.alias).build();
        let link = self.add(message, spec.name).await?;
        self.settle(&link, None, spec.mtu, spec.alias).await
    }

    /// Removes a link; fine if it is gone.
    pub async fn delete(&self, link: &LinkState) -> Result<(), PlumbingError> {
        let result = self.handle.link().del(link.index).execute().await;
        or_already(result, &[errno::ENODEV], format!("remove {}", link.name))
    }

    /// Removes the link of that name, if there is one.
    pub async fn delete_named(&self, name: &str) -> Result<(), PlumbingError> {
        match self.get(name).await? {
            Some(link) => self.delete(&link).await,
            None => Ok(()),
        }
    }

    /// Makes a link the port of a bridge, or of none.
    pub async fn set_master(&self, link: &LinkState, master: Option<u32>) -> Result<(), PlumbingError> {
        if link.master == master {
            return Ok(());
        }
        let builder = LinkUnspec::new_with_index(link.index).controller(master.unwrap_or(0));
        self.change(builder, &format!("make {} the port of a bridge", link.name)).await
    }

    /// Sets a link's address.
    pub async fn set_mac(&self, link: &LinkState, mac: MacAddress) -> Result<(), PlumbingError> {
        if link.mac == Some(mac) {
            return Ok(());
        }
        let builder = LinkUnspec::new_with_index(link.index).address(mac.bytes().to_vec());
        self.change(builder, &format!("set the address of {}", link.name)).await
    }

    /// Sets the largest packet.
    pub async fn set_mtu(&self, link: &LinkState, mtu: u32) -> Result<(), PlumbingError> {
        if link.mtu == mtu {
            return Ok(());
        }
        let builder = LinkUnspec::new_with_index(link.index).mtu(mtu);
        self.change(builder, &format!("set the MTU of {} to {mtu}", link.name)).await
    }

    /// Sets a link up.
    pub async fn set_up(&self, link: &LinkState) -> Result<(), PlumbingError> {
        if link.up {
            return Ok(());
        }
        self.change(LinkUnspec::new_with_index(link.index).up(), &format!("set {} up", link.name)).await
    }

    /// Sets the text that stays with a link.
    pub async fn set_alias(&self, link: &LinkState, alias: &str) -> Result<(), PlumbingError> {
        if link.alias.as_deref().unwrap_or("") == alias {
            return Ok(());
        }
        let builder = LinkUnspec::new_with_index(link.index).alias(alias);
        self.change(builder, &format!("describe {}", link.name)).await
    }

    /// Address, MTU, text and being up, in one message of what differs.
    async fn settle(
        &self,
        link: &LinkState,
        mac: Option<MacAddress>,
        mtu: u32,
        alias: &str,
    ) -> Result<LinkState, PlumbingError> {
        let wanted = LinkState {
            mac: mac.or(link.mac),
            mtu,
            up: true,
            alias: Some(alias.to_owned()).filter(|alias| !alias.is_empty()),
            ..link.clone()
        };
        if wanted == *link {
            return Ok(wanted);
        }
        let mut builder = LinkUnspec::new_with_index(link.index);
        if let Some(mac) = mac.filter(|mac| link.mac != Some(*mac)) {
            builder = builder.address(mac.bytes().to_vec());
        }
        if link.mtu != mtu {
            builder = builder.mtu(mtu);
        }
        if link.alias != wanted.alias {
            builder = builder.alias(alias);
        }
        if !link.up {
            builder = builder.up();
        }
        self.change(builder, &format!("set up {}", link.name)).await?;
        Ok(wanted)
    }

    async fn change(&self, builder: LinkMessageBuilder<LinkUnspec>, doing: &str) -> Result<(), PlumbingError> {
        or_already(self.handle.link().change(builder.build()).execute().await, &[], doing.to_owned())
    }

    /// Makes a link and answers with what the kernel made of it.
    async fn add(&self, mut message: LinkMessage, name: &str) -> Result<LinkState, PlumbingError> {
        // Not every kernel takes the text together with the making of the link.
        let alias = message.attributes.iter().position(|a| matches!(a, LinkAttribute::IfAlias(_)));
        let alias = alias.map(|place| message.attributes.remove(place));
        match self.handle.link().add(message).execute().await {
            Err(e) if code_of(&e) == Some(errno::EOPNOTSUPP) => {
                return Err(PlumbingError::Unsupported(format!("this kernel can't make {name}: no such kind of link")));
            }
            Err(e) => return Err(failed(format!("make {name}"), e)),
            Ok(()) => {}
        }
        let made = self.get(name).await?;
        let mut made = made.ok_or_else(|| failed(format!("make {name}"), "it is not there afterwards"))?;
        if let Some(LinkAttribute::IfAlias(alias)) = alias {
            self.set_alias(&made, &alias).await?;
            made.alias = Some(alias);
        }
        Ok(made)
    }
}
