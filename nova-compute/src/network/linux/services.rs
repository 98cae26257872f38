//! What this host does for the guests on its bridges: addresses, names and metadata, routers, and the way to the world.
//!
//! [`Services::converge`] goes over all of it, one network and one router after the other; what fails is told and the rest
//! is done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use nova_core::error::chain;
use nova_core::ids::{NetworkId, RouterId};
use nova_core::network::{HostNetwork, MacAddress};

use super::dhcp::{self, Daemons};
use super::doors::Doors;
use super::links::{LinkKind, LinkState, Links, VethEnd, VethSpec, failed, run_in_namespace};
use super::names;
use super::namespace::{self, Namespaces, Purpose};
use super::nat::{self, Tables, announcement};
use super::router::{self, Floating, leg_name};
use crate::network::{MetadataDoor, PlumbingError, PlumbingOptions};

/// The services of one host.
#[derive(Debug)]
pub struct Services {
    options: PlumbingOptions,
    namespaces: Namespaces,
    tables: Tables,
    doors: Doors,
    floating: Mutex<BTreeMap<RouterId, Floating>>,
    turn: tokio::sync::Mutex<()>,
}

/// What is at hand while it converges.
pub(super) struct Work<'a> {
    pub options: &'a PlumbingOptions,
    pub namespaces: &'a Namespaces,
    pub tables: &'a Tables,
    pub doors: &'a Doors,
    pub floating: &'a Mutex<BTreeMap<RouterId, Floating>>,
    pub wanted: &'a HostNetwork,
    /// Bridges of the networks that have one.
    pub bridges: &'a BTreeMap<NetworkId, String>,
    /// The host's links.
    pub host: Links,
    pub daemons: Daemons,
}

impl Services {
    /// Those of the host with these settings.
    pub fn new(options: PlumbingOptions) -> Self {
        Self {
            namespaces: Namespaces::of(&options),
            options,
            tables: Tables::default(),
            doors: Doors::default(),
            floating: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Makes them what they are to be, on the bridges of these networks. Answers with what could not be made so, a line
    /// each.
    pub async fn converge(&self, wanted: &HostNetwork, bridges: &BTreeMap<NetworkId, String>) -> Vec<String> {
        let _turn = self.turn.lock().await;
        let mut problems = Vec::new();
        let work = match self.work(wanted, bridges).await {
            Ok(work) => work,
            Err(e) => return vec![told("services", &e)],
        };
        note(&mut problems, "what is left of before", work.sweep().await);
        for (network, segment) in wanted.segments.iter().filter(|(_, segment)| segment.serves) {
            note(&mut problems, &format!("network {network}"), dhcp::serve(&work, *network, segment).await);
        }
        match router::pairs(&work).await {
            Ok(pairs) => {
                for (id, router) in &wanted.routers {
                    let pair = pairs.get(id).copied();
                    note(&mut problems, &format!("router {id}"), router::serve(&work, *id, router, pair).await);
                }
                problems.extend(nat::reach(&work, &pairs).await.unwrap_or_else(|e| vec![told("the way out", &e)]));
            }
            Err(e) => problems.push(told("routers", &e)),
        }
        problems
    }

    /// Keeps from the host itself what guests could send it. Comes before their bridges and tunnels.
    pub async fn guard(&self, wanted: &HostNetwork) -> Result<(), PlumbingError> {
        let _turn = self.turn.lock().await;
        let space = self.options.namespace.as_deref();
        match nat::guard_table(wanted, self.options.vxlan_port) {
            Some(table) => self.tables.ensure(space, None, &table).await,
            None => self.tables.remove(space, "inet", "nova_host").await,
        }
    }

    /// How many transactions it made in the host's ruleset since it was asked last.
    pub fn transactions(&self) -> u32 {
        self.tables.transactions()
    }

    /// Copies of the sockets where metadata is asked for.
    pub fn doors(&self) -> Vec<MetadataDoor> {
        self.doors.copies()
    }

    /// Each router that every host is tells the guests of these networks which MAC address it has here.
    pub(super) async fn announce_gateways(
        &self,
        wanted: &HostNetwork,
        networks: &BTreeSet<NetworkId>,
    ) -> Result<(), PlumbingError> {
        for (id, router) in &wanted.routers {
            let name = self.namespaces.name(Purpose::Router(*id));
            for leg in router.legs.iter().filter(|leg| leg.distributed && networks.contains(&leg.network)) {
                let inside = Links::in_namespace(&name).await?;
                let Some(link) = inside.get(&leg_name(leg.network)).await? else { continue };
                let (index, mac) = (link.index, leg.mac);
                let addresses: Vec<IpAddr> = leg.addresses.iter().map(|(address, _)| *address).collect();
                let told = run_in_namespace(Some(&name), move || announcement(index, mac, &addresses)).await?;
                told.map_err(|e| failed(format!("announce the gateway of network {}", leg.network), e))?;
            }
        }
        Ok(())
    }

    async fn work<'a>(
        &'a self,
        wanted: &'a HostNetwork,
        bridges: &'a BTreeMap<NetworkId, String>,
    ) -> Result<Work<'a>, PlumbingError> {
        Ok(Work {
            options: &self.options,
            namespaces: &self.namespaces,
            tables: &self.tables,
            doors: &self.doors,
            floating: &self.floating,
            wanted,
            bridges,
            host: Links::open(self.options.namespace.as_deref()).await?,
            daemons: Daemons::look(&self.options.dnsmasq).await?,
        })
    }
}

