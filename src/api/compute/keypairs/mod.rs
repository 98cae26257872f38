//! `/os-keypairs`: keys that users leave to be put into their servers (nova/api/openstack/compute/keypairs.py). They
//! belong to users, not to projects.

mod public_key;
#[cfg(test)]
mod tests;
mod view;
mod x509;

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::ids::UserId;
use nova_core::keypair::Keypair;
use nova_db::StoreError;
use serde_json::{Value, json};

use crate::api::compute::ComputeApi;
use crate::api::compute::input::{strict_query, under};
use crate::api::compute::links::next_links;
use crate::api::policy::{Target, enforce_on};
use crate::api::validate::{Shown, Text, invalid, name, stripped_name};
use crate::api::{ApiError, HandlerResult, Paging, Request, Resource, Response, Route, route};

/// The resource.
pub struct Keypairs {
    api: Arc<ComputeApi>,
}

/// What a create body says.
struct Wanted {
    name: String,
    kind: String,
    public_key: Option<String>,
    user_id: Option<String>,
}

impl Keypairs {
    /// On these collaborators.
    pub fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 75, &["user_id", "limit", "marker"])?;
        let paged = request.version.at_least(35);
        let paging = if paged {
            request.query.paging(self.api.options.get().max_limit)?
        } else {
            Paging { limit: usize::MAX, marker: None }
        };
        let user = self.user(&request, "os_compute_api:os-keypairs:index")?;
        let mut keypairs = self.api.store.list_keypairs(&user).await?;
        if let Some(marker) = &paging.marker {
            let position = keypairs.iter().position(|k| k.name == *marker);
            let position =
                position.ok_or_else(|| ApiError::bad_request(format!("Marker {marker} could not be found.")))?;
            keypairs.drain(..=position);
        }
        keypairs.truncate(paging.limit);
        let views: Vec<_> = keypairs.iter().map(|k| json!({"keypair": view::brief(request.version, k)})).collect();
        let mut body = json!({ "keypairs": views });
        let last = keypairs.last().map(|k| k.name.as_str()).filter(|_| paged);
        if let Some(links) = next_links(&request, "os-keypairs", keypairs.len(), paging.limit, last) {
            body["keypairs_links"] = links;
        }
        Ok(Response::json(StatusCode::OK, &body))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 75, &["user_id"])?;
        let user = self.user(&request, "os_compute_api:os-keypairs:show")?;
        let key = request.param("id");
        let keypair = self.api.store.get_keypair(&user, key).await.map_err(|e| missing(e, key, &user))?;
        Ok(Response::json(StatusCode::OK, &json!({"keypair": view::full(request.version, &keypair)})))
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let wanted = read(&body, &request)?;
        let context = request.context()?;
        let user = wanted.user_id.as_ref().map_or_else(|| context.user_id.clone(), UserId::new);
        let target = Target { project_id: None, user_id: Some(&user) };
        enforce_on("os_compute_api:os-keypairs:create", context, target)?;
        let project = context.project_id.clone();
        let limit = self.api.quotas_in_force(&project, Some(&user)).await?.get("key_pairs");
        let (keypair, private_key) = self.make(wanted, user)?;
        let name = keypair.name.clone();
        let keypair = self.api.store.create_keypair(keypair, limit).await.map_err(|e| refused(e, &name))?;
        let view = view::created(request.version, &keypair, private_key.as_deref());
        let status = if request.version.at_least(2) { StatusCode::CREATED } else { StatusCode::OK };
        Ok(Response::json(status, &json!({ "keypair": view })))
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        strict_query(&request, 75, &["user_id"])?;
        let user = self.user(&request, "os_compute_api:os-keypairs:delete")?;
        let key = request.param("id");
        self.api.store.delete_keypair(&user, key).await.map_err(|e| missing(e, key, &user))?;
        let status = if request.version.at_least(2) { StatusCode::NO_CONTENT } else { StatusCode::ACCEPTED };
        Ok(Response::empty(status))
    }

    /// Whose keys are meant, if the caller may touch them: from 2.10 on `user_id` names another user.
    fn user(&self, request: &Request, rule: &str) -> Result<UserId, ApiError> {
        let context = request.context()?;
        let named = request.query.get("user_id").filter(|_| request.version.at_least(10));
        let user = named.map_or_else(|| context.user_id.clone(), UserId::new);
        enforce_on(rule, context, Target { project_id: None, user_id: Some(&user) })?;
        Ok(user)
    }

    /// The row, and the private half where it was made here.
    fn make(&self, wanted: Wanted, user_id: UserId) -> Result<(Keypair, Option<String>), ApiError> {
        let bad = |reason: String| ApiError::bad_request(format!("Keypair data is invalid: {reason}"));
        let (public_key, private_key) = match wanted.public_key {
            Some(key) => (key, None),
            None if wanted.kind == "ssh" => {
                let made = public_key::generate(&*self.api.entropy).map_err(ApiError::internal)?;
                (made.public_key, Some(made.private_key))
            }
            None => return Err(bad("x509 key pairs are not generated here; import a certificate".to_owned())),
        };
        let fingerprint = match wanted.kind.as_str() {
            "ssh" => public_key::fingerprint(&public_key),
            _ => x509::fingerprint(&public_key),
        };
        let keypair = Keypair {
            id: 0,
            user_id,
            name: wanted.name,
            fingerprint: fingerprint.map_err(bad)?,
            public_key,
            kind: wanted.kind,
            created_at: self.api.clock.now(),
        };
        Ok((keypair, private_key))
    }
}

