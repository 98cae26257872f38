//! The invariants: a healthy cloud has no findings, each planted violation is found, and what can be mended is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends by a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use nova::check::{CheckOptions, Checker, GuestFacts, HostFacts, Hosts, Repair, Report, Violation, examine};
use nova_core::action::ActionRecord;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::host::{Allocation, ComputeNode};
use nova_core::ids::{HostName, InstanceId, RequestId, ServiceId, TaskId};
use nova_core::image::{Image, ImageStatus, Visibility};
use nova_core::instance::Instance;
use nova_core::quota::Limits;
use nova_core::state::{Action, PowerState, States, TaskState, VmState};
use nova_core::task::{Task, Work};
use nova_db::{Booking, NewInstance, NewInstances, OpenOptions, ServiceBeat, Store, TaskCommit, TaskStart};
use nova_virt::{FakeHypervisor, Hypervisor, Operation};

use crate::support::{Cloud, CloudOptions};

mod network;
mod volumes;

type Fakes = BTreeMap<HostName, Arc<FakeHypervisor>>;

/// The fakes as a check sees them.
struct FakeHosts(Fakes);

#[async_trait]
impl Hosts for FakeHosts {
    async fn read(&self) -> Vec<HostFacts> {
        let mut all = Vec::new();
        for (host, fake) in &self.0 {
            let (problem, guests) = match fake.list().await {
                Ok(guests) => (None, guests),
                Err(error) => (Some(error.to_string()), Vec::new()),
            };
            let guests = guests.into_iter().map(|guest| GuestFacts {
                instance: guest.instance,
                name: guest.name,
                power_state: guest.power_state,
                epoch: guest.epoch,
            });
            all.push(HostFacts { host: host.clone(), problem, guests: guests.collect() });
        }
        all
    }

    async fn destroy_guest(&self, host: &HostName, instance: InstanceId) -> Result<(), BoxError> {
        let fake = self.0.get(host).ok_or("no such host")?;
        Ok(fake.destroy(instance).await?)
    }
}

fn checker(cloud: &Cloud) -> Checker {
    Checker {
        store: cloud.store.clone(),
        hosts: Arc::new(FakeHosts(cloud.hosts.clone())),
        clock: cloud.clock.clone(),
        options: CheckOptions::default(),
    }
}

/// What is wrong with the cloud now.
pub async fn violations(cloud: &Cloud) -> Vec<Violation> {
    checker(cloud).check().await.unwrap().violations
}

fn found(report: &Report) -> Vec<&'static str> {
    report.violations.iter().map(|violation| violation.invariant).collect()
}

/// A cloud with some servers whose services have ended: what is planted stays as it is.
struct Still {
    store: Arc<dyn Store>,
    hosts: Fakes,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    checker: Checker,
    servers: Vec<Instance>,
}

impl Still {
    async fn new() -> Self {
        let cloud = Cloud::start(CloudOptions::default()).await;
        let ids = cloud.boot(3, cloud.flavor(1, 512)).await.unwrap();
        cloud.settle().await;
        let mut servers = Vec::new();
        for id in ids {
            servers.push(cloud.get(id).await);
        }
        let still = Self {
            store: cloud.store.clone(),
            hosts: cloud.hosts.clone(),
            clock: cloud.clock.clone(),
            entropy: cloud.entropy.clone(),
            checker: checker(&cloud),
            servers,
        };
        cloud.stop().await;
        assert_eq!(still.checker.check().await.unwrap().violations, []);
        still
    }

    fn server(&self) -> Instance {
        self.servers[0].clone()
    }

    fn host_of(&self, server: &Instance) -> Arc<FakeHypervisor> {
        self.hosts[server.host.as_ref().unwrap()].clone()
    }

    fn other_host(&self, server: &Instance) -> HostName {
        self.hosts.keys().find(|host| Some(*host) != server.host.as_ref()).unwrap().clone()
    }

    /// Begins a task that no conductor is to take up.
    async fn begin(&self, mut instance: Instance, work: Work) -> Task {
        instance.task_state = Some(TaskState::PoweringOff);
        let (task, action) = parts(&instance, work, &*self.clock, &*self.entropy, None);
        let id = task.id;
        self.store.start_task(TaskStart::of(instance, action, task)).await.unwrap();
        self.store.get_task(id).await.unwrap()
    }

