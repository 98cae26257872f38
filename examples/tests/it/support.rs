//! A `nova-all` of a test's own: its configuration, start, health, end and log, and what every test asks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nova_examples::client::{Account, Answer, Client, agent, send_json};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const NOVA_ALL: &str = env!("CARGO_BIN_EXE_nova-all");
pub const NOVA_DEMO: &str = env!("CARGO_BIN_EXE_nova-demo");
pub const NOVA_MANAGE: &str = env!("CARGO_BIN_EXE_nova-manage");
/// The version that tests speak unless they say otherwise.
pub const MICROVERSION: Option<&str> = Some("2.79");
/// No condition is waited for longer.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Looks again and again until there is something.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// The same for what takes long.
#[track_caller]
pub fn until_within<T>(patience: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    let found = until_or(patience, look);
    assert!(found.is_some(), "waited in vain: {what}");
    found.unwrap()
}

/// The same; none if it was in vain, for who can say more about why.
pub fn until_or<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        match look() {
            None if Instant::now() < end => std::thread::sleep(POLL),
            found => return found,
        }
    }
}

/// A program with a clean environment: no setting reaches it by accident.
pub fn program(path: &str) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NOVA_") || name.to_string_lossy().starts_with("OS_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// A port that is free at this moment, and that the kernel gives to nobody who connects somewhere: it is still free when
/// the service that listens on it was killed and starts again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 500).unwrap() * 10;
    let port = (0..5000).find_map(|_| {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 5000;
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    port.expect("a free port")
}

/// A state folder with its configuration, and the process that uses it.
pub struct Cloud {
    folder: TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Cloud {
    /// A folder and a configuration; `settings` is more of it, in INI form.
    pub fn new(settings: &str) -> Self {
        let cloud = Self { folder: tempfile::tempdir().unwrap(), port: free_port(), process: None };
        cloud.configure(settings);
        cloud
    }

    /// A cloud that serves.
    pub fn started(settings: &str) -> Self {
        let mut cloud = Self::new(settings);
        cloud.start();
        cloud
    }

    pub fn configure(&self, settings: &str) {
        let text = format!(
            "[DEFAULT]\nstate_path = {}\nhost = host-1\n[api]\nlisten = 127.0.0.1:{}\n[identity]\nargon2_memory_kib = 64\n{settings}\n",
            self.state().display(),
            self.port
        );
        fs::write(self.config_file(), text).unwrap();
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("nova.conf")
    }

    pub fn clouds_yaml(&self) -> PathBuf {
        self.state().join("clouds.yaml")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What the process has said so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("nova-all.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it was started").id()
    }

    /// Starts the process and returns at once.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("nova-all.log")).unwrap();
        let mut command = program(NOVA_ALL);
        command.arg("--config-file").arg(self.config_file());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// Starts the process and waits for its health; returns how long that took.
    pub fn start(&mut self) -> Duration {
        let began = Instant::now();
        self.spawn();
        let agent = agent();
        until("nova-all is healthy", || {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "nova-all ended at its start: {ended:?}");
            send_json(&agent, "GET", &self.url("/healthz"), &[], None).ok().filter(|answer| answer.status == 200)
        });
        began.elapsed()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Ends it by SIGTERM.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        until("nova-all ends", || process.try_wait().unwrap())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn account(&self, cloud: &str) -> Account {
        Account::read(&self.clouds_yaml(), cloud).unwrap()
    }

    pub fn sign_in(&self, cloud: &str) -> Client {
        Client::sign_in(&self.account(cloud), MICROVERSION).unwrap()
    }

    pub fn project(&self) -> Project {
        Project::new(&self.sign_in("nova"), self.sign_in("nova-demo"))
    }

    /// `nova-manage` with this cloud's configuration.
    pub fn manage(&self, arguments: &[&str]) -> Output {
        let mut command = program(NOVA_MANAGE);
        command.arg("--config-file").arg(self.config_file()).args(arguments);
        command.output().unwrap()
    }

    /// The guests that the fake hypervisors keep, host by host: the server that each belongs to, and the number of its
    /// boots.
    pub fn guests(&self) -> Vec<(String, u64)> {
        self.guest_files().iter().flat_map(|host| guests_in(host)).collect()
    }

    /// The file of each fake hypervisor that has guests.
    pub fn guest_files(&self) -> Vec<PathBuf> {
        let Ok(folder) = fs::read_dir(self.state().join("fake")) else { return Vec::new() };
        let mut hosts: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
        hosts.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        hosts.sort();
        hosts
    }

    /// `nova-manage check` finds nothing.
    #[track_caller]
    pub fn assert_checked(&self) {
        assert_success("nova-manage check", &self.manage(&["check"]));
    }
}

/// What a file of the fake driver says of guests, by the server that each belongs to.
fn kept_in(file: &Path) -> BTreeMap<String, Value> {
    let Ok(bytes) = fs::read(file) else { return BTreeMap::new() };
    let mut table: Value = serde_json::from_slice(&bytes).expect("a table of guests");
    serde_json::from_value(table["guests"].take()).expect("guests by id")
}

/// The guests in a file of the fake driver: the server that each belongs to, and the number of its boots.
pub fn guests_in(file: &Path) -> Vec<(String, u64)> {
    kept_in(file).into_iter().map(|(id, guest)| (id, guest["boots"].as_u64().expect("boots"))).collect()
}

/// The same with the MAC addresses of their interfaces.
pub fn macs_in(file: &Path) -> Vec<(String, BTreeSet<String>)> {
    let macs = |guest: Value| {
        let interfaces = guest["spec"]["interfaces"].as_array().cloned().unwrap_or_default();
        interfaces.iter().filter_map(|nic| nic["mac_address"].as_str().map(str::to_owned)).collect()
    };
    kept_in(file).into_iter().map(|(id, guest)| (id, macs(guest))).collect()
}

/// A program that has ended well; else what it said.
#[track_caller]
pub fn assert_success(what: &str, done: &Output) {
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{what}: {}\n{out}{err}", done.status);
}

/// The end of a log, without its requests.
pub fn end_of_log(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("request_log")).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- the end of nova-all's log, without requests\n{}", end_of_log(&self.log(), 60));
        }
    }
}

