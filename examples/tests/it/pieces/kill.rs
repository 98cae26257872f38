//! kill -9 of one kind of service at each step of boots and deletes with ten requests in flight, and its new start a
//! second later. Services are frozen (SIGSTOP) so that the step is that one and no other.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::cloud::{PIECES, Pieces};
use crate::fleet::{Fleet, REQUESTS, Request, SERVERS, assert_started_once, census, send_all};
use crate::support::until;

/// How long a service that was killed stays away.
const AWAY: Duration = Duration::from_secs(1);
/// A host builds four servers at once and gets six: others wait for a place.
const SETTINGS: &str =
    "[DEFAULT]\nmax_concurrent_builds = 4\n[conductor]\ntask_lease = 2\n[fake]\nboot_latency_ms = 300\n";
/// Kinds of services; all hosts are killed at once.
const VICTIMS: [&str; 4] = ["api", "scheduler", "conductor", "compute"];

/// When the service is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The first request was accepted; the others have no answer yet.
    FirstAccepted,
    /// All were accepted, and the conductor has not heard of them.
    Unheard,
    /// The conductor has asked the scheduler, who has not heard it.
    Asked,
    /// The conductor has sent its orders, and no host has heard them.
    Ordered,
    /// The hosts are at work, and nothing is done yet.
    AtWork,
    /// The hosts have done it, and the conductor has not heard it.
    Done,
    /// The conductor has written down the first end.
    FirstEnded,
}

use Step::{Asked, AtWork, Done, FirstAccepted, FirstEnded, Ordered, Unheard};

const BOOT: [Step; 7] = [FirstAccepted, Unheard, Asked, Ordered, AtWork, Done, FirstEnded];
const DELETE: [Step; 5] = [FirstAccepted, Unheard, Ordered, Done, FirstEnded];

struct Walk {
    cloud: Pieces,
    fleet: Fleet,
}

impl Walk {
    fn new() -> Self {
        let cloud = Pieces::started("postgresql", SETTINGS, PIECES);
        let fleet = Fleet::new(cloud.project());
        Self { cloud, fleet }
    }

    /// Sends the requests, brings the cloud to the step, kills, starts again.
    fn strike(&mut self, victim: &str, step: Step, requests: &[Request]) {
        let (project, asked) = (self.fleet.project.clone(), self.cloud.counted("conductor-1", MESSAGES));
        self.before(step);
        let ((), ids) = send_all(&project, requests, |sent| {
            let wanted = if step == FirstAccepted { 1 } else { requests.len() };
            until("requests are accepted", || (sent.accepted() >= wanted).then_some(()));
            self.reach(step, requests, asked);
            let victims = self.cloud.names(victim);
            victims.iter().for_each(|name| self.cloud.kill(name));
            for kind in VICTIMS {
                self.cloud.signal(kind, "CONT");
            }
            assert_started_once(&self.cloud.guests());
            thread::sleep(AWAY);
            victims.iter().for_each(|name| self.cloud.spawn(name));
        });
        self.fleet.note(requests, ids);
        self.cloud.await_health(PIECES);
        self.fleet.project = self.fleet.project.by(self.cloud.sign_in("api-1", "nova-demo"));
        println!("{victim} killed at {step:?} of round {}: {:?}", self.fleet.round, census(&self.fleet.of_round()));
    }

    /// Freezes whoever must not go further than the step.
    fn before(&self, step: Step) {
        match step {
            Unheard => self.cloud.signal("conductor", "STOP"),
            Asked => self.cloud.signal("scheduler", "STOP"),
            Ordered | AtWork | Done => self.cloud.signal("compute", "STOP"),
            FirstAccepted | FirstEnded => {}
        }
    }