/// One end of a pair in a bridge, the other in a namespace.
pub(super) struct Plug<'a> {
    /// The bridge's end.
    pub end: String,
    /// What it is for.
    pub alias: String,
    /// The namespace.
    pub namespace: &'a str,
    /// The end there.
    pub inner: &'a str,
    /// Its MAC address.
    pub mac: MacAddress,
    /// The largest packet.
    pub mtu: u32,
}

impl Work<'_> {
    /// The host's own namespace.
    pub fn space(&self) -> Option<&str> {
        self.options.namespace.as_deref()
    }

    /// Where the dnsmasq for that has its files.
    pub fn folder(&self, purpose: Purpose) -> PathBuf {
        let name = match purpose {
            Purpose::Service(network) => format!("net-{network}"),
            Purpose::Router(router) => format!("rtr-{router}"),
        };
        self.options.dnsmasq.join(name)
    }

    /// Where the name server of a network has them.
    pub fn names_folder(&self, network: NetworkId) -> PathBuf {
        self.options.dnsmasq.join(format!("dns-{network}"))
    }

    /// What is to be here: served networks and routers.
    pub fn purposes(&self) -> BTreeSet<Purpose> {
        let served = self.wanted.segments.iter().filter(|(_, segment)| segment.serves);
        let served = served.map(|(network, _)| Purpose::Service(*network));
        served.chain(self.wanted.routers.keys().map(|router| Purpose::Router(*router))).collect()
    }

    /// Guests of other hosts may look for everything here: nothing says that their hosts are gateways, too. Where those
    /// serve their own guests, nobody asks.
    pub fn for_all(&self, network: NetworkId) -> bool {
        let mut legs = self.wanted.routers.values().flat_map(|router| &router.legs);
        !legs.any(|leg| leg.network == network && leg.distributed)
    }

    /// Joins a network's bridge with a namespace. Answers with the end there.
    pub async fn plug(&self, network: NetworkId, plug: Plug<'_>) -> Result<(Links, LinkState), PlumbingError> {
        let bridge = self.bridges.get(&network);
        let bridge = bridge.ok_or_else(|| PlumbingError::Unsupported(format!("network {network} has no bridge")))?;
        let bridge =
            self.host.get(bridge).await?.ok_or_else(|| failed(format!("use bridge {bridge}"), "it is gone"))?;
        let spec = VethSpec {
            here: VethEnd { name: &plug.end, mac: None },
            peer: VethEnd { name: plug.inner, mac: Some(plug.mac) },
            peer_namespace: Some(plug.namespace),
            mtu: plug.mtu,
            alias: &plug.alias,
        };
        let end = self.host.ensure_veth(&spec).await?;
        self.host.set_master(&end, Some(bridge.index)).await?;
        // The host itself has nothing to say on a guests' network.
        let quiet = vec![(format!("net/ipv6/conf/{}/disable_ipv6", plug.end), "1")];
        namespace::set_sysctls(self.space(), quiet).await?;
        let inside = Links::in_namespace(plug.namespace).await?;
        let link = inside.get(plug.inner).await?;
        let link = link.ok_or_else(|| failed(format!("plug in {}", plug.inner), "it is not there afterwards"))?;
        Ok((inside, link))
    }

    /// Removes what is no longer wanted: processes, sockets, links, namespaces, files.
    async fn sweep(&self) -> Result<(), PlumbingError> {
        let wanted = self.purposes();
        let names: BTreeSet<String> = wanted.iter().map(|purpose| self.namespaces.name(*purpose)).collect();
        self.doors.keep(|namespace| names.contains(namespace));
        let mut folders: BTreeSet<PathBuf> = wanted.iter().map(|purpose| self.folder(*purpose)).collect();
        folders.extend(wanted.iter().filter_map(|purpose| match purpose {
            Purpose::Service(network) => Some(self.names_folder(*network)),
            Purpose::Router(_) => None,
        }));
        for folder in self.daemons.folders().iter().filter(|folder| !folders.contains(*folder)) {
            self.daemons.remove(folder).await?;
        }
        let ends = self.ends();
        for link in self.host.list().await? {
            if is_end(&link) && !ends.contains(&link.name) {
                self.host.delete(&link).await?;
            }
        }
        for purpose in self.namespaces.list().into_iter().filter(|purpose| !wanted.contains(purpose)) {
            namespace::remove(&self.namespaces.name(purpose)).await?;
        }
        let numbers: Vec<u64> = names.iter().filter_map(|name| namespace::number(name)).collect();
        self.tables.keep(&numbers);
        Ok(())
    }

    /// The host's ends of all pairs that are to be.
    fn ends(&self) -> BTreeSet<String> {
        let mut ends = BTreeSet::new();
        for purpose in self.purposes() {
            match purpose {
                Purpose::Service(network) => {
                    ends.insert(names::service_end(network));
                }
                Purpose::Router(router) => {
                    let Some(wanted) = self.wanted.routers.get(&router) else { continue };
                    ends.extend(wanted.legs.iter().map(|leg| names::leg_end(router, leg.network)));
                    if wanted.outside.is_some() {
                        ends.insert(names::way_out(router));
                    }
                }
            }
        }
        ends
    }
}

/// The kinds of ends, in the text on a link.
pub(super) const SERVICE: &str = "service";
/// A router's leg.
pub(super) const LEG: &str = "leg";
/// A router's way out.
pub(super) const WAY_OUT: &str = "router";

/// It was made here.
fn is_end(link: &LinkState) -> bool {
    let text = link.alias.as_deref().and_then(|alias| alias.strip_prefix(names::ALIAS)).unwrap_or_default();
    let kind = text.split(':').next().unwrap_or_default();
    // One that lost its text while it was made has its name.
    let nameless = link.alias.is_none() && ["nvr", "nsl"].iter().any(|prefix| link.name.starts_with(prefix));
    link.kind == LinkKind::Veth && ([SERVICE, LEG, WAY_OUT].contains(&kind) || nameless)
}

fn note(problems: &mut Vec<String>, what: &str, result: Result<(), PlumbingError>) {
    if let Err(e) = result {
        problems.push(told(what, &e));
    }
}

/// What failed, with all that caused it, in one line.
fn told(what: &str, error: &PlumbingError) -> String {
    format!("{what}: {}", chain(error)).replace('\n', "; ")
}
