//! A network namespace for the length of a test.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nova_compute::linux::links::{Links, enter_namespace};

/// A namespace of its own, with its loopback up; gone with the value.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one. The word is for who looks at a test that hangs.
    pub fn new(word: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nt{}-{number}-{word}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        Self { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its links.
    pub async fn links(&self) -> Links {
        Links::in_namespace(&self.name).await.unwrap()
    }

    /// Waits until frames can pass all links that are ports of bridges.
    pub async fn links_run(&self) {
        let links = self.links().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let all = links.list().await.unwrap();
            let Some(link) = all.iter().find(|link| link.master.is_some() && !link.running) else { return };
            assert!(Instant::now() < deadline, "{link:?} does not come up");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Runs that in the namespace, on a thread of its own, and waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(work).join().unwrap()
    }

    /// Runs that in the namespace, on a thread of its own.
    pub fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let name = self.name.clone();
        std::thread::spawn(move || {
            enter_namespace(&name).unwrap();
            work()
        })
    }

    /// What a program says there.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
