use serde_json::Value;

use super::{Filter, Reads};
use crate::host::Variable;
use crate::{HostBlock, HostView, Request};

/// The hint `query`: a condition in JSON, such as `["and", [">=", "$free_ram_mb", 1024], ["=", "$host", "a"]]`, with the
/// operators `=`, `<`, `>`, `in`, `<=`, `>=`, `not`, `or`, `and`; `$name` is a [variable](HostView::variable) of the host.
/// A query that can't be read, or is nested too deeply, passes no host.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonFilter;

/// A value in a query, once variables are filled in.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    Text(String),
    Number(f64),
    Bool(bool),
    /// What `not` gives: each of its terms, flipped.
    List(Vec<bool>),
}

impl Term {
    fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0.0,
            Self::Bool(value) => *value,
            Self::List(values) => !values.is_empty(),
        }
    }

    /// The order of two terms of a kind; terms of different kinds have none.
    fn compare(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    /// As in Python, a truth value counts as 0 or 1.
    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Bool(value) => Some(f64::from(u8::from(*value))),
            Self::Text(_) | Self::List(_) => None,
        }
    }
}

/// The value of a query for one host; `None` when it makes no sense.
fn evaluate(query: &Value, host: &HostView<'_>) -> Option<Term> {
    let items = query.as_array()?;
    let Some((command, arguments)) = items.split_first() else { return Some(Term::Bool(true)) };
    let mut terms = Vec::with_capacity(arguments.len());
    for argument in arguments {
        // A variable that the host doesn't have is left out, as in Nova.
        terms.extend(match argument {
            Value::Array(_) => Some(evaluate(argument, host)?),
            Value::String(text) => match text.strip_prefix('$') {
                Some(path) => host.variable(path).map(|value| match value {
                    Variable::Number(number) => Term::Number(number),
                    Variable::Text(text) => Term::Text(text.into_owned()),
                }),
                None => Some(Term::Text(text.clone())).filter(|_| !text.is_empty()),
            },
            Value::Number(number) => number.as_f64().map(Term::Number),
            Value::Bool(value) => Some(Term::Bool(*value)),
            Value::Null => None,
            Value::Object(_) => return None,
        });
    }
    let against_first = |holds: fn(std::cmp::Ordering) -> bool| {
        let Some((first, others)) = terms.split_first() else { return false };
        !others.is_empty() && others.iter().all(|other| first.compare(other).is_some_and(holds))
    };
    Some(match command.as_str()? {
        "=" => Term::Bool(against_first(std::cmp::Ordering::is_eq)),
        "<" => Term::Bool(against_first(std::cmp::Ordering::is_lt)),
        ">" => Term::Bool(against_first(std::cmp::Ordering::is_gt)),
        "<=" => Term::Bool(against_first(std::cmp::Ordering::is_le)),
        ">=" => Term::Bool(against_first(std::cmp::Ordering::is_ge)),
        "in" => Term::Bool(terms.split_first().is_some_and(|(first, others)| others.contains(first))),
        "not" => Term::List(terms.iter().map(|term| !term.is_true()).collect()),
        "or" => Term::Bool(terms.iter().any(Term::is_true)),
        "and" => Term::Bool(terms.iter().all(Term::is_true)),
        _ => return None,
    })
}

fn passes(query: &Value, host: &HostView<'_>) -> bool {
    match evaluate(query, host) {
        Some(Term::List(values)) => values.contains(&true),
        Some(term) => term.is_true(),
        None => false,
    }
}

impl Filter for JsonFilter {
    fn name(&self) -> &str {
        "JsonFilter"
    }

    fn host_passes(&self, host: &HostView<'_>, request: &Request) -> bool {
        let Some(text) = request.hints.query.as_deref().filter(|text| !text.is_empty()) else { return true };
        serde_json::from_str(text).is_ok_and(|query| passes(&query, host))
    }

    fn reads(&self, request: &Request) -> Reads {
        if request.hints.query.as_deref().is_none_or(str::is_empty) { Reads::Nothing } else { Reads::Host }
    }

    fn block_passes(&self, block: &HostBlock<'_>, request: &Request, candidates: u64) -> u64 {
        // Parsed once per block instead of once per host.
        match serde_json::from_str(request.hints.query.as_deref().unwrap_or("[]")) {
            Ok(query) => block.keep(candidates, |host| passes(&query, host)),
            Err(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{passing, request, three};
    use super::*;

    #[test]
    fn queries_are_answered_as_in_nova() {
        let mut table = three();
        table.allocate("host-0", 1, &[10, 60_000, 500].into()).unwrap();
        table.allocate("host-1", 2, &[1, 30_000, 0].into()).unwrap();
        for (query, expected) in [
            (r#"[]"#, vec![0, 1, 2]),
            (r#"[">=", "$free_ram_mb", 20000]"#, vec![1, 2]),
            (r#"["and", [">=", "$free_ram_mb", 20000], ["<", "$vcpus_used", 1]]"#, vec![2]),
            (r#"["or", ["=", "$host", "host-0"], ["=", "$host", "host-2"]]"#, vec![0, 2]),
            (r#"["in", "$host", "host-1", "host-9"]"#, vec![1]),
            (r#"["not", ["=", "$host", "host-1"]]"#, vec![0, 2]),
            (r#"["<", 5, "$vcpus_used", 20]"#, vec![0]),
            (r#"["=", "$no_such_thing", 1]"#, vec![]),
            (r#"["not", ["=", "$no_such_thing", 1]]"#, vec![0, 1, 2]),
            (r#"[">", "$host", 3]"#, vec![]),
            (r#"["frobnicate", 1]"#, vec![]),
            (r#"{"a": 1}"#, vec![]),
            (r#"["and", "#, vec![]),
        ] {
            let mut request = request();
            request.hints.query = Some(query.to_owned());
            assert_eq!(passing(&JsonFilter, &table, &request), expected, "{query}");
        }
    }

    #[test]
    fn a_query_of_great_depth_is_refused() {
        let mut request = request();
        request.hints.query = Some(format!("{}{}", "[\"not\", ".repeat(100_000), "]".repeat(100_000)));
        assert!(passing(&JsonFilter, &three(), &request).is_empty());
    }
}
