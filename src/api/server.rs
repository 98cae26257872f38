//! The listener: accepts, bounds, serves and drains connections.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::{Api, ApiOptions};

/// Bounds of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// How long a request's head may take, and a connection may idle.
    pub header_timeout: Duration,
    /// Connections at once; more are answered 503 and closed.
    pub max_connections: usize,
    /// How long requests in hand may take at shutdown.
    pub shutdown_timeout: Duration,
}

impl From<&ApiOptions> for ServerOptions {
    fn from(options: &ApiOptions) -> Self {
        Self {
            header_timeout: options.header_timeout,
            max_connections: options.max_connections.clamp(1, Semaphore::MAX_PERMITS),
            shutdown_timeout: options.shutdown_timeout,
        }
    }
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("api.listen: cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// A bound listener, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    options: ServerOptions,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// [`ServeError::Bind`] if it is taken, not ours, or no address.
    pub async fn bind(address: &str, options: ServerOptions) -> Result<Self, ServeError> {
        let bind = |source| ServeError::Bind { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        Ok(Self { listener, options })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`ServeError::Bind`] if the system does not know.
    pub fn address(&self) -> Result<std::net::SocketAddr, ServeError> {
        self.listener.local_addr().map_err(|source| ServeError::Bind { address: String::new(), source })
    }

    /// Serves until `stop` turns true (or its sender goes), then lets requests in hand finish, but no longer than the
    /// shutdown timeout.
    pub async fn serve(self, api: Api, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(self.options.max_connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match (accepted, Arc::clone(&permits).try_acquire_owned()) {
                (Ok((stream, _)), Ok(permit)) => {
                    connections.spawn(connection(stream, permit, api.clone(), self.options.clone(), stop.clone()));
                }
                (Ok((stream, _)), Err(_)) => turn_away(&stream),
                (Err(error), _) => {
                    // Out of file descriptors, most likely: give connections time to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.options.shutdown_timeout, drained).await.is_err() {
            tracing::warn!("requests were cut off at shutdown");
        }
    }
}

/// Waits until the value turns true, or nobody is left to turn it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    api: Api,
    options: ServerOptions,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are small: send them at once.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(options.header_timeout).keep_alive(true);
    let service = TowerToHyperService::new(BodyAdapter(api));
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// One answer for clients beyond the bound, as far as the socket takes it at once.
fn turn_away(stream: &TcpStream) {
    const BUSY: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let _ = stream.try_write(BUSY);
}

/// Hyper's body as axum's.
#[derive(Clone)]
struct BodyAdapter(Api);

impl<B> tower::Service<http::Request<B>> for BodyAdapter
where
    B: axum::body::HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = http::Response<axum::body::Body>;
    type Error = std::convert::Infallible;
    type Future = <Api as tower::Service<http::Request<axum::body::Body>>>::Future;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        tower::Service::call(&mut self.0, request.map(axum::body::Body::new))
    }
}
