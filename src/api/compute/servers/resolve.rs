//! From what a create request says to what it means: image, flavor, key, zone and host looked up and checked
//! (nova/compute/api.py, `_validate_and_build_base_options`).

use std::collections::BTreeMap;

use nova_core::context::RequestContext;
use nova_core::contracts::ImageServiceError;
use nova_core::flavor::Flavor;
use nova_core::host::Service;
use nova_core::ids::{FlavorId, HostName, ImageId, ServerGroupId, ZoneName};
use nova_core::image::{ImageMeta, remembered_number};
use nova_core::instance::LocalDisks;
use nova_core::keypair::Keypair;
use nova_core::server_group::group_of_hints;
use nova_core::topology::{self, GuestTopology};
use nova_db::{ServiceQuery, StoreError};

use super::body::CreateBody;
use super::disks::{Disks, disks};
use super::networks;
use super::snapshot::OF_VOLUMES;
use crate::api::compute::ComputeApi;
use crate::api::compute::quotas::InForce;
use crate::api::{ApiError, policy};

const GIB: u64 = 1 << 30;

/// A create request with everything that it refers to.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The flavor as it is now.
    pub flavor: Flavor,
    /// The image as it is now; `None`: it boots from a volume.
    pub image: Option<ImageMeta>,
    /// What its root volume remembers of an image; empty unless it boots from one.
    pub volume_image: BTreeMap<String, String>,
    /// Its volumes.
    pub disks: Disks,
    /// Its blank disks on the host, where they are not simply those of the flavor.
    pub local_disks: LocalDisks,
    /// The key pair.
    pub keypair: Option<Keypair>,
    /// Where it may go.
    pub placement: Placement,
    /// The server group that it joins.
    pub group: Option<ServerGroupId>,
    /// The NUMA cells, CPUs and pages that flavor and image ask for.
    pub topology: Option<GuestTopology>,
    /// What project and user may have.
    pub quotas: InForce,
    /// So many servers can have the interfaces that are asked for.
    pub most: u32,
}

/// Where servers of a request may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Only this zone.
    pub zone: Option<ZoneName>,
    /// Exactly this host (`zone:host`).
    pub force_host: Option<HostName>,
    /// Exactly this hypervisor (`zone:host:node`).
    pub force_node: Option<String>,
    /// This host, if it passes like any other (2.74).
    pub requested_host: Option<HostName>,
}

/// Looks everything up.
///
/// # Errors
/// 400 for what is not there, not visible or does not fit; 403 for what the caller may not ask for.
pub(crate) async fn resolve(
    api: &ComputeApi,
    context: &RequestContext,
    body: &CreateBody,
) -> Result<Resolved, ApiError> {
    let placement = placement(api, context, body).await?;
    let named = match body.image_ref.as_deref() {
        Some(text) if !text.is_empty() => Some(image(api, context, text).await?),
        _ => None,
    };
    let disks = disks(api, context, body, named.as_ref()).await?;
    let flavor = flavor(api, context, &body.flavor_ref).await?;
    if !disks.boots_from_volume() {
        check_root_disk(context, &flavor)?;
    }
    let root = usize::from(!disks.boots_from_volume());
    let local_disks = disks.asked.of_flavor(&flavor, root, api.options.get().max_local_block_devices)?;
    let quotas = api.quotas_in_force(&context.project_id, Some(&context.user_id)).await?;
    check_limits(api, &quotas, body)?;
    let mut volume_image = BTreeMap::new();
    let image = match &disks {
        disks if !disks.boots_from_volume() => {
            let image = named.ok_or_else(|| ApiError::bad_request("Missing imageRef attribute"))?;
            check_has_data(&image)?;
            check_fit(&flavor, &image)?;
            check_certificates(context, &image, body.trusted_certificates.as_deref())?;
            Some(image)
        }
        disks => {
            volume_image = root_volume_image(api, context, body, disks, named).await?;
            check_volume_fit(&flavor, disks, &volume_image)?;
            None
        }
    };
    let keypair = keypair(api, context, body).await?;
    let group = group(api, context, body).await?;
    let properties = image.as_ref().map_or(&volume_image, |image| &image.properties);
    let topology = topology::asked(&flavor.extra_specs, properties, flavor.vcpus, flavor.memory_mb);
    let topology = topology.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let most = networks::check(api, context, body).await?;
    Ok(Resolved { flavor, image, volume_image, disks, local_disks, keypair, placement, group, topology, quotas, most })
}

