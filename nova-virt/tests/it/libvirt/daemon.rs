//! A libvirt daemon that dies, comes back and hangs. These tests have a daemon of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_core::state::PowerState;
use nova_virt::testing::guest_spec;
use nova_virt::{ErrorKind, GuestEventKind, Hypervisor, LibvirtHypervisor, LibvirtOptions};
use tempfile::TempDir;

use super::{PATIENCE, ROOM, folder, options, qemu_pid, run, wait_for};

/// A private libvirt, stopped with its guests at the end.
pub(super) struct Daemon {
    folder: TempDir,
}

impl Daemon {
    fn start() -> Self {
        let daemon = Self { folder: folder() };
        daemon.control(&["start"]);
        daemon
    }

    /// With a name and an address of its own, so that guests can be sent to it.
    pub(super) fn start_at(name: &str, address: &str) -> Self {
        let daemon = Self { folder: folder() };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/libvirt");
        let state = daemon.folder.path().join("libvirt");
        run(script.to_str().unwrap(), &["start", state.to_str().unwrap(), name, address]);
        daemon
    }

    fn control(&self, command: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/libvirt");
        let state = self.folder.path().join("libvirt");
        run(script.to_str().unwrap(), &[command, &[state.to_str().unwrap()]].concat())
    }

    pub(super) fn options(&self) -> LibvirtOptions {
        options(self.control(&["uri"]).trim().to_owned(), self.instances())
    }

    fn instances(&self) -> PathBuf {
        self.folder.path().join("instances")
    }

    fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("libvirt/run/libvirtd.pid")).unwrap();
        run("kill", &[signal, pid.trim()]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.control(&["stop", "--guests"]);
    }
}

/// Waits until libvirt answers.
async fn answers(hypervisor: &LibvirtHypervisor) {
    let come = async {
        while hypervisor.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, come).await.unwrap();
}

/// Killed and started again, libvirt is used again, knows its guests and tells of them. They did not notice.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn the_daemon_may_die_and_come_back() {
    let _room = ROOM.acquire().await.unwrap();
    let daemon = Daemon::start();
    let hypervisor = LibvirtHypervisor::new(daemon.options()).unwrap();
    let mut events = hypervisor.events();
    let guest = guest_spec(0x301);
    hypervisor.spawn(&guest).await.unwrap();
    let pid = qemu_pid(guest.instance);

    for end in ["kill", "stop"] {
        match end {
            "kill" => daemon.signal("-9"),
            _ => drop(daemon.control(&["stop"])),
        }
        daemon.control(&["start"]);
        answers(&hypervisor).await;
        let info = hypervisor.info(guest.instance).await.unwrap();
        assert_eq!((info.power_state, info.epoch), (PowerState::Running, 1));
        assert_eq!(hypervisor.list().await.unwrap(), [info]);
        assert_eq!(qemu_pid(guest.instance), pid, "the same process");
    }
    hypervisor.power_off(guest.instance, None).await.unwrap();
    wait_for(&mut events, guest.instance, GuestEventKind::Stopped).await;
    hypervisor.destroy(guest.instance).await.unwrap();
    assert!(hypervisor.list().await.unwrap().is_empty());
}

/// Without a daemon, every call says so, and none leaves anything behind. The driver may be there before the daemon.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn without_a_daemon_everything_is_unavailable() {
    let _room = ROOM.acquire().await.unwrap();
    let daemon = Daemon::start();
    daemon.control(&["stop"]);
    let connect_wait = Duration::from_millis(1);
    let hypervisor = LibvirtHypervisor::new(LibvirtOptions { connect_wait, ..daemon.options() }).unwrap();
    let guest = guest_spec(0x302);
    for error in [
        hypervisor.ping().await.unwrap_err(),
        hypervisor.list().await.unwrap_err(),
        hypervisor.spawn(&guest).await.unwrap_err(),
        hypervisor.destroy(guest.instance).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(!daemon.instances().exists());
    daemon.control(&["start"]);
    answers(&hypervisor).await;
    hypervisor.spawn(&guest).await.unwrap();
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// A daemon that hangs holds up the calls that are on their way to it, and no others: once they hold all threads, new
/// ones are refused at once. When it goes on, so does everything.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_daemon_that_hangs_stalls_nobody() {
    let _room = ROOM.acquire().await.unwrap();
    let daemon = Daemon::start();
    let options = LibvirtOptions {
        threads: 2,
        hung_after: Duration::from_millis(100),
        operation_limit: Duration::from_secs(1),
        connect_wait: Duration::from_secs(1),
        ..daemon.options()
    };
    let hypervisor = LibvirtHypervisor::new(options).unwrap();
    answers(&hypervisor).await;

    daemon.signal("-STOP");
    let (one, two) = tokio::join!(hypervisor.ping(), hypervisor.ping());
    for hung in [one, two] {
        assert_eq!(hung.unwrap_err().kind(), ErrorKind::TimedOut);
    }
    assert_eq!(hypervisor.ping().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(hypervisor.list().await.unwrap_err().kind(), ErrorKind::Unavailable);

    daemon.signal("-CONT");
    answers(&hypervisor).await;
    assert!(hypervisor.list().await.unwrap().is_empty());
}
