//! Routes, of the main table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use nova_core::network::Cidr;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Links, errno, failed, or_already};
use crate::network::PlumbingError;

/// Who made a route: a number that no other program is known to use (/etc/iproute2/rt_protos).
const OURS: RouteProtocol = RouteProtocol::Other(78);

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads.
    pub destination: Cidr,
    /// By which neighbour; `None`: it is on the link.
    pub gateway: Option<IpAddr>,
    /// The link's number.
    pub link: u32,
    /// The neighbour is on the link, whatever the link's addresses say.
    pub onlink: bool,
    /// The address that the host's own packets take.
    pub source: Option<IpAddr>,
}

impl Links {
    /// The static routes of the main table: those that somebody set, not those that the kernel made of addresses.
    pub async fn routes(&self) -> Result<Vec<Route>, PlumbingError> {
        Ok(self.route_messages().await?.iter().filter_map(route_of).collect())
    }

    /// Adds one, in place of what leads there.
    async fn replace_route(&self, route: Route) -> Result<(), PlumbingError> {
        let doing = format!("set the route to {}", route.destination);
        let message = message_of(&route).map_err(|e| failed(&*doing, e))?;
        or_already(self.handle.route().add(message).replace().execute().await, &[], doing)
    }

    /// Removes one; fine if it is gone.
    pub async fn remove_route(&self, route: Route) -> Result<(), PlumbingError> {
        let doing = format!("remove the route to {}", route.destination);
        let mut message = message_of(&route).map_err(|e| failed(&*doing, e))?;
        // Whoever made it.
        message.header.protocol = RouteProtocol::Unspec;
        let result = self.handle.route().del(message).execute().await;
        or_already(result, &[errno::ESRCH, errno::ENODEV, errno::ENOENT], doing)
    }

    /// Exactly these routes over that link, besides those that the kernel made. What somebody else has leading there over
    /// another link stays: that is an error, after the others were set.
    pub async fn ensure_routes(&self, link: u32, wanted: &[Route]) -> Result<(), PlumbingError> {
        let messages = self.route_messages().await?;
        let present: Vec<Route> = messages.iter().filter_map(route_of).filter(|route| route.link == link).collect();
        let foreign = messages.iter().filter(|message| {
            let header = &message.header;
            let elsewhere = !message.attributes.contains(&RouteAttribute::Oif(link));
            header.table == RouteHeader::RT_TABLE_MAIN && header.protocol != OURS && elsewhere
        });
        // Whatever it does with packets there.
        let foreign: BTreeSet<Cidr> = foreign.filter_map(destination_of).collect();
        let mut refused = Vec::new();
        for route in present.iter().filter(|route| !wanted.contains(route)) {
            self.remove_route(*route).await?;
        }
        for route in wanted.iter().filter(|route| !present.contains(route)) {
            if foreign.contains(&route.destination) {
                refused.push(route.destination.to_string());
            } else {
                self.replace_route(*route).await?;
            }
        }
        let text = || format!("another route leads to {}, which is not ours", refused.join(", "));
        if refused.is_empty() { Ok(()) } else { Err(PlumbingError::Unsupported(text())) }
    }

    async fn route_messages(&self) -> Result<Vec<RouteMessage>, PlumbingError> {
        let mut messages = Vec::new();
        let four = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let six = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [four, six] {
            let request = self.handle.route().get(family).execute();
            let found: Vec<_> = request.try_collect().await.map_err(|e| failed("list routes", e))?;
            messages.extend(found);
        }
        Ok(messages)
    }
}

fn message_of(route: &Route) -> Result<RouteMessage, rtnetlink::Error> {
    let wrong = |e: &dyn std::fmt::Display| rtnetlink::Error::InvalidNla(e.to_string());
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(route.destination.base(), route.destination.prefix())
        .map_err(|e| wrong(&e))?
        .output_interface(route.link)
        .protocol(OURS);
    builder = match route.gateway {
        Some(gateway) => builder.gateway(gateway).map_err(|e| wrong(&e))?,
        None => builder.scope(RouteScope::Link),
    };
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(|e| wrong(&e))?;
    }
    Ok(if route.onlink { builder.onlink().build() } else { builder.build() })
}

fn route_of(message: &RouteMessage) -> Option<Route> {
    let protocol = message.header.protocol;
    use rtnetlink::packet_route::route::RouteFlags;
    let header = &message.header;
    let set = protocol != RouteProtocol::Kernel && protocol != RouteProtocol::Ra;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast || !set {
        return None;
    }
    let (mut gateway, mut link, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = address_of(address),
            RouteAttribute::PrefSource(address) => source = address_of(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    let destination = destination_of(message)?;
    Some(Route { destination, gateway, link: link?, onlink: header.flags.contains(RouteFlags::Onlink), source })
}

fn destination_of(message: &RouteMessage) -> Option<Cidr> {
    let header = &message.header;
    let four = header.address_family == rtnetlink::packet_route::AddressFamily::Inet;
    let mut base: IpAddr = if four { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            base = address_of(address)?;
        }
    }
    Cidr::around(base, header.destination_prefix_length)
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
