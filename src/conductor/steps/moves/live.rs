//! Live migration (nova/conductor/tasks/live_migrate.py; nova/compute/manager.py, `pre_live_migration`, `live_migration`,
//! `post_live_migration_at_destination`).
//!
//! Until the source says that the guest has left, it runs there, and whatever fails leaves it so.

use async_trait::async_trait;
use nova_core::migration::{Migration, MigrationStatus};
use nova_core::rpc::compute::MoveOrder;
use nova_core::task::Move;
use nova_db::MigrationQuery;

use super::{
    End, as_at, begin, destination, end, failed, guest_at, has_left, order_at, ordered, record, set_status, the_move,
    was_abandoned,
};
use crate::conductor::context::TaskContext;
use crate::conductor::steps::{Ran, Services, Step, StepError};
use nova_core::error::chain;

/// Waits until it is its turn to leave the host (`max_concurrent_live_migrations`), in the order in which they were asked for.
pub struct Queue;

/// How many live migrations left that host before this one and are not over.
async fn before(services: &Services, cx: &TaskContext) -> Result<usize, StepError> {
    let own = record(cx)?;
    let query = MigrationQuery { source_compute: Some(own.source_compute.clone()), ..MigrationQuery::open() };
    let open = services.store.list_migrations(&query).await.map_err(|error| StepError::Later(chain(&error)))?;
    Ok(open.iter().filter(|other| other.migration_type == own.migration_type && other.id < own.id).count())
}

/// Somebody has ended it before the guest was sent.
fn refuse_aborted(cx: &TaskContext) -> Result<(), StepError> {
    match record(cx)?.aborted {
        true => Err(StepError::fatal(400, "The live migration was cancelled.", "aborted by request")),
        false => Ok(()),
    }
}

#[async_trait]
impl Step for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        refuse_aborted(cx)?;
        let at_once = services.options.get().moves.max_concurrent_live_migrations;
        if at_once == 0 || before(services, cx).await? < at_once {
            return Ok(Ran::Done);
        }
        let own = record(cx)?.clone();
        if own.status != MigrationStatus::Queued {
            let queued = Migration { status: MigrationStatus::Queued, updated_at: Some(cx.now), ..own };
            let written = services.store.update_migration(queued, None).await;
            written.map_err(|error| StepError::Later(chain(&error)))?;
        }
        Err(StepError::Later("other live migrations leave the host first".into()))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Has the destination say whether it can take the guest, and where it is to be sent.
pub struct PrepareIncoming;

#[async_trait]
impl Step for PrepareIncoming {
    fn name(&self) -> &'static str {
        "prepare_incoming"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        refuse_aborted(cx)?;
        let host = destination(cx)?;
        begin(cx, "compute_pre_live_migration", &host);
        set_status(cx, MigrationStatus::Preparing);
        let instance = as_at(cx, End::Destination)?;
        let placement = super::placement_on(services, &instance, &host).await?;
        expect(services, cx, Some(&host)).await?;
        let vifs = current_vifs(services, cx).await?;
        let volumes = super::volumes_on(services, cx, &host).await?;
        let guest = order_at(services, cx, End::Destination)?;
        let guest = nova_core::rpc::compute::BuildOrder { placement, vifs, volumes, ..guest };
        Ok(ordered(cx, host, MoveOrder::PrepareIncoming(Box::new(guest))))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = destination(cx)?;
        end(cx, "compute_pre_live_migration", Some("undone".into()));
        if has_left(cx) {
            return Ok(Ran::Done);
        }
        expect(services, cx, None).await?;
        // Its source did not say where the guest is: what has come is not thrown away.
        let order = if was_abandoned(cx) { MoveOrder::LeaveUnlessCome } else { MoveOrder::Leave };
        Ok(ordered(cx, host, order))
    }
}

/// The server's ports are to be ready on that host, too; or no longer. A call that comes twice changes nothing.
async fn expect(
    services: &Services,
    cx: &TaskContext,
    host: Option<&nova_core::ids::HostName>,
) -> Result<(), StepError> {
    let Some(network) = &services.network else { return Ok(()) };
    let prepared = network.prepare_binding(&cx.task.context, cx.instance.id, host).await;
    prepared.map_err(|error| failed(error, |why| format!("The network(s) could not get ready for the server: {why}")))
}

/// The interfaces where they are: they follow once the guest has left.
async fn current_vifs(services: &Services, cx: &TaskContext) -> Result<Vec<nova_core::network::Vif>, StepError> {
    let Some(network) = &services.network else { return Ok(Vec::new()) };
    let found = network.interfaces(&cx.task.context, &[cx.instance.id]).await;
    Ok(found.map_err(|error| StepError::Later(chain(&error)))?.into_iter().map(|(_, vif)| vif).collect())
}

/// Has the source send the guest.
pub struct LiveMigrate;

#[async_trait]
impl Step for LiveMigrate {
    fn name(&self) -> &'static str {
        "live_migrate"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Move::LiveMigrate { block, .. } = the_move(cx)?.clone() else {
            return Err(StepError::fatal(500, "This task does not migrate.", ""));
        };
        refuse_aborted(cx)?;
        let options = services.options.get();
        let (host, to) = {
            let record = record(cx)?;
            let to = record.answers.get("prepare_incoming").cloned().unwrap_or_default();
            (record.source_compute.clone(), to)
        };
        end(cx, "compute_pre_live_migration", None);
        begin(cx, "compute_live_migration", &host);
        set_status(cx, MigrationStatus::Running);
        let limits = options.moves.limits(&cx.instance.flavor);
        Ok(ordered(cx, host, MoveOrder::LiveMigrate { to, block, limits }))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }

    async fn take_back(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = record(cx)?.source_compute.clone();
        end(cx, "compute_live_migration", Some("undone".into()));
        if has_left(cx) {
            return Ok(Ran::Done);
        }
        Ok(ordered(cx, host, MoveOrder::StopLiveMigration))
    }
}

/// The guest runs at its destination, which writes down that it is its own.
pub struct AdoptIncoming;

#[async_trait]
impl Step for AdoptIncoming {
    fn name(&self) -> &'static str {
        "adopt_incoming"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let host = destination(cx)?;
        end(cx, "compute_live_migration", None);
        begin(cx, "compute_post_live_migration_at_destination", &host);
        let mut guest = guest_at(services, cx, End::Destination).await?;
        // What its source said at the end.
        let said = record(cx)?.answers.get("live_migrate").and_then(|answer| answer["console"].as_str());
        guest.earlier_console = said.unwrap_or_default().to_owned();
        Ok(ordered(cx, host, MoveOrder::Adopt(guest)))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
