//! The host's side of its routers: routes to what they announce, answers for it on the public interface, its table; and
//! what of the services on bridges stays here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use nova_core::ids::RouterId;
use nova_core::network::{Cidr, HostRouter, IpVersion, SourceNat, tap_name};
use serde::{Deserialize, Serialize};

use super::super::links::{LinkState, Route, failed, run_in_namespace};
use super::super::names;
use super::super::namespace;
use super::super::router::{Pair, ROUTER_6, routed};
use super::super::services::Work;
use super::{BridgeRules, HostRules, announcement, bridge_table, host_table};
use crate::network::PlumbingError;

/// No interface has this name.
const NOWHERE: &str = "nova-nowhere";

/// What this host answers for on which interface, kept in a file: what the operator answers for stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Announced {
    interface: String,
    addresses: BTreeSet<Ipv4Addr>,
}

/// What one router is reached by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reach {
    announced: BTreeSet<Ipv4Addr>,
    routed: BTreeSet<Cidr>,
}

/// Makes routers reach the world, and the world them. Answers with what can't be.
pub(in super::super) async fn reach(
    work: &Work<'_>,
    pairs: &BTreeMap<RouterId, Pair>,
) -> Result<Vec<String>, PlumbingError> {
    let outside: BTreeMap<RouterId, &HostRouter> = work
        .wanted
        .routers
        .iter()
        .filter(|(id, router)| router.outside.is_some() && pairs.contains_key(id))
        .map(|(id, router)| (*id, router))
        .collect();
    let (reaches, mut problems) = reaches(&outside);
    let public = if outside.is_empty() { None } else { public_interface(work).await? };
    let address = match &public {
        Some(link) => work.host.addresses(link).await?.iter().find_map(|a| match a.address {
            IpAddr::V4(address) if !address.is_link_local() => Some(address),
            _ => None,
        }),
        None => None,
    };
    let announced: BTreeSet<Ipv4Addr> = reaches.values().flat_map(|reach| reach.announced.iter().copied()).collect();
    let all_routed: BTreeSet<Cidr> = reaches.values().flat_map(|reach| reach.routed.iter().copied()).collect();
    if outside.is_empty() {
        work.tables.remove(work.space(), "inet", "nova_nat").await?;
        unannounce(work, &Announced::default()).await?;
        return Ok(problems);
    }
    if public.is_none() {
        let name = work.options.public_interface.as_deref().unwrap_or("default route");
        problems.push(format!("the way out: there is no public interface ({name})"));
    }
    let rules = HostRules {
        public: public.as_ref().map_or(NOWHERE, |link| &link.name).to_owned(),
        address,
        announced: announced.clone(),
        routed: all_routed.clone(),
    };
    // The rules come before the way.
    work.tables.ensure(work.space(), None, &host_table(&rules)).await?;
    let six = all_routed.iter().any(|range| range.version() == IpVersion::V6);
    forward(work, public.as_ref(), six).await?;
    for (router, reach) in &reaches {
        let Some(pair) = pairs.get(router) else { continue };
        if let Some(link) = work.host.get(&names::way_out(*router)).await? {
            work.host.ensure_routes(link.index, &routes(reach, *pair, link.index, address)).await?;
        }
    }
    if let Some(public) = &public {
        announce(work, public, announced).await?;
    }
    Ok(problems)
}

/// What each router is reached by. What two of them want goes to the one with the lower id.
fn reaches(routers: &BTreeMap<RouterId, &HostRouter>) -> (BTreeMap<RouterId, Reach>, Vec<String>) {
    let (mut all, mut problems) = (BTreeMap::new(), Vec::new());
    let mut taken: Vec<Cidr> = Vec::new();
    for (id, router) in routers {
        let Some(outside) = &router.outside else { continue };
        let own = match outside.source_nat {
            SourceNat::Address(address) => Some(address),
            SourceNat::None | SourceNat::Host => None,
        };
        let mut reach = Reach::default();
        for address in outside.floating.keys().copied().chain(own) {
            // Version 6 is routed.
            let IpAddr::V4(four) = address else { continue };
            let Some(range) = Cidr::around(address, 32) else { continue };
            if taken.contains(&range) {
                problems.push(format!("router {id}: {four} is another router's, too"));
            } else {
                taken.push(range);
                reach.announced.insert(four);
            }
        }
        for range in routed(router) {
            if taken.iter().any(|other| other.overlaps(&range)) {
                problems.push(format!("router {id}: {range} is behind another router, too, and can't be reached here"));
            } else {
                taken.push(range);
                reach.routed.insert(range);
            }
        }
        all.insert(*id, reach);
    }
    (all, problems)
}

fn routes(reach: &Reach, pair: Pair, link: u32, address: Option<Ipv4Addr>) -> Vec<Route> {
    let singles = reach.announced.iter().filter_map(|address| Cidr::around((*address).into(), 32));
    let to = |destination: Cidr| match destination.version() {
        IpVersion::V4 => Route {
            destination,
            gateway: Some(pair.router.into()),
            link,
            onlink: false,
            // So guests see the host by an address that they can answer.
            source: address.map(IpAddr::V4),
        },
        IpVersion::V6 => Route { destination, gateway: Some(ROUTER_6.into()), link, onlink: false, source: None },
    };
    // The way to the router itself first: the others go over it.
    let neighbour = Cidr::around(pair.router.into(), 32);
    let neighbour =
        neighbour.map(|destination| Route { destination, gateway: None, link, onlink: false, source: None });
    neighbour.into_iter().chain(singles.chain(reach.routed.iter().copied()).map(to)).collect()
}

