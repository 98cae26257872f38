//! The begin of a move: one transaction, then 202.

use std::time::Duration;

use jiff::Timestamp;
use nova_core::flavor::Flavor;
use nova_core::ids::{HostName, MigrationId};
use nova_core::image::Image;
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_core::quota::Limits;
use nova_core::request::{FlavorWish, Purpose, RequestSpec};
use nova_core::state::{Action, decide};
use nova_core::task::{Move, Task, Work};
use nova_db::{MigrationQuery, StoreError, TaskStart};

use super::{Moves, evacuate, migrate, resize, shelve};
use crate::api::compute::ComputeApi;
use crate::api::compute::servers::{action_record, instance_not_found, refused};
use crate::api::{ApiError, Request};

/// How often a lost race is run again.
const ATTEMPTS: usize = 5;

/// What a move writes besides the server.
pub(super) struct Begun {
    /// What the task does.
    pub(super) work: Move,
    /// Its record.
    pub(super) migration: Option<Migration>,
}

/// What a request asks for.
#[derive(Debug)]
pub(super) enum Wish {
    /// Another flavor.
    Resize(resize::Wish),
    /// Stay there.
    Confirm,
    /// Go back.
    Revert,
    /// Another host.
    Migrate(Option<String>),
    /// Another host, alive.
    MigrateLive(migrate::Wish),
    /// Away from a dead host.
    Evacuate(evacuate::Wish),
    /// Kept as this image.
    Shelve(Box<Image>),
    /// Kept as its root volume.
    ShelveVolume,
    /// Off its host.
    ShelveOffload,
    /// Back.
    Unshelve(shelve::Wish),
}

impl Wish {
    const fn action(&self) -> Action {
        match self {
            Self::Resize(_) => Action::Resize,
            Self::Confirm => Action::ConfirmResize,
            Self::Revert => Action::RevertResize,
            Self::Migrate(_) => Action::Migrate,
            Self::MigrateLive(_) => Action::LiveMigrate,
            Self::Evacuate(_) => Action::Evacuate,
            Self::Shelve(_) | Self::ShelveVolume => Action::Shelve,
            Self::ShelveOffload => Action::ShelveOffload,
            Self::Unshelve(_) => Action::Unshelve,
        }
    }

    /// The image that comes of it.
    fn image(&self) -> Option<&Image> {
        match self {
            Self::Shelve(image) => Some(image),
            _ => None,
        }
    }
}

impl Moves {
    /// What is written for it, from the server as it is.
    async fn make(
        &self,
        request: &Request,
        wish: &Wish,
        instance: &mut Instance,
        now: Timestamp,
    ) -> Result<Begun, ApiError> {
        match wish {
            Wish::Resize(wish) => self.make_resize(request, wish, instance, now).await,
            Wish::Confirm => self.goes_on(instance, now, MigrationStatus::Confirming).await,
            Wish::Revert => {
                let begun = self.goes_on(instance, now, MigrationStatus::Reverting).await?;
                instance.set_resizing_to(begun.migration.as_ref().map(|migration| &migration.old_flavor));
                Ok(begun)
            }
            Wish::Migrate(host) => self.make_migrate(request, host.as_deref(), instance, now).await,
            Wish::MigrateLive(wish) => self.make_migrate_live(request, wish, instance, now).await,
            Wish::Evacuate(wish) => self.make_evacuate(request, wish, instance, now).await,
            Wish::Shelve(image) => {
                let offload = self.api.options.get().offloads_at_once;
                Ok(Begun { work: Move::Shelve { image_id: image.id, offload }, migration: None })
            }
            Wish::ShelveVolume => Ok(Begun { work: Move::ShelveVolume, migration: None }),
            Wish::ShelveOffload => Ok(Begun { work: Move::ShelveOffload, migration: None }),
            Wish::Unshelve(wish) => self.make_unshelve(wish, instance).await,
        }
    }

