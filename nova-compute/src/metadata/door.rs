//! One door: accepts, knows the guest by the address that it asks from, answers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nova_core::ids::{InstanceId, PortId};
use nova_core::metadata::{Document, LONGEST_PASSWORD, as_password, is_root, lookup, takes_password, versions};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::source::Left;

type Callers = BTreeMap<IpAddr, (InstanceId, PortId)>;

/// The longest head of a request: the least that the parser takes.
const HEAD: usize = 8192;

/// A door that is served until it is dropped.
pub(super) struct Door {
    callers: Arc<Mutex<Arc<Callers>>>,
    serving: AbortOnDropHandle<()>,
}

impl Door {
    pub(super) fn open(
        shared: Arc<Shared>,
        name: &str,
        listener: std::net::TcpListener,
        callers: Callers,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let callers = Arc::new(Mutex::new(Arc::new(callers)));
        let serving = accept(shared, name.to_owned(), listener, callers.clone());
        Ok(Self { callers, serving: AbortOnDropHandle::new(tokio::spawn(serving)) })
    }

    pub(super) fn set_callers(&self, callers: Callers) {
        *self.callers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(callers);
    }

    pub(super) fn is_open(&self) -> bool {
        !self.serving.is_finished()
    }
}

/// Who asks from that address now.
fn caller(callers: &Mutex<Arc<Callers>>, address: IpAddr) -> Option<(InstanceId, PortId)> {
    let callers = callers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    callers.get(&address.to_canonical()).copied()
}

async fn accept(shared: Arc<Shared>, name: String, listener: TcpListener, callers: Arc<Mutex<Arc<Callers>>>) {
    let mut connections = JoinSet::new();
    let mut open: BTreeMap<IpAddr, usize> = BTreeMap::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Ok(address) = ended {
                    forget(&mut open, address);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let of_guest = open.entry(peer.ip()).or_default();
                let limits = &shared.limits;
                if *of_guest < limits.per_guest && connections.len() < limits.per_door {
                    *of_guest += 1;
                    connections.spawn(connection(shared.clone(), stream, peer, callers.clone()));
                } else if *of_guest == 0 {
                    open.remove(&peer.ip());
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: give connections time to end.
                tracing::warn!(door = name, %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection of that address less.
fn forget(open: &mut BTreeMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = open.get_mut(&address) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            open.remove(&address);
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    callers: Arc<Mutex<Arc<Callers>>>,
) -> IpAddr {
    let address = peer.ip();
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(shared.limits.header_timeout).max_buf_size(HEAD);
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, callers) = (shared.clone(), callers.clone());
        // Asked anew for each request: the address may be another guest's by now.
        async move {
            let caller = caller(&callers, address);
            let leaves = request.method() == Method::POST && takes_password(request.uri().path());
            let answered =
                if leaves { take(&shared, caller, request).await } else { answer(&shared, caller, &request).await };
            Ok::<_, Infallible>(answered)
        }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    // A guest that reads nothing holds its connection no longer than this.
    if let Ok(Err(error)) = tokio::time::timeout(shared.limits.connection_lifetime, serving).await {
        tracing::debug!(%address, %error, "a connection ended early");
    }
    address
}

async fn answer<B>(
    shared: &Shared,
    caller: Option<(InstanceId, PortId)>,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let head = request.method() == Method::HEAD;
    let path = request.uri().path();
    if !head && request.method() != Method::GET {
        // There are no session tokens (IMDSv2) here: whoever asks for one goes on without.
        let token = path.trim_matches('/') == "latest/api/token";
        let status = if token { StatusCode::NOT_FOUND } else { StatusCode::METHOD_NOT_ALLOWED };
        let mut response = failure(status);
        let allowed = if takes_password(path) { "GET, HEAD, POST" } else { "GET, HEAD" };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    if is_root(path) {
        return found(versions(), head);
    }
    let Some((instance, port)) = caller else { return failure(StatusCode::NOT_FOUND) };
    match shared.cache.get((instance, port)).await {
        Ok(Some(about)) => match lookup(&about, path, &*shared.entropy) {
            Some(document) => found(document, head),
            None => failure(StatusCode::NOT_FOUND),
        },
        Ok(None) => failure(StatusCode::NOT_FOUND),
        Err(error) => later(instance, &*error),
    }
}

/// Takes what a guest leaves for its owner, once (nova/api/metadata/password.py).
async fn take(
    shared: &Shared,
    caller: Option<(InstanceId, PortId)>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Some((instance, port)) = caller else { return failure(StatusCode::NOT_FOUND) };
    let Ok(body) = Limited::new(request.into_body(), LONGEST_PASSWORD).collect().await else {
        return failure(StatusCode::BAD_REQUEST);
    };
    let body = body.to_bytes();
    let Some(password) = as_password(&body) else { return failure(StatusCode::BAD_REQUEST) };
    match shared.cache.set_password((instance, port), password).await {
        Ok(Left::Kept) => Response::new(Full::default()),
        Ok(Left::Before) => failure(StatusCode::CONFLICT),
        Ok(Left::Unknown) => failure(StatusCode::NOT_FOUND),
        Err(error) => later(instance, &*error),
    }
}

fn later(instance: InstanceId, error: &(dyn std::error::Error + 'static)) -> Response<Full<Bytes>> {
    tracing::warn!(%instance, "no metadata now: {}", nova_core::error::chain(error));
    let mut response = failure(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn found(document: Document, head: bool) -> Response<Full<Bytes>> {
    let length = HeaderValue::from(document.body.len());
    let body = if head { Bytes::new() } else { document.body.into() };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(document.content_type));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

fn failure(status: StatusCode) -> Response<Full<Bytes>> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or("Error"));
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
