//! Instances, their tasks, actions, allocations and quota: one transactional unit.

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::{Allocation, NodeVersion};
use nova_core::ids::{
    FlavorId, HostName, ImageId, InstanceId, ProjectId, RequestId, ReservationId, ServerGroupId, TaskId, UserId,
    ZoneName,
};
use nova_core::image::Image;
use nova_core::instance::Instance;
use nova_core::migration::Migration;
use nova_core::quota::{Limits, Usage};
use nova_core::state::{TaskState, VmState};
use nova_core::task::Task;
use nova_core::topology::GuestTopology;

use crate::StoreError;

/// One server of a create request.
#[derive(Debug, Clone)]
pub struct NewInstance {
    /// The row; its number, generation and epoch are set by the store.
    pub instance: Instance,
    /// Its `create` action.
    pub action: ActionRecord,
    /// The task that builds it.
    pub task: Task,
}

/// A whole create request.
#[derive(Debug, Clone)]
pub struct NewInstances {
    /// All servers; of one project, user and request id.
    pub instances: Vec<NewInstance>,
    /// The project's limits, checked in the same transaction.
    pub limits: Limits,
    /// The user's own limits in the project, where there are some; checked in the same transaction.
    pub user_limits: Option<Limits>,
    /// The server group that all of them join in the same transaction.
    pub group: Option<JoinGroup>,
}

/// Becoming members of a server group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinGroup {
    /// The group; it must exist and be of the project.
    pub id: ServerGroupId,
    /// How many members a user may have in it (`quota.server_group_members`); `None`: without limit.
    pub member_limit: Option<u64>,
}

/// The begin of an action on an instance.
#[derive(Debug, Clone)]
pub struct TaskStart {
    /// The instance with its new task state, and the generation that was read. The store raises its epoch.
    pub instance: Instance,
    /// The instance as it was read, from whoever still has it: the store does not read it again.
    pub before: Option<Box<Instance>>,
    /// What `os-instance-actions` will show.
    pub action: ActionRecord,
    /// What carries it out; the store sets its epoch to the instance's.
    pub task: Task,
    /// End every other task of the instance (its rows go, its actions end in error), as deletion does.
    pub supersede: bool,
    /// What the instance counts for more than before must fit into these.
    pub limits: Option<Limits>,
    /// The same of its user's own limits in the project, where there are some.
    pub user_limits: Option<Limits>,
    /// The move that it begins or goes on with: a new one gets its number; of one that exists, the generation that was
    /// read must still stand.
    pub migration: Option<Migration>,
    /// The image that it makes, described: a new one, which there is only with the task.
    pub image: Option<Image>,
}

impl TaskStart {
    /// An action that is no move, makes no image, asks for no quota and leaves other tasks alone.
    pub fn of(instance: Instance, action: ActionRecord, task: Task) -> Self {
        let (before, limits, user_limits, migration, image) = (None, None, None, None, None);
        Self { instance, before, action, task, supersede: false, limits, user_limits, migration, image }
    }
}

/// Resources to be booked on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// Where, for whom, how much.
    pub allocation: Allocation,
    /// The host must be in this zone when it is booked.
    pub zone: Option<ZoneName>,
    /// The server group whose policy must hold when it is booked; one that is gone asks for nothing.
    pub group: Option<ServerGroupId>,
    /// Cells, CPUs and pages that it needs: the store gives out free ones and writes them into the allocation.
    pub topology: Option<GuestTopology>,
}

impl Booking {
    /// Only room is asked for.
    pub fn of(allocation: Allocation) -> Self {
        Self { allocation, zone: None, group: None, topology: None }
    }
}

