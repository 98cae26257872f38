//! What a host's network agent knows: what is to be, what is in force, and both kept over a restart.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use nova_core::ids::PortId;
use nova_core::network::{HostNetwork, ItemKey, PortStatus, Remote, Vif, port_key};

use super::Converged;

/// Digests of what is in force: everything, but for ports that do not work, with their segments and groups, when something
/// could not be made so.
pub(super) fn in_force(wanted: &HostNetwork, converged: &Converged) -> BTreeMap<String, String> {
    let mut applied = wanted.digests();
    applied.extend(wanted.port_digests());
    if converged.problems.is_empty() {
        return applied;
    }
    let broken = |id: &PortId| matches!(converged.ports.get(id), None | Some(PortStatus::Error));
    let mut ports = wanted.segments.values().flat_map(|segment| segment.ports.keys()).peekable();
    if ports.peek().is_some() && ports.all(broken) {
        // No rules are in force, whoever has them.
        for group in wanted.groups.keys() {
            applied.remove(&ItemKey::Group(*group).to_string());
        }
    }
    for (network, segment) in &wanted.segments {
        for (id, port) in segment.ports.iter().filter(|(id, _)| broken(id)) {
            applied.remove(&port_key(*id));
            applied.remove(&ItemKey::Segment(*network).to_string());
            for group in port.security.iter().flat_map(|security| &security.groups) {
                applied.remove(&ItemKey::Group(*group).to_string());
                // Those that its rules name, too: their members are looked up for them.
                for rule in wanted.groups.get(group).into_iter().flat_map(|group| &group.rules) {
                    if let Remote::Group(named) = &rule.remote {
                        applied.remove(&ItemKey::Group(*named).to_string());
                    }
                }
            }
        }
    }
    applied
}

/// How far an interface is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Its port is there with what may pass it.
    Ready,
    /// The host does not have its port, or not so.
    Missing,
    /// It could not be made so.
    Broken,
}

/// How far the interface is by what is to be and what was made of it.
pub(super) fn readiness(wanted: &HostNetwork, converged: Option<&Converged>, vif: &Vif) -> Readiness {
    let port = wanted.segments.get(&vif.network_id).and_then(|segment| segment.ports.get(&vif.port_id));
    match (port, converged.and_then(|converged| converged.ports.get(&vif.port_id))) {
        (Some(port), _) if port.mac != vif.mac_address => Readiness::Missing,
        (Some(_), Some(PortStatus::Error)) => Readiness::Broken,
        (Some(_), Some(_)) => Readiness::Ready,
        _ => Readiness::Missing,
    }
}

/// Keeps what is to be in a file, whole or not at all; nobody else reads it.
pub(super) async fn save(path: PathBuf, wanted: HostNetwork) -> std::io::Result<()> {
    let written = tokio::task::spawn_blocking(move || write_whole(&path, &serde_json::to_vec(&wanted)?)).await;
    written.map_err(std::io::Error::other)?
}

fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    // One that is left of a write that was cut off may have other rights.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// What was to be when the agent last ran; `None` if it never did, or the file can't be read.
pub(super) async fn load(path: PathBuf) -> Option<HostNetwork> {
    let read = tokio::task::spawn_blocking(move || std::fs::read(&path).map(|text| (path, text))).await.ok()?;
    let (path, text) = match read {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("the network of before the start is not known: {error}");
            return None;
        }
    };
    let parsed = serde_json::from_slice(&text);
    parsed.inspect_err(|error| tracing::warn!(path = %path.display(), "it can't be read: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use nova_core::network::{Carrier, Direction, EtherType, Group, GroupRule, HostPort, PortSecurity, Segment};

    use super::*;

    fn id<T: std::str::FromStr>(number: u8) -> T
    where
        T::Err: std::fmt::Debug,
    {
        format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
    }

    /// A network with two ports, each of a group of its own.
    fn network() -> HostNetwork {
        let port = |n: u8| HostPort {
            mac: format!("fa:16:3e:00:00:{n:02x}").parse().unwrap(),
            addresses: Vec::new(),
            hostname: String::new(),
            instance: None,
            admin_state_up: true,
            security: Some(PortSecurity { groups: [id(n)].into(), pairs: Vec::new() }),
        };
        let segment = Segment {
            carrier: Carrier::Local,
            mtu: 1500,
            admin_state_up: true,
            dns_domain: String::new(),
            subnets: BTreeMap::new(),
            serves: true,
            ports: [1, 2].map(|n| (id(n), port(n))).into(),
            elsewhere: Vec::new(),
        };
        let groups = [1, 2].map(|n| (id(n), Default::default())).into();
        HostNetwork { segments: [(id(9), segment)].into(), groups, routers: BTreeMap::new() }
    }

    fn converged(second: PortStatus, problems: &[&str]) -> Converged {
        let ports = [(id(1), PortStatus::Active), (id(2), second)].into();
        Converged { ports, problems: problems.iter().map(|text| (*text).to_owned()).collect() }
    }

    #[test]
    fn what_is_broken_is_not_in_force() {
        let keys = |converged: &Converged| in_force(&network(), converged).into_keys().collect::<Vec<_>>();
        let all = keys(&converged(PortStatus::Down, &[]));
        assert_eq!(all.len(), 5, "a segment, two groups, two ports: {all:?}");
        assert_eq!(keys(&converged(PortStatus::Down, &["no dnsmasq"])), all, "the rules are in force all the same");
        let left = keys(&converged(PortStatus::Error, &["no bridge"]));
        let one: PortId = id(1);
        assert_eq!(left, [ItemKey::Group(id(1)).to_string(), port_key(one)]);
    }

    #[test]
    fn groups_that_are_only_named_are_as_broken_as_who_names_them() {
        let mut network = network();
        let rule = GroupRule {
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: None,
            ports: (None, None),
            remote: Remote::Group(id(3)),
        };
        network.groups.get_mut(&id(2)).unwrap().rules.insert(rule);
        network.groups.extend([3, 4].map(|n| (id(n), Group::default())));
        let groups = |converged: &Converged| {
            let mut keys: Vec<String> = in_force(&network, converged).into_keys().collect();
            keys.retain(|key| network.groups.keys().any(|group| *key == ItemKey::Group(*group).to_string()));
            keys
        };
        let key = |n: u8| ItemKey::Group(id(n)).to_string();
        assert_eq!(groups(&converged(PortStatus::Error, &["no bridge"])), [key(1), key(4)]);
        let mut failed = converged(PortStatus::Error, &["no nft"]);
        failed.ports.insert(id(1), PortStatus::Error);
        assert_eq!(groups(&failed), Vec::<String>::new(), "the firewall as a whole");
    }

    #[test]
    fn interfaces_are_ready_when_their_port_is_there() {
        let network = network();
        let vif = |port: u8, mac: u8| Vif {
            port_id: id(port),
            network_id: id(9),
            label: String::new(),
            mtu: 1500,
            mac_address: format!("fa:16:3e:00:00:{mac:02x}").parse().unwrap(),
            addresses: Vec::new(),
            status: PortStatus::Down,
            host: None,
            delete_with_instance: true,
            tag: None,
            asked_as: None,
        };
        let made = converged(PortStatus::Error, &[]);
        assert_eq!(readiness(&network, Some(&made), &vif(1, 1)), Readiness::Ready);
        assert_eq!(readiness(&network, Some(&made), &vif(1, 7)), Readiness::Missing, "that is another port");
        assert_eq!(readiness(&network, Some(&made), &vif(2, 2)), Readiness::Broken);
        assert_eq!(readiness(&network, Some(&made), &vif(3, 3)), Readiness::Missing);
        assert_eq!(readiness(&network, None, &vif(1, 1)), Readiness::Missing);
    }

    #[tokio::test]
    async fn what_is_kept_is_read_again_and_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network/h1.json");
        assert_eq!(load(path.clone()).await, None);
        for network in [HostNetwork::default(), network()] {
            save(path.clone(), network.clone()).await.unwrap();
            assert_eq!(load(path.clone()).await, Some(network));
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(load(path).await, None);
    }
}
