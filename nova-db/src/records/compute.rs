//! What goes with instances: requests, tasks, actions, allocations, usage.

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::Allocation;
use nova_core::ids::{InstanceId, ProjectId, RequestId};
use nova_core::quota::Usage;
use nova_core::task::Task;
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::rows::{Column, Record, Row, Table, Value};

/// A create request that was carried out: its key makes that happen once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// For whom.
    pub(crate) project_id: ProjectId,
    /// The API call.
    pub(crate) request_id: RequestId,
    /// What it made, in order.
    pub(crate) instances: Vec<InstanceId>,
}

impl Record for Request {
    const TABLE: &'static Table = &Table {
        name: "requests",
        kind: Kind::Instance,
        columns: &[Column::text("project_id", 255), Column::text("request_id", 64)],
        key: 2,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.project_id), Value::text(&self.request_id)]
    }
}

/// The lease is kept in columns, so that renewing it neither reads the task nor disturbs who is about to commit it.
impl Record for Task {
    const TABLE: &'static Table = &Table {
        name: "tasks",
        kind: Kind::Task,
        columns: &[
            Column::uuid("id"),
            Column::uuid("instance_id"),
            Column::text("owner", 255),
            Column::time("lease_until"),
            Column::time("created_at"),
        ],
        key: 1,
        unique: &[],
        indexes: &[&["instance_id"], &["lease_until", "id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![
            Value::text(self.id),
            Value::text(self.instance_id),
            Value::optional(self.owner.as_ref()),
            self.lease_until.into(),
            self.created_at.into(),
        ]
    }

    fn restore(&mut self, row: &Row) {
        self.generation = row.generation;
        // Only where they differ: the document may be finer than a microsecond.
        let own = self.values();
        for column in ["owner", "lease_until"] {
            let position = Self::TABLE.position(column);
            match row.values.get(position) {
                Some(value) if Some(value) == own.get(position) => {}
                Some(Value::Text(owner)) => self.owner = Some(owner.clone()).filter(|owner| !owner.is_empty()),
                Some(Value::Int(micros)) => {
                    if let Ok(time) = Timestamp::from_microsecond(*micros) {
                        self.lease_until = time;
                    }
                }
                None => {}
            }
        }
    }
}

impl Record for ActionRecord {
    const TABLE: &'static Table = &Table {
        name: "actions",
        kind: Kind::Action,
        columns: &[Column::uuid("instance_id"), Column::text("request_id", 64), Column::time("started")],
        key: 2,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.instance_id), Value::text(&self.request_id), self.started.into()]
    }
}

impl Record for Allocation {
    const TABLE: &'static Table = &Table {
        name: "allocations",
        kind: Kind::Allocation,
        columns: &[Column::uuid("instance_id"), Column::text("host", 255)],
        key: 2,
        unique: &[],
        indexes: &[&["host", "instance_id"]],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(self.instance_id), Value::text(&self.host)]
    }
}

/// What a project's live instances use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProjectUsage {
    /// Whose.
    pub(crate) project_id: ProjectId,
    /// How much.
    pub(crate) usage: Usage,
}

impl Record for ProjectUsage {
    const TABLE: &'static Table = &Table {
        name: "usages",
        kind: Kind::Project,
        columns: &[Column::text("project_id", 255)],
        key: 1,
        unique: &[],
        indexes: &[],
    };

    fn values(&self) -> Vec<Value> {
        vec![Value::text(&self.project_id)]
    }
}