async fn flavor(api: &ComputeApi, context: &RequestContext, id: &str) -> Result<Flavor, ApiError> {
    let missing = || ApiError::bad_request(format!("Flavor {id} could not be found."));
    let flavor = match api.store.get_flavor(&FlavorId::new(id)).await {
        Ok(flavor) => flavor,
        Err(StoreError::NotFound { .. }) => return Err(missing()),
        Err(error) => return Err(error.into()),
    };
    let visible = context.is_admin() || flavor.visible_to(&context.project_id);
    if visible && !flavor.disabled { Ok(flavor) } else { Err(missing()) }
}

/// An image that only says of which volumes it is makes no disk.
pub(super) fn check_has_data(image: &ImageMeta) -> Result<(), ApiError> {
    if image.size > 0 {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!("Image {} is unacceptable: it has no data.", image.id)))
}

async fn image(api: &ComputeApi, context: &RequestContext, text: &str) -> Result<ImageMeta, ApiError> {
    let missing = || ApiError::bad_request("Can not find requested image");
    let id: ImageId = text.parse().map_err(|_| missing())?;
    match api.images.bootable_image(context, id).await {
        Ok(image) => Ok(image),
        Err(ImageServiceError::NotFound { .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
}

/// What is known of the image behind a root volume (nova/utils.py, `get_bdm_image_metadata`): what the named image says, or the
/// one that the volume is made of, or what the volume remembers.
async fn root_volume_image(
    api: &ComputeApi,
    context: &RequestContext,
    body: &CreateBody,
    disks: &Disks,
    named: Option<ImageMeta>,
) -> Result<BTreeMap<String, String>, ApiError> {
    if body.trusted_certificates.is_some() {
        return Err(ApiError::bad_request("Image certificate validation is not supported when booting from volume"));
    }
    if let Some(mut named) = named {
        named.properties.retain(|key, _| !OF_VOLUMES.contains(&key.as_str()));
        return Ok(named.remembered());
    }
    let Some(id) = disks.root_image else { return Ok(disks.root_remembers.clone()) };
    match api.images.bootable_image(context, id).await {
        Ok(image) => Ok(image.remembered()),
        Err(ImageServiceError::NotFound { .. }) => Err(super::mapping::wrong(&format!("failed to get image {id}."))),
        Err(error) => Err(error.into()),
    }
}

/// Memory and root volume must be what the image needs (nova/compute/api.py, `_validate_flavor_image_nostatus`). How large a volume
/// is that is there was its service's business when it was made.
fn check_volume_fit(flavor: &Flavor, disks: &Disks, remembered: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if flavor.memory_mb < remembered_number(remembered, "min_ram") {
        return Err(ApiError::bad_request("Flavor's memory is too small for requested image."));
    }
    let least = remembered_number(remembered, "min_disk").saturating_mul(GIB);
    match disks.root_gb().map(|size| size.saturating_mul(GIB)) {
        Some(size) if size < least => Err(volume_too_small(size, least)),
        _ => Ok(()),
    }
}

pub(super) fn volume_too_small(size: u64, least: u64) -> ApiError {
    ApiError::BadRequest(format!(
        "Volume is smaller than the minimum size specified in image metadata. Volume size is {size} bytes, minimum size is \
         {least} bytes."
    ))
}

async fn keypair(api: &ComputeApi, context: &RequestContext, body: &CreateBody) -> Result<Option<Keypair>, ApiError> {
    let Some(name) = &body.key_name else { return Ok(None) };
    match api.store.get_keypair(&context.user_id, name).await {
        Ok(keypair) => Ok(Some(keypair)),
        Err(StoreError::NotFound { .. }) => Err(ApiError::bad_request("Invalid key_name provided.")),
        Err(error) => Err(error.into()),
    }
}

/// Memory and root disk of the flavor must be what the image needs.
pub(super) fn check_fit(flavor: &Flavor, image: &ImageMeta) -> Result<(), ApiError> {
    if flavor.memory_mb < image.min_ram {
        return Err(ApiError::bad_request("Flavor's memory is too small for requested image."));
    }
    let disk = flavor.root_gb.saturating_mul(GIB);
    let size = image.virtual_size.max(image.size);
    // A root disk of 0 GiB is as large as the image.
    if disk > 0 && disk < size {
        return Err(ApiError::BadRequest(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {disk} bytes, image is {size} bytes."
        )));
    }
    let least = image.min_disk.saturating_mul(GIB);
    if disk > 0 && disk < least {
        return Err(ApiError::BadRequest(format!(
            "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {disk} bytes, \
             minimum size is {least} bytes."
        )));
    }
    Ok(())
}

/// Certificates are kept and shown with the server.
fn check_certificates(
    context: &RequestContext,
    image: &ImageMeta,
    certificates: Option<&[String]>,
) -> Result<(), ApiError> {
    if certificates.is_some() {
        policy::enforce("os_compute_api:servers:create:trusted_certs", context)?;
    }
    check_signature(image, certificates)
}

/// That a signed image is held against certificates cannot be promised: nothing here verifies signatures.
pub(super) fn check_signature(image: &ImageMeta, certificates: Option<&[String]>) -> Result<(), ApiError> {
    if certificates.is_none() {
        return Ok(());
    }
    if !image.properties.contains_key("img_signature") {
        return Ok(());
    }
    let certificate = image.properties.get("img_signature_certificate_uuid").map_or("", String::as_str);
    Err(ApiError::BadRequest(format!(
        "Image signature certificate validation failed for certificate: {certificate}. Signatures of images are not verified \
         here."
    )))
}

/// A root disk as large as the image is more than the flavor says: only for those whom policy trusts.
fn check_root_disk(context: &RequestContext, flavor: &Flavor) -> Result<(), ApiError> {
    let allowed = policy::enforce("os_compute_api:servers:create:zero_disk_flavor", context).is_ok();
    if flavor.root_gb > 0 || allowed {
        return Ok(());
    }
    Err(ApiError::forbidden("Only volume-backed servers are allowed for flavors with zero disk."))
}

/// Limits of a single server.
fn check_limits(api: &ComputeApi, quotas: &InForce, body: &CreateBody) -> Result<(), ApiError> {
    if let Some(allowed) = quotas.get("metadata_items").filter(|allowed| body.metadata.len() as u64 > *allowed) {
        return Err(ApiError::OverQuota(format!("Maximum number of metadata items exceeds {allowed}")));
    }
    if quotas.get("injected_files").is_some_and(|allowed| body.personality as u64 > allowed) {
        return Err(ApiError::OverQuota("Personality file limit exceeded".to_owned()));
    }
    if body.personality > 0 {
        return Err(ApiError::bad_request("Injecting files is not supported: use user_data."));
    }
    if body.max_count > api.options.get().max_servers_per_request {
        let most = api.options.get().max_servers_per_request;
        return Err(ApiError::BadRequest(format!("max_count must be <= {most}")));
    }
    if body.hostname.is_some() && body.max_count > 1 {
        return Err(ApiError::bad_request("Unable to allocate a single hostname to multiple instances"));
    }
    Ok(())
}

/// The group that the hints name: one of the caller's project.
async fn group(
    api: &ComputeApi,
    context: &RequestContext,
    body: &CreateBody,
) -> Result<Option<ServerGroupId>, ApiError> {
    let Some(hint) = body.hints.get("group") else { return Ok(None) };
    let Some(id) = group_of_hints(&body.hints) else {
        // An empty list asks for nothing; any other hint was held to be a UUID before.
        let nothing = hint.as_array().is_some_and(Vec::is_empty);
        return if nothing { Ok(None) } else { Err(no_group(hint)) };
    };
    match api.store.get_server_group(id).await {
        Ok(group) if group.project_id == context.project_id => Ok(Some(id)),
        Ok(_) | Err(StoreError::NotFound { .. }) => Err(no_group(id)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn no_group(id: impl std::fmt::Display) -> ApiError {
    ApiError::BadRequest(format!("Instance group {id} could not be found."))
}

async fn placement(api: &ComputeApi, context: &RequestContext, body: &CreateBody) -> Result<Placement, ApiError> {
    let (zone, force_host, force_node) = parse_zone(body.availability_zone.as_deref())?;
    let forced = force_host.is_some() || force_node.is_some();
    if forced {
        policy::enforce("os_compute_api:servers:create:forced_host", context)?;
    }
    let requested_host = requested_host(api, context, body, forced).await?;
    let zone = zone.or_else(|| api.options.get().default_schedule_zone.clone());
    if let Some(zone) = zone.as_ref().filter(|_| !forced) {
        check_zone(api, zone).await?;
    }
    // A forced host overrides the zone that was named with it, as in Nova since bug 1934770.
    let zone = zone.filter(|_| !forced);
    Ok(Placement { zone, force_host, force_node, requested_host })
}

async fn requested_host(
    api: &ComputeApi,
    context: &RequestContext,
    body: &CreateBody,
    forced: bool,
) -> Result<Option<HostName>, ApiError> {
    if body.host.is_none() && body.hypervisor_hostname.is_none() {
        return Ok(None);
    }
    policy::enforce("compute:servers:create:requested_destination", context)?;
    if forced {
        return Err(ApiError::bad_request(
            "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node are mutually \
             exclusive.",
        ));
    }
    let host = body.host.as_deref().map(HostName::new);
    let found = api.store.find_nodes(host.as_ref(), body.hypervisor_hostname.as_deref()).await?.into_iter().next();
    let asked = body.host.as_ref().or(body.hypervisor_hostname.as_ref()).map_or("", String::as_str);
    let missing = || ApiError::BadRequest(format!("Compute host {asked} could not be found."));
    found.map(|node| Some(node.host)).ok_or_else(missing)
}

/// Hosts that are looked at together. In a zone of any size, one of the first is there.
const AT_ONCE: usize = 100;

/// Is there a compute service in that zone that is up and not taken out?
async fn check_zone(api: &ComputeApi, zone: &ZoneName) -> Result<(), ApiError> {
    let now = api.clock.now();
    let down_time = api.options.get().service_down_time;
    let is_there = |service: &Service| !service.disabled && service.is_up(now, down_time);
    let zones = api.zones().await?;
    let made: Vec<&HostName> = zones.hosts_in(zone).collect();
    for hosts in made.chunks(AT_ONCE) {
        let services = api.store.find_services(&ServiceQuery::computes(hosts.iter().copied())).await?;
        if services.iter().any(is_there) {
            return Ok(());
        }
    }
    // And those that say so themselves, where no aggregate says something else.
    let mut query =
        ServiceQuery { hosts: None, zone: Some(zone.clone()), limit: Some(AT_ONCE), ..ServiceQuery::computes([]) };
    loop {
        let services = api.store.find_services(&query).await?;
        if services.iter().any(|service| is_there(service) && zones.made(&service.host).is_none()) {
            return Ok(());
        }
        match services.last().filter(|_| services.len() == AT_ONCE) {
            Some(last) => query.after = Some(last.host.clone()),
            None => return Err(ApiError::bad_request("The requested availability zone is not available")),
        }
    }
}

type Destination = (Option<ZoneName>, Option<HostName>, Option<String>);

/// `zone`, `zone:host`, `zone:host:node`, `zone::node` (nova/compute/api.py, `parse_availability_zone`).
fn parse_zone(text: Option<&str>) -> Result<Destination, ApiError> {
    let Some(text) = text else { return Ok((None, None, None)) };
    let parts: Vec<&str> = text.split(':').collect();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (zone, host, node) = match parts.as_slice() {
        [zone] => (*zone, None, None),
        [zone, host] => (*zone, some(host), None),
        [zone, host, node] => (*zone, some(host), some(node)),
        _ => return Err(ApiError::bad_request("Invalid input received: Unable to parse availability_zone")),
    };
    Ok((some(zone).map(ZoneName::new), host.map(HostName::new), node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_may_name_host_and_node() {
        let zone = |text| parse_zone(Some(text)).unwrap();
        assert_eq!(zone("az"), (Some("az".into()), None, None));
        assert_eq!(zone("az:h"), (Some("az".into()), Some("h".into()), None));
        assert_eq!(zone("az:h:n"), (Some("az".into()), Some("h".into()), Some("n".into())));
        assert_eq!(zone("az::n"), (Some("az".into()), None, Some("n".into())));
        assert_eq!(zone(":h"), (None, Some("h".into()), None));
        assert!(parse_zone(Some("a:b:c:d")).is_err());
    }
}
