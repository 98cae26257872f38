//! kill -9 at each step of what is done with interfaces, ten requests in flight: an address is taken, an interface plugged
//! in and out, an address given back, a floating address put on a port. Whatever was accepted is so in the end; no address
//! and no port is without an owner, and guests have the interfaces that the books say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nova_examples::client::Client;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::fleet::id_of;
use crate::support::{Cloud, Project, is_settled, macs_in, until};

/// A step that was over before it was seen is tried again, so often at most.
const TRIES: usize = 20;
/// Servers that stay. Each gets two interfaces more at once, and a floating address.
const KEPT: usize = 5;
/// Work that was cut off is taken up soon; guests take a moment to boot.
pub const SETTINGS: &str = "[conductor]\ntask_lease = 2\n[fake]\nboot_latency_ms = 100\n";

/// A cloud, some of which is killed.
pub trait Rig {
    /// kill -9 of whatever has that name.
    fn kill(&mut self, victim: &str);
    /// Starts it again, and waits until all serve.
    fn start(&mut self, victim: &str);
    /// User demo.
    fn sign_in(&self) -> Client;
    /// Where the fake hypervisors keep their guests.
    fn guest_files(&self) -> Vec<PathBuf>;
    /// How many tasks are not over.
    fn tasks(&self) -> i64;
    /// `nova-manage check` finds nothing.
    fn assert_checked(&self);
    /// Hosts have the rules and the names of these interfaces (MAC addresses), and nothing of those that are gone.
    fn assert_plumbed(&self, _macs: &BTreeSet<String>, _gone: &BTreeSet<String>) {}
}

/// What is asked for, many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Boot,
    Attach,
    Detach,
    Delete,
    Associate,
}

/// What was seen last before the kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A port has its address, and its guest does not have it.
    Allocate,
    /// A guest has an interface more.
    Plug,
    /// A guest has an interface less.
    Unplug,
    /// A port is given back.
    Release,
    /// A floating address stands for a port.
    Associate,
}

const WALK: [(Deed, Step); 9] = [
    (Deed::Boot, Step::Allocate),
    (Deed::Boot, Step::Plug),
    (Deed::Attach, Step::Allocate),
    (Deed::Attach, Step::Plug),
    (Deed::Detach, Step::Unplug),
    (Deed::Detach, Step::Release),
    (Deed::Delete, Step::Unplug),
    (Deed::Delete, Step::Release),
    (Deed::Associate, Step::Associate),
];

/// A request that is under way when something ends.
enum Request {
    Boot(Value),
    Attach { server: String, body: Value },
    Detach { server: String, port: String },
    Delete(String),
    Associate { floating: String, port: Option<String> },
}

impl Request {
    /// The id of what it is about, if it was accepted: the server or the port. None when the answer was cut off.
    fn send(&self, demo: &Client) -> Option<String> {
        let (answer, accepted) = match self {
            Self::Boot(body) => (demo.compute("POST", "/servers", Some(body)), 202),
            Self::Attach { server, body } => {
                (demo.compute("POST", &format!("/servers/{server}/os-interface"), Some(body)), 200)
            }
            Self::Detach { server, port } => {
                (demo.compute("DELETE", &format!("/servers/{server}/os-interface/{port}"), None), 202)
            }
            Self::Delete(server) => (demo.compute("DELETE", &format!("/servers/{server}"), None), 204),
            Self::Associate { floating, port } => {
                let body = json!({"floatingip": {"port_id": port}});
                (demo.network("PUT", &format!("/floatingips/{floating}"), Some(&body)), 200)
            }
        };
        let answer = answer.ok()?;
        if answer.status == 503 {
            return None;
        }
        assert_eq!(answer.status, accepted, "{}: {}", answer.request, answer.message());
        Some(match self {
            Self::Boot(_) => answer.text("/server/id").unwrap(),
            Self::Attach { .. } => answer.text("/interfaceAttachment/port_id").unwrap(),
            Self::Detach { port, .. } => port.clone(),
            Self::Delete(server) => server.clone(),
            Self::Associate { floating, .. } => floating.clone(),
        })
    }
}

/// What can be seen of interfaces.
struct Seen {
    /// Ports of servers: id, server and MAC address.
    ports: BTreeMap<String, (String, String)>,
    /// What guests have.
    guests: BTreeMap<String, BTreeSet<String>>,
    /// What floating addresses stand for.
    floating: BTreeMap<String, Option<String>>,
}

