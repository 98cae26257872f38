//! `/v2/images/{id}/file`: the data, in and out.

use std::io;
use std::sync::Arc;

use ::http::{HeaderName, Method, StatusCode, header};
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use nova_core::image::ImageStatus;

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
        vec![
            route(Method::PUT, "/images/{id}/file", &self, Self::upload),
            route(Method::GET, "/images/{id}/file", &self, Self::download),
        ]
    }
}

impl Files {
    async fn upload(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?.clone();
        let kind = request.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/octet-stream") {
            return Err(ApiError::UnsupportedMediaType);
        }
        let declared = request.header(header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let id = request.param("id").to_owned();
        self.manager.upload(&context, &id, declared, request.into_body()).await?;
        Ok(Response::empty(StatusCode::NO_CONTENT))
    }

    async fn download(self: Arc<Self>, request: Request) -> HandlerResult {
        let context = request.context()?;
        let image = self.manager.show(context, request.param("id")).await?;
        match image.status {
            ImageStatus::Active => {}
            ImageStatus::Deactivated if context.is_admin() => {}
            ImageStatus::Deactivated => {
                return Err(ApiError::forbidden(
                    "The requested image has been deactivated. Image data download is forbidden.",
                ));
            }
            _ => return Ok(Response::empty(StatusCode::NO_CONTENT)),
        }
        let (folder, id) = (self.manager.folder.clone(), image.id);
        let file = blocking(move || folder.read(id)).await?.map_err(|error| match error.kind() {
            // Deleted between the look at its record and this.
            io::ErrorKind::NotFound => not_found(&id.to_string()),
            _ => disk_failed(&error),
        })?;
        let body = Body::from_stream(stream::try_unfold(Reader { file: Some(file) }, |mut reader| async move {
            Ok::<_, io::Error>(reader.next().await?.map(|piece| (Bytes::from(piece), reader)))
        }));
        let mut response = Response::stream(StatusCode::OK, "application/octet-stream", body);
        if let Some(size) = image.size {
            response = response.header(header::CONTENT_LENGTH, &size.to_string());
        }
        if let Some(checksum) = &image.checksum {
            response = response.header(CONTENT_MD5, checksum);
        }
        Ok(response)
    }
}
