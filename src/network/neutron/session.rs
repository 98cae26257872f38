//! Asking Neutron as the service user: tokens, retries, pages, and what errors mean.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::network::NetworkServiceError;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::NeutronOptions;
use super::transport::{Place, Reply, Transport, TransportError};

/// Pages of one list at most.
const PAGES: usize = 1000;
/// Before any try.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// A token that ends sooner is not used any more.
const SPARE: SignedDuration = SignedDuration::from_secs(60);

/// Why Neutron did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NeutronError {
    /// A URL that cannot be used: only `http://` is spoken.
    #[error("{option}: '{url}' is no http:// URL")]
    Url {
        /// The option.
        option: &'static str,
        /// What it says.
        url: String,
    },
    /// It said no.
    #[error("Neutron answered {status}: {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Neutron's name for it.
        kind: String,
        /// For people.
        message: String,
    },
    /// It did not answer, or could not be asked.
    #[error("Neutron is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// The answer is not what Neutron answers.
    #[error("Neutron's answer to {what} cannot be read")]
    Malformed {
        /// What was asked.
        what: String,
        /// What is wrong.
        #[source]
        source: BoxError,
    },
}

impl NeutronError {
    /// There is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

impl From<NeutronError> for NetworkServiceError {
    fn from(error: NeutronError) -> Self {
        match error {
            NeutronError::Refused { kind, .. } if kind == "OverQuota" => Self::OverQuota,
            NeutronError::Refused { status, message, .. } if is_an_answer(status) => Self::Refused(message),
            other => Self::Unavailable { source: Box::new(other) },
        }
    }
}

/// Does the status speak of the request, and not of the service or of our right to ask?
fn is_an_answer(status: StatusCode) -> bool {
    status.is_client_error()
        && ![StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

/// What a token gives.
struct Token {
    text: HeaderValue,
    expires: Timestamp,
    endpoint: Place,
}

/// The way to one Neutron.
pub(super) struct Session {
    options: NeutronOptions,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    transport: Transport,
    auth: Place,
    endpoint: Option<Place>,
    token: tokio::sync::Mutex<Option<Arc<Token>>>,
    extensions: Mutex<Option<(Instant, Arc<BTreeSet<String>>)>>,
}

impl Session {
    pub(super) fn new(
        options: NeutronOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, NeutronError> {
        let auth = place("neutron.auth_url", &options.auth_url)?;
        let endpoint = options.endpoint.as_deref().map(|url| place("neutron.endpoint_override", url)).transpose()?;
        let transport = Transport::new(options.connect_timeout, options.timeout);
        let (token, extensions) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { options, clock, entropy, transport, auth, endpoint, token, extensions })
    }

    pub(super) fn options(&self) -> &NeutronOptions {
        &self.options
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, key: &str) -> Result<T, NeutronError> {
        read(path, self.ask(Method::GET, path, None).await?, key)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<T, NeutronError> {
        read(path, self.ask(Method::POST, path, Some(body)).await?, key)
    }

    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<T, NeutronError> {
        read(path, self.ask(Method::PUT, path, Some(body)).await?, key)
    }

    /// What is not there any more is deleted.
    pub(super) async fn delete(&self, path: &str) -> Result<(), NeutronError> {
        match self.ask(Method::DELETE, path, None).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// All items of a list, page after page.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, NeutronError> {
        let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let mut path = format!("/{collection}?{text}");
        let mut items = Vec::new();
        for _ in 0..PAGES {
            let mut page = self.ask(Method::GET, &path, None).await?;
            let next = page.get(format!("{key}_links")).and_then(|links| {
                let next = links.as_array()?.iter().find(|link| link["rel"] == "next")?;
                next["href"].as_str()?.split_once('?').map(|(_, query)| format!("/{collection}?{query}"))
            });
            let part: Vec<T> = read(&path, page.take(), key)?;
            let last = part.is_empty();
            items.extend(part);
            match next.filter(|_| !last) {
                Some(next) => path = next,
                None => return Ok(items),
            }
        }
        Err(NeutronError::Malformed { what: path, source: "the list does not end".into() })
    }

    /// Can it do this?
    pub(super) async fn has_extension(&self, alias: &str) -> Result<bool, NeutronError> {
        let known = self.extensions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, aliases)) = known
            && since.elapsed() < self.options.extensions_for
        {
            return Ok(aliases.contains(alias));
        }
        let answer: Vec<Value> = self.get("/extensions", "extensions").await?;
        let aliases: BTreeSet<String> =
            answer.iter().filter_map(|extension| extension["alias"].as_str().map(str::to_owned)).collect();
        let has = aliases.contains(alias);
        let now = Some((Instant::now(), Arc::new(aliases)));
        *self.extensions.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(has)
    }

    /// One request, tried again where that does no harm; a token that does not count is renewed once.
    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, NeutronError> {
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let repeatable = method != Method::POST;
        let (mut renewed, mut tries) = (false, 0);
        loop {
            let token = self.token().await?;
            let whole = format!("{}{path}", token.endpoint.path);
            let sent = self.transport.send(&token.endpoint, method.clone(), &whole, Some(&token.text), body.clone());
            let trouble: NeutronError = match sent.await {
                Ok(reply) if reply.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.forget(&token).await;
                    continue;
                }
                Ok(reply) if reply.status.is_success() => return parse(path, &reply),
                Ok(reply) => {
                    // Turned away before anything was done, or by a proxy that does not know.
                    let turned_away =
                        [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&reply.status);
                    let passing = [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT].contains(&reply.status);
                    let error = refused(&reply);
                    if turned_away || (passing && repeatable) { error } else { return Err(error) }
                }
                Err(error @ TransportError::Unclear { .. }) if !repeatable => return Err(unavailable(error)),
                Err(error) => unavailable(error),
            };
            if tries >= self.options.retries {
                return Err(trouble);
            }
            tracing::warn!(%method, path, "asked again: {}", chain(&trouble));
            self.wait(tries).await;
            tries += 1;
        }
    }

    async fn wait(&self, tries: u32) {
        let wait = self.options.first_wait.saturating_mul(1 << tries.min(16)).min(LONGEST_WAIT);
        let half = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX) / 2;
        sleep(Duration::from_micros(half + self.entropy.below(half + 1))).await;
    }

