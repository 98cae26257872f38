//! The next step of a task, from its log alone.

use serde::{Deserialize, Serialize};

/// The steps of an operation, in order, and whether a failure may be tried again elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Names, unique in the plan.
    pub steps: &'static [&'static str],
    /// Where another attempt begins, when there is an alternate; `None`: no second attempt.
    pub retry_from: Option<usize>,
}

/// One line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step's name.
    pub step: String,
    /// What happened to it.
    pub event: Event,
}

/// What can happen to a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its effect may exist from now on.
    Begun,
    /// Its effect exists.
    Done,
    /// It could not be done; parts of its effect may exist.
    Failed(Failure),
    /// A host was told to take its effect back, and is to report.
    Undoing,
    /// Nothing of its effect is left.
    Undone,
    /// It could not be taken back in time: something of it may be left, on a host that does not answer.
    Abandoned,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The HTTP status that the fault gets.
    pub code: u16,
    /// For the owner of the server.
    pub message: String,
    /// For administrators.
    #[serde(default)]
    pub details: String,
    /// Another host may do better.
    #[serde(default)]
    pub retryable: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Run this step; it may have been begun before.
    Run(&'static str),
    /// Take back this step's effect, newest first.
    Undo(&'static str),
    /// Everything is done.
    Succeeded,
    /// It failed, and everything is undone.
    Failed(Failure),
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Clean,
    Begun,
    Done,
}

/// Reads the log and says what comes next. `alternate`: there is somewhere else to try.
///
/// Guarantees, for any prefix of any run: a step runs only when all before it are done; after a failure every step that
/// was begun is undone, newest first, before anything else; the answer depends on the log alone, so a conductor that
/// takes a task up goes on where the last one stopped.
pub fn next(plan: &Plan, log: &[Entry], alternate: bool) -> Next {
    let (marks, failure) = replay(plan, log);
    let Some(failure) = failure else {
        return match marks.iter().position(|mark| *mark != Mark::Done) {
            Some(step) => Next::Run(plan.steps[step]),
            None => Next::Succeeded,
        };
    };
    let again = plan.retry_from.filter(|_| failure.retryable && alternate);
    let keep = again.unwrap_or(0);
    match (keep..plan.steps.len()).rev().find(|step| marks[*step] != Mark::Clean) {
        Some(step) => Next::Undo(plan.steps[step]),
        None => match again {
            Some(step) => Next::Run(plan.steps[step]),
            None => Next::Failed(failure),
        },
    }
}

/// The failure that the current attempt ended with, if it did.
pub fn outcome_of(plan: &Plan, log: &[Entry]) -> Option<Failure> {
    replay(plan, log).1
}

fn replay(plan: &Plan, log: &[Entry]) -> (Vec<Mark>, Option<Failure>) {
    let mut marks = vec![Mark::Clean; plan.steps.len()];
    let mut failure = None;
    for entry in log {
        let Some(step) = plan.steps.iter().position(|name| *name == entry.step) else { continue };
        match &entry.event {
            Event::Begun => {
                // A step begins anew only once the failed attempt before it is undone.
                failure = None;
                marks[step] = Mark::Begun;
            }
            Event::Done => marks[step] = Mark::Done,
            Event::Failed(f) => failure = Some(f.clone()),
            Event::Undoing => {}
            Event::Undone | Event::Abandoned => marks[step] = Mark::Clean,
        }
    }
    (marks, failure)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAN: Plan = Plan { steps: &["schedule", "claim", "spawn"], retry_from: Some(1) };

    fn log(entries: &[(&str, Event)]) -> Vec<Entry> {
        entries.iter().map(|(step, event)| Entry { step: (*step).to_owned(), event: event.clone() }).collect()
    }

    fn failed(retryable: bool) -> Event {
        Event::Failed(Failure { code: 500, message: "no".into(), details: String::new(), retryable })
    }

    #[test]
    fn steps_run_in_order_and_a_begun_one_again() {
        assert_eq!(next(&PLAN, &[], false), Next::Run("schedule"));
        let begun = log(&[("schedule", Event::Begun)]);
        assert_eq!(next(&PLAN, &begun, false), Next::Run("schedule"));
        let done = log(&[("schedule", Event::Done), ("claim", Event::Done), ("spawn", Event::Done)]);
        assert_eq!(next(&PLAN, &done, false), Next::Succeeded);
    }

    #[test]
    fn a_failure_is_undone_and_tried_on_the_alternate() {
        let mut entries =
            vec![("schedule", Event::Done), ("claim", Event::Done), ("spawn", Event::Begun), ("spawn", failed(true))];
        assert_eq!(next(&PLAN, &log(&entries), true), Next::Undo("spawn"));
        entries.push(("spawn", Event::Undone));
        assert_eq!(next(&PLAN, &log(&entries), true), Next::Undo("claim"));
        entries.push(("claim", Event::Undone));
        assert_eq!(next(&PLAN, &log(&entries), true), Next::Run("claim"));
        assert_eq!(next(&PLAN, &log(&entries), false), Next::Undo("schedule"));
        entries.extend([("claim", Event::Begun), ("claim", Event::Done)]);
        assert_eq!(next(&PLAN, &log(&entries), false), Next::Run("spawn"));
    }

    #[test]
    fn a_failure_that_no_host_can_mend_is_final() {
        let entries = log(&[("schedule", Event::Begun), ("schedule", failed(false)), ("schedule", Event::Undone)]);
        assert!(matches!(next(&PLAN, &entries, true), Next::Failed(_)));
    }

    proptest! {
        /// Whatever fails and wherever the conductor dies, a run ends, and in failure nothing is left begun.
        #[test]
        fn every_run_ends_clean(faults in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..40)) {
            let mut faults = faults.into_iter();
            let (mut entries, mut alternates, mut exists) = (Vec::new(), 3, std::collections::BTreeSet::new());
            for _ in 0..200 {
                match next(&PLAN, &entries, alternates > 0) {
                    Next::Run(step) => {
                        let position = PLAN.steps.iter().position(|s| *s == step).unwrap();
                        prop_assert!(PLAN.steps[..position].iter().all(|s| exists.contains(s)), "{step} ran too early");
                        let (fails, retryable, dies) = faults.next().unwrap_or((false, false, false));
                        if step == "claim" && outcome_of(&PLAN, &entries).is_some() { alternates -= 1 }
                        entries.push(Entry { step: step.into(), event: Event::Begun });
                        exists.insert(step);
                        if dies { continue }
                        let event = if fails { failed(retryable) } else { Event::Done };
                        entries.push(Entry { step: step.into(), event });
                    }
                    Next::Undo(step) => {
                        exists.remove(step);
                        entries.push(Entry { step: step.into(), event: Event::Undone });
                    }
                    Next::Succeeded => { prop_assert_eq!(exists.len(), 3); return Ok(()) }
                    Next::Failed(_) => { prop_assert!(exists.is_empty()); return Ok(()) }
                }
            }
            prop_assert!(false, "the task never ended");
        }
    }
}
