//! A network's namespace: its link, addresses, routes, dnsmasq and door.

use std::net::IpAddr;

use nova_core::ids::NetworkId;
use nova_core::network::Segment;

use super::super::doors::callers;
use super::super::links::{Address, Route};
use super::super::names;
use super::super::namespace::{self, Purpose};
use super::super::services::{Plug, SERVICE, Work};
use super::{
    Daemon, LINK, Place, SERVICE_ADDRESS, SERVICE_LINK_LOCAL, SERVICE_MAC, SERVICE_UNIQUE_LOCAL, dnsmasq_files,
};
use crate::network::PlumbingError;

/// Serves a network.
pub(in super::super) async fn serve(
    work: &Work<'_>,
    network: NetworkId,
    segment: &Segment,
) -> Result<(), PlumbingError> {
    let purpose = Purpose::Service(network);
    let name = work.namespaces.name(purpose);
    let number = namespace::ensure(&name).await?;
    let quiet = ["all", "default"].map(|of| (format!("net/ipv6/conf/{of}/accept_ra"), "0"));
    let loose = ["all", "default"].map(|of| (format!("net/ipv4/conf/{of}/rp_filter"), "0"));
    namespace::set_sysctls(Some(&name), quiet.into_iter().chain(loose).collect()).await?;
    let plug = Plug {
        end: names::service_end(network),
        alias: names::alias(SERVICE, &network.to_string()),
        namespace: &name,
        inner: LINK,
        mac: SERVICE_MAC,
        mtu: segment.mtu,
    };
    let (inside, link) = work.plug(network, plug).await?;
    let own = [
        Address { address: SERVICE_ADDRESS.into(), prefix: 32 },
        Address { address: SERVICE_LINK_LOCAL.into(), prefix: 64 },
        Address { address: SERVICE_UNIQUE_LOCAL.into(), prefix: 64 },
    ];
    inside.ensure_addresses(&link, &own).await?;
    let on_link = |subnet: &nova_core::network::HostSubnet| {
        let source = matches!(subnet.cidr.base(), IpAddr::V4(_)).then_some(IpAddr::V4(SERVICE_ADDRESS));
        Route { destination: subnet.cidr, gateway: None, link: link.index, onlink: false, source }
    };
    let routes: Vec<Route> = segment.subnets.values().map(on_link).collect();
    inside.ensure_routes(link.index, &routes).await?;
    work.doors.ensure(&name, number, callers(segment)).await?;

    let (folder, names) = (work.folder(purpose), work.names_folder(network));
    let place = Place { folder: &folder, names: &names, link: link.index, for_all: work.for_all(network) };
    let Some((dhcp, dns)) = dnsmasq_files(network, segment, work.options, place) else {
        work.daemons.remove(&names).await?;
        return work.daemons.remove(&folder).await;
    };
    for (folder, files) in [(&folder, dhcp), (&names, dns)] {
        let lease_time = work.options.dhcp_lease_time;
        work.daemons.ensure(Daemon { folder, namespace: &name, number, lease_time, files: &files }).await?;
    }
    Ok(())
}
