//! `/os-security-groups` and `/os-security-group-rules`: only what comes in, as nova-network had it.

use std::sync::Arc;

use http::{Method, StatusCode};
use nova_core::context::RequestContext;
use nova_core::ids::{SecurityGroupId, SecurityGroupRuleId};
use nova_core::network::{
    Direction, EtherType, NetworkProblem, NetworkResource, RuleRequest, SecurityGroup, SecurityGroupRule, check_rule,
};
use nova_db::{ListQuery, SecurityGroupField, StoreError};
use serde_json::{Value, json};

use super::{PROXIED, Passed};
use crate::api::compute::ComputeApi;
use crate::api::validate::{Fields, Text, invalid};
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, parse_bool, policy, route};
use crate::network::{ATTEMPTS, NetworkManager};

/// Both resources.
pub(in crate::api::compute) struct SecurityGroups {
    api: Arc<ComputeApi>,
}

impl SecurityGroups {
    /// Over this cloud's books.
    pub(in crate::api::compute) fn new(api: Arc<ComputeApi>) -> Self {
        Self { api }
    }
}

impl Resource for SecurityGroups {
    fn name(&self) -> &'static str {
        "os-security-groups"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let routes = vec![
            route(Method::GET, "/os-security-groups", &self, Self::index),
            route(Method::POST, "/os-security-groups", &self, Self::create),
            route(Method::GET, "/os-security-groups/{id}", &self, Self::show),
            route(Method::PUT, "/os-security-groups/{id}", &self, Self::update),
            route(Method::DELETE, "/os-security-groups/{id}", &self, Self::delete),
            route(Method::POST, "/os-security-group-rules", &self, Self::create_rule),
            route(Method::DELETE, "/os-security-group-rules/{id}", &self, Self::delete_rule),
        ];
        routes.into_iter().map(|route| route.versions(PROXIED)).collect()
    }
}

/// Ports as nova-network wrote them: all of TCP and UDP are 1 to 65535, all of anything else is -1
/// (nova/network/security_group_api.py, `_convert_to_nova_security_group_rule`).
fn ports(rule: &SecurityGroupRule) -> (Value, Value) {
    match (rule.port_range_min, rule.port_range_max, rule.protocol.as_deref()) {
        (None, None, Some(name)) if ["tcp", "udp"].contains(&name) => (json!(1), json!(65535)),
        (None, None, Some(_)) => (json!(-1), json!(-1)),
        (min, max, _) => (json!(min), json!(max)),
    }
}

/// A rule, with the group that it lets in, if it names one.
fn rule_view(rule: &SecurityGroupRule, remote: Option<&SecurityGroup>) -> Value {
    let (from, to) = ports(rule);
    let any = if rule.ethertype == EtherType::V4 { "0.0.0.0/0" } else { "::/0" };
    let range = rule.remote_ip_prefix.map_or_else(|| any.to_owned(), |range| range.to_string());
    json!({
        "id": rule.id,
        "parent_group_id": rule.security_group_id,
        "ip_protocol": rule.protocol,
        "from_port": from,
        "to_port": to,
        "group": remote.map_or_else(|| json!({}), |group| json!({"name": group.name, "tenant_id": group.project_id})),
        "ip_range": if remote.is_some() { json!({}) } else { json!({"cidr": range}) },
    })
}

/// A group with what it lets in.
///
/// # Errors
/// Whatever the store says.
pub(in crate::api::compute) async fn view(books: &NetworkManager, group: &SecurityGroup) -> Result<Value, ApiError> {
    let remote: Vec<String> =
        group.rules.iter().filter_map(|rule| rule.remote_group_id).map(|id| id.to_string()).collect();
    let mut peers = Vec::new();
    for some in remote.chunks(500) {
        let query = ListQuery { filters: vec![(SecurityGroupField::Id, some.to_vec())], ..ListQuery::default() };
        peers.extend(books.store.list_bare_security_groups(&query).await?);
    }
    let ingress = group.rules.iter().filter(|rule| rule.direction == Direction::Ingress);
    let rules: Vec<Value> = ingress
        .filter_map(|rule| match rule.remote_group_id {
            Some(id) => peers.iter().find(|peer| peer.id == id).map(|peer| rule_view(rule, Some(peer))),
            None => Some(rule_view(rule, None)),
        })
        .collect();
    Ok(json!({
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": rules,
    }))
}

