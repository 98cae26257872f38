//! Bodies and queries, read as Nova's schemas read them (nova/api/openstack/compute/schemas/server_groups.py).

use nova_core::server_group::GroupPolicy;
use serde_json::Value;

use crate::api::compute::input::{MAX_INT, invalid_query, under};
use crate::api::validate::{Fields, Shown, invalid, name, stripped_name, wrong_type};
use crate::api::{ApiError, Microversion, Query};

/// What `POST /os-server-groups` asks for.
#[derive(Debug)]
pub struct Create {
    /// The name.
    pub name: String,
    /// The policy.
    pub policy: GroupPolicy,
    /// Of anti-affinity: how many members a host may have.
    pub max_server_per_host: Option<u32>,
}

/// Which part of a list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// So many are passed over.
    pub offset: usize,
    /// At most so many are shown.
    pub limit: usize,
}

/// Reads the body of a creation: a list of one policy until 2.63, then a policy with its rules.
///
/// # Errors
/// 400 that names the field.
pub fn create(body: &Value, version: Microversion, lenient: bool) -> Result<Create, ApiError> {
    let mut fields = under(body, "server_group", lenient)?;
    let value = fields.required("name")?;
    let name = if lenient { stripped_name("name", value)? } else { name("name", value)? }.trim().to_owned();
    if version.before(64) {
        let policy = policies(&mut fields, version)?;
        fields.finish()?;
        return Ok(Create { name, policy, max_server_per_host: None });
    }
    let policy = policy("policy", fields.required("policy")?, version)?;
    let max_server_per_host = rules(&mut fields, policy)?;
    fields.finish()?;
    Ok(Create { name, policy, max_server_per_host })
}

fn policies(fields: &mut Fields<'_>, version: Microversion) -> Result<GroupPolicy, ApiError> {
    const KEY: &str = "policies";
    let value = fields.required(KEY)?;
    match value.as_array().map(Vec::as_slice) {
        None => Err(wrong_type(KEY, value, "array")),
        Some([]) => Err(invalid(KEY, value, "[] is too short")),
        Some([one]) => policy(KEY, one, version),
        Some(_) => {
            let problem = "Additional items are not allowed: a group has one policy";
            Err(invalid(KEY, value, problem))
        }
    }
}

fn policy(key: &str, value: &Value, version: Microversion) -> Result<GroupPolicy, ApiError> {
    let known = if version.at_least(15) { &GroupPolicy::ALL[..] } else { &GroupPolicy::ALL[..2] };
    let found = value.as_str().and_then(GroupPolicy::parse).filter(|policy| known.contains(policy));
    found.ok_or_else(|| {
        let list: Vec<String> = known.iter().map(|policy| format!("'{policy}'")).collect();
        invalid(key, value, format_args!("'{}' is not one of [{}]", Shown(value), list.join(", ")))
    })
}

fn rules(fields: &mut Fields<'_>, policy: GroupPolicy) -> Result<Option<u32>, ApiError> {
    let Some(mut rules) = fields.optional_object("rules")? else { return Ok(None) };
    let max = rules.integer("max_server_per_host", 1, MAX_INT)?;
    rules.finish()?;
    if max.is_some() && policy != GroupPolicy::AntiAffinity {
        return Err(ApiError::bad_request("Only anti-affinity policy supports rules."));
    }
    Ok(max.and_then(|max| u32::try_from(max).ok()))
}

/// Reads `limit` and `offset`; a limit of 0 is none (nova/api/openstack/common.py, `limited`).
///
/// # Errors
/// 400 for what is no natural number.
pub fn page(query: &Query, max_limit: usize) -> Result<Page, ApiError> {
    for text in query.all("offset") {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            let problem = format!("'{text}' does not match '^[0-9]*$'");
            return Err(invalid_query("offset", text, &problem));
        }
    }
    let limit = query.paging(max_limit)?.limit;
    // Longer than a machine word is beyond every list.
    let offset = query.get("offset").map_or(0, |text| text.parse().unwrap_or(usize::MAX));
    Ok(Page { offset, limit: if limit == 0 { max_limit } else { limit } })
}
