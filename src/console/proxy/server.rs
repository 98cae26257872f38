//! The listener: pages, and websockets that become sessions.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::rpc::consoleauth::SessionClaim;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::Failures;
use super::open::{OpenError, Opened, open};
use super::request::{Shown, Wrong, host, judge, page_scheme, resume_cookie, wants_websocket};
use super::sessions::Sessions;
use super::{Authority, AuthorityError, Pages, ProxyOptions, peer, session};

/// The longest head of a request. Browsers keep some 180 cookies of one host, and each console that was opened in the last hours
/// has left one of 96 bytes.
const HEAD: usize = 64 << 10;

/// What a proxy is built from.
pub struct ProxyParts {
    /// Who says what tokens are worth.
    pub authority: Arc<dyn Authority>,
    /// What it shows to browsers.
    pub pages: Pages,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids and for tokens by which sessions are gone on with.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: ProxyOptions,
}

/// What all connections of a proxy share.
pub(super) struct Shell {
    pub(super) authority: Arc<dyn Authority>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) options: ProxyOptions,
    pub(super) sessions: Sessions,
    pages: Pages,
    failures: Failures,
    slots: Arc<Semaphore>,
    running: TaskTracker,
    /// Nothing new is opened.
    stopping: CancellationToken,
}

/// A bound proxy, not yet serving.
pub struct ConsoleProxy {
    listener: TcpListener,
    shell: Arc<Shell>,
}

