//! Reading bodies as strictly as Nova's JSON schemas do, with their texts (nova/api/validation/validators.py).

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::ApiError;

/// An object of a body while it is being read. Every key that is asked for counts as known; [`Fields::finish`] refuses
/// the others, so that what a version does not know is not asked for at that version.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    value: &'a Value,
    map: &'a Map<String, Value>,
    known: BTreeSet<&'a str>,
    lenient: bool,
}

/// Bounds of a text.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// At least that many characters.
    pub min: usize,
    /// At most that many characters.
    pub max: usize,
}

impl Text {
    /// Between `min` and `max` characters.
    pub const fn new(min: usize, max: usize) -> Self {
        Self { min, max }
    }
}

/// The 400 for a value that does not fit, in Nova's form.
pub fn invalid(path: &str, value: &Value, problem: impl fmt::Display) -> ApiError {
    ApiError::BadRequest(format!("Invalid input for field/attribute {path}. Value: {}. {problem}", Shown(value)))
}

/// A value in a text for the client: as Python prints it, roughly, and never long.
pub struct Shown<'a>(pub &'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 256;
        let text = match self.0 {
            Value::String(text) => text.clone(),
            Value::Null => "None".to_owned(),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            other => other.to_string(),
        };
        match text.char_indices().nth(MAX) {
            Some((end, _)) => write!(f, "{}...", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

impl<'a> Fields<'a> {
    /// A body's outermost object. `lenient` lets unknown keys through, here and below.
    ///
    /// # Errors
    /// 400 if it is no object.
    pub fn root(body: &'a Value, lenient: bool) -> Result<Self, ApiError> {
        Self::new("body", body, lenient)
    }

    fn new(path: &str, value: &'a Value, lenient: bool) -> Result<Self, ApiError> {
        let map = value.as_object().ok_or_else(|| wrong_type(path, value, "object"))?;
        Ok(Self { path: path.to_owned(), value, map, known: BTreeSet::new(), lenient })
    }

    /// An object that was taken from elsewhere, under the name that texts give it.
    ///
    /// # Errors
    /// 400 if it is no object.
    pub fn of(path: &str, value: &'a Value, lenient: bool) -> Result<Self, ApiError> {
        Self::new(path, value, lenient)
    }

    /// The value of a key, if it is there.
    pub fn get(&mut self, key: &'a str) -> Option<&'a Value> {
        self.known.insert(key);
        self.map.get(key)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// 400 if it is not there.
    pub fn required(&mut self, key: &'a str) -> Result<&'a Value, ApiError> {
        let found = self.get(key);
        found.ok_or_else(|| invalid(&self.path, self.value, format_args!("'{key}' is a required property")))
    }

    /// An object under a key, to be read on.
    ///
    /// # Errors
    /// 400 if it is not there or no object.
    pub fn object(&mut self, key: &'a str) -> Result<Fields<'a>, ApiError> {
        let value = self.required(key)?;
        Fields::new(key, value, self.lenient)
    }

    /// The same, if it is there.
    ///
    /// # Errors
    /// 400 if it is no object.
    pub fn optional_object(&mut self, key: &'a str) -> Result<Option<Fields<'a>>, ApiError> {
        let lenient = self.lenient;
        self.get(key).map(|value| Fields::new(key, value, lenient)).transpose()
    }

    /// A text.
    ///
    /// # Errors
    /// 400 if it is none, too short or too long.
    pub fn text(&mut self, key: &'a str, bounds: Text) -> Result<Option<&'a str>, ApiError> {
        self.get(key).map(|value| text(key, value, bounds)).transpose()
    }

    /// A text or null.
    ///
    /// # Errors
    /// 400 if it is neither, too short or too long.
    pub fn nullable_text(&mut self, key: &'a str, bounds: Text) -> Result<Option<Option<&'a str>>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => text(key, value, bounds).map(|text| Some(Some(text))),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// 400 if it is missing, none, too short or too long.
    pub fn required_text(&mut self, key: &'a str, bounds: Text) -> Result<&'a str, ApiError> {
        let value = self.required(key)?;
        text(key, value, bounds)
    }

    /// A truth value: JSON's own, or one of the texts that Nova takes for it.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn boolean(&mut self, key: &'a str) -> Result<Option<bool>, ApiError> {
        self.get(key).map(|value| boolean(key, value)).transpose()
    }

    /// A whole number, or digits as a text, between two bounds.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn integer(&mut self, key: &'a str, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
        self.get(key).map(|value| integer(key, value, min, max)).transpose()
    }

    /// A list.
    ///
    /// # Errors
    /// 400 if it is none, or longer than `max`.
    pub fn list(&mut self, key: &'a str, max: usize) -> Result<Option<&'a [Value]>, ApiError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| wrong_type(key, value, "array"))?;
        if list.len() > max {
            return Err(invalid(key, value, format_args!("{} is too long", Shown(value))));
        }
        Ok(Some(list))
    }

    /// Makes every other key of the object known without reading it.
    pub fn ignore_rest(&mut self) {
        self.lenient = true;
    }

    /// The 400 for this object as a whole.
    pub fn refuse(&self, problem: impl fmt::Display) -> ApiError {
        invalid(&self.path, self.value, problem)
    }

    /// Refuses keys that nobody asked for.
    ///
    /// # Errors
    /// 400 that names them.
    pub fn finish(self) -> Result<(), ApiError> {
        let unknown: Vec<String> =
            self.map.keys().filter(|key| !self.known.contains(key.as_str())).map(|key| format!("'{key}'")).collect();
        if unknown.is_empty() || self.lenient {
            return Ok(());
        }
        let verb = if unknown.len() == 1 { "was" } else { "were" };
        let problem = format!("Additional properties are not allowed ({} {verb} unexpected)", unknown.join(", "));
        Err(invalid(&self.path, self.value, problem))
    }
}

/// The 400 for a value of another type.
pub fn wrong_type(path: &str, value: &Value, wanted: &str) -> ApiError {
    let shown = match value {
        Value::String(text) => format!("'{}'", Shown(&Value::String(text.clone()))),
        other => Shown(other).to_string(),
    };
    invalid(path, value, format_args!("{shown} is not of type '{wanted}'"))
}

/// A text within bounds, counted in characters.
///
/// # Errors
/// 400 for anything else.
pub fn text<'v>(path: &str, value: &'v Value, bounds: Text) -> Result<&'v str, ApiError> {
    let text = value.as_str().ok_or_else(|| wrong_type(path, value, "string"))?;
    let length = text.chars().count();
    if length < bounds.min {
        return Err(invalid(path, value, format_args!("'{text}' is too short")));
    }
    if length > bounds.max {
        return Err(invalid(path, value, format_args!("'{}' is too long", Shown(value))));
    }
    Ok(text)
}

/// A name: 1 to 255 printable characters without blanks at the ends (nova/api/validation/parameter_types.py, `name`).
///
/// # Errors
/// 400 for anything else.
pub fn name<'v>(path: &str, value: &'v Value) -> Result<&'v str, ApiError> {
    let name = text(path, value, Text::new(1, 255))?;
    let blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
    if blank(name.chars().next()) || blank(name.chars().last()) || !printable(name) {
        return Err(invalid(
            path,
            value,
            "An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace.",
        ));
    }
    Ok(name)
}

/// The same with blanks at the ends cut off, as `/v2` has it.
///
/// # Errors
/// 400 for what is blank or too long.
pub fn stripped_name<'v>(path: &str, value: &'v Value) -> Result<&'v str, ApiError> {
    let name = text(path, value, Text::new(1, usize::MAX))?.trim();
    if name.is_empty() || name.chars().count() > 255 || !printable(name) {
        return Err(invalid(
            path,
            value,
            "An invalid 'name' value was provided. The name must be: printable characters with at least one non space character.",
        ));
    }
    Ok(name)
}

fn printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A truth value as Nova's schemas take it.
///
/// # Errors
/// 400 for anything else.
pub fn boolean(path: &str, value: &Value) -> Result<bool, ApiError> {
    let wrong = || {
        invalid(
            path,
            value,
            format_args!(
                "{} is not one of [True, 'True', 'TRUE', 'true', '1', 'ON', 'On', 'on', 'YES', 'Yes', 'yes', 'y', 't', False, 'False', 'FALSE', 'false', '0', 'OFF', 'Off', 'off', 'NO', 'No', 'no', 'n', 'f']",
                Shown(value)
            ),
        )
    };
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::String(text) => match text.as_str() {
            "True" | "TRUE" | "true" | "1" | "ON" | "On" | "on" | "YES" | "Yes" | "yes" | "y" | "t" => Ok(true),
            "False" | "FALSE" | "false" | "0" | "OFF" | "Off" | "off" | "NO" | "No" | "no" | "n" | "f" => Ok(false),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// A whole number, or its decimal text.
///
/// # Errors
/// 400 for anything else, or outside the bounds.
pub fn integer(path: &str, value: &Value, min: i64, max: i64) -> Result<i64, ApiError> {
    let number = match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15).map(|f| f as i64))
            .or_else(|| number.is_u64().then_some(i64::MAX)),
        Value::String(text) => decimal(text),
        _ => None,
    };
    let Some(number) = number else {
        return Err(match value {
            Value::String(text) => invalid(path, value, format_args!("'{text}' does not match '^-?[0-9]+$'")),
            _ => wrong_type(path, value, "integer"),
        });
    };
    if number < min {
        return Err(invalid(path, value, format_args!("{number} is less than the minimum of {min}")));
    }
    if number > max {
        return Err(invalid(path, value, format_args!("{number} is greater than the maximum of {max}")));
    }
    Ok(number)
}

fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

/// Refuses query keys that are not in the list: what Nova's query schemas with `additionalProperties: False` do.
///
/// # Errors
/// 400 that names the key.
pub fn known_query(query: &super::Query, known: &[&str]) -> Result<(), ApiError> {
    match query.unknown(known) {
        None => Ok(()),
        Some(key) => Err(ApiError::BadRequest(format!(
            "Invalid input for query parameters {key}. Additional properties are not allowed ('{key}' was unexpected)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(error: ApiError) -> String {
        assert_eq!(error.status(), 400);
        error.to_string()
    }

    #[test]
    fn keys_that_nobody_asked_for_are_named() {
        let body = json!({"server": {"name": "x", "foo": 1, "bar": 2}});
        let mut root = Fields::root(&body, false).unwrap();
        let mut server = root.object("server").unwrap();
        assert_eq!(server.text("name", Text::new(1, 255)).unwrap(), Some("x"));
        let text = message(server.finish().unwrap_err());
        assert!(text.contains("('bar', 'foo' were unexpected)"), "{text}");
        root.finish().unwrap();
        let mut lenient = Fields::root(&body, true).unwrap();
        lenient.object("server").unwrap().finish().unwrap();
    }

    #[test]
    fn texts_are_counted_in_characters() {
        assert!(text("name", &json!("é".repeat(255)), Text::new(1, 255)).is_ok());
        let error = text("name", &json!(""), Text::new(1, 255)).unwrap_err();
        assert_eq!(message(error), "Invalid input for field/attribute name. Value: . '' is too short");
        assert!(text("name", &json!("a".repeat(256)), Text::new(1, 255)).is_err());
        assert!(text("name", &json!(7), Text::new(1, 255)).is_err());
    }

    #[test]
    fn names_have_no_blanks_at_the_ends() {
        for bad in [" ", " a", "a ", "a\u{7}b", ""] {
            assert!(name("name", &json!(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(name("name", &json!("a b")).unwrap(), "a b");
        assert_eq!(stripped_name("name", &json!(" a ")).unwrap(), "a");
    }

    #[test]
    fn numbers_may_be_texts_but_not_fractions() {
        assert_eq!(integer("n", &json!("12"), 0, 20).unwrap(), 12);
        assert_eq!(integer("n", &json!(12.0), 0, 20).unwrap(), 12);
        for bad in [
            json!(2.5),
            json!("2.5"),
            json!("x"),
            json!(null),
            json!(true),
            json!(21),
            json!(-1),
            json!("99999999999999999999999"),
        ] {
            assert!(integer("n", &bad, 0, 20).is_err(), "{bad}");
        }
    }
}
