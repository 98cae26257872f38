//! Query strings: several values per key, in order, and the paging parameters that all lists share.

use super::ApiError;

/// Decoded pairs of a query string, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes `a=1&b=%20`.
    pub fn parse(text: &str) -> Self {
        Self { pairs: form_urlencoded::parse(text.as_bytes()).into_owned().collect() }
    }

    /// The first value of that key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The last value of that key.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// All values of that key.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Is the key there, whatever its value?
    pub fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(k, _)| k == key)
    }

    /// The keys, repeated ones repeatedly.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(key, _)| key.as_str())
    }

    /// All pairs.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The first key that is not in the list.
    pub fn unknown<'a>(&'a self, known: &[&str]) -> Option<&'a str> {
        self.keys().find(|key| !known.contains(key))
    }

    /// The same query with these values in place of what the keys had.
    #[must_use]
    pub fn with(&self, changes: &[(&str, &str)]) -> Self {
        let mut pairs: Vec<_> =
            self.pairs.iter().filter(|(k, _)| !changes.iter().any(|(c, _)| c == k)).cloned().collect();
        pairs.extend(changes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Self { pairs }
    }

    /// The encoded form, keys sorted as Nova writes them into links.
    pub fn encode(&self) -> String {
        let mut pairs = self.pairs.clone();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    /// `limit` and `marker` (nova/api/openstack/common.py, `get_limit_and_marker`): the limit is at most `max_limit`,
    /// which also counts where none was given.
    ///
    /// # Errors
    /// 400 for a limit that is no natural number.
    pub fn paging(&self, max_limit: usize) -> Result<Paging, ApiError> {
        for text in self.all("limit") {
            natural("limit", text)?;
        }
        let limit = match self.get("limit").filter(|text| !text.is_empty()) {
            None => max_limit,
            Some(text) => natural("limit", text)?.min(max_limit),
        };
        Ok(Paging { limit, marker: self.get("marker").map(str::to_owned) })
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    /// At most that many.
    pub limit: usize,
    /// Only what comes after this id.
    pub marker: Option<String>,
}

fn natural(key: &str, text: &str) -> Result<usize, ApiError> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(ApiError::bad_request(format!(
            "Invalid input for query parameters {key}. Value: {text}. '{text}' does not match '^[0-9]*$'"
        )));
    }
    // Longer than a machine word is as good as all.
    Ok(text.parse().unwrap_or(if text.is_empty() { 0 } else { usize::MAX }))
}

/// Nova's reading of truth in queries (oslo_utils.strutils.bool_from_string): `None` for what is neither.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_kept_in_order() {
        let query = Query::parse("status=A&status=B&name=a%20b+c&all_tenants=");
        assert_eq!(query.all("status").collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(query.get("name"), Some("a b c"));
        assert!(query.has("all_tenants"));
        assert_eq!(query.unknown(&["status", "name"]), Some("all_tenants"));
    }

    #[test]
    fn limits_are_natural_numbers_up_to_the_maximum() {
        let limit = |text: &str| Query::parse(text).paging(1000).map(|p| p.limit);
        assert_eq!(limit("").unwrap(), 1000);
        assert_eq!(limit("limit=0").unwrap(), 0);
        assert_eq!(limit("limit=5000").unwrap(), 1000);
        assert_eq!(limit("limit=99999999999999999999999").unwrap(), 1000);
        for bad in ["limit=-1", "limit=a", "limit=1.5", "limit=1&limit=x"] {
            assert_eq!(limit(bad).unwrap_err().status(), 400, "{bad}");
        }
    }

    #[test]
    fn links_carry_the_rest_of_the_query() {
        let query = Query::parse("name=x&limit=2&marker=old").with(&[("marker", "new")]);
        assert_eq!(query.encode(), "limit=2&marker=new&name=x");
    }
}