    /// What a check finds, then what is left after its repairs; a second repair finds no more to do.
    async fn mend(&self) -> (Report, Report) {
        let before = self.checker.check().await.unwrap();
        assert_eq!(found(&before), found(&self.checker.check().await.unwrap()), "a check alone changes nothing");
        let (_, after) = self.checker.repair().await.unwrap();
        let (_, again) = self.checker.repair().await.unwrap();
        assert_eq!(after.violations, again.violations);
        (before, after)
    }

    /// Exactly these are found, and all of them can be mended.
    async fn finds_and_mends(&self, invariants: &[&str]) {
        let (before, after) = self.mend().await;
        assert_eq!(found(&before), invariants, "{:#?}", before.violations);
        assert!(before.violations.iter().all(|violation| violation.repair.is_some()), "{:#?}", before.violations);
        assert_eq!(after.violations, []);
    }

    /// Exactly these are found, and there is no one right answer to any.
    async fn finds_and_leaves(&self, invariants: &[&str]) {
        let (before, after) = self.mend().await;
        assert_eq!(found(&before), invariants, "{:#?}", before.violations);
        assert_eq!(after.violations, before.violations);
    }
}

fn parts(
    instance: &Instance,
    work: Work,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    request: Option<RequestId>,
) -> (Task, ActionRecord) {
    let now = clock.now();
    let request = request.unwrap_or_else(|| RequestId::generate(entropy));
    let task = Task {
        id: TaskId::generate(entropy),
        instance_id: instance.id,
        work,
        context: RequestContext::internal(request.clone()),
        epoch: 0,
        log: Vec::new(),
        destination: None,
        alternates: Vec::new(),
        awaited: None,
        owner: Some("someone".into()),
        lease_until: now + SignedDuration::from_hours(9),
        deadline: now + SignedDuration::from_mins(10),
        created_at: now,
        generation: 0,
    };
    let action = ActionRecord {
        instance_id: instance.id,
        request_id: request,
        action: "stop".into(),
        user_id: instance.user_id.clone(),
        project_id: instance.project_id.clone(),
        started: now,
        finished: None,
        message: None,
        updated: now,
        events: Vec::new(),
    };
    (task, action)
}

// ---- healthy clouds --------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_healthy_cloud_has_no_findings() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    let ids = cloud.boot(4, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    for (id, action) in ids.iter().zip([Action::Stop, Action::RebootHard, Action::Delete]) {
        assert!(cloud.act(*id, action).await);
    }
    cloud.settle().await;
    let report = checker(&cloud).check().await.unwrap();
    assert_eq!(report.violations, []);
    assert_eq!((report.instances, report.guests, report.unreached.len()), (4, 3, 0));
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failed_and_abandoned_builds_leave_no_findings() {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.fail_next(Operation::Spawn, 1, nova_virt::ErrorKind::NoSpace);
    cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.settle().await;
    host.hang(Operation::Spawn);
    let ids = cloud.boot(1, cloud.flavor(1, 512)).await.unwrap();
    cloud.pass(Duration::from_secs(2)).await;
    assert!(cloud.act(ids[0], Action::Delete).await);
    host.release(Operation::Spawn);
    cloud.settle().await;
    assert_eq!(checker(&cloud).check().await.unwrap().violations, []);
    cloud.stop().await;
}

/// Checks beside users who create, delete, stop and start: what is under way is no finding, whenever it is looked at.
#[tokio::test(start_paused = true)]
async fn a_cloud_at_work_has_no_findings() {
    for seed in 0..4 {
        let cloud = Cloud::start(CloudOptions { seed, ..CloudOptions::default() }).await;
        let mut checker = checker(&cloud);
        checker.options.pause = Duration::from_millis(3 + seed);
        checker.options.readings = 6;
        let watch = async {
            for _ in 0..60 {
                assert_eq!(checker.check().await.unwrap().violations, [], "seed {seed}");
                cloud.pass(Duration::from_millis(1)).await;
            }
        };
        let work = async {
            let mut ids = Vec::new();
            for n in 0..40_usize {
                ids.extend(cloud.boot(1, cloud.flavor(1, 256)).await.unwrap());
                let actions = [Action::Stop, Action::Delete, Action::RebootHard, Action::Start];
                cloud.act(ids[(n * 7) % ids.len()], actions[n % 4]).await;
                cloud.pass(Duration::from_millis(7)).await;
            }
        };
        tokio::join!(watch, work);
        cloud.settle().await;
        assert_eq!(checker.check().await.unwrap().violations, [], "seed {seed}");
        cloud.stop().await;
    }
}

