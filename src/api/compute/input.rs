//! Checks of request bodies and queries in the manner, and with the words, of Nova's JSON schemas
//! (nova/api/validation/validators.py): a 400 names the field, its value and the rule.

use serde_json::{Map, Value};

use crate::api::{ApiError, Request};

/// What integers of Nova's database end at.
pub const MAX_INT: u64 = 0x7fff_ffff;

/// An object of a body, with the name under which it is known to the client.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    name: Option<&'a str>,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The body as a whole, which must be an object with exactly the one key, whose value is an object again; as
    /// `{"flavor": {…}}`.
    ///
    /// # Errors
    /// 400.
    pub fn under(body: &'a Value, key: &'a str) -> Result<Self, ApiError> {
        let whole = Self::of(body)?;
        whole.require(&[key])?;
        whole.only(&[key])?;
        whole.object(key)
    }

    /// The body as a whole, which must be an object.
    ///
    /// # Errors
    /// 400.
    pub fn of(body: &'a Value) -> Result<Self, ApiError> {
        match body {
            Value::Object(map) => Ok(Self { name: None, map }),
            other => Err(ApiError::bad_request(format!("{} is not of type 'object'", show(other)))),
        }
    }

    /// The object under that key, which must be there.
    ///
    /// # Errors
    /// 400.
    pub fn object(&self, key: &'a str) -> Result<Self, ApiError> {
        match self.map.get(key) {
            Some(Value::Object(map)) => Ok(Self { name: Some(key), map }),
            Some(other) => Err(invalid(key, other, &format!("{} is not of type 'object'", show(other)))),
            None => Err(self.fault(&format!("'{key}' is a required property"))),
        }
    }

    /// All of these keys must be there.
    ///
    /// # Errors
    /// 400.
    pub fn require(&self, keys: &[&str]) -> Result<(), ApiError> {
        match keys.iter().find(|key| !self.map.contains_key(**key)) {
            Some(key) => Err(self.fault(&format!("'{key}' is a required property"))),
            None => Ok(()),
        }
    }

    /// No other keys may be there.
    ///
    /// # Errors
    /// 400.
    pub fn only(&self, keys: &[&str]) -> Result<(), ApiError> {
        let unknown: Vec<&str> = self.map.keys().map(String::as_str).filter(|key| !keys.contains(key)).collect();
        if unknown.is_empty() { Ok(()) } else { Err(self.fault(&unexpected(&unknown))) }
    }

    /// The value under that key, whatever it is.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// All pairs, by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.map.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many keys there are.
    pub fn count(&self) -> usize {
        self.map.len()
    }

    /// A text of that length, in characters.
    ///
    /// # Errors
    /// 400.
    pub fn text(&self, key: &str, length: std::ops::RangeInclusive<usize>) -> Result<Option<&'a str>, ApiError> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        let Value::String(text) = value else {
            return Err(invalid(key, value, &format!("{} is not of type 'string'", show(value))));
        };
        let characters = text.chars().count();
        if characters < *length.start() {
            return Err(invalid(key, value, &format!("{} is too short", show(value))));
        }
        if characters > *length.end() {
            return Err(invalid(key, value, &format!("{} is too long", show(value))));
        }
        Ok(Some(text))
    }

    /// A display name: 1 to 255 printable characters, no space at either end (`parameter_types.name`).
    ///
    /// # Errors
    /// 400.
    pub fn name(&self, key: &str) -> Result<Option<&'a str>, ApiError> {
        let Some(text) = self.text(key, 1..=255)? else { return Ok(None) };
        let padded = text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace);
        if padded || text.chars().any(|c| !is_printable(c)) {
            let value = Value::String(text.to_owned());
            return Err(invalid(
                key,
                &value,
                &format!("An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace. Got {}", show(&value)),
            ));
        }
        Ok(Some(text))
    }

    /// A text that is one of these.
    ///
    /// # Errors
    /// 400.
    pub fn one_of(&self, key: &str, allowed: &[&str]) -> Result<Option<&'a str>, ApiError> {
        let Some(text) = self.text(key, 0..=usize::MAX)? else { return Ok(None) };
        if allowed.contains(&text) {
            return Ok(Some(text));
        }
        let list: Vec<String> = allowed.iter().map(|a| format!("'{a}'")).collect();
        Err(invalid(key, &Value::String(text.to_owned()), &format!("'{text}' is not one of [{}]", list.join(", "))))
    }

    /// A natural number, as number or as digits in a text.
    ///
    /// # Errors
    /// 400.
    pub fn integer(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => whole(number)
                .ok_or_else(|| invalid(key, value, &format!("{} is not of type 'integer', 'string'", show(value))))?,
            Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse::<i128>().unwrap_or(i128::MAX)
            }
            Value::String(_) => {
                return Err(invalid(key, value, &format!("{} does not match '^[0-9]*$'", show(value))));
            }
            _ => return Err(invalid(key, value, &format!("{} is not of type 'integer', 'string'", show(value)))),
        };
        if number < i128::from(*range.start()) {
            return Err(invalid(key, value, &format!("{number} is less than the minimum of {}", range.start())));
        }
        if number > i128::from(*range.end()) {
            return Err(invalid(key, value, &format!("{number} is greater than the maximum of {}", range.end())));
        }
        Ok(u64::try_from(number).ok())
    }

    /// Truth, in one of the many ways in which Nova lets it be written (`parameter_types.boolean`).
    ///
    /// # Errors
    /// 400.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        match truth(value) {
            Some(truth) => Ok(Some(truth)),
            None if value.is_string() => {
                Err(invalid(key, value, &format!("{} is not one of [True, 'True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', 'y', 't', False, 'False', 'FALSE', 'false', '0', 'OFF', 'Off', 'off', 'NO', 'No', 'no', 'n', 'f']", show(value))))
            }
            None => Err(invalid(key, value, &format!("{} is not of type 'boolean', 'string'", show(value)))),
        }
    }

    fn fault(&self, problem: &str) -> ApiError {
        match self.name {
            Some(name) => invalid(name, &Value::Object(self.map.clone()), problem),
            None => ApiError::bad_request(problem),
        }
    }
}

