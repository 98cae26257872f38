//! Neighbours that need not be asked for, addresses that are answered for, and where tunnels lead.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use nova_core::network::MacAddress;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::{LinkState, Links, errno, failed, or_already};
use crate::network::PlumbingError;

/// A neighbour with a permanent entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Where it is.
    pub mac: MacAddress,
}

/// Where a tunnel sends frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Frames for that address; all zeroes: those for nobody in particular.
    pub mac: MacAddress,
    /// The host.
    pub host: IpAddr,
}

impl FdbEntry {
    /// Frames for nobody in particular go to that host, too.
    pub fn flood(host: IpAddr) -> Self {
        Self { mac: MacAddress::from_bytes([0; 6]), host }
    }
}

impl Links {
    /// Exactly these permanent entries on a link.
    pub async fn ensure_neighbours(&self, link: &LinkState, wanted: &[Neighbour]) -> Result<(), PlumbingError> {
        let present = self.neighbours(link).await?;
        for neighbour in present.iter().filter(|n| !wanted.iter().any(|w| w.address == n.address)) {
            let mut request = self.handle.neighbours().add(link.index, neighbour.address);
            let message = std::mem::take(request.message_mut());
            let result = self.handle.neighbours().del(message).execute().await;
            let doing = format!("forget the neighbour {} on {}", neighbour.address, link.name);
            or_already(result, &[errno::ENOENT, errno::ENODEV], doing)?;
        }
        for neighbour in wanted.iter().filter(|neighbour| !present.contains(neighbour)) {
            let request = self.handle.neighbours().add(link.index, neighbour.address);
            let result = request.link_layer_address(&neighbour.mac.bytes()).replace().execute().await;
            or_already(result, &[], format!("set the neighbour {} on {}", neighbour.address, link.name))?;
        }
        Ok(())
    }

    /// A link's permanent entries.
    pub async fn neighbours(&self, link: &LinkState) -> Result<Vec<Neighbour>, PlumbingError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for message in self.neighbour_messages(link, family, NeighbourFlags::empty()).await? {
                let permanent = message.header.state == NeighbourState::Permanent;
                if let (true, Some(address), Some(mac)) = (permanent, address_of(&message), mac_of(&message)) {
                    found.push(Neighbour { address, mac });
                }
            }
        }
        Ok(found)
    }

    /// The addresses that the host answers for on a link.
    pub async fn proxies(&self, link: &LinkState) -> Result<Vec<IpAddr>, PlumbingError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let messages = self.neighbour_messages(link, family, NeighbourFlags::Proxy).await?;
            found.extend(messages.iter().filter_map(address_of));
        }
        Ok(found)
    }

    /// The host answers for that address on a link; fine if it does already.
    pub async fn add_proxy(&self, link: &LinkState, address: IpAddr) -> Result<(), PlumbingError> {
        let request = self.handle.neighbours().add(link.index, address).flags(NeighbourFlags::Proxy);
        let result = request.replace().execute().await;
        or_already(result, &[errno::EEXIST], format!("answer for {address} on {}", link.name))
    }

    /// The host answers no longer for that address; fine if it does not.
    pub async fn remove_proxy(&self, link: &LinkState, address: IpAddr) -> Result<(), PlumbingError> {
        let mut request = self.handle.neighbours().add(link.index, address).flags(NeighbourFlags::Proxy);
        let message = std::mem::take(request.message_mut());
        let result = self.handle.neighbours().del(message).execute().await;
        or_already(result, &[errno::ENOENT, errno::ENODEV], format!("no longer answer for {address} on {}", link.name))
    }

    /// Exactly these permanent entries of a tunnel; what it learned stays.
    pub async fn ensure_fdb(&self, link: &LinkState, wanted: &[FdbEntry]) -> Result<(), PlumbingError> {
        let present = self.fdb(link).await?;
        for entry in present.iter().filter(|entry| !wanted.contains(entry)) {
            let message = self.fdb_request(link, *entry);
            let result = self.handle.neighbours().del(message).execute().await;
            let doing = format!("forget {} at {} on {}", entry.mac, entry.host, link.name);
            or_already(result, &[errno::ENOENT, errno::ENODEV], doing)?;
        }
        for entry in wanted.iter().filter(|entry| !present.contains(entry)) {
            let doing = format!("send frames for {} to {} on {}", entry.mac, entry.host, link.name);
            or_already(self.append(self.fdb_request(link, *entry)).await, &[errno::EEXIST], doing)?;
        }
        Ok(())
    }

    /// A tunnel's permanent entries.
    pub async fn fdb(&self, link: &LinkState) -> Result<Vec<FdbEntry>, PlumbingError> {
        let messages = self.neighbour_messages(link, AddressFamily::Bridge, NeighbourFlags::empty()).await?;
        let permanent = messages.iter().filter(|message| message.header.state == NeighbourState::Permanent);
        let entry = |message| Some(FdbEntry { mac: mac_of(message)?, host: address_of(message)? });
        Ok(permanent.filter_map(entry).collect())
    }

    fn fdb_request(&self, link: &LinkState, entry: FdbEntry) -> NeighbourMessage {
        let request = self.handle.neighbours().add_bridge(link.index, &entry.mac.bytes());
        let mut request = request.destination(entry.host).flags(NeighbourFlags::Own);
        std::mem::take(request.message_mut())
    }

    /// An entry beside others for the same address, as `bridge fdb append` makes it; the crate's own request replaces.
    async fn append(&self, message: NeighbourMessage) -> Result<(), rtnetlink::Error> {
        use futures_util::StreamExt;
        use rtnetlink::packet_core::{
            NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
        };
        let payload = rtnetlink::packet_route::RouteNetlinkMessage::NewNeighbour(message);
        let mut request = NetlinkMessage::from(payload);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    }

    async fn neighbour_messages(
        &self,
        link: &LinkState,
        family: AddressFamily,
        flags: NeighbourFlags,
    ) -> Result<Vec<NeighbourMessage>, PlumbingError> {
        let request = self.handle.neighbours().get().set_address_family(family).set_flags(flags).execute();
        let all: Vec<NeighbourMessage> =
            request.try_collect().await.map_err(|e| failed(format!("list the neighbours on {}", link.name), e))?;
        Ok(all.into_iter().filter(|message| message.header.ifindex == link.index).collect())
    }
}

fn address_of(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some((*address).into()),
        // The message is about the bridge's family, so that the length alone says which address it is.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            let four = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    })
}

fn mac_of(message: &NeighbourMessage) -> Option<MacAddress> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => {
            <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddress::from_bytes)
        }
        _ => None,
    })
}
