//! Setting what clients may set of an image, one attribute at a time, in create and in update alike.

use std::collections::BTreeSet;

use nova_core::context::RequestContext;
use nova_core::ids::ProjectId;
use nova_core::image::{Image, ImageStatus, Visibility};
use serde_json::Value;

use super::ImageOptions;
use super::policy::require_publish;
use super::view::{READ_ONLY, RESERVED, SETTABLE};
use crate::api::ApiError;

/// Glance's defaults of `disk_formats`, less `ploop`, which nothing here can check.
const DISK_FORMATS: [&str; 10] = ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso"];
const CONTAINER_FORMATS: [&str; 7] = ["ami", "ari", "aki", "bare", "ovf", "ova", "docker"];
const LONGEST_TEXT: usize = 255;
const LONGEST_PROPERTY: usize = 65_535;
const LARGEST_NUMBER: u64 = 2_147_483_647;

/// Sets one attribute or property.
///
/// # Errors
/// 400 for a value that does not fit, 403 for what the caller may not set.
pub(super) fn set(image: &mut Image, context: &RequestContext, key: &str, value: &Value) -> Result<(), ApiError> {
    match key {
        "name" => image.name = text_or_null(key, value)?,
        "visibility" => {
            let visibility = visibility(value)?;
            if visibility != image.visibility {
                require_publish(context, visibility)?;
            }
            image.visibility = visibility;
        }
        "owner" => {
            let owner = ProjectId::new(text_or_null(key, value)?.unwrap_or_default());
            if owner != image.owner && !context.is_admin() {
                return Err(ApiError::forbidden("You are not permitted to change the owner of this image."));
            }
            if owner.as_str().is_empty() {
                return Err(wrong(key, "an image has an owner"));
            }
            image.owner = owner;
        }
        "disk_format" => image.disk_format = format(image, key, value, &DISK_FORMATS)?,
        "container_format" => image.container_format = format(image, key, value, &CONTAINER_FORMATS)?,
        "min_ram" => image.min_ram = number(key, value)?,
        "min_disk" => image.min_disk = number(key, value)?,
        "protected" => image.protected = switch(key, value)?,
        "os_hidden" => image.os_hidden = switch(key, value)?,
        "tags" => image.tags = tags(value)?,
        _ => set_property(image, key, value)?,
    }
    Ok(())
}

/// Holds the whole image to its limits.
///
/// # Errors
/// 413 where there is too much of something.
pub(super) fn check_limits(image: &Image, options: &ImageOptions) -> Result<(), ApiError> {
    if image.properties.len() > options.max_properties || image.tags.len() > options.max_tags {
        return Err(ApiError::TooLarge);
    }
    Ok(())
}

fn set_property(image: &mut Image, key: &str, value: &Value) -> Result<(), ApiError> {
    if READ_ONLY.contains(&key) {
        return Err(ApiError::forbidden(format!("Attribute '{key}' is read-only.")));
    }
    if RESERVED.contains(&key) {
        return Err(ApiError::forbidden(format!("Attribute '{key}' is reserved.")));
    }
    if key.is_empty() || key.chars().count() > LONGEST_TEXT {
        return Err(ApiError::bad_request(format!("Property names have between 1 and {LONGEST_TEXT} characters.")));
    }
    match value {
        Value::String(text) if text.len() <= LONGEST_PROPERTY && !text.contains('\0') => {
            image.properties.insert(key.to_owned(), text.clone());
            Ok(())
        }
        Value::String(_) => Err(wrong(key, "it is too long, or holds a NUL character")),
        _ => Err(wrong(key, "it is not of type 'string'")),
    }
}

/// Is it an attribute of every image, and so cannot be removed?
pub(super) fn is_base(key: &str) -> bool {
    READ_ONLY.contains(&key) || SETTABLE.contains(&key)
}

/// Formats can be set only until there is data.
fn format(image: &Image, key: &str, value: &Value, allowed: &[&str]) -> Result<Option<String>, ApiError> {
    if image.status != ImageStatus::Queued {
        return Err(ApiError::forbidden(format!("Attribute {key} can be only replaced for a queued image.")));
    }
    match value {
        Value::Null => Ok(None),
        Value::String(text) if allowed.contains(&text.as_str()) => Ok(Some(text.clone())),
        _ => Err(wrong(key, &format!("it is not one of {}", allowed.join(", ")))),
    }
}

/// A visibility by its word.
pub(super) fn visibility_named(text: &str) -> Option<Visibility> {
    [Visibility::Public, Visibility::Community, Visibility::Shared, Visibility::Private]
        .into_iter()
        .find(|visibility| visibility.as_str() == text)
}

fn visibility(value: &Value) -> Result<Visibility, ApiError> {
    let named = value.as_str().and_then(visibility_named);
    named.ok_or_else(|| wrong("visibility", "it is not one of public, community, shared, private"))
}

fn text_or_null(key: &str, value: &Value) -> Result<Option<String>, ApiError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => check_text(key, text).map(Some),
        _ => Err(wrong(key, "it is not of type 'string'")),
    }
}

/// A name or tag: short, on one line.
pub(super) fn check_text(key: &str, text: &str) -> Result<String, ApiError> {
    if text.chars().count() > LONGEST_TEXT || text.contains('\0') {
        return Err(wrong(key, &format!("it is longer than {LONGEST_TEXT} characters, or holds a NUL character")));
    }
    Ok(text.to_owned())
}

fn number(key: &str, value: &Value) -> Result<u64, ApiError> {
    value
        .as_u64()
        .filter(|number| *number <= LARGEST_NUMBER)
        .ok_or_else(|| wrong(key, "it is not a whole number in range"))
}

fn switch(key: &str, value: &Value) -> Result<bool, ApiError> {
    value.as_bool().ok_or_else(|| wrong(key, "it is not of type 'boolean'"))
}

fn tags(value: &Value) -> Result<BTreeSet<String>, ApiError> {
    let items = value.as_array().ok_or_else(|| wrong("tags", "it is not a list"))?;
    let text = |tag: &Value| {
        tag.as_str().ok_or_else(|| wrong("tags", "it holds what is no text")).and_then(|tag| check_text("tags", tag))
    };
    items.iter().map(text).collect()
}

fn wrong(key: &str, what: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid value for '{key}': {what}."))
}
