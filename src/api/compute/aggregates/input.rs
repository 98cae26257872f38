//! Bodies, read as Nova's schemas read them (nova/api/openstack/compute/schemas/aggregates.py and aggregate_images.py).

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::HostName;
use serde_json::{Map, Value};

use crate::api::ApiError;
use crate::api::compute::input::under;
use crate::api::compute::servers::fields::{fqdn, is_uuid, metadata};
use crate::api::validate::{Fields, Shown, Text, invalid, name, stripped_name, text};

/// What `POST /os-aggregates` asks for.
#[derive(Debug)]
pub struct Create {
    /// The name.
    pub name: String,
    /// The zone that it makes of its hosts.
    pub zone: Option<String>,
}

/// What `PUT /os-aggregates/{id}` asks for.
#[derive(Debug)]
pub struct Update {
    /// A new name.
    pub name: Option<String>,
    /// A new zone; `None` within is null.
    pub zone: Option<Option<String>>,
}

/// What `POST /os-aggregates/{id}/action` asks for.
#[derive(Debug)]
pub enum Action {
    /// Take a host in.
    AddHost(HostName),
    /// Let a host go.
    RemoveHost(HostName),
    /// Set what has a value, remove what is null, leave the rest.
    SetMetadata(BTreeMap<String, Option<String>>),
}

/// Reads the body of a creation.
///
/// # Errors
/// 400 that names the field.
pub fn create(body: &Value, lenient: bool) -> Result<Create, ApiError> {
    let mut fields = under(body, "aggregate", lenient)?;
    let name = aggregate_name(fields.required("name")?, lenient)?;
    let zone = zone(&mut fields, lenient)?.flatten();
    fields.finish()?;
    Ok(Create { name, zone })
}

/// Reads the body of an update, which changes something.
///
/// # Errors
/// 400 that names the field.
pub fn update(body: &Value, lenient: bool) -> Result<Update, ApiError> {
    let mut fields = under(body, "aggregate", lenient)?;
    let name = fields.get("name").map(|value| aggregate_name(value, lenient)).transpose()?;
    let zone = zone(&mut fields, lenient)?;
    if name.is_none() && zone.is_none() {
        return Err(fields.refuse("{} does not have enough properties"));
    }
    fields.finish()?;
    Ok(Update { name, zone })
}

fn aggregate_name(value: &Value, lenient: bool) -> Result<String, ApiError> {
    let text = if lenient { stripped_name("name", value)? } else { name("name", value)? };
    Ok(text.trim().to_owned())
}

/// A zone: a name without colons, since `zone:host` is read elsewhere.
fn zone<'a>(fields: &mut Fields<'a>, lenient: bool) -> Result<Option<Option<String>>, ApiError> {
    const KEY: &str = "availability_zone";
    let Some(value) = fields.get(KEY) else { return Ok(None) };
    if value.is_null() {
        return Ok(Some(None));
    }
    let text = if lenient { stripped_name(KEY, value)? } else { name(KEY, value)? };
    if text.contains(':') {
        let problem = "An invalid 'name' value was provided. The name must be: printable characters except :. Can not start or end with whitespace.";
        return Err(invalid(KEY, value, problem));
    }
    Ok(Some(Some(text.to_owned())))
}

/// Reads an action: one key picks what is done. `allow` is asked for it before its content is looked at.
///
/// # Errors
/// 400 that names the field; what `allow` answers.
pub fn action(body: &Value, lenient: bool, allow: impl Fn(&str) -> Result<(), ApiError>) -> Result<Action, ApiError> {
    let malformed = || ApiError::bad_request("Malformed request body");
    let map = body.as_object().filter(|map| map.len() == 1).ok_or_else(malformed)?;
    match map.keys().next().map(String::as_str) {
        Some("add_host") => allow("add_host").and_then(|()| host(body, "add_host", lenient)).map(Action::AddHost),
        Some("remove_host") => {
            allow("remove_host").and_then(|()| host(body, "remove_host", lenient)).map(Action::RemoveHost)
        }
        Some("set_metadata") => {
            allow("set_metadata").and_then(|()| new_metadata(body, lenient)).map(Action::SetMetadata)
        }
        Some(other) => {
            let shown: String = other.chars().take(255).collect();
            Err(ApiError::bad_request(format!("There is no such action: {shown}")))
        }
        None => Err(malformed()),
    }
}

fn host(body: &Value, key: &'static str, lenient: bool) -> Result<HostName, ApiError> {
    let mut fields = under(body, key, lenient)?;
    fields.required("host")?;
    let host = fqdn(&mut fields, "host")?.unwrap_or_default();
    fields.finish()?;
    Ok(HostName::new(host))
}

fn new_metadata(body: &Value, lenient: bool) -> Result<BTreeMap<String, Option<String>>, ApiError> {
    const KEY: &str = "metadata";
    let mut fields = under(body, "set_metadata", lenient)?;
    let value = fields.required(KEY)?;
    fields.finish()?;
    let Some(given) = value.as_object() else { return metadata(KEY, value).map(|_| BTreeMap::new()) };
    // Nulls are held to the rules of keys alone.
    let texts: Map<String, Value> = given
        .iter()
        .map(|(key, value)| (key.clone(), if value.is_null() { Value::from("") } else { value.clone() }))
        .collect();
    let texts = metadata(KEY, &Value::Object(texts))?;
    Ok(texts.into_iter().map(|(key, text)| (key.clone(), (!given[&key].is_null()).then_some(text))).collect())
}

/// Reads which images are to be cached.
///
/// # Errors
/// 400 that names the field.
pub fn images(body: &Value, lenient: bool) -> Result<Vec<String>, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let value = root.required("cache")?;
    let list = root.list("cache", usize::MAX)?.unwrap_or_default();
    if list.is_empty() {
        return Err(invalid("cache", value, "[] is too short"));
    }
    root.finish()?;
    let mut ids = Vec::with_capacity(list.len());
    for item in list {
        let mut image = Fields::of("cache", item, lenient)?;
        let value = image.required("id")?;
        let id = text("id", value, Text::new(0, usize::MAX))?;
        if !is_uuid(id) {
            return Err(invalid("id", value, format_args!("'{}' is not a 'uuid'", Shown(value))));
        }
        image.finish()?;
        ids.push(id.to_owned());
    }
    if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
        return Err(ApiError::bad_request("Duplicate images in request"));
    }
    Ok(ids)
}