/// A 400 about one field of a body.
pub fn invalid(key: &str, value: &Value, problem: &str) -> ApiError {
    // A client that sends a megabyte does not get it back.
    let value: String = show(value).chars().take(1024).collect();
    let problem: String = problem.chars().take(1024).collect();
    let plain = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(&value);
    ApiError::bad_request(format!("Invalid input for field/attribute {key}. Value: {plain}. {problem}"))
}

/// A 400 about one parameter of a query.
pub fn invalid_query(key: &str, value: &str, problem: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for query parameters {key}. Value: {value}. {problem}"))
}

/// Refuses query parameters that are not known, from the version on from which this list is strict (2.75 for many,
/// 2.102 for all).
///
/// # Errors
/// 400.
pub fn strict_query(request: &Request, strict_from: u16, known: &[&str]) -> Result<(), ApiError> {
    if request.lenient || request.version.before(strict_from) {
        return Ok(());
    }
    let mut unknown: Vec<&str> = request.query.keys().filter(|key| !known.contains(key)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if unknown.is_empty() { Ok(()) } else { Err(ApiError::bad_request(unexpected(&unknown))) }
}

/// Refuses a parameter that is given twice where only one value makes sense.
///
/// # Errors
/// 400.
pub fn single_query(request: &Request, keys: &[&str]) -> Result<(), ApiError> {
    for key in keys {
        let values: Vec<&str> = request.query.all(key).collect();
        if values.len() > 1 {
            return Err(invalid_query(key, &format!("{values:?}"), &format!("{values:?} is too long")));
        }
    }
    Ok(())
}

fn unexpected(keys: &[&str]) -> String {
    let list: Vec<String> = keys.iter().map(|key| format!("'{}'", key.chars().take(255).collect::<String>())).collect();
    let were = if keys.len() == 1 { "was" } else { "were" };
    format!("Additional properties are not allowed ({} {were} unexpected)", list.join(", "))
}

/// Is the JSON number whole? 3.0 is, as in JSON Schema.
fn whole(number: &serde_json::Number) -> Option<i128> {
    if let Some(n) = number.as_i64() {
        return Some(i128::from(n));
    }
    if let Some(n) = number.as_u64() {
        return Some(i128::from(n));
    }
    number.as_f64().filter(|n| n.fract() == 0.0 && n.is_finite()).map(|n| n as i128)
}

/// `parameter_types.boolean`, read.
pub fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => match text.as_str() {
            "True" | "TRUE" | "true" | "1" | "ON" | "On" | "on" | "YES" | "Yes" | "yes" | "y" | "t" => Some(true),
            "False" | "FALSE" | "false" | "0" | "OFF" | "Off" | "off" | "NO" | "No" | "no" | "n" | "f" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// No control characters, and no separators but spaces.
pub fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}

/// A value as Nova's texts show it: Python's notation.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("'{key}': {}", show(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(result: Result<impl std::fmt::Debug, ApiError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_texts_are_those_of_nova() {
        let body = json!({"flavor": {"ram": -1, "extra": 1, "on": "maybe", "name": "", "state": "x"}});
        let flavor = Fields::under(&body, "flavor").unwrap();
        assert_eq!(
            text(flavor.integer("ram", 1..=MAX_INT)),
            "Invalid input for field/attribute ram. Value: -1. -1 is less than the minimum of 1"
        );
        assert_eq!(text(flavor.name("name")), "Invalid input for field/attribute name. Value: . '' is too short");
        assert!(text(flavor.require(&["vcpus"])).ends_with("'vcpus' is a required property"));
        assert!(
            text(flavor.only(&["ram", "on", "name", "state"]))
                .ends_with("Additional properties are not allowed ('extra' was unexpected)")
        );
        assert!(text(flavor.boolean("on")).contains("'maybe' is not one of"));
        assert!(text(flavor.one_of("state", &["a", "b"])).ends_with("'x' is not one of ['a', 'b']"));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for body in [json!([]), json!(null), json!("x"), json!({}), json!({"flavor": []}), json!({"flavor": {}, "x": 1})] {
            assert!(Fields::under(&body, "flavor").is_err(), "{body}");
        }
    }

    #[test]
    fn numbers_may_come_as_text_and_must_be_whole() {
        let body = json!({"a": "7", "b": 7.0, "c": 7.5, "d": "7x", "e": true, "f": "", "g": 1e300, "h": "99999999999999999999999999999999999999999999"});
        let fields = Fields::of(&body).unwrap();
        assert_eq!(fields.integer("a", 1..=9).unwrap(), Some(7));
        assert_eq!(fields.integer("b", 1..=9).unwrap(), Some(7));
        for bad in ["c", "d", "e", "f", "g", "h"] {
            assert!(fields.integer(bad, 1..=9).is_err(), "{bad}");
        }
        assert_eq!(fields.integer("absent", 1..=9).unwrap(), None);
    }

    #[test]
    fn names_are_printable_and_not_padded() {
        for bad in [" a", "a ", "a\nb", "a\u{0}", "\u{3000}a", &"x".repeat(256)] {
            let body = json!({ "name": bad });
            assert!(Fields::of(&body).unwrap().name("name").is_err(), "{bad:?}");
        }
        for good in ["a", "a b", "日本語", &"é".repeat(255)] {
            let body = json!({ "name": good });
            assert!(Fields::of(&body).unwrap().name("name").is_ok(), "{good:?}");
        }
    }
}
