//! What the schemas of many resources have in common: bodies of one object under one key, queries that are strict from
//! some version on (nova/api/validation/__init__.py).

use serde_json::Value;

use crate::api::validate::Fields;
use crate::api::{ApiError, Request};

/// The largest integer of Nova's database.
pub const MAX_INT: i64 = 0x7fff_ffff;

/// The object under the only key of a body, as in `{"flavor": {…}}`. `lenient` lets unknown keys through.
///
/// # Errors
/// 400.
pub fn under<'a>(body: &'a Value, key: &'a str, lenient: bool) -> Result<Fields<'a>, ApiError> {
    let mut root = Fields::root(body, lenient)?;
    let inner = root.object(key)?;
    root.finish()?;
    Ok(inner)
}

/// A 400 about one parameter of a query.
pub fn invalid_query(key: &str, value: &str, problem: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for query parameters {key}. Value: {value}. {problem}"))
}

/// Refuses query parameters that are not known, from the version on at which this resource became strict (2.75 for
/// many, 2.102 for all).
///
/// # Errors
/// 400.
pub fn strict_query(request: &Request, from: u16, known: &[&str]) -> Result<(), ApiError> {
    if request.lenient || request.version.before(from) {
        return Ok(());
    }
    let mut unknown: Vec<&str> = request.query.keys().filter(|key| !known.contains(key)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if unknown.is_empty() {
        return Ok(());
    }
    let verb = if unknown.len() == 1 { "was" } else { "were" };
    let list: Vec<String> = unknown.iter().map(|key| format!("'{key}'")).collect();
    Err(ApiError::bad_request(format!("Additional properties are not allowed ({} {verb} unexpected)", list.join(", "))))
}

/// Refuses parameters that are given twice where only one value makes sense.
///
/// # Errors
/// 400.
pub fn single_query(request: &Request, keys: &[&str]) -> Result<(), ApiError> {
    for key in keys {
        let values: Vec<String> = request.query.all(key).map(|v| format!("'{v}'")).collect();
        if values.len() > 1 {
            let list = format!("[{}]", values.join(", "));
            return Err(invalid_query(key, &list, &format!("{list} is too long")));
        }
    }
    Ok(())
}

/// No control characters and no invisible ones.
pub fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}
