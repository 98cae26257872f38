//! A router's namespace: its legs, its link to the host, its table, and who tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::PoisonError;

use nova_core::ids::{NetworkId, RouterId};
use nova_core::network::{Cidr, HostRouter, IpVersion, Outside, RouterLeg, SourceNat};

use super::super::dhcp::{Daemon, SERVICE_ADDRESS};
use super::super::doors::callers;
use super::super::links::{Address, LinkState, Links, Neighbour, Route, VethEnd, VethSpec, failed};
use super::super::names;
use super::super::namespace::{self, Purpose};
use super::super::services::{LEG, Plug, WAY_OUT, Work};
use super::{OUT, Pair, RouterRules, advertisements, assign, leg_name, pair_of, router_table};
use crate::network::PlumbingError;

/// The host's end of a link, for version 6.
const HOST_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The router's.
pub(in super::super) const ROUTER_6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// The largest packet on links to the host, unless a leg takes larger ones.
const ETHERNET: u32 = 1500;

/// The floating addresses that a router translates, and the number of its namespace.
pub type Floating = (u64, BTreeMap<Ipv4Addr, Ipv4Addr>);

/// The addresses of the links between the host and its routers.
pub(in super::super) async fn pairs(work: &Work<'_>) -> Result<BTreeMap<RouterId, Pair>, PlumbingError> {
    let wanted = work.wanted.routers.iter().filter(|(_, router)| router.outside.is_some());
    let wanted: BTreeSet<RouterId> = wanted.map(|(id, _)| *id).collect();
    let mut present = BTreeMap::new();
    for router in &wanted {
        if let Some(link) = work.host.get(&names::way_out(*router)).await? {
            let addresses = work.host.addresses(&link).await?;
            present.extend(addresses.iter().find_map(|a| pair_of(a.address)).map(|pair| (*router, pair)));
        }
    }
    Ok(assign(&wanted, &present))
}

/// Ranges on a router's legs that are reached from outside as they are: those of version 6, and all if nothing is
/// translated.
pub(in super::super) fn routed(router: &HostRouter) -> BTreeSet<Cidr> {
    let Some(outside) = &router.outside else { return BTreeSet::new() };
    let ranges = router.legs.iter().flat_map(|leg| leg.addresses.iter().map(|(_, range)| *range));
    let open = |range: &Cidr| range.version() == IpVersion::V6 || outside.source_nat == SourceNat::None;
    let local = |range: &Cidr| matches!(range.base(), IpAddr::V6(base) if base.is_unicast_link_local());
    ranges.filter(|range| open(range) && !local(range)).collect()
}

/// Runs a router.
pub(in super::super) async fn serve(
    work: &Work<'_>,
    id: RouterId,
    router: &HostRouter,
    pair: Option<Pair>,
) -> Result<(), PlumbingError> {
    let purpose = Purpose::Router(id);
    let name = work.namespaces.name(purpose);
    let number = namespace::ensure(&name).await?;
    namespace::set_sysctls(Some(&name), sysctls()).await?;
    // Before any packet can come.
    translate(work, id, &name, number, router, pair).await?;
    let inside = Links::in_namespace(&name).await?;
    ensure_own(&inside, router.outside.as_ref()).await?;
    remove_legs(&inside, router).await?;
    let mut legs = BTreeMap::new();
    for leg in &router.legs {
        legs.insert(leg.network, ensure_leg(work, id, &name, router, leg).await?.index);
    }
    if let Some(pair) = pair {
        ensure_way_out(work, id, &name, router, pair).await?;
    }
    let segments = router.legs.iter().filter_map(|leg| work.wanted.segments.get(&leg.network));
    work.doors.ensure(&name, number, segments.flat_map(callers).collect()).await?;
    advertise(work, id, &name, number, router, &legs).await
}

/// Link-local addresses are not looked for elsewhere: a router's MAC is its own, and for the seconds that this takes the
/// kernel would ask for no neighbour that a packet is to be passed on to.
fn sysctls() -> Vec<(String, &'static str)> {
    let four = ["all", "default"].into_iter().flat_map(|of| {
        [("send_redirects", "0"), ("rp_filter", "0"), ("arp_ignore", "1"), ("arp_announce", "2"), ("arp_notify", "1")]
            .map(|(name, value)| (format!("net/ipv4/conf/{of}/{name}"), value))
    });
    let six = ["all", "default"].into_iter().flat_map(|of| {
        [("forwarding", "1"), ("accept_ra", "0"), ("accept_dad", "0")]
            .map(|(name, value)| (format!("net/ipv6/conf/{of}/{name}"), value))
    });
    std::iter::once(("net/ipv4/ip_forward".to_owned(), "1")).chain(four).chain(six).collect()
}

