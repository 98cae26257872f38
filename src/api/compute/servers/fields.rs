//! Fields that several bodies about servers have, each with the rules of its schema
//! (nova/api/validation/parameter_types.py).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use uuid::Uuid;

use crate::api::validate::{self, Fields, Shown, Text, invalid, wrong_type};
use crate::api::{ApiError, Microversion};

/// Nova's limit on tags of a server.
const MAX_TAGS: usize = 50;

/// `accessIPv4` and `accessIPv6`; outer `None`: not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// In dotted form.
    pub v4: Option<String>,
    /// In canonical form (RFC 5952).
    pub v6: Option<String>,
}

/// A name under a key, blanks cut off in the `/v2` mode.
pub fn name(fields: &mut Fields<'_>, key: &'static str, lenient: bool) -> Result<Option<String>, ApiError> {
    let read = if lenient { validate::stripped_name } else { validate::name };
    fields.get(key).map(|value| read(key, value).map(str::to_owned)).transpose()
}

/// `flavorRef`: an id as text or number, or a URL that ends with it.
pub fn reference(path: &str, value: &Value) -> Result<String, ApiError> {
    let text = match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::String(_) => return Err(invalid(path, value, "'' is too short")),
        _ => return Err(wrong_type(path, value, "string', 'integer")),
    };
    Ok(text.rsplit('/').next().unwrap_or_default().to_owned())
}

/// `imageRef`: a UUID or nothing.
pub fn image_ref(path: &str, value: &Value) -> Result<String, ApiError> {
    let text = value.as_str().ok_or_else(|| wrong_type(path, value, "string"))?;
    if text.is_empty() || is_uuid(text) {
        return Ok(text.to_owned());
    }
    Err(invalid(path, value, format_args!("'{text}' is not a 'uuid'")))
}

/// The id of an image: a UUID.
pub fn image_id(path: &str, value: &Value) -> Result<String, ApiError> {
    let text = value.as_str().ok_or_else(|| wrong_type(path, value, "string"))?;
    if is_uuid(text) {
        Ok(text.to_owned())
    } else {
        Err(invalid(path, value, format_args!("'{text}' is not a 'uuid'")))
    }
}

/// Both forms that clients use.
pub fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && Uuid::try_parse(text).is_ok()
}

