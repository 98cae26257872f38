//! Lists: whose, filters, order, pages (cinder/api/common.py).

use std::collections::BTreeMap;

use http::StatusCode;
use nova_core::context::RequestContext;
use nova_db::{Direction, ListQuery};
use serde_json::{Map, Value, json};

use crate::api::{ApiError, HandlerResult, Request, Response, parse_bool};

/// Keys that say how to list, not what.
const MANNERS: [&str; 10] = [
    "limit",
    "marker",
    "offset",
    "sort",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "with_count",
    "metadata",
    "glance_metadata",
];

/// What a client asks for.
pub(super) struct Listing<F> {
    /// For the store.
    pub(super) query: ListQuery<F>,
    limit: usize,
    offset: usize,
    with_count: bool,
    /// Labels that must be there.
    pub(super) labels: BTreeMap<String, String>,
    /// What the store does not know, by key.
    pub(super) rest: BTreeMap<String, String>,
}

/// A kind of thing that is listed.
pub(super) struct Collection<F> {
    /// `volumes`: key of the body.
    pub(super) name: &'static str,
    /// The store's field of that name.
    pub(super) field: fn(&str) -> Option<F>,
    /// `created_at` and `id`: what everything is sorted by last.
    pub(super) usual: [F; 2],
    /// Keys that the resource filters by itself.
    pub(super) own: &'static [&'static str],
}

fn number(request: &Request, key: &str, most: usize) -> Result<Option<usize>, ApiError> {
    let Some(text) = request.query.get(key) else { return Ok(None) };
    let number = text.parse::<usize>().map_err(|_| ApiError::bad_request(format!("{key} param must be an integer")))?;
    Ok(Some(number.min(most)))
}

impl<F: Copy + PartialEq> Collection<F> {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 names the key.
    pub(super) fn read(
        &self,
        request: &Request,
        context: &RequestContext,
        max_limit: usize,
    ) -> Result<Listing<F>, ApiError> {
        let query = &request.query;
        let all = query.get("all_tenants").and_then(parse_bool).unwrap_or(false) && context.is_admin();
        let mut listing = Listing {
            query: ListQuery {
                visible_to: (!all).then(|| context.project_id.clone()),
                sort: self.sort(request)?,
                after: query.get("marker").filter(|text| !text.is_empty()).map(str::to_owned),
                ..ListQuery::default()
            },
            limit: number(request, "limit", max_limit)?.unwrap_or(max_limit),
            offset: number(request, "offset", i32::MAX as usize)?.unwrap_or(0),
            with_count: request.version.at_least(45) && query.get("with_count").and_then(parse_bool).unwrap_or(false),
            labels: labels(query.get("metadata").unwrap_or_default())?,
            rest: BTreeMap::new(),
        };
        for (key, value) in query.pairs() {
            if MANNERS.contains(&key.as_str()) {
                continue;
            }
            let key = if key == "tenant_id" { "project_id" } else { key.as_str() };
            match (self.field)(key) {
                // Whose they are, others than administrators do not choose.
                Some(_) if key == "project_id" && !context.is_admin() => {}
                Some(field) => listing.query.filters.push((field, vec![truth(key, value)])),
                None if self.own.contains(&key) => {
                    listing.rest.insert(key.to_owned(), value.clone());
                }
                None => {
                    let key: String = key.chars().take(64).collect();
                    return Err(ApiError::bad_request(format!("Invalid filters {key} are found in query options.")));
                }
            }
        }
        if listing.is_all_of_the_stores() {
            listing.query.limit = Some(listing.limit.saturating_add(1));
        }
        Ok(listing)
    }

    fn sort(&self, request: &Request) -> Result<Vec<(F, Direction)>, ApiError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        if let Some(sort) = request.query.get("sort") {
            for part in sort.split(',').filter(|part| !part.is_empty()) {
                let (key, direction) = part.split_once(':').unwrap_or((part, "desc"));
                pairs.push((key.trim().to_owned(), direction.trim().to_owned()));
            }
        } else {
            let direction = request.query.get("sort_dir").unwrap_or("desc");
            pairs.extend(request.query.all("sort_key").map(|key| (key.to_owned(), direction.to_owned())));
        }
        let mut sort = Vec::new();
        for (key, direction) in pairs {
            let field = (self.field)(&key).ok_or_else(|| {
                let key: String = key.chars().take(64).collect();
                ApiError::bad_request(format!("Invalid sort key: {key}"))
            })?;
            let direction = match direction.as_str() {
                "asc" => Direction::Ascending,
                "desc" => Direction::Descending,
                _ => return Err(ApiError::bad_request("Invalid sort direction: one of asc, desc")),
            };
            sort.push((field, direction));
        }
        for field in self.usual {
            if !sort.iter().any(|(earlier, _)| *earlier == field) {
                sort.push((field, Direction::Descending));
            }
        }
        Ok(sort)
    }

    /// The answer: what fits, a page of it, and where the next one is.
    pub(super) fn answer(&self, request: &Request, listing: &Listing<F>, views: Vec<Value>) -> HandlerResult {
        let count = views.len();
        let more = count > listing.offset.saturating_add(listing.limit);
        let views: Vec<Value> = views.into_iter().skip(listing.offset).take(listing.limit).collect();
        let mut body = Map::new();
        if let Some(last) = views.last().and_then(|view| view["id"].as_str()).filter(|_| more) {
            let query = request.query.with(&[("marker", last)]);
            let href = format!("{}{}?{}", request.base_url, request.path, query.encode());
            body.insert(format!("{}_links", self.name), json!([{"rel": "next", "href": href}]));
        }
        if listing.with_count {
            body.insert("count".to_owned(), json!(count));
        }
        body.insert(self.name.to_owned(), Value::Array(views));
        Ok(Response::json(StatusCode::OK, &Value::Object(body)))
    }
}

impl<F> Listing<F> {
    /// Is what the store answers the answer, so that it need not give more than a page?
    fn is_all_of_the_stores(&self) -> bool {
        self.labels.is_empty() && self.rest.is_empty() && self.offset == 0 && !self.with_count
    }

    /// Has it the labels that are asked for?
    pub(super) fn fits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Flags as the store compares them.
fn truth(key: &str, value: &str) -> String {
    let flag = ["bootable", "multiattach"].contains(&key).then(|| parse_bool(value)).flatten();
    flag.map_or_else(|| value.to_owned(), |flag| flag.to_string())
}

/// `{'key': 'value'}` as clients write it (a Python literal, or JSON).
fn labels(text: &str) -> Result<BTreeMap<String, String>, ApiError> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let read = |text: &str| serde_json::from_str::<BTreeMap<String, String>>(text).ok();
    let quoted = || text.replace("u'", "'").replace('\'', "\"");
    read(text).or_else(|| read(&quoted())).ok_or_else(|| {
        ApiError::bad_request(format!("Invalid filter metadata: {}", text.chars().take(64).collect::<String>()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_clients_write_them() {
        let expected = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for text in ["{'a': 'b'}", "{\"a\": \"b\"}", "{u'a': u'b'}"] {
            assert_eq!(labels(text).unwrap(), expected, "{text}");
        }
        assert!(labels("").unwrap().is_empty());
        labels("{'a'").unwrap_err();
    }
}
