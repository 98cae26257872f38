//! Security groups and their rules.

use std::collections::BTreeMap;

use nova_core::ids::{ProjectId, SecurityGroupId, SecurityGroupRuleId};
use nova_core::network::{NetworkProblem, NetworkResource, SecurityGroup, SecurityGroupRule};

use super::super::{add, add_all, conflict, first, list, need, remove_existing, replace_or_race};
use super::{query, usage, write_over};
use crate::records::PortGroup;
use crate::rows::{Condition, Fail, Lock, Record, Select, Transaction, Value};
use crate::{ListQuery, SecurityGroupField};

/// Ids that one question names at most: databases bound the values of a statement.
const AT_ONCE: usize = 500;

pub(super) async fn with_rules(
    tx: &mut dyn Transaction,
    mut groups: Vec<SecurityGroup>,
) -> Result<Vec<SecurityGroup>, Fail> {
    let mut rules: BTreeMap<SecurityGroupId, Vec<SecurityGroupRule>> = BTreeMap::new();
    let ids: Vec<Value> = groups.iter().map(|group| Value::text(group.id)).collect();
    for some in ids.chunks(AT_ONCE) {
        let which = Condition::In("security_group_id", some.to_vec());
        for rule in list::<SecurityGroupRule>(tx, &Select::new(which).by(&["created_at", "id"])).await? {
            rules.entry(rule.security_group_id).or_default().push(rule);
        }
    }
    for group in &mut groups {
        group.rules = rules.remove(&group.id).unwrap_or_default();
    }
    Ok(groups)
}

async fn complete(tx: &mut dyn Transaction, group: SecurityGroup) -> Result<SecurityGroup, Fail> {
    let group = with_rules(tx, vec![group.clone()]).await?.pop().unwrap_or(group);
    Ok(group)
}

pub(super) async fn get(tx: &mut dyn Transaction, id: SecurityGroupId) -> Result<SecurityGroup, Fail> {
    let group = super::get(tx, id).await?;
    complete(tx, group).await
}

pub(super) async fn list_groups(
    tx: &mut dyn Transaction,
    query: &ListQuery<SecurityGroupField>,
) -> Result<Vec<SecurityGroup>, Fail> {
    let groups = query::own(tx, query).await?;
    with_rules(tx, groups).await
}

