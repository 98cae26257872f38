//! Building an instance: find a host, book it, have the guest made there (nova/conductor/manager.py,
//! `schedule_and_build_instances`).

use std::time::Duration;

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::request::{NoValidHost, RequestSpec, Selection};
use nova_core::rpc::RefusalKind;
use nova_core::rpc::compute::BuildOrder;
use nova_core::rpc::scheduler::SelectDestinations;
use nova_core::server_group::group_of_hints;
use nova_core::state::TaskState;
use nova_core::task::{Failure, Move, Work};
use nova_core::topology::Placement;

use super::network::vifs_here;
use super::plugging::awaited;
use super::volumes::{not_on, volumes_on};
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// What `os-instance-actions` calls a host's part of a build.
pub const BUILD_EVENT: &str = "compute__do_build_and_run_instance";

/// A decision takes microseconds; a scheduler that does not answer is asked again by a later sweep.
const SCHEDULER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the scheduler, unless the whole request was scheduled together already.
pub struct Schedule;

/// Asks for destinations of the given instances of a request, with their server group as it is now.
pub async fn select(services: &Services, cx: &TaskContext, spec: &RequestSpec) -> Result<Vec<Selection>, StepError> {
    let group = match group_of_hints(&spec.hints) {
        Some(id) => services.store.group_placement(id).await.map_err(|error| StepError::Later(chain(&error)))?,
        None => None,
    };
    let spec = RequestSpec { group, ..spec.clone() };
    let asking = services.rpc.clone().with_call_timeout(SCHEDULER_TIMEOUT);
    let answer = asking.call::<SelectDestinations>(&cx.task.context, &spec).await;
    answer.map_err(|error| match error.refusal() {
        Some(refusal) if refusal.kind == RefusalKind::NoValidHost => no_valid_host(&refusal.message),
        _ => StepError::of_bus(&error),
    })
}

/// Asks again for the instance of a build that lost its host to others when it was to be booked. What was chosen before
/// is stale: it was chosen from the same view. For a host that an administrator named there is no other.
pub async fn select_anew(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    let spec = match &cx.task.work {
        Work::Build { spec, .. } => spec,
        Work::Move(one) => match one.spec() {
            Some(spec) => spec,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    if spec.force_host.is_some() || spec.force_node.is_some() {
        return Ok(());
    }
    let alternates = services.options.get().max_attempts.saturating_sub(1);
    let mut anew = RequestSpec { instances: vec![cx.instance.id], alternates, fresh: true, ..spec.clone() };
    anew.ignore_hosts.extend(cx.lost.iter().cloned());
    let mut selections = select(services, cx, &anew).await?;
    if let Some(selection) = selections.pop() {
        cx.task.alternates = std::iter::once(selection.chosen).chain(selection.alternates).collect();
    }
    Ok(())
}

/// The failure that a `NoValidHost` answer (JSON) means.
fn no_valid_host(message: &str) -> StepError {
    let why = serde_json::from_str::<NoValidHost>(message).unwrap_or_else(|_| NoValidHost {
        summary: "No valid host was found.".into(),
        details: message.to_owned(),
        reasons: std::collections::BTreeMap::new(),
    });
    StepError::fatal(500, why.summary, why.details)
}

#[async_trait]
impl Step for Schedule {
    fn name(&self) -> &'static str {
        "schedule"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Work::Build { spec, selection, .. } = &cx.task.work else {
            return Err(StepError::fatal(500, "This task does not build.", ""));
        };
        let selection = match selection {
            Some(selection) => selection.clone(),
            None => {
                let alternates = services.options.get().max_attempts.saturating_sub(1);
                let alone = RequestSpec { instances: vec![cx.instance.id], alternates, ..spec.clone() };
                let mut selections = select(services, cx, &alone).await?;
                selections.pop().ok_or_else(|| StepError::Later("the scheduler selected nothing".into()))?
            }
        };
        cx.task.alternates = std::iter::once(selection.chosen).chain(selection.alternates).collect();
        cx.task.alternates.truncate(services.options.get().max_attempts.max(1));
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        cx.task.alternates.clear();
        if let Work::Build { selection, .. } = &mut cx.task.work {
            *selection = None;
        }
        Ok(())
    }
}

/// Books the next candidate and puts the instance on it.
pub struct Claim;

#[async_trait]
impl Step for Claim {
    fn name(&self) -> &'static str {
        "claim"
    }

    async fn run(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if cx.task.alternates.is_empty() {
            return Err(StepError::fatal(
                500,
                format!(
                    "Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance {}.",
                    cx.instance.id
                ),
                "",
            ));
        }
        let destination = cx.task.alternates.remove(0);
        cx.stage_booking(&destination);
        cx.instance.host = Some(destination.host.clone());
        cx.instance.node = Some(destination.node.clone());
        cx.instance.availability_zone = Some(destination.zone.clone());
        cx.instance.task_state = Some(TaskState::Spawning);
        // Each host gets a token of its own, so that a late order or report of the one before is known as late.
        cx.instance.epoch += 1;
        cx.task.epoch = cx.instance.epoch;
        cx.task.destination = Some(destination);
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        if let Some(destination) = cx.task.destination.take() {
            cx.stage_release(destination.host);
        }
        cx.instance.host = None;
        cx.instance.node = None;
        cx.instance.availability_zone = cx.instance.pinned_availability_zone.clone();
        cx.instance.task_state = Some(TaskState::Scheduling);
        Ok(())
    }
}

/// Has the host make and start the guest.
pub struct Spawn;