    /// Waits for the step. `asked`: what the conductor had sent before.
    fn reach(&self, step: Step, requests: &[Request], asked: u64) {
        let boots = matches!(requests[0], Request::Boot(_));
        let sent = |count| {
            let wanted = asked + u64::try_from(count).unwrap();
            until("the conductor has sent it", || {
                (self.cloud.counted("conductor-1", MESSAGES) >= wanted).then_some(())
            });
        };
        match step {
            FirstAccepted | Unheard => {}
            Asked => sent(REQUESTS),
            // A boot takes a question to the scheduler and an order.
            Ordered if boots => {
                until("all are being built", || (self.in_task("spawning") == SERVERS).then_some(()));
                sent(REQUESTS + SERVERS);
            }
            Ordered => sent(REQUESTS),
            AtWork => {
                self.reach(Ordered, requests, asked);
                self.cloud.signal("compute", "CONT");
                // They run again, and what came meanwhile is in their hands.
                self.cloud.names("compute").iter().for_each(|host| drop(self.cloud.health(host)));
            }
            Done => {
                self.reach(Ordered, requests, asked);
                self.cloud.signal("conductor", "STOP");
                self.cloud.signal("compute", "CONT");
                until("the hosts have done it", || self.hosts_have_done(requests).then_some(()));
            }
            FirstEnded => until("one has ended", || self.one_has_ended(requests).then_some(())),
        }
    }

    fn in_task(&self, task: &str) -> usize {
        self.fleet.of_round().iter().filter(|s| s["OS-EXT-STS:task_state"] == task).count()
    }

    fn hosts_have_done(&self, requests: &[Request]) -> bool {
        let guests = self.cloud.guests();
        let here = |id: &String| guests.iter().any(|(guest, _)| guest == id);
        match requests[0] {
            Request::Boot(_) => {
                let round = self.fleet.of_round();
                round.len() == SERVERS && round.iter().filter_map(|s| s["id"].as_str()).all(|id| here(&id.to_owned()))
            }
            Request::Delete(_) => !requests.iter().any(|r| matches!(r, Request::Delete(id) if here(id))),
        }
    }

    fn one_has_ended(&self, requests: &[Request]) -> bool {
        match requests[0] {
            Request::Boot(_) => self.fleet.of_round().iter().any(|s| s["status"] == "ACTIVE"),
            Request::Delete(_) => {
                requests.iter().any(|r| matches!(r, Request::Delete(id) if self.fleet.project.server(id).is_null()))
            }
        }
    }

    fn assert_ended_well(&self) -> Vec<Value> {
        let servers = self.fleet.assert_ended_well(|| self.cloud.guests());
        self.fleet.assert_none_lost(&servers);
        for name in PIECES {
            assert!(!self.cloud.log(name).contains("BasicReturnMessage"), "{name} logs what is in messages");
        }
        self.cloud.assert_checked();
        servers
    }
}

/// Casts and calls that a process has sent.
const MESSAGES: &str = "nova_bus_messages_total";

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn boots_in_pieces_survive_a_kill_at_each_step() {
    let mut walk = Walk::new();
    for step in BOOT {
        for victim in VICTIMS {
            let requests = walk.fleet.boots();
            walk.strike(victim, step, &requests);
        }
    }
    walk.assert_ended_well();
    walk.fleet.assert_all_can_go(|| walk.cloud.guests());
    walk.cloud.assert_checked();
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn deletes_in_pieces_survive_a_kill_at_each_step() {
    let mut walk = Walk::new();
    for step in DELETE {
        for victim in VICTIMS {
            let requests = walk.fleet.deletes(|s| s["status"] == "ACTIVE");
            walk.strike(victim, step, &requests);
        }
    }
    // What is being built is deleted: the orders to build it are on their way.
    for victim in VICTIMS {
        walk.cloud.signal("compute", "STOP");
        let requests = walk.fleet.deletes(|s| s["OS-EXT-STS:task_state"] == "spawning");
        walk.strike(victim, FirstAccepted, &requests);
    }
    walk.assert_ended_well();
}
