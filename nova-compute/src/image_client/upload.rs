//! One upload: the data of an image that a host was ordered to make, in one request.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nova_core::contracts::{BoxError, ImageData, ImageServiceError};
use nova_core::ids::ImageId;
use nova_core::image::ImageGrant;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::HttpImageService;

fn unavailable(error: impl Into<BoxError>) -> ImageServiceError {
    ImageServiceError::Unavailable { source: error.into() }
}

/// Brings the data. It is not tried again here: who has the data can begin anew.
pub(super) async fn upload(
    service: &HttpImageService,
    id: ImageId,
    grant: &ImageGrant,
    size: u64,
    data: Box<dyn ImageData>,
) -> Result<(), ImageServiceError> {
    let (endpoint, options) = (&service.endpoint, &service.options);
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    let stream = timeout(options.connect_timeout, connecting).await.map_err(unavailable)?.map_err(unavailable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unavailable)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // Whoever waits for the answer is told of what goes wrong.
        let _ = connection.await;
    }));
    let body = StreamBody::new(stream::try_unfold(data, |mut data| async move {
        let piece = data.next_chunk().await?;
        Ok::<_, ImageServiceError>(piece.map(|piece| (Frame::data(Bytes::from(piece)), data)))
    }));
    let request = Request::put(endpoint.file(id))
        .header(header::HOST, &endpoint.authority)
        .header(header::USER_AGENT, concat!("nova-compute/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, size)
        .header(ImageGrant::HEADER, grant.reveal())
        .body(BodyExt::boxed_unsync(body))
        // Only a grant that no header can carry brings this about.
        .map_err(|_| ImageServiceError::Refused { id, reason: "its grant is malformed" })?;
    // The data goes as fast as the service takes it, which breaks one off that stalls; the connection tells.
    let answer = sender.send_request(request).await.map_err(unavailable)?;
    judge(id, answer.status())
}

fn judge(id: ImageId, status: StatusCode) -> Result<(), ImageServiceError> {
    let refused = |reason| Err(ImageServiceError::Refused { id, reason });
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => refused("its grant does not count, or no longer"),
        StatusCode::PAYLOAD_TOO_LARGE => refused("it is larger than it may be"),
        StatusCode::BAD_REQUEST => refused("its data is not what it should be"),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(ImageServiceError::NotFound { id: id.to_string() }),
        other => Err(unavailable(format!("the image service answered {other}"))),
    }
}

/// The bytes of a file.
pub(crate) struct FileData(pub(crate) tokio::fs::File);

#[async_trait]
impl ImageData for FileData {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        use tokio::io::AsyncReadExt;
        let mut piece = Vec::with_capacity(PIECE);
        let mut part = (&mut self.0).take(PIECE as u64);
        part.read_to_end(&mut piece).await.map_err(unavailable)?;
        Ok((!piece.is_empty()).then_some(piece))
    }
}

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
