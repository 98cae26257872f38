//! Live migrations of a server that go on: seen, ended, hurried (nova/api/openstack/compute/server_migrations.py).

use std::sync::Arc;

use http::StatusCode;
use nova_core::action::ActionRecord;
use nova_core::context::RequestContext;
use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus, MigrationType};
use nova_core::state::{Action, decide};
use nova_db::{MigrationQuery, StoreError};
use serde_json::{Value, json};

use super::{Migrations, view};
use crate::api::compute::OrderError;
use crate::api::compute::input::strict_query;
use crate::api::compute::servers::{action_record, owner, refused};
use crate::api::policy::{self, Target, allows};
use crate::api::validate::Fields;
use crate::api::{ApiError, HandlerResult, Request, Response};

/// How often a lost race is run again.
const ATTEMPTS: usize = 5;

impl Migrations {
    pub(super) async fn index_of_server(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let instance = self.server(&request, "os_compute_api:servers:migrations:index").await?;
        strict_query(&request, 102, &[])?;
        let query = MigrationQuery {
            instance: Some(instance.id),
            migration_type: Some(MigrationType::LiveMigration),
            ..MigrationQuery::open()
        };
        let found = self.api.store.list_migrations(&query).await?;
        let hosts = allows("os_compute_api:servers:migrations:index:host", context, Target::default());
        let shown = found.iter().filter(|one| one.status.is_in_progress());
        let views: Vec<Value> = shown.map(|one| view::of_server(&request, one, hosts)).collect();
        Ok(Response::json(StatusCode::OK, &json!({"migrations": views})))
    }

    pub(super) async fn show_of_server(self: Arc<Self>, request: Request) -> HandlerResult {
        let instance = self.server(&request, "os_compute_api:servers:migrations:show").await?;
        strict_query(&request, 102, &[])?;
        let migration = self.one(&request, instance.id).await?;
        let (id, server) = (migration.id, instance.id);
        if migration.migration_type != MigrationType::LiveMigration {
            let text = format!("Migration {id} for server {server} is not live-migration.");
            return Err(ApiError::NotFound(text));
        }
        if !migration.status.is_in_progress() {
            return Err(ApiError::NotFound(format!("Migration {id} for server {server} is not in progress.")));
        }
        Ok(Response::json(StatusCode::OK, &json!({"migration": view::of_server(&request, &migration, true)})))
    }

    /// The guest stays where it is.
    pub(super) async fn abort(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let instance = self.server(&request, "os_compute_api:servers:migrations:delete").await?;
        self.may(Action::AbortLiveMigration, &request, context, &instance)?;
        for _ in 0..ATTEMPTS {
            let migration = self.one(&request, instance.id).await?;
            let early = matches!(migration.status, MigrationStatus::Queued | MigrationStatus::Preparing);
            let may = migration.status == MigrationStatus::Running || (early && request.version.at_least(65));
            if !may || migration.migration_type != MigrationType::LiveMigration {
                return Err(wrong_state(&migration, "abort live migration"));
            }
            // Whoever goes on with it reads that first.
            let aborted = Migration { aborted: true, updated_at: Some(self.api.clock.now()), ..migration };
            let record = self.record(context, &instance, Action::AbortLiveMigration);
            match self.api.store.update_migration(aborted, Some(record)).await {
                Ok(written) => {
                    if written.status == MigrationStatus::Running {
                        self.steer(&request, context, &written, false).await?;
                    }
                    return Ok(Response::empty(StatusCode::ACCEPTED));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::conflict("The migration is being changed by others; try again."))
    }

    /// The guest arrives soon, at the price of a pause.
    pub(super) async fn force_complete(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let mut root = Fields::root(&body, request.lenient)?;
        root.required("force_complete")?;
        root.finish()?;
        let context = request.context()?;
        let instance = self.server(&request, "os_compute_api:servers:migrations:force_complete").await?;
        self.may(Action::ForceCompleteLiveMigration, &request, context, &instance)?;
        for _ in 0..ATTEMPTS {
            let migration = self.one(&request, instance.id).await?;
            if migration.status != MigrationStatus::Running {
                return Err(wrong_state(&migration, "force complete"));
            }
            let record = self.record(context, &instance, Action::ForceCompleteLiveMigration);
            let hurried = Migration { updated_at: Some(self.api.clock.now()), ..migration };
            match self.api.store.update_migration(hurried, Some(record)).await {
                Ok(written) => {
                    self.steer(&request, context, &written, true).await?;
                    return Ok(Response::empty(StatusCode::ACCEPTED));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::conflict("The migration is being changed by others; try again."))
    }

    async fn server(&self, request: &Request, rule: &'static str) -> Result<Instance, ApiError> {
        let context = request.context()?;
        let instance = self.api.visible_instance(context, request.param("server_id")).await?;
        policy::enforce_on(rule, context, owner(&instance))?;
        Ok(instance)
    }

    fn may(
        &self,
        action: Action,
        request: &Request,
        context: &RequestContext,
        instance: &Instance,
    ) -> Result<(), ApiError> {
        let situation = instance.situation(context.is_admin(), true, request.version.0);
        decide(action, &situation).map(drop).map_err(|refusal| refused(&refusal, &instance.id.to_string()))
    }

    async fn one(&self, request: &Request, server: InstanceId) -> Result<Migration, ApiError> {
        let id = request.param("id");
        let missing = || ApiError::NotFound(format!("Migration {id} not found for instance {server}"));
        let number = id.parse().map_err(|_| missing())?;
        match self.api.store.migration_of_number(number).await {
            Ok(found) if found.instance_id == server => Ok(found),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    async fn steer(
        &self,
        request: &Request,
        context: &RequestContext,
        migration: &Migration,
        force: bool,
    ) -> Result<(), ApiError> {
        let (host, server) = (&migration.source_compute, migration.instance_id);
        match self.api.orders.steer_live_migration(context, host, server, force).await {
            // It is over already, which the conductor will hear.
            Ok(()) | Err(OrderError::NotFound) => Ok(()),
            Err(OrderError::NotReady) => Err(ApiError::conflict("The guest is not in a state for that.")),
            Err(OrderError::Unsupported) => Err(ApiError::conflict("The host's driver cannot do that.")),
            Err(OrderError::HostUnavailable { source } | OrderError::Failed { source }) => {
                tracing::warn!(
                    instance = request.param("server_id"),
                    error = &*source as &dyn std::error::Error,
                    "a live migration was not told what to do"
                );
                Err(ApiError::Unavailable { retry_after: 5 })
            }
        }
    }

    /// What `os-instance-actions` shows of it: it is over as soon as it was told.
    fn record(&self, context: &RequestContext, instance: &Instance, action: Action) -> ActionRecord {
        let now = self.api.clock.now();
        let mut record = action_record(context, instance.id, action, now);
        record.finish(None, now);
        record
    }
}

fn wrong_state(migration: &Migration, method: &str) -> ApiError {
    let (id, server, status) = (migration.id, migration.instance_id, migration.status);
    ApiError::BadRequest(format!(
        "Migration {id} state of instance {server} is {status}. Cannot {method} while the migration is in this state."
    ))
}
