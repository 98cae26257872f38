//! Bodies: what is under the one key, attribute by attribute. An attribute that nobody reads is an error.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use nova_core::context::RequestContext;
use nova_core::ids::ProjectId;
use nova_core::network::{Cidr, HostRoute};
use serde_json::{Map, Value};

use crate::api::{ApiError, Request};

/// 400, as Neutron words what is wrong with an attribute.
pub(super) fn invalid(attribute: &str, reason: impl Display) -> ApiError {
    named(400, "HTTPBadRequest", format!("Invalid input for {attribute}. Reason: {reason}."))
}

/// An error with Neutron's name.
pub(super) fn named(status: u16, name: &'static str, text: String) -> ApiError {
    let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    ApiError::Network { status, name, text }
}

/// 404 with Neutron's name for things of a kind.
pub(super) fn not_found(name: &'static str, kind: &str, id: impl Display) -> ApiError {
    named(404, name, format!("{kind} {id} could not be found."))
}

/// Everybody who may write.
pub(super) fn require_member(context: &RequestContext, rule: &str) -> Result<(), ApiError> {
    if context.is_admin() || context.has_role("member") || context.has_role("manager") {
        return Ok(());
    }
    Err(forbidden(rule))
}

/// Only administrators.
pub(super) fn require_admin(context: &RequestContext, rule: &str) -> Result<(), ApiError> {
    if context.is_admin() { Ok(()) } else { Err(forbidden(rule)) }
}

fn forbidden(rule: &str) -> ApiError {
    named(403, "PolicyNotAuthorized", format!("rule:{rule} is disallowed by policy"))
}

/// The attributes of a body, each read at most by one who knows what it means.
pub(super) struct Fields {
    map: Map<String, Value>,
    read: Mutex<BTreeSet<String>>,
}

impl Fields {
    /// What is under `key`.
    ///
    /// # Errors
    /// 400 for any other body.
    pub(super) async fn of(request: &mut Request, key: &str) -> Result<Self, ApiError> {
        let body = request.json().await?;
        Self::within(&body, key)
    }

    /// What is under `key`, or under `keys` a list of such; and whether it was a list.
    pub(super) async fn one_or_more(
        request: &mut Request,
        key: &str,
        keys: &str,
    ) -> Result<(Vec<Self>, bool), ApiError> {
        let body = request.json().await?;
        let Some(list) = body.get(keys) else { return Ok((vec![Self::within(&body, key)?], false)) };
        let wrong = || named(400, "HTTPBadRequest", "Resources required".to_owned());
        let list = list.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
        let one = |value: &Value| {
            // Neutron also takes each of them under its own key.
            let value = value.get(key).filter(|_| value.as_object().is_some_and(|map| map.len() == 1)).unwrap_or(value);
            let map =
                value.as_object().ok_or_else(|| invalid(key, format_args!("'{}' is not a dictionary", cut(value))))?;
            Ok(Self::new(map.clone()))
        };
        Ok((list.iter().map(one).collect::<Result<_, ApiError>>()?, true))
    }