/// A step's durable effects, all or none.
#[derive(Debug, Clone)]
pub struct TaskCommit {
    /// The task with its new log, and the generation that was read.
    pub task: Task,
    /// It is over: its row goes.
    pub done: bool,
    /// The instance as it shall be, and the generation that was read.
    pub instance: Option<Instance>,
    /// The instance as it was read, from whoever still has it: the store does not read it again.
    pub before: Option<Box<Instance>>,
    /// Resources to book; a host without room is [`StoreError::NoRoom`], one that zone or group forbid is
    /// [`StoreError::Unsuitable`].
    pub book: Option<Booking>,
    /// Hosts on which the instance's allocation is given back; absent ones are fine.
    pub release: Vec<HostName>,
    /// The instance's action record for this task's request, as it shall be.
    pub action: Option<ActionRecord>,
    /// The move as it shall be, and the generation that was read.
    pub migration: Option<Migration>,
}

impl TaskCommit {
    /// Only the task's own row.
    pub fn of(task: Task) -> Self {
        Self {
            task,
            done: false,
            instance: None,
            before: None,
            book: None,
            release: Vec::new(),
            action: None,
            migration: None,
        }
    }
}

/// What a commit left.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The task with its new generation.
    pub task: Task,
    /// The instance with its new generation, where one was written.
    pub instance: Option<Instance>,
    /// Hosts on which the instance's allocation changed, and their nodes as they are now: first those that it left.
    pub nodes: Vec<(HostName, NodeVersion)>,
    /// What was booked, with the cells, CPUs and pages that were given out.
    pub booked: Option<Allocation>,
    /// The move with its new generation, where one was written.
    pub migration: Option<Migration>,
}

/// Which side of deletion.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deleted {
    /// Live ones.
    #[default]
    No,
    /// Deleted ones.
    Only,
    /// Both.
    Any,
}

/// Columns that lists of instances are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the column that it names")]
pub enum SortKey {
    CreatedAt,
    UpdatedAt,
    LaunchedAt,
    DisplayName,
    Id,
    Host,
    Node,
    VmState,
    TaskState,
    PowerState,
    ProjectId,
    UserId,
    KeyName,
    AvailabilityZone,
    Hostname,
    LaunchIndex,
    ImageRef,
    FlavorId,
    MemoryMb,
    Vcpus,
    RootGb,
    Locked,
    Progress,
}

/// Ascending or descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant says it all")]
pub enum Direction {
    Ascending,
    Descending,
}

/// A stable state, and the task states that narrow it (`None` among them is idle); without a list, any.
pub type StateFilter = (VmState, Option<Vec<Option<TaskState>>>);

/// Which instances, in which order. Every condition that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct InstanceQuery {
    /// Of this project.
    pub project_id: Option<ProjectId>,
    /// Of this user.
    pub user_id: Option<UserId>,
    /// On this host.
    pub host: Option<HostName>,
    /// Any of these.
    pub ids: Option<Vec<InstanceId>>,
    /// In one of these states; the task states narrow it where given.
    pub states: Option<Vec<StateFilter>>,
    /// Of this request.
    pub reservation_id: Option<ReservationId>,
    /// Made from this image.
    pub image_id: Option<ImageId>,
    /// Of this flavor.
    pub flavor_id: Option<FlavorId>,
    /// Live, deleted or both.
    pub deleted: Deleted,
    /// Changed at or after.
    pub changed_since: Option<Timestamp>,
    /// Changed at or before.
    pub changed_before: Option<Timestamp>,
    /// Sort keys, first the most important; the id breaks ties, ascending. Empty: created_at descending, id descending.
    pub sort: Vec<(SortKey, Direction)>,
    /// Only what comes after this instance in that order; unknown: [`StoreError::NotFound`].
    pub after: Option<InstanceId>,
    /// At most that many.
    pub limit: Option<usize>,
}

/// Instances, tasks, actions, allocations, quota usage.
#[async_trait]
pub trait ComputeStore: Send + Sync {
    /// Writes all instances of a request with their actions and tasks and raises the project's usage, in one
    /// transaction, if the project's limits allow it. Repeating it with the same request id and project returns what
    /// the first call made and writes nothing. Returned in the order given, with numbers set.
    ///
    /// # Errors
    /// [`StoreError::Quota`], with resource `server_group_members` for the group's limit; [`StoreError::NotFound`] for a
    /// group that is not there, or not the project's.
    async fn create_instances(&self, new: NewInstances) -> Result<Vec<Instance>, StoreError>;