/// A project with an image and a flavor, as user demo sees it.
#[derive(Clone)]
pub struct Project {
    pub demo: Client,
    pub image: String,
    pub flavor: String,
}

impl Project {
    /// Uploads the image and makes the flavor.
    pub fn new(admin: &Client, demo: Client) -> Self {
        let body = json!({"name": "small", "disk_format": "raw", "container_format": "bare"});
        let image = demo.image("POST", "/images", Some(&body)).unwrap().accepted().unwrap().text("/id").unwrap();
        demo.upload(&image, &mut [0; 4096].as_slice(), 4096).unwrap();
        let body = json!({"flavor": {"name": "small", "vcpus": 1, "ram": 64, "disk": 1}});
        let flavor = admin.post("/flavors", &body).unwrap().text("/flavor/id").unwrap();
        Self { demo, image, flavor }
    }

    /// The same after a restart of the services.
    pub fn again(&self, cloud: &Cloud) -> Self {
        self.by(cloud.sign_in("nova-demo"))
    }

    /// The same by another way.
    pub fn by(&self, demo: Client) -> Self {
        Self { demo, ..self.clone() }
    }

    pub fn request(&self, name: &str) -> Value {
        json!({"server": {"name": name, "imageRef": self.image, "flavorRef": self.flavor, "networks": "none"}})
    }

    /// Asks for a server; returns its id.
    #[track_caller]
    pub fn boot(&self, name: &str) -> String {
        self.demo.post("/servers", &self.request(name)).unwrap().text("/server/id").unwrap()
    }

    /// The server; null if it is gone.
    #[track_caller]
    pub fn server(&self, id: &str) -> Value {
        let answer = self.demo.compute("GET", &format!("/servers/{id}"), None).unwrap();
        match answer.status {
            404 => Value::Null,
            _ => answer.accepted().unwrap().json()["server"].take(),
        }
    }

    #[track_caller]
    pub fn servers(&self) -> Vec<Value> {
        self.demo.get("/servers/detail").unwrap().list("servers").unwrap()
    }

    /// The servers that were made last, so many at most.
    #[track_caller]
    pub fn newest(&self, limit: usize) -> Vec<Value> {
        self.demo.get(&format!("/servers/detail?limit={limit}")).unwrap().list("servers").unwrap()
    }

    #[track_caller]
    pub fn wait_status(&self, id: &str, status: &str) -> Value {
        until(&format!("the server is {status}"), || Some(self.server(id)).filter(|s| s["status"] == status))
    }

    #[track_caller]
    pub fn wait_task(&self, id: &str, task: &str) {
        until(&format!("the server is in task {task}"), || {
            let server = self.server(id);
            assert_ne!(server["status"], "ACTIVE", "it was too quick");
            (server["OS-EXT-STS:task_state"] == task).then_some(())
        });
    }
}

/// Nobody is at work on it, and it is in a state to be in.
pub fn is_settled(server: &Value) -> bool {
    let known = ["ACTIVE", "ERROR"].contains(&server["status"].as_str().unwrap_or_default());
    server.is_null() || known && server["OS-EXT-STS:task_state"].is_null()
}

/// Bytes to the port and all that comes back until the other side closes or has nothing more to say.
pub fn raw(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may refuse and close before it has read everything: what it said counts.
    let _ = stream.write_all(request);
    read_answer(&mut stream)
}

/// One answer with its body, as far as it came.
pub fn read_answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read) = stream.read(&mut part) {
        all.extend_from_slice(&part[..read]);
        if read == 0 || is_whole(&all) {
            break;
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// The answer of a raw request, in the form that the client gives.
pub fn parsed(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let header = |line: &str| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    let (request, body) = (String::new(), body.as_bytes().to_vec());
    Answer { request, status, headers: lines.filter_map(header).collect(), body }
}

/// Resident memory of a process in MiB.
pub fn memory_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
