//! `createImage` and `createBackup` (nova/api/openstack/compute/servers.py, create_backup.py; nova/compute/utils.py,
//! `initialize_instance_snapshot_metadata`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::{StatusCode, header};
use nova_core::context::RequestContext;
use nova_core::ids::ImageId;
use nova_core::image::{Image, ImageMember, ImageStatus, MemberStatus, REMEMBERED, Visibility, remembered_number};
use nova_core::instance::Instance;
use nova_core::state::{Action, decide};
use nova_core::task::{Task, Work};
use nova_db::StoreError;
use serde_json::{Value, json};

use super::actions::{Besides, Start, refused};
use super::{Servers, fields, owner};
use crate::api::compute::volume_attachments::why_not;
use crate::api::validate::{Fields, Text};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

/// Properties of an image that those made of its servers do not get (`non_inheritable_image_properties`, and signatures).
const NOT_INHERITED: &[&str] = &[
    "bittorrent",
    "cache_in_nova",
    "img_signature",
    "img_signature_certificate_uuid",
    "img_signature_hash_method",
    "img_signature_key_type",
];

/// Properties that say of which volumes an image is.
pub(super) const OF_VOLUMES: &[&str] = &["block_device_mapping", "bdm_v2", "root_device_name"];

/// An image that is asked for.
struct Wanted<'a> {
    name: &'a str,
    /// `snapshot` or `backup`.
    kind: &'static str,
    /// The user's.
    properties: BTreeMap<String, String>,
}

impl Servers {
    pub(super) async fn create_image(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut fields_of = Fields::of("createImage", &body, request.lenient)?;
        let (name, properties) = (name(&mut fields_of, request.lenient)?, metadata(&mut fields_of)?);
        fields_of.finish()?;
        let rule = "os_compute_api:servers:create_image";
        let wanted = Wanted { name: &name, kind: "snapshot", properties };
        let work = |image_id, server: &Instance| match server.root_volume() {
            Some(_) => Work::SnapshotVolumes { image_id },
            None => Work::CreateImage { image_id },
        };
        let id = self.make(&request, rule, Action::CreateImage, wanted, work);
        Ok(answer(&request, id.await?, true))
    }

    pub(super) async fn create_backup(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut fields_of = Fields::of("createBackup", &body, request.lenient)?;
        let (name, mut properties) = (name(&mut fields_of, request.lenient)?, metadata(&mut fields_of)?);
        let backup_type = fields_of.required_text("backup_type", Text::new(0, usize::MAX))?.to_owned();
        fields_of.required("rotation")?;
        let rotation = fields_of.integer("rotation", 0, i64::from(i32::MAX))?.unwrap_or(0);
        let rotation = u32::try_from(rotation).unwrap_or(u32::MAX);
        fields_of.finish()?;
        properties.insert("backup_type".to_owned(), backup_type.clone());
        let rule = "os_compute_api:os-create-backup";
        let wanted = Wanted { name: &name, kind: "backup", properties };
        let work = |image_id, _: &Instance| Work::CreateBackup { image_id, backup_type: backup_type.clone(), rotation };
        let id = self.make(&request, rule, Action::CreateBackup, wanted, work).await?;
        Ok(answer(&request, id, rotation > 0))
    }

    /// Describes the image and begins the task that makes it, both or neither.
    async fn make(
        &self,
        request: &Request,
        rule: &'static str,
        action: Action,
        wanted: Wanted<'_>,
        work: impl Fn(ImageId, &Instance) -> Work,
    ) -> Result<ImageId, ApiError> {
        let context = request.context()?;
        let id = request.param("id");
        let instance = self.api.visible_instance(context, id).await?;
        policy::enforce_on(rule, context, owner(&instance))?;
        if instance.root_volume().is_some() && action == Action::CreateImage {
            policy::enforce_on("os_compute_api:servers:create_image:allow_volume_backed", context, owner(&instance))?;
        }
        self.check_quota(context, &wanted).await?;
        let situation = instance.situation(context.is_admin(), true, request.version.0);
        decide(action, &situation).map_err(|refusal| refused(&refusal, id))?;
        let image = self.described(context, &instance, wanted);
        let image_id = image.id;
        let work = work(image_id, &instance);
        let of_volumes = matches!(work, Work::SnapshotVolumes { .. });
        let start = Start { rule, action, work, supersede: false };
        let besides = Besides { image: Some(image), ..Besides::default() };
        match self.api.begin_with(request, start, besides).await? {
            Some(task) if of_volumes => self.taken(&instance, &task, image_id).await,
            _ => Ok(image_id),
        }
    }

