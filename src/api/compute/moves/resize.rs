//! `resize`, `confirmResize`, `revertResize` (nova/api/openstack/compute/servers.py; nova/compute/api.py, `resize`).

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use nova_core::context::RequestContext;
use nova_core::flavor::Flavor;
use nova_core::ids::FlavorId;
use nova_core::instance::Instance;
use nova_core::migration::{MigrationStatus, MigrationType};
use nova_core::task::Move;
use nova_db::StoreError;
use serde_json::Value;

use super::Moves;
use super::begin::{self, Begun, spec_of};
use crate::api::compute::servers::{fields, owner};
use crate::api::validate::Fields;
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

/// What a resize asks for.
#[derive(Debug)]
pub(super) struct Wish {
    flavor: String,
    auto_disk_config: Option<bool>,
}

impl Moves {
    pub(super) async fn resize(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut resize = Fields::of("resize", &body, request.lenient)?;
        let flavor = fields::reference("flavorRef", resize.required("flavorRef")?)?;
        let auto_disk_config = fields::disk_config(&mut resize)?;
        resize.finish()?;
        self.check_policy(&request, "os_compute_api:servers:resize").await?;
        self.begin_move(&request, &begin::Wish::Resize(Wish { flavor, auto_disk_config })).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn confirm_resize(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.check_policy(&request, "os_compute_api:servers:confirm_resize").await?;
        self.begin_move(&request, &begin::Wish::Confirm).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn revert_resize(self: Arc<Self>, request: Request, _: Value) -> HandlerResult {
        self.check_policy(&request, "os_compute_api:servers:revert_resize").await?;
        self.begin_move(&request, &begin::Wish::Revert).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn make_resize(
        &self,
        request: &Request,
        wish: &Wish,
        instance: &mut Instance,
        now: Timestamp,
    ) -> Result<Begun, ApiError> {
        let new = self.new_flavor(request.context()?, instance, &wish.flavor).await?;
        let migration = self.api.new_migration(request, instance, MigrationType::Resize, &new, now)?;
        let mut spec = spec_of(instance, &new, None, false);
        if self.may_stay(instance, &new) {
            (spec.may_stay, spec.ignore_hosts) = (true, Vec::new());
        }
        instance.set_resizing_to(Some(&new));
        instance.auto_disk_config = wish.auto_disk_config.unwrap_or(instance.auto_disk_config);
        Ok(Begun { work: Move::Resize { migration: migration.uuid, spec }, migration: Some(migration) })
    }

    /// Whether its own host may take it: not one that has CPUs of its own, which would need both sets of them.
    fn may_stay(&self, instance: &Instance, new: &Flavor) -> bool {
        let there = Instance { flavor: new.clone(), ..instance.clone() };
        let floats = instance.topology().is_none() && there.topology().is_none();
        self.api.options.get().allow_resize_to_same_host && floats
    }

    pub(super) async fn goes_on(
        &self,
        instance: &Instance,
        now: Timestamp,
        next: MigrationStatus,
    ) -> Result<Begun, ApiError> {
        let migration = self.api.go_on_with(instance, next, now).await?;
        let work = match next {
            MigrationStatus::Reverting => Move::RevertResize { migration: migration.uuid },
            _ => Move::ConfirmResize { migration: migration.uuid },
        };
        Ok(Begun { work, migration: Some(migration) })
    }

    pub(super) async fn check_policy(&self, request: &Request, rule: &'static str) -> Result<Instance, ApiError> {
        let context = request.context()?;
        let instance = self.api.visible_instance(context, request.param("id")).await?;
        policy::enforce_on(rule, context, owner(&instance))?;
        Ok(instance)
    }

    async fn new_flavor(&self, context: &RequestContext, instance: &Instance, id: &str) -> Result<Flavor, ApiError> {
        let missing = || ApiError::bad_request(format!("Flavor {id} could not be found."));
        let flavor = match self.api.store.get_flavor(&FlavorId::new(id)).await {
            Ok(flavor) => flavor,
            Err(StoreError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        let visible = context.is_admin() || flavor.visible_to(&context.project_id);
        if !visible || flavor.disabled {
            return Err(missing());
        }
        let old = &instance.flavor;
        if flavor.id == old.id {
            return Err(ApiError::bad_request("When resizing, instances must change flavor!"));
        }
        let refuse = |why: &str| ApiError::BadRequest(format!("Server disk was unable to be resized because: {why}"));
        if flavor.root_gb == 0 && old.root_gb > 0 && instance.image.is_some() {
            return Err(refuse("Resize to zero disk flavor is not allowed."));
        }
        // Nova finds that out on the host, and fails the resize there.
        if flavor.root_gb < old.root_gb || flavor.ephemeral_gb < old.ephemeral_gb {
            return Err(refuse("Unable to resize disk down."));
        }
        if let Some(image) = &instance.image
            && image.min_ram > flavor.memory_mb
        {
            return Err(ApiError::bad_request("Flavor's memory is too small for requested image."));
        }
        Ok(flavor)
    }
}
