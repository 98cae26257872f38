//! An image's data in the place of what is on a volume (cinder/volume/api.py, `reimage`).

use nova_core::context::RequestContext;
use nova_core::ids::{ImageId, VolumeId};
use nova_core::volume::{GIB, Volume, VolumeEvent, VolumeProblem, VolumeWork};

use super::change::{happen, in_a_pool};
use super::manager::{Intent, Look, Seen};
use super::{VolumeError, VolumeManager};

impl VolumeManager {
    /// Begins to write an image's data onto a volume; what was on it is gone at the end, or all of it is still there. `reserved`:
    /// also onto one that is promised to a server.
    ///
    /// # Errors
    /// Not in this state, no such image, or one that does not fit.
    pub async fn reimage(
        &self,
        context: &RequestContext,
        id: VolumeId,
        image: ImageId,
        reserved: bool,
    ) -> Result<Volume, VolumeError> {
        let Some(images) = &self.parts.images else {
            return Err(VolumeProblem::input("Volumes are not made of images here").into());
        };
        let image = images.bootable_image(context, image).await?;
        let needed = image.min_disk.max(image.virtual_size.div_ceil(GIB)).max(1);
        let decide = |mut seen: Seen| {
            let size = seen.volume.size_gb;
            if needed > size {
                let text = format!(
                    "Size of specified image {needed}GB is larger than volume size {size}GB. (image {})",
                    image.id
                );
                return Err(VolumeProblem::input(text));
            }
            happen(&mut seen.volume, VolumeEvent::Reimage { reserved })?;
            seen.volume.fault = None;
            let pool = in_a_pool(&seen.volume)?;
            let work = VolumeWork::Reimage { image: image.id, remembered: image.remembered() };
            let task = self.task(context, id, &pool, work);
            Ok(Intent { task: Some(task), ..Intent::of(seen.volume) })
        };
        let (volume, _) = self.change(context, id, Look::Whole, decide).await?;
        Ok(volume)
    }
}
