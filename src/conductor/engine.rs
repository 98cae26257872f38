//! Drives a task from one durable point to the next.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nova_core::fault::Fault;
use nova_core::ids::{HostName, InstanceId};
use nova_core::rpc::compute as orders;
use nova_core::rpc::scheduler::AllocationNews;
use nova_core::state::{FailurePhase, failed, succeeded};
use nova_core::task::{Event, Failure, HeldUp, Next, Task, Work, outcome_of};
use nova_db::{Committed, Kind, ServiceQuery, StoreError, TaskCommit};
use nova_queue::BusError;

use super::context::{Removal, StagedOrder, TaskContext, Undoing};
use super::manager::Conductor;
use super::steps::{self, Ran, StepError};
use nova_core::error::chain;

/// Why a drive stopped before the task's next durable point.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriveError {
    /// Someone else changed the task or the instance: read again, decide again.
    #[error("the task was changed meanwhile")]
    Overtaken,
    /// Something does not answer; the task's lease brings it back.
    #[error("{0}")]
    Later(String),
}

impl From<StoreError> for DriveError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { .. } | StoreError::NotFound { kind: Kind::Task, .. } => Self::Overtaken,
            other => Self::Later(chain(&other)),
        }
    }
}

/// What comes of a step.
enum Turn {
    /// It ended: on with the next.
    Over,
    /// A host is to do it.
    Orders(StagedOrder),
    /// It is looked again after so long.
    Rests(Duration),
}

/// How far a drive came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driven {
    /// A host is to report, or nothing waits for the task.
    Waits,
    /// The task is over, and others of the server may have waited for it.
    Over(InstanceId),
}

/// How long after a task's deadline a host may be down that has something to take back.
const UNDO_WITHOUT_HOST: Duration = Duration::from_secs(120);

/// The same of a host that lives, and fails at it.
const LONGEST_UNDO: Duration = Duration::from_secs(900);

/// How long it is insisted on an undo that others refuse, and how often it is asked for then.
const INSISTS_FOR: Duration = Duration::from_secs(300);
const INSISTS_EVERY: Duration = Duration::from_secs(15);

/// Turns of one drive; a plan has few steps, each begun and undone once per host, so that more means a defect.
const MAX_TURNS: usize = 200;

/// Hosts that one drive may lose to others before it takes what candidates it has left. Each costs a few turns.
const MAX_LOSSES: usize = 40;

