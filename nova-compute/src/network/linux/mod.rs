//! The plumbing of a Linux host: bridges, tunnels and the firewall.
//!
//! Needs the rights of root, and of programs `nft`, `ip`, `dnsmasq` and `conntrack`. What is made is found again by names ([`names`]) and by the text on
//! links (`ifalias`), so that nothing has to be remembered but the numbers of the firewall.

mod children;
pub mod dhcp;
pub mod doors;
pub mod firewall;
pub mod layout;
pub mod links;
pub mod names;
pub mod namespace;
pub mod nat;
mod numbers;
pub mod router;
mod segments;
pub mod services;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::{NetworkId, RouterId};
use nova_core::network::{HostNetwork, HostRouter, PortStatus, Segment, Vif, tap_name};
use nova_virt::InterfaceSpec;
use tokio::sync::Mutex;

pub use numbers::Numbers;

use self::firewall::{Applied, Firewall, Plan};
use self::layout::{SegmentLayout, segment_layout};
use self::links::{LinkState, Links, failed};
use self::services::Services;
use super::{Converged, MetadataDoor, Plumbing, PlumbingError, PlumbingOptions};

/// Bridges, tunnels and nftables of this machine, or of a network namespace that plays one.
pub struct LinuxPlumbing {
    options: PlumbingOptions,
    services: Services,
    /// One at a time: two that compare and change at once would undo each other's work.
    state: Mutex<State>,
}

struct State {
    links: Links,
    firewall: Firewall,
    /// How the ruleset was last made what it is to be.
    applied: Option<Applied>,
    /// What was made without any problem, but for groups, which the firewall knows.
    made: Option<Made>,
}

/// What was made.
struct Made {
    segments: BTreeMap<NetworkId, Segment>,
    routers: BTreeMap<RouterId, HostRouter>,
    converged: Converged,
}

impl LinuxPlumbing {
    /// Opens the host's network. Changes nothing.
    pub async fn open(options: PlumbingOptions) -> Result<Self, PlumbingError> {
        std::fs::create_dir_all(&options.state)
            .map_err(|e| failed(format!("make the folder {}", options.state.display()), e))?;
        let links = Links::open(options.namespace.as_deref()).await?;
        let firewall = Firewall::open(options.namespace.clone(), options.state.join("firewall.json"));
        Ok(Self {
            services: Services::new(options.clone()),
            options,
            state: Mutex::new(State { links, firewall, applied: None, made: None }),
        })
    }

    /// How the ruleset was last made what it is to be; `None`: not yet.
    pub async fn applied(&self) -> Option<Applied> {
        self.state.lock().await.applied
    }

    /// Layer 2 and the firewall. Answers with the bridges that are there.
    async fn converge_frames(
        &self,
        state: &mut State,
        wanted: &HostNetwork,
        converged: &mut Converged,
    ) -> Result<BTreeMap<NetworkId, String>, PlumbingError> {
        let layouts = self.layouts(wanted, converged);
        let present = state.links.list().await?;
        segments::remove_others(&state.links, &present, &layouts, wanted).await?;
        let bridges = self.converge_bridges(state, wanted, &layouts, &present, converged).await?;
        let names = bridges.iter().map(|(id, bridge)| (*id, bridge.name.clone())).collect();
        let plan = Plan::new(wanted, &layouts, segments::strangers(&present, &bridges, wanted));
        let applied = match bridge_netfilter() {
            Ok(()) => state.firewall.apply(&plan, wanted).await,
            Err(e) => Err(e),
        };
        match applied {
            Ok(applied) => state.applied = Some(applied),
            Err(e) => {
                // Without its rules no guest is plugged in.
                converged.problems.push(chain(&e));
                converged.ports.values_mut().for_each(|status| *status = PortStatus::Error);
                return Ok(names);
            }
        }
        let by_name: BTreeMap<&str, &LinkState> = present.iter().map(|link| (link.name.as_str(), link)).collect();
        for (id, bridge) in &bridges {
            let Some(segment) = wanted.segments.get(id) else { continue };
            match segments::converge_taps(&state.links, segment, bridge, &by_name).await {
                Ok(plugged) => settle(segment.ports.keys(), &plugged, converged),
                Err(e) => converged.problems.push(format!("network {id}: {}", chain(&e))),
            }
        }
        Ok(names)
    }

    /// Where each network is; the ports of one that can't be anywhere are in error.
    fn layouts(&self, wanted: &HostNetwork, converged: &mut Converged) -> BTreeMap<NetworkId, SegmentLayout> {
        let mut layouts = BTreeMap::new();
        for (id, segment) in &wanted.segments {
            let status = match segment_layout(&self.options, *id, segment) {
                Ok(layout) => {
                    layouts.insert(*id, layout);
                    PortStatus::Down
                }
                Err(problem) => {
                    converged.problems.push(problem);
                    PortStatus::Error
                }
            };
            converged.ports.extend(segment.ports.keys().map(|port| (*port, status)));
        }
        layouts
    }

