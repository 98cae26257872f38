//! Floating addresses and their pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nova_core::ids::FloatingIpId;
use nova_core::instance::Instance;
use serde_json::{Value, json};

use super::{Passed, refused, text};
use crate::api::ApiError;
use crate::network::{NeutronError, Objects};

/// Ids that one request names.
const AT_ONCE: usize = 100;

/// How a network is called, by its name or else its id.
fn pool_name(network: &Value) -> &str {
    match text(network, "name") {
        "" => text(network, "id"),
        name => name,
    }
}

impl Passed<'_> {
    async fn outer(&self) -> Result<Vec<Value>, ApiError> {
        self.find(Objects::NETWORKS, &[("router:external", "True")]).await
    }

    /// Outer networks.
    pub(in crate::api::compute) async fn pools(&self) -> Result<Vec<Value>, ApiError> {
        Ok(self.outer().await?.iter().map(|network| json!({"name": pool_name(network)})).collect())
    }

    /// The caller's, as they are shown.
    pub(in crate::api::compute) async fn floating_ips(&self) -> Result<Vec<Value>, ApiError> {
        let own = self.find(Objects::FLOATING_IPS, &[("project_id", self.context.project_id.as_str())]).await?;
        self.floating_views(&own).await
    }

    /// One of the caller's.
    pub(in crate::api::compute) async fn floating_ip(&self, id: FloatingIpId) -> Result<Option<Value>, ApiError> {
        match self.own_floating_ip(id).await? {
            Some(found) => Ok(self.floating_views(&[found]).await?.pop()),
            None => Ok(None),
        }
    }

    async fn own_floating_ip(&self, id: FloatingIpId) -> Result<Option<Value>, ApiError> {
        let found = self.neutron.show(Objects::FLOATING_IPS, id).await.map_err(refused)?;
        Ok(found.filter(|one| self.may_see(one)))
    }

    async fn floating_views(&self, floating: &[Value]) -> Result<Vec<Value>, ApiError> {
        let outer = self.outer().await?;
        let pool = |id: &Value| {
            let named = outer.iter().find(|network| network["id"] == *id).map(pool_name);
            named.or(id.as_str()).unwrap_or_default().to_owned()
        };
        let ids: BTreeSet<&str> = floating.iter().filter_map(|one| one["port_id"].as_str()).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let mut servers: BTreeMap<String, String> = BTreeMap::new();
        for some in ids.chunks(AT_ONCE) {
            let query: Vec<(&str, &str)> = some.iter().map(|id| ("id", *id)).collect();
            for port in self.find(Objects::PORTS, &query).await? {
                servers.insert(text(&port, "id").to_owned(), text(&port, "device_id").to_owned());
            }
        }
        let view = |one: &Value| {
            json!({
                "id": one["id"],
                "ip": one["floating_ip_address"],
                "pool": pool(&one["floating_network_id"]),
                "fixed_ip": one["fixed_ip_address"],
                "instance_id": one["port_id"].as_str().and_then(|id| servers.get(id)).filter(|id| !id.is_empty()),
            })
        };
        Ok(floating.iter().map(view).collect())
    }

    /// A new one of that pool, or of the default one.
    pub(in crate::api::compute) async fn create_floating_ip(&self, pool: Option<&str>) -> Result<Value, ApiError> {
        let pool = pool.unwrap_or_else(|| self.neutron.default_pool());
        let mut outer = self.outer().await?;
        outer.retain(|network| network["name"] == pool || network["id"] == pool);
        let network = match (outer.pop(), outer.is_empty()) {
            (Some(network), true) => network,
            _ => return Err(ApiError::not_found("Floating IP pool not found.")),
        };
        let body = json!({"floating_network_id": network["id"], "project_id": self.context.project_id});
        let made = self.neutron.create(Objects::FLOATING_IPS, body).await.map_err(|error| match error {
            NeutronError::Refused { kind, .. } if kind == "OverQuota" => {
                ApiError::OverQuota(format!("IP allocation over quota in pool {pool}."))
            }
            NeutronError::Refused { kind, .. }
                if ["IpAddressGenerationFailure", "ExternalIpAddressExhausted"].contains(&kind.as_str()) =>
            {
                ApiError::NotFound(format!("No more floating IPs in pool {pool}."))
            }
            other => refused(other),
        })?;
        Ok(self.floating_views(&[made]).await?.pop().unwrap_or_default())
    }

    /// Gives one of the caller's back. False: there is none.
    pub(in crate::api::compute) async fn delete_floating_ip(&self, id: FloatingIpId) -> Result<bool, ApiError> {
        if self.own_floating_ip(id).await?.is_none() {
            return Ok(false);
        }
        self.neutron.remove(Objects::FLOATING_IPS, id).await.map_err(refused)?;
        Ok(true)
    }

    async fn floating_by_address(&self, address: IpAddr) -> Result<Value, ApiError> {
        let found = self.find(Objects::FLOATING_IPS, &[("floating_ip_address", &address.to_string())]).await?;
        let own = found.into_iter().find(|one| self.may_see(one));
        own.ok_or_else(|| ApiError::not_found("floating IP not found"))
    }

    /// Has it stand for that port's address, or for none.
    async fn associate(&self, floating: &Value, target: Option<(&Value, IpAddr)>) -> Result<(), NeutronError> {
        let body = match target {
            Some((port, fixed)) => json!({"port_id": port["id"], "fixed_ip_address": fixed}),
            None => json!({ "port_id": null }),
        };
        self.neutron.change(Objects::FLOATING_IPS, text(floating, "id"), body).await.map(drop)
    }

    /// Has the caller's address stand for one of the server's: the named one, or its first of version 4.
    pub(in crate::api::compute) async fn add_floating_ip(
        &self,
        server: &Instance,
        address: IpAddr,
        wanted: Option<IpAddr>,
    ) -> Result<(), ApiError> {
        let ports = self.ports_of(server.id).await?;
        let (port, fixed) = target(server, &ports, address, wanted)?;
        let floating = self.floating_by_address(address).await?;
        self.associate(&floating, Some((port, fixed))).await.map_err(|error| match error {
            NeutronError::Refused { status, message, .. } if status.is_client_error() => ApiError::BadRequest(format!(
                "Unable to associate floating IP {address} to fixed IP {fixed} for instance {}. Error: {message}",
                server.id
            )),
            other => refused(other),
        })
    }

    /// Has it stand for nothing any more.
    pub(in crate::api::compute) async fn remove_floating_ip(
        &self,
        server: &Instance,
        address: IpAddr,
    ) -> Result<(), ApiError> {
        let ports = self.ports_of(server.id).await?;
        let floating = self.floating_by_address(address).await?;
        if !ports.iter().any(|port| port["id"] == floating["port_id"]) {
            let id = server.id;
            return Err(ApiError::Conflict(format!("Floating IP {address} is not associated with instance {id}.")));
        }
        self.associate(&floating, None).await.map_err(refused)
    }
}