impl Conductor {
    /// Reads what a task works on.
    pub(super) async fn open(&self, task: Task) -> Result<TaskContext, DriveError> {
        let instance = self.store.get_instance(task.instance_id).await?;
        let action = match self.store.get_action(task.instance_id, &task.context.request_id).await {
            Ok(action) => Some(action),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let migration = self.migration_of(&task).await?;
        Ok(TaskContext::new(task, instance, action, self.clock.now()).with_migration(migration))
    }

    /// Runs steps until one waits for a host, or the task is over; then the tasks that waited for it.
    pub(super) async fn drive(&self, cx: TaskContext) -> Result<(), DriveError> {
        match self.drive_one(cx).await? {
            Driven::Over(instance) => self.let_next_run(instance).await,
            Driven::Waits => {}
        }
        Ok(())
    }

    async fn drive_one(&self, cx: TaskContext) -> Result<Driven, DriveError> {
        let (task, makes) = (cx.task.id, steps::makes_ports(&self.services, &cx));
        let (context, instance) = (cx.task.context.clone(), cx.instance.id);
        let holds = steps::holds_volumes(&cx);
        let takes =
            matches!(cx.task.work, Work::SnapshotVolumes { .. }).then(|| (cx.task.clone(), cx.instance.clone()));
        let driven = self.drive_on(cx).await;
        if let (Some((task, instance)), Err(DriveError::Overtaken)) = (&takes, &driven) {
            match steps::abandoned_snapshots(&self.services, task, instance).await {
                Ok(()) => {}
                Err(StepError::Later(why)) => return Err(DriveError::Later(why)),
                Err(StepError::Failed(failure)) => return Err(DriveError::Later(failure.message)),
            }
        }
        if holds && matches!(driven, Err(DriveError::Overtaken)) {
            self.drop_attachments_of(instance, &context).await?;
        }
        if makes && matches!(driven, Err(DriveError::Overtaken)) {
            self.drop_orphans_of(task, instance, &context).await?;
        }
        driven
    }

    async fn drive_on(&self, mut cx: TaskContext) -> Result<Driven, DriveError> {
        if cx.instance.is_deleted() {
            self.store.commit_task(cx.commit(true)).await?;
            return Ok(Driven::Waits);
        }
        if cx.now >= cx.task.deadline {
            self.give_up(&mut cx);
        }
        for _ in 0..MAX_TURNS {
            match cx.task.next() {
                Next::Run(name) => match self.run(&mut cx, name).await? {
                    Turn::Over => {}
                    Turn::Rests(wait) => return self.commit_and_leave(&mut cx, wait).await.map(|()| Driven::Waits),
                    Turn::Orders(mut order) => {
                        if self.commit_and_wait(&mut cx, Some(&mut order)).await? {
                            self.recent.keep(&cx);
                            return self.send(&mut cx, order).await.map(|()| Driven::Waits);
                        }
                    }
                },
                Next::Undo(name) => {
                    if let Some(mut order) = self.undo(&mut cx, name).await?
                        && self.commit_and_wait(&mut cx, Some(&mut order)).await?
                    {
                        return self.send(&mut cx, order).await.map(|()| Driven::Waits);
                    }
                }
                Next::Succeeded => return self.finish(cx, None).await,
                Next::Failed(failure) => return self.finish(cx, Some(failure)).await,
            }
        }
        tracing::error!(task = %cx.task.id, "the task turns in circles; it is failed");
        let failure = Failure { code: 500, message: "Internal error.".into(), ..no_failure() };
        self.finish(cx, Some(failure)).await
    }

    async fn run(&self, cx: &mut TaskContext, name: &'static str) -> Result<Turn, DriveError> {
        let Some(step) = steps::find(name) else {
            return Err(DriveError::Later(format!("no step is called {name}")));
        };
        let begun = cx.task.log.last().is_some_and(|last| last.step == name && last.event == Event::Begun);
        if begun && name == "terminate" && !self.host_is_up(cx).await? {
            // The host is gone: it removes the guest by itself when it comes back and finds it unassigned.
            tracing::warn!(instance = %cx.instance.id, "deleted without its host, which is down");
            cx.task.record(name, Event::Done);
            return Ok(Turn::Over);
        }
        cx.repeated = begun;
        if !begun {
            cx.task.record(name, Event::Begun);
        }
        match step.run(&self.services, cx).await {
            Ok(Ran::Done) => cx.task.record(name, Event::Done),
            Ok(Ran::Written) => {
                cx.task.record(name, Event::Done);
                self.commit_and_wait(cx, None).await?;
            }
            Ok(Ran::Ordered(order)) => return Ok(Turn::Orders(order)),
            Ok(Ran::Waits(wait)) => {
                // Not begun, as far as others can see: no host is to report on it.
                cx.task.log.pop_if(|last| last.step == name && last.event == Event::Begun);
                return Ok(Turn::Rests(wait));
            }
            Err(StepError::Failed(failure)) => {
                tracing::info!(task = %cx.task.id, instance = %cx.instance.id, step = name, "failed: {} ({})", failure.message, failure.details);
                cx.task.record(name, Event::Failed(failure));
            }
            Err(StepError::Later(why)) => return Err(DriveError::Later(why)),
        }
        Ok(Turn::Over)
    }

    async fn undo(&self, cx: &mut TaskContext, name: &'static str) -> Result<Option<StagedOrder>, DriveError> {
        let Some(step) = steps::find(name) else {
            return Err(DriveError::Later(format!("no step is called {name}")));
        };
        cx.repeated = cx.task.log.last().is_some_and(|last| last.step == name && last.event == Event::Undoing);
        if cx.repeated && !step.must_be_undone() && self.is_hopeless(cx).await? {
            cx.leave(&format!("{name}, which its host did not take back in time"));
            cx.task.record(name, Event::Abandoned);
            return Ok(None);
        }
        let before = cx.instance.clone();
        cx.undoing = undoing(cx);
        let taken_back = step.take_back(&self.services, cx).await;
        let gives_up = std::mem::replace(&mut cx.undoing, Undoing::No) == Undoing::GivesUp;
        match taken_back {
            Ok(Ran::Done | Ran::Written) => {
                cx.task.held_up = None;
                cx.task.record(name, Event::Undone);
                Ok(None)
            }
            Ok(Ran::Waits(_)) => Err(DriveError::Later(format!("{name} is not taken back yet"))),
            Ok(Ran::Ordered(order)) => {
                cx.task.held_up = None;
                if !cx.repeated {
                    cx.task.record(name, Event::Undoing);
                }
                Ok(Some(order))
            }
            Err(StepError::Later(why)) => {
                cx.instance = before;
                Err(self.hold_up(cx, why).await)
            }
            Err(StepError::Failed(failure)) if gives_up => {
                cx.instance = before;
                cx.leave(&format!("{name}, since {} ({})", failure.message, failure.details));
                cx.task.record(name, Event::Abandoned);
                Ok(None)
            }
            Err(StepError::Failed(failure)) => {
                cx.instance = before;
                Err(self.insist(cx, &failure).await)
            }
        }
    }

    /// Somebody does not answer who is to take something back. What came of it nobody could say, and what he has may be of
    /// worth: it is asked for until he answers, less and less often, and operators see it.
    async fn hold_up(&self, cx: &mut TaskContext, why: String) -> DriveError {
        let held = HeldUp::once_more(cx.task.held_up.take(), &why, cx.now);
        let pause = held.pause();
        cx.task.held_up = Some(held);
        match self.commit_and_leave(cx, pause).await {
            Ok(()) => DriveError::Later(why),
            Err(error) => error,
        }
    }

    /// What others refuse to take back may be possible soon, or never: the task's deadline says how long it is asked for. Who did
    /// not answer for long is asked for as long as anybody.
    async fn insist(&self, cx: &mut TaskContext, refused: &Failure) -> DriveError {
        let end = later(cx.now, INSISTS_FOR);
        cx.task.deadline = if cx.task.held_up.take().is_some() { end } else { cx.task.deadline.min(end) };
        match self.commit_and_leave(cx, INSISTS_EVERY).await {
            Ok(()) => DriveError::Later(format!("{} ({})", refused.message, refused.details)),
            Err(error) => error,
        }
    }

    /// Makes what is staged durable and takes the lease. False: the booked host has no room, the next one is due.
    async fn commit_and_wait(&self, cx: &mut TaskContext, order: Option<&mut StagedOrder>) -> Result<bool, DriveError> {
        cx.task.owner = Some(self.services.options.get().name.clone());
        cx.task.lease_until = later(self.clock.now(), self.services.options.get().task_lease);
        let commit = cx.commit(false);
        match self.store.commit_task(commit.clone()).await {
            Ok(committed) => {
                self.tell_allocations(&commit, &committed);
                if commit.book.is_some() {
                    metrics::counter!("nova_bookings_total").increment(1);
                }
                if let (Some(StagedOrder::Build(body)), Some(booked)) = (order, &committed.booked) {
                    body.placement.clone_from(&booked.placement);
                }
                cx.written(committed);
                self.send_removals(cx).await;
                Ok(true)
            }
            Err(StoreError::NoRoom { host, resource }) => {
                let why = format!("{host} had not enough {resource} left when it was to be booked");
                self.lose(cx, host, why).await;
                Ok(false)
            }
            Err(StoreError::Unsuitable { host, reason }) => {
                let why = format!("{host} could not be taken when it was to be booked: {reason}");
                self.lose(cx, host, why).await;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what is staged durable and leaves the task to whoever takes it up next, after a while or because of news.
    async fn commit_and_leave(&self, cx: &mut TaskContext, wait: Duration) -> Result<(), DriveError> {
        cx.task.owner = None;
        cx.task.lease_until = later(self.clock.now(), wait);
        let commit = cx.commit(false);
        let committed = self.store.commit_task(commit.clone()).await?;
        self.tell_allocations(&commit, &committed);
        cx.written(committed);
        self.send_removals(cx).await;
        Ok(())
    }

    /// Others were faster: nothing was written. Undoing the claim takes back what it staged, and only that; the next
    /// candidate is chosen anew. Each loss is another's gain, so this ends; its bound is for defects.
    async fn lose(&self, cx: &mut TaskContext, host: String, why: String) {
        metrics::counter!("nova_bookings_lost_total").increment(1);
        let booking = steps::booking_of(&cx.task.work);
        while cx.task.log.last().is_some_and(|last| last.step != booking || last.event != Event::Begun) {
            cx.task.log.pop();
        }
        let mut failure = steps::lost(why);
        if let Some(action) = &mut cx.action {
            action.finish_event(steps::BUILD_EVENT, Some(failure.details.clone()), cx.now);
        }
        let host: HostName = host.into();
        self.tell_lost(cx, &host);
        cx.lost.push(host);
        if cx.lost.len() < MAX_LOSSES {
            match steps::select_anew(&self.services, cx).await {
                Ok(()) => {}
                Err(StepError::Failed(no)) => failure = no,
                Err(StepError::Later(why)) => {
                    tracing::info!(task = %cx.task.id, "older candidates are tried, there are no new ones: {why}");
                }
            }
        }
        cx.task.record(booking, Event::Failed(failure));
    }

    async fn send(&self, cx: &mut TaskContext, mut order: StagedOrder) -> Result<(), DriveError> {
        if let StagedOrder::Build(body) = &mut order {
            // The booking knows it better than who chose the host.
            body.availability_zone = cx.instance.availability_zone.as_ref().map(ToString::to_string);
        }
        let Some(host) = cx.executor().cloned() else {
            return Err(DriveError::Later("the instance has no host".into()));
        };
        let (rpc, context) = (&self.services.rpc, &cx.task.context);
        let sent = match order {
            StagedOrder::Build(body) => {
                rpc.cast_to::<orders::BuildAndRunInstance>(&host, context, &addressed(cx, *body)).await
            }
            StagedOrder::Terminate => {
                rpc.cast_to::<orders::TerminateInstance>(&host, context, &addressed(cx, ())).await
            }
            StagedOrder::Start => rpc.cast_to::<orders::StartInstance>(&host, context, &addressed(cx, ())).await,
            StagedOrder::Stop(body) => rpc.cast_to::<orders::StopInstance>(&host, context, &addressed(cx, body)).await,
            StagedOrder::Reboot(body) => {
                rpc.cast_to::<orders::RebootInstance>(&host, context, &addressed(cx, body)).await
            }
            StagedOrder::AttachInterface(body) => {
                rpc.cast_to::<orders::AttachInterface>(&host, context, &addressed(cx, *body)).await
            }
            StagedOrder::DetachInterface(body) => {
                rpc.cast_to::<orders::DetachInterface>(&host, context, &addressed(cx, body)).await
            }
            StagedOrder::Other(order) => order.send(rpc, &host, context, addressed(cx, ())).await,
        };
        match sent {
            Ok(()) => Ok(()),
            Err(error @ BusError::Malformed { .. }) => Err(DriveError::Later(chain(&error))),
            Err(error) => {
                // The task is durable and leased: when the lease ends, the order is given again.
                tracing::warn!(task = %cx.task.id, %host, "the order was not sent yet: {}", chain(&error));
                Ok(())
            }
        }
    }

    /// The deadline has passed: whatever the task waits for has failed.
    fn give_up(&self, cx: &mut TaskContext) {
        let Next::Run(step) = cx.task.next() else { return };
        tracing::warn!(task = %cx.task.id, instance = %cx.instance.id, step, "the task's deadline has passed");
        let failure = Failure {
            code: 500,
            message: "The operation took longer than it may and was given up.".into(),
            details: format!("step {step} was not done by {}", cx.task.deadline),
            retryable: false,
        };
        cx.task.record(step, Event::Begun);
        cx.task.record(step, Event::Failed(failure));
    }

    async fn finish(&self, mut cx: TaskContext, failure: Option<Failure>) -> Result<Driven, DriveError> {
        match &failure {
            None => success(&mut cx),
            Some(failure) => {
                cx.undoing = undoing(&cx);
                let released = steps::release_build(&self.services, &mut cx).await;
                cx.undoing = Undoing::No;
                match released {
                    Ok(()) => {
                        // The same failure, with what was left.
                        let now = outcome_of(&cx.task.work.plan(), &cx.task.log);
                        let now = now.filter(|now| now.message == failure.message);
                        give_fault(&mut cx, now.as_ref().unwrap_or(failure));
                    }
                    Err(StepError::Later(why)) => return Err(self.hold_up(&mut cx, why).await),
                    Err(StepError::Failed(refused)) => return Err(self.insist(&mut cx, &refused).await),
                }
            }
        }
        let commit = cx.commit(true);
        let committed = self.store.commit_task(commit.clone()).await?;
        self.tell_allocations(&commit, &committed);
        self.send_removals(&mut cx).await;
        let took = cx.now.duration_since(cx.task.created_at);
        tracing::info!(task = %cx.task.id, instance = %cx.instance.id, kind = cx.task.work.kind(),
            ok = failure.is_none(), seconds = took.as_secs_f64(), request_id = %cx.task.context.request_id, "task over");
        Ok(match cx.task.work {
            Work::Build { .. } | Work::Delete => Driven::Waits,
            _ => Driven::Over(cx.instance.id),
        })
    }

    /// Tasks about interfaces take turns with others: now may be the turn of one. While they are over at once, one follows
    /// the other. If none is due, a sweep finds them.
    async fn let_next_run(&self, instance: InstanceId) {
        let waiting = self.store.list_tasks(Some(instance)).await.unwrap_or_default();
        for next in waiting.into_iter().filter(|task| steps::takes_turns(&task.work)) {
            let id = next.id;
            let driven = match self.open(next).await {
                Ok(cx) => self.drive_one(cx).await,
                Err(error) => Err(error),
            };
            match driven {
                Ok(Driven::Over(_)) => {}
                Ok(Driven::Waits) | Err(DriveError::Overtaken) => return,
                Err(DriveError::Later(why)) => return tracing::debug!(task = %id, "its turn comes later: {why}"),
            }
        }
    }

    /// Hosts that are not told find out by themselves: the guest is no longer assigned to them.
    async fn send_removals(&self, cx: &mut TaskContext) {
        for (host, removal) in cx.take_removals() {
            let (rpc, context) = (&self.services.rpc, &cx.task.context);
            let sent = match removal {
                Removal::Guest(order) => rpc.cast_to::<orders::TerminateInstance>(&host, context, &order).await,
                Removal::Interface(order) => rpc.cast_to::<orders::DetachInterface>(&host, context, &order).await,
            };
            if let Err(error) = sent {
                tracing::info!(instance = %cx.instance.id, %host, "it will find it by itself: {}", chain(&error));
            }
        }
    }

    /// Schedulers follow what was written. Only news: they read the store anyway.
    fn tell_allocations(&self, commit: &TaskCommit, committed: &Committed) {
        let nodes = &committed.nodes;
        for (place, (host, version)) in nodes.iter().enumerate() {
            // What is booked comes last.
            let booked = committed.booked.as_ref();
            let booked = booked.filter(|booked| booked.host == *host && place + 1 == nodes.len());
            self.news.add(AllocationNews {
                instance_id: commit.task.instance_id,
                host: host.clone(),
                resources: booked.map(|booked| booked.resources),
                placement: booked.and_then(|booked| booked.placement.clone()),
                version: Some(*version),
            });
        }
    }

    /// The scheduler that chose this place counts it as taken by us, and another took it.
    fn tell_lost(&self, cx: &TaskContext, host: &HostName) {
        self.news.add(AllocationNews {
            instance_id: cx.instance.id,
            host: host.clone(),
            resources: None,
            placement: None,
            version: None,
        });
    }

    /// Has a host had long enough to take something back? One that is down has until a while after the deadline.
    async fn is_hopeless(&self, cx: &TaskContext) -> Result<bool, DriveError> {
        let late = cx.now.duration_since(cx.task.deadline);
        Ok(late >= signed(LONGEST_UNDO) || (late >= signed(UNDO_WITHOUT_HOST) && !self.host_is_up(cx).await?))
    }

    async fn host_is_up(&self, cx: &TaskContext) -> Result<bool, DriveError> {
        let Some(host) = cx.executor() else { return Ok(false) };
        let down_time = signed(self.services.options.get().service_down_time);
        let services = self.store.find_services(&ServiceQuery::computes([host])).await?;
        Ok(services.iter().any(|service| service.is_up(cx.now, down_time)))
    }
}

fn addressed<T>(cx: &TaskContext, body: T) -> orders::Order<T> {
    orders::Order { task_id: cx.task.id, instance_id: cx.instance.id, epoch: cx.task.epoch, given: cx.now, body }
}

fn undoing(cx: &TaskContext) -> Undoing {
    if cx.now >= cx.task.deadline && cx.task.held_up.is_none() { Undoing::GivesUp } else { Undoing::Insists }
}

fn success(cx: &mut TaskContext) {
    let before = cx.instance.vm_state;
    let states = succeeded(cx.task.work.action(), &cx.instance.states(), &steps::history_of(cx));
    cx.instance.set_states(states);
    if let Some(power) = cx.reported_power {
        cx.instance.power_state = power;
    }
    match cx.task.work {
        Work::Build { .. } => {
            cx.instance.launched_at = cx.instance.launched_at.or(Some(cx.now));
        }
        Work::Delete => {
            cx.instance.deleted_at = Some(cx.now);
            cx.instance.terminated_at = Some(cx.now);
            // I10: what a guest was told at its first boot is nobody's business any more.
            cx.instance.user_data = None;
            cx.instance.key_data = None;
            if let Some(host) = cx.instance.host.clone() {
                cx.stage_release(host);
            }
            steps::ended_by_deletion(cx);
        }
        Work::Move(_) => steps::moved(cx),
        _ => steps::on_host_succeeded(cx, before),
    }
    if let Some(action) = &mut cx.action {
        action.finish(None, cx.now);
    }
}

fn give_fault(cx: &mut TaskContext, failure: &Failure) {
    let phase = match cx.task.work {
        Work::Build { .. } => FailurePhase::BeforeHost,
        Work::Move(_) => steps::not_moved(cx),
        _ => steps::on_host_phase(cx),
    };
    let states = failed(cx.task.work.action(), phase, &cx.instance.states());
    cx.instance.set_states(states);
    steps::on_host_failed(cx, phase);
    if let Some(power) = cx.reported_power {
        cx.instance.power_state = power;
    }
    let mut fault = Fault::new(failure.code, &failure.message, failure.details.clone(), cx.now);
    fault.host = cx.instance.host.as_ref().map(ToString::to_string);
    cx.instance.fault = Some(fault);
    if let Some(action) = &mut cx.action {
        let open = action.events.iter().rev().find(|e| e.finished.is_none()).map(|e| e.event.clone());
        if let Some(event) = open {
            action.finish_event(&event, Some(failure.details.clone()), cx.now);
        }
        action.finish(Some("Error"), cx.now);
    }
}

fn no_failure() -> Failure {
    Failure { code: 500, message: String::new(), details: String::new(), retryable: false }
}

pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(signed(by)).unwrap_or(Timestamp::MAX)
}

pub(super) fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_sub(signed(by)).unwrap_or(Timestamp::MIN)
}
