//! What the steps of one task work on: rows as they were read, and changes that wait for the next commit.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::context::RequestContext;
use nova_core::flavor::Resources;
use nova_core::host::Allocation;
use nova_core::ids::{HostName, PortId};
use nova_core::instance::Instance;
use nova_core::migration::Migration;
use nova_core::network::Vif;
use nova_core::request::Destination;
use nova_core::rpc::Method;
use nova_core::rpc::compute::{AttachInterfaceOrder, BuildOrder, DetachInterfaceOrder, Order, RebootOrder, StopOrder};
use nova_core::state::{PowerState, is_legal_edge};
use nova_core::task::{Event, Task};
use nova_db::{Booking, Committed, TaskCommit};
use nova_queue::{BusError, RpcClient};

/// Bytes of a failure's details beyond which nothing is added.
const MAX_DETAILS: usize = 4096;

/// A message to a host that is sent once the commit before it is durable.
#[derive(Debug, Clone)]
pub enum StagedOrder {
    /// Make and start the guest.
    Build(Box<BuildOrder>),
    /// Remove it.
    Terminate,
    /// Start it.
    Start,
    /// Stop it.
    Stop(StopOrder),
    /// Restart it.
    Reboot(RebootOrder),
    /// Plug an interface in.
    AttachInterface(Box<AttachInterfaceOrder>),
    /// Unplug one.
    DetachInterface(DetachInterfaceOrder),
    /// Any other: what is said, and by which method.
    Other(Arc<dyn HostOrder>),
}

impl StagedOrder {
    /// An order that is sent by that method as it is.
    pub fn of<M, T>(body: T) -> Self
    where
        M: Method<Request = Order<T>, Reply = ()>,
        T: Clone + Send + Sync + 'static,
    {
        Self::Other(Arc::new(Said::<M, T> { body, method: PhantomData }))
    }
}

/// What is said to a host, whatever it is.
#[async_trait]
pub trait HostOrder: std::fmt::Debug + Send + Sync {
    /// Sends it, under the task's token.
    async fn send(
        &self,
        rpc: &RpcClient,
        host: &HostName,
        context: &RequestContext,
        address: Order<()>,
    ) -> Result<(), BusError>;
}

struct Said<M, T> {
    body: T,
    method: PhantomData<fn() -> M>,
}

impl<M: Method, T> std::fmt::Debug for Said<M, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(M::NAME)
    }
}

#[async_trait]
impl<M, T> HostOrder for Said<M, T>
where
    M: Method<Request = Order<T>, Reply = ()>,
    T: Clone + Send + Sync + 'static,
{
    async fn send(
        &self,
        rpc: &RpcClient,
        host: &HostName,
        context: &RequestContext,
        address: Order<()>,
    ) -> Result<(), BusError> {
        let Order { task_id, instance_id, epoch, given, .. } = address;
        let order = Order { task_id, instance_id, epoch, given, body: self.body.clone() };
        rpc.cast_to::<M>(host, context, &order).await
    }
}

/// Something that a host may have of a task that is given up, and must not keep.
#[derive(Debug, Clone)]
pub enum Removal {
    /// The guest.
    Guest(Order<()>),
    /// An interface.
    Interface(Order<DetachInterfaceOrder>),
}

/// How a step is taken back that others refuse to take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undoing {
    /// It is not: steps go on.
    No,
    /// It is asked for again.
    Insists,
    /// Long enough was insisted: what is refused is left, and written down.
    GivesUp,
}

/// One drive of a task: from one durable point to the next.
pub struct TaskContext {
    /// The task, with what this drive has written into its log.
    pub task: Task,
    /// The instance as it shall be.
    pub instance: Instance,
    /// Its action record for this request, where there is one.
    pub action: Option<ActionRecord>,
    /// Time of this drive.
    pub now: Timestamp,
    /// The power state that the host reported with the step that ended last.
    pub reported_power: Option<PowerState>,
    /// The step that failed last did so on its host, which says that nothing of it is left there.
    pub left_nothing: bool,
    /// Interfaces that this drive has made or read.
    pub vifs: Option<Vec<Vif>>,
    /// Hosts that this drive lost to others when they were to be booked.
    pub lost: Vec<HostName>,
    /// What an outside network service told of interfaces, and whether that they work.
    pub heard: BTreeMap<PortId, bool>,
    /// The record of the move, as it shall be.
    pub migration: Option<Migration>,
    /// The step that runs now, or its undo, was ordered before: the order goes out again as it was.
    pub repeated: bool,
    /// Is something taken back, and what of it that others refuse?
    pub undoing: Undoing,
    migration_before: Option<Migration>,
    before: Instance,
    book: Option<Booking>,
    release: Vec<HostName>,
    removals: Vec<(HostName, Removal)>,
}

impl TaskContext {
    /// A drive that begins with rows as they were read.
    pub fn new(task: Task, instance: Instance, action: Option<ActionRecord>, now: Timestamp) -> Self {
        Self {
            before: instance.clone(),
            task,
            instance,
            action,
            now,
            reported_power: None,
            left_nothing: false,
            vifs: None,
            lost: Vec::new(),
            heard: BTreeMap::new(),
            migration: None,
            repeated: false,
            undoing: Undoing::No,
            migration_before: None,
            book: None,
            release: Vec::new(),
            removals: Vec::new(),
        }
    }

