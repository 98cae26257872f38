//! The conductor's orders: each is carried out in the instance's turn, then reported, then acknowledged.

use std::time::Duration;

use nova_core::ids::{InstanceId, PortId};
use nova_core::rpc::compute::{
    AttachInterface, BuildAndRunInstance, BuildOrder, CacheImage, CacheImageReply, CacheImageRequest, ConsoleOutput,
    ConsoleOutputRequest, DetachInterface, GetConsoleOutput, MoveInstance, MoveOrder, NetworkChanged, Order, Ping,
    RebootInstance, StartInstance, SteerLiveMigration, StopInstance, TerminateInstance,
};
use nova_core::rpc::conductor::{ReportStep, ReportStepRequest, StepOutcome, Verdict};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_queue::{Dispatcher, HandlerError, Incoming};
use nova_virt::{ErrorKind, HypervisorError, RebootKind};
use tokio::sync::Semaphore;

use crate::agent::Agent;
use crate::diagnostics::refusal;
use crate::instances::Admission;
use crate::stats::Stats;
use crate::steps::{BuildContext, BuildError, Found, STEPS, Step};
use nova_core::error::chain;

/// Tries to tell the conductor how an order went. After them, the conductor gives the order again.
const REPORT_TRIES: u32 = 5;
/// Tries to remove what a failed build has left.
const UNDO_TRIES: u32 = 4;

impl Agent {
    pub(crate) fn dispatcher(&self) -> Dispatcher {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = std::array::from_fn(|_| self.clone());
        let dispatcher = self
            .console_calls(self.diagnostics_calls(self.life_orders(self.volume_orders(Dispatcher::new("compute")))));
        dispatcher
            .method::<BuildAndRunInstance, _, _>(move |incoming, order| {
                let agent = a.clone();
                async move {
                    let slots = Some((&*agent.builds, &agent.stats));
                    agent.carry_out(incoming, &order, slots, agent.build(&order)).await
                }
            })
            .method::<TerminateInstance, _, _>(move |incoming, order| {
                let agent = b.clone();
                async move {
                    agent.stop_leaving(order.instance_id, order.epoch).await;
                    agent.stop_swapping(order.instance_id, order.epoch);
                    agent.carry_out(incoming, &order, None, agent.terminate(&order)).await
                }
            })
            .method::<StartInstance, _, _>(move |incoming, order| {
                let agent = c.clone();
                async move {
                    let work = agent.hypervisor.power_on(order.instance_id);
                    let work = agent.then_power(&order, work, "The server could not be started.");
                    agent.carry_out(incoming, &order, None, work).await
                }
            })
            .method::<StopInstance, _, _>(move |incoming, order| {
                let agent = d.clone();
                async move {
                    agent.stop_swapping(order.instance_id, order.epoch);
                    let work = agent.hypervisor.power_off(order.instance_id, order.body.graceful);
                    let work = agent.then_power(&order, work, "The server could not be stopped.");
                    agent.carry_out(incoming, &order, None, work).await
                }
            })
            .method::<RebootInstance, _, _>(move |incoming, order| {
                let agent = e.clone();
                async move {
                    agent.stop_swapping(order.instance_id, order.epoch);
                    let kind = if order.body.hard { RebootKind::Hard } else { RebootKind::Soft };
                    let work = agent.hypervisor.reboot(order.instance_id, kind);
                    let work = agent.then_power(&order, work, "The server could not be rebooted.");
                    agent.carry_out(incoming, &order, None, work).await
                }
            })
            .method::<GetConsoleOutput, _, _>(move |_, request| {
                let agent = f.clone();
                async move { agent.console_output(&request).await }
            })
            .method::<CacheImage, _, _>(move |_, request| {
                let agent = g.clone();
                async move { agent.cache_image(&request).await }
            })
            .method::<AttachInterface, _, _>(move |incoming, order| {
                let agent = h.clone();
                async move { agent.carry_out(incoming, &order, None, agent.attach_interface(&order)).await }
            })
            .method::<DetachInterface, _, _>(move |incoming, order| {
                let agent = i.clone();
                async move { agent.carry_out(incoming, &order, None, agent.detach_interface(&order)).await }
            })
            .method::<MoveInstance, _, _>(move |incoming, order| {
                let agent = k.clone();
                async move {
                    if order.body == MoveOrder::StopLiveMigration {
                        agent.stop_leaving(order.instance_id, order.epoch).await;
                    }
                    agent.carry_out(incoming, &order, None, agent.part_of_move(&order)).await
                }
            })
            .method::<SteerLiveMigration, _, _>(move |_, request| {
                let agent = l.clone();
                async move { agent.steer(&request).await }
            })
            .method::<NetworkChanged, _, _>(move |_, ()| {
                j.network.changed();
                async { Ok(()) }
            })
            .method::<Ping, _, _>(|_, ()| async { Ok(()) })
    }

