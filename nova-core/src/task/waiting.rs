//! Where is it stuck? What a task waits for, and since when.

use std::fmt;

use jiff::Timestamp;

use super::{Event, HeldUp, Next, Task};
use crate::action::ActionRecord;
use crate::ids::{HostName, RequestId};
use crate::instance::Instance;
use crate::migration::Migration;

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What the task does.
    pub work: &'static str,
    /// The step that is due, or under way.
    pub step: &'static str,
    /// It is being taken back.
    pub undoes: bool,
    /// The host that is to report; `None`: a conductor is to go on, which may wait for a scheduler, the network service or
    /// other servers' turns.
    pub host: Option<HostName>,
    /// Since when.
    pub since: Timestamp,
    /// When it is given up.
    pub until: Timestamp,
    /// The conductor that has it in hand.
    pub conductor: Option<String>,
    /// Who is asked to take it back does not answer.
    pub held_up: Option<HeldUp>,
    /// The request that it began with.
    pub request_id: RequestId,
}

impl Waiting {
    /// From the task and the rows that belong to it. `None`: all is done but the last commit.
    #[must_use]
    pub fn of(
        task: &Task,
        instance: &Instance,
        migration: Option<&Migration>,
        action: Option<&ActionRecord>,
    ) -> Option<Self> {
        let (step, undoes) = match task.next() {
            Next::Run(step) => (step, false),
            Next::Undo(step) => (step, true),
            // What is given back last, whatever failed.
            Next::Failed(_) if task.held_up.is_some() => ("network", true),
            Next::Succeeded | Next::Failed(_) => return None,
        };
        let ordered = |event: &Event| matches!((event, undoes), (Event::Begun, false) | (Event::Undoing, true));
        let asked = task.log.last().is_some_and(|last| last.step == step && ordered(&last.event));
        let executor = migration.and_then(|migration| migration.ordered_of.as_ref()).or(instance.host.as_ref());
        Some(Self {
            work: task.work.kind(),
            step,
            undoes,
            host: executor.filter(|_| asked).cloned(),
            since: since(task, action),
            until: task.deadline,
            conductor: task.owner.clone(),
            held_up: task.held_up.clone(),
            request_id: task.context.request_id.clone(),
        })
    }
}

/// When the newest part of the work that is not over began; else when the last one ended; else when it was asked for.
fn since(task: &Task, action: Option<&ActionRecord>) -> Timestamp {
    let events = action.map_or(&[][..], |action| &action.events);
    let open = events.iter().filter(|event| event.finished.is_none()).map(|event| event.started).max();
    open.or_else(|| events.iter().filter_map(|event| event.finished).max()).unwrap_or(task.created_at)
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = if self.undoes { "taking back " } else { "" };
        write!(f, "{}: {back}{}", self.work, self.step)?;
        match (&self.host, &self.conductor) {
            (Some(host), _) => write!(f, " on {host}")?,
            (None, Some(conductor)) => write!(f, " by {conductor}")?,
            (None, None) => f.write_str(" by any conductor")?,
        }
        match &self.held_up {
            None => write!(f, " since {:.0}, until {:.0} ({})", self.since, self.until, self.request_id),
            Some(HeldUp { since, times, why }) => {
                write!(
                    f,
                    " since {:.0}, asked in vain {times} times since {since:.0}: {why} ({})",
                    self.since, self.request_id
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::{Entry, Failure};

    const ASKED: &str = "2026-01-01T00:00:00Z";

    fn task(log: &[(&str, Event)]) -> Task {
        let mut task: Task = serde_json::from_value(json!({
            "id": uuid::Uuid::from_u128(1), "instance_id": uuid::Uuid::from_u128(2), "work": {"kind": "stop"},
            "context": {"request_id": "req-1", "user_id": "u", "project_id": "p", "roles": []},
            "epoch": 1, "lease_until": ASKED, "deadline": "2026-01-01T01:00:00Z", "created_at": ASKED,
        }))
        .unwrap();
        task.log = log.iter().map(|(step, event)| Entry { step: (*step).to_owned(), event: event.clone() }).collect();
        task
    }

    fn server() -> Instance {
        let flavor = json!({"id": "1", "name": "f", "vcpus": 1, "memory_mb": 1, "root_gb": 1, "ephemeral_gb": 0, "swap_mb": 0,
            "rxtx_factor": 1.0, "disabled": false, "is_public": true, "created_at": ASKED});
        serde_json::from_value(json!({
            "id": uuid::Uuid::from_u128(2), "project_id": "p", "user_id": "u", "reservation_id": uuid::Uuid::from_u128(9),
            "request_id": "req-0", "display_name": "s", "hostname": "s", "image": null, "flavor": flavor,
            "vm_state": "active", "power_state": 1, "created_at": ASKED, "updated_at": ASKED, "host": "one"
        }))
        .unwrap()
    }

    #[test]
    fn it_says_who_is_to_go_on() {
        let waiting = Waiting::of(&task(&[]), &server(), None, None).unwrap();
        assert_eq!((waiting.step, &waiting.host), ("power_off", &None));
        let mut ordered = task(&[("power_off", Event::Begun)]);
        ordered.owner = Some("conductor-1".into());
        let waiting = Waiting::of(&ordered, &server(), None, None).unwrap();
        assert_eq!(waiting.host, Some(HostName::new("one")));
        let text = "stop: power_off on one since 2026-01-01T00:00:00Z, until 2026-01-01T01:00:00Z (req-1)";
        assert_eq!(waiting.to_string(), text);
        assert_eq!(Waiting::of(&task(&[("power_off", Event::Done)]), &server(), None, None), None);
    }

    #[test]
    fn it_says_who_does_not_answer() {
        let failure = Failure { code: 500, message: "no".into(), details: String::new(), retryable: false };
        let mut held = task(&[("power_off", Event::Failed(failure))]);
        assert_eq!(Waiting::of(&held, &server(), None, None), None, "all is done but the last commit");
        held.held_up = Some(HeldUp::once_more(None, "no route to it", held.created_at));
        let text = "stop: taking back network by any conductor since 2026-01-01T00:00:00Z, \
                    asked in vain 1 times since 2026-01-01T00:00:00Z: no route to it (req-1)";
        assert_eq!(Waiting::of(&held, &server(), None, None).unwrap().to_string(), text);
    }

    #[test]
    fn it_says_since_when() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut action: ActionRecord = serde_json::from_value(json!({
            "instance_id": uuid::Uuid::from_u128(2), "request_id": "req-1", "action": "stop", "user_id": "u",
            "project_id": "p", "started": ASKED, "updated": ASKED,
        }))
        .unwrap();
        action.begin_event("one", None, at("2026-01-01T00:00:05Z"));
        let ordered = task(&[("power_off", Event::Begun)]);
        let since = |action: &ActionRecord| Waiting::of(&ordered, &server(), None, Some(action)).unwrap().since;
        assert_eq!(since(&action), at("2026-01-01T00:00:05Z"));
        action.finish_event("one", None, at("2026-01-01T00:00:09Z"));
        assert_eq!(since(&action), at("2026-01-01T00:00:09Z"));
    }
}