/// The interface that leads to the world: the configured one, or that of the default route.
async fn public_interface(work: &Work<'_>) -> Result<Option<LinkState>, PlumbingError> {
    if let Some(name) = &work.options.public_interface {
        return work.host.get(name).await;
    }
    let routes = work.host.routes().await?;
    let default = |route: &&Route| route.destination.prefix() == 0 && route.destination.version() == IpVersion::V4;
    let Some(link) = routes.iter().find(default).map(|route| route.link) else { return Ok(None) };
    Ok(work.host.list().await?.into_iter().find(|found| found.index == link))
}

async fn forward(work: &Work<'_>, public: Option<&LinkState>, six: bool) -> Result<(), PlumbingError> {
    let mut settings = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    if let Some(public) = public {
        settings.push((format!("net/ipv4/neigh/{}/proxy_delay", public.name), "0"));
    }
    if six {
        if let Some(public) = public {
            // A host that forwards heeds no advertisements otherwise, and may have its own default route by them.
            settings.push((format!("net/ipv6/conf/{}/accept_ra", public.name), "2"));
        }
        settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    namespace::set_sysctls(work.space(), settings).await
}

fn announced_file(work: &Work<'_>) -> PathBuf {
    work.options.state.join("announced")
}

fn announced_before(work: &Work<'_>) -> Announced {
    let bytes = std::fs::read(announced_file(work)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn write_announced(work: &Work<'_>, announced: &Announced) -> Result<(), PlumbingError> {
    let doing = "write what this host announces";
    let text = serde_json::to_string(announced).map_err(|e| failed(doing, e))?;
    std::fs::create_dir_all(&work.options.state).map_err(|e| failed(doing, e))?;
    let path = announced_file(work);
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path)).map_err(|e| failed(doing, e))
}

/// Answers for these addresses on the public interface and no others of ours; tells about those that are new.
async fn announce(work: &Work<'_>, public: &LinkState, addresses: BTreeSet<Ipv4Addr>) -> Result<(), PlumbingError> {
    let wanted = Announced { interface: public.name.clone(), addresses };
    unannounce(work, &wanted).await?;
    let present = work.host.proxies(public).await?;
    let missing = wanted.addresses.iter().copied().filter(|address| !present.contains(&IpAddr::V4(*address)));
    let missing: Vec<Ipv4Addr> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    for address in &missing {
        work.host.add_proxy(public, (*address).into()).await?;
    }
    let (link, mac) = (public.index, public.mac);
    if let Some(mac) = mac {
        let told = run_in_namespace(work.space(), move || announcement(link, mac, &missing)).await?;
        told.map_err(|e| failed(format!("announce addresses on {}", public.name), e))?;
    }
    Ok(())
}

/// Answers no longer for what was announced before and is not wanted now, and remembers what is.
async fn unannounce(work: &Work<'_>, wanted: &Announced) -> Result<(), PlumbingError> {
    let before = announced_before(work);
    if before == *wanted {
        return Ok(());
    }
    if let Some(link) = work.host.get(&before.interface).await? {
        let stays = |address: &&Ipv4Addr| before.interface == wanted.interface && wanted.addresses.contains(*address);
        for address in before.addresses.iter().filter(|address| !stays(address)) {
            work.host.remove_proxy(&link, (*address).into()).await?;
        }
    }
    write_announced(work, wanted)
}

/// Has what services and distributed legs say stay on this host.
pub(in super::super) async fn keep_local(work: &Work<'_>) -> Result<(), PlumbingError> {
    let rules = bridge_rules(work);
    if rules == BridgeRules::default() {
        return work.tables.remove(work.space(), "bridge", "nova_services").await;
    }
    work.tables.ensure(work.space(), None, &bridge_table(&rules)).await
}

fn bridge_rules(work: &Work<'_>) -> BridgeRules {
    let mut rules = BridgeRules::default();
    for (network, segment) in &work.wanted.segments {
        let told = segment.subnets.values().any(|subnet| subnet.dhcp);
        for (id, port) in &segment.ports {
            let tap = tap_name(*id);
            if segment.serves {
                rules.served.insert(tap.clone());
            }
            if segment.serves && told {
                rules.told.insert(tap.clone());
            }
            if port.instance.is_some() {
                let four = port.addresses.iter().filter_map(|(_, address)| match address {
                    IpAddr::V4(address) => Some((tap.clone(), *address)),
                    IpAddr::V6(_) => None,
                });
                rules.callers.extend(four);
            }
            rules.ports.insert(tap);
        }
        if segment.serves && !work.for_all(*network) {
            rules.services.insert(names::service_end(*network));
        }
    }
    for (id, router) in &work.wanted.routers {
        let shared = router.legs.iter().filter(|leg| leg.distributed);
        rules.legs.extend(shared.map(|leg| names::leg_end(*id, leg.network)));
    }
    rules
}
