//! The host's side of its routers: routes to what they announce, answers for it on the public interface, and its table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use nova_core::error::chain;
use nova_core::ids::RouterId;
use nova_core::network::{Cidr, HostRouter, IpVersion, SourceNat};
use serde::{Deserialize, Serialize};

use super::super::links::{LinkState, Route, failed, run_in_namespace};
use super::super::names;
use super::super::namespace;
use super::super::router::{Pair, ROUTER_6, pair_of, routed};
use super::super::services::Work;
use super::{Forwarding, HostRules, Sources, announcement, host_table, six};
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
    let ground = Ground { allowed: &work.options.routed_ranges, own: host_ranges(work, outside.is_empty()).await? };
    let (reaches, mut problems) = reaches(&outside, &ground);
    let public = if outside.is_empty() { None } else { public_interface(work).await? };
    let address = match &public {
        Some(link) => work.host.addresses(link).await?.iter().find_map(|a| match a.address {
            IpAddr::V4(address) if !address.is_link_local() => Some(address),
            _ => None,
        }),
        None => None,
    };
    let announced: BTreeSet<Ipv4Addr> = reaches.values().flat_map(|reach| reach.announced.iter().copied()).collect();
    if outside.is_empty() {
        // What is passed on stays guarded until nothing is.
        six::apply(work, six::plan(work, false).await?, None, &[]).await?;
        work.tables.remove(work.space(), "inet", "nova_nat").await?;
        unannounce(work, &Announced::default()).await?;
        return Ok(problems);
    }
    if public.is_none() {
        let name = work.options.public_interface.as_deref().unwrap_or("default route");
        problems.push(format!("the way out: there is no public interface ({name})"));
    }
    let mut all_routed = reaches.values().flat_map(|reach| &reach.routed);
    let wants_six = all_routed.any(|range| range.version() == IpVersion::V6);
    let six = six::plan(work, wants_six).await?;
    let rules = HostRules {
        public: public.as_ref().map_or(NOWHERE, |link| &link.name).to_owned(),
        address,
        vxlan_port: work.options.vxlan_port,
        only_routers: !forwards_all(work).await?,
        six: six.forwarding,
        bridges: if six.forwarding == Forwarding::ByRules { six::bridges(work).await? } else { Vec::new() },
        links: reaches
            .iter()
            .filter_map(|(router, reach)| Some((names::way_out(*router), sources(reach, *pairs.get(router)?))))
            .collect(),
    };
    // The rules come before the way.
    work.tables.ensure(work.space(), None, &host_table(&rules)).await?;
    forward(work, public.as_ref()).await?;
    let ways_out: Vec<String> = reaches.keys().map(|router| names::way_out(*router)).collect();
    six::apply(work, six, public.as_ref(), &ways_out).await?;
    for (router, reach) in &reaches {
        let Some(pair) = pairs.get(router) else { continue };
        if let Some(link) = work.host.get(&names::way_out(*router)).await? {
            let routes = routes(reach, *pair, link.index, address);
            forward_from(work, &link.name).await?;
            if let Err(e) = work.host.ensure_routes(link.index, &routes).await {
                problems.push(format!("router {router}: {}", chain(&e)));
            }
        }
    }
    if let Some(public) = &public {
        announce(work, public, announced).await?;
    }
    Ok(problems)
}

fn sources(reach: &Reach, pair: Pair) -> Sources {
    Sources { own: Some(pair.router), announced: reach.announced.clone(), routed: reach.routed.clone() }
}

/// What projects may not take away from the host.
#[derive(Debug)]
struct Ground<'a> {
    /// Ranges of projects may become routes of the host in these.
    allowed: &'a [Cidr],
    /// The host's own addresses, with the ranges that they are in.
    own: Vec<(IpAddr, Cidr)>,
}

impl Ground<'_> {
    /// Is that within what is allowed? A project chooses its ranges itself.
    fn allows(&self, range: &Cidr) -> bool {
        self.allowed.iter().any(|allowed| allowed.overlaps(range) && allowed.prefix() <= range.prefix())
    }
}

/// The addresses of the host but for those of its links to routers; there may be nothing to compare with them.
async fn host_ranges(work: &Work<'_>, nothing: bool) -> Result<Vec<(IpAddr, Cidr)>, PlumbingError> {
    if nothing {
        return Ok(Vec::new());
    }
    let all = work.host.all_addresses().await?;
    let own = all.into_iter().filter(|a| pair_of(a.address).is_none());
    Ok(own.filter_map(|a| Some((a.address, Cidr::around(a.address, a.prefix)?))).collect())
}

