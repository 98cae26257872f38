//! The body of `POST /servers`, read as strictly as Nova's schemas of each version read it
//! (nova/api/openstack/compute/schemas/servers.py, `create` … `create_v294`).

use std::collections::{BTreeMap, BTreeSet};

use nova_core::network::{RequestedInterface, RequestedNetworks};
use serde_json::Value;

use super::fields::{self, Addresses};
use super::mapping::{self, Mapping};
use crate::api::validate::{Fields, Text, invalid};
use crate::api::{ApiError, Microversion};

/// What a client asks for, as far as the body alone can be wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CreateBody {
    /// Display name.
    pub name: String,
    /// Image id, as given; empty or missing for boot from volume.
    pub image_ref: Option<String>,
    /// Flavor id.
    pub flavor_ref: String,
    /// Password to be set.
    pub admin_pass: Option<String>,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
    /// What interfaces are asked for.
    pub networks: RequestedNetworks,
    /// AUTO.
    pub auto_disk_config: bool,
    /// Addresses for display.
    pub addresses: Addresses,
    /// `az[:host[:node]]`.
    pub availability_zone: Option<String>,
    /// Disks beyond the image's own, and the image's own as the CLI sends it.
    pub mappings: Vec<Mapping>,
    /// Devices of the image's own mappings that are not to be.
    pub nothing_at: Vec<String>,
    /// Make a config drive.
    pub config_drive: bool,
    /// Name of a key pair.
    pub key_name: Option<String>,
    /// At least that many servers.
    pub min_count: u32,
    /// At most that many servers.
    pub max_count: u32,
    /// Answer with the reservation's id.
    pub return_reservation_id: bool,
    /// Names of security groups; `None` if not given.
    pub security_groups: Option<Vec<String>>,
    /// Base64.
    pub user_data: Option<String>,
    /// Files to be injected (until 2.56).
    pub personality: usize,
    /// Free text (2.19).
    pub description: Option<String>,
    /// Tags (2.52).
    pub tags: BTreeSet<String>,
    /// This host, if it passes like any other (2.74).
    pub host: Option<String>,
    /// This hypervisor, if it passes like any other (2.74).
    pub hypervisor_hostname: Option<String>,
    /// The guest's own name (2.90).
    pub hostname: Option<String>,
    /// Certificates that a signed image is to be held against (2.63).
    pub trusted_certificates: Option<Vec<String>>,
    /// `os:scheduler_hints`.
    pub hints: BTreeMap<String, Value>,
}

/// Reads the body. `lenient` is the `/v2` mode: unknown keys are let through, blanks around names are cut off.
///
/// # Errors
/// 400 that names the field.
pub fn parse(body: &Value, version: Microversion, lenient: bool) -> Result<CreateBody, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let mut server = root.object("server")?;
    let hints = match root.get("os:scheduler_hints") {
        Some(hints) => Some(hints),
        None => root.get("OS-SCH-HNT:scheduler_hints"),
    };
    // Known even if the other spelling is there as well.
    let _ = root.get("OS-SCH-HNT:scheduler_hints");
    let mut out = CreateBody {
        hints: hints.map(fields::hints).transpose()?.unwrap_or_default(),
        ..required(&mut server, lenient)?
    };
    common(&mut server, &mut out, lenient)?;
    counts(&mut server, &mut out)?;
    placement(&mut server, &mut out, version, lenient)?;
    disks(&mut server, &mut out, version)?;
    out.networks = networks(&mut server, version)?;
    by_version(&mut server, &mut out, version)?;
    server.finish()?;
    root.finish()?;
    Ok(out)
}

fn required(server: &mut Fields<'_>, lenient: bool) -> Result<CreateBody, ApiError> {
    let name = fields::name(server, "name", lenient)?;
    let name = name.ok_or_else(|| server.refuse("'name' is a required property"))?;
    let flavor_ref = fields::reference("flavorRef", server.required("flavorRef")?)?;
    Ok(CreateBody { name, flavor_ref, min_count: 1, max_count: 1, ..CreateBody::default() })
}

fn common(server: &mut Fields<'_>, out: &mut CreateBody, lenient: bool) -> Result<(), ApiError> {
    out.image_ref = server.get("imageRef").map(|value| fields::image_ref("imageRef", value)).transpose()?;
    out.admin_pass = server.text("adminPass", Text::new(0, usize::MAX))?.map(str::to_owned);
    out.metadata =
        server.get("metadata").map(|value| fields::metadata("metadata", value)).transpose()?.unwrap_or_default();
    out.auto_disk_config = fields::disk_config(server)?.unwrap_or(false);
    out.addresses = fields::addresses(server)?;
    out.config_drive = server.boolean("config_drive")?.unwrap_or(false);
    out.key_name = fields::name(server, "key_name", lenient)?;
    out.return_reservation_id = server.boolean("return_reservation_id")?.unwrap_or(false);
    out.security_groups = security_groups(server, lenient)?;
    out.user_data = fields::user_data(server, lenient)?;
    Ok(())
}

fn counts(server: &mut Fields<'_>, out: &mut CreateBody) -> Result<(), ApiError> {
    let most = i64::from(i32::MAX);
    let min = server.integer("min_count", 1, most)?;
    let max = server.integer("max_count", 1, most)?;
    let min = min.unwrap_or(1);
    let max = max.unwrap_or(min);
    if min > max {
        return Err(ApiError::bad_request("min_count must be <= max_count"));
    }
    out.min_count = u32::try_from(min).unwrap_or(u32::MAX);
    out.max_count = u32::try_from(max).unwrap_or(u32::MAX);
    Ok(())
}