    async fn cache_image(&self, request: &CacheImageRequest) -> Result<CacheImageReply, HandlerError> {
        match self.images.fetched(&request.image, Some(&request.grant)).await {
            Ok((_, existed)) => Ok(CacheImageReply { existed }),
            Err(error) => Err(Refusal::new(RefusalKind::Failed, chain(&error)).into()),
        }
    }

    pub(crate) async fn carry_out<T>(
        &self,
        incoming: Incoming,
        order: &Order<T>,
        slots: Option<(&Semaphore, &Stats)>,
        work: impl Future<Output = StepOutcome>,
    ) -> Result<(), HandlerError> {
        let (id, epoch) = (order.instance_id, order.epoch);
        let in_hand = match self.instances.admit(order.task_id, id, epoch) {
            Admission::Work(in_hand) => in_hand,
            Admission::Doubled => return Ok(()),
            Admission::Ended(outcome) => {
                self.report(&incoming, order, outcome).await;
                return Ok(());
            }
            Admission::Late => {
                tracing::info!(instance = %id, epoch, "an order came too late");
                return Ok(());
            }
        };
        if self.hearing.doubts(order.given, self.clock.now()) && !self.still_wanted(order).await? {
            return Ok(());
        }
        // Builds that wait count as well, as in Nova.
        let _busy = slots.map(|(_, stats)| stats.begin());
        // The slot before the turn: an order that waits for a slot must not keep the instance's other orders waiting.
        let slot = match slots {
            Some((slots, _)) => slots.acquire().await.ok(),
            None => None,
        };
        let turn = in_hand.turn.clone();
        let _turn = turn.lock().await;
        if self.instances.overtaken(id, epoch) {
            return Ok(());
        }
        let outcome = work.await;
        // Others may build while no conductor listens.
        drop(slot);
        if let StepOutcome::Failed { message, details, .. } = &outcome {
            tracing::warn!(instance = %id, task = %order.task_id, "{message} ({details})");
        }
        in_hand.ended(&outcome);
        self.report(&incoming, order, outcome).await;
        Ok(())
    }

    /// An order from before this process started may be a copy of one that ended then, and one from before the host was
    /// heard of again may be of a server that is elsewhere by now: the conductor knows.
    async fn still_wanted<T>(&self, order: &Order<T>) -> Result<bool, HandlerError> {
        use nova_core::rpc::conductor::{ListAssigned, ListAssignedRequest};
        let request = ListAssignedRequest { host: self.options.host.clone() };
        let assigned = self.rpc.call::<ListAssigned>(&self.context(), &request).await;
        let assigned = assigned.map_err(|error| HandlerError::Again(chain(&error)))?;
        let wanted = assigned.iter().any(|a| a.instance_id == order.instance_id && a.epoch == order.epoch);
        if !wanted {
            tracing::info!(instance = %order.instance_id, "an order is no longer wanted");
        }
        Ok(wanted)
    }

    async fn report<T>(&self, incoming: &Incoming, order: &Order<T>, outcome: StepOutcome) {
        let (task_id, instance_id, epoch) = (order.task_id, order.instance_id, order.epoch);
        let alive = Some(self.options.zone.clone());
        let report = ReportStepRequest { task_id, instance_id, epoch, outcome, alive };
        let mut wait = Duration::from_millis(200);
        for _ in 0..REPORT_TRIES {
            match self.rpc.call::<ReportStep>(&incoming.context, &report).await {
                Ok(Verdict::Recorded) => return,
                Ok(Verdict::RecordedAlive) => return self.was_heard(),
                Ok(Verdict::Stale) => {
                    tracing::info!(instance = %instance_id, task = %task_id, "the report came too late");
                    return self.drop_if_unassigned(order).await;
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(task = %task_id, "the report was not heard yet: {}", chain(&error));
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => {
                    return tracing::error!(task = %task_id, "the report was refused: {}", chain(&error));
                }
            }
        }
    }

    /// A guest that was made for a task that is over may belong to nobody: the conductor says.
    async fn drop_if_unassigned<T>(&self, order: &Order<T>) {
        use nova_core::rpc::conductor::{ListAssigned, ListAssignedRequest};
        let request = ListAssignedRequest { host: self.options.host.clone() };
        // Without an answer now, the next comparison finds it.
        let Ok(assigned) = self.rpc.call::<ListAssigned>(&self.context(), &request).await else { return };
        if assigned.iter().any(|a| a.instance_id == order.instance_id) {
            return;
        }
        match self.remove_guest(order.instance_id).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(instance = %order.instance_id, "it was not removed: {}", chain(&error)),
        }
    }

