//! What was done to an instance, by whom and how it went: `os-instance-actions`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, ProjectId, RequestId, UserId};

/// One API request on an instance (nova/objects/instance_action.py); its key is (instance, request id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRecord {
    /// The instance.
    pub instance_id: InstanceId,
    /// The API call.
    pub request_id: RequestId,
    /// `create`, `delete`, `reboot`, … as [`crate::state::Action::action_record`] names it.
    pub action: String,
    /// Who asked.
    pub user_id: UserId,
    /// For which project.
    pub project_id: ProjectId,
    /// When it began.
    pub started: Timestamp,
    /// When it ended, however it ended.
    #[serde(default)]
    pub finished: Option<Timestamp>,
    /// `Error` where it failed.
    #[serde(default)]
    pub message: Option<String>,
    /// When it was last touched.
    pub updated: Timestamp,
    /// The parts of the work, oldest first.
    #[serde(default)]
    pub events: Vec<ActionEvent>,
}

impl ActionRecord {
    /// The event of that name that has not finished, or a new one.
    pub fn begin_event(&mut self, event: &str, host: Option<&str>, now: Timestamp) {
        let open = |e: &&mut ActionEvent| e.event == event && e.finished.is_none();
        if self.events.iter_mut().find(open).is_none() {
            self.events.push(ActionEvent {
                event: event.to_owned(),
                host: host.map(str::to_owned),
                started: now,
                finished: None,
                result: None,
                details: None,
            });
        }
        self.updated = now;
    }

    /// Ends the newest open event of that name.
    pub fn finish_event(&mut self, event: &str, error: Option<String>, now: Timestamp) {
        if let Some(e) = self.events.iter_mut().rev().find(|e| e.event == event && e.finished.is_none()) {
            e.finished = Some(now);
            e.result = Some(if error.is_some() { "Error" } else { "Success" }.to_owned());
            e.details = error;
        }
        self.updated = now;
    }

    /// Ends the whole action, and what of it is still open.
    pub fn finish(&mut self, error: Option<&str>, now: Timestamp) {
        for event in self.events.iter_mut().filter(|e| e.finished.is_none()) {
            event.finished = Some(now);
            event.result = Some(if error.is_some() { "Error" } else { "Success" }.to_owned());
        }
        self.finished = Some(now);
        self.updated = now;
        if let Some(error) = error {
            self.message = Some(error.chars().take(255).collect());
        }
    }
}

/// A part of an action, done by one service (nova/objects/instance_action.py, InstanceActionEvent).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionEvent {
    /// As in `compute__do_build_and_run_instance`.
    pub event: String,
    /// The host that did it.
    #[serde(default)]
    pub host: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub finished: Option<Timestamp>,
    /// `Success` or `Error`.
    #[serde(default)]
    pub result: Option<String>,
    /// What went wrong (2.84), for administrators.
    #[serde(default)]
    pub details: Option<String>,
}
