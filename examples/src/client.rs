//! A small client of the cloud's HTTP APIs, for the demonstration and for tests: signs in with an account of
//! `clouds.yaml`, finds the services in the catalog, speaks JSON. Blocking; no TLS.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::SendBody;
use ureq::http;

pub use account::{Account, AccountError};

mod account;

/// No request waits longer for its answer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 64 << 20;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There was no answer.
    #[error("{request}: no answer")]
    NoAnswer {
        /// Method and URL.
        request: String,
        /// What the connection said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The answer is a refusal.
    #[error("{request}: {status}: {message}")]
    Refused {
        /// Method and URL.
        request: String,
        /// The status code.
        status: u16,
        /// What the service says.
        message: String,
    },
    /// The answer is not what the API promises.
    #[error("{request}: the answer has no {what}")]
    NotUnderstood {
        /// Method and URL.
        request: String,
        /// What was looked for.
        what: String,
    },
}

impl ClientError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::NoAnswer { .. } | Self::NotUnderstood { .. } => None,
        }
    }
}

/// An answer of any status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Method and URL of its request.
    pub request: String,
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case; of several with one name, the last.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// What an error says: `message` below the one top key, as Nova and Keystone write it, or the text.
    pub fn message(&self) -> String {
        let body = self.json();
        let told = body.as_object().and_then(|o| o.values().find_map(|v| v["message"].as_str()));
        match told {
            Some(told) => told.to_owned(),
            None => String::from_utf8_lossy(&self.body).trim().chars().take(300).collect(),
        }
    }

    /// The answer, if it is not a refusal.
    ///
    /// # Errors
    /// [`ClientError::Refused`] from status 400 on.
    pub fn accepted(self) -> Result<Self, ClientError> {
        match self.status {
            400.. => Err(ClientError::Refused { status: self.status, message: self.message(), request: self.request }),
            _ => Ok(self),
        }
    }

    fn not_understood(&self, what: &str) -> ClientError {
        ClientError::NotUnderstood { request: self.request.clone(), what: what.to_owned() }
    }

    /// The text at a place in the body, as in `/server/status`.
    ///
    /// # Errors
    /// [`ClientError::NotUnderstood`] if there is no text.
    pub fn text(&self, place: &str) -> Result<String, ClientError> {
        let body = self.json();
        body.pointer(place).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| self.not_understood(place))
    }

    /// The list under a key of the body.
    ///
    /// # Errors
    /// [`ClientError::NotUnderstood`] if there is none.
    pub fn list(&self, key: &str) -> Result<Vec<Value>, ClientError> {
        match self.json().get_mut(key).map(Value::take) {
            Some(Value::Array(list)) => Ok(list),
            _ => Err(self.not_understood(key)),
        }
    }
}

/// One user's way to the services. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    token: String,
    compute: String,
    image: String,
    network: Option<String>,
    microversion: Option<&'static str>,
}

