//! Orders that start a guest from another disk: rescue and back, and rebuild; and passwords (nova/compute/manager.py,
//! `rescue_instance`, `unrescue_instance`, `rebuild_instance`, `set_admin_password`).

use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::image::{ImageGrant, ImageMeta};
use nova_core::rpc::compute::{
    BuildOrder, Order, PasswordOrder, RebuildInstance, RebuildOrder, RescueInstance, RescueOrder, SetAdminPassword,
    UnrescueInstance,
};
use nova_core::rpc::conductor::StepOutcome;
use nova_core::state::PowerState;
use nova_queue::Dispatcher;
use nova_virt::{DiskSource, ErrorKind, GuestSpec, HypervisorError, RescueSpec, StableRescue};

use crate::agent::Agent;
use crate::config_drive;
use crate::image_cache::format_of;
use crate::life::not_done;
use crate::steps::{BuildError, guest};

impl Agent {
    /// Takes these orders, too.
    pub(crate) fn remake_orders(&self, dispatcher: Dispatcher) -> Dispatcher {
        let dispatcher = self.on_order::<RescueInstance, _, _, _>(dispatcher, |agent, order| async move {
            match agent.rescue(&order).await {
                Ok(()) => agent.done(&order, Vec::new()).await,
                Err(broken) => broken,
            }
        });
        let dispatcher = self.on_order::<UnrescueInstance, _, _, _>(dispatcher, |agent, order| async move {
            match agent.hypervisor.unrescue(order.instance_id).await {
                Ok(()) => agent.done(&order, Vec::new()).await,
                Err(error) => not_done(&error, "The server could not be started from its own disk.", false),
            }
        });
        let dispatcher = self.on_order::<RebuildInstance, _, _, _>(dispatcher, |agent, order| async move {
            match agent.rebuild(&order).await {
                Ok(()) => {
                    let done = agent.done(&order, Vec::new()).await;
                    agent.placed(order.instance_id, order.body.guest.has_tags(), done).await
                }
                Err(broken) => broken,
            }
        });
        self.on_order::<SetAdminPassword, _, _, _>(dispatcher, |agent, order| async move {
            agent.set_password(&order).await
        })
    }

    /// What the disk is made from, in this host's cache. A driver that needs no image gets a name.
    async fn disk_of(&self, image: &ImageMeta, grant: Option<&ImageGrant>) -> Result<DiskSource, BuildError> {
        let base = if self.hypervisor.capabilities().needs_images {
            self.images.get(image, grant).await?
        } else {
            format!("/{}", image.id).into()
        };
        let format = format_of(&base);
        Ok(DiskSource::Image { base, format })
    }

    async fn rescue(&self, order: &Order<RescueOrder>) -> Result<(), StepOutcome> {
        let (id, body) = (order.instance_id, &order.body);
        let failed = |error: HypervisorError, untouched| {
            not_done(&error, &format!("Instance {id} cannot be rescued: the hypervisor could not start it."), untouched)
        };
        if !self.hypervisor.capabilities().rescue {
            let operation = nova_virt::Operation::Rescue;
            return Err(failed(HypervisorError::Unsupported { operation }, true));
        }
        let image = self.disk_of(&body.image, body.image_grant.as_ref()).await.map_err(|error| untouched(&error))?;
        let config_drive = body.guest.config_drive.then(|| config_drive::contents(id, &body.guest, &*self.entropy));
        let ran =
            self.hypervisor.info(id).await.map_err(|error| failed(error, true))?.power_state == PowerState::Running;
        let stable = StableRescue::asked_by(&body.image.properties);
        let spec = RescueSpec { image, stable, config_drive };
        let rescued = match self.hypervisor.power_off(id, body.graceful).await {
            // What it has not written yet is lost otherwise.
            Ok(()) => self.hypervisor.rescue(id, &spec).await,
            Err(error) => Err(error),
        };
        let Err(error) = rescued else { return Ok(()) };
        let back = self.back_to_own_disk(id, ran).await;
        if let Err(left) = &back {
            tracing::warn!(instance = %id, "it was not brought back to its own disk: {}", chain(left));
        }
        Err(failed(error, back.is_ok()))
    }

    /// Takes a rescue back that failed, so that the guest is what it was.
    async fn back_to_own_disk(&self, id: InstanceId, ran: bool) -> Result<(), HypervisorError> {
        self.hypervisor.unrescue(id).await?;
        if ran { Ok(()) } else { self.hypervisor.power_off(id, None).await }
    }

    async fn rebuild(&self, order: &Order<RebuildOrder>) -> Result<(), StepOutcome> {
        let body = &order.body;
        let base = self.base_for_new_disk(&body.guest).await.map_err(|error| untouched(&error))?;
        let vifs = &body.guest.vifs;
        let interfaces = if vifs.is_empty() {
            Vec::new()
        } else {
            let ready = self.network.ready(vifs).await.map_err(BuildError::Network);
            ready.map_err(|error| untouched(&error))?
        };
        let made: Order<BuildOrder> = Order {
            task_id: order.task_id,
            instance_id: order.instance_id,
            epoch: order.epoch,
            given: order.given,
            body: body.guest.clone(),
        };
        let spec = GuestSpec { interfaces, running: body.running, ..guest(&made, base, &*self.entropy) };
        let rebuilt = self.hypervisor.rebuild(&spec, body.preserve_ephemeral).await;
        rebuilt.map_err(|error| {
            let untouched = matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::Stale);
            not_done(&error, "The server could not be rebuilt.", untouched)
        })
    }

    async fn set_password(&self, order: &Order<PasswordOrder>) -> StepOutcome {
        let (id, body) = (order.instance_id, &order.body);
        let refused = |reason: &str, details: String| StepOutcome::Failed {
            message: format!("Failed to set admin password on {id} because {reason}"),
            details,
            retryable: true,
        };
        match self.hypervisor.info(id).await {
            Ok(guest) if guest.power_state == PowerState::Running => {}
            Ok(guest) => return refused("instance is not running", format!("it is {:?}", guest.power_state)),
            Err(error) => return refused("the hypervisor does not know it", chain(&error)),
        }
        match self.hypervisor.set_admin_password(id, body.user.as_deref(), &body.password).await {
            Ok(()) => self.done(order, Vec::new()).await,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                refused("it is not supported by this driver or guest instance.", chain(&error))
            }
            Err(error) => refused("error setting admin password", chain(&error)),
        }
    }
}

/// What failed before the guest was touched.
fn untouched(error: &BuildError) -> StepOutcome {
    StepOutcome::Failed { message: error.message(), details: chain(error), retryable: true }
}