    /// Begins a move of a server that the caller may move. When somebody else was faster, it is looked at again.
    pub(super) async fn begin_move(&self, request: &Request, wish: &Wish) -> Result<Task, ApiError> {
        let (api, action) = (&self.api, wish.action());
        let context = request.context()?;
        let id = request.param("id");
        for _ in 0..ATTEMPTS {
            let mut instance = api.visible_instance(context, id).await?;
            let host_up = api.host_is_up(action, &instance).await?;
            let situation = instance.situation(context.is_admin(), host_up, request.version.0);
            let transition = decide(action, &situation).map_err(|refusal| refused(&refusal, id))?;
            let context = &api.own_request(request, context, instance.id).await?;
            let now = api.clock.now();
            // One that it takes the place of is not made any more.
            instance.set_resizing_to(None);
            let Begun { work, migration } = self.make(request, wish, &mut instance, now).await?;
            let (limits, user_limits) = self.limits_for(wish, &instance).await?;
            instance.set_states(transition.apply(&instance.states()));
            instance.updated_at = now;
            let allowed = api.time_for(&work);
            let task = api.new_task(context, instance.id, Work::Move(work), allowed, now);
            let begun = task.clone();
            let record = action_record(context, instance.id, action, now);
            let supersede = action == Action::Evacuate;
            let of = TaskStart::of(instance, record, task);
            let image = wish.image().cloned();
            let start = TaskStart { supersede, limits, user_limits, migration, image, ..of };
            match api.store.start_task(start).await {
                Ok(_) => {
                    api.start_tasks(context, &[begun.id]).await;
                    return Ok(begun);
                }
                // Someone else was faster: look again.
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(instance_not_found(id)),
                Err(StoreError::Quota(exceeded)) => return Err(ApiError::OverQuota(exceeded.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Conflict(format!("Instance {id} is being changed by others; try again.")))
    }

    /// What a server must fit into that becomes larger by it: limits of its project, and of its user there.
    async fn limits_for(&self, wish: &Wish, instance: &Instance) -> Result<(Option<Limits>, Option<Limits>), ApiError> {
        if !matches!(wish, Wish::Resize(_) | Wish::Revert) {
            return Ok((None, None));
        }
        let quotas = self.api.quotas_in_force(&instance.project_id, Some(&instance.user_id)).await?;
        Ok((Some(quotas.limits()), quotas.user_limits()))
    }
}

impl ComputeApi {
    fn time_for(&self, work: &Move) -> Duration {
        let options = self.options.get();
        match work {
            Move::Evacuate { .. } | Move::Unshelve { .. } => options.instance_build_timeout,
            _ => options.operation_timeout,
        }
    }

    /// The record of a new move.
    pub(super) fn new_migration(
        &self,
        request: &Request,
        instance: &Instance,
        kind: MigrationType,
        flavor: &Flavor,
        now: Timestamp,
    ) -> Result<Migration, ApiError> {
        let uuid = MigrationId::generate(&*self.entropy);
        let begun = Migration::begun(uuid, kind, instance, flavor, now);
        let begun = begun.ok_or_else(|| ApiError::Conflict(format!("Instance {} is not ready", instance.id)))?;
        let context = request.context()?;
        let (project_id, user_id) = (context.project_id.clone(), context.user_id.clone());
        Ok(Migration { project_id, user_id, ..begun })
    }

    /// The server's move of that status, going on to the next one. None: somebody goes on with it already, or it has none.
    pub(super) async fn go_on_with(
        &self,
        instance: &Instance,
        next: MigrationStatus,
        now: Timestamp,
    ) -> Result<Migration, ApiError> {
        let query = MigrationQuery {
            instance: Some(instance.id),
            statuses: Some(vec![MigrationStatus::Finished]),
            limit: Some(1),
            ..MigrationQuery::default()
        };
        let finished = self.store.list_migrations(&query).await?.pop();
        let finished = finished.ok_or_else(|| ApiError::bad_request("Instance has not been resized."))?;
        if next == MigrationStatus::Confirming && finished.must_go_back() {
            let why = "its way back was begun and not ended, so that it can only be reverted";
            return Err(ApiError::Conflict(format!("Instance {} cannot be confirmed: {why}.", instance.id)));
        }
        Ok(Migration { status: next, updated_at: Some(now), ..finished })
    }

    /// A host that the caller names must be there, and must not be the server's own.
    pub(super) async fn named_host(
        &self,
        instance: &Instance,
        host: Option<&str>,
        own: impl FnOnce() -> String,
        unknown: impl FnOnce() -> String,
    ) -> Result<Option<HostName>, ApiError> {
        let Some(host) = host.map(HostName::new) else { return Ok(None) };
        if instance.host.as_ref() == Some(&host) {
            return Err(ApiError::BadRequest(own()));
        }
        match self.store.node_of_host(&host).await {
            Ok(_) => Ok(Some(host)),
            Err(StoreError::NotFound { .. }) => Err(ApiError::BadRequest(unknown())),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the scheduler is asked for a server that goes to another host (nova/objects/request_spec.py).
pub(crate) fn spec_of(instance: &Instance, flavor: &Flavor, host: Option<HostName>, force: bool) -> Box<RequestSpec> {
    let there = Instance { flavor: flavor.clone(), ..instance.clone() };
    let property = |name: &str| instance.image_properties().get(name).cloned();
    let (force_host, requested_host) = if force { (host, None) } else { (None, host) };
    Box::new(RequestSpec {
        instances: vec![instance.id],
        purpose: Purpose::Move,
        project_id: instance.project_id.to_string(),
        resources: there.booked_resources(),
        availability_zone: instance.pinned_availability_zone.clone().filter(|_| force_host.is_none()),
        force_host,
        requested_host,
        // Whatever schedulers have heard of its booking by now.
        ignore_hosts: instance.host.iter().cloned().collect(),
        architecture: property("hw_architecture").or_else(|| property("architecture")),
        hints: instance.scheduler_hints.clone(),
        flavor: FlavorWish { name: flavor.name.clone(), extra_specs: flavor.extra_specs.clone() },
        image: instance.image_wish(),
        topology: there.topology(),
        ..RequestSpec::default()
    })
}
