//! What a create request asks of the network, and what servers show of it: addresses and security groups.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::context::RequestContext;
use nova_core::ids::{InstanceId, SecurityGroupId};
use nova_core::instance::Instance;
use nova_core::network::{IpVersion, NetworkServiceError, RequestedNetworks, Vif};
use serde_json::{Map, Value, json};

use super::body::CreateBody;
use crate::api::compute::ComputeApi;
use crate::api::{ApiError, policy};

/// The group that every project has, and that nobody needs to look up.
const DEFAULT_GROUP: &str = "default";

/// Can the servers have what is asked for? How many of them can, at least `min_count`. Takes nothing.
///
/// # Errors
/// Nova's answers (nova/api/openstack/compute/servers.py, `create`).
pub(super) async fn check(api: &ComputeApi, context: &RequestContext, body: &CreateBody) -> Result<u32, ApiError> {
    if let RequestedNetworks::These(interfaces) = &body.networks {
        policy::enforce("os_compute_api:servers:create:attach_network", context)?;
        let (mut ports, mut addresses) =
            (interfaces.iter().filter_map(|i| i.port_id), interfaces.iter().filter_map(|i| i.fixed_ip));
        if body.max_count > 1 && addresses.next().is_some() {
            let reason = "max_count cannot be greater than 1 if an fixed_ip is specified.";
            return Err(ApiError::BadRequest(format!("Failed to launch instances: {reason}")));
        }
        if body.max_count > 1 && ports.next().is_some() {
            let reason = "Unable to launch multiple instances with a single configured port ID. Please launch your \
                          instance one by one with different ports.";
            return Err(ApiError::BadRequest(format!("Failed to launch instances: {reason}")));
        }
    }
    check_groups(api, context, body).await?;
    most(api, context, body).await.map_err(refused)
}

/// The largest number, up to `max_count`, for which the project may have ports.
async fn most(api: &ComputeApi, context: &RequestContext, body: &CreateBody) -> Result<u32, NetworkServiceError> {
    match api.network.validate(context, &body.networks, body.max_count).await {
        Ok(()) => return Ok(body.max_count),
        Err(NetworkServiceError::OverQuota) if body.min_count < body.max_count => {}
        Err(error) => return Err(error),
    }
    api.network.validate(context, &body.networks, body.min_count).await?;
    let (mut fits, mut too_many) = (body.min_count, body.max_count);
    while fits + 1 < too_many {
        let middle = fits.midpoint(too_many);
        match api.network.validate(context, &body.networks, middle).await {
            Ok(()) => fits = middle,
            Err(NetworkServiceError::OverQuota) => too_many = middle,
            Err(error) => return Err(error),
        }
    }
    Ok(fits)
}

/// Groups are the project's own, by id or by a name that only one of them has.
async fn check_groups(api: &ComputeApi, context: &RequestContext, body: &CreateBody) -> Result<(), ApiError> {
    let named: Vec<&String> = body.security_groups.iter().flatten().filter(|name| *name != DEFAULT_GROUP).collect();
    let (Some(books), false) = (&api.books, named.is_empty()) else { return Ok(()) };
    for name in named {
        books.group_named(&context.project_id, name).await.map_err(refused)?;
    }
    Ok(())
}

/// What the network service says, as a create request is answered.
fn refused(error: NetworkServiceError) -> ApiError {
    match error {
        NetworkServiceError::OverQuota => ApiError::OverQuota(error.to_string()),
        NetworkServiceError::External { .. } => ApiError::Forbidden(error.to_string()),
        NetworkServiceError::PortInUse { .. }
        | NetworkServiceError::Ambiguous
        | NetworkServiceError::ManySecurityGroups { .. } => ApiError::Conflict(error.to_string()),
        NetworkServiceError::Unavailable { source } => unavailable(&*source),
        other => ApiError::BadRequest(other.to_string()),
    }
}

/// 503, and the cause for the log.
pub(in crate::api::compute) fn unavailable(source: &(dyn std::error::Error + 'static)) -> ApiError {
    tracing::error!(error = source, "the network service does not answer");
    ApiError::Unavailable { retry_after: 1 }
}

/// What a server shows of its network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerNetworks {
    /// Its interfaces, in order.
    pub vifs: Vec<Vif>,
    /// Names of the groups of its ports.
    pub groups: BTreeSet<String>,
}

impl ServerNetworks {
    /// `addresses`: for each network the fixed addresses, then the floating ones
    /// (nova/api/openstack/compute/views/addresses.py). `extended` adds kind and MAC address.
    pub fn addresses(&self, extended: bool) -> Value {
        let mut networks: Map<String, Value> = Map::new();
        for floating in [false, true] {
            for vif in &self.vifs {
                let of = networks.entry(vif.label.clone()).or_insert_with(|| json!([]));
                let Some(list) = of.as_array_mut() else { continue };
                for held in &vif.addresses {
                    let shown = if floating { &held.floating[..] } else { std::slice::from_ref(&held.address) };
                    for address in shown {
                        let mut item = json!({"version": IpVersion::of(*address).number(), "addr": address});
                        if extended {
                            item["OS-EXT-IPS:type"] = json!(if floating { "floating" } else { "fixed" });
                            item["OS-EXT-IPS-MAC:mac_addr"] = json!(vif.mac_address);
                        }
                        list.push(item);
                    }
                }
            }
        }
        Value::Object(networks)
    }
}

impl ComputeApi {
    /// What servers show of their networks: few questions, however many servers. Servers without interfaces are left out.
    pub(in crate::api::compute) async fn networks_of<'a>(
        &self,
        context: &RequestContext,
        servers: impl IntoIterator<Item = &'a Instance>,
    ) -> Result<BTreeMap<InstanceId, ServerNetworks>, ApiError> {
        let ids: Vec<InstanceId> = servers.into_iter().map(|server| server.id).collect();
        let mut all: BTreeMap<InstanceId, ServerNetworks> = BTreeMap::new();
        if ids.is_empty() {
            return Ok(all);
        }
        let Some(books) = &self.books else {
            for (id, vif) in self.network.interfaces(context, &ids).await.map_err(failed)? {
                all.entry(id).or_default().vifs.push(vif);
            }
            return Ok(all);
        };
        let found = books.interfaces_and_groups(&ids).await.map_err(failed)?;
        let used: BTreeSet<SecurityGroupId> = found.iter().flat_map(|(_, _, groups)| groups).copied().collect();
        let names = books.group_names(&used).await?;
        for (id, vif, groups) in found {
            let shown = all.entry(id).or_default();
            shown.vifs.push(vif);
            shown.groups.extend(groups.iter().filter_map(|group| names.get(group)).cloned());
        }
        Ok(all)
    }

    /// The same of one server.
    pub(in crate::api::compute) async fn networks_of_one(
        &self,
        context: &RequestContext,
        server: &Instance,
    ) -> Result<ServerNetworks, ApiError> {
        Ok(self.networks_of(context, [server]).await?.remove(&server.id).unwrap_or_default())
    }
}

/// A question that the network service did not answer.
fn failed(error: NetworkServiceError) -> ApiError {
    match error {
        NetworkServiceError::Unavailable { source } => unavailable(&*source),
        error => ApiError::internal(error),
    }
}
