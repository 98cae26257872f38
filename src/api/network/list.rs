//! Lists: filters, order, pages, selection of fields.
//!
//! What is a column of the store is asked of the store. Other attributes are compared with what clients see of each item;
//! the page is then cut here.

use http::StatusCode;
use nova_core::context::RequestContext;
use nova_db::{Direction, ListQuery};
use serde_json::{Map, Value, json};

use super::input::{invalid, named};
use crate::api::{ApiError, HandlerResult, Query, Request, Response, parse_bool};

/// Keys that say how to list, not what.
const MANNERS: [&str; 7] = ["fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir", "filter_limit"];

/// A kind of thing that is listed.
pub(super) struct Collection<F> {
    /// `networks`.
    pub(super) name: &'static str,
    /// All attributes that clients see.
    pub(super) attributes: &'static [&'static str],
    /// Those of them that are flags.
    pub(super) flags: &'static [&'static str],
    /// The store's field of that name.
    pub(super) field: fn(&str) -> Option<F>,
}

/// What a client asks for.
pub(super) struct Listing<F> {
    /// For the store.
    pub(super) query: ListQuery<F>,
    /// Filters that the store does not know.
    rest: Vec<(String, Vec<String>)>,
    limit: Option<usize>,
    reverse: bool,
    fields: Vec<String>,
}

