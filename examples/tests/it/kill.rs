//! kill -9 of the whole process at each step of boots and deletes, as seen through the API, with others in flight.
//! Whatever was accepted ends; nothing stays without an owner; no guest is started twice.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::fleet::{Fleet, REQUESTS, Request, assert_started_once, census, send_all, unsettled};
use crate::support::{Cloud, is_settled, until};

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

/// A cloud that is killed again and again, and what it accepted.
struct Walk {
    cloud: Cloud,
    fleet: Fleet,
    hits: BTreeMap<Step, usize>,
}

impl Walk {
    fn new() -> Self {
        let cloud = Cloud::started(CLOUD);
        let fleet = Fleet::new(cloud.project());
        Self { cloud, fleet, hits: BTreeMap::new() }
    }

    /// Sends all requests at once and kills the process when the step is seen. False when everything was over before,
    /// and nothing was killed.
    fn strike(&mut self, step: Step, requests: &[Request]) -> bool {
        let project = self.fleet.project.clone();
        let (hit, ids) = send_all(&project, requests, |sent| {
            let hit = loop {
                let all_answered = sent.answered() == requests.len();
                if self.is_at(step, sent.accepted(), requests) {
                    break true;
                }
                if all_answered && self.fleet.of_round().iter().all(is_settled) {
                    break false;
                }
            };
            if hit {
                self.killed(step);
            }
            hit
        });
        self.fleet.note(requests, ids);
        hit
    }

    /// Whether the step can be seen right now.
    fn is_at(&self, step: Step, accepted: usize, requests: &[Request]) -> bool {
        let is_gone =
            |request: &Request| matches!(request, Request::Delete(id) if self.fleet.project.server(id).is_null());
        match step {
            Step::Accepted(count) | Step::AcceptedWhileBuilding(count) => accepted >= count,
            Step::Task(task) => self.fleet.of_round().iter().any(|s| s["OS-EXT-STS:task_state"] == task),
            Step::FirstActive => self.fleet.of_round().iter().any(|s| s["status"] == "ACTIVE"),
            Step::FirstGone => requests.iter().any(is_gone),
            Step::Restarted | Step::Recovering => false,
        }
    }

    /// Kills, notes the step, and looks at what is left.
    fn killed(&mut self, step: Step) {
        self.cloud.kill();
        *self.hits.entry(step).or_default() += 1;
        assert_started_once(&self.cloud.guests());
    }

    fn restart(&mut self) {
        self.cloud.start();
        self.fleet.project = self.fleet.project.again(&self.cloud);
    }

    /// Kills the process once more after the one before, at a step of its recovery. False when there was none.
    fn strike_again(&mut self, step: Step) -> bool {
        let cut_off = unsettled(&self.fleet.of_round());
        if cut_off.is_empty() {
            return false;
        }
        if step == Step::Recovering {
            // Work that was cut off waits for the end of its lease.
            until("recovery has begun", || {
                let open = unsettled(&self.fleet.of_round());
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
        println!("{first:?} of round {}, and after the start: {:?}", self.fleet.round, census(&self.fleet.of_round()));
        first == step || self.strike_again(step)
    }

    fn assert_ended_well(&self) -> Vec<Value> {
        let servers = self.fleet.assert_ended_well(|| self.cloud.guests());
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
            let requests = walk.fleet.boots();
            walk.attempt(step, "spawning", &requests)
        };
        (0..TRIES).any(|_| attempt());
    }
    walk.assert_hit(&BOOT);
    let servers = walk.assert_ended_well();
    walk.fleet.assert_none_lost(&servers);
    walk.fleet.assert_all_can_go(|| walk.cloud.guests());
    walk.cloud.assert_checked();
}

#[test]
fn deletes_survive_a_kill_at_each_step() {
    let mut walk = Walk::new();
    for step in DELETE {
        let mut attempt = || {
            let while_building = matches!(step, Step::AcceptedWhileBuilding(_));
            let requests = walk.fleet.deletes(|s| while_building || s["status"] == "ACTIVE");
            if while_building && walk.fleet.of_round().iter().all(|s| s["status"] == "ACTIVE") {
                return false;
            }
            walk.attempt(step, "deleting", &requests)
        };
        (0..TRIES).any(|_| attempt());
    }
    walk.assert_hit(&DELETE);
    let servers = walk.assert_ended_well();
    walk.fleet.assert_none_lost(&servers);
}
