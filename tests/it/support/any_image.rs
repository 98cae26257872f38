//! An image service that has every image.

use super::*;

/// Every image is there; the fake fetches none. What hosts make of servers is noted in the store, and thrown away.
pub(super) struct AnyImage(pub(super) Arc<dyn Store>);

/// Images of some ids have properties.
fn properties(id: ImageId) -> BTreeMap<String, String> {
    let of: &[(&str, &str)] = match id.to_string().get(..4) {
        Some("deb1") => &[("os_distro", "debian")],
        Some("4e5c") => &[("hw_rescue_device", "cdrom"), ("hw_rescue_bus", "sata")],
        Some("fed0") => &[("os_distro", "fedora")],
        // No copy without file systems that stand still; with an agent that does it, and without.
        Some("a9e1") => &[("os_require_quiesce", "yes"), ("hw_qemu_guest_agent", "yes")],
        Some("a9e0") => &[("os_require_quiesce", "yes"), ("hw_qemu_guest_agent", "no")],
        _ => &[],
    };
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[async_trait]
impl ImageService for AnyImage {
    async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        // What was made here is what it says.
        let made = match self.0.get_image(id).await {
            Ok(image) => Some(image).filter(|image| image.status == ImageStatus::Active),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(ImageServiceError::Unavailable { source: error.into() }),
        };
        if let Some(image) = made {
            return Ok(ImageMeta {
                id,
                name: image.name,
                disk_format: image.disk_format.unwrap_or_default(),
                size: image.size.unwrap_or_default(),
                sha512: "00".repeat(64),
                min_ram: image.min_ram,
                min_disk: image.min_disk,
                virtual_size: image.virtual_size.unwrap_or_default(),
                properties: image.properties,
            });
        }
        Ok(ImageMeta {
            id,
            name: Some("guest".into()),
            disk_format: "qcow2".into(),
            size: 1,
            sha512: "00".repeat(64),
            min_ram: 0,
            min_disk: 0,
            virtual_size: 1,
            properties: properties(id),
        })
    }
    async fn download(&self, id: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Err(ImageServiceError::NotFound { id: id.to_string() })
    }
    async fn upload(
        &self,
        id: ImageId,
        grant: Option<&ImageGrant>,
        size: u64,
        mut data: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        assert!(grant.is_some(), "an order without a grant");
        let missing = |error: StoreError| match error {
            StoreError::NotFound { .. } => ImageServiceError::NotFound { id: id.to_string() },
            error => ImageServiceError::Unavailable { source: error.into() },
        };
        let image = self.0.get_image(id).await.map_err(missing)?;
        if image.status == ImageStatus::Active {
            return Ok(());
        }
        let mut read = 0;
        while let Some(piece) = data.next_chunk().await? {
            read += piece.len() as u64;
        }
        assert_eq!(read, size);
        // As long as a real one takes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let active = nova_core::image::Image { status: ImageStatus::Active, size: Some(size), ..image };
        self.0.update_image(active).await.map(drop).map_err(missing)
    }
}
