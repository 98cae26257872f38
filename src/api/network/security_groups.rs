//! `/security-groups` and `/security-group-rules`.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::clock::api_time;
use nova_core::context::RequestContext;
use nova_core::ids::{ProjectId, SecurityGroupId, SecurityGroupRuleId};
use nova_core::network::{NetworkProblem, NetworkResource, RuleRequest, SecurityGroup, SecurityGroupRule, check_rule};
use nova_db::{RuleField, SecurityGroupField, StoreError};
use serde_json::{Value, json};

use super::input::{Fields, invalid, named, require_member};
use super::list::{Collection, bad_marker, made, nothing, one};
use super::networks::short;
use crate::api::{ApiError, HandlerResult, Request, Resource, Route, route};
use crate::network::NetworkManager;

const GROUPS: Collection<SecurityGroupField> = Collection {
    name: "security-groups",
    attributes: &[
        "id",
        "name",
        "description",
        "tenant_id",
        "project_id",
        "stateful",
        "created_at",
        "updated_at",
        "shared",
    ],
    flags: &["stateful", "shared"],
    field: SecurityGroupField::parse,
};

const RULES: Collection<RuleField> = Collection {
    name: "security-group-rules",
    attributes: &[
        "id",
        "security_group_id",
        "tenant_id",
        "project_id",
        "direction",
        "ethertype",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "description",
        "created_at",
        "updated_at",
    ],
    flags: &[],
    field: RuleField::parse,
};

/// Rules of one request at most.
const MOST_RULES: usize = 1000;

/// The resource.
pub(super) struct SecurityGroups(pub(super) Arc<NetworkManager>);

impl Resource for SecurityGroups {
    fn name(&self) -> &'static str {
        "security-groups"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::GET, "/security-groups", &self, Self::index),
            route(Method::POST, "/security-groups", &self, Self::create),
            route(Method::GET, "/security-groups/{id}", &self, Self::show),
            route(Method::PUT, "/security-groups/{id}", &self, Self::update),
            route(Method::DELETE, "/security-groups/{id}", &self, Self::delete),
            route(Method::GET, "/security-group-rules", &self, Self::rules),
            route(Method::POST, "/security-group-rules", &self, Self::create_rules),
            route(Method::GET, "/security-group-rules/{id}", &self, Self::show_rule),
            route(Method::DELETE, "/security-group-rules/{id}", &self, Self::delete_rule),
        ]
    }
}

fn no_group(id: &str) -> ApiError {
    named(404, "SecurityGroupNotFound", format!("Security group {} does not exist.", short(id)))
}

fn no_rule(id: &str) -> ApiError {
    named(404, "SecurityGroupRuleNotFound", format!("Security group rule {} does not exist.", short(id)))
}

fn is_own(context: &RequestContext, project: &ProjectId) -> bool {
    context.is_admin() || *project == context.project_id
}

