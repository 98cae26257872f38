//! What the steps of one task work on: rows as they were read, and changes that wait for the next commit.

use jiff::Timestamp;
use nova_core::action::ActionRecord;
use nova_core::host::Allocation;
use nova_core::ids::HostName;
use nova_core::instance::Instance;
use nova_core::network::Vif;
use nova_core::request::Destination;
use nova_core::rpc::compute::{AttachInterfaceOrder, BuildOrder, DetachInterfaceOrder, Order, RebootOrder, StopOrder};
use nova_core::state::{PowerState, is_legal_edge};
use nova_core::task::Task;
use nova_db::{Booking, TaskCommit};

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
}

/// Something that a host may have of a task that is given up, and must not keep.
#[derive(Debug, Clone)]
pub enum Removal {
    /// The guest.
    Guest(Order<()>),
    /// An interface.
    Interface(Order<DetachInterfaceOrder>),
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
            book: None,
            release: Vec::new(),
            removals: Vec::new(),
        }
    }

    /// Books the instance's resources on a host with the next commit.
    pub fn stage_booking(&mut self, destination: &Destination) {
        self.book = Some(Booking {
            allocation: Allocation {
                instance_id: self.instance.id,
                host: destination.host.clone(),
                resources: self.instance.booked_resources(),
                created_at: self.now,
                placement: None,
            },
            zone: self.instance.pinned_availability_zone.clone(),
            group: self.instance.group(),
            topology: self.instance.topology(),
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

    /// Everything that waits, as one transaction.
    pub fn commit(&self, done: bool) -> TaskCommit {
        let changed = self.instance != self.before;
        let (from, to) = (self.before.states(), self.instance.states());
        debug_assert!(is_legal_edge(&from, &to), "{from:?} -> {to:?} in {:?}", self.task);
        TaskCommit {
            task: self.task.clone(),
            done,
            instance: changed.then(|| Instance { updated_at: self.now, ..self.instance.clone() }),
            book: self.book.clone(),
            release: self.release.clone(),
            action: self.action.clone(),
        }
    }
}