    pub(super) fn within(body: &Value, key: &str) -> Result<Self, ApiError> {
        let map = body.get(key).and_then(Value::as_object);
        let map = map.ok_or_else(|| named(400, "HTTPBadRequest", format!("Unable to find '{key}' in request body")))?;
        Ok(Self::new(map.clone()))
    }

    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map, read: Mutex::default() }
    }

    fn read(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, unread.
    pub(super) fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// The attribute, if it is there, be it null.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.read().insert(name.to_owned());
        self.map.get(name)
    }

    /// The attribute, unless it is absent or null.
    fn value(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// Every attribute was read.
    ///
    /// # Errors
    /// 400 with the names of those that nobody knows.
    pub(super) fn done(&self) -> Result<(), ApiError> {
        let read = self.read();
        let unknown: Vec<_> = self.map.keys().filter(|key| !read.contains(*key)).map(String::as_str).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let list: String = unknown.join(", ").chars().take(255).collect();
        Err(named(400, "HTTPBadRequest", format!("Unrecognized attribute(s) '{list}'")))
    }

    /// A text of at most so many characters; an absent one stays what it was.
    pub(super) fn text(&self, name: &str, longest: usize, target: &mut String) -> Result<(), ApiError> {
        let Some(value) = self.get(name) else { return Ok(()) };
        let text =
            value.as_str().ok_or_else(|| invalid(name, format_args!("'{}' is not a valid string", cut(value))))?;
        if text.chars().count() > longest {
            return Err(invalid(name, format_args!("'{}' exceeds maximum length of {longest}", cut(value))));
        }
        text.clone_into(target);
        Ok(())
    }

    /// Yes or no; also as texts and numbers, as clients of all ages write it.
    pub(super) fn flag(&self, name: &str, target: &mut bool) -> Result<(), ApiError> {
        if let Some(value) = self.optional_flag(name)? {
            *target = value;
        }
        Ok(())
    }

    pub(super) fn optional_flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => number.as_u64().filter(|n| *n < 2).map(|n| n == 1),
            Value::String(text) => crate::api::parse_bool(text),
            _ => None,
        };
        let flag =
            flag.ok_or_else(|| invalid(name, format_args!("'{}' cannot be converted to boolean", cut(value))))?;
        Ok(Some(flag))
    }

    /// A number in a range, also as text.
    pub(super) fn number(&self, name: &str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        let number = number.ok_or_else(|| invalid(name, format_args!("'{}' is not an integer", cut(value))))?;
        if !(min..=max).contains(&number) {
            return Err(invalid(name, format_args!("'{number}' is not in range {min} through {max}")));
        }
        Ok(Some(number))
    }

    /// Anything that a text can be read as: ids, addresses, ranges.
    pub(super) fn parsed<T>(&self, name: &str, what: &str) -> Result<Option<T>, ApiError>
    where
        T: FromStr,
    {
        self.value(name).map(|value| parse(name, what, value)).transpose()
    }

    /// The same for an attribute that must be there.
    pub(super) fn needed<T>(&self, name: &str, what: &str) -> Result<T, ApiError>
    where
        T: FromStr,
    {
        self.parsed(name, what)?.ok_or_else(|| missing(name))
    }

    /// The same where null means none and absence that it stays what it was.
    pub(super) fn settable<T>(&self, name: &str, what: &str, target: &mut Option<T>) -> Result<(), ApiError>
    where
        T: FromStr,
    {
        if self.get(name).is_some() {
            *target = self.parsed(name, what)?;
        }
        Ok(())
    }

    /// A list of texts, each read as something.
    pub(super) fn list<T>(&self, name: &str, what: &str) -> Result<Option<Vec<T>>, ApiError>
    where
        T: FromStr,
    {
        let Some(values) = self.values(name)? else { return Ok(None) };
        values.iter().map(|value| parse(name, what, value)).collect::<Result<Vec<T>, _>>().map(Some)
    }

    /// A list of objects.
    pub(super) fn objects(&self, name: &str) -> Result<Option<Vec<Fields>>, ApiError> {
        let Some(values) = self.values(name)? else { return Ok(None) };
        let object = |value: &Value| {
            let map = value.as_object().cloned();
            map.map(Fields::new).ok_or_else(|| invalid(name, format_args!("'{}' is not a dictionary", cut(value))))
        };
        values.iter().map(object).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Null counts as an empty list.
    fn values(&self, name: &str) -> Result<Option<&[Value]>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(&[])),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(other) => Err(invalid(name, format_args!("'{}' is not a list", cut(other)))),
        }
    }

    /// An object, or `Some(None)` for null.
    pub(super) fn object(&self, name: &str) -> Result<Option<Option<Fields>>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::Object(map)) => Ok(Some(Some(Fields::new(map.clone())))),
            Some(other) => Err(invalid(name, format_args!("'{}' is not a dictionary", cut(other)))),
        }
    }

    /// `[{destination, nexthop}]`.
    pub(super) fn routes(&self, name: &str) -> Result<Option<Vec<HostRoute>>, ApiError> {
        let Some(objects) = self.objects(name)? else { return Ok(None) };
        let mut routes = Vec::with_capacity(objects.len());
        for object in objects {
            let route = HostRoute {
                destination: object.needed::<Cidr>("destination", "IP subnet")?,
                nexthop: object.needed::<IpAddr>("nexthop", "IP address")?,
            };
            object.done()?;
            routes.push(route);
        }
        Ok(Some(routes))
    }

    /// Whose it is to be: the caller's, or whose administrators say.
    pub(super) fn project(&self, context: &RequestContext) -> Result<ProjectId, ApiError> {
        let named = [self.value("project_id"), self.value("tenant_id")].into_iter().flatten().next();
        let Some(named) = named else { return Ok(context.project_id.clone()) };
        let text = named.as_str().filter(|text| text.len() <= 255);
        let text = text.ok_or_else(|| invalid("project_id", format_args!("'{}' is not a valid string", cut(named))))?;
        if text == context.project_id.as_str() || context.is_admin() {
            return Ok(ProjectId::from(text));
        }
        let text = "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin privileges";
        Err(self::named(400, "HTTPBadRequest", text.to_owned()))
    }
}

fn parse<T: FromStr>(name: &str, what: &str, value: &Value) -> Result<T, ApiError> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| invalid(name, format_args!("'{}' is not a valid {what}", cut(value))))
}

/// A needed attribute is absent.
pub(super) fn missing(name: &str) -> ApiError {
    named(400, "HTTPBadRequest", format!("Failed to parse request. Required attribute '{name}' not specified"))
}

/// A value as errors show it.
fn cut(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().take(64).collect()
}