    /// The same with the record of its move.
    #[must_use]
    pub fn with_migration(mut self, migration: Option<Migration>) -> Self {
        self.migration_before.clone_from(&migration);
        self.migration = migration;
        self
    }

    /// The host that carries out the current step, and is to report.
    pub fn executor(&self) -> Option<&HostName> {
        let ordered_of = self.migration.as_ref().and_then(|migration| migration.ordered_of.as_ref());
        ordered_of.or(self.instance.host.as_ref())
    }

    /// Something could not be taken back, and stays: administrators read of it in the fault.
    pub fn leave(&mut self, what: &str) {
        tracing::warn!(task = %self.task.id, instance = %self.instance.id, "left as it is: {what}");
        let failed = self.task.log.iter_mut().rev().find_map(|entry| match &mut entry.event {
            Event::Failed(failure) => Some(failure),
            _ => None,
        });
        if let Some(failure) = failed
            && !failure.details.contains(what)
            && failure.details.len() + what.len() <= MAX_DETAILS
        {
            let gap = if failure.details.is_empty() { "" } else { "; " };
            failure.details.push_str(&format!("{gap}left as it is: {what}"));
        }
    }

    /// A token of its own for the order that follows, unless it goes out again.
    pub fn renew_epoch(&mut self) {
        if !self.repeated {
            self.instance.epoch += 1;
        }
        self.task.epoch = self.task.epoch.max(self.instance.epoch);
        self.instance.epoch = self.task.epoch;
    }

    /// Books the instance's resources on a host with the next commit.
    pub fn stage_booking(&mut self, destination: &Destination) {
        let instance = self.instance.clone();
        self.stage_booking_as(destination, &instance, instance.booked_resources());
    }

    /// The same for the instance as it will be there, and so much for it.
    pub fn stage_booking_as(&mut self, destination: &Destination, instance: &Instance, resources: Resources) {
        self.book = Some(Booking {
            allocation: Allocation {
                instance_id: instance.id,
                host: destination.host.clone(),
                resources,
                created_at: self.now,
                placement: None,
            },
            zone: instance.pinned_availability_zone.clone(),
            group: instance.group(),
            topology: instance.topology(),
        });
    }

    /// Does a booking wait for the next commit?
    pub fn books(&self) -> bool {
        self.book.is_some()
    }

    /// Gives the instance's resources on a host back with the next commit.
    pub fn stage_release(&mut self, host: HostName) {
        if self.book.as_ref().is_some_and(|b| b.allocation.host == host) {
            self.book = None;
        } else {
            self.release.push(host);
        }
    }

    /// Has a host remove the guest, once the next commit is durable: what it makes true must be true first.
    pub fn stage_removal(&mut self, host: HostName) {
        let order = self.newest(());
        self.removals.push((host, Removal::Guest(order)));
    }

    /// The same of an interface of the guest.
    pub fn stage_unplug(&mut self, host: HostName, interface: DetachInterfaceOrder) {
        let order = self.newest(interface);
        self.removals.push((host, Removal::Interface(order)));
    }

    fn newest<T>(&self, body: T) -> Order<T> {
        let (task_id, instance_id, epoch) = (self.task.id, self.instance.id, self.instance.epoch);
        Order { task_id, instance_id, epoch, given: self.now, body }
    }

    /// Removals that are due now that the commit is durable.
    pub fn take_removals(&mut self) -> Vec<(HostName, Removal)> {
        std::mem::take(&mut self.removals)
    }

    /// What was written: the next commit begins from it.
    pub fn written(&mut self, committed: Committed) {
        self.task = committed.task;
        if let Some(instance) = committed.instance {
            self.instance = instance;
        }
        self.before = self.instance.clone();
        if committed.migration.is_some() {
            self.migration = committed.migration;
        }
        self.migration_before.clone_from(&self.migration);
        self.book = None;
        self.release.clear();
    }

    fn changed_migration(&self) -> Option<Migration> {
        let changed = self.migration.as_ref().filter(|_| self.migration != self.migration_before);
        changed.map(|migration| Migration { updated_at: Some(self.now), ..migration.clone() })
    }

    /// Everything that waits, as one transaction.
    pub fn commit(&self, done: bool) -> TaskCommit {
        let changed = self.instance != self.before;
        let (from, to) = (self.before.states(), self.instance.states());
        debug_assert!(is_legal_edge(&from, &to), "{from:?} -> {to:?} in {:?}", self.task);
        TaskCommit {
            task: self.task.clone(),
            done,
            instance: changed.then(|| Instance { updated_at: self.now, ..self.instance.clone() }),
            before: changed.then(|| Box::new(self.before.clone())),
            book: self.book.clone(),
            release: self.release.clone(),
            action: self.action.clone(),
            migration: self.changed_migration(),
        }
    }
}