    /// One instance, deleted ones included until they are archived.
    async fn get_instance(&self, id: InstanceId) -> Result<Instance, StoreError>;

    /// Instances that fit, in order.
    async fn list_instances(&self, query: &InstanceQuery) -> Result<Vec<Instance>, StoreError>;

    /// Writes an instance if its generation still stands, and keeps the project's usage true. Returns it with its new
    /// generation. `updated_at` is the caller's business.
    async fn update_instance(&self, instance: Instance) -> Result<Instance, StoreError>;

    /// The same together with the record of an action that is over with it, in one transaction: `lock`, `resetState`.
    async fn record_change(&self, instance: Instance, action: ActionRecord) -> Result<Instance, StoreError>;

    /// Sets the state of an instance by hand (`os-resetState`) and ends what is being done with it, in one transaction: builds
    /// and moves are given up at once, whoever takes them up takes back what they have made; deletions and what is done to
    /// interfaces go on; all other tasks are over. While something goes on, the task state stays. A resize that waits for its
    /// confirmation is over, too: the instance is where it is, and holds nothing elsewhere.
    async fn reset_state(&self, instance: Instance, action: ActionRecord) -> Result<Instance, StoreError>;

    /// Begins an action: writes the instance (generation checked, epoch raised), the action record and the task, in one
    /// transaction.
    ///
    /// # Errors
    /// [`StoreError::Quota`] where limits are given and what is asked for does not fit.
    async fn start_task(&self, start: TaskStart) -> Result<Instance, StoreError>;

    /// One task.
    async fn get_task(&self, id: TaskId) -> Result<Task, StoreError>;

    /// Tasks whose lease has run out by `now`, oldest lease first.
    async fn list_due_tasks(&self, now: Timestamp, limit: usize) -> Result<Vec<Task>, StoreError>;

    /// All tasks, or those of one instance, oldest first.
    async fn list_tasks(&self, instance: Option<InstanceId>) -> Result<Vec<Task>, StoreError>;

    /// Takes a task's lease if nobody else holds it. One of many callers wins; the others get a Conflict.
    async fn acquire_task(
        &self,
        id: TaskId,
        owner: &str,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<Task, StoreError>;

    /// Prolongs the lease of these tasks, as far as they are still this owner's, in one transaction.
    async fn renew_leases(&self, ids: &[TaskId], owner: &str, lease_until: Timestamp) -> Result<(), StoreError>;

    /// Writes a step's effects in one transaction: task (generation checked), instance (generation checked; usage kept
    /// true), booking (capacity, zone and group checked: never over), releases, action. Of bookings of one group, each
    /// sees those before it.
    async fn commit_task(&self, commit: TaskCommit) -> Result<Committed, StoreError>;

    /// Actions of an instance, newest first, deleted instances included.
    async fn list_actions(&self, instance: InstanceId) -> Result<Vec<ActionRecord>, StoreError>;

    /// The action of one request.
    async fn get_action(&self, instance: InstanceId, request: &RequestId) -> Result<ActionRecord, StoreError>;

    /// What a project uses.
    async fn usage(&self, project: &ProjectId) -> Result<Usage, StoreError>;

    /// What every project uses that ever had an instance, by project id.
    async fn list_usage(&self) -> Result<Vec<(ProjectId, Usage)>, StoreError>;

    /// Allocations, of one host or all, by host and instance.
    async fn list_allocations(&self, host: Option<&HostName>) -> Result<Vec<Allocation>, StoreError>;

    /// Repair: sets a project's usage, a node's use, or allocations to what the instances say. One transaction.
    /// Returns what was changed, one line each.
    async fn rebuild_accounts(&self) -> Result<Vec<String>, StoreError>;

    /// Repair: gives back an allocation that no live instance needs.
    async fn delete_allocation(&self, instance: InstanceId, host: &HostName) -> Result<(), StoreError>;

    /// Repair: writes the end of an action that no task carries out any more; while one does, it is a Conflict.
    async fn finish_action(&self, action: ActionRecord) -> Result<(), StoreError>;
}
