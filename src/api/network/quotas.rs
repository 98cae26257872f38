//! `/quotas`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::ProjectId;
use nova_core::network::NetworkResource;
use nova_db::NetworkAccount;
use serde_json::{Map, Value, json};

use super::input::{Fields, named, require_admin};
use super::list::nothing;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};
use crate::network::NetworkManager;

/// The resource.
pub(super) struct Quotas(pub(super) Arc<NetworkManager>);

type Accounts = BTreeMap<NetworkResource, NetworkAccount>;

impl Resource for Quotas {
    fn name(&self) -> &'static str {
        "quotas"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/quotas", &self, Self::index),
            route(Method::GET, "/quotas/{project}", &self, Self::show),
            route(Method::PUT, "/quotas/{project}", &self, Self::update),
            route(Method::DELETE, "/quotas/{project}", &self, Self::reset),
            route(Method::GET, "/quotas/{project}/default", &self, Self::defaults),
            route(Method::GET, "/quotas/{project}/details", &self, Self::details),
            route(Method::GET, "/quotas/{project}/details.json", &self, Self::details),
        ]
    }
}

/// Of one's own project everybody may read.
fn project(request: &Request) -> Result<(&RequestContext, ProjectId), ApiError> {
    let context = request.context()?;
    let id = ProjectId::from(request.param("project"));
    if id != context.project_id && !context.is_admin() {
        return Err(named(
            403,
            "AdminRequired",
            "User does not have admin privileges: Only admin is authorized to access quotas for another tenant."
                .to_owned(),
        ));
    }
    Ok((context, id))
}

fn number(limit: Option<u64>) -> Value {
    limit.map_or(json!(-1), |limit| json!(limit))
}

impl Quotas {
    fn limit(&self, accounts: &Accounts, resource: NetworkResource) -> Option<u64> {
        let own = accounts.get(&resource).and_then(|account| account.limit);
        own.unwrap_or_else(|| self.0.limit(resource))
    }

    fn view(&self, accounts: &Accounts) -> Value {
        let one = |resource: NetworkResource| (resource.as_str().to_owned(), number(self.limit(accounts, resource)));
        Value::Object(NetworkResource::ALL.into_iter().map(one).collect::<Map<_, _>>())
    }

    /// Neutron lists projects with limits of their own; these are asked for one by one here.
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let accounts = self.0.store.network_accounts(&context.project_id).await?;
        let own = accounts.values().any(|account| account.limit.is_some());
        let mut quota = self.view(&accounts);
        quota["project_id"] = json!(context.project_id);
        quota["tenant_id"] = json!(context.project_id);
        let list = if own { vec![quota] } else { Vec::new() };
        Ok(Response::json(StatusCode::OK, &json!({ "quotas": list })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let (_, project) = project(&request)?;
        let accounts = self.0.store.network_accounts(&project).await?;
        Ok(Response::json(StatusCode::OK, &json!({"quota": self.view(&accounts)})))
    }

    async fn defaults(self: Arc<Self>, request: Request) -> HandlerResult {
        project(&request)?;
        Ok(Response::json(StatusCode::OK, &json!({"quota": self.view(&Accounts::new())})))
    }

    async fn details(self: Arc<Self>, request: Request) -> HandlerResult {
        let (_, project) = project(&request)?;
        let accounts = self.0.store.network_accounts(&project).await?;
        let one = |resource: NetworkResource| {
            let used = accounts.get(&resource).map_or(0, |account| account.used);
            let limit = number(self.limit(&accounts, resource));
            (resource.as_str().to_owned(), json!({"limit": limit, "used": used, "reserved": 0}))
        };
        let details: Map<_, _> = NetworkResource::ALL.into_iter().map(one).collect();
        Ok(Response::json(StatusCode::OK, &json!({ "quota": details })))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "quota").await?;
        require_admin(request.context()?, "update_quota")?;
        let mut limits = BTreeMap::new();
        for resource in NetworkResource::ALL {
            if let Some(limit) = fields.number(resource.as_str(), -1, i64::from(i32::MAX))? {
                limits.insert(resource, Some(u64::try_from(limit).ok()));
            }
        }
        fields.done()?;
        let project = ProjectId::from(request.param("project"));
        self.0.store.set_network_limits(&project, limits).await?;
        let accounts = self.0.store.network_accounts(&project).await?;
        Ok(Response::json(StatusCode::OK, &json!({"quota": self.view(&accounts)})))
    }

    async fn reset(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "delete_quota")?;
        let limits = NetworkResource::ALL.into_iter().map(|resource| (resource, None)).collect();
        self.0.store.set_network_limits(&ProjectId::from(request.param("project")), limits).await?;
        nothing()
    }
}