    async fn converge_bridges(
        &self,
        state: &State,
        wanted: &HostNetwork,
        layouts: &BTreeMap<NetworkId, SegmentLayout>,
        present: &[LinkState],
        converged: &mut Converged,
    ) -> Result<BTreeMap<NetworkId, LinkState>, PlumbingError> {
        let mut bridges = BTreeMap::new();
        let underlay = segments::underlay_mtu(&state.links, present, self.options.tunnel_ip).await?;
        let mut quiet = Vec::new();
        for (id, layout) in layouts {
            let Some(segment) = wanted.segments.get(id) else { continue };
            let (bridge, problems) =
                segments::converge_segment(&state.links, &self.options, *id, segment, layout, underlay).await;
            if !problems.is_empty() {
                converged.ports.extend(segment.ports.keys().map(|port| (*port, PortStatus::Error)));
                converged.problems.extend(problems);
            }
            if layout.ours {
                quiet.push(layout.bridge.clone());
                quiet.extend(layout.uplink.as_ref().map(|uplink| uplink.name().to_owned()));
            }
            bridges.extend(bridge.map(|bridge| (*id, bridge)));
        }
        segments::without_ipv6(self.options.namespace.as_deref(), quiet).await?;
        Ok(bridges)
    }
}

/// A port that is plugged in is active, unless something of its network is wrong.
fn settle<'a>(
    ports: impl Iterator<Item = &'a nova_core::ids::PortId>,
    plugged: &BTreeSet<String>,
    converged: &mut Converged,
) {
    for port in ports.filter(|port| plugged.contains(&tap_name(**port))) {
        if let Some(status @ PortStatus::Down) = converged.ports.get_mut(port) {
            *status = PortStatus::Active;
        }
    }
}

/// Without this module of the kernel bridged packets would pass the groups' rules by.
fn bridge_netfilter() -> Result<(), PlumbingError> {
    let there = || std::path::Path::new("/proc/sys/net/bridge").exists();
    if there() {
        return Ok(());
    }
    // Its failure shows in the next line.
    let _ = std::process::Command::new("modprobe").arg("br_netfilter").status();
    let text = "the kernel has no br_netfilter, without which security groups can't be enforced";
    if there() { Ok(()) } else { Err(PlumbingError::Unsupported(text.to_owned())) }
}

#[async_trait]
impl Plumbing for LinuxPlumbing {
    fn name(&self) -> &'static str {
        "linux"
    }

    async fn converge(&self, wanted: &HostNetwork) -> Result<Converged, PlumbingError> {
        let mut state = self.state.lock().await;
        state.made = None;
        let mut converged = Converged::default();
        if let Err(e) = self.services.guard(wanted).await {
            converged.problems.push(format!("the host's own rules: {}", chain(&e)));
        }
        state.firewall.others_made(self.services.transactions());
        let bridges = self.converge_frames(&mut state, wanted, &mut converged).await?;
        converged.problems.extend(self.services.converge(wanted, &bridges).await);
        state.firewall.others_made(self.services.transactions());
        if converged.problems.is_empty() {
            let (segments, routers) = (wanted.segments.clone(), wanted.routers.clone());
            state.made = Some(Made { segments, routers, converged: converged.clone() });
        }
        Ok(converged)
    }

    async fn adjust(&self, wanted: &HostNetwork) -> Result<Option<Converged>, PlumbingError> {
        let mut state = self.state.lock().await;
        let State { firewall, applied, made, .. } = &mut *state;
        if !firewall.change_members(wanted).await.inspect_err(|_| *made = None)? {
            return Ok(None);
        }
        *applied = Some(Applied::Changed);
        let fits = |made: &&Made| made.segments == wanted.segments && made.routers == wanted.routers;
        Ok(made.as_ref().filter(fits).map(|made| made.converged.clone()))
    }

    fn interface(&self, wanted: &HostNetwork, vif: &Vif) -> Result<InterfaceSpec, PlumbingError> {
        let segment = wanted.segments.get(&vif.network_id).filter(|segment| segment.ports.contains_key(&vif.port_id));
        let segment = segment
            .ok_or_else(|| PlumbingError::Unsupported(format!("port {} is not one of this host", vif.port_id)))?;
        let layout = segment_layout(&self.options, vif.network_id, segment).map_err(PlumbingError::Unsupported)?;
        Ok(InterfaceSpec {
            mac_address: vif.mac_address.to_string(),
            bridge: Some(layout.bridge),
            tap_name: tap_name(vif.port_id),
            mtu: Some(segment.mtu),
        })
    }

    async fn announce_gateways(
        &self,
        wanted: &HostNetwork,
        networks: &BTreeSet<NetworkId>,
    ) -> Result<(), PlumbingError> {
        self.services.announce_gateways(wanted, networks).await
    }

    async fn metadata_doors(&self) -> Vec<MetadataDoor> {
        self.services.doors()
    }
}
