//! One outside service, asked with tokens of its Keystone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::ProjectId;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::transport::{Place, Reply, Sending, Transport, TransportError};
use super::{Account, OutsideError};

type Result<T> = std::result::Result<T, OutsideError>;

/// Pages of one list at most.
const PAGES: usize = 1000;
/// Before any try.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A token that ends sooner is not used any more.
const SPARE: SignedDuration = SignedDuration::from_secs(60);
/// Tokens that are kept; with more projects than this, some log in again.
const TOKENS: usize = 256;
/// What stands for the token's project in a configured URL.
const PROJECT: &str = "%(project_id)s";

/// What is asked.
pub(crate) struct Service {
    /// For people: `Neutron`.
    pub(crate) name: &'static str,
    /// As catalogs list it, the first that is there.
    pub(crate) types: &'static [&'static str],
    /// The option that says who gives tokens, and the one that says where the service is.
    pub(crate) options: [&'static str; 2],
    /// What its paths begin with, by what the endpoint's URL says.
    pub(crate) base: fn(&str) -> String,
    /// Where it is; `None`: as the catalog says. `%(project_id)s` stands for the token's project.
    pub(crate) endpoint: Option<String>,
}

/// In which project it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The service user's own.
    Own,
    /// This one: the service user needs a role there.
    Of(ProjectId),
}

/// A question.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) scope: &'a Scope,
    /// The microversion, as `volume 3.44`.
    pub(crate) version: Option<&'static str>,
}

impl Default for Ask<'static> {
    fn default() -> Self {
        Self { scope: &Scope::Own, version: None }
    }
}

/// What a token gives.
struct Token {
    text: HeaderValue,
    expires: Timestamp,
    endpoint: Place,
}

/// The way to one service.
pub(crate) struct Session {
    service: Service,
    account: Account,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    transport: Transport,
    auth: Place,
    tokens: Mutex<BTreeMap<Scope, Arc<Token>>>,
}

impl Session {
    pub(crate) fn new(
        service: Service,
        account: Account,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let auth = place(service.options[0], &account.auth_url)?;
        if let Some(url) = &service.endpoint {
            place(service.options[1], &url.replace(PROJECT, "p"))?;
        }
        let transport = Transport::new(account.connect_timeout, account.timeout);
        Ok(Self { service, account, clock, entropy, transport, auth, tokens: Mutex::default() })
    }

