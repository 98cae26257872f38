//! Filters, order and pages of flavor lists (nova/api/openstack/compute/flavors.py, `_get_flavors`).

use std::cmp::Ordering;

use nova_core::context::RequestContext;
use nova_core::flavor::Flavor;
use regex::RegexBuilder;

use crate::api::compute::input::{invalid_query, strict_query};
use crate::api::{ApiError, Paging, Request, parse_bool};

/// Columns that a list may be sorted by; those of Nova's table.
const SORT_KEYS: [&str; 15] = [
    "created_at",
    "description",
    "disabled",
    "ephemeral_gb",
    "flavorid",
    "id",
    "is_public",
    "memory_mb",
    "name",
    "root_gb",
    "rxtx_factor",
    "swap",
    "updated_at",
    "vcpu_weight",
    "vcpus",
];

/// What a list request asks for.
#[derive(Debug)]
pub struct ListQuery {
    is_public: Option<bool>,
    with_disabled: bool,
    min_ram: Option<i64>,
    min_disk: Option<i64>,
    name: Option<regex::Regex>,
    sort_key: String,
    descending: bool,
    paging: Paging,
}

impl ListQuery {
    /// Reads a query. Who is no administrator sees public flavors and those that are shared with their project, whatever
    /// they ask for.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn parse(request: &Request, context: &RequestContext, max_limit: usize) -> Result<Self, ApiError> {
        let query = &request.query;
        let mut known = vec!["limit", "marker", "is_public", "minRam", "minDisk", "sort_key", "sort_dir"];
        let by_name = request.version.at_least(102);
        if by_name {
            known.push("name");
        }
        strict_query(request, 75, &known)?;
        let sort_key = one_of(request, "sort_key", &SORT_KEYS)?.unwrap_or("flavorid");
        let sort_dir = one_of(request, "sort_dir", &["asc", "desc"])?.unwrap_or("asc");
        let admin = context.is_admin();
        Ok(Self {
            is_public: if admin { is_public(query.get("is_public"))? } else { Some(true) },
            with_disabled: admin,
            min_ram: integer(query.get("minRam"), "minRam")?,
            min_disk: integer(query.get("minDisk"), "minDisk")?,
            name: query.get("name").filter(|_| by_name).map(name).transpose()?,
            sort_key: sort_key.to_owned(),
            descending: sort_dir == "desc",
            paging: query.paging(max_limit)?,
        })
    }

    /// At most that many come back.
    pub fn limit(&self) -> usize {
        self.paging.limit
    }

    /// The page of these flavors that was asked for.
    ///
    /// # Errors
    /// 400 for a marker that is no flavor of which the caller may know.
    pub fn select(&self, flavors: Vec<Flavor>, context: &RequestContext) -> Result<Vec<Flavor>, ApiError> {
        let marker = match &self.paging.marker {
            None => None,
            Some(id) => {
                let known =
                    |f: &&Flavor| f.id.as_str() == id && (context.is_admin() || f.visible_to(&context.project_id));
                let found = flavors.iter().find(known).cloned();
                Some(found.ok_or_else(|| ApiError::bad_request(format!("marker [{id}] not found")))?)
            }
        };
        let mut page: Vec<Flavor> = flavors.into_iter().filter(|f| self.fits(f, context)).collect();
        page.sort_by(|a, b| self.compare(a, b));
        if let Some(marker) = marker {
            page.retain(|f| self.compare(f, &marker) == Ordering::Greater);
        }
        page.truncate(self.paging.limit);
        Ok(page)
    }

    fn fits(&self, flavor: &Flavor, context: &RequestContext) -> bool {
        let at_least =
            |minimum: Option<i64>, amount: u64| minimum.is_none_or(|m| i64::try_from(amount).unwrap_or(i64::MAX) >= m);
        let public = match self.is_public {
            None => true,
            // Public ones, and those that are shared with the caller's project.
            Some(true) => flavor.visible_to(&context.project_id),
            Some(false) => !flavor.is_public,
        };
        public
            && (self.with_disabled || !flavor.disabled)
            && at_least(self.min_ram, flavor.memory_mb)
            && at_least(self.min_disk, flavor.root_gb)
            && self.name.as_ref().is_none_or(|name| name.is_match(&flavor.name))
    }

    fn compare(&self, a: &Flavor, b: &Flavor) -> Ordering {
        let by_key = match self.sort_key.as_str() {
            "created_at" | "id" => a.created_at.cmp(&b.created_at),
            "description" => a.description.cmp(&b.description),
            "disabled" => a.disabled.cmp(&b.disabled),
            "ephemeral_gb" => a.ephemeral_gb.cmp(&b.ephemeral_gb),
            "is_public" => a.is_public.cmp(&b.is_public),
            "memory_mb" => a.memory_mb.cmp(&b.memory_mb),
            "name" => a.name.cmp(&b.name),
            "root_gb" => a.root_gb.cmp(&b.root_gb),
            "rxtx_factor" => a.rxtx_factor.total_cmp(&b.rxtx_factor),
            "swap" => a.swap_mb.cmp(&b.swap_mb),
            "updated_at" => a.updated_at.cmp(&b.updated_at),
            "vcpus" => a.vcpus.cmp(&b.vcpus),
            // `flavorid`, and `vcpu_weight`, which is null in every flavor.
            _ => Ordering::Equal,
        };
        let order = by_key.then_with(|| a.id.cmp(&b.id));
        if self.descending { order.reverse() } else { order }
    }
}

fn one_of<'a>(request: &'a Request, key: &'a str, allowed: &[&str]) -> Result<Option<&'a str>, ApiError> {
    for value in request.query.all(key) {
        if !allowed.contains(&value) {
            let list: Vec<String> = allowed.iter().map(|a| format!("'{a}'")).collect();
            return Err(invalid_query(key, value, &format!("'{value}' is not one of [{}]", list.join(", "))));
        }
    }
    Ok(request.query.get(key))
}

fn integer(text: Option<&str>, key: &str) -> Result<Option<i64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match text.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(ApiError::bad_request(format!("Invalid {key} filter [{text}]"))),
    }
}

fn is_public(text: Option<&str>) -> Result<Option<bool>, ApiError> {
    match text {
        None => Ok(Some(true)),
        Some(text) if text.trim().eq_ignore_ascii_case("none") => Ok(None),
        Some(text) => match parse_bool(text) {
            Some(truth) => Ok(Some(truth)),
            None => Err(ApiError::bad_request(format!("Invalid is_public filter [{text}]"))),
        },
    }
}

/// A regular expression that matches anywhere in the name, as in lists of servers; of bounded size.
fn name(text: &str) -> Result<regex::Regex, ApiError> {
    let bad = |_| invalid_query("name", text, &format!("'{text}' is not a regular expression"));
    RegexBuilder::new(text).case_insensitive(true).size_limit(1 << 20).build().map_err(bad)
}
