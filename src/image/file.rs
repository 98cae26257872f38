//! `/v2/images/{id}/file`: the data, in and out.

use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

use ::http::{HeaderName, Method, StatusCode, header};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use nova_core::context::RequestContext;
use nova_core::image::{Image, ImageGrant, ImageStatus};

use super::manager::{ImageManager, blocking, disk_failed};
use super::policy::not_found;
use super::service::Reader;
use crate::api::{ApiError, HandlerResult, Request, Resource, Response, Route, route};

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Data of images.
pub(super) struct Files {
    manager: Arc<ImageManager>,
}

impl Files {
    pub(super) fn new(manager: Arc<ImageManager>) -> Self {
        Self { manager }
    }
}

impl Resource for Files {
    fn name(&self) -> &'static str {
        "image-data"
    }

    fn routes(self: Arc<Self>) -> Vec<Route> {
        let (files, uploads) = (Arc::clone(&self), Arc::clone(&self));
        vec![
            route(Method::PUT, "/images/{id}/file", &self, Self::upload)
                .or_proof(ImageGrant::HEADER, move |request, grant| uploads.upload_limit(request, grant).is_some()),
            route(Method::GET, "/images/{id}/file", &self, Self::download)
                .or_proof(ImageGrant::HEADER, move |request, grant| files.admits(request, grant)),
        ]
    }
}

impl Files {
    async fn upload(self: Arc<Self>, request: Request) -> HandlerResult {
        let kind = request.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/octet-stream") {
            return Err(ApiError::UnsupportedMediaType);
        }
        let declared = request.header(header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let id = request.param("id").to_owned();
        if request.proven {
            let grant = request.header(ImageGrant::HEADER).unwrap_or_default();
            let limit = self.upload_limit(&request, grant).ok_or(ApiError::Unauthorized)?;
            let image = self.manager.any(&id).await?;
            // What a host has brought already, and did not hear of.
            if image.status != ImageStatus::Active {
                self.manager.take(image, limit, declared, request.into_body()).await?;
            }
        } else {
            let context = request.context()?.clone();
            self.manager.upload(&context, &id, declared, request.into_body()).await?;
        }
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    /// A host that was ordered to make the image of a guest's disk shows a grant: how many bytes it may bring.
    fn upload_limit(&self, request: &Request, grant: &str) -> Option<u64> {
        let image = request.param("id").parse().ok().filter(|_| request.method == Method::PUT)?;
        self.manager.grants.upload_limit(grant, image, self.manager.clock.now())
    }

    /// A host that was ordered to make a guest of the image shows a grant, and has no token. GET alone: what answers HEAD
    /// is of no use to it.
    fn admits(&self, request: &Request, grant: &str) -> bool {
        let image = request.param("id").parse();
        request.method == Method::GET
            && image.is_ok_and(|image| self.manager.grants.admits(grant, image, self.manager.clock.now()))
    }

    async fn download(self: Arc<Self>, request: Request) -> HandlerResult {
        let image = self.wanted(&request).await?;
        match image.status {
            ImageStatus::Active => {}
            ImageStatus::Deactivated if request.context.as_ref().is_some_and(RequestContext::is_admin) => {}
            ImageStatus::Deactivated => {
                return Err(ApiError::forbidden(
                    "The requested image has been deactivated. Image data download is forbidden.",
                ));
            }
            _ => return Ok(Response::empty(StatusCode::NO_CONTENT)),
        }
        let from = image.size.and_then(|size| range_start(request.header(header::RANGE.as_str())?, size));
        let (folder, id) = (self.manager.folder.clone(), image.id);
        let opened = blocking(move || {
            let mut file = folder.read(id)?;
            file.seek(SeekFrom::Start(from.unwrap_or(0)))?;
            Ok(file)
        });
        let opened: io::Result<_> = opened.await?;
        if image.size == Some(0) && opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // One that only says of which volumes it is.
            return Ok(Response::empty(StatusCode::NO_CONTENT));
        }
        let file = opened.map_err(|error: io::Error| match error.kind() {
            // Deleted between the look at its record and this.
            io::ErrorKind::NotFound => not_found(&id.to_string()),
            _ => disk_failed(&error),
        })?;
        let body = Body::from_stream(stream::try_unfold(Reader { file: Some(file) }, |mut reader| async move {
            Ok::<_, io::Error>(reader.next().await?.map(|piece| (Bytes::from(piece), reader)))
        }));
        Ok(answer(&image, from, body))
    }

    /// The image that a token's holder may see, or that a grant names.
    async fn wanted(&self, request: &Request) -> Result<Image, ApiError> {
        if request.proven {
            return self.manager.any(request.param("id")).await;
        }
        self.manager.show(request.context()?, request.param("id")).await
    }
}

/// The whole data, or what is left of it from a byte on.
fn answer(image: &Image, from: Option<u64>, body: Body) -> Response {
    let kind = "application/octet-stream";
    match (image.size, from) {
        (Some(size), Some(from)) => Response::stream(StatusCode::PARTIAL_CONTENT, kind, body)
            .header(header::CONTENT_LENGTH, &size.saturating_sub(from).to_string())
            .header(header::CONTENT_RANGE, &format!("bytes {from}-{}/{size}", size.saturating_sub(1))),
        (size, _) => {
            let mut response = Response::stream(StatusCode::OK, kind, body);
            if let Some(size) = size {
                response = response.header(header::CONTENT_LENGTH, &size.to_string());
            }
            if let Some(checksum) = &image.checksum {
                response = response.header(CONTENT_MD5, checksum);
            }
            response
        }
    }
}

/// Where a download goes on that broke off: `bytes=N-`. Any other range is left unheeded and answered with everything, as
/// RFC 9110 (14.2) allows.
fn range_start(text: &str, size: u64) -> Option<u64> {
    let from = text.trim().strip_prefix("bytes=")?.strip_suffix('-')?;
    let plain = !from.is_empty() && from.bytes().all(|byte| byte.is_ascii_digit());
    from.parse().ok().filter(|from| plain && *from < size)
}
