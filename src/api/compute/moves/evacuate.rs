//! `evacuate` (nova/api/openstack/compute/evacuate.py).

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use nova_core::instance::Instance;
use nova_core::migration::MigrationType;
use nova_core::task::Move;
use serde_json::{Value, json};

use super::Moves;
use super::begin::{self, Begun, spec_of};
use super::migrate::optional_host;
use crate::api::compute::servers::new_password;
use crate::api::validate::{Fields, Text, boolean, invalid};
use crate::api::{ApiError, HandlerResult, Request, Response};

impl Moves {
    pub(super) async fn evacuate(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let mut wish = Wish::read(&request, &body)?;
        self.check_policy(&request, "os_compute_api:os-evacuate").await?;
        let password = wish.password.get_or_insert_with(|| new_password(&self.api)).clone();
        self.begin_move(&request, &begin::Wish::Evacuate(wish)).await?;
        // Nova tells the password until 2.13, if passwords are told at all.
        if request.version.before(14) && self.api.options.get().enable_instance_password {
            return Ok(Response::json(StatusCode::OK, &json!({"adminPass": password})));
        }
        Ok(Response::empty(StatusCode::OK))
    }

    pub(super) async fn make_evacuate(
        &self,
        request: &Request,
        wish: &Wish,
        instance: &Instance,
        now: Timestamp,
    ) -> Result<Begun, ApiError> {
        let own = || "The target host can't be the same one.".to_owned();
        let unknown = || format!("Compute host {} not found.", wish.host.as_deref().unwrap_or_default());
        let host = self.api.named_host(instance, wish.host.as_deref(), own, unknown).await?;
        let flavor = instance.flavor.clone();
        let migration = self.api.new_migration(request, instance, MigrationType::Evacuation, &flavor, now)?;
        // Before 2.29 a host that is named is taken without asking the scheduler.
        let spec = spec_of(instance, &flavor, host, wish.force || request.version.before(29));
        let (uuid, stays_off) = (migration.uuid, request.version.at_least(95));
        let work = Move::Evacuate { migration: uuid, spec, stays_off, admin_password: wish.password.clone() };
        Ok(Begun { work, migration: Some(migration) })
    }
}

/// What an evacuation asks for.
pub(super) struct Wish {
    host: Option<String>,
    password: Option<String>,
    force: bool,
}

impl std::fmt::Debug for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wish").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Wish {
    fn read(request: &Request, body: &Value) -> Result<Self, ApiError> {
        let version = request.version;
        let mut fields = Fields::of("evacuate", body, request.lenient)?;
        let host = optional_host(&mut fields)?;
        let password = fields.text("adminPass", Text::new(0, usize::MAX))?.map(str::to_owned);
        if version.before(14) {
            let value = fields.required("onSharedStorage")?;
            if boolean("onSharedStorage", value)? {
                return Err(invalid("onSharedStorage", value, "The server's disks are on no shared storage."));
            }
        }
        let force = match version.at_least(29) && version.before(68) {
            true => fields.boolean("force")?.unwrap_or(false),
            false => false,
        };
        fields.finish()?;
        if force && host.is_none() {
            return Err(ApiError::bad_request("Can't force to a non-provided destination"));
        }
        Ok(Self { host, password, force })
    }
}
