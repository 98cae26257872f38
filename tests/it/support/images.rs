//! The real image service behind a listener on loopback, for hosts that fetch from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use nova::api::{Api, ApiOptions, Server, ServerOptions};
use nova::image::{ImageManager, ImageOptions};
use nova_compute::{HttpImageOptions, HttpImageService};
use nova_core::clock::Clock;
use nova_core::contracts::ImageService;
use nova_core::entropy::Entropy;
use nova_core::ids::ImageId;
use nova_core::image::ImageGrant;
use nova_db::Store;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use super::Cloud;

/// The image service, and what it keeps.
pub struct RealImages {
    pub manager: Arc<ImageManager>,
    place: TempDir,
    closing: watch::Sender<bool>,
    endpoint: String,
}

impl RealImages {
    pub async fn open(store: &Arc<dyn Store>, clock: &Arc<dyn Clock>, entropy: &Arc<dyn Entropy>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let options = ImageOptions::new(place.path());
        let manager = ImageManager::open(store.clone(), clock.clone(), entropy.clone(), options).await.unwrap();
        Self { manager: Arc::new(manager), place, closing: watch::channel(false).0, endpoint: String::new() }
    }

    /// Serves the whole API on loopback until the cloud goes.
    pub async fn serve(&mut self, api: &Api) {
        let server = Server::bind("127.0.0.1:0", ServerOptions::from(&ApiOptions::default())).await.unwrap();
        self.endpoint = format!("http://{}/image", server.address().unwrap());
        tokio::spawn(server.serve(api.clone(), self.closing.subscribe()));
    }

    /// How a host gets at images.
    pub fn for_host(&self, entropy: &Arc<dyn Entropy>) -> Arc<dyn ImageService> {
        Arc::new(HttpImageService::new(&self.endpoint, HttpImageOptions::default(), entropy.clone()).unwrap())
    }

    /// Where a host keeps the images that it fetched.
    pub fn cache_of(&self, host: &str) -> PathBuf {
        self.place.path().join("cache").join(host)
    }

    /// The file of an image's data at the service.
    pub fn file_of(&self, id: ImageId) -> PathBuf {
        self.place.path().join("images").join(id.to_string())
    }
}

impl Cloud {
    /// The image service; the test has asked for a real one.
    pub fn images(&self) -> &RealImages {
        self.images.as_ref().unwrap()
    }

    /// A private raw image of the demo user with that data.
    pub async fn upload(&self, data: Vec<u8>) -> ImageId {
        let body = json!({"name": "guest", "disk_format": "raw", "container_format": "bare", "visibility": "private"});
        let (status, image) = self.call("POST", "/image/v2/images", Some(body)).await;
        assert_eq!(status, 201, "{image}");
        let id = image["id"].as_str().unwrap();
        let request = http::Request::put(format!("/image/v2/images/{id}/file"))
            .header("x-auth-token", &self.token)
            .header("content-type", "application/octet-stream");
        let answer = self.api.handle(request.body(Body::from(data)).unwrap()).await;
        assert_eq!(answer.status(), 204);
        id.parse().unwrap()
    }

    /// Brings data as a host does: the answer's status.
    pub async fn put_by_grant(&self, id: &str, grant: &ImageGrant, data: Vec<u8>) -> u16 {
        let request = http::Request::put(format!("/image/v2/images/{id}/file"))
            .header(ImageGrant::HEADER, grant.reveal())
            .header("content-length", data.len())
            .header("content-type", "application/octet-stream");
        self.api.handle(request.body(Body::from(data)).unwrap()).await.status().as_u16()
    }

    /// Waits for what others do in real time.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}