/// The router's table; connections over a floating address that now stands for somebody else end.
async fn translate(
    work: &Work<'_>,
    id: RouterId,
    name: &str,
    number: u64,
    router: &HostRouter,
    pair: Option<Pair>,
) -> Result<(), PlumbingError> {
    let rules = rules_of(router, pair);
    let known = work.floating.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
    let before = match known.filter(|(of, _)| *of == number) {
        Some((_, floating)) => floating,
        None => floating_in_force(name).await?,
    };
    work.tables.ensure(Some(name), Some(number), &router_table(&rules)).await?;
    for (floating, fixed) in &before {
        if rules.floating.get(floating) != Some(fixed) {
            forget_connections(name, *floating).await?;
        }
    }
    let mut known = work.floating.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(id, (number, rules.floating));
    known.retain(|router, _| work.wanted.routers.contains_key(router));
    Ok(())
}

fn rules_of(router: &HostRouter, pair: Option<Pair>) -> RouterRules {
    let Some((outside, pair)) = router.outside.as_ref().zip(pair) else { return RouterRules::default() };
    let source = match outside.source_nat {
        SourceNat::None => None,
        SourceNat::Address(IpAddr::V4(address)) => Some(address),
        SourceNat::Address(IpAddr::V6(_)) | SourceNat::Host => Some(pair.router),
    };
    RouterRules {
        floating: RouterRules::floating_of(&outside.floating),
        coming: RouterRules::floating_of(&outside.coming),
        source,
        hairpin: source.or(Some(pair.router)),
        routed: routed(router),
    }
}

