//! Security groups: only what comes in, as nova-network had it.

use nova_core::ids::{SecurityGroupId, SecurityGroupRuleId};
use nova_core::network::RuleRequest;
use serde_json::{Value, json};

use super::{Passed, list, refused, text};
use crate::api::ApiError;
use crate::network::Objects;

/// Ids that one request names.
const AT_ONCE: usize = 100;

/// Ports as nova-network wrote them (nova/network/security_group_api.py, `_convert_to_nova_security_group_rule`).
fn ports(rule: &Value) -> (Value, Value) {
    let (min, max) = (&rule["port_range_min"], &rule["port_range_max"]);
    match (min.is_null() && max.is_null(), rule["protocol"].as_str()) {
        (true, Some("tcp" | "udp")) => (json!(1), json!(65535)),
        (true, Some(_)) => (json!(-1), json!(-1)),
        _ => (min.clone(), max.clone()),
    }
}

fn rule_view(rule: &Value, remote: Option<&Value>) -> Value {
    let (from, to) = ports(rule);
    let any = if rule["ethertype"] == "IPv6" { "::/0" } else { "0.0.0.0/0" };
    let range = rule["remote_ip_prefix"].as_str().unwrap_or(any);
    json!({
        "id": rule["id"],
        "parent_group_id": rule["security_group_id"],
        "ip_protocol": rule["protocol"],
        "from_port": from,
        "to_port": to,
        "group": remote.map_or_else(|| json!({}), |group| json!({"name": group["name"], "tenant_id": owner(group)})),
        "ip_range": if remote.is_some() { json!({}) } else { json!({"cidr": range}) },
    })
}

fn owner(object: &Value) -> &Value {
    if object["project_id"].is_string() { &object["project_id"] } else { &object["tenant_id"] }
}

/// A group with what it lets in; `peers` are groups that its rules may name.
fn view(group: &Value, peers: &[Value]) -> Value {
    let ingress = list(group, "security_group_rules").filter(|rule| rule["direction"] == "ingress");
    let rules: Vec<Value> = ingress
        .filter_map(|rule| match &rule["remote_group_id"] {
            Value::Null => Some(rule_view(rule, None)),
            id => peers.iter().find(|peer| peer["id"] == *id).map(|peer| rule_view(rule, Some(peer))),
        })
        .collect();
    json!({
        "id": group["id"],
        "name": group["name"],
        "description": group["description"],
        "tenant_id": owner(group),
        "rules": rules,
    })
}