    /// One request, tried again where that does no harm; a token that does not count is renewed once.
    pub(crate) async fn ask(&self, how: Ask<'_>, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let repeatable = method != Method::POST;
        let (mut renewed, mut tries) = (false, 0);
        loop {
            let token = self.token(how.scope).await?;
            let whole = format!("{}{path}", token.endpoint.path);
            let sending = Sending {
                method: method.clone(),
                path: &whole,
                token: Some(&token.text),
                version: how.version,
                body: body.clone(),
            };
            let trouble = match self.transport.send(&token.endpoint, sending).await {
                Ok(reply) if reply.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.forget(how.scope, &token).await;
                    continue;
                }
                Ok(reply) if reply.status.is_success() => return self.parse(path, &reply),
                Ok(reply) => {
                    // Turned away before anything was done, or by a proxy that does not know.
                    let turned_away =
                        [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&reply.status);
                    let passing = [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT].contains(&reply.status);
                    let error = OutsideError::refused(self.service.name, &reply);
                    if turned_away || (passing && repeatable) { error } else { return Err(error) }
                }
                Err(error @ TransportError::Unclear { .. }) if !repeatable => return Err(self.unavailable(error)),
                Err(error) => self.unavailable(error),
            };
            if tries >= self.account.retries {
                return Err(trouble);
            }
            tracing::warn!(%method, path, "asked again: {}", chain(&trouble));
            self.wait(tries).await;
            tries += 1;
        }
    }

    /// All items of a list, page after page.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        how: Ask<'_>,
        collection: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>> {
        let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let mut path = format!("/{collection}?{text}");
        let mut items = Vec::new();
        for _ in 0..PAGES {
            let mut page = self.ask(how, Method::GET, &path, None).await?;
            let next = page.get(format!("{key}_links")).and_then(|links| {
                let next = links.as_array()?.iter().find(|link| link["rel"] == "next")?;
                next["href"].as_str()?.split_once('?').map(|(_, query)| format!("/{collection}?{query}"))
            });
            let part: Vec<T> = self.read(&path, page.take(), key)?;
            let last = part.is_empty();
            items.extend(part);
            match next.filter(|_| !last) {
                Some(next) => path = next,
                None => return Ok(items),
            }
        }
        Err(self.malformed(&path, "the list does not end"))
    }

    /// What is under one key of an answer.
    pub(crate) fn read<T: DeserializeOwned>(&self, what: &str, mut answer: Value, key: &str) -> Result<T> {
        let value = answer.get_mut(key).map(Value::take).unwrap_or_default();
        serde_json::from_value(value).map_err(|error| self.malformed(what, error))
    }

    /// The answer cannot be used.
    pub(crate) fn malformed(&self, what: &str, source: impl Into<nova_core::contracts::BoxError>) -> OutsideError {
        OutsideError::Malformed { service: self.service.name, what: what.to_owned(), source: source.into() }
    }

    fn unavailable(&self, error: TransportError) -> OutsideError {
        OutsideError::unavailable(self.service.name, error)
    }

    fn parse(&self, what: &str, reply: &Reply) -> Result<Value> {
        if reply.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&reply.body).map_err(|error| self.malformed(what, error))
    }

    async fn wait(&self, tries: u32) {
        let wait = self.account.first_wait.saturating_mul(1 << tries.min(16)).min(LONGEST_WAIT);
        let half = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX) / 2;
        sleep(Duration::from_micros(half + self.entropy.below(half + 1))).await;
    }

    async fn forget(&self, scope: &Scope, token: &Arc<Token>) {
        let mut held = self.tokens.lock().await;
        if held.get(scope).is_some_and(|held| Arc::ptr_eq(held, token)) {
            held.remove(scope);
        }
    }

    /// The token; of several callers that find none, one gets it.
    async fn token(&self, scope: &Scope) -> Result<Arc<Token>> {
        let mut held = self.tokens.lock().await;
        let soon = self.clock.now().checked_add(SPARE).unwrap_or(Timestamp::MAX);
        if let Some(token) = held.get(scope).filter(|token| token.expires > soon) {
            return Ok(token.clone());
        }
        let mut tries = 0;
        let token = loop {
            match self.log_in(scope).await {
                Ok(token) => break Arc::new(token),
                // A login may be repeated.
                Err(error) if tries < self.account.retries && error.is_passing() => {
                    tracing::warn!("identity is asked again: {}", chain(&error));
                    self.wait(tries).await;
                    tries += 1;
                }
                Err(error) => {
                    return Err(OutsideError::Unavailable { service: self.service.name, source: error.into() });
                }
            }
        };
        held.retain(|_, token| token.expires > soon);
        while held.len() >= TOKENS {
            held.pop_last();
        }
        held.insert(scope.clone(), token.clone());
        Ok(token)
    }

    async fn log_in(&self, scope: &Scope) -> Result<Token> {
        let account = &self.account;
        let user = json!({
            "name": account.username, "password": account.password, "domain": {"name": account.user_domain_name},
        });
        let project = match scope {
            Scope::Own => json!({"name": account.project_name, "domain": {"name": account.project_domain_name}}),
            Scope::Of(id) => json!({ "id": id }),
        };
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }});
        let base = self.auth.path.strip_suffix("/v3").unwrap_or(&self.auth.path);
        let path = format!("{base}/v3/auth/tokens");
        let body = Bytes::from(body.to_string());
        let sending = Sending { method: Method::POST, path: &path, token: None, version: None, body };
        let reply = self.transport.send(&self.auth, sending).await.map_err(|error| self.unavailable(error))?;
        if !reply.status.is_success() {
            return Err(OutsideError::refused("Keystone", &reply));
        }
        let malformed = |why: &str| self.malformed(&path, why);
        let mut text = reply.headers.get("x-subject-token").cloned().ok_or_else(|| malformed("there is no token"))?;
        text.set_sensitive(true);
        let document = self.parse(&path, &reply)?;
        let token = &document["token"];
        let expires = token["expires_at"].as_str().and_then(|time| time.parse().ok());
        let expires = expires.ok_or_else(|| malformed("it does not say when the token ends"))?;
        let endpoint = match &self.service.endpoint {
            Some(url) => {
                let project = token["project"]["id"].as_str().unwrap_or_default();
                place(self.service.options[1], &url.replace(PROJECT, project))?
            }
            None => {
                let url = endpoint_of(&token["catalog"], self.service.types, &account.region_name);
                let types = self.service.types.join(" or ");
                let url = url.ok_or_else(|| malformed(&format!("its catalog has no endpoint of type {types}")))?;
                place("the catalog's endpoint", url)?
            }
        };
        let endpoint = endpoint.at((self.service.base)(&endpoint.path));
        Ok(Token { text, expires, endpoint })
    }
}

/// Where the service is: for services first, as Nova's `valid_interfaces`.
fn endpoint_of<'c>(catalog: &'c Value, types: &[&str], region: &str) -> Option<&'c str> {
    let services = catalog.as_array()?;
    let here =
        |endpoint: &&&Value| region.is_empty() || endpoint["region"] == region || endpoint["region_id"] == region;
    types.iter().find_map(|wanted| {
        let of_type = services.iter().filter(|service| service["type"] == *wanted);
        let endpoints: Vec<&Value> = of_type.filter_map(|service| service["endpoints"].as_array()).flatten().collect();
        ["internal", "public"].iter().find_map(|interface| {
            let fits = |endpoint: &&&Value| endpoint["interface"] == *interface && here(endpoint);
            endpoints.iter().find(fits)?["url"].as_str()
        })
    })
}

fn place(option: &'static str, url: &str) -> Result<Place> {
    Place::parse(url).ok_or_else(|| OutsideError::Url { option, url: url.to_owned() })
}
