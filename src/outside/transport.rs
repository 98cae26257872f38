//! HTTP to one place: connections that are kept, bounds, and what is known of a request that failed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use nova_core::contracts::BoxError;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest answer.
const LONGEST: usize = 64 << 20;
/// Connections that are kept while nobody uses them.
const IDLE: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    /// Nothing was done.
    #[error("{place} cannot be reached")]
    NotSent {
        place: String,
        #[source]
        source: BoxError,
    },
    /// It may have been done.
    #[error("{place} did not answer")]
    Unclear {
        place: String,
        #[source]
        source: BoxError,
    },
}

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A request.
pub(super) struct Sending<'a> {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a HeaderValue>,
    /// The microversion, as `volume 3.44`.
    pub(super) version: Option<&'static str>,
    pub(super) body: Bytes,
}

/// An `http://` URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// A name or an address, IPv6 without brackets.
    host: String,
    port: u16,
    /// As it stands in URLs.
    authority: HeaderValue,
    /// What its paths begin with, without a slash at the end.
    pub(super) path: String,
}

impl Place {
    /// `None` for what is no URL of HTTP without TLS.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty())?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return None;
        }
        Some(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str()).ok()?,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The same with other paths.
    pub(super) fn at(&self, path: String) -> Self {
        Self { path, ..self.clone() }
    }

    fn name(&self) -> String {
        self.authority.to_str().unwrap_or_default().to_owned()
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// Requests with bounds. Connections to the place that was asked last are kept.
pub(super) struct Transport {
    connect_timeout: Duration,
    timeout: Duration,
    idle: Mutex<Vec<(HeaderValue, Sender)>>,
}

impl Transport {
    pub(super) fn new(connect_timeout: Duration, timeout: Duration) -> Self {
        Self { connect_timeout, timeout, idle: Mutex::default() }
    }

    pub(super) async fn send(&self, place: &Place, sending: Sending<'_>) -> Result<Reply, TransportError> {
        let Sending { method, path, token, version, body } = sending;
        let build = |body: Bytes| {
            let mut request = Request::new(Full::new(body));
            *request.method_mut() = method.clone();
            let uri = path.parse::<Uri>();
            *request.uri_mut() = uri.map_err(|error| not_sent(place, error))?;
            let headers = request.headers_mut();
            headers.insert(header::HOST, place.authority.clone());
            headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("nova/", env!("CARGO_PKG_VERSION"))));
            if let Some(token) = token {
                headers.insert("x-auth-token", token.clone());
            }
            if let Some(version) = version {
                headers.insert("openstack-api-version", HeaderValue::from_static(version));
            }
            Ok(request)
        };
        // A connection that was kept may be closed by now; then nothing was sent, and a new one is made.
        while let Some(mut sender) = self.kept(place) {
            match self.exchange(place, &mut sender, build(body.clone())?).await {
                Err((true, _)) => {}
                Err((false, error)) => return Err(error),
                Ok(reply) => return Ok(self.keep(place, sender, reply)),
            }
        }
        let mut sender = self.connect(place).await?;
        match self.exchange(place, &mut sender, build(body)?).await {
            Err((_, error)) => Err(error),
            Ok(reply) => Ok(self.keep(place, sender, reply)),
        }
    }

    async fn connect(&self, place: &Place) -> Result<Sender, TransportError> {
        let connecting = async {
            let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
            stream.set_nodelay(true)?;
            http1::handshake(TokioIo::new(stream)).await.map_err(BoxError::from)
        };
        let connected = match timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(late) => Err(late.into()),
        };
        let (sender, connection) = connected.map_err(|error| not_sent(place, error))?;
        // It ends with its sender.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// One request and its answer. An error says whether the request is known not to have been sent.
    async fn exchange(
        &self,
        place: &Place,
        sender: &mut Sender,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, (bool, TransportError)> {
        let unclear = |error: BoxError| (false, TransportError::Unclear { place: place.name(), source: error });
        let talk = async {
            if let Err(error) = sender.ready().await {
                return Err((true, not_sent(place, error)));
            }
            let response = sender.send_request(request).await.map_err(|error| match error.is_canceled() {
                true => (true, not_sent(place, error)),
                false => unclear(error.into()),
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(unclear)?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        match timeout(self.timeout, talk).await {
            Ok(done) => done,
            Err(late) => Err(unclear(late.into())),
        }
    }

    fn kept(&self, place: &Place) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, sender)| !sender.is_closed());
        let index = idle.iter().rposition(|(authority, _)| *authority == place.authority)?;
        Some(idle.remove(index).1)
    }

    fn keep(&self, place: &Place, sender: Sender, reply: Reply) -> Reply {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < IDLE {
            idle.push((place.authority.clone(), sender));
        }
        reply
    }
}

fn not_sent(place: &Place, error: impl Into<BoxError>) -> TransportError {
    TransportError::NotSent { place: place.name(), source: error.into() }
}
