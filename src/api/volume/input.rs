//! Reading bodies, as Cinder's schemas do (cinder/api/schemas/).

use std::collections::BTreeMap;
use std::str::FromStr;

use http::StatusCode;
use nova_core::context::RequestContext;
use nova_core::volume::VolumeProblem;
use serde_json::{Map, Value};

use crate::api::{ApiError, HandlerResult, Request, Response, parse_bool};

/// A wrong value.
pub(super) fn invalid(name: &str, problem: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("Invalid input for field/attribute {name}. {problem}"))
}

/// 202 without a body.
pub(super) fn accepted() -> HandlerResult {
    Ok(Response::empty(StatusCode::ACCEPTED))
}

/// Only for administrators.
pub(super) fn require_admin(context: &RequestContext, rule: &str) -> Result<(), ApiError> {
    if context.is_admin() {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("Policy doesn't allow {rule} to be performed.")))
}

/// For whoever may write: readers may not.
pub(super) fn require_writer(context: &RequestContext, rule: &str) -> Result<(), ApiError> {
    if context.is_admin() || context.has_role("member") || context.has_role("service") {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("Policy doesn't allow {rule} to be performed.")))
}

/// An id of a path; one that cannot be one is of nothing.
pub(super) fn path_id<T: FromStr>(request: &Request, name: &str, kind: &'static str) -> Result<T, ApiError> {
    let text = request.param(name);
    text.parse().map_err(|_| VolumeProblem::NotFound { kind, id: text.chars().take(255).collect() }.into())
}

/// The object under the body's key.
pub(super) async fn body(request: &mut Request, key: &str) -> Result<Fields, ApiError> {
    let body = request.json().await?;
    within(&body, key)
}

/// The object under a key.
pub(super) fn within(body: &Value, key: &str) -> Result<Fields, ApiError> {
    let map = body.get(key).and_then(Value::as_object).cloned();
    map.map(Fields).ok_or_else(|| ApiError::bad_request(format!("Missing required element '{key}' in request body.")))
}

/// The attributes of an object. Null counts as absent.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str, longest: usize) -> Result<Option<String>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| invalid(name, format_args!("Value: {value}. It is not a string")))?;
        if text.chars().count() > longest {
            return Err(invalid(name, format_args!("It has more than {longest} characters")));
        }
        Ok(Some(text.to_owned()))
    }

    /// Under one of two names, the newer first: `name` and `display_name`.
    pub(super) fn either(&self, one: &str, other: &str) -> Result<Option<String>, ApiError> {
        Ok(self.text(one, 255)?.or(self.text(other, 255)?).map(|text| text.trim().to_owned()))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => parse_bool(text),
            Value::Number(number) => number.as_u64().filter(|number| *number < 2).map(|number| number == 1),
            _ => None,
        };
        flag.map(Some).ok_or_else(|| invalid(name, format_args!("Value: {value}. It is not a boolean")))
    }

    pub(super) fn number(&self, name: &str, least: i64) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        let number = number.filter(|number| (least..=i64::from(i32::MAX)).contains(number));
        number.map(Some).ok_or_else(|| {
            invalid(name, format_args!("Value: {value}. It is not an integer from {least} to {}", i32::MAX))
        })
    }

    pub(super) fn id<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name, 255)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid(name, format_args!("Value: {text}. '{text}' is not a 'uuid'")))
    }

    /// Labels: keys of 1 to 255 characters, values of at most 255.
    pub(super) fn labels(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let map =
            value.as_object().ok_or_else(|| invalid(name, format_args!("Value: {value}. It is not an object")))?;
        map.iter().map(|(key, value)| label(name, key, value)).collect::<Result<_, _>>().map(Some)
    }
}

/// One label.
pub(super) fn label(name: &str, key: &str, value: &Value) -> Result<(String, String), ApiError> {
    if !(1..=255).contains(&key.chars().count()) {
        return Err(invalid(name, "Keys have 1 to 255 characters"));
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => if *flag { "True" } else { "False" }.to_owned(),
        _ => return Err(invalid(name, format_args!("The value of '{key}' is not a string"))),
    };
    if text.chars().count() > 255 {
        return Err(invalid(name, format_args!("The value of '{key}' has more than 255 characters")));
    }
    Ok((key.to_owned(), text))
}
