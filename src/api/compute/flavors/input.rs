//! Bodies of create and update (nova/api/openstack/compute/schemas/flavors.py).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use nova_core::entropy::Entropy;
use nova_core::flavor::Flavor;
use nova_core::ids::FlavorId;
use serde_json::Value;

use crate::api::compute::input::{Fields, MAX_INT, invalid, is_printable, show};
use crate::api::{ApiError, Microversion};

/// The pattern of ids, as the error shows it.
const ID_PATTERN: &str = "^(?! )[a-zA-Z0-9. _-]+(?<! )$";
/// What `rxtx_factor` ends at: the largest single-precision number.
const MAX_RXTX: f64 = 3.402_82e38;

/// Who may write what at this version.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The version.
    pub version: Microversion,
    /// Unknown keys are let through.
    pub lenient: bool,
}

/// A new flavor from a create body. An id that is absent, null, empty or `auto` is drawn.
///
/// # Errors
/// 400 that names the field.
pub fn create(body: &Value, rules: Rules, entropy: &dyn Entropy, now: Timestamp) -> Result<Flavor, ApiError> {
    let fields = Fields::under(body, "flavor")?;
    fields.require(&["name", "ram", "vcpus", "disk"])?;
    if !rules.lenient {
        fields.only(&allowed(rules.version))?;
    }
    let natural = |key: &str| fields.integer(key, 0..=MAX_INT).map(Option::unwrap_or_default);
    let positive = |key: &str| fields.integer(key, 1..=MAX_INT).map(Option::unwrap_or_default);
    let described = rules.version.at_least(55);
    Ok(Flavor {
        id: id(&fields)?.unwrap_or_else(|| FlavorId::new(entropy.uuid().to_string())),
        name: fields.name("name")?.unwrap_or_default().to_owned(),
        vcpus: u32::try_from(positive("vcpus")?).unwrap_or(u32::MAX),
        memory_mb: positive("ram")?,
        root_gb: natural("disk")?,
        ephemeral_gb: natural("OS-FLV-EXT-DATA:ephemeral")?,
        swap_mb: natural("swap")?,
        rxtx_factor: if rules.version.before(102) { rxtx_factor(&fields)? } else { 1.0 },
        disabled: false,
        is_public: fields.boolean("os-flavor-access:is_public")?.unwrap_or(true),
        description: if described { description(&fields)? } else { None },
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
    let fields = Fields::under(body, "flavor")?;
    fields.require(&["description"])?;
    if !lenient {
        fields.only(&["description"])?;
    }
    description(&fields)
}

fn allowed(version: Microversion) -> Vec<&'static str> {
    let mut keys = vec![
        "name",
        "id",
        "ram",
        "vcpus",
        "disk",
        "swap",
        "OS-FLV-EXT-DATA:ephemeral",
        "os-flavor-access:is_public",
    ];
    if version.before(102) {
        keys.push("rxtx_factor");
    }
    if version.at_least(55) {
        keys.push("description");
    }
    keys
}

fn id(fields: &Fields) -> Result<Option<FlavorId>, ApiError> {
    let text = match fields.get("id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) if text.is_empty() || text == "auto" => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(other) => {
            return Err(invalid("id", other, &format!("{} is not of type 'string', 'number', 'null'", show(other))));
        }
    };
    let value = Value::String(text.clone());
    if text.chars().count() > 255 {
        return Err(invalid("id", &value, &format!("'{text}' is too long")));
    }
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b". _-".contains(&b));
    if !good || text.starts_with(' ') || text.ends_with(' ') {
        return Err(invalid("id", &value, &format!("'{text}' does not match '{ID_PATTERN}'")));
    }
    Ok(Some(FlavorId::new(text)))
}

fn rxtx_factor(fields: &Fields) -> Result<f64, ApiError> {
    const KEY: &str = "rxtx_factor";
    let Some(value) = fields.get(KEY) else { return Ok(1.0) };
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(fraction) {
                return Err(invalid(KEY, value, &format!("'{text}' does not match '^[0-9]+(\\\\.[0-9]+)?$'")));
            }
            text.parse().ok()
        }
        _ => None,
    };
    match number {
        None => Err(invalid(KEY, value, &format!("{} is not of type 'number', 'string'", show(value)))),
        Some(n) if n <= 0.0 => {
            Err(invalid(KEY, value, &format!("{} is less than or equal to the minimum of 0", show(value))))
        }
        Some(n) if n > MAX_RXTX || !n.is_finite() => {
            Err(invalid(KEY, value, &format!("{} is greater than the maximum of 3.40282e+38", show(value))))
        }
        Some(n) => Ok(n),
    }
}

fn description(fields: &Fields) -> Result<Option<String>, ApiError> {
    const KEY: &str = "description";
    if matches!(fields.get(KEY), Some(Value::Null)) {
        return Ok(None);
    }
    let Some(text) = fields.text(KEY, 0..=65_535)? else { return Ok(None) };
    // Lines may be broken; other control characters are none of a description.
    if text.chars().any(|c| !is_printable(c) && !matches!(c, '\n' | '\r' | '\t')) {
        let value = Value::String(text.to_owned());
        return Err(invalid(KEY, &value, &format!("{} does not match the pattern of printable text", show(&value))));
    }
    Ok(Some(text.to_owned()))
}
