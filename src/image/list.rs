//! `GET /v2/images`: filters, order and pages.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use jiff::Timestamp;
use nova_core::context::RequestContext;
use nova_core::ids::ImageId;
use nova_core::image::{Image, ImageStatus, MemberStatus, Visibility};

use super::attributes::visibility_named;
use super::{ImageOptions, policy};
use crate::api::{ApiError, Query, parse_bool};

/// Keys that say how to list, not what.
const MANNERS: [&str; 7] = ["limit", "marker", "sort", "sort_key", "sort_dir", "member_status", "page_reverse"];
const SORT_KEYS: [&str; 9] =
    ["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at", "min_disk"];
/// Values of one `in:` at most.
const MOST_VALUES: usize = 1000;

/// What a client asks for.
#[derive(Debug)]
pub(super) struct Listing {
    filters: Vec<Filter>,
    visibility: Wanted,
    hidden: bool,
    /// Of shared images that the caller is a member of: those with this status, or all.
    member_status: Option<MemberStatus>,
    order: Vec<(String, Ordering)>,
    limit: usize,
    marker: Option<ImageId>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// No visibility was asked for.
    Usual,
    All,
    One(Visibility),
}

#[derive(Debug)]
enum Filter {
    Any(String, BTreeSet<String>),
    Tag(String),
    Protected(bool),
    SizeMin(u64),
    SizeMax(u64),
    Time { updated: bool, compare: Compare, time: Timestamp },
}

#[derive(Debug, Clone, Copy)]
enum Compare {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
}

impl Listing {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 names the key.
    pub(super) fn parse(query: &Query, options: &ImageOptions) -> Result<Self, ApiError> {
        let paging = query.paging(options.max_limit)?;
        let asked = query.get("limit").is_some_and(|text| !text.is_empty());
        let limit = if asked { paging.limit } else { options.default_limit.min(options.max_limit) };
        let marker = match paging.marker.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| bad_marker(text))?),
        };
        let mut listing = Self {
            filters: Vec::new(),
            visibility: Wanted::Usual,
            hidden: false,
            member_status: member_status(query)?,
            order: order(query)?,
            limit,
            marker,
        };
        for (key, value) in query.pairs().iter().filter(|(key, _)| !MANNERS.contains(&key.as_str())) {
            listing.add_filter(key, value)?;
        }
        Ok(listing)
    }

    fn add_filter(&mut self, key: &str, value: &str) -> Result<(), ApiError> {
        let wrong = || ApiError::bad_request(format!("Invalid value for filter '{key}'."));
        match key {
            "visibility" if value == "all" => self.visibility = Wanted::All,
            "visibility" => self.visibility = Wanted::One(visibility_named(value).ok_or_else(wrong)?),
            "os_hidden" => self.hidden = parse_bool(value).ok_or_else(wrong)?,
            "protected" => self.filters.push(Filter::Protected(parse_bool(value).ok_or_else(wrong)?)),
            "tag" => self.filters.push(Filter::Tag(value.to_owned())),
            "size_min" => self.filters.push(Filter::SizeMin(value.parse().map_err(|_| wrong())?)),
            "size_max" => self.filters.push(Filter::SizeMax(value.parse().map_err(|_| wrong())?)),
            "created_at" | "updated_at" => self.filters.push(time_filter(key, value).ok_or_else(wrong)?),
            "status" => {
                let words = values(value).ok_or_else(wrong)?;
                if !words.iter().all(|word| is_status(word)) {
                    return Err(ApiError::bad_request(format!("Invalid status value: {value}")));
                }
                self.filters.push(Filter::Any(key.to_owned(), words));
            }
            "id" | "name" | "container_format" | "disk_format" => {
                self.filters.push(Filter::Any(key.to_owned(), values(value).ok_or_else(wrong)?));
            }
            // Any property is compared whole.
            _ => self.filters.push(Filter::Any(key.to_owned(), BTreeSet::from([value.to_owned()]))),
        }
        Ok(())
    }

    /// The page, and the marker of the next if there is one.
    ///
    /// # Errors
    /// 400 for a marker that the caller cannot see.
    pub(super) fn page(
        &self,
        context: &RequestContext,
        images: Vec<Image>,
    ) -> Result<(Vec<Image>, Option<ImageId>), ApiError> {
        if let Some(marker) = self.marker
            && !images.iter().any(|image| image.id == marker && policy::may_see(context, image))
        {
            return Err(bad_marker(&marker.to_string()));
        }
        let mut found = images;
        // The marker itself may not pass the filters any more; it keeps its place in the order.
        found.retain(|image| Some(image.id) == self.marker || self.passes(context, image));
        found.sort_by(|a, b| self.compare(a, b));
        if let Some(at) = found.iter().position(|image| Some(image.id) == self.marker) {
            found.drain(..=at);
        }
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        let next = if more { found.last().map(|image| image.id) } else { None };
        Ok((found, next))
    }

    fn passes(&self, context: &RequestContext, image: &Image) -> bool {
        let visible = match self.visibility {
            Wanted::Usual => policy::is_listed(context, image),
            Wanted::All => policy::may_see(context, image),
            Wanted::One(visibility) => image.visibility == visibility && policy::may_see(context, image),
        };
        visible
            && policy::fits_member(context, image, self.member_status)
            && image.os_hidden == self.hidden
            && self.filters.iter().all(|filter| filter.passes(image))
    }

    fn compare(&self, a: &Image, b: &Image) -> Ordering {
        for (key, direction) in &self.order {
            let order = match key.as_str() {
                "name" => a.name.cmp(&b.name),
                "status" => a.status.as_str().cmp(b.status.as_str()),
                "container_format" => a.container_format.cmp(&b.container_format),
                "disk_format" => a.disk_format.cmp(&b.disk_format),
                "size" => a.size.cmp(&b.size),
                "min_disk" => a.min_disk.cmp(&b.min_disk),
                "updated_at" => a.updated_at.cmp(&b.updated_at),
                "id" => a.id.cmp(&b.id),
                _ => a.created_at.cmp(&b.created_at),
            };
            let order = if *direction == Ordering::Less { order } else { order.reverse() };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    }
}