// ---- one violation each ----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn i2_more_is_booked_than_fits() {
    let still = Still::new().await;
    let mut node = still.store.node_of_host(still.server().host.as_ref().unwrap()).await.unwrap();
    node.inventory.total.memory_mb = node.inventory.reserved.memory_mb + 100;
    still.store.put_node(node).await.unwrap();
    still.finds_and_leaves(&["I2"]).await;
}

#[tokio::test(start_paused = true)]
async fn i2_a_node_counts_wrong() {
    let still = Still::new().await;
    // The bookings of a host count for its first node: with a new first one, they count for the wrong one.
    let node = still.store.node_of_host(still.server().host.as_ref().unwrap()).await.unwrap();
    let id = nova_core::ids::ComputeNodeId::generate(&*still.entropy);
    still.store.put_node(ComputeNode { id, hypervisor_hostname: "a".into(), ..node }).await.unwrap();
    still.finds_and_mends(&["I2", "I2"]).await;
}

#[tokio::test(start_paused = true)]
async fn i3_booked_where_it_is_not() {
    let still = Still::new().await;
    let server = still.server();
    let task = still.begin(server.clone(), Work::Stop).await;
    let allocation = Allocation {
        instance_id: server.id,
        host: still.other_host(&server),
        resources: server.flavor.resources(),
        created_at: still.clock.now(),
        placement: None,
    };
    let mut instance = still.store.get_instance(server.id).await.unwrap();
    instance.task_state = None;
    let mut action = still.store.get_action(server.id, &task.context.request_id).await.unwrap();
    action.finish(None, still.clock.now());
    let commit = TaskCommit {
        done: true,
        instance: Some(instance),
        book: Some(Booking::of(allocation)),
        action: Some(action),
        ..TaskCommit::of(task)
    };
    still.store.commit_task(commit).await.unwrap();
    still.finds_and_mends(&["I3"]).await;
}

#[tokio::test(start_paused = true)]
async fn i3_not_booked_where_it_is() {
    let still = Still::new().await;
    let server = still.server();
    let task = still.begin(server.clone(), Work::Stop).await;
    let mut instance = still.store.get_instance(server.id).await.unwrap();
    instance.task_state = None;
    let mut action = still.store.get_action(server.id, &task.context.request_id).await.unwrap();
    action.finish(None, still.clock.now());
    let release = vec![server.host.clone().unwrap()];
    let commit =
        TaskCommit { done: true, instance: Some(instance), release, action: Some(action), ..TaskCommit::of(task) };
    still.store.commit_task(commit).await.unwrap();
    still.finds_and_mends(&["I3"]).await;
    assert_eq!(still.store.list_allocations(server.host.as_ref()).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn i3_i8_what_a_deleted_server_leaves() {
    let still = Still::new().await;
    let mut server = still.server();
    server.set_states(States { vm_state: VmState::Deleted, task_state: None, power_state: PowerState::NoState });
    server.deleted_at = Some(still.clock.now());
    still.store.update_instance(server.clone()).await.unwrap();
    still.finds_and_mends(&["I3", "I8"]).await;
    assert!(still.host_of(&server).list().await.unwrap().iter().all(|guest| guest.instance != server.id));
}

#[tokio::test(start_paused = true)]
async fn i4_busy_but_nothing_works_on_it() {
    let still = Still::new().await;
    let mut server = still.server();
    server.task_state = Some(TaskState::RebootingHard);
    still.store.update_instance(server.clone()).await.unwrap();
    still.finds_and_mends(&["I4"]).await;
    let mended = still.store.get_instance(server.id).await.unwrap();
    assert_eq!((mended.vm_state, mended.task_state), (VmState::Error, None));
    let fault = mended.fault.unwrap();
    assert_eq!((fault.code, fault.message.contains("interrupted")), (500, true), "{fault:?}");
}

#[tokio::test(start_paused = true)]
async fn i4_a_task_that_never_ends() {
    let still = Still::new().await;
    let task = still.begin(still.server(), Work::Stop).await;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "it has time");
    let overdue = task.deadline.duration_since(still.clock.now()) + SignedDuration::from_mins(1);
    tokio::time::sleep(overdue.unsigned_abs()).await;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "a conductor needs a moment to give it up");
    tokio::time::sleep(Duration::from_secs(120)).await;
    still.finds_and_leaves(&["I4"]).await;
}

