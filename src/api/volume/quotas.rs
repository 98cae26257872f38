//! `/os-quota-sets`, `/os-quota-class-sets`, `/limits` (cinder/api/contrib/quotas.py, cinder/api/v3/limits.py).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::ProjectId;
use nova_core::volume::{VolumeQuotaKey, VolumeResource, VolumeType};
use nova_db::VolumeAccount;
use serde_json::{Map, Value, json};

use super::input::{Fields, body, invalid, require_admin};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, parse_bool, route};
use crate::volume::VolumeManager;

/// The resource.
pub(super) struct Quotas(pub(super) Arc<VolumeManager>);

type Accounts = BTreeMap<VolumeQuotaKey, VolumeAccount>;

/// What is in none of these projects, and what Cinder lets them have.
const ABSENT: [(&str, i64); 3] = [("backups", 10), ("backup_gigabytes", 1000), ("groups", 10)];

impl Resource for Quotas {
    fn name(&self) -> &'static str {
        "volume-quotas"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/os-quota-sets/{project}", &self, Self::show),
            route(Method::GET, "/os-quota-sets/{project}/defaults", &self, Self::defaults),
            route(Method::PUT, "/os-quota-sets/{project}", &self, Self::update),
            route(Method::DELETE, "/os-quota-sets/{project}", &self, Self::reset),
            route(Method::GET, "/os-quota-class-sets/{class}", &self, Self::class),
            route(Method::GET, "/limits", &self, Self::limits),
        ]
    }
}

fn number(limit: Option<u64>) -> Value {
    limit.map_or(json!(-1), |limit| json!(limit))
}

/// What is counted, by the names under which clients know it.
fn keys(types: &[VolumeType]) -> Vec<(String, VolumeQuotaKey)> {
    let of_all = VolumeResource::ALL.into_iter().map(|one| (one.as_str().to_owned(), VolumeQuotaKey::of(one)));
    let of_types = types.iter().flat_map(|of| {
        let counted = VolumeResource::ALL.into_iter().filter(|one| *one != VolumeResource::PerVolumeGigabytes);
        counted.map(|one| (format!("{}_{}", one.as_str(), of.name), VolumeQuotaKey::of_type(one, of.id)))
    });
    of_all.chain(of_types).collect()
}

/// Of one's own project everybody may read.
fn project(request: &Request) -> Result<(&RequestContext, ProjectId), ApiError> {
    let context = request.context()?;
    let id = ProjectId::from(request.param("project"));
    if id != context.project_id {
        require_admin(context, "volume_extension:quotas:show")?;
    }
    Ok((context, id))
}

impl Quotas {
    fn limit(&self, accounts: &Accounts, key: VolumeQuotaKey) -> Option<u64> {
        let own = accounts.get(&key).and_then(|account| account.limit);
        own.unwrap_or_else(|| self.0.options().limits.of(key))
    }

    async fn view(&self, accounts: &Accounts, id: Option<&str>, usage: bool) -> Result<Value, ApiError> {
        let types = self.0.store().list_volume_types().await?;
        let shown = |limit: Value, used: u64| {
            if usage { json!({"limit": limit, "in_use": used, "reserved": 0, "allocated": 0}) } else { limit }
        };
        let mut view = Map::new();
        view.extend(id.map(|id| ("id".to_owned(), json!(id))));
        for (name, key) in keys(&types) {
            let used = accounts.get(&key).map_or(0, |account| account.used);
            view.insert(name, shown(number(self.limit(accounts, key)), used));
        }
        view.extend(ABSENT.map(|(name, limit)| (name.to_owned(), shown(json!(limit), 0))));
        Ok(Value::Object(view))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let (_, project) = project(&request)?;
        let usage = request.query.get("usage").and_then(parse_bool).unwrap_or(false);
        let accounts = self.0.store().volume_accounts(&project).await?;
        let view = self.view(&accounts, Some(project.as_str()), usage).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "quota_set": view })))
    }

    async fn defaults(self: Arc<Self>, request: Request) -> HandlerResult {
        let (_, project) = project(&request)?;
        let view = self.view(&Accounts::new(), Some(project.as_str()), false).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "quota_set": view })))
    }

    async fn class(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "volume_extension:quota_classes:get")?;
        let view = self.view(&Accounts::new(), Some(request.param("class")), false).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "quota_class_set": view })))
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = body(&mut request, "quota_set").await?;
        require_admin(request.context()?, "volume_extension:quotas:update")?;
        let types = self.0.store().list_volume_types().await?;
        let known: BTreeMap<String, VolumeQuotaKey> = keys(&types).into_iter().collect();
        let limits = read_limits(&fields, &known)?;
        let project = ProjectId::from(request.param("project"));
        self.0.store().set_volume_limits(&project, limits).await?;
        let accounts = self.0.store().volume_accounts(&project).await?;
        let view = self.view(&accounts, None, false).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "quota_set": view })))
    }

    async fn reset(self: Arc<Self>, request: Request) -> HandlerResult {
        require_admin(request.context()?, "volume_extension:quotas:delete")?;
        let project = ProjectId::from(request.param("project"));
        let accounts = self.0.store().volume_accounts(&project).await?;
        let own = accounts.into_iter().filter(|(_, account)| account.limit.is_some());
        self.0.store().set_volume_limits(&project, own.map(|(key, _)| (key, None)).collect()).await?;
        Ok(Response::empty(StatusCode::OK))
    }

    async fn limits(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let named = request.query.get("project_id").or(request.query.get("tenant_id"));
        let project = match named.filter(|_| context.is_admin()) {
            Some(named) => ProjectId::from(named),
            None => context.project_id.clone(),
        };
        let accounts = self.0.store().volume_accounts(&project).await?;
        let limit = |resource| number(self.limit(&accounts, VolumeQuotaKey::of(resource)));
        let used = |resource| accounts.get(&VolumeQuotaKey::of(resource)).map_or(0, |account| account.used);
        let absolute = json!({
            "maxTotalVolumes": limit(VolumeResource::Volumes),
            "maxTotalSnapshots": limit(VolumeResource::Snapshots),
            "maxTotalVolumeGigabytes": limit(VolumeResource::Gigabytes),
            "maxTotalBackups": ABSENT[0].1,
            "maxTotalBackupGigabytes": ABSENT[1].1,
            "totalVolumesUsed": used(VolumeResource::Volumes),
            "totalSnapshotsUsed": used(VolumeResource::Snapshots),
            "totalGigabytesUsed": used(VolumeResource::Gigabytes),
            "totalBackupsUsed": 0,
            "totalBackupGigabytesUsed": 0,
        });
        Ok(Response::json(StatusCode::OK, &json!({"limits": {"rate": [], "absolute": absolute}})))
    }
}

/// Limits of a body; what cannot be limited here is refused.
fn read_limits(
    fields: &Fields,
    known: &BTreeMap<String, VolumeQuotaKey>,
) -> Result<BTreeMap<VolumeQuotaKey, Option<Option<u64>>>, ApiError> {
    let mut limits = BTreeMap::new();
    for name in fields.0.keys() {
        if ["tenant_id", "project_id", "id"].contains(&name.as_str()) {
            continue;
        }
        let Some(key) = known.get(name) else {
            return Err(invalid(
                "quota_set",
                format_args!("Bad key(s) in quota set: {}", name.chars().take(255).collect::<String>()),
            ));
        };
        if let Some(limit) = fields.number(name, -1)? {
            limits.insert(*key, Some(u64::try_from(limit).ok()));
        }
    }
    Ok(limits)
}