/// What the kernel translates: of a router that another process set up.
async fn floating_in_force(name: &str) -> Result<BTreeMap<Ipv4Addr, Ipv4Addr>, PlumbingError> {
    let arguments = ["-nn", "list", "map", "inet", "nova", "floating_in"];
    let output = namespace::run_quietly(Some(name), "nft", &arguments, None).await?;
    // Without the table nothing is translated.
    Ok(floating_listed(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads `elements = { 203.0.113.5 : 10.0.0.5, … }`.
fn floating_listed(text: &str) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
    let elements =
        text.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}')).map_or("", |(all, _)| all);
    let pair = |text: &str| {
        let (floating, fixed) = text.split_once(':')?;
        Some((floating.trim().parse().ok()?, fixed.trim().parse().ok()?))
    };
    elements.split(',').filter_map(pair).collect()
}

/// Connections from outside to that address, and those that went out under it.
async fn forget_connections(name: &str, floating: Ipv4Addr) -> Result<(), PlumbingError> {
    let floating = floating.to_string();
    for direction in ["--orig-dst", "--reply-dst"] {
        // It says that it failed when there is none.
        namespace::run_quietly(Some(name), "conntrack", &["-D", "-f", "ipv4", direction, &floating], None).await?;
    }
    Ok(())
}

/// Addresses that are the router's own: where metadata is asked for, and its outer one, so that what is sent there and is
/// no answer ends here.
async fn ensure_own(inside: &Links, outside: Option<&Outside>) -> Result<(), PlumbingError> {
    let Some(loopback) = inside.get("lo").await? else { return Ok(()) };
    let mut wanted = vec![Address { address: SERVICE_ADDRESS.into(), prefix: 32 }];
    if let Some(SourceNat::Address(address @ IpAddr::V4(_))) = outside.map(|outside| outside.source_nat) {
        wanted.push(Address { address, prefix: 32 });
    }
    let present = inside.addresses(&loopback).await?;
    for address in present.iter().filter(|a| !a.address.is_loopback() && !wanted.contains(a)) {
        inside.remove_address(&loopback, *address).await?;
    }
    for address in wanted.iter().filter(|address| !present.contains(address)) {
        inside.add_address(&loopback, *address).await?;
    }
    inside.set_up(&loopback).await
}

async fn remove_legs(inside: &Links, router: &HostRouter) -> Result<(), PlumbingError> {
    let wanted: BTreeSet<String> = router.legs.iter().map(|leg| leg_name(leg.network)).collect();
    for link in inside.list().await? {
        let stale = link.name.starts_with("leg") && !wanted.contains(&link.name);
        if stale || (link.name == OUT && router.outside.is_none()) {
            inside.delete(&link).await?;
        }
    }
    Ok(())
}

async fn ensure_leg(
    work: &Work<'_>,
    id: RouterId,
    name: &str,
    router: &HostRouter,
    leg: &RouterLeg,
) -> Result<LinkState, PlumbingError> {
    let segment = work.wanted.segments.get(&leg.network);
    let segment =
        segment.ok_or_else(|| PlumbingError::Unsupported(format!("its network {} is not here", leg.network)))?;
    let plug = Plug {
        end: names::leg_end(id, leg.network),
        alias: names::alias(LEG, &format!("{id}:{}", leg.network)),
        namespace: name,
        inner: &leg_name(leg.network),
        mac: leg.mac,
        mtu: segment.mtu,
    };
    let (inside, link) = work.plug(leg.network, plug).await?;
    // Neighbours first: nobody is to be asked for who is known already.
    let neighbours = if leg.distributed { neighbours(segment, leg) } else { Vec::new() };
    inside.ensure_neighbours(&link, &neighbours).await?;
    let addresses: Vec<Address> =
        leg.addresses.iter().map(|(address, range)| Address { address: *address, prefix: range.prefix() }).collect();
    inside.ensure_addresses(&link, &addresses).await?;
    // The kernel's own route to a range is gone for good once somebody has removed it.
    let mut routes: Vec<Route> = leg
        .addresses
        .iter()
        .map(|(address, range)| Route {
            destination: *range,
            gateway: None,
            link: link.index,
            onlink: false,
            source: Some(*address).filter(IpAddr::is_ipv4),
        })
        .collect();
    routes.extend(static_routes(router, leg, link.index));
    inside.ensure_routes(link.index, &routes).await?;
    Ok(link)
}

/// Guests of other hosts: asking for them would be asking over the tunnel, where this gateway's address is another's, too.
fn neighbours(segment: &nova_core::network::Segment, leg: &RouterLeg) -> Vec<Neighbour> {
    let on_leg = |address: &IpAddr| leg.addresses.iter().any(|(_, range)| range.contains(*address));
    let each = segment.elsewhere.iter().flat_map(|port| {
        port.addresses.iter().copied().filter(on_leg).map(|address| Neighbour { address, mac: port.mac })
    });
    // A leg elsewhere with the address that this one has is this router.
    each.filter(|neighbour| !leg.addresses.iter().any(|(own, _)| *own == neighbour.address)).collect()
}

/// The routes whose next hop is on that leg.
fn static_routes(router: &HostRouter, leg: &RouterLeg, link: u32) -> Vec<Route> {
    let here = |hop: IpAddr| leg.addresses.iter().any(|(_, range)| range.contains(hop));
    let route = |route: &nova_core::network::HostRoute| Route {
        destination: route.destination,
        gateway: Some(route.nexthop),
        link,
        onlink: false,
        source: None,
    };
    router.routes.iter().filter(|route| here(route.nexthop)).map(route).collect()
}

/// The link to the host, and the default route over it.
async fn ensure_way_out(
    work: &Work<'_>,
    id: RouterId,
    name: &str,
    router: &HostRouter,
    pair: Pair,
) -> Result<(), PlumbingError> {
    let mtus = router.legs.iter().filter_map(|leg| work.wanted.segments.get(&leg.network)).map(|segment| segment.mtu);
    let spec = VethSpec {
        here: VethEnd { name: &names::way_out(id), mac: None },
        peer: VethEnd { name: OUT, mac: None },
        peer_namespace: Some(name),
        mtu: mtus.chain([ETHERNET]).max().unwrap_or(ETHERNET),
        alias: &names::alias(WAY_OUT, &id.to_string()),
    };
    let end = work.host.ensure_veth(&spec).await?;
    let inside = Links::in_namespace(name).await?;
    let out =
        inside.get(OUT).await?.ok_or_else(|| failed("plug in a router's way out", "it is not there afterwards"))?;
    let (six, all_4, all_6) = (!routed(router).is_empty(), "0.0.0.0/0".parse(), "::/0".parse());
    let (mut here, mut there, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    let default = |to: Cidr, gateway: IpAddr| Route {
        destination: to,
        gateway: Some(gateway),
        link: out.index,
        onlink: false,
        source: None,
    };
    here.push(Address { address: pair.host.into(), prefix: 31 });
    there.push(Address { address: pair.router.into(), prefix: 31 });
    let host = Cidr::around(pair.host.into(), 32);
    routes.extend(host.map(|host| Route { gateway: None, ..default(host, pair.host.into()) }));
    routes.extend(all_4.ok().map(|to| default(to, pair.host.into())));
    if six {
        here.push(Address { address: HOST_6.into(), prefix: 64 });
        there.push(Address { address: ROUTER_6.into(), prefix: 64 });
        routes.extend(all_6.ok().map(|to| default(to, HOST_6.into())));
    }
    work.host.ensure_addresses(&end, &here).await?;
    inside.ensure_addresses(&out, &there).await?;
    inside.ensure_routes(out.index, &routes).await
}

async fn advertise(
    work: &Work<'_>,
    id: RouterId,
    name: &str,
    number: u64,
    router: &HostRouter,
    legs: &BTreeMap<NetworkId, u32>,
) -> Result<(), PlumbingError> {
    let folder = work.folder(Purpose::Router(id));
    let lease_time = work.options.dhcp_lease_time;
    match advertisements(router, &work.wanted.segments, legs, &folder) {
        Some(files) => {
            work.daemons.ensure(Daemon { folder: &folder, namespace: name, number, lease_time, files: &files }).await
        }
        None => work.daemons.remove(&folder).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_of_the_kernel_is_read() {
        let text = "table inet nova {\n\tmap floating_in {\n\t\ttype ipv4_addr : ipv4_addr\n\t\telements = { \
                    203.0.113.5 : 10.0.0.5,\n\t\t\t     203.0.113.6 : 10.0.0.6 }\n\t}\n}\n";
        let read = floating_listed(text);
        assert_eq!(read.len(), 2);
        assert_eq!(read[&Ipv4Addr::new(203, 0, 113, 6)], Ipv4Addr::new(10, 0, 0, 6));
        assert!(floating_listed("").is_empty());
    }
}
