//! Bodies of create and update (nova/api/openstack/compute/schemas/flavors.py).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nova_core::entropy::Entropy;
use nova_core::flavor::Flavor;
use nova_core::ids::FlavorId;
use serde_json::Value;

use crate::api::compute::input::{MAX_INT, is_printable, under};
use crate::api::validate::{Fields, Text, integer, invalid, name, stripped_name, text, wrong_type};
use crate::api::{ApiError, Microversion};

/// The pattern of ids, as the error shows it.
const ID_PATTERN: &str = "^(?! )[a-zA-Z0-9. _-]+(?<! )$";
/// The pattern of a factor in text form, as the error shows it.
const RXTX_PATTERN: &str = r"^[0-9]+(\\.[0-9]+)?$";
/// What `rxtx_factor` ends at: the largest single-precision number.
const MAX_RXTX: f64 = 3.402_82e38;

/// What may be written at this version.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The version.
    pub version: Microversion,
    /// Unknown keys are let through, names are trimmed.
    pub lenient: bool,
}

/// A new flavor from a create body. An id that is absent, null, empty or `auto` is drawn.
///
/// # Errors
/// 400 that names the field.
pub fn create(body: &Value, rules: Rules, entropy: &dyn Entropy, now: Timestamp) -> Result<Flavor, ApiError> {
    let mut fields = under(body, "flavor", rules.lenient)?;
    let name_value = fields.required("name")?;
    let name = if rules.lenient { stripped_name("name", name_value)? } else { name("name", name_value)? };
    let memory_mb = required_size(&mut fields, "ram", 1)?;
    let vcpus = required_size(&mut fields, "vcpus", 1)?;
    let root_gb = required_size(&mut fields, "disk", 0)?;
    let ephemeral_gb = size(&mut fields, "OS-FLV-EXT-DATA:ephemeral")?;
    let swap_mb = size(&mut fields, "swap")?;
    let id = id(fields.get("id"))?;
    let is_public = fields.boolean("os-flavor-access:is_public")?.unwrap_or(true);
    let rxtx_factor = if rules.version.before(102) { rxtx_factor(fields.get("rxtx_factor"))? } else { 1.0 };
    let description = if rules.version.at_least(55) { description(fields.get("description"))? } else { None };
    fields.finish()?;
    Ok(Flavor {
        id: id.unwrap_or_else(|| FlavorId::new(entropy.uuid().to_string())),
        name: name.to_owned(),
        vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
        memory_mb,
        root_gb,
        ephemeral_gb,
        swap_mb,
        rxtx_factor,
        disabled: false,
        is_public,
        description,
        extra_specs: BTreeMap::new(),
        access: BTreeSet::new(),
        created_at: now,
        updated_at: None,
        generation: 0,
    })
}

/// The new description from an update body (2.55).
///
/// # Errors
/// 400 that names the field.
pub fn update(body: &Value, lenient: bool) -> Result<Option<String>, ApiError> {
    let mut fields = under(body, "flavor", lenient)?;
    let value = fields.required("description")?;
    fields.finish()?;
    description(Some(value))
}

fn required_size<'a>(fields: &mut Fields<'a>, key: &'a str, min: i64) -> Result<u64, ApiError> {
    let number = integer(key, fields.required(key)?, min, MAX_INT)?;
    Ok(number.unsigned_abs())
}

fn size<'a>(fields: &mut Fields<'a>, key: &'a str) -> Result<u64, ApiError> {
    Ok(fields.integer(key, 0, MAX_INT)?.unwrap_or_default().unsigned_abs())
}

fn id(value: Option<&Value>) -> Result<Option<FlavorId>, ApiError> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) if text.is_empty() || text == "auto" => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => return Err(wrong_type("id", other, "string', 'number', 'null")),
    };
    let value = Value::String(text.clone());
    if text.chars().count() > 255 {
        return Err(invalid("id", &value, "the id is too long"));
    }
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b". _-".contains(&b));
    if !good || text.starts_with(' ') || text.ends_with(' ') {
        return Err(invalid("id", &value, format_args!("'{text}' does not match '{ID_PATTERN}'")));
    }
    Ok(Some(FlavorId::new(text)))
}

fn rxtx_factor(value: Option<&Value>) -> Result<f64, ApiError> {
    const KEY: &str = "rxtx_factor";
    let Some(value) = value else { return Ok(1.0) };
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(fraction) {
                return Err(invalid(KEY, value, format_args!("'{text}' does not match '{RXTX_PATTERN}'")));
            }
            text.parse().ok()
        }
        _ => None,
    };
    match number {
        None => Err(wrong_type(KEY, value, "number', 'string")),
        Some(n) if n <= 0.0 => Err(invalid(KEY, value, format_args!("{n} is less than or equal to the minimum of 0"))),
        Some(n) if n > MAX_RXTX => {
            Err(invalid(KEY, value, format_args!("{n:e} is greater than the maximum of 3.40282e+38")))
        }
        Some(n) => Ok(n),
    }
}

fn description(value: Option<&Value>) -> Result<Option<String>, ApiError> {
    const KEY: &str = "description";
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(None) };
    let text = text(KEY, value, Text::new(0, 65_535))?;
    // Lines may be broken; other control characters are none of a description.
    if text.chars().any(|c| !is_printable(c) && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(invalid(KEY, value, "the description holds characters that cannot be printed"));
    }
    Ok(Some(text.to_owned()))
}
