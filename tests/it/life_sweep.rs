//! Each operation on a server's own host, cut off everywhere: its driver fails before and after its effect, its orders come
//! twice, its conductor and its host die at each moment, its server is deleted in the midst of it. After each the server is
//! in a state that it may be in, and nothing is left without an owner.

use std::time::Duration;

use nova::conductor::ConductorOptions;
use nova_core::ids::InstanceId;
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_core::task::Work;
use nova_queue::Chances;
use nova_virt::{ErrorKind, FakeHypervisor, Operation};

use crate::moves_sweep::What;
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

/// More moments than any of the operations has.
const MOMENTS: u32 = 60;

/// What is done, and what may come of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Deed {
    action: Action,
    /// What is done before, so that it can be.
    before: &'static [Action],
    /// The driver's part of it.
    operation: Operation,
    /// Where it ends.
    well: VmState,
    /// Where it may end otherwise.
    ill: &'static [VmState],
}

const fn deed(
    action: Action,
    before: &'static [Action],
    operation: Operation,
    well: VmState,
    ill: &'static [VmState],
) -> Deed {
    Deed { action, before, operation, well, ill }
}

use VmState as V;

const START: Deed = deed(Action::Start, &[Action::Stop], Operation::PowerOn, V::Active, &[V::Stopped]);
const STOP: Deed = deed(Action::Stop, &[], Operation::PowerOff, V::Stopped, &[V::Active]);
const REBOOT_SOFT: Deed = deed(Action::RebootSoft, &[], Operation::Reboot, V::Active, &[V::Error]);
const REBOOT_HARD: Deed = deed(Action::RebootHard, &[], Operation::Reboot, V::Active, &[V::Error]);
const PAUSE: Deed = deed(Action::Pause, &[], Operation::Pause, V::Paused, &[V::Active]);
const UNPAUSE: Deed = deed(Action::Unpause, &[Action::Pause], Operation::Unpause, V::Active, &[V::Paused]);
const SUSPEND: Deed = deed(Action::Suspend, &[], Operation::Suspend, V::Suspended, &[V::Active]);
const RESUME: Deed = deed(Action::Resume, &[Action::Suspend], Operation::Resume, V::Active, &[V::Suspended]);
const SOFT_DELETE: Deed = deed(Action::Delete, &[], Operation::PowerOff, V::SoftDelete, &[V::Active]);
const RESTORE: Deed = deed(Action::Restore, &[Action::Delete], Operation::PowerOn, V::Active, &[V::SoftDelete]);
const RESCUE: Deed = deed(Action::Rescue, &[], Operation::Rescue, V::Rescued, &[V::Active, V::Error, V::Stopped]);
const UNRESCUE: Deed =
    deed(Action::Unrescue, &[Action::Rescue], Operation::Unrescue, V::Active, &[V::Error, V::Rescued]);
const REBUILD: Deed = deed(Action::Rebuild, &[], Operation::Rebuild, V::Active, &[V::Error]);
const REBUILD_STOPPED: Deed = deed(Action::Rebuild, &[Action::Stop], Operation::Rebuild, V::Stopped, &[V::Error]);
const PASSWORD: Deed = deed(Action::ChangePassword, &[], Operation::SetAdminPassword, V::Active, &[]);
const CRASH_DUMP: Deed = deed(Action::TriggerCrashDump, &[], Operation::InjectNmi, V::Active, &[]);
const IMAGE: Deed = deed(Action::CreateImage, &[], Operation::Snapshot, V::Active, &[]);
const BACKUP: Deed = deed(Action::CreateBackup, &[Action::CreateBackup], Operation::Snapshot, V::Active, &[]);