#[tokio::test(start_paused = true)]
async fn i4_i10_a_task_and_an_action_outlive_their_server() {
    let still = Still::new().await;
    let mut server = still.server();
    let work = Work::Build {
        spec: Default::default(),
        selection: None,
        admin_password: Some("secret".into()),
        keys: BTreeMap::new(),
        networks: Default::default(),
    };
    let task = still.begin(server.clone(), work).await;
    server = still.store.get_instance(server.id).await.unwrap();
    let host = server.host.clone().unwrap();
    server.set_states(States { vm_state: VmState::Deleted, task_state: None, power_state: PowerState::NoState });
    server.deleted_at = Some(still.clock.now());
    still.store.update_instance(server.clone()).await.unwrap();
    still.store.delete_allocation(server.id, &host).await.unwrap();
    still.hosts[&host].destroy(server.id).await.unwrap();
    let (before, after) = still.mend().await;
    assert_eq!(found(&before), ["I4", "I10"]);
    assert!(before.violations.iter().all(|v| !v.to_string().contains("secret")));
    assert_eq!(after.violations, [], "the action, an orphan once its task was dropped, was ended too");
    let action = still.store.get_action(server.id, &task.context.request_id).await.unwrap();
    assert_eq!(action.message.as_deref(), Some("Error"));
}

/// What was to become an image of a server, and gets no data any more, goes; one that is still described, an upload of a user's
/// and one that is being made stay.
#[tokio::test(start_paused = true)]
async fn i4_an_image_that_nothing_brings() {
    let still = Still::new().await;
    let server = still.server();
    let image = |status, of_server: bool| {
        let mut image = Image {
            id: nova_core::ids::ImageId::generate(&*still.entropy),
            name: Some("copy".into()),
            status,
            owner: server.project_id.clone(),
            created_at: still.clock.now(),
            updated_at: still.clock.now(),
            visibility: Visibility::Private,
            disk_format: Some("raw".into()),
            container_format: Some("bare".into()),
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_value: None,
            min_ram: 0,
            min_disk: 0,
            protected: false,
            os_hidden: false,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
            members: BTreeMap::new(),
            generation: 0,
        };
        if of_server {
            image.properties.insert("image_location".into(), "snapshot".into());
            image.properties.insert("instance_uuid".into(), server.id.to_string());
        }
        image
    };
    let lost = [image(ImageStatus::Queued, true), image(ImageStatus::Saving, true)];
    let theirs = image(ImageStatus::Queued, false);
    let made = image(ImageStatus::Queued, true);
    for one in lost.iter().chain([&theirs, &made]) {
        still.store.create_image(one.clone()).await.unwrap();
    }
    still.begin(server, Work::CreateImage { image_id: made.id }).await;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "its task may still be written");
    tokio::time::sleep(Duration::from_secs(121)).await;
    let (before, after) = still.mend().await;
    assert_eq!((found(&before), after.violations), (vec!["I4", "I4"], vec![]));
    let left: BTreeSet<_> = still.store.list_images().await.unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(left, BTreeSet::from([theirs.id, made.id]));
}

#[tokio::test(start_paused = true)]
async fn i4_an_action_that_nothing_carries_out() {
    let still = Still::new().await;
    let server = still.server();
    let task = still.begin(server.clone(), Work::Stop).await;
    let mut instance = still.store.get_instance(server.id).await.unwrap();
    instance.task_state = None;
    let commit = TaskCommit { done: true, instance: Some(instance), ..TaskCommit::of(task) };
    still.store.commit_task(commit).await.unwrap();
    still.finds_and_mends(&["I4"]).await;
}

