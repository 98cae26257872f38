//! `POST /servers/{id}/action`: the body's one key says what is to be done.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::{ApiError, HandlerResult, Request, Resource, Route, ServerAction, route};

/// All server actions by key, those of builders included.
pub struct Actions {
    by_key: BTreeMap<&'static str, Vec<ServerAction>>,
    not_offered: &'static [&'static str],
}

impl Actions {
    /// A table of these actions; one key may stand for several, at different versions. Keys that are `not_offered` answer
    /// 404 as a path that is not there; every other unknown key is a mistake in the body.
    pub fn new(actions: &[ServerAction], not_offered: &'static [&'static str]) -> Self {
        let mut by_key: BTreeMap<&'static str, Vec<ServerAction>> = BTreeMap::new();
        for action in actions {
            by_key.entry(action.key).or_default().push(action.clone());
        }
        Self { by_key, not_offered }
    }

    async fn dispatch(self: Arc<Self>, mut request: Request) -> HandlerResult {
        let body = request.json().await?;
        let malformed = || ApiError::bad_request("Malformed request body");
        let map = body.as_object().filter(|map| map.len() == 1).ok_or_else(malformed)?;
        let (key, content) = map.iter().next().ok_or_else(malformed)?;
        let action = self.find(key, request.version.0)?;
        (action.handler)(request, content.clone()).await
    }

    fn find(&self, key: &str, version: u16) -> Result<&ServerAction, ApiError> {
        match self.by_key.get(key) {
            Some(actions) => {
                let offered = actions.iter().find(|action| action.versions.contains(&version));
                offered.ok_or_else(ApiError::no_such_resource)
            }
            None if self.not_offered.contains(&key) => Err(ApiError::no_such_resource()),
            None => {
                let shown: String = key.chars().take(255).collect();
                Err(ApiError::bad_request(format!("There is no such action: {shown}")))
            }
        }
    }
}

impl Resource for Actions {
    fn name(&self) -> &'static str {
        "server-actions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![route(Method::POST, "/servers/{id}/action", &self, Self::dispatch)]
    }
}
