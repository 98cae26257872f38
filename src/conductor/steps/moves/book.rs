//! A destination is found and booked, while the source keeps its allocation.

use async_trait::async_trait;
use nova_core::compatibility::obstacle;
use nova_core::error::chain;
use nova_core::host::ComputeNode;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::migration::Migration;
use nova_core::request::RequestSpec;
use nova_core::task::Move;
use nova_db::StoreError;

use super::super::build::select;
use super::ends::DOUBTFUL_HOST;
use super::{arrived_on, back_on, begin, has_left, not_on, record, stays, the_move, was_abandoned};
use crate::conductor::context::TaskContext;
use crate::conductor::steps::{Ran, Services, Step, StepError};

/// Asks the scheduler where to.
pub struct SelectHost;

#[async_trait]
impl Step for SelectHost {
    fn name(&self) -> &'static str {
        "select_host"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if matches!(the_move(cx)?, Move::Unshelve { .. }) {
            // Nothing of it is on the host that was asked, if one was.
            cx.instance.host = None;
            cx.instance.system_metadata.remove(DOUBTFUL_HOST);
        }
        let spec = the_move(cx)?.spec();
        let spec = spec.ok_or_else(|| StepError::fatal(500, "Internal error.", "nothing is asked of the scheduler"))?;
        let tries = services.options.get().max_attempts.max(1);
        let alone = RequestSpec { instances: vec![cx.instance.id], alternates: tries - 1, ..spec.clone() };
        let mut selections = select(services, cx, &alone).await?;
        let selection = selections.pop().ok_or_else(|| StepError::Later("the scheduler selected nothing".into()))?;
        cx.task.alternates = std::iter::once(selection.chosen).chain(selection.alternates).take(tries).collect();
        Ok(Ran::Done)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        cx.task.alternates.clear();
        // An evacuation shuts its source out before it knows how it ends. There the server is still.
        let evacuates = matches!(the_move(cx)?, Move::Evacuate { .. });
        let source = cx.migration.as_ref().map(|migration| migration.source_compute.clone());
        if let Some(source) = source.filter(|_| evacuates) {
            back_on(services, cx, &source).await?;
        }
        Ok(())
    }
}

/// Nova's name for its part of the action.
const PREFLIGHT: &str = "conductor_live_migrate_instance";

/// Candidates on which a running guest can't go on are not tried. When none is left, it is said of each what is in the way, before
/// anything was begun (Nova's `MigrationPreCheckError`). Hosts are named to administrators only.
async fn leave_out_unfit(services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
    if !matches!(the_move(cx)?, Move::LiveMigrate { .. }) {
        return Ok(());
    }
    let source = record(cx)?.source_compute.clone();
    let Some(here) = node_of(services, &source).await? else { return Ok(()) };
    let (mut fit, mut reasons) = (Vec::new(), Vec::new());
    for candidate in std::mem::take(&mut cx.task.alternates) {
        // One that has not said what it is, is asked.
        let there = node_of(services, &candidate.host).await?;
        match there.and_then(|there| obstacle(&here, &there)) {
            None => fit.push(candidate),
            Some(obstacle) => reasons.push(format!("{}: {obstacle}", candidate.host)),
        }
    }
    if fit.is_empty() {
        begin(cx, PREFLIGHT, &source);
        let message = "Migration pre-check error: no host that has room can take the server over while it runs.";
        return Err(StepError::fatal(400, message, reasons.join("; ")));
    }
    if !reasons.is_empty() {
        tracing::info!(instance = %cx.instance.id, "hosts that cannot take it over while it runs: {}", reasons.join("; "));
    }
    cx.task.alternates = fit;
    Ok(())
}

async fn node_of(services: &Services, host: &HostName) -> Result<Option<ComputeNode>, StepError> {
    match services.store.node_of_host(host).await {
        Ok(node) => Ok(Some(node)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(StepError::Later(chain(&error))),
    }
}

/// Books the next candidate.
pub struct BookHost;

#[async_trait]
impl Step for BookHost {
    fn name(&self) -> &'static str {
        "book_host"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        // A scheduler may not have heard yet where it is.
        let source = cx.migration.as_ref().map(|migration| migration.source_compute.clone());
        if !the_move(cx)?.spec().is_some_and(|spec| spec.may_stay) {
            cx.task.alternates.retain(|candidate| Some(&candidate.host) != source.as_ref());
        }
        if cx.task.alternates.is_empty() {
            let message = "No valid host was found. There are not enough hosts available.";
            return Err(StepError::fatal(500, message, "each candidate was tried"));
        }
        leave_out_unfit(services, cx).await?;
        let chosen = cx.task.alternates.remove(0);
        match &cx.migration {
            // Of one that stays, both sizes are kept room for: no more than the larger, as one of both is off.
            Some(migration) => {
                let there = Instance { flavor: migration.new_flavor.clone(), ..cx.instance.clone() };
                let bound = Migration { dest_compute: Some(chosen.host.clone()), ..migration.clone() };
                let resources = bound.held_on(&there, &chosen.host);
                cx.stage_booking_as(&chosen, &there, resources);
            }
            None => cx.stage_booking(&chosen),
        }
        let node = services.store.node_of_host(&chosen.host).await.ok();
        match &mut cx.migration {
            Some(migration) => {
                migration.dest_compute = Some(chosen.host.clone());
                migration.dest_node = Some(chosen.node.clone());
                migration.dest_host = node.map(|node| node.host_ip);
            }
            // It is on no host, so that there is no record: it is on the new one from now on.
            None => {
                cx.instance.host = Some(chosen.host.clone());
                cx.instance.node = Some(chosen.node.clone());
                cx.instance.availability_zone = Some(chosen.zone.clone());
            }
        }
        cx.task.destination = Some(chosen);
        Ok(Ran::Written)
    }

    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError> {
        match cx.task.destination.as_ref().map(|there| there.host.clone()).filter(|_| !stays(cx)) {
            // The guest is there, whatever failed after it came.
            Some(host) if has_left(cx) => arrived_on(services, cx, &host).await?,
            Some(host) => not_on(services, cx, &host).await?,
            None => {}
        }
        if let Some(there) = cx.task.destination.as_ref().filter(|_| cx.migration.is_none() && was_abandoned(cx)) {
            // It did not say that nothing of the guest is left there.
            let host = there.host.to_string();
            cx.instance.system_metadata.insert(DOUBTFUL_HOST.to_owned(), host);
        }
        // A guest that runs there keeps its place.
        if let Some(destination) = cx.task.destination.take().filter(|_| !has_left(cx)) {
            let stays = stays(cx);
            if !cx.books() {
                // Whoever began something there has nothing to do any more; the guest is nobody's there.
                cx.instance.epoch += 1;
                if !stays {
                    cx.stage_removal(destination.host.clone());
                }
            }
            if stays {
                // It is there as it was.
                cx.stage_booking(&destination);
            } else {
                cx.stage_release(destination.host);
            }
        }
        if let Some(migration) = &mut cx.migration {
            migration.ordered_of = None;
        } else {
            (cx.instance.host, cx.instance.node) = (None, None);
            cx.instance.availability_zone = cx.instance.pinned_availability_zone.clone();
        }
        Ok(())
    }
}