pub(super) async fn default_of(tx: &mut dyn Transaction, project: &ProjectId) -> Result<Option<SecurityGroup>, Fail> {
    let which = Condition::Is("default_of", Value::text(project));
    match first::<SecurityGroup>(tx, Select::new(which), Lock::None).await? {
        Some(found) => complete(tx, found.record).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn make_default(tx: &mut dyn Transaction, group: &SecurityGroup) -> Result<SecurityGroup, Fail> {
    match default_of(tx, &group.project_id).await? {
        Some(known) => Ok(known),
        None => create(tx, &SecurityGroup { is_default: true, ..group.clone() }, None, None).await,
    }
}

pub(super) async fn create(
    tx: &mut dyn Transaction,
    group: &SecurityGroup,
    limit: Option<u64>,
    rule_limit: Option<u64>,
) -> Result<SecurityGroup, Fail> {
    let count = group.rules.len() as u64;
    let project = &group.project_id;
    if group.is_default {
        // A project has one, whatever its limits.
        usage::record(tx, project, NetworkResource::SecurityGroup, 1).await?;
        usage::record(tx, project, NetworkResource::SecurityGroupRule, count).await?;
    } else {
        usage::charge(tx, project, NetworkResource::SecurityGroup, 1, limit).await?;
        usage::charge(tx, project, NetworkResource::SecurityGroupRule, count, rule_limit).await?;
    }
    let mut kept = SecurityGroup { generation: 1, ..group.clone() };
    let rules = std::mem::take(&mut kept.rules);
    add(tx, &kept).await?;
    if !rules.is_empty() {
        add_all(tx, &rules).await?;
    }
    complete(tx, kept).await
}

/// Writes a group that nothing else of the operation changes; others that change it try again.
async fn hold(tx: &mut dyn Transaction, id: SecurityGroupId) -> Result<SecurityGroup, Fail> {
    let found = need::<SecurityGroup>(tx, &[Value::text(id)], Lock::ForUpdate).await?;
    let group = SecurityGroup { generation: found.generation + 1, ..found.record };
    replace_or_race(tx, &group, found.generation).await?;
    Ok(group)
}

pub(super) async fn update(tx: &mut dyn Transaction, group: &SecurityGroup) -> Result<SecurityGroup, Fail> {
    let key = [Value::text(group.id)];
    let old = need::<SecurityGroup>(tx, &key, Lock::ForUpdate).await?;
    if old.generation != group.generation {
        return Err(conflict::<SecurityGroup>(&key));
    }
    if old.record.is_default && old.record.name != group.name {
        return Err(NetworkProblem::DefaultGroupName.into());
    }
    let next = SecurityGroup {
        project_id: old.record.project_id,
        is_default: old.record.is_default,
        rules: Vec::new(),
        generation: old.generation + 1,
        ..group.clone()
    };
    write_over(tx, &next, old.generation, key).await?;
    complete(tx, next).await
}

pub(super) async fn delete(
    tx: &mut dyn Transaction,
    id: SecurityGroupId,
    with_default: bool,
) -> Result<SecurityGroup, Fail> {
    let group = hold(tx, id).await?;
    if group.is_default && !with_default {
        return Err(NetworkProblem::DefaultGroup.into());
    }
    // Ports of the project take groups only while they hold this.
    usage::hold(tx, &group.project_id, NetworkResource::Port).await?;
    let users = Select::new(Condition::Is("group_id", Value::text(id))).limit(1);
    if !tx.select(PortGroup::TABLE, &users, Lock::None).await?.is_empty() {
        return Err(NetworkProblem::GroupInUse { group: id }.into());
    }
    let group = complete(tx, group).await?;
    let which = Condition::Any(vec![
        Condition::Is("security_group_id", Value::text(id)),
        Condition::Is("remote_group_id", Value::text(id)),
    ]);
    let rules: Vec<SecurityGroupRule> = list(tx, &Select::new(which.clone())).await?;
    tx.delete(SecurityGroupRule::TABLE, &which).await?;
    let mut counts: BTreeMap<&ProjectId, u64> = BTreeMap::new();
    for rule in &rules {
        *counts.entry(&rule.project_id).or_default() += 1;
    }
    for (project, count) in counts {
        usage::refund(tx, project, NetworkResource::SecurityGroupRule, count).await?;
    }
    remove_existing::<SecurityGroup>(tx, &[Value::text(id)]).await?;
    usage::refund(tx, &group.project_id, NetworkResource::SecurityGroup, 1).await?;
    Ok(group)
}

/// Rules that name a group make it known to the group: whoever removes it sees them, or they find it gone.
pub(super) async fn add_rules(
    tx: &mut dyn Transaction,
    rules: &[SecurityGroupRule],
    limit: Option<u64>,
) -> Result<Vec<SecurityGroupRule>, Fail> {
    let Some(one) = rules.first() else { return Ok(Vec::new()) };
    let mut named: Vec<SecurityGroupId> = rules.iter().filter_map(|rule| rule.remote_group_id).collect();
    named.push(one.security_group_id);
    named.sort_unstable();
    named.dedup();
    for group in named {
        hold(tx, group).await.map_err(|fail| missing(fail, group))?;
    }
    let known: Vec<SecurityGroupRule> =
        list(tx, &Select::new(Condition::Is("security_group_id", Value::text(one.security_group_id)))).await?;
    let mut prints: BTreeMap<String, SecurityGroupRuleId> =
        known.iter().map(|rule| (rule.fingerprint(), rule.id)).collect();
    for rule in rules {
        if let Some(same) = prints.insert(rule.fingerprint(), rule.id) {
            return Err(NetworkProblem::RuleExists { rule: same }.into());
        }
    }
    usage::charge(tx, &one.project_id, NetworkResource::SecurityGroupRule, rules.len() as u64, limit).await?;
    add_all(tx, rules).await?;
    Ok(rules.to_vec())
}

fn missing(fail: Fail, group: SecurityGroupId) -> Fail {
    match fail {
        Fail::Store(crate::StoreError::NotFound { .. }) => NetworkProblem::NoSuchGroup { group }.into(),
        other => other,
    }
}

pub(super) async fn remove_rule(tx: &mut dyn Transaction, id: SecurityGroupRuleId) -> Result<(), Fail> {
    let key = [Value::text(id)];
    let rule = need::<SecurityGroupRule>(tx, &key, Lock::None).await?.record;
    hold(tx, rule.security_group_id).await?;
    remove_existing::<SecurityGroupRule>(tx, &key).await?;
    usage::refund(tx, &rule.project_id, NetworkResource::SecurityGroupRule, 1).await
}
