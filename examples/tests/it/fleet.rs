//! Rounds of requests for servers and for their end, many at once, and what must hold when all is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Project, is_settled, until};

/// Requests in flight at once.
pub const REQUESTS: usize = 10;
/// One of the requests for servers is for so many.
pub const SEVERAL: usize = 3;
/// Servers that a round of requests makes.
pub const SERVERS: usize = REQUESTS - 1 + SEVERAL;

/// A request that is under way when something ends.
pub enum Request {
    Boot(Value),
    Delete(String),
}

impl Request {
    /// The server, if the request was accepted; none when the answer was cut off, or says that something is away.
    pub fn send(&self, project: &Project) -> Option<String> {
        let (answer, accepted) = match self {
            Self::Boot(body) => (project.demo.compute("POST", "/servers", Some(body)).ok()?, 202),
            Self::Delete(id) => (project.demo.compute("DELETE", &format!("/servers/{id}"), None).ok()?, 204),
        };
        if answer.status == 503 {
            return None;
        }
        assert_eq!(answer.status, accepted, "{}", answer.message());
        match self {
            Self::Boot(_) => Some(answer.text("/server/id").unwrap()),
            Self::Delete(id) => Some(id.clone()),
        }
    }
}

/// How far requests are that were sent at once.
#[derive(Default)]
pub struct Sent {
    accepted: AtomicUsize,
    answered: AtomicUsize,
}

impl Sent {
    /// Requests that were accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Requests that were answered so far, or cut off.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

/// Sends all requests at once and does something meanwhile. Returns what that gave, and the ids of what was accepted.
pub fn send_all<T>(project: &Project, requests: &[Request], meanwhile: impl FnOnce(&Sent) -> T) -> (T, Vec<String>) {
    let sent = Sent::default();
    let send = |request: &Request| {
        let id = request.send(project);
        sent.accepted.fetch_add(usize::from(id.is_some()), Ordering::SeqCst);
        sent.answered.fetch_add(1, Ordering::SeqCst);
        id
    };
    thread::scope(|threads| {
        let send = &send;
        let pool: Vec<_> = requests.iter().map(|request| threads.spawn(move || send(request))).collect();
        let done = meanwhile(&sent);
        (done, pool.into_iter().filter_map(|thread| thread.join().unwrap()).collect())
    })
}

/// What servers are doing, for the reader.
pub fn census(servers: &[Value]) -> BTreeMap<String, usize> {
    let mut census = BTreeMap::new();
    for server in servers {
        let task = server["OS-EXT-STS:task_state"].as_str().unwrap_or("-");
        *census.entry(format!("{}/{task}", server["status"].as_str().unwrap_or("?"))).or_default() += 1;
    }
    census
}

pub fn id_of(server: &Value) -> String {
    server["id"].as_str().expect("a server has an id").to_owned()
}

pub fn unsettled(servers: &[Value]) -> Vec<String> {
    servers.iter().filter(|s| !is_settled(s)).map(id_of).collect()
}

/// Each guest is on one host and was started once at most.
pub fn assert_started_once(guests: &[(String, u64)]) {
    let mut seen = BTreeSet::new();
    for (id, boots) in guests {
        assert!(*boots <= 1, "the guest {id} was started {boots} times");
        assert!(seen.insert(id), "the guest {id} is on two hosts");
    }
}

/// Servers that were asked for, round by round, and what was accepted.
pub struct Fleet {
    pub project: Project,
    pub round: usize,
    pub booted: BTreeSet<String>,
    /// Their end was asked for, with an answer or without.
    pub asked: BTreeSet<String>,
    /// Their end was accepted.
    pub deleted: BTreeSet<String>,
}

impl Fleet {
    /// None yet.
    pub fn new(project: Project) -> Self {
        let [booted, asked, deleted] = std::array::from_fn(|_| BTreeSet::new());
        Self { project, round: 0, booted, asked, deleted }
    }

    /// Requests for a new round of servers: single ones, and one for several.
    pub fn boots(&mut self) -> Vec<Request> {
        self.round += 1;
        let body = |n| self.project.request(&format!("r{}-{n}", self.round));
        let mut requests: Vec<Value> = (0..REQUESTS).map(body).collect();
        requests[REQUESTS / 2]["server"]["min_count"] = json!(SEVERAL);
        requests.into_iter().map(Request::Boot).collect()
    }

    /// The servers of this round that there are.
    pub fn of_round(&self) -> Vec<Value> {
        let mut servers = self.project.newest(2 * (REQUESTS + SEVERAL));
        let name = format!("r{}-", self.round);
        servers.retain(|s| s["name"].as_str().is_some_and(|n| n.starts_with(&name)));
        servers
    }

    /// Boots a round, up to the given state of all, and asks for the end of ten of them.
    pub fn deletes(&mut self, is_ready: impl Fn(&Value) -> bool) -> Vec<Request> {
        let boots = self.boots();
        let (_, ids) = send_all(&self.project, &boots, |_| {});
        self.note(&boots, ids);
        let fleet = until("the fleet is ready", || {
            Some(self.of_round()).filter(|fleet| fleet.len() >= SERVERS && fleet.iter().all(&is_ready))
        });
        self.booted.extend(fleet.iter().map(id_of));
        fleet.iter().take(REQUESTS).map(|s| Request::Delete(id_of(s))).collect()
    }

    /// Writes down what was asked for, and the ids of what was accepted.
    pub fn note(&mut self, requests: &[Request], ids: Vec<String>) {
        let asked = |request: &Request| match request {
            Request::Delete(id) => Some(id.clone()),
            Request::Boot(_) => None,
        };
        self.asked.extend(requests.iter().filter_map(asked));
        match requests.first() {
            Some(Request::Delete(_)) => self.deleted.extend(ids),
            _ => self.booted.extend(ids),
        }
    }

    /// Waits until nobody is at work. Every server is gone, ACTIVE, or in ERROR with a reason; what was to be deleted is
    /// gone; every guest has a server, every ACTIVE server its guest.
    pub fn assert_ended_well(&self, guests: impl Fn() -> Vec<(String, u64)>) -> Vec<Value> {
        let gone = |id: &String| self.project.server(id).is_null();
        until("every server has settled", || self.project.servers().iter().all(is_settled).then_some(()));
        until("every deleted server is gone", || self.deleted.iter().all(gone).then_some(()));
        let servers = self.project.servers();
        println!("the end: {} were deleted, {:?}", self.deleted.len(), census(&servers));
        assert_started_once(&guests());
        let guests: BTreeMap<String, u64> = guests().into_iter().collect();
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
        servers
    }

    /// Of what was accepted, and whose end nobody asked for, all is there.
    pub fn assert_none_lost(&self, servers: &[Value]) {
        let there: BTreeSet<String> = servers.iter().map(id_of).collect();
        let kept = self.booted.difference(&self.asked);
        let lost: Vec<_> = kept.filter(|id| !there.contains(*id)).collect();
        assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    }

    /// Asks for the end of all servers, and waits for it.
    pub fn assert_all_can_go(&mut self, guests: impl Fn() -> Vec<(String, u64)>) {
        let requests: Vec<Request> = self.project.servers().iter().map(|s| Request::Delete(id_of(s))).collect();
        for batch in requests.chunks(REQUESTS) {
            let (_, ids) = send_all(&self.project, batch, |_| {});
            assert_eq!(ids.len(), batch.len(), "every server can be deleted");
            self.note(batch, ids);
        }
        assert!(self.assert_ended_well(&guests).is_empty(), "all were deleted");
        assert_eq!(guests(), [], "guests of deleted servers");
    }
}
