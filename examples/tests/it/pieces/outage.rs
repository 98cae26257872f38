//! Broker and database go away in the middle of ten boots and come back: all boots end, and every service serves again
//! within five seconds.

use std::thread;
use std::time::{Duration, Instant};

use super::cloud::{PIECES, Pieces};
use crate::fleet::{Fleet, REQUESTS, Request, SERVERS, census, send_all};
use crate::support::{is_settled, until};

/// From the return of what was away until everything serves.
const RETURN: Duration = Duration::from_secs(5);
/// How long what is stopped stays away.
const AWAY: Duration = Duration::from_secs(10);
/// Boots that show after an outage that nobody is deaf, spread over the hosts.
const PROBES: usize = 4;
const SETTINGS: &str = "[conductor]\ntask_lease = 2\n[fake]\nboot_latency_ms = 700\n";

struct Trial {
    cloud: Pieces,
    fleet: Fleet,
}

impl Trial {
    fn new(database: &str) -> Self {
        let cloud = Pieces::started(database, SETTINGS, PIECES);
        let fleet = Fleet::new(cloud.project());
        Self { cloud, fleet }
    }

    /// Ten boots, all accepted, and the first guests are being made.
    fn begin(&mut self) {
        let requests = self.fleet.boots();
        let ((), ids) = send_all(&self.fleet.project, &requests, |_| {
            until("the hosts are at work", || {
                self.fleet.of_round().iter().any(|s| s["OS-EXT-STS:task_state"] == "spawning").then_some(())
            });
        });
        assert_eq!(ids.len(), REQUESTS, "all were accepted");
        self.fleet.note(&requests, ids);
        let open = self.fleet.of_round().iter().filter(|s| !is_settled(s)).count();
        println!("{open} of {SERVERS} servers are under way");
        assert!(open > 0, "the outage came too late");
    }

    /// It is back: everything serves within the time, and the boots from before end.
    fn recovers(&mut self, from: &str, back: Instant) {
        self.cloud.await_health(PIECES);
        let healthy = back.elapsed();
        let probes: Vec<Request> =
            (0..PROBES).map(|n| Request::Boot(self.fleet.project.request(&format!("after-{from}-{n}")))).collect();
        let ((), ids) = send_all(&self.fleet.project, &probes, |_| {});
        assert_eq!(ids.len(), PROBES, "boots are accepted again after {from}");
        let active = |id: &String| self.fleet.project.server(id)["status"] == "ACTIVE";
        until("boots end again", || ids.iter().all(active).then_some(()));
        let booted = back.elapsed();
        println!("after {from}: healthy after {healthy:?}, boots after {booted:?}");
        assert_eq!(self.cloud.hosts_of(&ids).len(), self.cloud.names("compute").len(), "a host is deaf after {from}");
        assert!(booted <= RETURN, "after {from} it took {booted:?} until a boot was done, {healthy:?} to be healthy");
        self.fleet.note(&probes, ids);
        until("the boots of before end", || self.fleet.of_round().iter().all(is_settled).then_some(()));
        println!("{:?} of round {}", census(&self.fleet.of_round()), self.fleet.round);
        let servers = self.fleet.assert_ended_well(|| self.cloud.guests());
        self.fleet.assert_none_lost(&servers);
        self.cloud.assert_checked();
    }

    /// Every service says that it cannot work, and why.
    fn assert_all_say(&self, kinds: &[&str], word: &str) {
        for name in kinds.iter().flat_map(|kind| self.cloud.names(kind)) {
            let (status, text) = until("it says so", || self.cloud.health(&name).filter(|(status, _)| *status != 200));
            assert_eq!(status, 503, "{name}: {text}");
            assert!(text.contains(word), "{name}: {text}");
        }
    }

    fn broker_is_stopped(&mut self) {
        self.begin();
        self.cloud.broker.run("stop");
        let gone = Instant::now();
        // What needs no message is served, and what was accepted meanwhile is done later.
        assert!(!self.fleet.of_round().is_empty());
        self.fleet.booted.insert(self.fleet.project.boot("meanwhile"));
        let took = gone.elapsed();
        assert!(took < RETURN, "a boot was accepted after {took:?}");
        self.assert_all_say(&["api", "scheduler", "conductor", "compute"], "the message bus is unavailable");
        thread::sleep(AWAY.saturating_sub(gone.elapsed()));
        self.cloud.broker.run("start");
        self.recovers("a stop of the broker", Instant::now());
    }

    fn broker_is_killed(&mut self) {
        self.begin();
        self.cloud.broker.run("kill");
        self.cloud.broker.run("start");
        self.recovers("a crash of the broker", Instant::now());
    }

    /// `away`: how long, at least.
    fn database_restarts(&mut self, verb: &str, away: Duration) {
        self.begin();
        self.cloud.database.run(verb);
        let gone = Instant::now();
        self.assert_all_say(&["api", "scheduler", "conductor"], "store: ");
        thread::sleep(away.saturating_sub(gone.elapsed()));
        self.cloud.database.run("start");
        self.recovers(&format!("a {verb} of the database"), Instant::now());
    }
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn outages_of_rabbitmq_and_postgresql_lose_nothing() {
    let mut trial = Trial::new("postgresql");
    trial.broker_is_stopped();
    trial.broker_is_killed();
    trial.database_restarts("stop", AWAY);
    trial.database_restarts("kill", Duration::ZERO);
    trial.fleet.assert_all_can_go(|| trial.cloud.guests());
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_MYSQL_URL, which say that both are installed; starts its own"]
fn outages_of_mariadb_lose_nothing() {
    let mut trial = Trial::new("mariadb");
    trial.database_restarts("stop", Duration::ZERO);
    trial.database_restarts("kill", AWAY);
    trial.fleet.assert_all_can_go(|| trial.cloud.guests());
}