#[tokio::test(start_paused = true)]
async fn i5_a_guest_runs_twice() {
    let still = Still::new().await;
    let server = still.server();
    let twin =
        nova_virt::GuestSpec { instance: server.id, name: "instance-twin".into(), ..nova_virt::testing::guest_spec(1) };
    still.hosts[&still.other_host(&server)].spawn(&twin).await.unwrap();
    still.finds_and_leaves(&["I5", "I8"]).await;
}

#[tokio::test(start_paused = true)]
async fn i5_an_active_server_has_no_guest() {
    let still = Still::new().await;
    let server = still.server();
    assert!(still.host_of(&server).remove_guest(server.id));
    still.finds_and_mends(&["I5"]).await;
    let mended = still.store.get_instance(server.id).await.unwrap();
    assert_eq!((mended.vm_state, mended.power_state), (VmState::Stopped, PowerState::NoState));
}

#[tokio::test(start_paused = true)]
async fn i5_an_active_server_is_off() {
    let still = Still::new().await;
    let server = still.server();
    assert!(still.host_of(&server).crash_guest(server.id));
    still.finds_and_mends(&["I5"]).await;
    let mended = still.store.get_instance(server.id).await.unwrap();
    assert_eq!((mended.vm_state, mended.power_state), (VmState::Stopped, PowerState::Crashed));
}

