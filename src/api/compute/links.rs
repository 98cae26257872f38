//! The links that every listed thing carries (nova/api/openstack/common.py, `ViewBuilder`).

use serde_json::{Value, json};

use crate::api::Request;

/// `self` and `bookmark` of one thing. The bookmark leaves out the version.
pub fn links(base_url: &str, collection: &str, id: &str) -> Value {
    json!([
        {"rel": "self", "href": format!("{base_url}/{collection}/{id}")},
        {"rel": "bookmark", "href": format!("{}/{collection}/{id}", without_version(base_url))},
    ])
}

/// The link to the page behind a full one, under its usual key; empty after a page that is not full.
pub fn next_links(request: &Request, collection: &str, page: usize, limit: usize, last_id: Option<&str>) -> Option<Value> {
    let last = last_id.filter(|_| limit > 0 && page >= limit)?;
    let query = request.query.with(&[("marker", last)]).encode();
    Some(json!([{"rel": "next", "href": format!("{}/{collection}?{query}", request.base_url)}]))
}

fn without_version(base_url: &str) -> &str {
    match base_url.rsplit_once('/') {
        Some((root, last)) if last.starts_with('v') && last[1..].starts_with(|c: char| c.is_ascii_digit()) => root,
        _ => base_url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_have_no_version() {
        let both = links("http://h:8774/compute/v2.1", "flavors", "1");
        assert_eq!(both[0]["href"], "http://h:8774/compute/v2.1/flavors/1");
        assert_eq!(both[1]["href"], "http://h:8774/compute/flavors/1");
        assert_eq!(links("http://h/compute", "flavors", "1")[1]["href"], "http://h/compute/flavors/1");
    }
}
