//! kill -9 of the whole process at each step of boots and deletes, as seen through the API, with others in flight.
//! Whatever was accepted ends; nothing stays without an owner; no guest is started twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Cloud, Project, is_settled, until};

/// Requests in flight at each kill.
const REQUESTS: usize = 10;
/// One of the requests for servers is for so many.
const SEVERAL: usize = 3;
/// A step that was over before it was seen is tried again, so often at most.
const TRIES: usize = 20;
/// Two hosts, so that a guest could be on both if something went wrong.
const CLOUD: &str = "[quota]\ninstances = -1\ncores = -1\nram = -1\n[conductor]\ntask_lease = 2\n\
                     [fake]\nhosts = 2\nvcpus = 1000\nboot_latency_ms = 100";

/// When the process is killed: what was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// So many of the requests were accepted; the others have no answer yet.
    Accepted(usize),
    /// The same with requests to delete what is being built.
    AcceptedWhileBuilding(usize),
    /// A server in that task state.
    Task(&'static str),
    FirstActive,
    /// The first 404.
    FirstGone,
    /// Killed before, with work cut off that still is, and healthy again.
    Restarted,
    /// Killed before and up again, and the first server whose work was cut off has settled.
    Recovering,
}

const BOOT: [Step; 8] = [
    Step::Accepted(1),
    Step::Accepted(REQUESTS / 2),
    Step::Accepted(REQUESTS),
    Step::Task("scheduling"),
    Step::Task("spawning"),
    Step::FirstActive,
    Step::Restarted,
    Step::Recovering,
];
const DELETE: [Step; 8] = [
    Step::Accepted(1),
    Step::Accepted(REQUESTS / 2),
    Step::Accepted(REQUESTS),
    Step::AcceptedWhileBuilding(REQUESTS / 2),
    Step::Task("deleting"),
    Step::FirstGone,
    Step::Restarted,
    Step::Recovering,
];

/// A request that is under way when the process is killed.
enum Request {
    Boot(Value),
    Delete(String),
}

impl Request {
    /// The server, if the request was accepted; none when the answer was cut off.
    fn send(&self, project: &Project) -> Option<String> {
        match self {
            Self::Boot(body) => {
                let answer = project.demo.compute("POST", "/servers", Some(body)).ok()?;
                assert_eq!(answer.status, 202, "{}", answer.message());
                Some(answer.text("/server/id").unwrap())
            }
            Self::Delete(id) => {
                let answer = project.demo.compute("DELETE", &format!("/servers/{id}"), None).ok()?;
                assert_eq!(answer.status, 204, "{}", answer.message());
                Some(id.clone())
            }
        }
    }
}

/// What servers are doing, for the reader.
fn census(servers: &[Value]) -> BTreeMap<String, usize> {
    let mut census = BTreeMap::new();
    for server in servers {
        let task = server["OS-EXT-STS:task_state"].as_str().unwrap_or("-");
        *census.entry(format!("{}/{task}", server["status"].as_str().unwrap_or("?"))).or_default() += 1;
    }
    census
}

fn id_of(server: &Value) -> String {
    server["id"].as_str().expect("a server has an id").to_owned()
}

fn unsettled(servers: &[Value]) -> Vec<String> {
    servers.iter().filter(|s| !is_settled(s)).map(id_of).collect()
}

/// A cloud that is killed again and again, and what it accepted.
struct Walk {
    cloud: Cloud,
    project: Project,
    round: usize,
    booted: BTreeSet<String>,
    deleted: BTreeSet<String>,
    hits: BTreeMap<Step, usize>,
}

impl Walk {
    fn new() -> Self {
        let cloud = Cloud::started(CLOUD);
        let project = cloud.project();
        let (booted, deleted) = (BTreeSet::new(), BTreeSet::new());
        Self { cloud, project, round: 0, booted, deleted, hits: BTreeMap::new() }
    }

    /// Requests for a new round of servers: single ones, and one for several.
    fn boots(&mut self) -> Vec<Request> {
        self.round += 1;
        let body = |n| self.project.request(&format!("r{}-{n}", self.round));
        let mut requests: Vec<Value> = (0..REQUESTS).map(body).collect();
        requests[REQUESTS / 2]["server"]["min_count"] = json!(SEVERAL);
        requests.into_iter().map(Request::Boot).collect()
    }

