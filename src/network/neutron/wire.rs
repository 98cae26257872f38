//! What of Neutron's JSON is read.

use std::net::IpAddr;

use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId};
use nova_core::network::{Cidr, FixedIp, HostRoute, MacAddress, PortStatus, RequestedInterface};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The key of `binding:profile` for the host that a server comes to (nova/network/neutron.py, `MIGRATING_ATTR`).
const MIGRATING_TO: &str = "migrating_to";

/// The key of `binding:profile` under which we keep what Neutron has no word for.
pub(super) const MARK: &str = "nova";

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PortView {
    pub(super) id: PortId,
    pub(super) network_id: NetworkId,
    #[serde(default)]
    project_id: Option<ProjectId>,
    #[serde(default)]
    tenant_id: Option<ProjectId>,
    pub(super) mac_address: MacAddress,
    #[serde(default)]
    status: String,
    #[serde(default)]
    pub(super) device_id: String,
    #[serde(default)]
    pub(super) device_owner: String,
    #[serde(default)]
    pub(super) fixed_ips: Vec<FixedIp>,
    #[serde(default, rename = "binding:host_id")]
    host: Option<String>,
    #[serde(default, rename = "binding:vif_type")]
    vif_type: Option<String>,
    #[serde(default, rename = "binding:profile")]
    profile: Option<Map<String, Value>>,
}

impl PortView {
    pub(super) fn is_of(&self, project: &ProjectId) -> bool {
        self.project_id.as_ref().or(self.tenant_id.as_ref()) == Some(project)
    }

    /// Anybody may write a server's id into a port of theirs; only services say that it is the server's.
    pub(super) fn is_of_compute(&self) -> bool {
        self.device_owner.starts_with("compute:")
    }

    pub(super) fn owner(&self) -> Option<InstanceId> {
        self.device_id.parse().ok().filter(|_| self.is_of_compute())
    }

    pub(super) fn host(&self) -> Option<HostName> {
        self.host.as_deref().filter(|host| !host.is_empty()).map(HostName::new)
    }

    pub(super) fn binding_failed(&self) -> bool {
        self.vif_type.as_deref() == Some("binding_failed")
    }

    pub(super) fn status(&self) -> PortStatus {
        match self.status.as_str() {
            "ACTIVE" => PortStatus::Active,
            "BUILD" => PortStatus::Build,
            "ERROR" => PortStatus::Error,
            _ => PortStatus::Down,
        }
    }

    fn mark(&self) -> Option<&Value> {
        self.profile.as_ref()?.get(MARK)
    }

    /// Was it made for its server?
    pub(super) fn goes_with_server(&self) -> bool {
        self.mark().is_some_and(|mark| mark["delete"] == true)
    }

    /// Its place among its server's interfaces; those of which it is not known come last.
    pub(super) fn order(&self) -> u64 {
        self.mark().and_then(|mark| mark["order"].as_u64()).unwrap_or(u64::MAX)
    }

    /// The request that it was made for.
    pub(super) fn request(&self) -> Option<PortId> {
        self.mark()?["request"].as_str()?.parse().ok()
    }

    /// What the guest knows it by.
    pub(super) fn tag(&self) -> Option<&str> {
        self.mark()?["tag"].as_str()
    }

    /// The host that its server comes to while it runs.
    pub(super) fn migrating_to(&self) -> Option<&str> {
        self.profile.as_ref()?.get(MIGRATING_TO)?.as_str()
    }

    /// The profile with that host, or without one.
    pub(super) fn profile_to(&self, host: Option<&str>) -> Value {
        let mut profile = self.profile.clone().unwrap_or_default();
        match host {
            Some(host) => drop(profile.insert(MIGRATING_TO.to_owned(), host.into())),
            None => drop(profile.remove(MIGRATING_TO)),
        }
        Value::Object(profile)
    }

    /// The profile with our mark, or without.
    pub(super) fn profile_with(&self, mark: Option<Value>) -> Value {
        let mut profile = self.profile.clone().unwrap_or_default();
        match mark {
            Some(mark) => drop(profile.insert(MARK.to_owned(), mark)),
            None => drop(profile.remove(MARK)),
        }
        Value::Object(profile)
    }
}

/// Our mark of a port that was made for that interface at that place, or taken for it.
pub(super) fn mark(order: u64, interface: &RequestedInterface, made: bool) -> Value {
    let mut mark = json!({"order": order, "delete": made});
    if let Some(request) = interface.new_port_id.filter(|_| made) {
        mark["request"] = json!(request);
    }
    if let Some(tag) = &interface.tag {
        mark["tag"] = json!(tag);
    }
    mark
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct NetworkView {
    pub(super) id: NetworkId,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    project_id: Option<ProjectId>,
    #[serde(default)]
    tenant_id: Option<ProjectId>,
    #[serde(default)]
    pub(super) shared: bool,
    #[serde(default, rename = "router:external")]
    pub(super) external: bool,
    #[serde(default)]
    pub(super) subnets: Vec<SubnetId>,
    #[serde(default)]
    pub(super) mtu: Option<u32>,
    #[serde(default)]
    port_security_enabled: Option<bool>,
}

impl NetworkView {
    pub(super) fn is_of(&self, project: &ProjectId) -> bool {
        self.project_id.as_ref().or(self.tenant_id.as_ref()) == Some(project)
    }

    pub(super) fn port_security(&self) -> bool {
        self.port_security_enabled != Some(false)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct SubnetView {
    pub(super) id: SubnetId,
    pub(super) cidr: Cidr,
    #[serde(default)]
    pub(super) gateway_ip: Option<IpAddr>,
    #[serde(default)]
    pub(super) dns_nameservers: Vec<IpAddr>,
    #[serde(default)]
    pub(super) host_routes: Vec<HostRoute>,
    #[serde(default)]
    pub(super) enable_dhcp: bool,
    #[serde(default)]
    pub(super) ipv6_address_mode: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct FloatingIpView {
    pub(super) floating_ip_address: IpAddr,
    #[serde(default)]
    pub(super) port_id: Option<PortId>,
    #[serde(default)]
    pub(super) fixed_ip_address: Option<IpAddr>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct GroupView {
    pub(super) id: SecurityGroupId,
    #[serde(default)]
    pub(super) name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct QuotaView {
    pub(super) port: QuotaDetail,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct QuotaDetail {
    pub(super) limit: i64,
    #[serde(default)]
    pub(super) used: i64,
    #[serde(default)]
    pub(super) reserved: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct TopologyView {
    pub(super) id: NetworkId,
}
