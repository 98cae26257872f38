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

mod damaged;
mod moving;
mod network;
mod planted;
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
        held_up: None,
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
