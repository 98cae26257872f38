//! The state of an instance is set by hand (nova/api/openstack/compute/admin_actions.py, `_reset_state`).

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::Allocation;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::migration::MigrationStatus;
use nova_core::task::{Task, Work};

use super::accounts::{book, release};
use super::instances::{Epoch, write_instance};
use super::{find, migrations, need, put, replace_or_race, tasks};
use crate::Booking;
use crate::rows::{Fail, Lock, Transaction, Value};

/// What becomes of a task of an instance whose state is set.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It goes on as if nothing were.
    GoesOn,
    /// It goes on to its end, and the instance is in it until then.
    Keeps,
    /// Its time is up: it is taken back.
    GivenUp,
    /// It is over.
    Ends,
}

fn fate(work: &Work) -> Fate {
    match work {
        work if work.plugs() => Fate::GoesOn,
        Work::Delete => Fate::Keeps,
        Work::Build { .. } | Work::Move(_) => Fate::GivenUp,
        _ => Fate::Ends,
    }
}

pub(super) async fn reset(
    tx: &mut dyn Transaction,
    instance: &Instance,
    action: &ActionRecord,
) -> Result<Instance, Fail> {
    let now = action.started;
    let old = need::<Instance>(tx, &[Value::text(instance.id)], Lock::ForUpdate).await?.record;
    let mut next = instance.clone();
    let mut epoch = Epoch::Raise;
    for task in tasks::list_tasks(tx, Some(instance.id)).await? {
        match fate(&task.work) {
            Fate::GoesOn => continue,
            Fate::Ends => {
                tasks::end(tx, &task, now).await?;
                continue;
            }
            Fate::Keeps => {}
            Fate::GivenUp => give_up(tx, &task, now).await?,
        }
        // Its orders carry the token that it has.
        (next.task_state, epoch) = (old.task_state, Epoch::Keep);
    }
    if epoch == Epoch::Raise {
        next.set_resizing_to(None);
        stay_here(tx, &next, now).await?;
    }
    let written = write_instance(tx, &next, epoch).await?;
    put(tx, action).await?;
    Ok(written)
}

/// Whoever takes it up now finds its deadline passed.
async fn give_up(tx: &mut dyn Transaction, task: &Task, now: Timestamp) -> Result<(), Fail> {
    let Some(found) = find::<Task>(tx, &[Value::text(task.id)], Lock::ForUpdate).await? else { return Ok(()) };
    let given_up = Task {
        deadline: found.record.deadline.min(now),
        lease_until: now,
        owner: None,
        generation: found.generation + 1,
        ..found.record
    };
    replace_or_race(tx, &given_up, found.generation).await
}

/// It holds on its host what it is.
async fn shrink(tx: &mut dyn Transaction, instance: &Instance, host: &HostName, now: Timestamp) -> Result<(), Fail> {
    let resources = instance.booked_resources();
    let (instance_id, host) = (instance.id, host.clone());
    let allocation = Allocation { instance_id, host, resources, created_at: now, placement: None };
    book(tx, &Booking::of(allocation)).await.map(drop)
}

/// A resize that waits is not waited for any more. What its source has set aside goes once that host compares.
async fn stay_here(tx: &mut dyn Transaction, instance: &Instance, now: Timestamp) -> Result<(), Fail> {
    for waiting in migrations::of_instance(tx, instance.id, MigrationStatus::Finished).await? {
        if waiting.same_host() {
            // It held there what either of its sizes needs.
            shrink(tx, instance, &waiting.source_compute, now).await?;
        }
        for host in std::iter::once(&waiting.source_compute).chain(&waiting.dest_compute) {
            if instance.host.as_ref() != Some(host) {
                release(tx, instance.id, host).await?;
            }
        }
        migrations::end(tx, waiting.uuid, now).await?;
    }
    Ok(())
}