/// A cloud that is killed again and again.
pub struct Walk<R> {
    pub rig: R,
    project: Project,
    network: String,
    floating: Vec<String>,
    /// Servers that stay, each with its first port.
    kept: Vec<(String, String)>,
    round: usize,
    /// Of all interfaces that there ever were.
    macs: BTreeSet<String>,
    hits: BTreeMap<(Deed, Step), usize>,
}

/// Makes something of the network; returns its id.
#[track_caller]
fn make(demo: &Client, path: &str, key: &str, body: &Value) -> String {
    let answer = demo.network("POST", path, Some(&json!({ key: body }))).unwrap().accepted().unwrap();
    answer.text(&format!("/{key}/id")).unwrap()
}

#[track_caller]
fn list(demo: &Client, path: &str, key: &str) -> Vec<Value> {
    demo.network("GET", path, None).unwrap().accepted().unwrap().list(key).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl<R: Rig> Walk<R> {
    /// Networks, floating addresses, and servers that stay.
    pub fn new(rig: R, admin: &Client) -> Self {
        let project = Project::new(admin, rig.sign_in());
        let demo = &project.demo;
        let network = make(demo, "/networks", "network", &json!({"name": "walk"}));
        let subnet = json!({"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4});
        let subnet = make(demo, "/subnets", "subnet", &subnet);
        let outer = id_of(&list(demo, "/networks?router:external=true", "networks")[0]);
        let router = json!({"external_gateway_info": {"network_id": outer}});
        let router = make(demo, "/routers", "router", &router);
        let join = demo.network(
            "PUT",
            &format!("/routers/{router}/add_router_interface"),
            Some(&json!({ "subnet_id": subnet })),
        );
        join.unwrap().accepted().unwrap();
        let floating = |_| make(demo, "/floatingips", "floatingip", &json!({ "floating_network_id": outer }));
        let floating = (0..KEPT).map(floating).collect();
        let mut walk = Self {
            rig,
            project,
            network,
            floating,
            kept: Vec::new(),
            round: 0,
            macs: BTreeSet::new(),
            hits: BTreeMap::new(),
        };
        let servers = walk.booted(KEPT, 1);
        let seen = walk.look();
        let first = |server: String| {
            let port = seen.ports.iter().find(|(_, (device, _))| *device == server);
            (server, port.expect("it has a port").0.clone())
        };
        walk.kept = servers.into_iter().map(first).collect();
        walk
    }

    fn boot(&self, name: usize, interfaces: usize) -> Request {
        let mut body = self.project.request(&format!("w{}-{name}", self.round));
        body["server"]["networks"] = json!(vec![json!({ "uuid": self.network }); interfaces]);
        Request::Boot(body)
    }

    /// So many servers more, all active.
    fn booted(&mut self, count: usize, interfaces: usize) -> Vec<String> {
        let send = |name| self.boot(name, interfaces).send(&self.project.demo).expect("an answer");
        let servers: Vec<String> = (0..count).map(send).collect();
        for server in &servers {
            self.project.wait_status(server, "ACTIVE");
        }
        servers
    }

    fn attach(&self, server: &str) -> Request {
        let body = json!({"interfaceAttachment": {"net_id": self.network}});
        Request::Attach { server: server.to_owned(), body }
    }

    /// The requests of a round, once what they are about is there.
    fn requests(&mut self, deed: Deed) -> Vec<Request> {
        self.round += 1;
        let twice = |of: &dyn Fn(&str) -> Request| {
            let servers = self.kept.iter().flat_map(|(server, _)| [server, server]);
            servers.map(|server| of(server)).collect::<Vec<_>>()
        };
        match deed {
            Deed::Boot => (0..2 * KEPT).map(|name| self.boot(name, 2)).collect(),
            Deed::Attach => twice(&|server| self.attach(server)),
            Deed::Detach => {
                let plug = |(server, _): &(String, String)| {
                    let port = self.attach(server).send(&self.project.demo).expect("an answer");
                    Request::Detach { server: server.clone(), port }
                };
                self.kept.iter().chain(&self.kept).map(plug).collect()
            }
            Deed::Delete => self.booted(KEPT, 2).into_iter().map(Request::Delete).collect(),
            Deed::Associate => {
                let put = |(floating, (_, port)): (&String, &(String, String))| Request::Associate {
                    floating: floating.clone(),
                    port: Some(port.clone()),
                };
                self.floating.iter().zip(&self.kept).map(put).collect()
            }
        }
    }

    fn ports(&self) -> BTreeMap<String, (String, String)> {
        let all = list(&self.project.demo, "/ports", "ports").into_iter();
        let of_servers = all.filter(|port| text(&port["device_owner"]).starts_with("compute:"));
        of_servers.map(|port| (id_of(&port), (text(&port["device_id"]), text(&port["mac_address"])))).collect()
    }

    fn guests(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.rig.guest_files().iter().flat_map(|file| macs_in(file)).collect()
    }

    fn floating(&self) -> BTreeMap<String, Option<String>> {
        let all = list(&self.project.demo, "/floatingips", "floatingips").into_iter();
        all.map(|one| (id_of(&one), one["port_id"].as_str().map(str::to_owned))).collect()
    }

    fn look(&mut self) -> Seen {
        let seen = Seen { ports: self.ports(), guests: self.guests(), floating: self.floating() };
        self.macs.extend(seen.ports.values().map(|(_, mac)| mac.clone()));
        seen
    }

    /// Whether the step can be seen right now.
    fn is_at(&self, step: Step, before: &Seen) -> bool {
        let has = |guests: &BTreeMap<String, BTreeSet<String>>, mac: &String| guests.values().any(|m| m.contains(mac));
        match step {
            Step::Allocate => {
                let (ports, guests) = (self.ports(), self.guests());
                ports.iter().any(|(id, (_, mac))| !before.ports.contains_key(id) && !has(&guests, mac))
            }
            Step::Plug => self.guests().values().flatten().any(|mac| !has(&before.guests, mac)),
            Step::Unplug => {
                let guests = self.guests();
                before.guests.values().flatten().any(|mac| !has(&guests, mac))
            }
            Step::Release => {
                let ports = self.ports();
                before.ports.keys().any(|id| !ports.contains_key(id))
            }
            Step::Associate => self.floating() != before.floating,
        }
    }

    /// Sends all requests at once, kills when the step is seen, and starts again. False when everything was over before.
    fn strike(&mut self, victim: &str, deed: Deed, step: Step) -> bool {
        let requests = self.requests(deed);
        let before = self.look();
        let (demo, answered) = (self.project.demo.clone(), AtomicUsize::new(0));
        let send = |request: &Request| {
            let accepted = request.send(&demo);
            answered.fetch_add(1, Ordering::SeqCst);
            accepted
        };
        let (hit, accepted) = thread::scope(|threads| {
            let send = &send;
            let pool: Vec<_> = requests.iter().map(|request| threads.spawn(move || send(request))).collect();
            let hit = loop {
                if self.is_at(step, &before) {
                    break true;
                }
                if answered.load(Ordering::SeqCst) == requests.len() && self.rig.tasks() == 0 {
                    break false;
                }
            };
            if hit {
                self.rig.kill(victim);
                self.rig.start(victim);
            }
            let accepted: Vec<_> = pool.into_iter().map(|thread| thread.join().unwrap()).collect();
            (hit, accepted)
        });
        self.project = self.project.by(self.rig.sign_in());
        println!("{victim} at {step:?} of {deed:?}: {}", if hit { "killed" } else { "over before it was seen" });
        self.settle();
        self.assert_whole(&requests, &accepted);
        self.clean_up();
        hit
    }

    /// Waits until nobody is at work.
    fn settle(&self) {
        until("nobody is at work", || {
            let settled = self.project.servers().iter().all(is_settled);
            (settled && self.rig.tasks() == 0).then_some(())
        });
    }

    /// What was accepted is so, and guests have what the books say.
    fn assert_whole(&mut self, requests: &[Request], accepted: &[Option<String>]) {
        let seen = self.look();
        let servers: BTreeMap<String, Value> = self.project.servers().into_iter().map(|s| (id_of(&s), s)).collect();
        for (request, id) in requests.iter().zip(accepted).filter_map(|(request, id)| Some((request, id.as_ref()?))) {
            match request {
                Request::Boot(_) => assert!(servers.contains_key(id), "accepted and lost: {id}"),
                Request::Attach { .. } => assert!(seen.ports.contains_key(id), "plugged in and gone: {id}"),
                Request::Detach { .. } => assert!(!seen.ports.contains_key(id), "unplugged and there: {id}"),
                Request::Delete(_) => assert!(!servers.contains_key(id), "deleted and there: {id}"),
                Request::Associate { port, .. } => assert_eq!(seen.floating[id], *port, "floating address {id}"),
            }
        }
        for (id, server) in &servers {
            let of = seen.ports.values().filter(|(device, _)| device == id).map(|(_, mac)| mac.clone());
            let books: BTreeSet<String> = of.collect();
            match server["status"].as_str() {
                Some("ACTIVE") => assert_eq!(seen.guests.get(id), Some(&books), "interfaces of {id}"),
                _ => assert!(!text(&server["fault"]["message"]).is_empty() && books.is_empty(), "{server} {books:?}"),
            }
        }
        for (port, (server, _)) in &seen.ports {
            assert!(servers.contains_key(server), "port {port} is of {server}, which is not there");
        }
        let orphans: Vec<_> = seen.guests.keys().filter(|id| !servers.contains_key(*id)).collect();
        assert!(orphans.is_empty(), "guests without a server: {orphans:?}");
        self.rig.assert_checked();
        let there: BTreeSet<String> = seen.ports.values().map(|(_, mac)| mac.clone()).collect();
        let gone = self.macs.difference(&there).cloned().collect();
        self.rig.assert_plumbed(&there, &gone);
    }

    /// The servers that stay, each with its one interface, and floating addresses for nobody.
    fn clean_up(&mut self) {
        let demo = &self.project.demo;
        for server in self.project.servers().iter().map(id_of) {
            if self.kept.iter().all(|(kept, _)| *kept != server) {
                Request::Delete(server).send(demo).expect("an answer");
            }
        }
        for (port, (server, _)) in self.ports() {
            let is_more = |(kept, first): &(String, String)| *kept == server && *first != port;
            if self.kept.iter().any(is_more) {
                Request::Detach { server, port }.send(demo).expect("an answer");
            }
        }
        for floating in self.floating.clone() {
            Request::Associate { floating, port: None }.send(demo).expect("an answer");
        }
        self.settle();
        let seen = self.look();
        assert_eq!((seen.ports.len(), seen.guests.len()), (KEPT, KEPT), "what stays");
    }

    /// Kills that one at each step.
    pub fn walk(&mut self, victim: &str) {
        self.hits.clear();
        for (deed, step) in WALK {
            if (0..TRIES).any(|_| self.strike(victim, deed, step)) {
                *self.hits.entry((deed, step)).or_default() += 1;
            }
        }
        let missed: Vec<_> = WALK.iter().filter(|at| !self.hits.contains_key(at)).collect();
        assert!(missed.is_empty(), "steps of {victim} that were never seen: {missed:?}");
    }

    /// Everything goes, and nothing stays.
    pub fn end(&mut self) {
        for (server, _) in std::mem::take(&mut self.kept) {
            Request::Delete(server).send(&self.project.demo).expect("an answer");
        }
        until("all servers are gone", || self.project.servers().is_empty().then_some(()));
        self.settle();
        let seen = self.look();
        assert!(seen.ports.is_empty() && seen.guests.is_empty(), "{:?} {:?}", seen.ports, seen.guests);
        assert!(seen.floating.values().all(Option::is_none), "{:?}", seen.floating);
        self.rig.assert_checked();
        self.rig.assert_plumbed(&BTreeSet::new(), &self.macs);
    }
}

impl Rig for Cloud {
    fn kill(&mut self, _victim: &str) {
        Self::kill(self);
    }

    fn start(&mut self, _victim: &str) {
        Self::start(self);
    }

    fn sign_in(&self) -> Client {
        Self::sign_in(self, "nova-demo")
    }

    fn guest_files(&self) -> Vec<PathBuf> {
        Self::guest_files(self)
    }

    fn tasks(&self) -> i64 {
        let url = format!("sqlite:{}", self.state().join("nova.db").display());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM tasks").fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            count
        })
    }

    fn assert_checked(&self) {
        Self::assert_checked(self);
    }
}

#[test]
fn interfaces_survive_a_kill_at_each_step() {
    let quota = "[quota]\ninstances = -1\ncores = -1\nram = -1\n";
    let cloud = Cloud::started(&format!("{quota}{SETTINGS}hosts = 2\nvcpus = 1000\n"));
    let admin = Cloud::sign_in(&cloud, "nova");
    let mut walk = Walk::new(cloud, &admin);
    walk.walk("nova-all");
    walk.end();
}