impl Resource for Keypairs {
    fn name(&self) -> &'static str {
        "os-keypairs"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-keypairs", &self, Self::index),
            route(Method::POST, "/os-keypairs", &self, Self::create),
            route(Method::GET, "/os-keypairs/{id}", &self, Self::show),
            route(Method::DELETE, "/os-keypairs/{id}", &self, Self::delete),
        ]
    }
}

fn read(body: &Value, request: &Request) -> Result<Wanted, ApiError> {
    let version = request.version;
    let mut fields = under(body, "keypair", request.lenient)?;
    let name = key_name(fields.required("name")?, request)?;
    let any = Text::new(0, usize::MAX);
    let public_key = match version.at_least(92) {
        true => Some(fields.required_text("public_key", any)?),
        false => fields.text("public_key", any)?,
    };
    let kind = match if version.at_least(2) { fields.get("type") } else { None } {
        None => "ssh",
        Some(value) => match value.as_str() {
            Some(kind @ ("ssh" | "x509")) => kind,
            _ => return Err(invalid("type", value, format_args!("{} is not one of ['ssh', 'x509']", Shown(value)))),
        },
    };
    let user_id = if version.at_least(10) { fields.text("user_id", any)? } else { None };
    fields.finish()?;
    Ok(Wanted {
        name,
        kind: kind.to_owned(),
        public_key: public_key.map(str::to_owned),
        user_id: user_id.filter(|id| !id.is_empty()).map(str::to_owned),
    })
}

/// Letters, digits, `_`, `-` and blanks; from 2.92 on also `@` and `.`.
fn key_name(value: &Value, request: &Request) -> Result<String, ApiError> {
    let text = if request.lenient { stripped_name("name", value)? } else { name("name", value)? };
    let more = if request.version.at_least(92) { "@._- " } else { "_- " };
    if text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c)) {
        return Ok(text.to_owned());
    }
    const REST: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let problem =
        format!("An invalid 'name' value was provided. The name must be: Only expected characters: [{more}{REST}]");
    Err(invalid("name", value, problem))
}

fn missing(error: StoreError, name: &str, user: &UserId) -> ApiError {
    match error {
        StoreError::NotFound { .. } => ApiError::not_found(format!("Keypair {name} not found for user {user}")),
        other => other.into(),
    }
}

fn refused(error: StoreError, name: &str) -> ApiError {
    match error {
        StoreError::Duplicate { .. } => ApiError::conflict(format!("Key pair '{name}' already exists.")),
        StoreError::Quota(_) => ApiError::OverQuota("Quota exceeded, too many key pairs.".to_owned()),
        other => other.into(),
    }
}