/// The port and address that a floating address is to stand for.
fn target<'p>(
    server: &Instance,
    ports: &'p [Value],
    address: IpAddr,
    wanted: Option<IpAddr>,
) -> Result<(&'p Value, IpAddr), ApiError> {
    if ports.is_empty() {
        return Err(ApiError::bad_request("Instance network is not ready yet"));
    }
    let fixed = |port: &'p Value| {
        super::list(port, "fixed_ips").filter_map(move |fixed| Some((port, text(fixed, "ip_address").parse().ok()?)))
    };
    let all: Vec<(&Value, IpAddr)> = ports.iter().flat_map(fixed).collect();
    if all.is_empty() {
        return Err(ApiError::bad_request("No fixed IPs associated to instance"));
    }
    let found = match wanted {
        Some(wanted) => all.into_iter().find(|(_, fixed)| *fixed == wanted),
        None => all.into_iter().find(|(_, fixed)| fixed.is_ipv4()),
    };
    found.ok_or_else(|| match wanted {
        Some(_) => ApiError::bad_request("Specified fixed address not assigned to instance"),
        None => ApiError::BadRequest(format!(
            "Unable to associate floating IP {address} to any fixed IPs for instance {}. Instance has no fixed IPv4 \
             addresses to associate.",
            server.id
        )),
    })
}
