//! Addresses of links.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};

use super::{LinkState, Links, errno, failed, or_already};
use crate::network::PlumbingError;

/// An address with the length of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// How much of it is the range.
    pub prefix: u8,
}

impl Links {
    /// A link's addresses, without the link-local ones that the kernel gives it.
    pub async fn addresses(&self, link: &LinkState) -> Result<Vec<Address>, PlumbingError> {
        Ok(self.address_messages(link).await?.iter().filter_map(address_of).collect())
    }

    /// The addresses of all links, likewise.
    pub async fn all_addresses(&self) -> Result<Vec<Address>, PlumbingError> {
        let request = self.handle.address().get().execute();
        let all: Vec<AddressMessage> = request.try_collect().await.map_err(|e| failed("list addresses", e))?;
        Ok(all.iter().filter_map(address_of).collect())
    }

    /// The number of the link that has that address, if there is one.
    pub async fn link_of_address(&self, wanted: IpAddr) -> Result<Option<u32>, PlumbingError> {
        let request = self.handle.address().get().execute();
        let all: Vec<AddressMessage> = request.try_collect().await.map_err(|e| failed("list addresses", e))?;
        let found = all.iter().find(|message| address_of(message).is_some_and(|found| found.address == wanted));
        Ok(found.map(|message| message.header.index))
    }

    /// Adds one; fine if it is there. An IPv6 address is used at once, without looking for another owner.
    pub async fn add_address(&self, link: &LinkState, address: Address) -> Result<(), PlumbingError> {
        let mut request = self.handle.address().add(link.index, address.address, address.prefix);
        if address.address.is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let doing = format!("give {} the address {}/{}", link.name, address.address, address.prefix);
        or_already(request.execute().await, &[errno::EEXIST], doing)
    }

    /// Removes one; fine if it is gone.
    pub async fn remove_address(&self, link: &LinkState, address: Address) -> Result<(), PlumbingError> {
        let found = self.address_messages(link).await?.into_iter().find(|m| address_of(m) == Some(address));
        let Some(message) = found else { return Ok(()) };
        let doing = format!("take the address {}/{} from {}", address.address, address.prefix, link.name);
        let result = self.handle.address().del(message).execute().await;
        or_already(result, &[errno::EADDRNOTAVAIL, errno::ENODEV], doing)
    }

    /// Exactly these addresses, besides link-local ones of the kernel. Answers with those that were added.
    ///
    /// What is there is not added: to refuse that, the kernel announces all multicast groups of the link once more.
    pub async fn ensure_addresses(&self, link: &LinkState, wanted: &[Address]) -> Result<Vec<Address>, PlumbingError> {
        let messages = self.address_messages(link).await?;
        let present: Vec<Address> = messages.iter().filter_map(any_address_of).collect();
        for address in messages.iter().filter_map(address_of).filter(|address| !wanted.contains(address)) {
            self.remove_address(link, address).await?;
        }
        let missing: Vec<Address> = wanted.iter().filter(|address| !present.contains(address)).copied().collect();
        for address in &missing {
            self.add_address(link, *address).await?;
        }
        Ok(missing)
    }

    async fn address_messages(&self, link: &LinkState) -> Result<Vec<AddressMessage>, PlumbingError> {
        let request = self.handle.address().get().set_link_index_filter(link.index).execute();
        request.try_collect().await.map_err(|e| failed(format!("list the addresses of {}", link.name), e))
    }
}

/// None for the link-local ones, which the kernel gives.
fn address_of(message: &AddressMessage) -> Option<Address> {
    any_address_of(message).filter(|found| message.header.scope != AddressScope::Link || found.address.is_ipv4())
}

fn any_address_of(message: &AddressMessage) -> Option<Address> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => address = Some(*local),
            AddressAttribute::Address(far) if address.is_none() => address = Some(*far),
            _ => {}
        }
    }
    address.map(|address| Address { address, prefix: message.header.prefix_len })
}
