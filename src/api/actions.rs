//! `POST /servers/{id}/action`: the body's one key says what is to be done.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;

use super::microversion::until;
use super::{ApiError, HandlerResult, Request, Resource, Route, ServerAction, route};

/// Actions under `/os-volumes_boot` (nova/api/openstack/compute/volumes_boot.py): those of the servers controller itself.
const OF_ALIAS: [&str; 9] = [
    "confirmResize",
    "createImage",
    "os-start",
    "os-stop",
    "reboot",
    "rebuild",
    "resize",
    "revertResize",
    "trigger_crash_dump",
];

/// All server actions by key, those of builders included.
pub struct Actions {
    by_key: BTreeMap<&'static str, Vec<ServerAction>>,
}

impl Actions {
    /// A table of these actions; one key may stand for several, at different versions. An unknown key is a
    /// mistake in the body.
    pub fn new(actions: &[ServerAction]) -> Self {
        let mut by_key: BTreeMap<&'static str, Vec<ServerAction>> = BTreeMap::new();
        for action in actions {
            by_key.entry(action.key).or_default().push(action.clone());
        }
        Self { by_key }
    }

    async fn dispatch(self: Arc<Self>, request: Request) -> HandlerResult {
        self.dispatch_if(request, |_| true).await
    }

    /// The other name of servers has only the actions that are not extensions.
    async fn dispatch_alias(self: Arc<Self>, request: Request) -> HandlerResult {
        self.dispatch_if(request, |key| OF_ALIAS.contains(&key)).await
    }

    async fn dispatch_if(&self, mut request: Request, has: fn(&str) -> bool) -> HandlerResult {
        let body = request.json().await?;
        let malformed = || ApiError::bad_request("Malformed request body");
        let map = body.as_object().filter(|map| map.len() == 1).ok_or_else(malformed)?;
        let (key, content) = map.iter().next().ok_or_else(malformed)?;
        if !has(key) {
            return Err(no_such_action(key));
        }
        let action = self.find(key, request.version.0)?;
        (action.handler)(request, content.clone()).await
    }

    fn find(&self, key: &str, version: u16) -> Result<&ServerAction, ApiError> {
        match self.by_key.get(key) {
            Some(actions) => {
                let offered = actions.iter().find(|action| action.versions.contains(&version));
                offered.ok_or_else(ApiError::no_such_resource)
            }
            None => Err(no_such_action(key)),
        }
    }
}

impl Resource for Actions {
    fn name(&self) -> &'static str {
        "server-actions"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        vec![
            route(Method::POST, "/servers/{id}/action", &self, Self::dispatch),
            route(Method::POST, "/os-volumes_boot/{id}/action", &self, Self::dispatch_alias).versions(until(102)),
        ]
    }
}

fn no_such_action(key: &str) -> ApiError {
    let shown: String = key.chars().take(255).collect();
    ApiError::bad_request(format!("There is no such action: {shown}"))
}
