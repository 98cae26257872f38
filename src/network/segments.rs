//! What carries a network: which of the managers it has, and its tag, identifier or physical network
//! (neutron/plugins/ml2/managers.py and drivers/type_*.py).

use nova_core::network::{Network, NetworkProblem};
use nova_core::options::{Config, Opt, OptionDecl};
use nova_db::{SegmentRange, StoreError};

use super::NetworkManager;

const API: &[&str] = &["nova-api"];

/// What a network can be carried by.
pub const NETWORK_TYPES: &[&str] = &["flat", "flat_dhcp", "vlan", "vxlan", "local"];

/// `network.tenant_network_type`
pub const TENANT_NETWORK_TYPE: Opt<String> =
    Opt::choice("network", "tenant_network_type", &["vxlan", "vlan", "local"]).default("vxlan").roles(API).help(
        "What carries networks of projects: `vxlan` tunnels between the hosts, `vlan` tags of `vlan_ranges`, `local` \
         nothing, so that only guests of one host reach each other. Administrators may say otherwise for each network.",
    );
/// `network.vni_ranges`
pub const VNI_RANGES: Opt<Vec<String>> = Opt::list("network", "vni_ranges")
    .default("1:16777215")
    .unit("FIRST:LAST")
    .roles(API)
    .help("Identifiers of tunnels that networks may get. Others can still be asked for by administrators.");
/// `network.vlan_ranges`
pub const VLAN_RANGES: Opt<Vec<String>> = Opt::list("network", "vlan_ranges")
    .unit("PHYSICAL_NETWORK:FIRST:LAST")
    .roles(API)
    .help("VLAN tags that networks may get, by physical network. Others can still be asked for by administrators.");
/// `network.overlay_ip_version`
pub const OVERLAY_IP_VERSION: Opt<i64> = Opt::integer("network", "overlay_ip_version", 4, 6)
    .default("4")
    .roles(API)
    .help("The IP version of the hosts' tunnel addresses: packets in tunnels are 50 bytes shorter with 4, 70 with 6.");

/// Options of what carries networks.
pub const SEGMENT_OPTIONS: &[OptionDecl] =
    &[TENANT_NETWORK_TYPE.decl(), VNI_RANGES.decl(), VLAN_RANGES.decl(), OVERLAY_IP_VERSION.decl()];

/// What networks may be carried by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentOptions {
    /// `network.tenant_network_type`.
    pub tenant_network_type: String,
    /// `network.vni_ranges`.
    pub vni_ranges: Vec<SegmentRange>,
    /// `network.vlan_ranges`.
    pub vlan_ranges: Vec<SegmentRange>,
    /// What tunnels take of each packet (`network.overlay_ip_version`).
    pub tunnel_overhead: u32,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        let all = SegmentRange { physical_network: None, first: 1, last: LAST_VNI };
        let tenant_network_type = "vxlan".to_owned();
        Self { tenant_network_type, vni_ranges: vec![all], vlan_ranges: Vec::new(), tunnel_overhead: 50 }
    }
}

impl SegmentOptions {
    /// Reads what the configuration says. The registry must know [`SEGMENT_OPTIONS`] and check [`segments_fit`].
    pub fn from_config(config: &Config) -> Self {
        Self {
            tenant_network_type: config.get(&TENANT_NETWORK_TYPE),
            vni_ranges: config.get(&VNI_RANGES).iter().filter_map(|text| vni_range(text).ok()).collect(),
            vlan_ranges: config.get(&VLAN_RANGES).iter().filter_map(|text| vlan_range(text).ok()).collect(),
            tunnel_overhead: if config.get(&OVERLAY_IP_VERSION) == 6 { 70 } else { 50 },
        }
    }

    /// The largest packet that a network of that type carries, over wires of that one.
    pub fn largest_packet(&self, network_type: &str, wire: u32) -> u32 {
        if network_type == "vxlan" { wire.saturating_sub(self.tunnel_overhead) } else { wire }
    }
}

const LAST_VNI: u32 = (1 << 24) - 1;
const LAST_TAG: u32 = 4094;

fn bounds(first: &str, last: &str, most: u32) -> Result<(u32, u32), String> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| (1..=most).contains(number));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("'{first}:{last}' is no range within 1:{most}")),
    }
}

fn vni_range(text: &str) -> Result<SegmentRange, String> {
    let (first, last) = text.split_once(':').ok_or_else(|| format!("'{text}' is not FIRST:LAST"))?;
    let (first, last) = bounds(first, last, LAST_VNI)?;
    Ok(SegmentRange { physical_network: None, first, last })
}

