//! Links in bodies (nova/api/openstack/common.py, `ViewBuilder`).

use serde_json::{Value, json};

use crate::api::Request;

/// The version segments that a bookmark leaves out.
const VERSIONS: [&str; 2] = ["/v2.1", "/v2"];

/// `self` and `bookmark` of one thing.
pub fn links(base_url: &str, collection: &str, id: &str) -> Value {
    json!([
        {"rel": "self", "href": format!("{base_url}/{collection}/{id}")},
        {"rel": "bookmark", "href": bookmark(base_url, collection, id)},
    ])
}

/// The link that holds at every version.
pub fn bookmark(base_url: &str, collection: &str, id: &str) -> String {
    format!("{}/{collection}/{id}", unversioned(base_url))
}

/// Only the bookmark, as references to other things have it.
pub fn bookmark_only(base_url: &str, collection: &str, id: &str) -> Value {
    json!([{"rel": "bookmark", "href": bookmark(base_url, collection, id)}])
}

/// The link to the next page, if this one is full: `last` is its last item's id, `limit` what the page could hold.
pub fn next_links(
    request: &Request,
    collection: &str,
    count: usize,
    limit: usize,
    last: Option<&str>,
) -> Option<Value> {
    let last = last.filter(|_| limit > 0 && count >= limit)?;
    let query = request.query.with(&[("marker", last)]).encode();
    Some(json!([{"rel": "next", "href": format!("{}/{collection}?{query}", request.base_url)}]))
}

fn unversioned(base_url: &str) -> String {
    for version in VERSIONS {
        if let Some((root, rest)) = base_url.rsplit_once(version)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("{root}{rest}");
        }
    }
    base_url.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_have_no_version_but_keep_the_project() {
        let link = bookmark("http://h:8774/compute/v2.1", "servers", "1");
        assert_eq!(link, "http://h:8774/compute/servers/1");
        assert_eq!(bookmark("http://h/compute/v2/abc", "flavors", "1"), "http://h/compute/abc/flavors/1");
        assert_eq!(bookmark("http://h/v2.1/compute", "x", "1"), "http://h/compute/x/1");
    }
}
