//! What this conductor wrote last of tasks whose host is to report. A report mostly comes soon, and to the same conductor, which
//! then need not read three rows again; nothing is written unless they still stand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::ids::TaskId;
use nova_core::instance::Instance;
use nova_core::task::{Task, Work};

use super::context::TaskContext;

/// Tasks that are remembered; the oldest is forgotten first.
const MOST: usize = 1024;

#[derive(Debug)]
struct Rows {
    task: Task,
    instance: Instance,
    action: Option<ActionRecord>,
}

#[derive(Debug, Default)]
struct Kept {
    rows: HashMap<TaskId, Rows>,
    /// In the order in which they came; some of them are taken.
    order: VecDeque<TaskId>,
}

/// The rows of tasks that wait for a report.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
}

impl Recent {
    /// Remembers a task that was just committed. Only builds and deletions: there are many of them, and what comes after the
    /// report writes the instance, so that one that was changed meanwhile is noticed.
    pub(super) fn keep(&self, cx: &TaskContext) {
        if !matches!(cx.task.work, Work::Build { .. } | Work::Delete) || cx.migration.is_some() {
            return;
        }
        let rows = Rows { task: cx.task.clone(), instance: cx.instance.clone(), action: cx.action.clone() };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.rows.insert(rows.task.id, rows).is_none() {
            kept.order.push_back(cx.task.id);
        }
        while kept.order.len() > MOST {
            if let Some(oldest) = kept.order.pop_front() {
                kept.rows.remove(&oldest);
            }
        }
    }

    /// What is known of a task, once.
    pub(super) fn take(&self, id: TaskId, now: Timestamp) -> Option<TaskContext> {
        let rows = self.kept.lock().unwrap_or_else(PoisonError::into_inner).rows.remove(&id)?;
        Some(TaskContext::new(rows.task, rows.instance, rows.action, now))
    }
}