#[async_trait]
impl Step for Spawn {
    fn name(&self) -> &'static str {
        "spawn"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if let (Some(action), Some(host)) = (&mut cx.action, cx.instance.host.as_ref()) {
            action.begin_event(BUILD_EVENT, Some(host.as_str()), cx.now);
        }
        let vifs = vifs_here(services, cx).await?;
        // An order that goes out again is the same: the guest may stand still by now.
        if !cx.repeated {
            cx.task.awaited = awaited(services, &vifs);
        }
        let held = cx.task.awaited.is_some();
        let volumes = match cx.instance.host.clone() {
            Some(host) => volumes_on(services, cx, &host).await?,
            None => Vec::new(),
        };
        let mut order = BuildOrder { vifs, held, volumes, ..order(services, cx) };
        order.placement = booked(services, cx).await?;
        Ok(Ran::Ordered(StagedOrder::Build(Box::new(order))))
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        if let Some(host) = cx.instance.host.clone() {
            not_on(services, cx, &host).await?;
        }
        let failure = nova_core::task::outcome_of(&cx.task.work.plan(), &cx.task.log);
        if let Some(action) = &mut cx.action {
            let error = failure.as_ref().map_or_else(|| "undone".to_owned(), |f| f.details.clone());
            action.finish_event(BUILD_EVENT, Some(error), cx.now);
        }
        // A host that reported its failure has nothing left of the guest. One that was given up may have: it is told,
        // and finds out by itself otherwise, since the guest is no longer assigned to it.
        if failure.is_some_and(|f| !f.retryable)
            && let Some(host) = cx.task.host().cloned()
        {
            cx.instance.epoch += 1;
            cx.stage_removal(host);
        }
        Ok(())
    }
}

/// The cells, CPUs and pages that were booked for it. Of a booking that waits for the next commit, that commit says them.
pub(super) async fn booked(services: &Services, cx: &TaskContext) -> Result<Option<Placement>, StepError> {
    let (false, Some(host)) = (cx.books(), &cx.instance.host) else { return Ok(None) };
    placement_on(services, &cx.instance, host).await
}

/// The cells, CPUs and pages of a host that were booked for the instance as it is there.
pub(super) async fn placement_on(
    services: &Services,
    instance: &Instance,
    host: &HostName,
) -> Result<Option<Placement>, StepError> {
    if instance.topology().is_none() {
        return Ok(None);
    }
    let read = services.store.list_allocations(Some(host)).await;
    let held = read.map_err(|error| StepError::Later(chain(&error)))?;
    let own = held.into_iter().find(|allocation| allocation.instance_id == instance.id);
    match own.and_then(|allocation| allocation.placement) {
        Some(placement) => Ok(Some(placement)),
        // A guest that asked for CPUs of its own must not be made without.
        None => Err(StepError::fatal(500, "Internal error.", format!("no CPUs are booked for it on {host}"))),
    }
}

/// What a host must know to make this guest. The grant ends with the task: whatever the host does later is undone.
pub(super) fn order(services: &Services, cx: &TaskContext) -> BuildOrder {
    order_for(services, cx, &cx.instance)
}

/// The same of the instance as it will be.
pub(super) fn order_for(services: &Services, cx: &TaskContext, instance: &Instance) -> BuildOrder {
    let own_keys = || instance.key_name.clone().zip(instance.key_data.clone()).into_iter().collect();
    let (keys, admin_password) = match &cx.task.work {
        Work::Build { keys, admin_password, .. } => (keys.clone(), admin_password.clone()),
        Work::Rescue { admin_password, .. } | Work::Rebuild { admin_password, .. } => {
            (own_keys(), admin_password.clone())
        }
        Work::Move(Move::Evacuate { admin_password, .. }) => (own_keys(), admin_password.clone()),
        Work::Move(_) => (own_keys(), None),
        _ => Default::default(),
    };
    let flavor = &instance.flavor;
    let options = services.options.get();
    BuildOrder {
        name: options.instance_name(instance.number, instance.id),
        display_name: instance.display_name.clone(),
        hostname: instance.hostname.clone(),
        project_id: instance.project_id.to_string(),
        user_id: instance.user_id.to_string(),
        flavor_name: flavor.name.clone(),
        vcpus: flavor.vcpus,
        memory_mb: flavor.memory_mb,
        root_gb: flavor.root_gb,
        ephemeral_gb: flavor.ephemeral_gb,
        ephemerals_gb: instance.ephemerals_gb(),
        swap_mb: instance.swap_mb(),
        resources: Some(instance.booked_resources()),
        image: instance.image.clone(),
        image_properties: instance.volume_image.clone(),
        image_grant: instance.image.as_ref().map(|image| services.image_grants.grant(image.id, cx.task.deadline)),
        config_drive: instance.config_drive,
        keys,
        user_data: instance.user_data.clone(),
        metadata: instance.metadata.clone(),
        admin_password,
        availability_zone: instance.availability_zone.as_ref().map(ToString::to_string),
        launch_index: instance.launch_index,
        reservation_id: instance.reservation_id.to_string(),
        number: instance.number,
        domain: options.guests.domain.clone(),
        security_groups: crate::metadata::security_groups(instance),
        vendor_data: options.guests.vendor_data.clone(),
        extra_specs: flavor.extra_specs.clone(),
        placement: None,
        vifs: Vec::new(),
        held: false,
        volumes: Vec::new(),
        earlier_console: String::new(),
    }
}

/// A host is out of the question: the failure that sends a build to its next candidate.
pub fn lost(details: String) -> Failure {
    let message = "No valid host was found. There are not enough hosts available.".into();
    Failure { code: 500, message, details, retryable: true }
}