impl SecurityGroups {
    async fn visible(&self, context: &RequestContext, id: &str) -> Result<SecurityGroup, ApiError> {
        let Ok(parsed) = id.parse::<SecurityGroupId>() else { return Err(no_group(id)) };
        match self.0.store.get_security_group(parsed).await {
            Ok(group) if is_own(context, &group.project_id) => Ok(group),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(no_group(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever looks has a default group: the first look makes it. So does an administrator's look at one project.
    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let listing = GROUPS.read(&request.query, context, &[], self.0.options.max_limit)?;
        if !context.project_id.as_str().is_empty() {
            self.0.default_group(&context.project_id).await?;
        }
        let groups = self.0.store.list_security_groups(&listing.query).await;
        let groups = groups.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        GROUPS.answer(&request, &listing, groups.iter().map(view).collect())
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let group = self.visible(request.context()?, request.param("id")).await?;
        let mut shown = view(&group);
        shown["applied"] = self.0.group_applied(&group).await?.into();
        one(StatusCode::OK, "security_group", shown, &request)
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "security_group").await?;
        let context = request.context()?;
        require_member(context, "create_security_group")?;
        let project = fields.project(context)?;
        let mut group = self.0.new_group(&project, "", "", false);
        apply(&fields, &mut group)?;
        fields.done()?;
        if group.name.eq_ignore_ascii_case("default") {
            let text = "Default security group already exists.";
            return Err(named(409, "SecurityGroupDefaultAlreadyExists", text.to_owned()));
        }
        self.0.default_group(&project).await?;
        let limits = [NetworkResource::SecurityGroup, NetworkResource::SecurityGroupRule].map(|r| self.0.limit(r));
        let group = self.0.store.create_security_group(group, limits[0], limits[1]).await?;
        self.0.group_changed(group.id);
        one(StatusCode::CREATED, "security_group", view(&group), &request)
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let fields = Fields::of(&mut request, "security_group").await?;
        let context = request.context()?;
        let mut tries = 1;
        loop {
            let mut group = self.visible(context, request.param("id")).await?;
            require_member(context, "update_security_group")?;
            apply(&fields, &mut group)?;
            fields.done()?;
            group.updated_at = self.0.now();
            match self.0.store.update_security_group(group).await {
                Err(StoreError::Conflict { .. }) if tries < crate::network::ATTEMPTS => tries += 1,
                answer => {
                    let group = answer?;
                    self.0.group_changed(group.id);
                    return one(StatusCode::OK, "security_group", view(&group), &request);
                }
            }
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let group = self.visible(context, request.param("id")).await?;
        require_member(context, "delete_security_group")?;
        match self.0.store.delete_security_group(group.id, context.is_admin()).await {
            Err(StoreError::NotFound { .. }) => Err(no_group(request.param("id"))),
            answer => {
                self.0.group_changed(answer?.id);
                nothing()
            }
        }
    }

    async fn rules(self: Arc<Self>, request: Request) -> HandlerResult {
        let listing = RULES.read(&request.query, request.context()?, &[], self.0.options.max_limit)?;
        let rules = self.0.store.list_security_group_rules(&listing.query).await;
        let rules = rules.map_err(|error| bad_marker(error, listing.query.after.as_deref()))?;
        RULES.answer(&request, &listing, rules.iter().map(rule_view).collect())
    }

    async fn visible_rule(&self, context: &RequestContext, id: &str) -> Result<SecurityGroupRule, ApiError> {
        let Ok(parsed) = id.parse::<SecurityGroupRuleId>() else { return Err(no_rule(id)) };
        match self.0.store.get_security_group_rule(parsed).await {
            Ok(rule) if is_own(context, &rule.project_id) => Ok(rule),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(no_rule(id)),
            Err(error) => Err(error.into()),
        }
    }

    async fn show_rule(self: Arc<Self>, request: Request) -> HandlerResult {
        let rule = self.visible_rule(request.context()?, request.param("id")).await?;
        one(StatusCode::OK, "security_group_rule", rule_view(&rule), &request)
    }

    /// One rule, or several of one group: all or none.
    async fn create_rules(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let (all, several) = Fields::one_or_more(&mut request, "security_group_rule", "security_group_rules").await?;
        let context = request.context()?;
        require_member(context, "create_security_group_rule")?;
        if all.len() > MOST_RULES {
            return Err(invalid("security_group_rules", format_args!("there are more than {MOST_RULES}")));
        }
        let rules = self.new_rules(context, &all).await?;
        let limit = self.0.limit(NetworkResource::SecurityGroupRule);
        let rules = self.0.store.create_security_group_rules(rules, limit).await?;
        if let Some(rule) = rules.first() {
            self.0.group_changed(rule.security_group_id);
        }
        let views = rules.iter().map(rule_view).collect();
        made(several, "security_group_rule", "security_group_rules", views, &request)
    }

    async fn new_rules(&self, context: &RequestContext, all: &[Fields]) -> Result<Vec<SecurityGroupRule>, ApiError> {
        let mut group: Option<SecurityGroup> = None;
        let mut rules = Vec::with_capacity(all.len());
        for fields in all {
            let id: SecurityGroupId = fields.needed("security_group_id", "UUID")?;
            let known = match group.take() {
                Some(known) if known.id == id => known,
                Some(_) => {
                    let text = "Multiple security group ids are not allowed in one request";
                    return Err(named(400, "SecurityGroupNotSingleGroupRules", text.to_owned()));
                }
                None => self.visible(context, &id.to_string()).await?,
            };
            fields.project(context)?;
            let wanted = request_of(fields)?;
            fields.done()?;
            if let Some(remote) = wanted.remote_group_id.filter(|remote| *remote != id) {
                self.visible(context, &remote.to_string()).await?;
            }
            let new = SecurityGroupRuleId::generate(&*self.0.entropy);
            rules.push(check_rule(&wanted, new, &known, self.0.now())?);
            group = Some(known);
        }
        Ok(rules)
    }

    async fn delete_rule(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let rule = self.visible_rule(context, request.param("id")).await?;
        require_member(context, "delete_security_group_rule")?;
        match self.0.store.delete_security_group_rule(rule.id).await {
            Err(StoreError::NotFound { .. }) => Err(no_rule(request.param("id"))),
            answer => {
                answer?;
                self.0.group_changed(rule.security_group_id);
                nothing()
            }
        }
    }
}

fn apply(fields: &Fields, group: &mut SecurityGroup) -> Result<(), ApiError> {
    let was = group.name.clone();
    fields.text("name", 255, &mut group.name)?;
    fields.text("description", 255, &mut group.description)?;
    fields.flag("stateful", &mut group.stateful)?;
    if group.is_default && was != group.name {
        return Err(NetworkProblem::DefaultGroupName.into());
    }
    Ok(())
}

/// A rule as it was written; ports and protocols come as numbers and as texts.
fn request_of(fields: &Fields) -> Result<RuleRequest, ApiError> {
    let mut request = RuleRequest { direction: fields.needed("direction", "string")?, ..RuleRequest::default() };
    request.ethertype = fields.parsed("ethertype", "string")?;
    request.protocol = match fields.get("protocol") {
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => fields.parsed("protocol", "string")?,
    };
    let any = i64::from(i32::MAX);
    request.port_range_min = fields.number("port_range_min", -any, any)?;
    request.port_range_max = fields.number("port_range_max", -any, any)?;
    request.remote_ip_prefix = fields.parsed("remote_ip_prefix", "string")?;
    request.remote_group_id = fields.parsed("remote_group_id", "UUID")?;
    fields.text("description", 255, &mut request.description)?;
    Ok(request)
}

fn view(group: &SecurityGroup) -> Value {
    json!({
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "project_id": group.project_id,
        "stateful": group.stateful,
        "shared": false,
        "security_group_rules": group.rules.iter().map(rule_view).collect::<Vec<_>>(),
        "tags": [],
        "revision_number": group.generation,
        "created_at": api_time(group.created_at),
        "updated_at": api_time(group.updated_at),
    })
}

fn rule_view(rule: &SecurityGroupRule) -> Value {
    json!({
        "id": rule.id,
        "security_group_id": rule.security_group_id,
        "tenant_id": rule.project_id,
        "project_id": rule.project_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max,
        "remote_ip_prefix": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": null,
        "normalized_cidr": rule.remote_ip_prefix,
        "description": rule.description,
        "tags": [],
        "revision_number": 0,
        "created_at": api_time(rule.created_at),
        "updated_at": api_time(rule.created_at),
    })
}
