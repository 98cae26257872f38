//! How links and namespaces are named, so that what was made by this is found again: also by whoever looks at the host.

use nova_core::ids::{NetworkId, RouterId};
use nova_core::network::{MacAddress, device_name};
use sha2::{Digest, Sha256};

/// The tunnel of a network.
pub fn tunnel(vni: u32) -> String {
    format!("vx-{vni}")
}

/// A tag on an interface: `eth0.100`, as it is usually written; another name where that is longer than the kernel takes.
pub fn vlan(interface: &str, tag: u16) -> String {
    let name = format!("{interface}.{tag}");
    if name.len() <= 15 { name } else { format!("vl{tag}-{}", hash(&[interface], 7)) }
}

/// The bridge's end of the pair into the namespace where a network is served (DHCP, names, metadata).
pub fn service_end(network: NetworkId) -> String {
    device_name("ns", &network.to_string())
}

/// The bridge's end of the pair between a network and one of its routers.
pub fn leg_end(router: RouterId, network: NetworkId) -> String {
    format!("nsl{}", hash(&[&router.to_string(), &network.to_string()], 11))
}

/// The host's end of the pair that leads to a router.
pub fn way_out(router: RouterId) -> String {
    device_name("nvr", &router.to_string())
}

/// The namespace where a network is served.
pub fn service_namespace(network: NetworkId) -> String {
    format!("nova-net-{network}")
}

/// A router's namespace.
pub fn router_namespace(router: RouterId) -> String {
    format!("nova-rtr-{router}")
}

/// A MAC address that is the same whenever it is made of the same words: for bridges and for ends that need one of their
/// own on each host. Locally administered, and of none of the ports (those begin with `fa:16:3e`).
pub fn fixed_mac(words: &[&str]) -> MacAddress {
    let digest = digest(words);
    MacAddress::from_bytes([0xf2, digest[0], digest[1], digest[2], digest[3], digest[4]])
}

/// The text on a link (`ifalias`) that says that it is ours, and for what: `nova:segment:ID`.
pub fn alias(kind: &str, id: &str) -> String {
    format!("{ALIAS}{kind}:{id}")
}

/// How such texts begin.
pub const ALIAS: &str = "nova:";

fn digest(words: &[&str]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for word in words {
        hasher.update((word.len() as u64).to_be_bytes());
        hasher.update(word.as_bytes());
    }
    hasher.finalize().to_vec()
}

fn hash(words: &[&str], length: usize) -> String {
    digest(words).iter().flat_map(|byte| [byte >> 4, byte & 15]).take(length).map(hex).collect()
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel() {
        let network: NetworkId = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
        let router: RouterId = "b01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
        assert_eq!(vlan("eth0", 100), "eth0.100");
        assert_eq!(service_end(network), "nsa01b23c4-d5e");
        assert_eq!(way_out(router), "nvrb01b23c4-d5");
        for name in [tunnel(0xff_ffff), vlan("enp129s0f1np1", 4094), leg_end(router, network), service_end(network)] {
            assert!(name.len() <= 15, "{name}");
        }
        assert_ne!(vlan("enp129s0f1np1", 4094), vlan("enp129s0f1np0", 4094));
    }

    #[test]
    fn fixed_addresses_are_unicast_and_depend_on_every_word() {
        let one = fixed_mac(&["bridge", "host-1"]);
        assert!(one.is_unicast());
        assert_eq!(one, fixed_mac(&["bridge", "host-1"]));
        assert_ne!(one, fixed_mac(&["bridge", "host-2"]));
        assert_ne!(fixed_mac(&["ab", "c"]), fixed_mac(&["a", "bc"]));
    }
}
