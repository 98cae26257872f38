//! Ports as compute needs them: with what guests must know of their networks and addresses.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{PortId, SubnetId};
use nova_core::network::{FloatingIp, Network, NetworkServiceError, Port, Subnet, Vif, VifAddress};
use nova_db::{FloatingIpField, ListQuery, NetworkField, SubnetField};

use super::NetworkManager;
use super::instance::failed;
use super::servers::AT_ONCE;

impl NetworkManager {
    /// Ports with what guests need to know of their networks and addresses: three questions, however many there are.
    pub(super) async fn vifs(&self, ports: Vec<Port>) -> Result<Vec<Vif>, NetworkServiceError> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let networks = texts(ports.iter().map(|port| port.network_id));
        let subnets = texts(ports.iter().flat_map(|port| &port.fixed_ips).map(|fixed| fixed.subnet_id));
        let ids = texts(ports.iter().map(|port| port.id));
        let (mut wires, mut ranges, mut floating) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for some in networks.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(NetworkField::Id, some.to_vec())], ..ListQuery::default() };
            let found = self.store.list_networks(&query).await.map_err(failed)?;
            wires.extend(found.into_iter().map(|network| (network.id, network)));
        }
        for some in subnets.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(SubnetField::Id, some.to_vec())], ..ListQuery::default() };
            let found = self.store.list_subnets(&query).await.map_err(failed)?;
            ranges.extend(found.into_iter().map(|subnet| (subnet.id, subnet)));
        }
        for some in ids.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(FloatingIpField::PortId, some.to_vec())], ..ListQuery::default() };
            floating.extend(self.store.list_floating_ips(&query).await.map_err(failed)?);
        }
        let mut of_port: BTreeMap<PortId, Vec<FloatingIp>> = BTreeMap::new();
        for one in floating {
            if let Some(port) = one.port_id {
                of_port.entry(port).or_default().push(one);
            }
        }
        Ok(ports
            .iter()
            .map(|port| {
                vif(port, wires.get(&port.network_id), &ranges, of_port.get(&port.id).map_or(&[], Vec::as_slice))
            })
            .collect())
    }
}

fn texts(ids: impl Iterator<Item = impl std::fmt::Display>) -> Vec<String> {
    ids.map(|id| id.to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn vif(port: &Port, network: Option<&Network>, subnets: &BTreeMap<SubnetId, Subnet>, floating: &[FloatingIp]) -> Vif {
    let addresses = port.fixed_ips.iter().filter_map(|fixed| {
        let subnet = subnets.get(&fixed.subnet_id)?;
        let stands = |one: &&FloatingIp| one.port_id == Some(port.id) && one.fixed_ip_address == Some(fixed.ip_address);
        Some(VifAddress {
            address: fixed.ip_address,
            subnet_id: subnet.id,
            cidr: subnet.cidr,
            gateway: subnet.gateway_ip,
            dns: subnet.dns_nameservers.clone(),
            routes: subnet.host_routes.clone(),
            // On the operator's bridge nobody of ours tells it.
            dhcp: subnet.enable_dhcp && network.is_none_or(|network| network.network_type.as_deref() != Some("flat")),
            ipv6_address_mode: subnet.ipv6_address_mode.clone(),
            floating: floating.iter().filter(stands).map(|one| one.floating_ip_address).collect(),
        })
    });
    Vif {
        port_id: port.id,
        network_id: port.network_id,
        label: network.map(|network| network.name.clone()).unwrap_or_default(),
        mtu: network.map_or(1500, |network| network.mtu),
        mac_address: port.mac_address,
        addresses: addresses.collect(),
        status: port.status,
        host: port.host.clone(),
        delete_with_instance: port.delete_with_device,
        tag: port.device_tag().map(str::to_owned),
        asked_as: None,
    }
}