fn vlan_range(text: &str) -> Result<SegmentRange, String> {
    let mut parts = text.splitn(3, ':');
    let (Some(name), Some(first), Some(last)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("'{text}' is not PHYSICAL_NETWORK:FIRST:LAST"));
    };
    if name.is_empty() || name.len() > 64 {
        return Err(format!("'{name}' is no name of a physical network"));
    }
    let (first, last) = bounds(first, last, LAST_TAG)?;
    Ok(SegmentRange { physical_network: Some(name.to_owned()), first, last })
}

/// Are the ranges such? An entry of [`Registry::check`](nova_core::options::Registry::check).
///
/// # Errors
/// The option and what is wrong with it.
pub fn segments_fit(config: &Config) -> Result<(), (&'static str, String)> {
    for text in config.get(&VNI_RANGES) {
        vni_range(&text).map_err(|problem| ("network.vni_ranges", problem))?;
    }
    let vlans = config.get(&VLAN_RANGES);
    for text in &vlans {
        vlan_range(text).map_err(|problem| ("network.vlan_ranges", problem))?;
    }
    if vlans.is_empty() && config.get(&TENANT_NETWORK_TYPE) == "vlan" {
        return Err(("network.vlan_ranges", "there is none, and networks of projects are to be VLANs".into()));
    }
    if config.get(&OVERLAY_IP_VERSION) == 5 {
        return Err(("network.overlay_ip_version", "there are 4 and 6".into()));
    }
    Ok(())
}

/// How a network gets what carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// All is said.
    Given,
    /// Any of these.
    AnyOf(Vec<SegmentRange>),
}

fn invalid(message: String) -> NetworkProblem {
    NetworkProblem::Invalid { message }
}

/// Completes what is said of a network's carrier; what is not said is what networks of projects have.
fn settle(options: &SegmentOptions, network: &mut Network) -> Result<Way, NetworkProblem> {
    let said = network.network_type.clone();
    let kind = match said {
        Some(kind) => kind,
        None if network.physical_network.is_some() || network.segmentation_id.is_some() => {
            return Err(invalid("network_type required".into()));
        }
        // No guest is on it: nothing carries it.
        None if network.external => "local".to_owned(),
        None => options.tenant_network_type.clone(),
    };
    network.network_type = Some(kind.clone());
    let (wire, number) = (network.physical_network.clone(), network.segmentation_id);
    match (kind.as_str(), wire, number) {
        ("local" | "vxlan", Some(_), _) => {
            Err(invalid(format!("provider:physical_network specified for {kind} network")))
        }
        ("local", None, None) | ("flat_dhcp", _, None) | ("flat", Some(_), None) => Ok(Way::Given),
        ("flat", None, None) => Err(invalid("physical_network required for flat provider network".into())),
        ("local" | "flat" | "flat_dhcp", _, Some(_)) => {
            Err(invalid(format!("provider:segmentation_id specified for {kind} network")))
        }
        ("vxlan", None, None) => Ok(Way::AnyOf(options.vni_ranges.clone())),
        ("vxlan", None, Some(number)) if (1..=LAST_VNI).contains(&number) => Ok(Way::Given),
        ("vlan", Some(_), Some(tag)) if (1..=LAST_TAG).contains(&tag) => Ok(Way::Given),
        ("vlan", Some(wire), None) => {
            let own = |range: &&SegmentRange| range.physical_network.as_ref() == Some(&wire);
            let ranges: Vec<_> = options.vlan_ranges.iter().filter(own).cloned().collect();
            if ranges.is_empty() {
                return Err(invalid(format!("physical_network '{wire}' unknown for VLAN provider network")));
            }
            Ok(Way::AnyOf(ranges))
        }
        ("vlan", None, None) => Ok(Way::AnyOf(options.vlan_ranges.clone())),
        ("vlan", None, Some(_)) => {
            Err(invalid("segmentation_id requires physical_network for VLAN provider network".into()))
        }
        ("vlan", _, Some(tag)) => Err(invalid(format!("segmentation_id out of range (1 through {LAST_TAG}): {tag}"))),
        ("vxlan", _, Some(vni)) => Err(invalid(format!("segmentation_id out of range (1 through {LAST_VNI}): {vni}"))),
        _ => Err(invalid(format!("network_type value '{kind}' not supported"))),
    }
}

