//! `application/openstack-images-v2.1-json-patch`: add, replace and remove of single attributes (RFC 6902, RFC 6901).

use nova_core::context::RequestContext;
use nova_core::image::Image;
use serde_json::Value;

use super::attributes;
use crate::api::ApiError;

/// Operations of one patch at most.
const MOST: usize = 512;

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operation {
    Add(String, Value),
    Replace(String, Value),
    Remove(String),
}

/// Reads a patch; nothing is done yet.
///
/// # Errors
/// 400 tells which operation is wrong.
pub(super) fn parse(body: &Value) -> Result<Vec<Operation>, ApiError> {
    let items = body
        .as_array()
        .ok_or_else(|| ApiError::bad_request("Request body must be a JSON array of operation objects."))?;
    if items.len() > MOST {
        return Err(ApiError::TooLarge);
    }
    items.iter().enumerate().map(|(index, item)| operation(index, item)).collect()
}

fn operation(index: usize, item: &Value) -> Result<Operation, ApiError> {
    let wrong = |what: &str| ApiError::bad_request(format!("Operation {index} {what}."));
    let fields = item.as_object().ok_or_else(|| wrong("is not an object"))?;
    let word = fields.get("op").and_then(Value::as_str).ok_or_else(|| wrong("has no 'op'"))?;
    let path = fields.get("path").and_then(Value::as_str).ok_or_else(|| wrong("has no 'path'"))?;
    let name = attribute(path).ok_or_else(|| wrong("has an invalid 'path'"))?;
    let value = || fields.get("value").cloned().ok_or_else(|| wrong("has no 'value'"));
    match word {
        "add" => Ok(Operation::Add(name, value()?)),
        "replace" => Ok(Operation::Replace(name, value()?)),
        "remove" => Ok(Operation::Remove(name)),
        _ => Err(wrong("is not one of add, replace, remove")),
    }
}

/// `/os~1name` is `os/name`. Nothing lies deeper than one level.
fn attribute(path: &str) -> Option<String> {
    let name = path.strip_prefix('/')?;
    if name.is_empty() || name.contains('/') || name.replace("~0", "").replace("~1", "").contains('~') {
        return None;
    }
    Some(name.replace("~1", "/").replace("~0", "~"))
}

/// Does the operations one after the other.
///
/// # Errors
/// 400, 403 for what the caller may not change, 409 for a property that is not there. The image is then of no use.
pub(super) fn apply(image: &mut Image, context: &RequestContext, operations: Vec<Operation>) -> Result<(), ApiError> {
    for operation in operations {
        match operation {
            Operation::Add(name, value) => attributes::set(image, context, &name, &value)?,
            Operation::Replace(name, value) => {
                if !attributes::is_base(&name) && !image.properties.contains_key(&name) {
                    return Err(ApiError::conflict(format!("Property {name} does not exist.")));
                }
                attributes::set(image, context, &name, &value)?;
            }
            Operation::Remove(name) => {
                if attributes::is_base(&name) {
                    return Err(ApiError::forbidden(format!("Property {name} may not be removed.")));
                }
                if image.properties.remove(&name).is_none() {
                    return Err(ApiError::conflict(format!("Property {name} does not exist.")));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_one_level_deep_and_unescaped() {
        assert_eq!(attribute("/name"), Some("name".into()));
        assert_eq!(attribute("/a~1b~0c"), Some("a/b~c".into()));
        for bad in ["", "name", "/", "/a/b", "/a~", "/a~2"] {
            assert_eq!(attribute(bad), None, "{bad}");
        }
    }

    #[test]
    fn malformed_operations_are_named() {
        let bad = [
            json!({}),
            json!([1]),
            json!([{"op": "add"}]),
            json!([{"op": "add", "path": "/x"}]),
            json!([{"op": "move", "path": "/x", "from": "/y"}]),
            json!([{"op": 1, "path": "/x", "value": "y"}]),
        ];
        for body in bad {
            assert!(matches!(parse(&body), Err(ApiError::BadRequest(_))), "{body}");
        }
        assert_eq!(parse(&json!([{"op": "remove", "path": "/x"}])).unwrap(), [Operation::Remove("x".into())]);
    }
}
