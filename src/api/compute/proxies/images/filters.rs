//! Which images a list shows.

use jiff::Timestamp;
use nova_core::image::Image;

use super::view::shown_status;
use crate::api::compute::input::invalid_query;
use crate::api::compute::servers::parse_time;
use crate::api::{ApiError, Query};

/// What the query asks for; keys that are not known were always ignored.
#[derive(Debug, Default)]
pub(super) struct Filters {
    name: Option<String>,
    status: Option<String>,
    server: Option<String>,
    kind: Option<String>,
    min_ram: Option<u64>,
    min_disk: Option<u64>,
    changes_since: Option<Timestamp>,
    properties: Vec<(String, String)>,
}

impl Filters {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 for a time or number that is none.
    pub(super) fn read(query: &Query) -> Result<Self, ApiError> {
        let text = |key: &str| query.get(key).map(str::to_owned);
        let number = |key: &str| {
            let parse = |text: &str| {
                text.parse().map_err(|_| invalid_query(key, text, &format!("'{text}' does not match '^[0-9]*$'")))
            };
            query.get(key).map(parse).transpose()
        };
        let time = |text: &str| {
            parse_time(text)
                .ok_or_else(|| invalid_query("changes-since", text, &format!("'{text}' is not a 'date-time'")))
        };
        // A server may be named by its URL.
        let id = |text: String| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let property = |(key, value): &(String, String)| {
            key.strip_prefix("property-").map(|name| (name.to_owned(), value.clone()))
        };
        Ok(Self {
            name: text("name"),
            status: text("status"),
            server: text("server").map(id),
            kind: text("type"),
            min_ram: number("minRam")?,
            min_disk: number("minDisk")?,
            changes_since: query.get("changes-since").map(time).transpose()?,
            properties: query.pairs().iter().filter_map(property).collect(),
        })
    }

    /// Is the image one of those?
    pub(super) fn accept(&self, image: &Image) -> bool {
        let property = |name: &str| image.properties.get(name).map(String::as_str);
        let is = |wanted: &Option<String>, value: Option<&str>| wanted.as_deref().is_none_or(|w| value == Some(w));
        is(&self.name, image.name.as_deref())
            && self.status.as_ref().is_none_or(|status| shown_status(image.status).eq_ignore_ascii_case(status))
            && is(&self.server, property("instance_uuid"))
            // What was no snapshot was uploaded: a base to make servers of.
            && is(&self.kind, Some(property("image_type").unwrap_or("base")))
            && self.min_ram.is_none_or(|wanted| image.min_ram == wanted)
            && self.min_disk.is_none_or(|wanted| image.min_disk == wanted)
            && self.changes_since.is_none_or(|since| image.updated_at >= since)
            && self.properties.iter().all(|(name, value)| property(name) == Some(value))
    }
}
