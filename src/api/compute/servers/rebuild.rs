//! `rebuild` (nova/api/openstack/compute/servers.py, `_action_rebuild`; nova/compute/api.py, `rebuild`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{StatusCode, header};
use nova_core::context::RequestContext;
use nova_core::contracts::ImageServiceError;
use nova_core::ids::ImageId;
use nova_core::image::ImageMeta;
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_core::task::Work;
use nova_core::topology;
use nova_core::volume::{BlockVolume, GIB};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::actions::{Besides, Start};
use super::fields::{self, Addresses};
use super::resolve::{check_fit, check_has_data, check_signature, volume_too_small};
use super::view::Place;
use super::{Servers, owner};
use crate::api::compute::quotas::InForce;
use crate::api::compute::volume_attachments::refused;
use crate::api::validate::{Fields, Text};
use crate::api::{ApiError, HandlerResult, Microversion, Request, Response, policy};

const RULE: &str = "os_compute_api:servers:rebuild";

/// What the body says. Outer `None`: not said; inner `None`: taken away.
#[derive(Debug, Default, PartialEq)]
struct Body {
    image: String,
    admin_pass: Option<String>,
    name: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    addresses: Addresses,
    auto_disk_config: Option<bool>,
    preserve_ephemeral: bool,
    personality: usize,
    description: Option<Option<String>>,
    key_name: Option<Option<String>>,
    user_data: Option<Option<String>>,
    trusted_certificates: Option<Option<Vec<String>>>,
    hostname: Option<String>,
}

impl Servers {
    pub(super) async fn rebuild(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let body = parse(&body, request.version, request.lenient)?;
        let context = request.context()?;
        let id = request.param("id");
        let instance = self.api.visible_instance(context, id).await?;
        policy::enforce_on(RULE, context, owner(&instance))?;
        if body.trusted_certificates.as_ref().is_some_and(Option::is_some) {
            policy::enforce_on("os_compute_api:servers:rebuild:trusted_certs", context, owner(&instance))?;
        }
        let quotas = self.api.quotas_in_force(&instance.project_id, None).await?;
        check_limits(&quotas, &body)?;
        let image = self.rebuild_image(context, &body).await?;
        check_has_data(&image)?;
        let certificates = body.trusted_certificates.clone().unwrap_or_else(|| instance.trusted_certs());
        check_signature(&image, certificates.as_deref())?;
        let reimages = instance.root_volume().is_some() && request.version.at_least(93);
        if let Some(root) = instance.root_volume() {
            let volume = self.api.block_storage()?.volume(context, root.volume_id).await.map_err(refused)?;
            check_volume(&instance, &volume, &image, reimages)?;
        } else {
            check_fit(&instance.flavor, &image)?;
            check_same_place(&instance, &image)?;
        }
        let key = self.key(&instance, &body).await?;
        let password = self.password(body.admin_pass.clone());
        let work = Work::Rebuild {
            previous_image: None,
            preserve_ephemeral: body.preserve_ephemeral,
            admin_password: Some(password.clone()),
            stopped: false,
            reimage: reimages.then_some(image.id),
            previous_volume_image: None,
        };
        let change = |instance: &mut Instance, work: &mut Work| {
            if let Work::Rebuild { previous_image, stopped, previous_volume_image, .. } = work {
                *previous_image = instance.image.clone().filter(|before| before.id != image.id);
                *stopped = instance.vm_state == VmState::Stopped;
                if reimages {
                    *previous_volume_image = Some(std::mem::replace(&mut instance.volume_image, image.remembered()));
                }
            }
            body.apply(instance, &image, key.as_ref());
            Ok(())
        };
        let besides = Besides { change: Some(&change), ..Besides::default() };
        self.api
            .begin_with(&request, Start { rule: RULE, action: Action::Rebuild, work, supersede: false }, besides)
            .await?;
        self.rebuilt(&request, &password).await
    }

    async fn rebuilt(&self, request: &Request, password: &str) -> HandlerResult {
        let id = request.param("id");
        let instance = self.api.visible_instance(request.context()?, id).await?;
        let mut server = self.api.shown(request, &instance, Place::Rebuild).await?;
        if self.api.options.get().enable_instance_password {
            server["adminPass"] = json!(password);
        }
        let location = format!("{}/servers/{id}", request.base_url);
        let answer = Response::json(StatusCode::ACCEPTED, &json!({"server": server}));
        Ok(answer.header(header::LOCATION, &location))
    }

