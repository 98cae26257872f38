//! Moves between hosts (nova/conductor/tasks/, nova/compute/manager.py): see [`nova_core::task::Move`].
//!
//! | file | what |
//! |---|---|
//! | `book` | a destination is found and booked, and its part of the network made ready |
//! | `resize` | resize and cold migration, their confirmation and their way back |
//! | `evacuate` | a server is made anew elsewhere, as its host is down |
//! | `live` | the guest moves while it runs |
//! | `shelve` | off its host as an image, and on one again |
//! | `ends` | what a move leaves behind when it is over |

mod book;
mod ends;
mod evacuate;
mod live;
mod resize;
mod shelve;

pub(crate) use ends::{SHELVED_AT, SHELVED_IMAGE};
pub(in crate::conductor) use ends::{ended_by_deletion, history_of, moved, not_moved};

use nova_core::error::chain;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::migration::{Migration, MigrationStatus};
use nova_core::network::Vif;
use nova_core::rpc::compute::{BuildOrder, MoveInstance, MoveOrder};
use nova_core::task::{Entry, Event, Move, Work};
use nova_db::ServiceQuery;

use super::build::{order_for, placement_on};
use super::network::failed;
use super::volumes::{arrived_on, back_on, not_on, only_on, volumes_on};
use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};
use crate::conductor::engine::signed;

/// The steps of all moves.
pub(super) const STEPS: [&dyn Step; 19] = [
    &book::SelectHost,
    &book::BookHost,
    &resize::PrepareMove,
    &resize::StashSource,
    &resize::FinishMove,
    &resize::DropSource,
    &resize::LeaveDestination,
    &resize::ReturnToSource,
    &evacuate::RebuildThere,
    &live::Queue,
    &live::PrepareIncoming,
    &live::LiveMigrate,
    &live::AdoptIncoming,
    &shelve::ShelveStop,
    &shelve::Offload,
    &shelve::UnbindPorts,
    &shelve::LeaveDoubtful,
    &shelve::UnshelveThere,
    &shelve::DropShelvedImage,
];

/// The step that books a host.
pub(in crate::conductor) const fn booking_of(work: &Work) -> &'static str {
    match work {
        Work::Move(_) => "book_host",
        _ => "claim",
    }
}

/// There is no way back from here: a host that fails is asked again, until the task's deadline.
pub(in crate::conductor) fn must_be_done(step: &str) -> bool {
    matches!(step, "drop_source" | "leave_destination" | "return_to_source" | "adopt_incoming" | "offload")
}

/// The move that the task makes.
fn the_move(cx: &TaskContext) -> Result<&Move, StepError> {
    cx.task.work.as_move().ok_or_else(|| StepError::fatal(500, "This task does not move.", ""))
}

/// Its record.
fn record(cx: &TaskContext) -> Result<&Migration, StepError> {
    cx.migration.as_ref().ok_or_else(|| StepError::fatal(500, "Internal error.", "the record of the move is gone"))
}

fn destination(cx: &TaskContext) -> Result<HostName, StepError> {
    let host = record(cx)?.dest_compute.clone();
    host.ok_or_else(|| StepError::fatal(500, "Internal error.", "the move has no destination"))
}

fn set_status(cx: &mut TaskContext, status: MigrationStatus) {
    if let Some(migration) = &mut cx.migration {
        migration.status = status;
    }
}

/// Has a host do its part; its report ends the step.
fn ordered(cx: &mut TaskContext, host: HostName, order: MoveOrder) -> Ran {
    cx.renew_epoch();
    if let Some(migration) = &mut cx.migration {
        migration.ordered_of = Some(host);
    }
    Ran::Ordered(StagedOrder::of::<MoveInstance, _>(order))
}

fn begin(cx: &mut TaskContext, event: &str, host: &HostName) {
    if let Some(action) = &mut cx.action {
        action.begin_event(event, Some(host.as_str()), cx.now);
    }
}

fn end(cx: &mut TaskContext, event: &str, error: Option<String>) {
    let open = |action: &nova_core::action::ActionRecord| {
        action.events.iter().any(|known| known.event == event && known.finished.is_none())
    };
    if let Some(action) = cx.action.as_mut().filter(|action| open(action)) {
        action.finish_event(event, error, cx.now);
    }
}