    async fn build(&self, order: &Order<BuildOrder>) -> StepOutcome {
        let mut cx =
            BuildContext { agent: self, order, claim: None, base: None, interfaces: Vec::new(), guest: Found::Unknown };
        for (begun, step) in STEPS.iter().enumerate() {
            let Err(error) = step.run(&mut cx).await else { continue };
            let clean = undo(&mut cx, &STEPS[..=begun]).await;
            if error.is_the_hosts() {
                self.stats.build_failed(self.options.build_failure_threshold);
            }
            // A guest that was here before is not ours to remove, and must not be followed by another one.
            return failed(&error, clean && cx.guest != Found::Guest);
        }
        if let Some(claim) = cx.claim.take() {
            claim.keep();
        }
        self.stats.build_succeeded();
        let done = self.done(order, self.plugged(&order.body.vifs)).await;
        self.placed(order.instance_id, order.body.has_tags(), done).await
    }

    async fn terminate(&self, order: &Order<()>) -> StepOutcome {
        match self.remove_guest(order.instance_id).await {
            Ok(()) => StepOutcome::done(None),
            Err(error) => StepOutcome::Failed {
                message: "The server could not be removed from its host.".into(),
                details: chain(&error),
                retryable: false,
            },
        }
    }

    /// Removes a guest and what the host holds for it.
    pub(crate) async fn remove_guest(&self, id: InstanceId) -> Result<(), HypervisorError> {
        self.hypervisor.destroy(id).await?;
        if self.hypervisor.capabilities().migrate {
            self.hypervisor.drop_stash(id).await?;
        }
        self.exports.end(id).await;
        self.network.gone(id).await;
        self.tracker.release(id);
        self.instances.removed(id, self.clock.now());
        Ok(())
    }

    async fn then_power<T>(
        &self,
        order: &Order<T>,
        work: impl Future<Output = Result<(), HypervisorError>>,
        message: &str,
    ) -> StepOutcome {
        match work.await {
            Ok(()) => self.done(order, Vec::new()).await,
            Err(error) => StepOutcome::Failed { message: message.to_owned(), details: chain(&error), retryable: false },
        }
    }

    pub(crate) async fn done<T>(&self, order: &Order<T>, plugged: Vec<PortId>) -> StepOutcome {
        let power_state = self.hypervisor.info(order.instance_id).await.ok().map(|guest| guest.power_state);
        StepOutcome::Done { power_state, plugged, devices: None }
    }

    /// Adds to what was done where the guest has its devices. It is told of them only where one has a tag; otherwise nobody asks
    /// the driver.
    pub(crate) async fn placed(&self, id: InstanceId, tagged: bool, outcome: StepOutcome) -> StepOutcome {
        match outcome {
            StepOutcome::Done { power_state, plugged, devices: None } if tagged => {
                let devices = match self.hypervisor.devices(id).await {
                    Ok(places) => Some(places),
                    Err(error) if error.kind() == ErrorKind::Unsupported => None,
                    Err(error) => {
                        tracing::warn!(instance = %id, "it is not known where its devices are: {}", chain(&error));
                        None
                    }
                };
                StepOutcome::Done { power_state, plugged, devices }
            }
            other => other,
        }
    }

    async fn console_output(&self, request: &ConsoleOutputRequest) -> Result<ConsoleOutput, HandlerError> {
        let log = self.hypervisor.console_log(request.instance_id).await.map_err(|error| refusal(&error))?;
        Ok(ConsoleOutput { output: tail(&String::from_utf8_lossy(&log), request.length) })
    }
}

/// A host that may still have something of the guest must not be followed by another: the guest could run twice.
fn failed(error: &BuildError, clean: bool) -> StepOutcome {
    StepOutcome::Failed { message: error.message(), details: chain(error), retryable: clean && error.retryable() }
}

/// Takes back what a failed build has begun, newest first. False: something is left; comparing guests removes it.
async fn undo(cx: &mut BuildContext<'_>, begun: &[&dyn Step]) -> bool {
    let mut clean = true;
    for step in begun.iter().rev() {
        let mut wait = Duration::from_millis(500);
        for attempt in 1..=UNDO_TRIES {
            match step.undo(cx).await {
                Ok(()) => break,
                Err(left) if attempt == UNDO_TRIES => {
                    tracing::warn!(instance = %cx.order.instance_id, "not undone: {}", chain(&left));
                    clean = false;
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
    }
    clean
}

/// The last `length` lines, as clients count them (`split('\n')`); all for `None`.
fn tail(text: &str, length: Option<u32>) -> String {
    let Some(length) = length else { return text.to_owned() };
    let lines: Vec<&str> = text.split('\n').collect();
    let skip = lines.len().saturating_sub(usize::try_from(length).unwrap_or(usize::MAX));
    lines[skip..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn the_tail_has_exactly_so_many_lines() {
        assert_eq!(tail("a\nb\nc", Some(2)), "b\nc");
        assert_eq!(tail("a\nb\nc\n", Some(2)), "c\n");
        assert_eq!(tail("a", Some(5)), "a");
        assert_eq!(tail("a\nb", Some(0)), "");
        assert_eq!(tail("a\nb", None), "a\nb");
    }
}