impl Filter {
    fn passes(&self, image: &Image) -> bool {
        match self {
            Self::Any(key, wanted) => text_of(image, key).is_some_and(|text| wanted.contains(&text)),
            Self::Tag(tag) => image.tags.contains(tag),
            Self::Protected(wanted) => image.protected == *wanted,
            Self::SizeMin(least) => image.size.unwrap_or(0) >= *least,
            Self::SizeMax(most) => image.size.unwrap_or(0) <= *most,
            Self::Time { updated, compare, time } => {
                let own = if *updated { image.updated_at } else { image.created_at };
                // Clients see whole seconds.
                compare.holds(own.as_second().cmp(&time.as_second()))
            }
        }
    }
}

impl Compare {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::NotEqual => order != Ordering::Equal,
        }
    }
}

/// What a filter compares with: attributes first, as their names cannot be properties.
fn text_of(image: &Image, key: &str) -> Option<String> {
    match key {
        "id" => Some(image.id.to_string()),
        "name" => image.name.clone(),
        "status" => Some(image.status.as_str().to_owned()),
        "owner" => Some(image.owner.to_string()),
        "disk_format" => image.disk_format.clone(),
        "container_format" => image.container_format.clone(),
        "checksum" => image.checksum.clone(),
        "os_hash_value" => image.os_hash_value.clone(),
        "size" => image.size.map(|size| size.to_string()),
        "virtual_size" => image.virtual_size.map(|size| size.to_string()),
        "min_ram" => Some(image.min_ram.to_string()),
        "min_disk" => Some(image.min_disk.to_string()),
        _ => image.properties.get(key).cloned(),
    }
}

fn is_status(word: &str) -> bool {
    use ImageStatus::{Active, Deactivated, Deleted, Killed, Queued, Saving};
    let known = [Queued, Saving, Active, Killed, Deactivated, Deleted];
    known.iter().any(|status| status.as_str() == word) || ["pending_delete", "uploading", "importing"].contains(&word)
}

/// `x`, or `in:a,"b,c",d`.
fn values(text: &str) -> Option<BTreeSet<String>> {
    let Some(list) = text.strip_prefix("in:") else { return Some(BTreeSet::from([text.to_owned()])) };
    let (mut values, mut word, mut quoted) = (BTreeSet::new(), String::new(), false);
    for letter in list.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                values.insert(std::mem::take(&mut word));
            }
            other => word.push(other),
        }
    }
    values.insert(word);
    (!quoted && values.len() <= MOST_VALUES).then_some(values)
}

/// `member_status`: accepted ones unless something else is asked for.
fn member_status(query: &Query) -> Result<Option<MemberStatus>, ApiError> {
    match query.get("member_status") {
        None | Some("accepted") => Ok(Some(MemberStatus::Accepted)),
        Some("pending") => Ok(Some(MemberStatus::Pending)),
        Some("rejected") => Ok(Some(MemberStatus::Rejected)),
        Some("all") => Ok(None),
        Some(other) => Err(ApiError::BadRequest(format!(
            "Member status must be one of pending, accepted, rejected, all; it is '{other}'."
        ))),
    }
}