/// What each router is reached by. What two of them want goes to the one with the lower id; what the host has itself, and
/// what the operator does not want routed, to none. Ranges that are not allowed are no problem: projects may have any.
fn reaches(routers: &BTreeMap<RouterId, &HostRouter>, ground: &Ground<'_>) -> (BTreeMap<RouterId, Reach>, Vec<String>) {
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
            if !outside.subnets.iter().any(|(subnet, _)| subnet.contains(address)) {
                problems.push(format!("router {id}: {four} is not of the outer network"));
            } else if ground.own.iter().any(|(own, _)| *own == address) {
                problems.push(format!("router {id}: {four} is the host's own"));
            } else if taken.contains(&range) {
                problems.push(format!("router {id}: {four} is another router's, too"));
            } else {
                taken.push(range);
                reach.announced.insert(four);
            }
        }
        for range in routed(router).into_iter().filter(|range| ground.allows(range)) {
            if ground.own.iter().any(|(_, own)| own.overlaps(&range)) {
                problems.push(format!("router {id}: {range} overlaps the host's own, and can't be reached here"));
            } else if taken.iter().any(|other| other.overlaps(&range)) {
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

/// Is the host a router, whatever comes from where? That is the operator's to say.
async fn forwards_all(work: &Work<'_>) -> Result<bool, PlumbingError> {
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    let text = run_in_namespace(work.space(), read).await?;
    Ok(text.map_err(|e| failed("look whether the host forwards", e))?.trim() == "1")
}

/// Has packets pass between the world and a router, and between no other interfaces of the host.
async fn forward_from(work: &Work<'_>, link: &str) -> Result<(), PlumbingError> {
    namespace::set_sysctls(work.space(), vec![(format!("net/ipv4/conf/{link}/forwarding"), "1")]).await
}

async fn forward(work: &Work<'_>, public: Option<&LinkState>) -> Result<(), PlumbingError> {
    let mut settings = Vec::new();
    if let Some(public) = public {
        settings.push((format!("net/ipv4/conf/{}/forwarding", public.name), "1"));
        settings.push((format!("net/ipv4/neigh/{}/proxy_delay", public.name), "0"));
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
        let missing: Vec<IpAddr> = missing.into_iter().map(IpAddr::V4).collect();
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

#[cfg(test)]
mod tests {
    use nova_core::network::{Outside, RouterLeg};

    use super::*;

    fn router(ranges: &[&str], floating: &[&str]) -> HostRouter {
        let leg = |range: &&str| {
            let range: Cidr = range.parse().unwrap();
            let mac = "fa:16:3e:00:00:01".parse().unwrap();
            let network = "00000001-0000-4000-8000-000000000002".parse().unwrap();
            RouterLeg { network, mac, addresses: vec![(range.base(), range)], distributed: true }
        };
        let outside = Outside {
            subnets: vec![("203.0.113.0/24".parse().unwrap(), None)],
            source_nat: SourceNat::None,
            floating: floating.iter().map(|address| (address.parse().unwrap(), "10.9.9.9".parse().unwrap())).collect(),
            coming: BTreeMap::new(),
        };
        HostRouter { legs: ranges.iter().map(leg).collect(), routes: Vec::new(), outside: Some(outside) }
    }

    #[test]
    fn projects_take_nothing_of_the_hosts() {
        let allowed = ["10.0.0.0/8", "2001:db8::/32"].map(|range| range.parse().unwrap());
        let own = |text: &str, range: &str| (text.parse().unwrap(), range.parse().unwrap());
        let ground = Ground {
            allowed: &allowed,
            own: vec![own("203.0.113.11", "203.0.113.0/24"), own("10.1.0.11", "10.1.0.0/24")],
        };
        let id: RouterId = "00000001-0000-4000-8000-000000000003".parse().unwrap();
        let ranges = ["10.1.0.128/25", "10.2.0.0/24", "192.168.0.0/24", "10.0.0.0/7", "2001:db8:1::/64", "::/0"];
        let wanted = router(&ranges, &["203.0.113.11", "203.0.113.12", "198.51.100.1"]);
        let (reaches, problems) = super::reaches(&[(id, &wanted)].into(), &ground);
        let reach = &reaches[&id];
        let routed: Vec<String> = reach.routed.iter().map(ToString::to_string).collect();
        assert_eq!(routed, ["10.2.0.0/24", "2001:db8:1::/64"]);
        assert_eq!(reach.announced, [Ipv4Addr::new(203, 0, 113, 12)].into());
        assert_eq!(problems.len(), 3, "{problems:#?}");
        let none = Ground { allowed: &[], own: Vec::new() };
        let (reaches, problems) = super::reaches(&[(id, &router(&ranges, &[]))].into(), &none);
        assert_eq!((reaches[&id].routed.len(), problems), (0, Vec::new()));
    }
}
