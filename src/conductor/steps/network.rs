//! A server's interfaces: made before its guest, given back after it (nova/compute/manager.py, `_build_networks_for_instance`
//! and `_try_deallocate_network`).
//!
//! Ports are the network service's, in transactions of its own: what a step does here is there at once, and the next
//! conductor finds it. So each call may come twice, and what a build has made is given back when the build is given up,
//! whether or not its log knows of it.

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::HostName;
use nova_core::network::{InstanceNetworks, NetworkService, NetworkServiceError, RequestedNetworks, Vif};
use nova_core::task::{BuildNetworks, Work};

use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{TaskContext, Undoing};

/// Makes the interfaces that a build asks for, on the host that is its first choice.
pub struct Network;

/// Gives a deleted server's interfaces back, once its guest is gone.
pub struct ReleaseNetwork;

/// The network service, and what the build asks of it; nothing where it asks for no interface.
fn asked<'a>(services: &'a Services, cx: &'a TaskContext) -> Option<(&'a dyn NetworkService, &'a BuildNetworks)> {
    let (Some(network), Work::Build { networks, .. }) = (&services.network, &cx.task.work) else { return None };
    (networks.requested != RequestedNetworks::Nothing).then_some((&**network, networks))
}

/// May the task make ports, or take them?
pub fn makes_ports(services: &Services, cx: &TaskContext) -> bool {
    let attaches = matches!(cx.task.work, Work::AttachInterface { .. }) && services.network.is_some();
    attaches || asked(services, cx).is_some()
}

/// A server whose interfaces are made there.
pub(super) fn of_instance(cx: &TaskContext, host: Option<&HostName>, zone: Option<String>) -> InstanceNetworks {
    InstanceNetworks {
        instance_id: cx.instance.id,
        project_id: cx.instance.project_id.clone(),
        hostname: cx.instance.hostname.clone(),
        availability_zone: zone,
        host: host.cloned(),
        security_groups: Vec::new(),
        requested: RequestedNetworks::Nothing,
    }
}

/// What a service that does not answer means, or `what` failed for good.
pub(super) fn failed(error: NetworkServiceError, message: impl FnOnce(&str) -> String) -> StepError {
    match error {
        NetworkServiceError::Unavailable { .. } => StepError::Later(chain(&error)),
        other => StepError::fatal(500, message(&other.to_string()), chain(&other)),
    }
}

/// What the service says to something that is taken back: if it does not answer, it is waited for; what it refuses is asked for again,
/// for a while, and left then.
pub(super) fn refused(cx: &mut TaskContext, what: &str, error: NetworkServiceError) -> Result<(), StepError> {
    match (cx.undoing, error) {
        // Whatever it is, it is tried again: a port without an owner must not remain.
        (Undoing::No, error) | (_, error @ NetworkServiceError::Unavailable { .. }) => {
            Err(StepError::Later(chain(&error)))
        }
        (Undoing::Insists, error) => Err(failed(error, |why| format!("{what}: {why}"))),
        (Undoing::GivesUp, error) => {
            cx.leave(&format!("{what}: {}", chain(&error)));
            Ok(())
        }
    }
}

#[async_trait]
impl Step for Network {
    fn name(&self) -> &'static str {
        "network"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some((network, asked)) = asked(services, cx) else { return Ok(Ran::Done) };
        let first = cx.task.alternates.first();
        let zone = first.map(|destination| destination.zone.to_string());
        let wanted = InstanceNetworks {
            security_groups: asked.security_groups.clone(),
            requested: asked.requested.clone(),
            ..of_instance(cx, first.map(|destination| &destination.host), zone)
        };
        let id = cx.instance.id;
        let vifs = network.allocate(&cx.task.context, &wanted).await.map_err(|error| {
            let with = |why: &str| format!("Failed to allocate the network(s) with error {why}, not rescheduling.");
            failed(error, |why| format!("Build of instance {id} aborted: {}", with(why)))
        })?;
        cx.vifs = Some(vifs);
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // Given back when the build is given up: also what a conductor made that died before it could say so.
        Ok(())
    }
}

/// The interfaces of a build on the host where it is now, in order. Those that were made for another host follow.
pub async fn vifs_here(services: &Services, cx: &mut TaskContext) -> Result<Vec<Vif>, StepError> {
    let Some((network, _)) = asked(services, cx) else { return Ok(Vec::new()) };
    let (context, host, id) = (&cx.task.context, cx.instance.host.as_ref(), cx.instance.id);
    let message = |why: &str| format!("Build of instance {id} aborted: Failed to bind the network(s): {why}");
    let mut vifs = match &cx.vifs {
        Some(vifs) => vifs.clone(),
        None => {
            let found = network.interfaces(context, &[id]).await.map_err(|error| failed(error, message))?;
            found.into_iter().map(|(_, vif)| vif).collect()
        }
    };
    if vifs.iter().any(|vif| vif.host.as_ref() != host) {
        vifs = network.bind(context, id, host).await.map_err(|error| failed(error, message))?;
    }
    cx.vifs = Some(vifs.clone());
    Ok(vifs)
}

/// The interfaces of a server that is there, in order.
pub async fn vifs_of(services: &Services, cx: &TaskContext) -> Result<Vec<Vif>, StepError> {
    let Some(network) = &services.network else { return Ok(Vec::new()) };
    let id = cx.instance.id;
    let found = network.interfaces(&cx.task.context, &[id]).await;
    let found = found.map_err(|error| failed(error, |why| format!("Instance {id}: {why}")))?;
    Ok(found.into_iter().map(|(_, vif)| vif).collect())
}

/// Gives back the interfaces of a server, whoever made them; nothing where it has none.
pub async fn release(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    let Some(network) = &services.network else { return Ok(()) };
    match network.deallocate(&cx.task.context, cx.instance.id).await {
        Ok(()) => Ok(()),
        Err(error) => refused(cx, "its ports", error),
    }
}

/// The same for a build that is given up, as far as it asked for any.
pub async fn release_build(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    match asked(services, cx) {
        Some(_) => release(services, cx).await,
        None => Ok(()),
    }
}

#[async_trait]
impl Step for ReleaseNetwork {
    fn name(&self) -> &'static str {
        "release_network"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        release(services, cx).await?;
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What is released is others' to take.
        Ok(())
    }
}