/// `2026-11-22T08:00:00Z`, or `gte:…` and its kin before it.
fn time_filter(key: &str, value: &str) -> Option<Filter> {
    let operators = [
        ("gte:", Compare::GreaterOrEqual),
        ("gt:", Compare::Greater),
        ("lte:", Compare::LessOrEqual),
        ("lt:", Compare::Less),
        ("eq:", Compare::Equal),
        ("neq:", Compare::NotEqual),
    ];
    let found = operators.iter().find_map(|(prefix, compare)| value.strip_prefix(prefix).map(|rest| (*compare, rest)));
    let (compare, text) = found.unwrap_or((Compare::Equal, value));
    let time = text.parse().or_else(|_| format!("{text}Z").parse()).ok()?;
    Some(Filter::Time { updated: key == "updated_at", compare, time })
}

/// `sort=name:asc,size`, or `sort_key` and `sort_dir`, as often as one likes; then newest first.
fn order(query: &Query) -> Result<Vec<(String, Ordering)>, ApiError> {
    let mut order = Vec::new();
    let keys: Vec<&str> = query.all("sort_key").collect();
    let directions: Vec<&str> = query.all("sort_dir").collect();
    if let Some(sort) = query.get("sort") {
        if !keys.is_empty() || !directions.is_empty() {
            return Err(ApiError::bad_request("Old and new sorting syntax cannot be combined"));
        }
        for item in sort.split(',') {
            let (key, direction) = item.split_once(':').unwrap_or((item, "desc"));
            order.push(order_item(key.trim(), direction.trim())?);
        }
    } else {
        if directions.len() > 1 && directions.len() != keys.len() {
            return Err(ApiError::bad_request("Number of sort dirs does not match the number of sort keys"));
        }
        let keys = if keys.is_empty() { vec!["created_at"] } else { keys };
        for (index, key) in keys.into_iter().enumerate() {
            let direction = directions.get(index).or_else(|| directions.first()).copied().unwrap_or("desc");
            order.push(order_item(key, direction)?);
        }
    }
    if order.len() > SORT_KEYS.len() {
        return Err(ApiError::bad_request("There are more sort keys than attributes."));
    }
    let last = order.last().map_or(Ordering::Greater, |(_, direction)| *direction);
    order.extend([("created_at".to_owned(), last), ("id".to_owned(), last)]);
    Ok(order)
}

fn order_item(key: &str, direction: &str) -> Result<(String, Ordering), ApiError> {
    if !SORT_KEYS.contains(&key) {
        return Err(ApiError::bad_request(format!(
            "Invalid sort key: {key}. It must be one of {}.",
            SORT_KEYS.join(", ")
        )));
    }
    match direction {
        "asc" => Ok((key.to_owned(), Ordering::Less)),
        "desc" => Ok((key.to_owned(), Ordering::Greater)),
        _ => Err(ApiError::bad_request(format!("Invalid sort direction: {direction}. It must be asc or desc."))),
    }
}

/// The same list from that image on.
pub(super) fn link(query: &Query, marker: Option<ImageId>) -> String {
    let marker = marker.map(|id| ("marker".to_owned(), id.to_string()));
    let pairs = query.pairs().iter().filter(|(key, _)| key != "marker").cloned().chain(marker);
    let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if text.is_empty() { "/v2/images".to_owned() } else { format!("/v2/images?{text}") }
}

fn bad_marker(text: &str) -> ApiError {
    ApiError::bad_request(format!("Marker {text} could not be found."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_values_may_be_quoted() {
        let set = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(values("a,b"), set(&["a,b"]));
        assert_eq!(values("in:a,b"), set(&["a", "b"]));
        assert_eq!(values("in:\"a,b\",c"), set(&["a,b", "c"]));
        assert_eq!(values("in:\"a"), None);
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let options = ImageOptions::new("/nowhere");
        let bad = [
            "limit=-1",
            "limit=x",
            "marker=x",
            "sort_key=secret",
            "sort_dir=up",
            "sort=name:up",
            "sort=name&sort_key=name",
            "sort_key=name&sort_dir=asc&sort_dir=desc",
            "visibility=secret",
            "member_status=perhaps",
            "status=unheard",
            "status=in:active,unheard",
            "size_min=x",
            "protected=perhaps",
            "created_at=yesterday",
            "updated_at=gt:1",
        ];
        for text in bad {
            let error = Listing::parse(&Query::parse(text), &options).unwrap_err();
            assert!(matches!(error, ApiError::BadRequest(_)), "{text}");
        }
    }
}