/// Labels: keys of 1 to 255 plain characters, values of up to 255.
pub fn metadata(path: &str, value: &Value) -> Result<BTreeMap<String, String>, ApiError> {
    let map = value.as_object().ok_or_else(|| wrong_type(path, value, "object"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.' | ' ');
    let mut out = BTreeMap::new();
    for (key, item) in map {
        if key.is_empty() || key.chars().count() > 255 || !key.chars().all(plain) {
            let problem = format!("'{}' does not match any of the regexes: '^[a-zA-Z0-9-_:. ]{{1,255}}$'", cut(key));
            return Err(invalid(path, value, problem));
        }
        out.insert(key.clone(), validate::text(key, item, Text::new(0, 255))?.to_owned());
    }
    Ok(out)
}

/// `OS-DCF:diskConfig`: is it AUTO?
pub fn disk_config(fields: &mut Fields<'_>) -> Result<Option<bool>, ApiError> {
    const KEY: &str = "OS-DCF:diskConfig";
    match fields.get(KEY) {
        None => Ok(None),
        Some(Value::String(word)) if word == "AUTO" => Ok(Some(true)),
        Some(Value::String(word)) if word == "MANUAL" => Ok(Some(false)),
        Some(value) => Err(invalid(KEY, value, format_args!("'{}' is not one of ['AUTO', 'MANUAL']", Shown(value)))),
    }
}

/// `accessIPv4` and `accessIPv6`.
pub fn addresses(fields: &mut Fields<'_>) -> Result<Addresses, ApiError> {
    let v4 = fields.get("accessIPv4").map(|value| {
        let parsed = value.as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
        parsed.ok_or_else(|| invalid("accessIPv4", value, format_args!("'{}' is not a 'ipv4'", Shown(value))))
    });
    let v6 = fields.get("accessIPv6").map(|value| {
        let parsed = value.as_str().and_then(|text| text.parse::<Ipv6Addr>().ok());
        parsed.ok_or_else(|| invalid("accessIPv6", value, format_args!("'{}' is not a 'ipv6'", Shown(value))))
    });
    Ok(Addresses { v4: v4.transpose()?.map(|a| a.to_string()), v6: v6.transpose()?.map(|a| a.to_string()) })
}

/// An address of either family.
pub fn ip_address(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<IpAddr>, ApiError> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    match value.as_str().map(str::parse::<IpAddr>) {
        Some(Ok(address)) => Ok(Some(address)),
        _ => Err(invalid(key, value, format_args!("'{}' is not a 'ipv4' or 'ipv6'", Shown(value)))),
    }
}

/// Base64 of at most 65535 characters; null only in the `/v2` mode.
pub fn user_data(fields: &mut Fields<'_>, lenient: bool) -> Result<Option<String>, ApiError> {
    const KEY: &str = "user_data";
    let Some(value) = fields.get(KEY) else { return Ok(None) };
    if value.is_null() && lenient {
        return Ok(None);
    }
    let text = validate::text(KEY, value, Text::new(0, 65_535))?;
    // Python's decoder passes over line breaks, and clients send them.
    let joined: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    if STANDARD.decode(joined.as_bytes()).is_err() {
        return Err(invalid(KEY, value, "it is not a 'base64'"));
    }
    Ok(Some(joined))
}

/// How many files were to be injected; each must have a path and base64 contents.
pub fn personality(fields: &mut Fields<'_>) -> Result<usize, ApiError> {
    let Some(list) = fields.list("personality", usize::MAX)? else { return Ok(0) };
    for item in list {
        let mut file = Fields::of("personality", item, false)?;
        file.text("path", Text::new(0, usize::MAX))?;
        let contents = file.required_text("contents", Text::new(0, usize::MAX))?;
        if STANDARD.decode(contents.as_bytes()).is_err() {
            return Err(invalid("contents", item, "it is not a 'base64'"));
        }
        file.finish()?;
    }
    Ok(list.len())
}

/// Free text or null; outer `None`: not given.
pub fn description(fields: &mut Fields<'_>) -> Result<Option<Option<String>>, ApiError> {
    const KEY: &str = "description";
    let Some(text) = fields.nullable_text(KEY, Text::new(0, 255))? else { return Ok(None) };
    if text.is_some_and(|text| text.chars().any(char::is_control)) {
        return Err(invalid(KEY, &Value::Null, "it must consist of printable characters"));
    }
    Ok(Some(text.map(str::to_owned)))
}

/// Up to fifty tags.
pub fn tags(fields: &mut Fields<'_>) -> Result<BTreeSet<String>, ApiError> {
    let list = fields.list("tags", MAX_TAGS)?.unwrap_or_default();
    list.iter().map(|item| tag("tags", item)).collect()
}

/// A tag: 1 to 60 characters, neither slash nor comma.
pub fn tag(path: &str, value: &Value) -> Result<String, ApiError> {
    let text = validate::text(path, value, Text::new(1, 60))?;
    if text.contains(['/', ',']) {
        return Err(invalid(path, value, format_args!("'{text}' does not match '^[^,/]*$'")));
    }
    Ok(text.to_owned())
}

/// Certificates for signed images: null or 1 to 50 different ids; `None` for null and for nothing.
pub fn trusted_certificates(fields: &mut Fields<'_>) -> Result<Option<Vec<String>>, ApiError> {
    const KEY: &str = "trusted_image_certificates";
    let value = match fields.get(KEY) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let list = value.as_array().ok_or_else(|| wrong_type(KEY, value, "array', 'null"))?;
    let ids: Vec<&str> =
        list.iter().map(|item| validate::text(KEY, item, Text::new(1, usize::MAX))).collect::<Result<_, _>>()?;
    let different: BTreeSet<&str> = ids.iter().copied().collect();
    if ids.is_empty() || ids.len() > MAX_TAGS || different.len() != ids.len() {
        return Err(invalid(KEY, value, "it must hold 1 to 50 different ids"));
    }
    Ok(Some(ids.into_iter().map(str::to_owned).collect()))
}

/// The guest's own name: one label until 2.93, then also a name with dots.
pub fn hostname(fields: &mut Fields<'_>, version: Microversion) -> Result<Option<String>, ApiError> {
    const KEY: &str = "hostname";
    if version.at_least(94) {
        return fqdn(fields, KEY);
    }
    let Some(value) = fields.get(KEY) else { return Ok(None) };
    let text = validate::text(KEY, value, Text::new(2, 63))?;
    let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !inner || text.starts_with('-') || text.ends_with('-') {
        let problem = format!("'{text}' does not match '^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$'");
        return Err(invalid(KEY, value, problem));
    }
    Ok(Some(text.to_owned()))
}

/// A name with dots: 1 to 255 of letters, digits, `-`, `.`, `_`.
pub fn fqdn(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<String>, ApiError> {
    let Some(value) = fields.get(key) else { return Ok(None) };
    let text = validate::text(key, value, Text::new(1, 255))?;
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
        return Err(invalid(key, value, format_args!("'{text}' does not match '^[a-zA-Z0-9-._]*$'")));
    }
    Ok(Some(text.to_owned()))
}

/// Hints: an object; what Nova knows has a form, what it does not know is kept as it is.
pub fn hints(value: &Value) -> Result<BTreeMap<String, Value>, ApiError> {
    const KEY: &str = "os:scheduler_hints";
    let map = value.as_object().ok_or_else(|| wrong_type(KEY, value, "object"))?;
    for (key, hint) in map {
        let uuid = |v: &Value| v.as_str().is_some_and(is_uuid);
        let uuids = |v: &Value| v.as_array().is_some_and(|list| list.iter().all(uuid));
        let fits = match key.as_str() {
            "group" | "different_host" => uuid(hint) || uuids(hint),
            "same_host" => hint.is_string() || uuids(hint),
            "query" => hint.is_string() || hint.is_object(),
            "build_near_host_ip" => hint.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
            "cidr" => hint.as_str().is_some_and(|text| text.starts_with('/')),
            _ => true,
        };
        if !fits {
            return Err(invalid(key, hint, "it is not valid under any of the given schemas"));
        }
    }
    Ok(map.iter().map(|(key, hint)| (key.clone(), hint.clone())).collect())
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_kept_in_canonical_form() {
        let body = json!({"accessIPv4": "1.2.3.4", "accessIPv6": "::babe:220.12.22.2"});
        let mut fields = Fields::root(&body, false).unwrap();
        let read = addresses(&mut fields).unwrap();
        assert_eq!(read.v6.as_deref(), Some("::babe:dc0c:1602"));
        for bad in [json!({"accessIPv4": "1.2.3"}), json!({"accessIPv6": "1.2.3.4"}), json!({"accessIPv4": 1})] {
            assert!(addresses(&mut Fields::root(&bad, false).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_have_plain_keys_and_short_values() {
        assert!(metadata("metadata", &json!({"a b": "", "k": "v".repeat(255)})).is_ok());
        for bad in [json!({"": "v"}), json!({"ü": "v"}), json!({"k": 1}), json!([]), json!({"k": "v".repeat(256)})] {
            assert!(metadata("metadata", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_grow_dots_at_2_94() {
        let body = json!({"hostname": "a.example"});
        let read = |version| hostname(&mut Fields::root(&body, false).unwrap(), Microversion(version));
        assert!(read(93).is_err());
        assert_eq!(read(94).unwrap().as_deref(), Some("a.example"));
    }
}