/// `name` and `description`, both of them.
fn parse(body: &Value, lenient: bool) -> Result<(String, String), ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let mut read = root.object("security_group")?;
    let name = read.required_text("name", Text::new(0, usize::MAX))?.trim();
    let description = read.required_text("description", Text::new(0, usize::MAX))?.trim();
    let checked = |what: &str, text: &str, least: usize| match text.chars().count() {
        0 if least > 0 => Err(ApiError::BadRequest(format!("Security group {what} cannot be empty."))),
        256.. => Err(ApiError::BadRequest(format!("Security group {what} should not be greater than 255 characters."))),
        _ => Ok(text.to_owned()),
    };
    let out = (checked("name", name, 1)?, checked("description", description, 0)?);
    read.finish()?;
    root.finish()?;
    Ok(out)
}

/// What the books refuse, as this API answered it.
fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::Network(problem @ NetworkProblem::OverQuota { .. }) => ApiError::OverQuota(problem.to_string()),
        StoreError::Network(problem @ NetworkProblem::NoSuchGroup { .. }) => ApiError::NotFound(problem.to_string()),
        StoreError::Network(problem) => ApiError::BadRequest(problem.to_string()),
        other => other.into(),
    }
}

fn group_id(text: &str) -> Result<SecurityGroupId, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request("Security group id should be uuid"))
}

fn missing(context: &RequestContext, id: SecurityGroupId) -> ApiError {
    ApiError::NotFound(format!("Security group {id} not found for project {}.", context.project_id))
}

fn no_rule(id: SecurityGroupRuleId) -> ApiError {
    ApiError::NotFound(format!("Security group rule {id} not found."))
}

fn told(group: &Value) -> HandlerResult {
    Ok(Response::json(StatusCode::OK, &json!({ "security_group": group })))
}

/// The caller's group of that id, in an outside Neutron.
async fn passed_group(passed: Passed<'_>, context: &RequestContext, id: &str) -> Result<Value, ApiError> {
    let id = group_id(id)?;
    passed.own_group(id).await?.ok_or_else(|| missing(context, id))
}