    async fn rebuild_image(&self, context: &RequestContext, body: &Body) -> Result<ImageMeta, ApiError> {
        let missing = || ApiError::bad_request("Cannot find image for rebuild");
        let id: ImageId = body.image.parse().map_err(|_| missing())?;
        match self.api.images.bootable_image(context, id).await {
            Ok(image) => Ok(image),
            Err(ImageServiceError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    /// The key that is named: one of the server's owner, whoever asks.
    async fn key(&self, instance: &Instance, body: &Body) -> Result<Option<(String, String)>, ApiError> {
        let Some(Some(name)) = &body.key_name else { return Ok(None) };
        match self.api.store.get_keypair(&instance.user_id, name).await {
            Ok(key) => Ok(Some((key.name, key.public_key))),
            Err(StoreError::NotFound { .. }) => Err(ApiError::bad_request("Invalid key_name provided.")),
            Err(error) => Err(error.into()),
        }
    }
}

fn check_limits(quotas: &InForce, body: &Body) -> Result<(), ApiError> {
    let metadata = body.metadata.as_ref().map_or(0, BTreeMap::len) as u64;
    if let Some(allowed) = quotas.get("metadata_items").filter(|allowed| metadata > *allowed) {
        return Err(ApiError::OverQuota(format!("Maximum number of metadata items exceeds {allowed}")));
    }
    if quotas.get("injected_files").is_some_and(|allowed| body.personality as u64 > allowed) {
        return Err(ApiError::OverQuota("Personality file limit exceeded".to_owned()));
    }
    if body.personality > 0 {
        return Err(ApiError::bad_request("Injecting files is not supported: use user_data."));
    }
    Ok(())
}

/// Before 2.93 a root volume keeps what is on it: it can be rebuilt from the image that it was made of only, which changes nothing
/// on it.
fn check_volume(instance: &Instance, volume: &BlockVolume, image: &ImageMeta, reimages: bool) -> Result<(), ApiError> {
    if !reimages {
        if volume.image_metadata.get("image_id").map(String::as_str) == Some(&image.id.to_string()) {
            return Ok(());
        }
        return Err(ApiError::BadRequest(format!(
            "Image {} is unacceptable: Unable to rebuild with a different image for a volume-backed server.",
            image.id
        )));
    }
    if instance.flavor.memory_mb < image.min_ram {
        return Err(ApiError::bad_request("Flavor's memory is too small for requested image."));
    }
    let (size, least) =
        (volume.size_gb.saturating_mul(GIB), image.min_disk.saturating_mul(GIB).max(image.virtual_size));
    if size < least {
        return Err(volume_too_small(size, least));
    }
    check_same_place(instance, image)
}

/// Another image must ask for the same place on the host: nothing is booked anew.
fn check_same_place(instance: &Instance, image: &ImageMeta) -> Result<(), ApiError> {
    let flavor = &instance.flavor;
    let asked = topology::asked(&flavor.extra_specs, &image.properties, flavor.vcpus, flavor.memory_mb);
    let asked = asked.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let of_flavor = flavor.booked_resources(instance.image_properties());
    if asked != instance.topology() || flavor.booked_resources(&image.properties) != of_flavor {
        return Err(ApiError::bad_request(
            "An instance's NUMA topology cannot be changed as part of a rebuild. The image provided is invalid for this \
             instance.",
        ));
    }
    Ok(())
}

impl Body {
    fn apply(&self, instance: &mut Instance, image: &ImageMeta, key: Option<&(String, String)>) {
        if instance.root_volume().is_none() {
            instance.image = Some(image.clone());
        }
        instance.progress = 0;
        if let Some(name) = &self.name {
            instance.display_name.clone_from(name);
        }
        if let Some(metadata) = &self.metadata {
            instance.metadata.clone_from(metadata);
        }
        if self.addresses.v4.is_some() {
            instance.access_ip_v4.clone_from(&self.addresses.v4);
        }
        if self.addresses.v6.is_some() {
            instance.access_ip_v6.clone_from(&self.addresses.v6);
        }
        if let Some(auto) = self.auto_disk_config {
            instance.auto_disk_config = auto;
        }
        if let Some(certificates) = &self.trusted_certificates {
            instance.set_trusted_certs(certificates.as_deref());
        }
        if let Some(description) = &self.description {
            instance.display_description.clone_from(description);
        }
        if self.key_name.is_some() {
            instance.key_name = key.map(|(name, _)| name.clone());
            instance.key_data = key.map(|(_, public)| public.clone());
        }
        if let Some(user_data) = &self.user_data {
            instance.user_data.clone_from(user_data);
        }
        if let Some(hostname) = &self.hostname {
            instance.hostname.clone_from(hostname);
        }
    }
}

fn parse(body: &Value, version: Microversion, lenient: bool) -> Result<Body, ApiError> {
    let mut server = Fields::of("rebuild", body, lenient)?;
    let mut out = Body {
        image: fields::image_id("imageRef", server.required("imageRef")?)?,
        admin_pass: server.text("adminPass", Text::new(0, usize::MAX))?.map(str::to_owned),
        name: fields::name(&mut server, "name", lenient)?,
        metadata: server.get("metadata").map(|value| fields::metadata("metadata", value)).transpose()?,
        addresses: fields::addresses(&mut server)?,
        auto_disk_config: fields::disk_config(&mut server)?,
        preserve_ephemeral: server.boolean("preserve_ephemeral")?.unwrap_or(false),
        ..Body::default()
    };
    if version.before(57) {
        out.personality = fields::personality(&mut server)?;
    }
    if version.at_least(19) {
        out.description = fields::description(&mut server)?;
    }
    if version.at_least(54) {
        out.key_name = nullable(&mut server, "key_name", |server| fields::name(server, "key_name", lenient))?;
    }
    if version.at_least(57) {
        out.user_data = nullable(&mut server, "user_data", |server| fields::user_data(server, lenient))?;
    }
    if version.at_least(63) {
        out.trusted_certificates = nullable(&mut server, "trusted_image_certificates", fields::trusted_certificates)?;
    }
    if version.at_least(90) {
        out.hostname = fields::hostname(&mut server, version)?;
    }
    server.finish()?;
    Ok(out)
}

/// A field that null takes away.
fn nullable<'a, T>(
    server: &mut Fields<'a>,
    key: &'static str,
    read: impl FnOnce(&mut Fields<'a>) -> Result<Option<T>, ApiError>,
) -> Result<Option<Option<T>>, ApiError> {
    match server.get(key) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(_) => Ok(read(server)?.map(Some)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "70a599e0-31e7-49b7-b260-868f441e862b";

    fn read(version: u16, more: &Value) -> Result<Body, ApiError> {
        let mut body = json!({"imageRef": IMAGE});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        parse(&body, Microversion(version), false)
    }

    #[test]
    fn each_version_has_its_fields() {
        let since = [
            (19, json!({"description": "x"})),
            (54, json!({"key_name": "k"})),
            (57, json!({"user_data": "eA=="})),
            (63, json!({"trusted_image_certificates": ["a"]})),
            (90, json!({"hostname": "name"})),
        ];
        for (version, field) in since {
            assert!(read(version - 1, &field).is_err(), "{field} before 2.{version}");
            assert!(read(version, &field).is_ok(), "{field} at 2.{version}");
        }
        let files = json!({"personality": [{"path": "/a", "contents": "eA=="}]});
        assert_eq!(read(56, &files).unwrap().personality, 1);
        assert!(read(57, &files).is_err());
        assert!(read(1, &json!({"tags": []})).is_err());
        assert!(parse(&json!({"name": "x"}), Microversion(1), false).is_err(), "an image must be named");
    }

    #[test]
    fn null_takes_keys_and_user_data_away() {
        let body = read(57, &json!({"key_name": null, "user_data": null})).unwrap();
        assert_eq!((body.key_name, body.user_data), (Some(None), Some(None)));
        let body = read(57, &json!({})).unwrap();
        assert_eq!((body.key_name, body.user_data), (None, None));
    }
}