/// Where a kind of work is cut off everywhere.
#[derive(Debug)]
pub(crate) enum Sweep {
    /// Here.
    Here(&'static [Deed]),
    /// In [`moves_sweep`](crate::moves_sweep).
    Moves(&'static [What]),
    /// In [`mortal`](crate::mortal) and the simulation: servers, and their interfaces, come and go.
    Interfaces,
    /// In `server_volumes::sweep`.
    Volumes,
}

/// The sweep of each kind: one that has none does not compile.
pub(crate) fn sweep_of(work: &Work) -> Sweep {
    match work {
        Work::Start => Sweep::Here(&[START]),
        Work::Stop => Sweep::Here(&[STOP]),
        Work::Reboot { hard: false } => Sweep::Here(&[REBOOT_SOFT]),
        Work::Reboot { hard: true } => Sweep::Here(&[REBOOT_HARD]),
        Work::Pause => Sweep::Here(&[PAUSE]),
        Work::Unpause => Sweep::Here(&[UNPAUSE]),
        Work::Suspend => Sweep::Here(&[SUSPEND]),
        Work::Resume => Sweep::Here(&[RESUME]),
        Work::SoftDelete => Sweep::Here(&[SOFT_DELETE]),
        Work::Restore => Sweep::Here(&[RESTORE]),
        Work::Rescue { .. } => Sweep::Here(&[RESCUE]),
        Work::Unrescue => Sweep::Here(&[UNRESCUE]),
        Work::Rebuild { .. } => Sweep::Here(&[REBUILD, REBUILD_STOPPED]),
        Work::ChangePassword { .. } => Sweep::Here(&[PASSWORD]),
        Work::TriggerCrashDump => Sweep::Here(&[CRASH_DUMP]),
        Work::CreateImage { .. } => Sweep::Here(&[IMAGE]),
        Work::CreateBackup { .. } => Sweep::Here(&[BACKUP]),
        Work::Move(kind) => Sweep::Moves(What::all_of(kind)),
        Work::Build { .. } | Work::Delete | Work::AttachInterface { .. } | Work::DetachInterface { .. } => {
            Sweep::Interfaces
        }
        Work::SnapshotVolumes { .. }
        | Work::AttachVolume { .. }
        | Work::DetachVolume { .. }
        | Work::SwapVolume { .. } => Sweep::Volumes,
    }
}

impl Deed {
    /// A cloud in which it can be done.
    async fn cloud(self) -> (Cloud, InstanceId) {
        let deferred = [self.action, self.before.first().copied().unwrap_or(self.action)].contains(&Action::Delete);
        let reclaim_instance_interval = Duration::from_secs(if deferred { 7 * 86_400 } else { 0 });
        let conductor = ConductorOptions { reclaim_instance_interval, ..ConductorOptions::default() };
        let cloud = Cloud::start(CloudOptions { hosts: 1, conductor, ..CloudOptions::default() }).await;
        let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
        cloud.settle().await;
        for action in self.before {
            assert!(cloud.act(id, *action).await, "{action:?} before {self:?}");
            cloud.settle().await;
        }
        (cloud, id)
    }

    /// Lets everything come to its end, and looks.
    async fn judge(self, cloud: &Cloud, id: InstanceId, how: &str) -> Instance {
        cloud.settle().await;
        // Long enough for the host to compare guests and power states.
        cloud.pass(Duration::from_secs(250)).await;
        cloud.settle().await;
        let server = cloud.get(id).await;
        let fine = server.vm_state == self.well || self.ill.contains(&server.vm_state);
        assert!(fine, "{self:?}, {how}: {server:?}");
        assert!(server.vm_state != V::Error || server.fault.is_some(), "{self:?}, {how}: an error that says nothing");
        let actions = cloud.store.list_actions(id).await.unwrap();
        assert!(actions.iter().all(|action| action.finished.is_some()), "{self:?}, {how}: {actions:?}");
        cloud.check().await;
        server
    }

    /// After whatever happened the server can be deleted, and nothing is left.
    async fn end(self, cloud: Cloud, id: InstanceId) {
        assert!(cloud.act(id, Action::ForceDelete).await, "{self:?}");
        cloud.settle().await;
        assert!(cloud.get(id).await.is_deleted(), "{self:?}");
        cloud.check().await;
        cloud.stop().await;
    }

    async fn driver_fails(self) {
        for kind in [ErrorKind::Failed, ErrorKind::TimedOut, ErrorKind::Unsupported, ErrorKind::NotFound] {
            for after in [false, true] {
                let (cloud, id) = self.cloud().await;
                let host = only(&cloud);
                if after {
                    host.fail_next_after_effect(self.operation, 1, kind);
                } else {
                    host.fail_next(self.operation, 1, kind);
                }
                assert!(cloud.act(id, self.action).await, "{self:?}");
                let server = self.judge(&cloud, id, &format!("{kind:?}, after its effect: {after}")).await;
                assert!(server.fault.is_some() || server.vm_state == self.well, "{self:?}: {server:?}");
                self.end(cloud, id).await;
            }
        }
    }

    async fn orders_come_twice(self) {
        let (cloud, id) = self.cloud().await;
        cloud.set_chances(Chances { repeat: 1000, ..Chances::default() });
        assert!(cloud.act(id, self.action).await, "{self:?}");
        let begun = cloud.store.list_tasks(Some(id)).await.unwrap();
        let Some(Sweep::Here(deeds)) = begun.first().map(|task| sweep_of(&task.work)) else { panic!("{begun:?}") };
        assert!(deeds.contains(&self), "it is work of another kind: {begun:?}");
        let server = self.judge(&cloud, id, "twice").await;
        assert_eq!((server.vm_state, server.fault), (self.well, None), "{self:?}");
        self.end(cloud, id).await;
    }

    async fn conductor_dies(self, fails: bool) {
        for moment in 1..MOMENTS {
            let (mut cloud, id) = self.cloud().await;
            if fails {
                only(&cloud).fail_next(self.operation, 9, ErrorKind::Failed);
            }
            let life = Life::of(moment);
            cloud.replace_conductor("mortal", Some(life.clone())).await;
            assert!(cloud.act(id, self.action).await, "{self:?}");
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.replace_conductor("heir", None).await;
            let server = self.judge(&cloud, id, &format!("its conductor died at {moment}, failing: {fails}")).await;
            assert!(fails || server.vm_state == self.well, "{self:?} at {moment}: {server:?}");
            self.end(cloud, id).await;
            if !died {
                return;
            }
        }
        panic!("{self:?} never ends");
    }

    async fn host_dies(self) {
        for moment in 1..MOMENTS {
            let (mut cloud, id) = self.cloud().await;
            let host = cloud.get(id).await.host.unwrap();
            let life = Life::long();
            cloud.start_agent(&host, Some(life.clone())).await;
            life.end_after(moment);
            assert!(cloud.act(id, self.action).await, "{self:?}");
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.start_agent(&host, None).await;
            let server = self.judge(&cloud, id, &format!("its host died at {moment}")).await;
            assert_eq!(server.vm_state, self.well, "{self:?} at {moment}: {server:?}");
            self.end(cloud, id).await;
            if !died {
                return;
            }
        }
        panic!("{self:?} never ends");
    }

    /// The host's process ends in the midst of the driver's operation, which goes on without it.
    async fn host_dies_in_the_midst(self) {
        let (mut cloud, id) = self.cloud().await;
        let host = cloud.get(id).await.host.unwrap();
        let life = Life::long();
        cloud.start_agent(&host, Some(life.clone())).await;
        only(&cloud).hang(self.operation);
        assert!(cloud.act(id, self.action).await, "{self:?}");
        cloud.pass(Duration::from_secs(2)).await;
        life.end_after(1);
        cloud.pass(Duration::from_secs(20)).await;
        cloud.start_agent(&host, None).await;
        only(&cloud).release(self.operation);
        let server = self.judge(&cloud, id, "its host died in the midst").await;
        assert_eq!(server.vm_state, self.well, "{self:?}: {server:?}");
        self.end(cloud, id).await;
    }

    async fn is_deleted_meanwhile(self) {
        for wait in [0, 3, 2000] {
            let (cloud, id) = self.cloud().await;
            only(&cloud).hang(self.operation);
            assert!(cloud.act(id, self.action).await, "{self:?}");
            cloud.pass(Duration::from_millis(wait)).await;
            assert!(cloud.act(id, Action::ForceDelete).await, "{self:?}");
            cloud.pass(Duration::from_secs(1)).await;
            only(&cloud).release(self.operation);
            cloud.settle().await;
            cloud.pass(Duration::from_secs(250)).await;
            assert!(cloud.get(id).await.is_deleted(), "{self:?} after {wait} ms");
            cloud.check().await;
            cloud.stop().await;
        }
    }

    async fn all(self) {
        self.driver_fails().await;
        self.orders_come_twice().await;
        self.conductor_dies(false).await;
        self.conductor_dies(true).await;
        self.host_dies().await;
        self.host_dies_in_the_midst().await;
        self.is_deleted_meanwhile().await;
    }
}

fn only(cloud: &Cloud) -> &FakeHypervisor {
    cloud.hosts.values().next().unwrap()
}

macro_rules! deeds {
    ($($name:ident: $deed:ident),+ $(,)?) => { $(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            $deed.all().await;
        }
    )+ };
}

deeds! {
    starting: START,
    stopping: STOP,
    rebooting: REBOOT_SOFT,
    rebooting_hard: REBOOT_HARD,
    pausing: PAUSE,
    unpausing: UNPAUSE,
    suspending: SUSPEND,
    resuming: RESUME,
    soft_deleting: SOFT_DELETE,
    restoring: RESTORE,
    rescuing: RESCUE,
    unrescuing: UNRESCUE,
    rebuilding: REBUILD,
    rebuilding_a_stopped_one: REBUILD_STOPPED,
    changing_its_password: PASSWORD,
    dumping_its_memory: CRASH_DUMP,
    making_an_image: IMAGE,
    making_a_backup: BACKUP,
}