/// `?fields=id&fields=name`.
pub(super) fn select(view: Value, fields: &[String]) -> Value {
    match view {
        Value::Object(map) if !fields.is_empty() => {
            Value::Object(map.into_iter().filter(|(key, _)| fields.contains(key)).collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// One item under its key, with only the fields that were asked for.
pub(super) fn one(status: StatusCode, key: &str, view: Value, request: &Request) -> HandlerResult {
    let fields: Vec<String> = request.query.all("fields").map(str::to_owned).collect();
    Ok(Response::json(status, &json!({ key: select(view, &fields) })))
}

/// What was made: the one under its key, or several under theirs.
pub(super) fn made(several: bool, key: &str, keys: &str, mut views: Vec<Value>, request: &Request) -> HandlerResult {
    match views.pop() {
        Some(view) if !several => one(StatusCode::CREATED, key, view, request),
        last => {
            views.extend(last);
            Ok(Response::json(StatusCode::CREATED, &json!({ keys: views })))
        }
    }
}

/// 204.
pub(super) fn nothing() -> HandlerResult {
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

fn flip(direction: Direction) -> Direction {
    match direction {
        Direction::Ascending => Direction::Descending,
        Direction::Descending => Direction::Ascending,
    }
}

impl<F: Copy> Collection<F> {
    /// Reads a query. Keys in `own` are the caller's business.
    ///
    /// # Errors
    /// 400 names the key.
    pub(super) fn read(
        &self,
        query: &Query,
        context: &RequestContext,
        own: &[&str],
        max_limit: Option<usize>,
    ) -> Result<Listing<F>, ApiError> {
        let limit = limit(query, max_limit)?;
        let reverse = query.get("page_reverse").and_then(parse_bool).unwrap_or(false);
        let mut listing = Listing {
            query: ListQuery {
                visible_to: (!context.is_admin()).then(|| context.project_id.clone()),
                filters: Vec::new(),
                sort: self.sort(query, reverse)?,
                limit: None,
                after: query.get("marker").filter(|text| !text.is_empty()).map(str::to_owned),
            },
            rest: Vec::new(),
            limit,
            reverse,
            fields: query.all("fields").map(str::to_owned).collect(),
        };
        let mut seen: Vec<&str> = Vec::new();
        for key in query.keys() {
            if seen.contains(&key) || MANNERS.contains(&key) || own.contains(&key) {
                continue;
            }
            seen.push(key);
            self.add_filter(&mut listing, key, query.all(key).map(str::to_owned).collect())?;
        }
        if listing.rest.is_empty() {
            // One more tells whether there is a next page.
            listing.query.limit = limit.map(|limit| limit.saturating_add(1));
        }
        Ok(listing)
    }

    fn add_filter(&self, listing: &mut Listing<F>, key: &str, mut values: Vec<String>) -> Result<(), ApiError> {
        if !self.attributes.contains(&key) && (self.field)(key).is_none() {
            let key: String = key.chars().take(64).collect();
            return Err(named(400, "HTTPBadRequest", format!("['{key}'] is invalid attribute for filtering")));
        }
        if self.flags.contains(&key) {
            for value in &mut values {
                let flag = parse_bool(value);
                let flag =
                    flag.ok_or_else(|| invalid(key, format_args!("'{value}' cannot be converted to boolean")))?;
                *value = flag.to_string();
            }
        }
        match (self.field)(key) {
            Some(field) => listing.query.filters.push((field, values)),
            None => listing.rest.push((key.to_owned(), values)),
        }
        Ok(())
    }

    fn sort(&self, query: &Query, reverse: bool) -> Result<Vec<(F, Direction)>, ApiError> {
        let keys: Vec<&str> = query.all("sort_key").collect();
        let directions: Vec<&str> = query.all("sort_dir").collect();
        if !directions.is_empty() && directions.len() != keys.len() {
            let text = "The number of sort_keys and sort_dirs must be same";
            return Err(named(400, "HTTPBadRequest", text.to_owned()));
        }
        let mut sort = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let field = (self.field)(key);
            let field = field.ok_or_else(|| {
                let key: String = key.chars().take(64).collect();
                named(400, "HTTPBadRequest", format!("['{key}'] is invalid attribute for sort keys"))
            })?;
            let direction = match directions.get(index).copied() {
                None | Some("asc") => Direction::Ascending,
                Some("desc") => Direction::Descending,
                Some(other) => {
                    return Err(invalid(
                        "sort_dir",
                        format_args!("'{}' is not in ['asc', 'desc']", other.chars().take(16).collect::<String>()),
                    ));
                }
            };
            sort.push((field, if reverse { flip(direction) } else { direction }));
        }
        if sort.is_empty()
            && reverse
            && let Some(field) = (self.field)("created_at")
        {
            sort.push((field, Direction::Descending));
        }
        // What decides last decides backwards, too.
        if let Some(id) = (self.field)("id").filter(|_| reverse && !keys.contains(&"id")) {
            sort.push((id, Direction::Descending));
        }
        Ok(sort)
    }

    /// The answer: what fits, page by page, with links to the pages beside it.
    pub(super) fn answer(&self, request: &Request, listing: &Listing<F>, views: Vec<Value>) -> HandlerResult {
        let mut views: Vec<Value> = views.into_iter().filter(|view| listing.fits(view)).collect();
        let more = listing.limit.is_some_and(|limit| views.len() > limit);
        views.truncate(listing.limit.unwrap_or(usize::MAX));
        if listing.reverse {
            views.reverse();
        }
        let mut body = Map::new();
        let links = self.links(request, listing, &views, more);
        if !links.is_empty() {
            body.insert(format!("{}_links", self.name.replace('-', "_")), Value::Array(links));
        }
        let views = views.into_iter().map(|view| select(view, &listing.fields)).collect();
        body.insert(self.name.replace('-', "_"), Value::Array(views));
        Ok(Response::json(StatusCode::OK, &Value::Object(body)))
    }

    fn links(&self, request: &Request, listing: &Listing<F>, views: &[Value], more: bool) -> Vec<Value> {
        if listing.limit.is_none() || views.is_empty() {
            return Vec::new();
        }
        let id = |view: Option<&Value>| view.and_then(|view| view["id"].as_str()).unwrap_or_default().to_owned();
        let (next, previous) = if listing.reverse { (true, more) } else { (more, listing.query.after.is_some()) };
        let mut links = Vec::new();
        let link = |rel: &str, marker: &str, reverse: &str| {
            let query = request.query.with(&[("marker", marker), ("page_reverse", reverse)]).encode();
            json!({"rel": rel, "href": format!("{}/{}?{query}", request.base_url, self.name)})
        };
        if next {
            links.push(link("next", &id(views.last()), "False"));
        }
        if previous {
            links.push(link("previous", &id(views.first()), "True"));
        }
        links
    }
}

fn limit(query: &Query, max: Option<usize>) -> Result<Option<usize>, ApiError> {
    let Some(text) = query.get("limit").filter(|text| !text.is_empty()) else { return Ok(max) };
    let number: Option<usize> = text.parse().ok();
    let shown: String = text.chars().take(32).collect();
    let number = number.ok_or_else(|| {
        named(400, "HTTPBadRequest", format!("Invalid input for limit. Reason: '{shown}' should be an integer >= 0."))
    })?;
    // 0 asks for all that may be had.
    Ok(if number == 0 { max } else { Some(max.map_or(number, |max| number.min(max))) })
}

impl<F> Listing<F> {
    fn fits(&self, view: &Value) -> bool {
        self.rest.iter().all(|(key, values)| {
            let text = match &view[key.as_str()] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            values.contains(&text)
        })
    }
}

/// A marker that leads nowhere is the client's mistake.
pub(super) fn bad_marker(error: nova_db::StoreError, marker: Option<&str>) -> ApiError {
    match (error, marker) {
        (nova_db::StoreError::NotFound { .. }, Some(marker)) => {
            let marker: String = marker.chars().take(64).collect();
            named(404, "HTTPNotFound", format!("marker [{marker}] could not be found"))
        }
        (other, _) => other.into(),
    }
}