impl ConsoleProxy {
    /// Takes the address.
    ///
    /// # Errors
    /// It is taken, or not ours.
    pub async fn bind(address: (&str, u16), parts: ProxyParts) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let shell = Shell {
            authority: parts.authority,
            clock: parts.clock,
            entropy: parts.entropy,
            sessions: Sessions::default(),
            pages: parts.pages,
            failures: Failures::new(parts.options.max_failures),
            slots: Arc::new(Semaphore::new(parts.options.max_sessions.clamp(1, Semaphore::MAX_PERMITS))),
            running: TaskTracker::new(),
            stopping: CancellationToken::new(),
            options: parts.options,
        };
        Ok(Self { listener, shell: Arc::new(shell) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not know.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop. Then sessions may go on for the drain timeout; after it, browsers are told to go on with
    /// another proxy.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { listener, shell } = self;
        let checking = shell.sessions.check_until(&*shell.authority, &shell.options, shell.stopping.clone());
        let accepting = async {
            accept_until(&listener, &shell, &stop).await;
            drop(listener);
            shell.running.close();
            if tokio::time::timeout(shell.options.drain_timeout, shell.running.wait()).await.is_err() {
                tracing::info!(sessions = shell.sessions.count(), "sessions are given up: browsers go on elsewhere");
                shell.sessions.stop();
                shell.running.wait().await;
            }
            shell.stopping.cancel();
        };
        tokio::join!(checking, accepting);
    }
}

async fn accept_until(listener: &TcpListener, shell: &Arc<Shell>, stop: &CancellationToken) {
    let permits = Arc::new(Semaphore::new(shell.options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&permits).try_acquire_owned()) {
            (Ok((stream, peer)), Ok(permit)) => {
                let (shell, stop) = (Arc::clone(shell), stop.clone());
                tokio::spawn(connection(shell, stream, peer.ip(), permit, stop));
            }
            (Ok(_), Err(_)) => {}
            (Err(error), _) => {
                // Out of file descriptors, most likely: give connections time to end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The permit goes with the requests: a session has one of its own.
async fn connection(
    shell: Arc<Shell>,
    stream: TcpStream,
    peer: IpAddr,
    permit: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(shell.options.header_timeout).max_buf_size(HEAD);
    // A handshake's answer must not say that the connection is closed after it.
    let opens = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&opens);
    let service = service_fn(move |request: Request<Incoming>| {
        let shell = Arc::clone(&shell);
        seen.store(wants_websocket(request.headers()), Ordering::Relaxed);
        async move { Ok::<_, Infallible>(answer(shell, peer, request).await) }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            if !opens.load(Ordering::Relaxed) {
                serving.as_mut().graceful_shutdown();
            }
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
    drop(permit);
}

async fn answer(shell: Arc<Shell>, peer: IpAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let peer = peer::client(peer, request.headers(), &shell.options.trusted_proxies);
    let mut response = match wants_websocket(request.headers()) {
        true => websocket(&shell, peer, request).await,
        false => page(&shell, request.method(), request.uri().path(), request.headers()),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The address has the token.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn page(shell: &Shell, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    if host(headers, &shell.options).is_none() {
        return plain(StatusCode::BAD_REQUEST, "This proxy is not known by that name (console.allowed_hosts).");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "There are only pages and websockets here.");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    shell.pages.answer(path, method == Method::HEAD, &shell.options)
}

/// One line of text.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn websocket(shell: &Arc<Shell>, peer: IpAddr, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path().starts_with("//") {
        return plain(StatusCode::NOT_FOUND, "There is nothing here.");
    }
    let query = request.uri().query().unwrap_or_default();
    let shown = match judge(request.method(), query, request.headers(), &shell.options) {
        Ok(shown) => shown,
        Err(wrong) => {
            tracing::info!(%peer, ?wrong, "a websocket is refused");
            return refused(wrong);
        }
    };
    if shell.stopping.is_cancelled() || shell.running.is_closed() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "This proxy is being stopped.");
    }
    if !shell.failures.may_try(peer, Instant::now()) {
        return plain(StatusCode::TOO_MANY_REQUESTS, "Too many bad tokens came from there: wait a minute.");
    }
    let Ok(slot) = Arc::clone(&shell.slots).try_acquire_owned() else {
        tracing::warn!(%peer, "there are as many sessions as may be (console.max_sessions)");
        return plain(StatusCode::SERVICE_UNAVAILABLE, "There are as many consoles open as may be.");
    };
    // Whoever stops waits for what was begun: its address is used up.
    let _opening = shell.running.token();
    match tokio::time::timeout(shell.options.open_timeout, open(shell, &shown)).await {
        Ok(Ok(opened)) => {
            let Some(held) = shell.sessions.add(SessionClaim::from(&opened.session), opened.session.console_type)
            else {
                tracing::warn!(%peer, session = %opened.session.id, "a console has as many connections as it may have");
                return plain(StatusCode::TOO_MANY_REQUESTS, "This console has as many connections as it may have.");
            };
            let response = switch(shell, &shown, &opened);
            let upgrade = hyper::upgrade::on(&mut request);
            let shell = Arc::clone(shell);
            let running = shell.running.clone();
            running.spawn(async move {
                match upgrade.await {
                    Ok(upgraded) => session::run(&shell, upgraded, opened, held).await,
                    Err(error) => {
                        tracing::debug!(%error, "a client left before its console was open");
                        if !opened.joined {
                            shell.end(&opened.next, Duration::ZERO).await;
                        }
                    }
                }
                drop(slot);
            });
            response
        }
        Ok(Err(error)) => not_opened(shell, peer, &error),
        Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "The console does not answer."),
    }
}

/// The answer to a handshake (RFC 6455, 4.2.2), with the cookie by which the session can be gone on with.
fn switch(shell: &Shell, shown: &Shown, opened: &Opened) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(shown.key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if shown.binary {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("binary"));
    }
    let lasts = opened.session.until.duration_since(shell.clock.now()).as_secs().max(0);
    let secure = if page_scheme(&opened.session.access_url_base) == "https" { "; Secure" } else { "" };
    let name = resume_cookie(&shown.token);
    let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={lasts}{secure}", opened.next);
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

fn refused(wrong: Wrong) -> Response<Full<Bytes>> {
    match wrong {
        Wrong::NoWebsocket => {
            let mut response = plain(StatusCode::BAD_REQUEST, "This is no websocket of version 13.");
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        }
        Wrong::Subprotocol => plain(StatusCode::BAD_REQUEST, "The only subprotocol is 'binary'."),
        Wrong::Host => plain(StatusCode::BAD_REQUEST, "This proxy is not known by that name (console.allowed_hosts)."),
        Wrong::Origin => {
            plain(StatusCode::FORBIDDEN, "Pages of that origin may not open consoles (console.allowed_origins).")
        }
        Wrong::Token => plain(StatusCode::FORBIDDEN, "The address has no token."),
    }
}

fn not_opened(shell: &Shell, peer: IpAddr, error: &OpenError) -> Response<Full<Bytes>> {
    tracing::info!(%peer, "a console is not opened: {}", chain(error));
    match error {
        OpenError::Authority(AuthorityError::Worthless(text)) => {
            shell.failures.add(peer, Instant::now());
            metrics::counter!("nova_console_bad_tokens_total").increment(1);
            plain(StatusCode::FORBIDDEN, text)
        }
        OpenError::Authority(AuthorityError::Refused(text)) => plain(StatusCode::FORBIDDEN, text),
        OpenError::Authority(AuthorityError::Unavailable(_)) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "Consoles cannot be checked now; ask for a new address and try again.",
        ),
        OpenError::Scheme => refused(Wrong::Origin),
        OpenError::Late => plain(StatusCode::GATEWAY_TIMEOUT, "The console does not answer."),
        OpenError::Connect(_) | OpenError::Rfb(_) => {
            plain(StatusCode::BAD_GATEWAY, "The console cannot be reached; ask for a new address and try again.")
        }
    }
}

impl std::fmt::Debug for ConsoleProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleProxy").field("options", &self.shell.options).finish_non_exhaustive()
    }
}
