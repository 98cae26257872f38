//! Reading the fields of a body, with errors that name them as Keystone's schemas do.

use serde_json::{Map, Value};

use crate::api::{ApiError, Request};

/// The object under the one key of a body.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads the body and takes what stands under `key`.
    pub(super) async fn read(request: &mut Request, key: &str) -> Result<Self, ApiError> {
        match request.json().await? {
            Value::Object(mut body) => match body.remove(key) {
                Some(Value::Object(fields)) => Ok(Self(fields)),
                Some(_) => Err(ApiError::bad_request(format!("Invalid input for field '{key}': it is not an object."))),
                None => Err(ApiError::bad_request(format!("'{key}' is a required property"))),
            },
            _ => Err(ApiError::bad_request("The body is not a JSON object.")),
        }
    }

    /// A text; `None` where it is absent or null.
    pub(super) fn text(&self, key: &str, longest: usize) -> Result<Option<String>, ApiError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.chars().count() > longest => {
                Err(wrong(key, &format!("it is longer than {longest} characters")))
            }
            Some(Value::String(text)) if text.contains('\0') => Err(wrong(key, "it holds a NUL character")),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(key, "it is not of type 'string'")),
        }
    }

    /// Was the field sent at all, be it as null?
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A name: not blank.
    pub(super) fn name(&self, longest: usize) -> Result<Option<String>, ApiError> {
        match self.text("name", longest)? {
            Some(name) if name.trim().is_empty() => Err(wrong("name", "it is blank")),
            None if self.has("name") => Err(wrong("name", "it is not of type 'string'")),
            name => Ok(name),
        }
    }

    /// A name that has to be there.
    pub(super) fn required_name(&self, longest: usize) -> Result<String, ApiError> {
        self.name(longest)?.ok_or_else(|| ApiError::bad_request("'name' is a required property"))
    }

    /// A switch.
    pub(super) fn switch(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(wrong(key, "it is not of type 'boolean'")),
        }
    }

    /// The id in a body has to be that of the URL.
    pub(super) fn same_id(&self, id: &str) -> Result<(), ApiError> {
        match self.text("id", 255)? {
            Some(other) if other != id => Err(ApiError::bad_request("Cannot change the ID")),
            _ => Ok(()),
        }
    }
}

fn wrong(key: &str, what: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for field '{key}': {what}."))
}