    /// Nova answers once the snapshots are begun, and says itself what stands in the way of them: this waits for them, too.
    async fn taken(&self, server: &Instance, task: &Task, image_id: ImageId) -> Result<ImageId, ApiError> {
        if !self.api.until_done(task, "complete_image").await? {
            // It goes on.
            return Ok(image_id);
        }
        match self.api.store.get_image(image_id).await {
            Ok(_) => Ok(image_id),
            Err(StoreError::NotFound { .. }) => {
                let now = self.api.store.get_instance(server.id).await?;
                Err(why_not(&now, task, "no image was made of the server's volumes"))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn check_quota(&self, context: &RequestContext, wanted: &Wanted<'_>) -> Result<(), ApiError> {
        let limit = self.api.quotas_in_force(&context.project_id, None).await?.get("metadata_items");
        // What backups say of themselves does not count.
        let own = wanted.properties.keys().filter(|key| *key != "backup_type").count() as u64;
        if limit.is_some_and(|limit| own > limit) {
            return Err(ApiError::OverQuota("Image metadata limit exceeded".to_owned()));
        }
        Ok(())
    }

    /// The image that a server is kept as while it is shelved, before it has data.
    pub(in crate::api::compute) fn shelved(&self, context: &RequestContext, instance: &Instance) -> Image {
        let name = format!("{}-shelved", instance.display_name);
        let wanted = Wanted { name: &name, kind: "snapshot", properties: BTreeMap::new() };
        self.described(context, instance, wanted)
    }

    /// The image as it is until its data comes: the base's description, what it was made of, and what the user says.
    fn described(&self, context: &RequestContext, instance: &Instance, wanted: Wanted<'_>) -> Image {
        let now = self.api.clock.now();
        let base = instance.image.as_ref();
        let mut properties: BTreeMap<String, String> = instance.image_properties().clone();
        let not_inherited = [NOT_INHERITED, OF_VOLUMES, if base.is_none() { REMEMBERED } else { &[] }].concat();
        properties.retain(|key, _| !not_inherited.contains(&key.as_str()));
        let least = |key| remembered_number(&instance.volume_image, key);
        if let Some(base) = base {
            properties.insert("base_image_ref".into(), base.id.to_string());
        }
        let own = [
            ("instance_uuid", instance.id.to_string()),
            ("user_id", context.user_id.to_string()),
            ("image_type", wanted.kind.to_owned()),
            ("image_location", "snapshot".to_owned()),
            ("image_state", "available".to_owned()),
            ("owner_id", instance.project_id.to_string()),
        ];
        properties.extend(own.map(|(key, value)| (key.to_owned(), value)));
        properties.extend(wanted.properties);
        let is_owner = context.project_id == instance.project_id;
        let accepted = ImageMember { status: MemberStatus::Accepted, created_at: now, updated_at: now };
        let qcow2 = base.is_some_and(|base| base.disk_format == "qcow2");
        Image {
            id: ImageId::generate(&*self.api.entropy),
            name: Some(wanted.name.to_owned()),
            status: ImageStatus::Queued,
            visibility: if is_owner { Visibility::Private } else { Visibility::Shared },
            owner: context.project_id.clone(),
            disk_format: Some(if qcow2 { "qcow2" } else { "raw" }.to_owned()),
            container_format: Some("bare".to_owned()),
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_value: None,
            min_ram: base.map_or_else(|| least("min_ram"), |base| base.min_ram),
            // Its root disk is as large as the flavor says, unless it is a volume.
            min_disk: base.map_or_else(|| least("min_disk"), |base| base.min_disk).max(match instance.root_volume() {
                Some(_) => 0,
                None => instance.flavor.root_gb,
            }),
            protected: false,
            os_hidden: false,
            tags: BTreeSet::new(),
            properties,
            // Who has an administrator make one of their server gets to see it (nova/compute/utils.py,
            // `initialize_instance_snapshot_metadata`).
            members: if is_owner { BTreeMap::new() } else { [(instance.project_id.clone(), accepted)].into() },
            created_at: now,
            updated_at: now,
            generation: 0,
        }
    }
}

fn name(fields_of: &mut Fields<'_>, lenient: bool) -> Result<String, ApiError> {
    let name = fields::name(fields_of, "name", lenient)?;
    name.ok_or_else(|| fields_of.refuse("'name' is a required property"))
}

fn metadata(fields_of: &mut Fields<'_>) -> Result<BTreeMap<String, String>, ApiError> {
    let read = fields_of.get("metadata").map(|value| fields::metadata("metadata", value)).transpose()?;
    Ok(read.unwrap_or_default())
}

/// Until 2.44 the image's URL is in a header, and only if the image is kept; then its id is in the body.
fn answer(request: &Request, id: ImageId, kept: bool) -> Response {
    if request.version.at_least(45) {
        return Response::json(StatusCode::ACCEPTED, &json!({"image_id": id}));
    }
    let answer = Response::empty(StatusCode::ACCEPTED);
    if !kept {
        return answer;
    }
    let root = request.base_url.split("/compute").next().unwrap_or_default();
    answer.header(header::LOCATION, &format!("{root}/image/v2/images/{id}"))
}