impl NetworkManager {
    /// Keeps a new network with what carries it. A packet's size that nobody said is the largest that fits.
    ///
    /// # Errors
    /// [`NetworkProblem`]: what was said of its carrier can't be, or somebody has it.
    pub(crate) async fn create_network(&self, mut network: Network, limit: Option<u64>) -> Result<Network, StoreError> {
        let options = &self.options.segments;
        let way = settle(options, &mut network)?;
        let kind = network.network_type.as_deref().unwrap_or_default();
        let largest = options.largest_packet(kind, self.options.mtu);
        if network.mtu > largest {
            if network.mtu != self.options.mtu {
                return Err(invalid(format!("Requested MTU is too big, maximum is {largest}")).into());
            }
            network.mtu = largest;
        }
        match way {
            Way::Given => self.store.create_network(network, limit).await,
            Way::AnyOf(ranges) => self.store.create_network_in(network, ranges, self.entropy.next_u64(), limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use nova_core::entropy::SeededEntropy;
    use nova_core::ids::NetworkId;
    use nova_core::options::{Registry, Source};

    use super::*;

    fn network(kind: Option<&str>, wire: Option<&str>, number: Option<u32>) -> Network {
        Network {
            id: NetworkId::generate(&SeededEntropy::new(1)),
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            mtu: 1500,
            port_security_enabled: true,
            dns_domain: String::new(),
            network_type: kind.map(str::to_owned),
            physical_network: wire.map(str::to_owned),
            segmentation_id: number,
            is_default: false,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            generation: 0,
        }
    }

    fn options() -> SegmentOptions {
        let vlan_ranges = vec![vlan_range("one:10:20").unwrap(), vlan_range("two:5:5").unwrap()];
        SegmentOptions { vlan_ranges, ..SegmentOptions::default() }
    }

    #[test]
    fn what_is_said_of_a_carrier_must_fit_its_type() {
        for (kind, wire, number, expected) in [
            (Some("flat"), Some("one"), None, "given"),
            (Some("flat"), None, None, "physical_network required"),
            (Some("flat"), Some("one"), Some(7), "segmentation_id specified"),
            (Some("flat_dhcp"), None, None, "given"),
            (Some("flat_dhcp"), Some("one"), None, "given"),
            (Some("vlan"), Some("one"), Some(4094), "given"),
            (Some("vlan"), Some("one"), Some(4095), "out of range"),
            (Some("vlan"), Some("two"), None, "1 of 1"),
            (Some("vlan"), None, None, "2 of 12"),
            (Some("vlan"), Some("three"), None, "'three' unknown"),
            (Some("vlan"), None, Some(7), "requires physical_network"),
            (Some("vxlan"), None, Some(16_777_215), "given"),
            (Some("vxlan"), None, Some(16_777_216), "out of range"),
            (Some("vxlan"), Some("one"), Some(7), "physical_network specified"),
            (Some("vxlan"), None, None, "1 of 16777215"),
            (Some("local"), None, None, "given"),
            (Some("local"), None, Some(1), "segmentation_id specified"),
            (Some("geneve"), None, None, "'geneve' not supported"),
            (None, Some("one"), None, "network_type required"),
            (None, None, Some(1), "network_type required"),
            (None, None, None, "1 of 16777215"),
        ] {
            let text = match settle(&options(), &mut network(kind, wire, number)) {
                Ok(Way::Given) => "given".to_owned(),
                Ok(Way::AnyOf(ranges)) => {
                    format!("{} of {}", ranges.len(), ranges.iter().map(SegmentRange::count).sum::<u64>())
                }
                Err(problem) => problem.to_string(),
            };
            assert!(text.contains(expected), "{kind:?} {wire:?} {number:?}: {text}");
        }
        let mut outer = Network { external: true, ..network(None, None, None) };
        assert_eq!(settle(&options(), &mut outer), Ok(Way::Given));
        assert_eq!(outer.network_type.as_deref(), Some("local"));
    }

    #[test]
    fn wrong_ranges_are_told_with_their_option() {
        let registry = Registry::new().with(SEGMENT_OPTIONS).check(segments_fit);
        let load = |text: &str| {
            let loaded = Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text)]);
            loaded.map(|config| SegmentOptions::from_config(&config)).map_err(|errors| errors[0].to_string())
        };
        assert_eq!(load("").unwrap(), SegmentOptions::default());
        let good =
            load("[network]\nvni_ranges = 5:6, 9:9\nvlan_ranges = one:1:4094\noverlay_ip_version = 6\n").unwrap();
        assert_eq!((good.vni_ranges.len(), good.vlan_ranges.len(), good.tunnel_overhead), (2, 1, 70));
        assert_eq!((good.largest_packet("vxlan", 1500), good.largest_packet("vlan", 1500)), (1430, 1500));
        for (line, option) in [
            ("vni_ranges = 5", "network.vni_ranges"),
            ("vni_ranges = 0:5", "network.vni_ranges"),
            ("vni_ranges = 6:5", "network.vni_ranges"),
            ("vlan_ranges = one:1:4095", "network.vlan_ranges"),
            ("vlan_ranges = 1:5", "network.vlan_ranges"),
            ("vlan_ranges = :1:5", "network.vlan_ranges"),
            ("tenant_network_type = vlan", "network.vlan_ranges"),
            ("overlay_ip_version = 5", "network.overlay_ip_version"),
        ] {
            let error = load(&format!("[network]\n{line}\n")).unwrap_err();
            assert!(error.contains(option), "{line}: {error}");
        }
    }
}