/// One end of a move. Both may be on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Where the server was.
    Source,
    /// Where it goes.
    Destination,
}

/// The instance as it is, or will be, at that end.
fn as_at(cx: &TaskContext, end: End) -> Result<Instance, StepError> {
    let migration = record(cx)?;
    let (host, flavor) = match end {
        End::Source => (migration.source_compute.clone(), &migration.old_flavor),
        End::Destination => (destination(cx)?, &migration.new_flavor),
    };
    Ok(Instance { flavor: flavor.clone(), host: Some(host), ..cx.instance.clone() })
}

/// What the host at that end is told of the instance. It holds what is booked there.
fn order_at(services: &Services, cx: &TaskContext, end: End) -> Result<BuildOrder, StepError> {
    let (instance, migration) = (as_at(cx, end)?, record(cx)?);
    let order = order_for(services, cx, &instance);
    match (end, &instance.host) {
        (End::Destination, Some(host)) => {
            Ok(BuildOrder { resources: Some(migration.held_on(&instance, host)), ..order })
        }
        _ => Ok(order),
    }
}

/// What a host must know to make the guest there, with its ports bound to it, and let to its volumes.
async fn guest_at(services: &Services, cx: &mut TaskContext, end: End) -> Result<Box<BuildOrder>, StepError> {
    let instance = as_at(cx, end)?;
    let host = instance.host.clone().map_or_else(|| destination(cx), Ok)?;
    let placement = placement_on(services, &instance, &host).await?;
    let vifs = bind(services, cx, &host).await?;
    let volumes = volumes_on(services, cx, &host).await?;
    Ok(Box::new(BuildOrder { placement, vifs, volumes, ..order_at(services, cx, end)? }))
}

/// Does the server stay on its host?
fn stays(cx: &TaskContext) -> bool {
    cx.migration.as_ref().is_some_and(Migration::same_host)
}

/// The server's interfaces, bound to that host. A call that comes twice changes nothing.
async fn bind(services: &Services, cx: &TaskContext, host: &HostName) -> Result<Vec<Vif>, StepError> {
    let Some(network) = &services.network else { return Ok(Vec::new()) };
    let (context, id) = (&cx.task.context, cx.instance.id);
    let message = |why: &str| format!("The network(s) could not follow the server: {why}");
    let found = network.interfaces(context, &[id]).await.map_err(|error| failed(error, message))?;
    if found.iter().all(|(_, vif)| vif.host.as_ref() == Some(host)) {
        return Ok(found.into_iter().map(|(_, vif)| vif).collect());
    }
    network.bind(context, id, Some(host)).await.map_err(|error| failed(error, message))
}

/// Was the host's service heard of lately, and not declared dead?
pub(super) async fn is_up(services: &Services, cx: &TaskContext, host: &HostName) -> Result<bool, StepError> {
    let down_time = signed(services.options.get().service_down_time);
    let found = services.store.find_services(&ServiceQuery::computes([host])).await;
    let found = found.map_err(|error| StepError::Later(chain(&error)))?;
    Ok(found.iter().any(|service| service.is_up(cx.now, down_time)))
}

/// Does its operator vouch that the host is off?
pub(super) async fn is_declared_dead(services: &Services, host: &HostName) -> Result<bool, StepError> {
    let found = services.store.find_services(&ServiceQuery::computes([host])).await;
    let found = found.map_err(|error| StepError::Later(chain(&error)))?;
    Ok(found.iter().any(|service| service.forced_down))
}

/// Did the guest run before the move?
fn ran_before(cx: &TaskContext) -> Result<bool, StepError> {
    Ok(record(cx)?.old_vm_state == nova_core::state::VmState::Active)
}

/// Has the guest left its source alive? Then it is at the destination, whatever else fails.
fn has_left(cx: &TaskContext) -> bool {
    let done = |entry: &Entry| entry.step == "live_migrate" && entry.event == Event::Done;
    cx.task.log.iter().any(done)
}

/// Was a step given up while its host did not answer? Then something may run where nobody looks.
fn was_abandoned(cx: &TaskContext) -> bool {
    cx.task.log.iter().any(|entry| entry.event == Event::Abandoned)
}
