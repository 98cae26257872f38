//! `migrate` and `os-migrateLive` (nova/api/openstack/compute/migrate_server.py).

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use nova_core::instance::Instance;
use nova_core::migration::MigrationType;
use nova_core::task::Move;
use serde_json::Value;

use super::Moves;
use super::begin::{self, Begun, spec_of};
use crate::api::validate::{Fields, Text, boolean, invalid, wrong_type};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

/// Names of hosts, as Nova's schemas take them.
const HOST: Text = Text::new(1, 255);

impl Moves {
    /// Cold migration: a resize to the same flavor.
    pub(super) async fn migrate(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let host = cold_host(&request, &body)?;
        self.check_policy(&request, "os_compute_api:os-migrate-server:migrate").await?;
        if host.is_some() {
            policy::enforce("os_compute_api:os-migrate-server:migrate:host", request.context()?)?;
        }
        self.begin_move(&request, &begin::Wish::Migrate(host)).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn make_migrate(
        &self,
        request: &Request,
        host: Option<&str>,
        instance: &Instance,
        now: Timestamp,
    ) -> Result<Begun, ApiError> {
        let own = || "Cannot migrate to the host where the server exists.".to_owned();
        let unknown = || format!("Compute host {} could not be found.", host.unwrap_or_default());
        let host = self.api.named_host(instance, host, own, unknown).await?;
        let flavor = instance.flavor.clone();
        let migration = self.api.new_migration(request, instance, MigrationType::Migration, &flavor, now)?;
        let spec = spec_of(instance, &flavor, host, false);
        Ok(Begun { work: Move::Resize { migration: migration.uuid, spec }, migration: Some(migration) })
    }

    pub(super) async fn migrate_live(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let wish = Wish::read(&request, &body)?;
        self.check_policy(&request, "os_compute_api:os-migrate-server:migrate_live").await?;
        if wish.host.is_some() {
            policy::enforce("os_compute_api:os-migrate-server:migrate_live:host", request.context()?)?;
        }
        self.begin_move(&request, &begin::Wish::MigrateLive(wish)).await?;
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    pub(super) async fn make_migrate_live(
        &self,
        request: &Request,
        wish: &Wish,
        instance: &Instance,
        now: Timestamp,
    ) -> Result<Begun, ApiError> {
        let named = wish.host.as_deref().unwrap_or_default();
        let own = || format!("Unable to migrate instance ({}) to current host ({named}).", instance.id);
        let unknown = || format!("Compute host {named} could not be found.");
        let host = self.api.named_host(instance, wish.host.as_deref(), own, unknown).await?;
        let flavor = instance.flavor.clone();
        let migration = self.api.new_migration(request, instance, MigrationType::LiveMigration, &flavor, now)?;
        // Before 2.30 a host that is named is taken without asking the scheduler.
        let spec = spec_of(instance, &flavor, host, wish.force || request.version.before(30));
        let work = Move::LiveMigrate { migration: migration.uuid, spec, block: wish.block };
        Ok(Begun { work, migration: Some(migration) })
    }
}

/// The host that a cold migration names, from 2.56 on.
fn cold_host(request: &Request, body: &Value) -> Result<Option<String>, ApiError> {
    if request.version.before(56) || body.is_null() {
        return Ok(None);
    }
    let mut fields = Fields::of("migrate", body, request.lenient)?;
    let host = fields.nullable_text("host", HOST)?.flatten().map(str::to_owned);
    fields.finish()?;
    Ok(host)
}

/// What a live migration is asked for.
#[derive(Debug)]
pub(super) struct Wish {
    host: Option<String>,
    block: Option<bool>,
    force: bool,
}

impl Wish {
    fn read(request: &Request, body: &Value) -> Result<Self, ApiError> {
        let version = request.version;
        let mut fields = Fields::of("os-migrateLive", body, request.lenient)?;
        let host = match fields.required("host")? {
            Value::Null => None,
            value => Some(crate::api::validate::text("host", value, HOST)?.to_owned()),
        };
        let block = fields.required("block_migration")?;
        let block = match block {
            Value::String(word) if version.at_least(25) && word == "auto" => None,
            value => Some(boolean("block_migration", value)?),
        };
        if version.before(25) {
            let value = fields.required("disk_over_commit")?;
            if boolean("disk_over_commit", value)? {
                return Err(invalid("disk_over_commit", value, "Disks are never over-committed."));
            }
        }
        let force = match version.at_least(30) && version.before(68) {
            true => fields.boolean("force")?.unwrap_or(false),
            false => false,
        };
        fields.finish()?;
        if force && host.is_none() {
            return Err(ApiError::bad_request("Can't force to a non-provided destination"));
        }
        Ok(Self { host, block, force })
    }
}

/// A text or null under a key that may be missing.
pub(super) fn optional_host(fields: &mut Fields<'_>) -> Result<Option<String>, ApiError> {
    match fields.get("host") {
        None => Ok(None),
        Some(value @ Value::Null) => Err(wrong_type("host", value, "string")),
        Some(value) => Ok(Some(crate::api::validate::text("host", value, HOST)?.to_owned())),
    }
}