impl Client {
    /// Signs in and reads the catalog. Requests to the compute API carry `microversion`; none means 2.1.
    ///
    /// # Errors
    /// All of [`ClientError`].
    pub fn sign_in(account: &Account, microversion: Option<&'static str>) -> Result<Self, ClientError> {
        let agent = agent();
        let url = format!("{}/auth/tokens", account.auth_url.trim_end_matches('/'));
        let answer = send_json(&agent, "POST", &url, &[], Some(&account.request()))?.accepted()?;
        let token = answer.headers.get("x-subject-token").cloned();
        let token = token.ok_or_else(|| answer.not_understood("X-Subject-Token"))?;
        let body = answer.json();
        let service = |kind: &str| {
            let found = endpoint(&body["token"]["catalog"], kind).map(|url| url.trim_end_matches('/').to_owned());
            found.ok_or_else(|| answer.not_understood(&format!("service '{kind}' in the catalog")))
        };
        let (compute, image) = (service("compute")?, format!("{}/v2", service("image")?.trim_end_matches("/v2")));
        let network = service("network").ok().map(|url| format!("{}/v2.0", url.trim_end_matches("/v2.0")));
        Ok(Self { agent, token, compute, image, network, microversion })
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Asks the compute API, whatever the answer.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`].
    pub fn compute(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let mut headers = vec![("X-Auth-Token", self.token.as_str())];
        headers.extend(self.microversion.map(|version| ("X-OpenStack-Nova-API-Version", version)));
        send_json(&self.agent, method, &format!("{}{path}", self.compute), &headers, body)
    }

    /// The compute API's answer to GET, if not refused.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`], [`ClientError::Refused`].
    pub fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.compute("GET", path, None)?.accepted()
    }

    /// The compute API's answer to POST, if not refused.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`], [`ClientError::Refused`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.compute("POST", path, Some(body))?.accepted()
    }

    /// Asks the image API (below `/v2`), whatever the answer.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`].
    pub fn image(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        send_json(&self.agent, method, &format!("{}{path}", self.image), &[("X-Auth-Token", &self.token)], body)
    }

    /// Asks the network API (below `/v2.0`), whatever the answer.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`]; [`ClientError::NotUnderstood`] where the catalog has no such service.
    pub fn network(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let network = self.network.as_ref().ok_or_else(|| ClientError::NotUnderstood {
            request: format!("{method} {path}"),
            what: "service 'network' in the catalog".to_owned(),
        })?;
        send_json(&self.agent, method, &format!("{network}{path}"), &[("X-Auth-Token", &self.token)], body)
    }

    /// Sends an image's data.
    ///
    /// # Errors
    /// [`ClientError::NoAnswer`], also if `data` can't be read; [`ClientError::Refused`].
    pub fn upload(&self, image_id: &str, data: &mut dyn Read, length: u64) -> Result<(), ClientError> {
        let request = http::Request::put(format!("{}/images/{image_id}/file", self.image))
            .header("X-Auth-Token", &self.token)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Length", length);
        send(&self.agent, request, SendBody::from_reader(data))?.accepted().map(drop)
    }

    /// A client of the same user at another microversion.
    #[must_use]
    pub fn at(&self, microversion: Option<&'static str>) -> Self {
        Self { microversion, ..self.clone() }
    }
}

/// The public address of a service.
fn endpoint<'a>(catalog: &'a Value, kind: &str) -> Option<&'a str> {
    let service = catalog.as_array()?.iter().find(|s| s["type"] == kind)?;
    let endpoint = service["endpoints"].as_array()?.iter().find(|e| e["interface"] == "public")?;
    endpoint["url"].as_str()
}

/// Connections to the cloud: never through a proxy, and every status is an answer.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_recv_body(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("nova-demo/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Sends a request with a JSON body or none, whatever the answer.
///
/// # Errors
/// [`ClientError::NoAnswer`].
pub fn send_json(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Result<Answer, ClientError> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    match body {
        None => send(agent, request, SendBody::none()),
        Some(body) => {
            let text = body.to_string();
            let request = request.header("Content-Type", "application/json").header("Content-Length", text.len());
            send(agent, request, SendBody::from_reader(&mut text.as_bytes()))
        }
    }
}

fn send(agent: &ureq::Agent, request: http::request::Builder, body: SendBody<'_>) -> Result<Answer, ClientError> {
    let method = request.method_ref().map(ToString::to_string).unwrap_or_default();
    let name = format!("{method} {}", request.uri_ref().map(ToString::to_string).unwrap_or_default());
    let no_answer = |source| ClientError::NoAnswer { request: name.clone(), source: Box::new(source) };
    let request = request.body(body).map_err(|e| no_answer(ureq::Error::Http(e)))?;
    let mut answer = agent.run(request).map_err(no_answer)?;
    let body = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec().map_err(no_answer)?;
    let headers = answer
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    Ok(Answer { status: answer.status().as_u16(), headers: headers.collect(), body, request: name })
}

/// What a sign-in sends.
impl Account {
    fn request(&self) -> Value {
        let user = json!({"name": self.username, "password": self.password, "domain": {"name": self.user_domain}});
        let project = json!({"name": self.project, "domain": {"name": self.project_domain}});
        json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }})
    }
}