fn placement(
    server: &mut Fields<'_>,
    out: &mut CreateBody,
    version: Microversion,
    lenient: bool,
) -> Result<(), ApiError> {
    out.availability_zone = fields::name(server, "availability_zone", lenient)?;
    if version.at_least(74) {
        out.host = fields::fqdn(server, "host")?;
        out.hypervisor_hostname = fields::fqdn(server, "hypervisor_hostname")?;
    }
    Ok(())
}

fn disks(server: &mut Fields<'_>, out: &mut CreateBody, version: Microversion) -> Result<(), ApiError> {
    let legacy = server.list("block_device_mapping", usize::MAX)?;
    let current = server.list("block_device_mapping_v2", usize::MAX)?;
    if legacy.is_some() && current.is_some() {
        return Err(ApiError::bad_request(
            "Using different block_device_mapping syntaxes is not allowed in the same request.",
        ));
    }
    let has_image = out.image_ref.as_deref().is_some_and(|image| !image.is_empty());
    let read: Vec<Option<Mapping>> = match (legacy, current) {
        (Some(list), _) => list.iter().map(mapping::legacy).collect::<Result<_, _>>()?,
        (None, Some(list)) => {
            list.iter().map(|item| mapping::current(item, version, has_image)).collect::<Result<_, _>>()?
        }
        (None, None) => Vec::new(),
    };
    out.nothing_at = legacy.or(current).unwrap_or_default().iter().filter_map(mapping::nothing_at).collect();
    out.mappings = read.into_iter().flatten().collect();
    if version.before(57) {
        out.personality = fields::personality(server)?;
    }
    Ok(())
}

fn by_version(server: &mut Fields<'_>, out: &mut CreateBody, version: Microversion) -> Result<(), ApiError> {
    if version.at_least(19) {
        out.description = fields::description(server)?.flatten();
    } else {
        // Until 2.18, the description is the name.
        out.description = Some(out.name.clone());
    }
    if version.at_least(52) {
        out.tags = fields::tags(server)?;
    }
    if version.at_least(63) {
        out.trusted_certificates = fields::trusted_certificates(server)?;
    }
    if version.at_least(90) {
        out.hostname = fields::hostname(server, version)?;
    }
    Ok(())
}

fn security_groups(server: &mut Fields<'_>, lenient: bool) -> Result<Option<Vec<String>>, ApiError> {
    let Some(list) = server.list("security_groups", usize::MAX)? else { return Ok(None) };
    let mut names = BTreeSet::new();
    for item in list {
        let mut group = Fields::of("security_groups", item, lenient)?;
        names.extend(fields::name(&mut group, "name", lenient)?);
        group.finish()?;
    }
    Ok(Some(names.into_iter().collect()))
}

/// `networks`: a list, from 2.37 on also `auto` or `none`, and then it must be there. An empty list says nothing.
fn networks(server: &mut Fields<'_>, version: Microversion) -> Result<RequestedNetworks, ApiError> {
    let value = if version.at_least(37) { Some(server.required("networks")?) } else { server.get("networks") };
    match value {
        None => Ok(RequestedNetworks::Unsaid),
        Some(Value::String(word)) if version.at_least(37) && word == "auto" => Ok(RequestedNetworks::Auto),
        Some(Value::String(word)) if version.at_least(37) && word == "none" => Ok(RequestedNetworks::Nothing),
        Some(Value::Array(list)) if list.is_empty() => Ok(RequestedNetworks::Unsaid),
        Some(Value::Array(list)) => {
            list.iter().map(|item| network(item, version)).collect::<Result<_, _>>().map(RequestedNetworks::These)
        }
        Some(value) => Err(invalid("networks", value, "it is not valid under any of the given schemas")),
    }
}

fn network(item: &Value, version: Microversion) -> Result<RequestedInterface, ApiError> {
    let mut network = Fields::of("networks", item, false)?;
    let port = network.nullable_text("port", Text::new(0, usize::MAX))?.flatten();
    let uuid = network.text("uuid", Text::new(0, usize::MAX))?;
    let mut wanted =
        RequestedInterface { fixed_ip: fields::ip_address(&mut network, "fixed_ip")?, ..Default::default() };
    if (32..=36).contains(&version.0) || version.at_least(42) {
        wanted.tag = network.get("tag").map(|tag| fields::tag("tag", tag)).transpose()?;
    }
    network.finish()?;
    match (port, uuid) {
        (Some(port), _) => {
            let id = port.parse().map_err(|_| invalid("networks", item, format_args!("'{port}' is not a 'uuid'")))?;
            if let Some(address) = wanted.fixed_ip {
                return Err(ApiError::BadRequest(format!(
                    "Specified Fixed IP '{address}' cannot be used with port '{id}': the two cannot be specified together."
                )));
            }
            wanted.port_id = Some(id);
        }
        (None, Some(uuid)) => {
            let wrong = |_| {
                let shown: String = uuid.chars().take(255).collect();
                ApiError::BadRequest(format!("Bad networks format: network uuid is not in proper format ({shown})"))
            };
            wanted.network_id = Some(uuid.parse().map_err(wrong)?);
        }
        (None, None) => return Err(ApiError::bad_request("Bad network format: missing 'uuid'")),
    }
    Ok(wanted)
}
