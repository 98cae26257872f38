//! The harness: one configuration, and every service a process of its own by a name such as `conductor-2`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nova_examples::client::{Account, Client, agent, send_json};
use tempfile::TempDir;

use super::servers::Server;
use crate::support::{
    MICROVERSION, NOVA_MANAGE, Project, assert_success, end_of_log, free_port, guests_in, program, until,
};

/// One of each control service, and two hosts, so that a guest could be on both if something went wrong.
pub const PIECES: &[&str] = &["api-1", "scheduler-1", "conductor-1", "network-1", "volume-1", "compute-1", "compute-2"];

/// What all tests set: no quota, work that was cut off is taken up soon, hosts with room for everything.
const SETTINGS: &str = "[identity]\nargon2_memory_kib = 64\n[quota]\ninstances = -1\ncores = -1\nram = -1\n\
                        [fake]\nvcpus = 1000\nmemory_mb = 1048576\ndisk_gb = 100000\n";

/// The binary of a service by the beginning of its name.
fn binary(name: &str) -> &'static str {
    match name.split('-').next() {
        Some("api") => env!("CARGO_BIN_EXE_nova-api"),
        Some("scheduler") => env!("CARGO_BIN_EXE_nova-scheduler"),
        Some("conductor") => env!("CARGO_BIN_EXE_nova-conductor"),
        Some("network") => env!("CARGO_BIN_EXE_nova-network"),
        Some("volume") => env!("CARGO_BIN_EXE_nova-volume"),
        Some("compute") => env!("CARGO_BIN_EXE_nova-compute"),
        _ => panic!("no service is called {name}"),
    }
}

struct Service {
    /// Where it answers `/healthz`.
    port: u16,
    process: Option<Child>,
}

/// All services of a cloud, by name, and the servers that they share.
pub struct Pieces {
    folder: TempDir,
    pub broker: Server,
    pub database: Server,
    services: BTreeMap<String, Service>,
}

impl Pieces {
    /// Broker, database with its schema, and the configuration of those services. None is started yet.
    pub fn new(database: &str, settings: &str, names: &[&str]) -> Self {
        let (folder, broker, database) =
            (tempfile::tempdir().unwrap(), Server::start("rabbitmq"), Server::start(database));
        let service = |name: &&str| ((*name).to_owned(), Service { port: free_port(), process: None });
        let pieces = Self { folder, broker, database, services: names.iter().map(service).collect() };
        let shared = format!("[DEFAULT]\ntransport_url = {}\n{SETTINGS}{settings}\n", pieces.broker.url);
        fs::write(pieces.path("nova.conf"), shared).unwrap();
        let inside = format!("[database]\nconnection = {}\n", pieces.database.url);
        fs::write(pieces.path("database.conf"), inside).unwrap();
        pieces.prepare_check();
        assert_success("nova-manage db sync", &pieces.manage(&["db", "sync"]).output().unwrap());
        pieces
    }

    /// A cloud that serves. All start at once; whichever API is first makes the accounts.
    pub fn started(database: &str, settings: &str, names: &[&str]) -> Self {
        let mut pieces = Self::new(database, settings, names);
        for name in names {
            pieces.spawn(name);
        }
        pieces.await_health(names);
        pieces
    }

    /// A place in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Names that begin so.
    pub fn names(&self, kind: &str) -> Vec<String> {
        self.services.keys().filter(|name| name.starts_with(kind)).cloned().collect()
    }

    /// The command of a service. Compute hosts are not told of the database.
    pub fn command(&self, name: &str) -> Command {
        let mut command = program(binary(name));
        command.arg("--config-file").arg(self.path("nova.conf"));
        let is_host = name.starts_with("compute");
        if !is_host {
            command.arg("--config-file").arg(self.path("database.conf"));
        }
        let state = self.path(if is_host { name } else { "control" });
        let address = if name.starts_with("api") { "api.listen" } else { "health.listen" };
        let sets = [
            format!("DEFAULT.host={name}"),
            format!("DEFAULT.state_path={}", state.display()),
            format!("{address}=127.0.0.1:{}", self.services[name].port),
        ];
        for set in sets {
            command.args(["--set", &set]);
        }
        command
    }

    /// Starts a service and returns at once.
    pub fn spawn(&mut self, name: &str) {
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut command = self.command(name);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.services.get_mut(name).unwrap().process = Some(command.spawn().unwrap());
    }

