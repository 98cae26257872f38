//! What this process knows of each instance: one order at a time, and how late an order may come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use nova_core::ids::{InstanceId, TaskId};
use nova_core::rpc::conductor::StepOutcome;

/// How long a removed guest's token is remembered: longer than any order lives on the bus.
const REMEMBER: SignedDuration = SignedDuration::from_hours(2);

#[derive(Default)]
struct Entry {
    turn: Arc<tokio::sync::Mutex<()>>,
    epoch: u64,
    /// How many were begun.
    orders: u64,
    ended: Option<Ended>,
    gone: Option<Timestamp>,
}

/// How the newest order ended: a copy of it that comes later is answered with that, and not carried out again.
struct Ended {
    task: TaskId,
    epoch: u64,
    outcome: StepOutcome,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<InstanceId, Entry>,
    working: BTreeMap<(TaskId, u64), InstanceId>,
}

/// Tokens, turns and work in hand.
#[derive(Clone, Default)]
pub(crate) struct Instances {
    state: Arc<Mutex<State>>,
}

/// What to do with an order that came.
pub(crate) enum Admission {
    /// Do it, when it is the instance's turn.
    Work(InHand),
    /// It is being done.
    Doubled,
    /// It was done, with this outcome.
    Ended(StepOutcome),
    /// A later order came before it.
    Late,
}

/// An order in hand: dropped when it is done.
pub(crate) struct InHand {
    instances: Instances,
    key: (TaskId, u64),
    instance: InstanceId,
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

impl InHand {
    /// Writes down how it ended, for copies that come later.
    pub(crate) fn ended(&self, outcome: &StepOutcome) {
        let (task, epoch) = self.key;
        if let Some(entry) = self.instances.state().instances.get_mut(&self.instance) {
            entry.ended = Some(Ended { task, epoch, outcome: outcome.clone() });
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.instances.state().working.remove(&self.key);
    }
}

impl Instances {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at an order's token.
    pub(crate) fn admit(&self, task: TaskId, instance: InstanceId, epoch: u64) -> Admission {
        let mut state = self.state();
        let entry = state.instances.entry(instance).or_default();
        if epoch < entry.epoch {
            return Admission::Late;
        }
        if let Some(ended) = entry.ended.as_ref().filter(|e| e.task == task && e.epoch == epoch) {
            return Admission::Ended(ended.outcome.clone());
        }
        entry.epoch = epoch;
        entry.gone = None;
        let (key, turn) = ((task, epoch), entry.turn.clone());
        if state.working.contains_key(&key) {
            return Admission::Doubled;
        }
        if let Some(entry) = state.instances.get_mut(&instance) {
            entry.orders += 1;
        }
        state.working.insert(key, instance);
        Admission::Work(InHand { instances: self.clone(), key, instance, turn })
    }

    /// The newest token that is known of an instance.
    pub(crate) fn epoch(&self, instance: InstanceId) -> Option<u64> {
        self.state().instances.get(&instance).map(|entry| entry.epoch)
    }

    /// Begins to forget what is neither assigned to this host nor being worked on.
    pub(crate) fn forget_others(&self, assigned: impl Fn(InstanceId) -> bool, now: Timestamp) {
        let mut state = self.state();
        let State { instances, working } = &mut *state;
        for (id, entry) in instances.iter_mut() {
            if entry.gone.is_none() && !assigned(*id) && !working.values().any(|w| w == id) {
                entry.gone = Some(now);
            }
        }
        instances.retain(|_, entry| entry.gone.is_none_or(|gone| now.duration_since(gone) < REMEMBER));
    }

    /// Is a later order known than this one?
    pub(crate) fn overtaken(&self, instance: InstanceId, epoch: u64) -> bool {
        self.state().instances.get(&instance).is_some_and(|entry| entry.epoch > epoch)
    }

    /// The guest is gone: its token is kept for a while, against late orders.
    pub(crate) fn removed(&self, instance: InstanceId, now: Timestamp) {
        let mut state = self.state();
        if let Some(entry) = state.instances.get_mut(&instance) {
            entry.gone = Some(now);
        }
        state.instances.retain(|_, entry| entry.gone.is_none_or(|gone| now.duration_since(gone) < REMEMBER));
    }

    /// How many orders about this instance were begun since the start: the same number later says that there was none
    /// between.
    pub(crate) fn orders(&self, instance: InstanceId) -> u64 {
        self.state().instances.get(&instance).map_or(0, |entry| entry.orders)
    }

    /// Is any order about this instance in hand?
    pub(crate) fn busy(&self, instance: InstanceId) -> bool {
        self.state().working.values().any(|id| *id == instance)
    }

    /// Tasks in hand.
    pub(crate) fn working_on(&self) -> Vec<TaskId> {
        self.state().working.keys().map(|(task, _)| *task).collect()
    }

    /// The token that the conductor has; never lowers what this host has seen.
    pub(crate) fn learn(&self, instance: InstanceId, epoch: u64) {
        let mut state = self.state();
        let entry = state.instances.entry(instance).or_default();
        entry.epoch = entry.epoch.max(epoch);
    }

    /// Waits for the instance's turn outside of any order.
    pub(crate) fn turn(&self, instance: InstanceId) -> Arc<tokio::sync::Mutex<()>> {
        self.state().instances.entry(instance).or_default().turn.clone()
    }
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn late_and_doubled_orders_are_known() {
        let (instances, entropy) = (Instances::default(), SeededEntropy::new(1));
        let id = InstanceId::generate(&entropy);
        let [build, delete] = [TaskId::generate(&entropy), TaskId::generate(&entropy)];
        let Admission::Work(in_hand) = instances.admit(build, id, 1) else { panic!("refused") };
        assert!(matches!(instances.admit(build, id, 1), Admission::Doubled));
        assert_eq!((instances.busy(id), instances.orders(id)), (true, 1));
        in_hand.ended(&StepOutcome::done(None));
        drop(in_hand);
        assert!(matches!(instances.admit(build, id, 1), Admission::Ended(StepOutcome::Done { .. })));
        assert!(matches!(instances.admit(build, id, 2), Admission::Work(_)), "the same task, but another order");
        assert!(!instances.busy(id));
        let Admission::Work(_in_hand) = instances.admit(delete, id, 3) else { panic!("refused") };
        assert!(matches!(instances.admit(build, id, 1), Admission::Late));
        assert!(instances.overtaken(id, 2) && !instances.overtaken(id, 3));
    }

    #[test]
    fn tokens_of_removed_guests_are_forgotten_after_a_while() {
        let (instances, entropy) = (Instances::default(), SeededEntropy::new(1));
        let [id, other] = [InstanceId::generate(&entropy), InstanceId::generate(&entropy)];
        let task = TaskId::generate(&entropy);
        drop(instances.admit(task, id, 5));
        instances.removed(id, Timestamp::UNIX_EPOCH);
        assert!(matches!(instances.admit(task, id, 4), Admission::Late));
        instances.removed(other, Timestamp::UNIX_EPOCH + SignedDuration::from_hours(3));
        assert!(matches!(instances.admit(task, id, 4), Admission::Work(_)));
    }
}