    /// The servers of this round that there are.
    fn of_round(&self) -> Vec<Value> {
        let mut servers = self.project.newest(2 * (REQUESTS + SEVERAL));
        let name = format!("r{}-", self.round);
        servers.retain(|s| s["name"].as_str().is_some_and(|n| n.starts_with(&name)));
        servers
    }

    /// Boots a round without a kill, up to the given state of all, and asks for the end of ten of them.
    fn deletes(&mut self, is_ready: impl Fn(&Value) -> bool) -> Vec<Request> {
        for request in self.boots() {
            self.booted.extend(request.send(&self.project));
        }
        let fleet = until("the fleet is ready", || {
            Some(self.of_round()).filter(|fleet| fleet.len() >= REQUESTS && fleet.iter().all(&is_ready))
        });
        fleet.iter().take(REQUESTS).map(|s| Request::Delete(id_of(s))).collect()
    }

    /// Sends all requests at once and kills the process when the step is seen. False when everything was over before,
    /// and nothing was killed.
    fn strike(&mut self, step: Step, requests: &[Request]) -> bool {
        let (accepted, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let project = self.project.clone();
        let send = |request: &Request| {
            let id = request.send(&project);
            accepted.fetch_add(usize::from(id.is_some()), Ordering::SeqCst);
            answered.fetch_add(1, Ordering::SeqCst);
            id
        };
        let (hit, ids) = thread::scope(|threads| {
            let sent: Vec<_> = requests.iter().map(|r| threads.spawn(move || send(r))).collect();
            let hit = loop {
                let all_answered = answered.load(Ordering::SeqCst) == requests.len();
                if self.is_at(step, accepted.load(Ordering::SeqCst), requests) {
                    break true;
                }
                if all_answered && self.of_round().iter().all(is_settled) {
                    break false;
                }
            };
            if hit {
                self.killed(step);
            }
            let ids = sent.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>();
            (hit, ids)
        });
        match requests.first() {
            Some(Request::Delete(_)) => self.deleted.extend(ids),
            _ => self.booted.extend(ids),
        }
        hit
    }

    /// Whether the step can be seen right now.
    fn is_at(&self, step: Step, accepted: usize, requests: &[Request]) -> bool {
        let is_gone = |request: &Request| matches!(request, Request::Delete(id) if self.project.server(id).is_null());
        match step {
            Step::Accepted(count) | Step::AcceptedWhileBuilding(count) => accepted >= count,
            Step::Task(task) => self.of_round().iter().any(|s| s["OS-EXT-STS:task_state"] == task),
            Step::FirstActive => self.of_round().iter().any(|s| s["status"] == "ACTIVE"),
            Step::FirstGone => requests.iter().any(is_gone),
            Step::Restarted | Step::Recovering => false,
        }
    }

    /// Kills, notes the step, and looks at what is left.
    fn killed(&mut self, step: Step) {
        self.cloud.kill();
        *self.hits.entry(step).or_default() += 1;
        self.assert_started_once();
    }

    fn restart(&mut self) {
        self.cloud.start();
        self.project = self.project.again(&self.cloud);
    }

    /// Kills the process once more after the one before, at a step of its recovery. False when there was none.
    fn strike_again(&mut self, step: Step) -> bool {
        let cut_off = unsettled(&self.of_round());
        if cut_off.is_empty() {
            return false;
        }
        if step == Step::Recovering {
            // Work that was cut off waits for the end of its lease.
            until("recovery has begun", || {
                let open = unsettled(&self.of_round());
                cut_off.iter().any(|id| !open.contains(id)).then_some(())
            });
        }
        self.killed(step);
        self.restart();
        true
    }

    /// One try: a round of requests, a kill, a new start.
    fn attempt(&mut self, step: Step, task: &'static str, requests: &[Request]) -> bool {
        let first = if matches!(step, Step::Restarted | Step::Recovering) { Step::Task(task) } else { step };
        if !self.strike(first, requests) {
            return false;
        }
        self.restart();
        println!("{first:?} of round {}, and after the start: {:?}", self.round, census(&self.of_round()));
        first == step || self.strike_again(step)
    }

    /// Each guest is on one host and was started once at most.
    fn assert_started_once(&self) {
        let mut seen = BTreeSet::new();
        for (id, boots) in self.cloud.guests() {
            assert!(boots <= 1, "the guest {id} was started {boots} times");
            assert!(seen.insert(id.clone()), "the guest {id} is on two hosts");
        }
    }

    /// Waits until nobody is at work. Every server is gone, ACTIVE, or in ERROR with a reason; what was accepted is
    /// there; every guest has a server, every ACTIVE server its guest; the check finds nothing.
    fn assert_ended_well(&self) -> Vec<Value> {
        let gone = |id: &String| self.project.server(id).is_null();
        until("every server has settled", || self.project.servers().iter().all(is_settled).then_some(()));
        until("every deleted server is gone", || self.deleted.iter().all(gone).then_some(()));
        let servers = self.project.servers();
        println!("the end: {} were deleted, {:?}", self.deleted.len(), census(&servers));
        self.assert_started_once();
        let guests: BTreeMap<String, u64> = self.cloud.guests().into_iter().collect();
        for server in &servers {
            let id = id_of(server);
            match server["status"].as_str() {
                Some("ACTIVE") => assert_eq!(guests.get(&id), Some(&1), "{id} is ACTIVE: its guest was started once"),
                _ => assert!(!server["fault"]["message"].as_str().unwrap_or_default().is_empty(), "no fault: {server}"),
            }
        }
        let ids: BTreeSet<String> = servers.iter().map(id_of).collect();
        let orphans: Vec<_> = guests.keys().filter(|id| !ids.contains(*id)).collect();
        assert!(orphans.is_empty(), "guests without a server: {orphans:?}");
        self.cloud.assert_checked();
        servers
    }

    /// Each step was seen and struck.
    fn assert_hit(&self, steps: &[Step]) {
        println!("kills: {:?}", self.hits);
        let missed: Vec<_> = steps.iter().filter(|step| !self.hits.contains_key(step)).collect();
        assert!(missed.is_empty(), "steps that were never seen: {missed:?}");
    }
}

#[test]
fn boots_survive_a_kill_at_each_step() {
    let mut walk = Walk::new();
    for step in BOOT {
        let mut attempt = || {
            let requests = walk.boots();
            walk.attempt(step, "spawning", &requests)
        };
        (0..TRIES).any(|_| attempt());
    }
    walk.assert_hit(&BOOT);
    let servers = walk.assert_ended_well();
    let ids: BTreeSet<String> = servers.iter().map(id_of).collect();
    let lost: Vec<_> = walk.booted.difference(&ids).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    for id in ids {
        walk.deleted.extend(Request::Delete(id).send(&walk.project));
    }
    assert!(walk.assert_ended_well().is_empty(), "all were deleted");
    assert_eq!(walk.cloud.guests(), [], "guests of deleted servers");
}

#[test]
fn deletes_survive_a_kill_at_each_step() {
    let mut walk = Walk::new();
    let mut bystanders = BTreeSet::new();
    for step in DELETE {
        let mut attempt = || {
            let while_building = matches!(step, Step::AcceptedWhileBuilding(_));
            let requests = walk.deletes(|s| while_building || s["status"] == "ACTIVE");
            let asked = |id: &String| requests.iter().any(|r| matches!(r, Request::Delete(asked) if asked == id));
            bystanders.extend(walk.of_round().iter().map(id_of).filter(|id| !asked(id)));
            if while_building && walk.of_round().iter().all(|s| s["status"] == "ACTIVE") {
                return false;
            }
            walk.attempt(step, "deleting", &requests)
        };
        (0..TRIES).any(|_| attempt());
    }
    walk.assert_hit(&DELETE);
    let servers = walk.assert_ended_well();
    let ids: BTreeSet<String> = servers.iter().map(id_of).collect();
    let lost: Vec<_> = bystanders.difference(&ids).collect();
    assert!(lost.is_empty(), "nobody deleted them: {lost:?}");
}
