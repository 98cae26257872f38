//! Finds the route of a path: a tree of segments, literal ones before parameters.

use std::collections::BTreeMap;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{Access, Handler, Microversion, Route};

/// All routes of an application, as a tree.
#[derive(Default)]
pub(super) struct Router {
    routes: Vec<Route>,
    root: Node,
}

#[derive(Default)]
struct Node {
    literal: BTreeMap<&'static str, Node>,
    parameter: Option<Box<Node>>,
    rest: Vec<usize>,
    here: Vec<usize>,
}

/// What a path leads to.
pub(super) enum Found {
    /// To this handler.
    Handler { handler: Handler, access: Access, params: BTreeMap<String, String> },
    /// Somewhere, but not by this method, or not at this version.
    OtherMethod,
    /// Nowhere.
    Nothing,
}

impl Router {
    pub(super) fn add(&mut self, route: Route) {
        let index = self.routes.len();
        let mut node = &mut self.root;
        for segment in segments(route.path) {
            if segment.starts_with("{*") {
                node.rest.push(index);
                self.routes.push(route);
                return;
            }
            node = if segment.starts_with('{') {
                node.parameter.get_or_insert_default()
            } else {
                node.literal.entry(segment).or_default()
            };
        }
        node.here.push(index);
        self.routes.push(route);
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// The route of a path that has not been decoded yet. HEAD is answered by GET's handler.
    pub(super) fn find(&self, method: &Method, path: &str, version: Microversion) -> Found {
        let parts: Vec<&str> = segments(path).collect();
        let mut candidates = Vec::new();
        collect(&self.root, &parts, &mut candidates);
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        for index in &candidates {
            let route = &self.routes[*index];
            if route.method == *wanted && route.offered_at(version) {
                return match params(route.path, &parts) {
                    Some(params) => {
                        Found::Handler { handler: route.handler.clone(), access: route.access.clone(), params }
                    }
                    None => Found::Nothing,
                };
            }
        }
        if candidates.is_empty() { Found::Nothing } else { Found::OtherMethod }
    }
}

/// Segments after the first slash; the empty path has none, `/` has one that is empty.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let rest = path.strip_prefix('/');
    rest.into_iter().flat_map(|rest| rest.split('/'))
}

/// All routes that the path fits, best first.
fn collect(node: &Node, parts: &[&str], out: &mut Vec<usize>) {
    let Some((first, others)) = parts.split_first() else {
        out.extend(&node.here);
        return;
    };
    if let Some(next) = node.literal.get(first) {
        collect(next, others, out);
    }
    if let Some(next) = node.parameter.as_ref().filter(|_| !first.is_empty()) {
        collect(next, others, out);
    }
    out.extend(&node.rest);
}

/// What the parameters stand for; `None` if one is not UTF-8 or has a NUL, which names nothing.
fn params(pattern: &str, parts: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    for (index, segment) in segments(pattern).enumerate() {
        let Some(name) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) else { continue };
        let (name, raw) = match name.strip_prefix('*') {
            Some(name) => (name, parts.get(index..)?.join("/")),
            None => (name, (*parts.get(index)?).to_owned()),
        };
        let text = percent_decode_str(&raw).decode_utf8().ok().filter(|text| !text.contains('\0'))?;
        params.insert(name.to_owned(), text.into_owned());
    }
    Some(params)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::microversion::{since, until};
    use crate::api::{Request, Response, route};

    fn router(routes: &[(Method, &'static str)]) -> Router {
        let mut router = Router::default();
        for (method, path) in routes {
            router.add(route(method.clone(), path, &Arc::new(()), |_, _: Request| async {
                Ok(Response::empty(http::StatusCode::OK))
            }));
        }
        router
    }

    fn found(router: &Router, method: Method, path: &str) -> Option<BTreeMap<String, String>> {
        match router.find(&method, path, Microversion(1)) {
            Found::Handler { params, .. } => Some(params),
            _ => None,
        }
    }

    #[test]
    fn literal_segments_win_and_empty_ones_are_no_parameters() {
        let router = router(&[(Method::GET, "/servers/{id}"), (Method::GET, "/servers/detail"), (Method::GET, "")]);
        assert_eq!(found(&router, Method::GET, "/servers/detail"), Some(BTreeMap::new()));
        let id = found(&router, Method::GET, "/servers/a%2Fb").unwrap();
        assert_eq!(id["id"], "a/b");
        assert!(found(&router, Method::GET, "/servers/").is_none());
        assert!(found(&router, Method::GET, "").is_some());
        assert!(found(&router, Method::GET, "/").is_none());
        assert!(found(&router, Method::GET, "/servers/%ff").is_none());
    }

    #[test]
    fn a_known_path_tells_a_wrong_method() {
        let router = router(&[(Method::GET, "/servers")]);
        assert!(matches!(router.find(&Method::PUT, "/servers", Microversion(1)), Found::OtherMethod));
        assert!(matches!(router.find(&Method::GET, "/nothing", Microversion(1)), Found::Nothing));
        assert!(found(&router, Method::HEAD, "/servers").is_some());
    }

    #[test]
    fn versions_choose_among_routes_of_one_path() {
        let mut router = Router::default();
        for (versions, status) in [(until(52), 200), (since(53), 204)] {
            let handler =
                move |_, _: Request| async move { Ok(Response::empty(http::StatusCode::from_u16(status).unwrap())) };
            router.add(route(Method::GET, "/x", &Arc::new(()), handler).versions(versions));
        }
        router.add(
            route(Method::GET, "/old", &Arc::new(()), |_, _: Request| async {
                Ok(Response::empty(http::StatusCode::OK))
            })
            .versions(until(35)),
        );
        assert!(matches!(router.find(&Method::GET, "/x", Microversion(1)), Found::Handler { .. }));
        assert!(matches!(router.find(&Method::GET, "/x", Microversion(60)), Found::Handler { .. }));
        assert!(matches!(router.find(&Method::GET, "/old", Microversion(36)), Found::OtherMethod));
    }
}
