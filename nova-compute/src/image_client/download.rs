//! One download: connect, ask, hand on piece by piece, and begin again where it broke off.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nova_core::contracts::{BoxError, ImageData, ImageServiceError};
use nova_core::error::chain;
use nova_core::ids::ImageId;
use nova_core::image::ImageGrant;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::HttpImageService;

/// A piece is handed on once it has so many bytes. What the connection brings at once is less than that, so that no piece
/// is longer than 1 MiB.
const PIECE: usize = 512 << 10;

/// What happened to one try.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0} cannot be reached")]
    Unreachable(String, #[source] BoxError),
    #[error("{0} says nothing")]
    Silent(String),
    #[error("the connection broke off")]
    Broken(#[source] BoxError),
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    #[error("{0}")]
    Wrong(&'static str),
}

/// Whether another try can end better.
enum Failure {
    Again(Trouble),
    Final(ImageServiceError),
}

/// An answer that is being read, and the connection that it comes by.
struct Answer {
    body: Incoming,
    /// Bytes that were handed on before and come again.
    skip: u64,
    _connection: AbortOnDropHandle<()>,
}

/// An image's data on its way.
pub(super) struct Download {
    service: HttpImageService,
    id: ImageId,
    grant: ImageGrant,
    answer: Option<Answer>,
    /// Bytes handed on.
    read: u64,
    /// Bytes of the image, once an answer has told.
    length: Option<u64>,
    done: bool,
    /// When the first failure happened after which there was no headway.
    stuck: Option<Instant>,
    wait: Duration,
}

impl Download {
    /// Asks until there is an answer that says yes or no, or patience has ended.
    pub(super) async fn begin(
        service: HttpImageService,
        id: ImageId,
        grant: ImageGrant,
    ) -> Result<Self, ImageServiceError> {
        let wait = service.options.first_wait;
        let mut download =
            Self { service, id, grant, answer: None, read: 0, length: None, done: false, stuck: None, wait };
        download.open().await?;
        Ok(download)
    }

    /// Sees to it that there is an answer to read from.
    async fn open(&mut self) -> Result<(), ImageServiceError> {
        while self.answer.is_none() {
            match self.ask().await {
                Ok(answer) => self.answer = Some(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(trouble)) => self.hold_on(trouble).await?,
            }
        }
        Ok(())
    }

    /// Waits before another try, or says that there have been enough.
    async fn hold_on(&mut self, trouble: Trouble) -> Result<(), ImageServiceError> {
        let options = &self.service.options;
        if self.stuck.get_or_insert_with(Instant::now).elapsed() >= options.patience {
            return Err(ImageServiceError::Unavailable { source: trouble.into() });
        }
        tracing::warn!(image = %self.id, read = self.read, "the download is tried again: {}", chain(&trouble));
        let half = u64::try_from(self.wait.as_micros()).unwrap_or(u64::MAX) / 2;
        sleep(Duration::from_micros(half + self.service.entropy.below(half + 1))).await;
        self.wait = (self.wait * 2).min(options.longest_wait);
        Ok(())
    }

    /// One try: a connection, a request, an answer with data.
    async fn ask(&mut self) -> Result<Answer, Failure> {
        let (endpoint, options) = (self.service.endpoint.clone(), self.service.options.clone());
        let place = || endpoint.authority.clone();
        let unreachable = |error: BoxError| Failure::Again(Trouble::Unreachable(place(), error));
        let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = match timeout(options.connect_timeout, connecting).await {
            Ok(stream) => stream.map_err(|error| unreachable(error.into()))?,
            Err(late) => return Err(unreachable(late.into())),
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.into()))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // Whoever reads the answer is told of what goes wrong.
            let _ = connection.await;
        }));
        let request = self.request()?;
        let response = match timeout(options.idle_timeout, sender.send_request(request)).await {
            Ok(response) => response.map_err(|error| Failure::Again(Trouble::Broken(error.into())))?,
            Err(_) => return Err(Failure::Again(Trouble::Silent(place()))),
        };
        let skip = self.judge(&response)?;
        Ok(Answer { body: response.into_body(), skip, _connection: connection })
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, Failure> {
        let mut request = Request::get(self.service.endpoint.file(self.id))
            .header(header::HOST, &self.service.endpoint.authority)
            .header(header::USER_AGENT, concat!("nova-compute/", env!("CARGO_PKG_VERSION")))
            .header(ImageGrant::HEADER, self.grant.reveal());
        if self.read > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.read));
        }
        // Only a grant that no header can carry brings this about.
        request.body(Empty::new()).map_err(|_| self.refused("its grant is malformed"))
    }

    fn refused(&self, reason: &'static str) -> Failure {
        Failure::Final(ImageServiceError::Refused { id: self.id, reason })
    }

    fn wrong(&self, what: &'static str) -> Failure {
        Failure::Final(ImageServiceError::Unavailable { source: Trouble::Wrong(what).into() })
    }

    /// What an answer's head means, and how many of its bytes are known already.
    fn judge(&mut self, response: &Response<Incoming>) -> Result<u64, Failure> {
        let status = response.status();
        let begins = match status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_begin(response) == Some(self.read) => self.read,
            StatusCode::PARTIAL_CONTENT => return Err(self.wrong("the answer is not the part that was asked for")),
            // Its data is not there yet, or an administrator has taken it out of use.
            StatusCode::NO_CONTENT | StatusCode::FORBIDDEN => {
                return Err(Failure::Final(ImageServiceError::NotActive { id: self.id }));
            }
            StatusCode::UNAUTHORIZED => return Err(self.refused("its grant does not count, or no longer")),
            StatusCode::NOT_FOUND => {
                return Err(Failure::Final(ImageServiceError::NotFound { id: self.id.to_string() }));
            }
            _ => {
                let trouble = Trouble::Status(self.service.endpoint.authority.clone(), status);
                let passing = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                return Err(if passing || status.is_server_error() {
                    Failure::Again(trouble)
                } else {
                    Failure::Final(ImageServiceError::Unavailable { source: trouble.into() })
                });
            }
        };
        let declared = response.headers().get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
        let length = declared.and_then(|left: u64| left.checked_add(begins));
        if self.length.is_some() && length.is_some() && self.length != length {
            return Err(self.wrong("the image's length has changed since the download began"));
        }
        self.length = self.length.or(length);
        Ok(self.read.saturating_sub(begins))
    }

    /// What has come of the next piece; empty at the end of the data. A failure after the first byte is met again by the
    /// next call.
    async fn piece(&mut self) -> Result<Vec<u8>, Trouble> {
        let idle = self.service.options.idle_timeout;
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            let Some(answer) = &mut self.answer else { break };
            let trouble = match timeout(idle, answer.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(mut data) = frame.into_data() {
                        let known = usize::try_from(answer.skip).unwrap_or(usize::MAX).min(data.len());
                        answer.skip -= known as u64;
                        data.advance(known);
                        piece.extend_from_slice(&data);
                    }
                    continue;
                }
                // The connection's own end is the data's end only where no length was told.
                Ok(None) if self.length.is_none_or(|length| length == self.read + piece.len() as u64) => break,
                Ok(None) => Trouble::Wrong("the data ended too early"),
                Ok(Some(Err(error))) => Trouble::Broken(error.into()),
                Err(_) => Trouble::Silent(self.service.endpoint.authority.clone()),
            };
            self.answer = None;
            return if piece.is_empty() { Err(trouble) } else { Ok(piece) };
        }
        Ok(piece)
    }
}

#[async_trait]
impl ImageData for Download {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        while !self.done && self.length != Some(self.read) {
            self.open().await?;
            match self.piece().await {
                Ok(piece) if piece.is_empty() => self.done = true,
                Ok(piece) => {
                    self.read += piece.len() as u64;
                    self.stuck = None;
                    self.wait = self.service.options.first_wait;
                    return Ok(Some(piece));
                }
                Err(trouble) => self.hold_on(trouble).await?,
            }
        }
        self.answer = None;
        Ok(None)
    }
}

/// The first byte of a `Content-Range: bytes 5-9/10`.
fn range_begin(response: &Response<Incoming>) -> Option<u64> {
    let text = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