impl Passed<'_> {
    async fn groups_by_id(&self, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
        let mut found = Vec::new();
        for some in ids.chunks(AT_ONCE) {
            let query: Vec<(&str, &str)> = some.iter().map(|id| ("id", *id)).collect();
            found.extend(self.find(Objects::GROUPS, &query).await?);
        }
        Ok(found)
    }

    /// Groups as they are shown.
    pub(super) async fn group_views(&self, groups: &[Value]) -> Result<Vec<Value>, ApiError> {
        let rules = groups.iter().flat_map(|group| list(group, "security_group_rules"));
        let mut missing: Vec<&str> = rules.filter_map(|rule| rule["remote_group_id"].as_str()).collect();
        missing.retain(|id| !groups.iter().any(|group| group["id"] == *id));
        missing.sort_unstable();
        missing.dedup();
        let mut peers = self.groups_by_id(&missing).await?;
        peers.extend(groups.iter().cloned());
        Ok(groups.iter().map(|group| view(group, &peers)).collect())
    }

    /// The caller's groups, or all.
    pub(in crate::api::compute) async fn groups(&self, all: bool, limit: usize) -> Result<Vec<Value>, ApiError> {
        let project = [("project_id", self.context.project_id.as_str())];
        let mut found = self.find(Objects::GROUPS, if all { &[] } else { &project }).await?;
        found.truncate(limit);
        self.group_views(&found).await
    }

    /// The caller's group of that id, in Neutron's words.
    pub(in crate::api::compute) async fn own_group(&self, id: SecurityGroupId) -> Result<Option<Value>, ApiError> {
        let found = self.neutron.show(Objects::GROUPS, id).await.map_err(refused)?;
        Ok(found.filter(|one| self.may_see(one)))
    }

    /// The same as it is shown.
    pub(in crate::api::compute) async fn group(&self, id: SecurityGroupId) -> Result<Option<Value>, ApiError> {
        match self.own_group(id).await? {
            Some(group) => Ok(self.group_views(&[group]).await?.pop()),
            None => Ok(None),
        }
    }

    /// A new one.
    pub(in crate::api::compute) async fn create_group(&self, name: &str, description: &str) -> Result<Value, ApiError> {
        let body = json!({"name": name, "description": description, "project_id": self.context.project_id});
        let made = self.neutron.create(Objects::GROUPS, body).await.map_err(refused)?;
        Ok(self.group_views(&[made]).await?.pop().unwrap_or_default())
    }

    /// Another name and description for one of the caller's, which was looked at before.
    pub(in crate::api::compute) async fn update_group(
        &self,
        id: SecurityGroupId,
        name: &str,
        description: &str,
    ) -> Result<Value, ApiError> {
        let body = json!({"name": name, "description": description});
        let changed = self.neutron.change(Objects::GROUPS, id, body).await.map_err(refused)?;
        Ok(self.group_views(&[changed]).await?.pop().unwrap_or_default())
    }

    /// Removes one of the caller's, which was looked at before.
    pub(in crate::api::compute) async fn delete_group(&self, id: SecurityGroupId) -> Result<(), ApiError> {
        self.neutron.remove(Objects::GROUPS, id).await.map_err(refused)
    }

    /// One more rule of a group of the caller's.
    pub(in crate::api::compute) async fn create_rule(
        &self,
        parent: &Value,
        remote: Option<&Value>,
        rule: &RuleRequest,
    ) -> Result<Value, ApiError> {
        let body = json!({
            "security_group_id": parent["id"],
            "project_id": owner(parent),
            "direction": rule.direction,
            "ethertype": rule.ethertype,
            "protocol": rule.protocol,
            "port_range_min": rule.port_range_min,
            "port_range_max": rule.port_range_max,
            "remote_ip_prefix": rule.remote_ip_prefix,
            "remote_group_id": remote.map(|group| &group["id"]),
        });
        let made = self.neutron.create(Objects::RULES, body).await.map_err(refused)?;
        Ok(rule_view(&made, remote))
    }

    /// Removes a rule of the caller's. False: there is none.
    pub(in crate::api::compute) async fn delete_rule(&self, id: SecurityGroupRuleId) -> Result<bool, ApiError> {
        let found = self.neutron.show(Objects::RULES, id).await.map_err(refused)?;
        if !found.is_some_and(|rule| self.may_see(&rule)) {
            return Ok(false);
        }
        self.neutron.remove(Objects::RULES, id).await.map_err(refused)?;
        Ok(true)
    }

    /// A project's group by its id, or by a name that no other of them has.
    pub(super) async fn group_named(&self, project: &str, name: &str) -> Result<Value, ApiError> {
        let own = self.find(Objects::GROUPS, &[("project_id", project)]).await?;
        if let Some(group) = own.iter().find(|group| text(group, "id") == name) {
            return Ok(group.clone());
        }
        let mut found = own.into_iter().filter(|group| text(group, "name") == name);
        let shown: String = name.chars().take(255).collect();
        match (found.next(), found.next()) {
            (Some(group), None) => Ok(group),
            (None, _) => Err(ApiError::NotFound(format!("Unable to find security_group with name or id '{shown}'"))),
            (Some(_), Some(_)) => Err(ApiError::Conflict(format!(
                "Multiple security groups found matching '{shown}'. Use an ID to be more specific."
            ))),
        }
    }

    /// Groups of these ids, as they are shown; those that are gone are left out.
    pub(super) async fn group_views_by_id(&self, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
        let groups = self.groups_by_id(ids).await?;
        self.group_views(&groups).await
    }
}
