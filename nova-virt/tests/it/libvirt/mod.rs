//! The libvirt driver, on a real libvirt whose URI is in `NOVA_TEST_LIBVIRT_URI`.
//!
//! The tests share that libvirt: each makes guests of its own numbers, and removes them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_virt::{GuestEvent, GuestEventKind, LibvirtHypervisor, LibvirtOptions};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::sync::{Semaphore, SemaphorePermit};

mod boot;
mod daemon;
mod disks;
mod guests;
mod hardware;
mod life;
mod migration;
mod places;
mod screens;
mod serial;
mod volumes;

/// How many guests may be made at once; each takes a good part of a processor.
static ROOM: Semaphore = Semaphore::const_new(2);

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(120);

fn uri() -> String {
    std::env::var("NOVA_TEST_LIBVIRT_URI").expect("NOVA_TEST_LIBVIRT_URI names a libvirt to test with")
}

fn options(uri: String, folder: impl Into<PathBuf>) -> LibvirtOptions {
    let soft_reboot_wait = Duration::from_secs(2);
    LibvirtOptions { soft_reboot_wait, ..LibvirtOptions::new(uri, folder) }
}

/// A driver, and what must be kept as long as it: the folder of its guests, and its part of the room.
async fn open() -> (LibvirtHypervisor, (TempDir, SemaphorePermit<'static>)) {
    let room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let hypervisor = LibvirtHypervisor::new(options(uri(), folder.path())).unwrap();
    (hypervisor, (folder, room))
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("nova-virt-").tempdir().unwrap()
}

/// Runs a program that must succeed, and returns what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    stdout.into_owned()
}

/// The process of a running guest.
fn qemu_pid(instance: InstanceId) -> u32 {
    let needle = instance.to_string();
    let is_it = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("qemu-system") && line.contains(&needle)
    };
    let mut pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(is_it).expect("the guest has a process")
}

async fn wait_for(events: &mut Receiver<GuestEvent>, instance: InstanceId, kind: GuestEventKind) {
    let wanted = GuestEvent { instance, kind };
    let come = async { while events.recv().await.unwrap() != wanted {} };
    tokio::time::timeout(PATIENCE, come).await.unwrap_or_else(|_| panic!("{wanted:?} never came"));
}

mod contract {
    nova_virt::hypervisor_conformance!(super::open(), ignore = "needs NOVA_TEST_LIBVIRT_URI");
}