#[tokio::test(start_paused = true)]
async fn i5_a_guest_is_newer_than_the_records() {
    let still = Still::new().await;
    let server = still.server();
    let spec =
        nova_virt::GuestSpec { instance: server.id, epoch: server.epoch + 5, ..nova_virt::testing::guest_spec(1) };
    still.host_of(&server).spawn(&spec).await.unwrap();
    still.finds_and_leaves(&["I5"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_no_violation() {
    let still = Still::new().await;
    let server = still.server();
    still.host_of(&server).remove_guest(server.id);
    still.host_of(&server).set_available(false);
    let report = still.checker.check().await.unwrap();
    assert_eq!(report.violations, []);
    assert_eq!(report.unreached.iter().map(|(host, _)| Some(host)).collect::<Vec<_>>(), [server.host.as_ref()]);
}

#[tokio::test(start_paused = true)]
async fn i8_a_guest_of_nobody() {
    let still = Still::new().await;
    let host = still.hosts.values().next().unwrap();
    host.plant_leftover(InstanceId::generate(&*still.entropy));
    still.finds_and_mends(&["I8"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_states_that_cannot_stand_together() {
    let still = Still::new().await;
    let mut server = still.server();
    server.task_state = Some(TaskState::Unpausing);
    assert!(!server.states().is_possible(), "or the test has no point");
    still.store.update_instance(server).await.unwrap();
    still.finds_and_mends(&["I4", "I9"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_deleted_but_alive() {
    let still = Still::new().await;
    let mut server = still.server();
    server.vm_state = VmState::Deleted;
    still.store.update_instance(server).await.unwrap();
    still.finds_and_leaves(&["I9"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_stopped_but_running() {
    let still = Still::new().await;
    let mut server = still.server();
    server.vm_state = VmState::Stopped;
    still.store.update_instance(server).await.unwrap();
    still.finds_and_leaves(&["I9"]).await;
}

#[tokio::test(start_paused = true)]
async fn i16_a_stopped_server_has_lost_its_guest() {
    let still = Still::new().await;
    let mut server = still.server();
    still.host_of(&server).remove_guest(server.id);
    server.vm_state = VmState::Stopped;
    server.power_state = PowerState::Shutdown;
    still.store.update_instance(server).await.unwrap();
    still.finds_and_leaves(&["I16"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_conductor_beside_guests_is_told() {
    let mut still = Still::new().await;
    let host = still.server().host.unwrap();
    let beat = ServiceBeat {
        new_id: ServiceId::generate(&*still.entropy),
        binary: "nova-conductor".into(),
        host,
        zone: "internal".into(),
        now: still.clock.now(),
        version: 1,
    };
    still.store.record_beats(&[beat]).await.unwrap();
    still.finds_and_leaves(&["config"]).await;
    still.checker.options.bounds.one_process = true;
    assert_eq!(still.checker.check().await.unwrap().violations, [], "one process may");
}

// ---- what no operation of the store would do -------------------------------------------------------------------------

/// The same rows in a SQLite file, where they can be damaged.
async fn damaged(damage: &str) -> (tempfile::TempDir, Checker) {
    let still = Still::new().await;
    tokio::time::resume();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("nova.db").display());
    let store = nova_db::open(&url, &OpenOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    for node in still.store.list_nodes().await.unwrap() {
        store.put_node(node).await.unwrap();
    }
    copy(&*store, &still).await;
    let options = CheckOptions { pause: Duration::ZERO, ..CheckOptions::default() };
    let checker = Checker { store, options, ..still.checker.clone() };
    assert_eq!(checker.check().await.unwrap().violations, []);
    use sqlx::Connection;
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let done = sqlx::query(sqlx::AssertSqlSafe(damage.to_owned())).execute(&mut connection).await.unwrap();
    assert!(done.rows_affected() > 0, "{damage}");
    connection.close().await.unwrap();
    (folder, checker)
}

async fn copy(store: &dyn Store, still: &Still) {
    let of =
        |server: &Instance| parts(server, Work::Start, &*still.clock, &*still.entropy, Some(server.request_id.clone()));
    let parts: Vec<_> = still.servers.iter().map(of).collect();
    let new = still.servers.iter().zip(&parts).map(|(server, (task, action))| NewInstance {
        instance: server.clone(),
        action: action.clone(),
        task: task.clone(),
    });
    let limits = Limits { instances: None, cores: None, ram: None };
    let made = store
        .create_instances(NewInstances { instances: new.collect(), limits, user_limits: None, group: None })
        .await
        .unwrap();
    for (server, (task, mut action)) in made.into_iter().zip(parts) {
        action.finish(None, still.clock.now());
        let allocation = Allocation {
            instance_id: server.id,
            host: server.host.clone().unwrap(),
            resources: server.flavor.resources(),
            created_at: server.created_at,
            placement: None,
        };
        let epoch = still.servers.iter().find(|known| known.id == server.id).unwrap().epoch;
        let commit = TaskCommit {
            done: true,
            instance: Some(Instance { epoch, ..server }),
            book: Some(Booking::of(allocation)),
            action: Some(action),
            ..TaskCommit::of(store.get_task(task.id).await.unwrap())
        };
        store.commit_task(commit).await.unwrap();
    }
}

async fn damage_is_found(damage: &str, invariants: &[&str]) -> (tempfile::TempDir, Checker, Report) {
    let (folder, checker) = damaged(damage).await;
    let report = checker.check().await.unwrap();
    assert_eq!(found(&report), invariants, "{damage}: {:#?}", report.violations);
    (folder, checker, report)
}

#[tokio::test(start_paused = true)]
async fn i6_usage_is_counted_wrong() {
    let damage = "UPDATE usages SET body = json_set(body, '$.usage.instances', 9, '$.usage.ram', 1)";
    let (_folder, checker, _) = damage_is_found(damage, &["I6"]).await;
    let (tried, after) = checker.repair().await.unwrap();
    assert_eq!((tried.len(), &tried[0].repair), (1, &Repair::RebuildAccounts));
    assert_eq!(after.violations, []);
}

#[tokio::test(start_paused = true)]
async fn i2_a_node_was_miscounted() {
    let damage = "UPDATE compute_nodes SET body = json_set(body, '$.used.memory_mb', 77, '$.allocations', 5) \
                  WHERE host = 'host00'";
    let (_folder, checker, _) = damage_is_found(damage, &["I2"]).await;
    assert_eq!(checker.repair().await.unwrap().1.violations, []);
}

#[tokio::test(start_paused = true)]
async fn i3_a_booking_was_changed() {
    let damage = "UPDATE allocations SET body = json_set(body, '$.resources.memory_mb', 300) \
                  WHERE instance_id = (SELECT MIN(instance_id) FROM allocations)";
    // The host's node no longer agrees with the sum either.
    let (_folder, checker, _) = damage_is_found(damage, &["I2", "I3"]).await;
    assert_eq!(checker.repair().await.unwrap().1.violations, []);
}

#[tokio::test(start_paused = true)]
async fn i16_the_record_of_a_request_is_lost() {
    let damage = "DELETE FROM actions WHERE instance_id = (SELECT MIN(id) FROM instances)";
    damage_is_found(damage, &["I16"]).await;
}

#[tokio::test(start_paused = true)]
async fn i16_two_servers_have_one_number() {
    let damage = "UPDATE instances SET body = json_set(body, '$.number', 77) \
                  WHERE id <> (SELECT MIN(id) FROM instances)";
    damage_is_found(damage, &["I16"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_an_active_server_is_on_no_host() {
    let damage = "UPDATE instances SET body = json_set(body, '$.host', json('null')) \
                  WHERE id = (SELECT MIN(id) FROM instances)";
    let (_folder, _, report) = damage_is_found(damage, &["I3", "I8", "I9"]).await;
    assert_eq!(report.violations[1].repair, None, "it may be the only copy: {}", report.violations[1]);
}

// ---- what moves ------------------------------------------------------------------------------------------------------

/// Hosts beside which the records of a server change between any two readings.
struct Restless {
    hosts: FakeHosts,
    store: Arc<dyn Store>,
    server: InstanceId,
    readings: AtomicUsize,
    destroyed: AtomicUsize,
}

#[async_trait]
impl Hosts for Restless {
    async fn read(&self) -> Vec<HostFacts> {
        self.readings.fetch_add(1, Ordering::SeqCst);
        let server = self.store.get_instance(self.server).await.unwrap();
        self.store.update_instance(server).await.unwrap();
        self.hosts.read().await
    }

    async fn destroy_guest(&self, _: &HostName, _: InstanceId) -> Result<(), BoxError> {
        self.destroyed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_from_one_reading_to_the_next_is_not_judged() {
    let still = Still::new().await;
    let mut server = still.server();
    server.task_state = Some(TaskState::PoweringOff);
    still.store.update_instance(server.clone()).await.unwrap();
    let restless = Arc::new(Restless {
        hosts: FakeHosts(still.hosts.clone()),
        store: still.store.clone(),
        server: server.id,
        readings: AtomicUsize::new(0),
        destroyed: AtomicUsize::new(0),
    });
    let checker = Checker { hosts: restless.clone(), ..still.checker.clone() };
    let once = checker.read().await.unwrap();
    assert_eq!(examine(&once).len(), 1, "one reading alone would tell it");
    restless.readings.store(0, Ordering::SeqCst);
    assert_eq!(checker.check().await.unwrap().violations, []);
    assert_eq!(restless.readings.load(Ordering::SeqCst), checker.options.readings);
}

/// Hosts that bring the owner of a stray back just after they were read.
struct Returning {
    inner: Restless,
    host: HostName,
}

#[async_trait]
impl Hosts for Returning {
    async fn read(&self) -> Vec<HostFacts> {
        let read = self.inner.hosts.read().await;
        // After the check's two readings, before the repair.
        if self.inner.readings.fetch_add(1, Ordering::SeqCst) == 1 {
            let mut server = self.inner.store.get_instance(self.inner.server).await.unwrap();
            server.host = Some(self.host.clone());
            server.vm_state = VmState::Active;
            self.inner.store.update_instance(server).await.unwrap();
        }
        read
    }

    async fn destroy_guest(&self, host: &HostName, instance: InstanceId) -> Result<(), BoxError> {
        self.inner.destroy_guest(host, instance).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_stray_whose_owner_came_back_is_left_alone() {
    let still = Still::new().await;
    let (mut server, host) = (still.server(), still.server().host.unwrap());
    // As a build that failed leaves it.
    (server.host, server.launched_at, server.vm_state) = (None, None, VmState::Error);
    still.store.update_instance(server.clone()).await.unwrap();
    let inner = Restless {
        hosts: FakeHosts(still.hosts.clone()),
        store: still.store.clone(),
        server: server.id,
        readings: AtomicUsize::new(0),
        destroyed: AtomicUsize::new(0),
    };
    let returning = Arc::new(Returning { inner, host });
    let checker = Checker { hosts: returning.clone(), ..still.checker.clone() };
    let (tried, after) = checker.repair().await.unwrap();
    assert!(tried.iter().any(|mended| matches!(mended.repair, Repair::DestroyGuest { .. })), "{tried:#?}");
    assert_eq!(returning.inner.destroyed.load(Ordering::SeqCst), 0);
    assert_eq!(after.violations, []);
}