    /// What a service has said so far, over all its starts.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    pub fn url(&self, name: &str, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.services[name].port)
    }

    /// Status and text of `/healthz`; none while nobody listens.
    pub fn health(&self, name: &str) -> Option<(u16, String)> {
        let answer = send_json(&agent(), "GET", &self.url(name, "/healthz"), &[], None).ok()?;
        Some((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// Waits until these serve; returns how long that took.
    #[track_caller]
    pub fn await_health<S: AsRef<str>>(&mut self, names: &[S]) -> Duration {
        let began = Instant::now();
        for name in names.iter().map(AsRef::as_ref) {
            until(&format!("{name} is healthy"), || {
                let ended = self.services.get_mut(name).unwrap().process.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "{name} ended: {ended:?}\n{}", end_of_log(&self.log(name), 5));
                self.health(name).filter(|(status, _)| *status == 200)
            });
        }
        began.elapsed()
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut process) = self.services.get_mut(name).unwrap().process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Sends a signal to the running ones of that kind: `STOP` freezes them, `CONT` lets them go on.
    pub fn signal(&self, kind: &str, signal: &str) {
        let running = self.services.iter().filter(|(name, _)| name.starts_with(kind));
        for pid in running.filter_map(|(_, service)| service.process.as_ref()).map(Child::id) {
            let kill = format!("kill -{signal} {pid}");
            assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
    }

    /// What a service counts under a name.
    #[track_caller]
    pub fn counted(&self, name: &str, counter: &str) -> u64 {
        self.counted_or_none(name, counter).unwrap_or_else(|| panic!("{name} does not count {counter}"))
    }

    /// The same where it may not have happened yet.
    pub fn counted_or_none(&self, name: &str, counter: &str) -> Option<u64> {
        let answer = send_json(&agent(), "GET", &self.url(name, "/metrics"), &[], None).unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        text.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse().ok())
    }

    /// An account's way in through one of the APIs.
    pub fn sign_in(&self, api: &str, cloud: &str) -> Client {
        let account = Account::read(&self.path("control").join("clouds.yaml"), cloud).unwrap();
        let account = Account { auth_url: self.url(api, "/identity/v3"), ..account };
        Client::sign_in(&account, MICROVERSION).unwrap()
    }

    pub fn project(&self) -> Project {
        Project::new(&self.sign_in("api-1", "nova"), self.sign_in("api-1", "nova-demo"))
    }

    /// The hosts' guests: the server that each belongs to, and the number of its boots.
    pub fn guests(&self) -> Vec<(String, u64)> {
        self.names("compute").iter().flat_map(|host| self.guests_on(host)).collect()
    }

    pub fn guests_on(&self, host: &str) -> Vec<(String, u64)> {
        guests_in(&self.path(host).join("fake").join(format!("{host}.json")))
    }

    /// Hosts with at least one of these servers.
    pub fn hosts_of(&self, servers: &[String]) -> BTreeSet<String> {
        let has = |host: &String| self.guests_on(host).iter().any(|(id, _)| servers.contains(id));
        self.names("compute").into_iter().filter(has).collect()
    }

    /// A state folder from which `nova-manage check` reads the guests of all hosts.
    fn prepare_check(&self) {
        let fake = self.path("check").join("fake");
        fs::create_dir_all(&fake).unwrap();
        for host in self.names("compute") {
            let file = format!("{host}.json");
            std::os::unix::fs::symlink(self.path(&host).join("fake").join(&file), fake.join(file)).unwrap();
        }
    }

    pub fn manage(&self, arguments: &[&str]) -> Command {
        let mut command = program(NOVA_MANAGE);
        command.arg("--config-file").arg(self.path("nova.conf")).arg("--config-file").arg(self.path("database.conf"));
        let sets = [
            "DEFAULT.host=compute".to_owned(),
            format!("fake.hosts={}", self.names("compute").len()),
            format!("DEFAULT.state_path={}", self.path("check").display()),
        ];
        for set in sets {
            command.args(["--set", &set]);
        }
        command.args(arguments);
        command
    }

    /// `nova-manage check` finds nothing.
    #[track_caller]
    pub fn assert_checked(&self) {
        assert_success("nova-manage check", &self.manage(&["check"]).output().unwrap());
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let names: Vec<String> = self.services.keys().cloned().collect();
        names.iter().for_each(|name| self.kill(name));
        if std::thread::panicking() {
            for name in names {
                eprintln!("---- the end of the log of {name}, without requests\n{}", end_of_log(&self.log(&name), 40));
            }
        }
    }
}
