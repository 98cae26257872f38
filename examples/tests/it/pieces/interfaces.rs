//! The network service and the hosts are killed at each step of what is done with interfaces, each alone; once where
//! nothing is plugged in, and once with bridges, filters and dnsmasq in a network namespace.

use std::path::PathBuf;

use nova_examples::client::Client;
use sqlx::Connection;

use super::cloud::{PIECES, Pieces};
use crate::interfaces::{Rig, SETTINGS, Walk};

/// A cloud in pieces, and which those are.
pub(super) struct Kinds {
    pieces: Pieces,
    names: &'static [&'static str],
}

impl Kinds {
    pub(super) fn started(settings: &str, names: &'static [&'static str]) -> Self {
        Self { pieces: Pieces::started("postgresql", settings, names), names }
    }

    pub(super) fn admin(&self) -> Client {
        self.pieces.sign_in("api-1", "nova")
    }
}

impl Rig for Kinds {
    fn kill(&mut self, victim: &str) {
        for name in self.pieces.names(victim) {
            self.pieces.kill(&name);
        }
    }

    fn start(&mut self, victim: &str) {
        for name in self.pieces.names(victim) {
            self.pieces.spawn(&name);
        }
        self.pieces.await_health(self.names);
    }

    fn sign_in(&self) -> Client {
        self.pieces.sign_in("api-1", "nova-demo")
    }

    fn guest_files(&self) -> Vec<PathBuf> {
        let file = |host: String| self.pieces.path(&host).join("fake").join(format!("{host}.json"));
        self.pieces.names("compute").into_iter().map(file).collect()
    }

    fn tasks(&self) -> i64 {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut connection = sqlx::PgConnection::connect(&self.pieces.database.url).await.unwrap();
            let count = sqlx::query_scalar("SELECT COUNT(*) FROM tasks").fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            count
        })
    }

    fn assert_checked(&self) {
        self.pieces.assert_checked();
    }
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn interfaces_survive_the_end_of_the_network_and_of_hosts() {
    let cloud = Kinds::started(SETTINGS, PIECES);
    let admin = cloud.admin();
    let mut walk = Walk::new(cloud, &admin);
    for victim in ["network", "compute"] {
        walk.walk(victim);
    }
    walk.end();
}

