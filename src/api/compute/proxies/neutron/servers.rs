//! Groups and fixed addresses of servers' ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nova_core::ids::{InstanceId, NetworkId};
use nova_core::instance::Instance;
use serde_json::{Value, json};

use super::{Passed, list, refused, text};
use crate::api::ApiError;
use crate::network::{NeutronError, Objects};

impl Passed<'_> {
    /// The server's ports, as Neutron writes them.
    pub(super) async fn ports_of(&self, server: InstanceId) -> Result<Vec<Value>, ApiError> {
        let mut ports = self.find(Objects::PORTS, &[("device_id", &server.to_string())]).await?;
        // Anybody may write a server's id into a port of theirs; only compute says that it is the server's.
        ports.retain(|port| text(port, "device_owner").starts_with("compute:"));
        Ok(ports)
    }

    async fn change_port(&self, port: &Value, body: Value) -> Result<(), ApiError> {
        match self.neutron.change(Objects::PORTS, text(port, "id"), body).await {
            // Gone meanwhile.
            Err(NeutronError::Refused { status, .. }) if status == http::StatusCode::NOT_FOUND => Ok(()),
            answer => answer.map(drop).map_err(refused),
        }
    }

    /// The groups of the server's ports, as they are shown.
    pub(in crate::api::compute) async fn groups_of(&self, server: InstanceId) -> Result<Vec<Value>, ApiError> {
        let ports = self.ports_of(server).await?;
        let ids: BTreeSet<&str> =
            ports.iter().flat_map(|port| list(port, "security_groups")).filter_map(Value::as_str).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        self.group_views_by_id(&ids).await
    }

    /// The ports of a server that is to have groups.
    async fn ports_for_groups(&self, server: &Instance) -> Result<Vec<Value>, ApiError> {
        let ports = self.ports_of(server.id).await?;
        if ports.is_empty() {
            let id = server.id;
            return Err(ApiError::NotFound(format!(
                "Security group: instance_id {id} could not be found as device id on any ports"
            )));
        }
        Ok(ports)
    }

    /// Gives all ports of the server that may have groups one more.
    pub(in crate::api::compute) async fn add_group(&self, server: &Instance, name: &str) -> Result<(), ApiError> {
        let group = self.group_named(server.project_id.as_str(), name).await?["id"].take();
        let mut applied = false;
        for port in self.ports_for_groups(server).await? {
            // Without port security, or without an address, groups mean nothing.
            if port["port_security_enabled"] == false || list(&port, "fixed_ips").next().is_none() {
                continue;
            }
            applied = true;
            let mut groups: Vec<Value> = list(&port, "security_groups").cloned().collect();
            if !groups.contains(&group) {
                groups.push(group.clone());
                self.change_port(&port, json!({ "security_groups": groups })).await?;
            }
        }
        if applied {
            return Ok(());
        }
        Err(ApiError::bad_request(
            "Network requires port_security_enabled and subnet associated in order to apply security groups.",
        ))
    }

    /// Takes a group from all ports of the server that have it.
    pub(in crate::api::compute) async fn remove_group(&self, server: &Instance, name: &str) -> Result<(), ApiError> {
        let group = self.group_named(server.project_id.as_str(), name).await?["id"].take();
        let mut found = false;
        for port in self.ports_for_groups(server).await? {
            let groups: Vec<&Value> = list(&port, "security_groups").collect();
            if groups.contains(&&group) {
                found = true;
                let rest: Vec<&Value> = groups.into_iter().filter(|one| **one != group).collect();
                self.change_port(&port, json!({ "security_groups": rest })).await?;
            }
        }
        if found {
            return Ok(());
        }
        let id = server.id;
        Err(ApiError::NotFound(format!("Security group {name} not associated with the instance {id}")))
    }

    /// One more address on a network that the server is on.
    pub(in crate::api::compute) async fn add_fixed_ip(
        &self,
        server: &Instance,
        network: Option<NetworkId>,
    ) -> Result<(), ApiError> {
        let missing = || ApiError::NotFound(format!("Network could not be found for instance {}.", server.id));
        let network = network.ok_or_else(missing)?.to_string();
        let ports = self.ports_of(server.id).await?;
        let port = ports.iter().find(|port| port["network_id"] == *network).ok_or_else(missing)?;
        let subnets = self.find(Objects::SUBNETS, &[("network_id", &network)]).await?;
        let subnet = subnets.first().ok_or_else(missing)?;
        let mut wanted: Vec<Value> = list(port, "fixed_ips").cloned().collect();
        wanted.push(json!({"subnet_id": subnet["id"]}));
        self.change_port(port, json!({ "fixed_ips": wanted })).await
    }

    /// Takes an address from the server.
    pub(in crate::api::compute) async fn remove_fixed_ip(
        &self,
        server: &Instance,
        address: IpAddr,
    ) -> Result<(), ApiError> {
        let is_it = |fixed: &Value| text(fixed, "ip_address").parse() == Ok(address);
        let ports = self.ports_of(server.id).await?;
        let missing = || ApiError::BadRequest(format!("Instance {} doesn't have fixed IP '{address}'.", server.id));
        let port = ports.iter().find(|port| list(port, "fixed_ips").any(is_it)).ok_or_else(missing)?;
        let rest: Vec<&Value> = list(port, "fixed_ips").filter(|fixed| !is_it(fixed)).collect();
        self.change_port(port, json!({ "fixed_ips": rest })).await
    }
}