    async fn forget(&self, token: &Arc<Token>) {
        let mut held = self.token.lock().await;
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, token)) {
            *held = None;
        }
    }

    /// The token; of several callers that find none, one gets it.
    async fn token(&self) -> Result<Arc<Token>, NeutronError> {
        let mut held = self.token.lock().await;
        let soon = self.clock.now().checked_add(SPARE).unwrap_or(Timestamp::MAX);
        if let Some(token) = held.as_ref().filter(|token| token.expires > soon) {
            return Ok(token.clone());
        }
        let mut tries = 0;
        let token = loop {
            match self.log_in().await {
                Ok(token) => break Arc::new(token),
                // A login may be repeated.
                Err(error) if tries < self.options.retries && is_passing(&error) => {
                    tracing::warn!("identity is asked again: {}", chain(&error));
                    self.wait(tries).await;
                    tries += 1;
                }
                Err(error) => return Err(NeutronError::Unavailable { source: error.into() }),
            }
        };
        *held = Some(token.clone());
        Ok(token)
    }

    async fn log_in(&self) -> Result<Token, NeutronError> {
        let options = &self.options;
        let user = json!({
            "name": options.username, "password": options.password, "domain": {"name": options.user_domain_name},
        });
        let project = json!({"name": options.project_name, "domain": {"name": options.project_domain_name}});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }});
        let base = self.auth.path.strip_suffix("/v3").unwrap_or(&self.auth.path);
        let path = format!("{base}/v3/auth/tokens");
        let sent = self.transport.send(&self.auth, Method::POST, &path, None, Bytes::from(body.to_string())).await;
        let reply = sent.map_err(unavailable)?;
        if !reply.status.is_success() {
            return Err(refused(&reply));
        }
        let malformed = |why: &str| NeutronError::Malformed { what: path.clone(), source: why.to_owned().into() };
        let mut text = reply.headers.get("x-subject-token").cloned().ok_or_else(|| malformed("there is no token"))?;
        text.set_sensitive(true);
        let document = parse(&path, &reply)?;
        let expires = document["token"]["expires_at"].as_str().and_then(|time| time.parse().ok());
        let expires = expires.ok_or_else(|| malformed("it does not say when the token ends"))?;
        let endpoint = match &self.endpoint {
            Some(place) => place.clone(),
            None => {
                let url = endpoint_of(&document["token"]["catalog"], &options.region_name);
                let url = url.ok_or_else(|| malformed("its catalog has no endpoint of type network"))?;
                place("the catalog's endpoint of type network", url)?
            }
        };
        let base = endpoint.path.strip_suffix("/v2.0").unwrap_or(&endpoint.path);
        let endpoint = endpoint.at(format!("{base}/v2.0"));
        Ok(Token { text, expires, endpoint })
    }
}

/// Where the network service is: for services first, as Nova's `valid_interfaces`.
fn endpoint_of<'c>(catalog: &'c Value, region: &str) -> Option<&'c str> {
    let services = catalog.as_array()?.iter().filter(|service| service["type"] == "network");
    let endpoints: Vec<&Value> = services.filter_map(|service| service["endpoints"].as_array()).flatten().collect();
    let here =
        |endpoint: &&&Value| region.is_empty() || endpoint["region"] == region || endpoint["region_id"] == region;
    ["internal", "public"].iter().find_map(|interface| {
        let fits = |endpoint: &&&Value| endpoint["interface"] == *interface && here(endpoint);
        endpoints.iter().find(fits)?["url"].as_str()
    })
}

fn place(option: &'static str, url: &str) -> Result<Place, NeutronError> {
    Place::parse(url).ok_or_else(|| NeutronError::Url { option, url: url.to_owned() })
}

fn unavailable(error: TransportError) -> NeutronError {
    NeutronError::Unavailable { source: error.into() }
}

fn is_passing(error: &NeutronError) -> bool {
    match error {
        NeutronError::Unavailable { .. } => true,
        NeutronError::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
        NeutronError::Url { .. } | NeutronError::Malformed { .. } => false,
    }
}

fn parse(what: &str, reply: &Reply) -> Result<Value, NeutronError> {
    if reply.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&reply.body)
        .map_err(|error| NeutronError::Malformed { what: what.to_owned(), source: error.into() })
}

/// What is under one key of an answer.
fn read<T: DeserializeOwned>(what: &str, mut answer: Value, key: &str) -> Result<T, NeutronError> {
    let value = answer.get_mut(key).map(Value::take).unwrap_or_default();
    serde_json::from_value(value)
        .map_err(|error| NeutronError::Malformed { what: what.to_owned(), source: error.into() })
}

/// `{"NeutronError": {"type": …, "message": …}}`, or `{"error": {…}}` of Keystone, or anything.
fn refused(reply: &Reply) -> NeutronError {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let error = body.get("NeutronError").or_else(|| body.get("error")).unwrap_or(&Value::Null);
    let kind = error["type"].as_str().unwrap_or_default().to_owned();
    let message = error["message"].as_str().or_else(|| error.as_str());
    let message = message.or(reply.status.canonical_reason()).unwrap_or_default();
    NeutronError::Refused { status: reply.status, kind, message: message.chars().take(1024).collect() }
}