/// Bridges, filters and dnsmasq: everything of the cloud runs in one namespace, which is the host.
mod plumbing {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};
    use std::time::Duration;

    use nova_compute::linux::links::enter_namespace;

    use super::*;
    use crate::support::{until, until_or};

    /// A question that died with its service is asked again when its time is over.
    const CONVERGED: Duration = Duration::from_secs(180);

    const ONE_HOST: &[&str] = &["api-1", "scheduler-1", "conductor-1", "network-1", "compute-1"];

    fn run(program: &str, arguments: &[&str]) -> Output {
        Command::new(program).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn said(program: &str, arguments: &[&str]) -> String {
        let output = run(program, arguments);
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A namespace with a way out; what was made in it and beside it ends with the value.
    struct Place(String);

    impl Place {
        fn new() -> Self {
            let place = Self(format!("nf{}", std::process::id()));
            let name = place.0.as_str();
            said("ip", &["netns", "add", name]);
            for line in [
                "link set lo up",
                "link add out0 type veth peer name out1",
                "link set out1 up",
                "address add 192.0.2.1/24 dev out0",
                "link set out0 up",
                "route add default via 192.0.2.254",
            ] {
                let words: Vec<&str> = ["-n", name].into_iter().chain(line.split(' ')).collect();
                said("ip", &words);
            }
            place
        }

        /// Namespaces of networks and routers.
        fn inner(&self) -> Vec<String> {
            let all = said("ip", &["netns", "list"]);
            let names = all.lines().filter_map(|line| line.split(' ').next());
            names.filter(|name| name.starts_with(&format!("{}-", self.0))).map(str::to_owned).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            // After a failure dnsmasq is still there.
            for name in self.inner().into_iter().chain([self.0.clone()]) {
                let pids = String::from_utf8_lossy(&run("ip", &["netns", "pids", &name]).stdout).into_owned();
                for pid in pids.split_whitespace() {
                    run("kill", &["-9", pid]);
                }
                run("ip", &["netns", "delete", &name]);
            }
            drop(std::fs::remove_dir_all(format!("/run/nova-network-{}", self.0)));
        }
    }

    /// The same, with a look at what the kernel and dnsmasq have.
    struct Plumbed {
        kinds: Kinds,
        names: String,
    }

    impl Plumbed {
        /// The files of dnsmasq of all networks, as one text.
        fn names(&self) -> String {
            let folders = |path: &Path| -> Vec<PathBuf> {
                std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
            };
            let mut found = folders(Path::new(&self.names));
            let mut all = String::new();
            while let Some(path) = found.pop() {
                match path.is_dir() {
                    true => found.extend(folders(&path)),
                    // What the host remembers of leases that were given out, for as long as they last.
                    false if path.ends_with("told") => {}
                    // One may be gone by now.
                    false => all.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default())),
                }
            }
            all
        }
    }

    impl Rig for Plumbed {
        fn kill(&mut self, victim: &str) {
            self.kinds.kill(victim);
        }
        fn start(&mut self, victim: &str) {
            self.kinds.start(victim);
        }
        fn sign_in(&self) -> Client {
            self.kinds.sign_in()
        }
        fn guest_files(&self) -> Vec<PathBuf> {
            self.kinds.guest_files()
        }
        fn tasks(&self) -> i64 {
            self.kinds.tasks()
        }
        fn assert_checked(&self) {
            self.kinds.assert_checked();
        }

        fn assert_plumbed(&self, macs: &BTreeSet<String>, gone: &BTreeSet<String>) {
            let mut last = None;
            let seen = until_or(CONVERGED, || {
                let (rules, names) = (said("nft", &["list", "ruleset"]), self.names());
                let lacks = |mac: &&String| !rules.contains(*mac) || !names.contains(*mac);
                let missing: Vec<_> = macs.iter().filter(lacks).cloned().collect();
                let left: Vec<_> =
                    gone.iter().filter(|mac| rules.contains(*mac) || names.contains(*mac)).cloned().collect();
                let done = missing.is_empty() && left.is_empty();
                last = Some((missing, left, rules, names));
                done.then_some(())
            });
            assert!(seen.is_some(), "rules and names are not those of the ports (missing, left, both): {last:#?}");
        }
    }

    fn walk(place: &Place) {
        let names = format!("/run/nova-network-{}", place.0);
        let settings = format!(
            "{SETTINGS}[network]\nplumbing = linux\nnamespace_prefix = {}-\ndnsmasq_path = {names}\n[DEFAULT]\n\
             public_interface = out0\n",
            place.0
        );
        let cloud = Plumbed { kinds: Kinds::started(&settings, ONE_HOST), names: names.clone() };
        let admin = cloud.kinds.admin();
        let mut walk = Walk::new(cloud, &admin);
        for victim in ["network", "compute"] {
            walk.walk(victim);
        }
        walk.end();
        until("no namespace, bridge or tap is left", || {
            let links = said("ip", &["-o", "link"]);
            let known = |line: &str| [" lo:", " out0@", " out1@"].iter().any(|name| line.contains(name));
            (place.inner().is_empty() && links.lines().all(known)).then_some(())
        });
    }

    #[test]
    #[ignore = "needs NOVA_TEST_NETNS, NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL: root, nftables, dnsmasq, both servers"]
    fn interfaces_survive_with_rules_and_names() {
        let place = Place::new();
        // What this thread begins is in the namespace: services, servers, and the requests to them.
        let inside = std::thread::scope(|threads| {
            let enter = || {
                enter_namespace(&place.0).unwrap();
                walk(&place);
            };
            threads.spawn(enter).join()
        });
        inside.unwrap();
    }
}
