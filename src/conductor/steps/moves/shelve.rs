//! Shelving: a server becomes an image and, off its host, costs nothing there; it comes back from that image
//! (nova/compute/manager.py, `shelve_instance`, `shelve_offload_instance`, `unshelve_instance`).

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::{HostName, ImageId};
use nova_core::image::{Image, ImageMeta, ImageStatus};
use nova_core::rpc::compute::{BuildOrder, MoveOrder, StopOrder};
use nova_core::state::{TaskState, VmState};
use nova_core::task::Move;
use nova_db::StoreError;

use super::ends::DOUBTFUL_HOST;
use super::{begin, bind, end, is_declared_dead, is_up, order_for, ordered, placement_on, the_move, volumes_on};
use crate::conductor::context::{StagedOrder, TaskContext};
use crate::conductor::steps::{Ran, Services, Step, StepError};

/// Stops the guest, so that its image is whole.
pub struct ShelveStop;

#[async_trait]
impl Step for ShelveStop {
    fn name(&self) -> &'static str {
        "shelve_stop"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(host) = cx.instance.host.clone() else {
            return Err(StepError::fatal(409, format!("Instance {} is not ready", cx.instance.id), "it is on no host"));
        };
        begin(cx, "compute_shelve_instance", &host);
        cx.renew_epoch();
        Ok(Ran::Ordered(StagedOrder::Stop(StopOrder { graceful: Some(services.options.get().shutdown_timeout) })))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        end(cx, "compute_shelve_instance", Some("undone".into()));
        if let Move::Shelve { image_id, .. } = the_move(cx)? {
            drop_unfinished(services, *image_id).await?;
        }
        if cx.instance.vm_state != VmState::Active {
            return Ok(Ran::Done);
        }
        cx.renew_epoch();
        Ok(Ran::Ordered(StagedOrder::Start))
    }
}

/// An image that gets no data any more goes; a whole one may be all that is left of the server.
async fn drop_unfinished(services: &Services, id: ImageId) -> Result<(), StepError> {
    let later = |error: StoreError| StepError::Later(chain(&error));
    match services.store.get_image(id).await {
        Ok(image) if image.status == ImageStatus::Active => Ok(()),
        Ok(_) => match services.store.delete_image(id).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(later(error)),
        },
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(later(error)),
    }
}

/// The host removes the guest.
pub struct Offload;

#[async_trait]
impl Step for Offload {
    fn name(&self) -> &'static str {
        "offload"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(host) = cx.instance.host.clone() else { return Ok(Ran::Done) };
        end(cx, "compute_shelve_instance", None);
        if !is_up(services, cx, &host).await? {
            // It is off, and kept as an image: the host removes what it has once it comes back.
            tracing::warn!(instance = %cx.instance.id, %host, "it leaves its host without it, which is down");
            cx.instance.task_state = Some(TaskState::ShelvingOffloading);
            return Ok(Ran::Done);
        }
        begin(cx, "compute_shelve_offload_instance", &host);
        cx.instance.task_state = Some(TaskState::ShelvingOffloading);
        cx.renew_epoch();
        Ok(Ran::Ordered(StagedOrder::Terminate))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was removed is in the image.
        Ok(())
    }
}

/// A host that was to take the server off the shelf before, and was given up, must say that nothing of it is left there: of an
/// instance never two run.
pub struct LeaveDoubtful;

#[async_trait]
impl Step for LeaveDoubtful {
    fn name(&self) -> &'static str {
        "leave_doubtful"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(host) = cx.instance.system_metadata.get(DOUBTFUL_HOST).map(HostName::new) else {
            return Ok(Ran::Done);
        };
        // As for an evacuation: its operator says that nothing runs there.
        if is_declared_dead(services, &host).await? {
            return Ok(Ran::Done);
        }
        if !is_up(services, cx, &host).await? {
            let message = format!("Instance {} may still be on a host that does not answer.", cx.instance.id);
            return Err(StepError::fatal(500, message, format!("{host} is down and was not declared so")));
        }
        // It is the one that reports.
        cx.instance.host = Some(host.clone());
        Ok(ordered(cx, host, MoveOrder::Leave))
    }

    async fn undo(&self, _services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        cx.instance.host = None;
        Ok(())
    }
}

/// The server's interfaces are on no host until it is on one again.
pub struct UnbindPorts;

#[async_trait]
impl Step for UnbindPorts {
    fn name(&self) -> &'static str {
        "unbind_ports"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if let Some(network) = &services.network {
            let unbound = network.bind(&cx.task.context, cx.instance.id, None).await;
            unbound.map_err(|error| StepError::Later(chain(&error)))?;
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Has its new host make the guest from the image that it was kept as.
pub struct UnshelveThere;

/// The image as hosts need it.
async fn shelved_image(services: &Services, id: ImageId) -> Result<ImageMeta, StepError> {
    let gone = || StepError::fatal(500, format!("Image {id} could not be found."), "the server was kept as that image");
    let image = match services.store.get_image(id).await {
        Ok(image) if image.status == ImageStatus::Active => image,
        Ok(_) | Err(StoreError::NotFound { .. }) => return Err(gone()),
        Err(error) => return Err(StepError::Later(chain(&error))),
    };
    let Image { name, disk_format, size, os_hash_value, min_ram, min_disk, virtual_size, properties, .. } = image;
    Ok(ImageMeta {
        id,
        name,
        disk_format: disk_format.ok_or_else(gone)?,
        size: size.ok_or_else(gone)?,
        sha512: os_hash_value.unwrap_or_default(),
        min_ram,
        min_disk,
        virtual_size: virtual_size.or(size).unwrap_or_default(),
        properties,
    })
}

#[async_trait]
impl Step for UnshelveThere {
    fn name(&self) -> &'static str {
        "unshelve_there"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let (Move::Unshelve { image_id, .. }, Some(host)) = (the_move(cx)?.clone(), cx.instance.host.clone()) else {
            return Err(StepError::fatal(500, "Internal error.", "this task unshelves nothing"));
        };
        begin(cx, "compute_unshelve_instance", &host);
        cx.instance.task_state = Some(TaskState::Spawning);
        let mut there = cx.instance.clone();
        if let Some(id) = image_id {
            there.image = Some(shelved_image(services, id).await?);
        }
        let placement = placement_on(services, &there, &host).await?;
        let vifs = bind(services, cx, &host).await?;
        let volumes = volumes_on(services, cx, &host).await?;
        let guest = Box::new(BuildOrder { placement, vifs, volumes, ..order_for(services, cx, &there) });
        Ok(ordered(cx, host, MoveOrder::Finish { guest, disks: None, grant: None, running: true, stays: false }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(host) = cx.instance.host.clone() else { return Ok(Ran::Done) };
        end(cx, "compute_unshelve_instance", Some("undone".into()));
        UnbindPorts.run(services, cx).await?;
        Ok(ordered(cx, host, MoveOrder::Leave))
    }
}

/// The image that it was kept as goes.
pub struct DropShelvedImage;

#[async_trait]
impl Step for DropShelvedImage {
    fn name(&self) -> &'static str {
        "drop_shelved_image"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Move::Unshelve { image_id: Some(id), .. } = the_move(cx)? else { return Ok(Ran::Done) };
        match services.store.delete_image(*id).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(Ran::Done),
            Err(error) => Err(StepError::Later(chain(&error))),
        }
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // The server runs: it needs the image no more.
        Ok(())
    }
}