impl SecurityGroups {
    /// The caller's group of that id.
    async fn one(&self, context: &RequestContext, id: &str) -> Result<SecurityGroup, ApiError> {
        let parsed = group_id(id)?;
        let missing = || missing(context, parsed);
        match self.api.books()?.store.get_security_group(parsed).await {
            Ok(group) if context.is_admin() || group.project_id == context.project_id => Ok(group),
            Ok(_) | Err(StoreError::NotFound { .. }) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    async fn answer(&self, group: &SecurityGroup) -> HandlerResult {
        let view = view(self.api.books()?, group).await?;
        Ok(Response::json(StatusCode::OK, &json!({ "security_group": view })))
    }

    async fn index(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:get", context)?;
        let all = request.query.get("all_tenants").is_some_and(|text| parse_bool(text).unwrap_or(text.is_empty()));
        let (all, limit) = (all && context.is_admin(), request.query.paging(self.api.options.get().max_limit)?.limit);
        if let Some(passed) = self.api.passed_on(context) {
            let views = passed.groups(all, limit).await?;
            return Ok(Response::json(StatusCode::OK, &json!({ "security_groups": views })));
        }
        let books = self.api.books()?;
        books.default_group(&context.project_id).await?;
        let mut query = ListQuery::of(SecurityGroupField::ProjectId, &context.project_id);
        if all {
            query = ListQuery::default();
        }
        let mut views = Vec::new();
        for group in books.store.list_security_groups(&query).await?.iter().take(limit) {
            views.push(view(books, group).await?);
        }
        Ok(Response::json(StatusCode::OK, &json!({ "security_groups": views })))
    }

    async fn show(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:show", context)?;
        if let Some(passed) = self.api.passed_on(context) {
            let id = group_id(request.param("id"))?;
            return told(&passed.group(id).await?.ok_or_else(|| missing(context, id))?);
        }
        self.answer(&self.one(context, request.param("id")).await?).await
    }

    async fn create(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:create", context)?;
        let (name, description) = parse(&body, request.lenient)?;
        if name.eq_ignore_ascii_case("default") {
            return Err(ApiError::BadRequest(format!(
                "Security group {name} already exists for project {}.",
                context.project_id
            )));
        }
        if let Some(passed) = self.api.passed_on(context) {
            return told(&passed.create_group(&name, &description).await?);
        }
        let books = self.api.books()?;
        books.default_group(&context.project_id).await?;
        let group = books.new_group(&context.project_id, &name, &description, false);
        let limits = [NetworkResource::SecurityGroup, NetworkResource::SecurityGroupRule].map(|what| books.limit(what));
        let group = books.store.create_security_group(group, limits[0], limits[1]).await.map_err(refused)?;
        books.group_changed(group.id);
        self.answer(&group).await
    }

    async fn update(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:update", context)?;
        if let Some(passed) = self.api.passed_on(context) {
            let group = passed_group(passed, context, request.param("id")).await?;
            let (name, description) = parse(&body, request.lenient)?;
            if group["name"] == "default" && name != "default" {
                return Err(ApiError::bad_request("Unable to update system group 'default'"));
            }
            return told(&passed.update_group(group_id(request.param("id"))?, &name, &description).await?);
        }
        let books = self.api.books()?;
        let mut tries = 1;
        loop {
            let mut group = self.one(context, request.param("id")).await?;
            let (name, description) = parse(&body, request.lenient)?;
            if group.is_default && group.name != name {
                return Err(ApiError::BadRequest(format!("Unable to update system group '{}'", group.name)));
            }
            (group.name, group.description, group.updated_at) = (name, description, books.now());
            match books.store.update_security_group(group).await {
                Err(StoreError::Conflict { .. }) if tries < ATTEMPTS => tries += 1,
                other => {
                    let group = other.map_err(refused)?;
                    books.group_changed(group.id);
                    return self.answer(&group).await;
                }
            }
        }
    }

    async fn delete(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:delete", context)?;
        if let Some(passed) = self.api.passed_on(context) {
            passed_group(passed, context, request.param("id")).await?;
            passed.delete_group(group_id(request.param("id"))?).await?;
            return Ok(Response::empty(StatusCode::ACCEPTED));
        }
        let group = self.one(context, request.param("id")).await?;
        let books = self.api.books()?;
        match books.store.delete_security_group(group.id, false).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(refused(error)),
        }
        books.group_changed(group.id);
        Ok(Response::empty(StatusCode::ACCEPTED))
    }

    async fn create_rule(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:rule:create", context)?;
        let asked = Asked::read(&body, request.lenient)?;
        if let Some(passed) = self.api.passed_on(context) {
            let parent = passed_group(passed, context, &asked.parent).await?;
            let remote = match &asked.remote {
                Some(id) => Some(passed_group(passed, context, id).await?),
                None => None,
            };
            let view = passed.create_rule(&parent, remote.as_ref(), &asked.rule).await?;
            return Ok(Response::json(StatusCode::OK, &json!({ "security_group_rule": view })));
        }
        let parent = self.one(context, &asked.parent).await?;
        let remote = match &asked.remote {
            Some(id) => Some(self.one(context, id).await?),
            None => None,
        };
        let books = self.api.books()?;
        let wanted = RuleRequest { remote_group_id: remote.as_ref().map(|group| group.id), ..asked.rule };
        let id = SecurityGroupRuleId::generate(&*books.entropy);
        let rule = check_rule(&wanted, id, &parent, books.now());
        let rule = rule.map_err(|problem| ApiError::BadRequest(problem.to_string()))?;
        let limit = books.limit(NetworkResource::SecurityGroupRule);
        let made = books.store.create_security_group_rules(vec![rule], limit).await.map_err(refused)?;
        books.group_changed(parent.id);
        let view = made.first().map(|rule| rule_view(rule, remote.as_ref()));
        Ok(Response::json(StatusCode::OK, &json!({ "security_group_rule": view })))
    }

    async fn delete_rule(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        policy::enforce("os_compute_api:os-security-groups:rule:delete", context)?;
        let text = request.param("id");
        let id: SecurityGroupRuleId =
            text.parse().map_err(|_| ApiError::bad_request("Security group id should be uuid"))?;
        if let Some(passed) = self.api.passed_on(context) {
            return match passed.delete_rule(id).await? {
                true => Ok(Response::empty(StatusCode::ACCEPTED)),
                false => Err(no_rule(id)),
            };
        }
        let (books, missing) = (self.api.books()?, || no_rule(id));
        let rule = match books.store.get_security_group_rule(id).await {
            Ok(rule) if context.is_admin() || rule.project_id == context.project_id => rule,
            Ok(_) | Err(StoreError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        match books.store.delete_security_group_rule(rule.id).await {
            Ok(()) => {}
            Err(StoreError::NotFound { .. }) => return Err(missing()),
            Err(error) => return Err(error.into()),
        }
        books.group_changed(rule.security_group_id);
        Ok(Response::empty(StatusCode::ACCEPTED))
    }
}

/// A rule as this API writes it.
struct Asked {
    parent: String,
    remote: Option<String>,
    rule: RuleRequest,
}

impl Asked {
    fn read(body: &Value, lenient: bool) -> Result<Self, ApiError> {
        let mut root = Fields::root(body, lenient)?;
        let mut read = root.object("security_group_rule")?;
        let any = Text::new(0, 255);
        let parent = read.required_text("parent_group_id", any)?.to_owned();
        let remote = read.nullable_text("group_id", any)?.flatten().filter(|id| !id.is_empty()).map(str::to_owned);
        let cidr = read.nullable_text("cidr", any)?.flatten().filter(|cidr| !cidr.is_empty()).map(str::to_owned);
        let protocol = read.nullable_text("ip_protocol", any)?.flatten().map(str::to_lowercase);
        let (from, to) = (port(&mut read, "from_port")?, port(&mut read, "to_port")?);
        read.finish()?;
        root.finish()?;
        if protocol.is_none() && (from.is_some() || to.is_some()) && remote.is_none() {
            return Err(ApiError::bad_request("Invalid IP protocol None."));
        }
        // Nothing said of ports, or -1, is all of them.
        let all = from.is_none_or(|port| port < 0) && to.is_none_or(|port| port < 0);
        let (port_range_min, port_range_max) = if all { (None, None) } else { (from, to.filter(|port| *port >= 0)) };
        let range = if remote.is_none() { Some(cidr.unwrap_or_else(|| "0.0.0.0/0".to_owned())) } else { None };
        let v6 = range.as_ref().is_some_and(|range| range.contains(':'));
        let rule = RuleRequest {
            direction: "ingress".to_owned(),
            ethertype: Some(if v6 { "IPv6" } else { "IPv4" }.to_owned()),
            protocol,
            port_range_min,
            port_range_max,
            remote_ip_prefix: range,
            ..RuleRequest::default()
        };
        Ok(Self { parent, remote, rule })
    }
}

/// A port, as a number or as digits.
fn port(read: &mut Fields<'_>, key: &'static str) -> Result<Option<i64>, ApiError> {
    let Some(value) = read.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    let number = number.filter(|number| (-1..=65535).contains(number));
    number.map(Some).ok_or_else(|| invalid(key, value, "it is not a port from -1 through 65535"))
}
