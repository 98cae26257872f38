//! Networks and what is on them, to check with.

use nova_core::entropy::Entropy;
use nova_core::ids::{
    FloatingIpId, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};
use nova_core::network::{
    Cidr, Direction, EtherType, MacAddress, Network, Port, PortStatus, Router, SecurityGroup, SecurityGroupRule,
    Subnet, VifBinding, default_gateway, default_pools, default_rules,
};

use super::fixtures::{Make, at};
use crate::{FixedIpRequest, NewFloatingIp, NewPort};

impl Make {
    pub(crate) fn network(&self, project: &str) -> Network {
        Network {
            id: NetworkId::generate(&self.0),
            project_id: project.into(),
            name: "net".into(),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            mtu: 1500,
            port_security_enabled: true,
            dns_domain: String::new(),
            network_type: None,
            physical_network: None,
            segmentation_id: None,
            is_default: false,
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
        }
    }

    /// With the usual gateway and pools.
    pub(crate) fn subnet(&self, network: &Network, cidr: &str) -> Subnet {
        let cidr: Cidr = cidr.parse().unwrap();
        let gateway_ip = Some(default_gateway(&cidr));
        Subnet {
            id: SubnetId::generate(&self.0),
            network_id: network.id,
            project_id: network.project_id.clone(),
            name: "subnet".into(),
            description: String::new(),
            cidr,
            gateway_ip,
            allocation_pools: default_pools(&cidr, gateway_ip),
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: true,
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            shared: false,
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
        }
    }

    /// With whatever addresses there are.
    pub(crate) fn port(&self, network: &Network, project: &str) -> NewPort {
        let port = Port {
            id: PortId::generate(&self.0),
            network_id: network.id,
            project_id: ProjectId::from(project),
            name: "port".into(),
            description: String::new(),
            admin_state_up: true,
            status: PortStatus::Down,
            mac_address: MacAddress::generate(&self.0),
            fixed_ips: Vec::new(),
            device_id: String::new(),
            device_owner: String::new(),
            host: None,
            binding: VifBinding::default(),
            security_groups: Vec::new(),
            allowed_address_pairs: Vec::new(),
            port_security_enabled: true,
            dns_name: String::new(),
            delete_with_device: false,
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
        };
        NewPort { port, fixed_ips: None, asked_by: None, draw: self.0.next_u64(), limit: None }
    }

    pub(crate) fn router(&self, project: &str) -> Router {
        Router {
            id: RouterId::generate(&self.0),
            project_id: project.into(),
            name: "router".into(),
            description: String::new(),
            admin_state_up: true,
            gateway: None,
            routes: Vec::new(),
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
        }
    }

    pub(crate) fn floating(&self, network: &Network, project: &str) -> NewFloatingIp {
        NewFloatingIp {
            id: FloatingIpId::generate(&self.0),
            project_id: project.into(),
            description: String::new(),
            network_id: network.id,
            address: FixedIpRequest { subnet_id: None, ip_address: None },
            target: None,
            draw: self.0.next_u64(),
            limit: None,
            now: at(0),
        }
    }

    /// With the rules that it begins with.
    pub(crate) fn security_group(&self, project: &str, is_default: bool) -> SecurityGroup {
        let mut group = SecurityGroup {
            id: SecurityGroupId::generate(&self.0),
            project_id: project.into(),
            name: if is_default { "default" } else { "web" }.into(),
            description: String::new(),
            is_default,
            stateful: true,
            rules: Vec::new(),
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
        };
        group.rules = default_rules(&group, &self.0);
        group
    }

    /// Lets a protocol in.
    pub(crate) fn rule(&self, group: &SecurityGroup, protocol: &str) -> SecurityGroupRule {
        SecurityGroupRule {
            id: SecurityGroupRuleId::generate(&self.0),
            security_group_id: group.id,
            project_id: group.project_id.clone(),
            description: String::new(),
            direction: Direction::Ingress,
            ethertype: EtherType::V4,
            protocol: Some(protocol.into()),
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: None,
            created_at: at(0),
        }
    }
}
