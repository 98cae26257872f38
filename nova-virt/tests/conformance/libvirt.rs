//! The libvirt driver, on a real libvirt whose URI is in `NOVA_TEST_LIBVIRT_URI`.
//!
//! The tests share that libvirt: each makes guests of its own numbers, and removes them.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use nova_virt::{LibvirtHypervisor, LibvirtOptions};

/// How many guests may be made at once; each takes a good part of a processor.
static ROOM: Semaphore = Semaphore::const_new(2);

pub fn uri() -> String {
    std::env::var("NOVA_TEST_LIBVIRT_URI").expect("NOVA_TEST_LIBVIRT_URI names a libvirt to test with")
}

pub fn options(folder: impl Into<PathBuf>) -> LibvirtOptions {
    let soft_reboot_wait = Duration::from_secs(2);
    LibvirtOptions { soft_reboot_wait, ..LibvirtOptions::new(uri(), folder) }
}

/// A driver, and what must be kept as long as it: the folder of its guests, and its part of the room.
async fn open() -> (LibvirtHypervisor, (TempDir, SemaphorePermit<'static>)) {
    let room = ROOM.acquire().await.unwrap();
    let folder = tempfile::Builder::new().prefix("nova-virt-").tempdir().unwrap();
    let hypervisor = LibvirtHypervisor::new(options(folder.path())).unwrap();
    (hypervisor, (folder, room))
}

mod contract {
    nova_virt::hypervisor_conformance!(super::open(), ignore = "needs NOVA_TEST_LIBVIRT_URI");
}
