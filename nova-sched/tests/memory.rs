//! How much memory a host takes in the table.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use nova_sched::{Dimensions, HostInventory, HostTable, SchedulerOptions, by_name};

/// Counts what is allocated and not yet given back.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator can't be written without; it forwards to the system's")]
// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The one test of this program, so that nothing else allocates meanwhile.
#[test]
fn a_host_takes_two_hundred_bytes() {
    const HOSTS: usize = 20_000;
    let before = IN_USE.load(Ordering::Relaxed);
    let mut table = HostTable::new(Dimensions::new(["vcpus", "memory_mb", "disk_gb"]).unwrap());
    let least_load = by_name("least_load", &SchedulerOptions::default()).unwrap();
    least_load.register(&mut table).unwrap();
    for number in 0..HOSTS {
        let zone = format!("zone-{}", number % 3);
        let mut host = HostInventory::new(format!("compute-{number:07}"), zone, [64, 262_144, 4_000].into());
        host.architectures = vec!["x86_64".to_owned()];
        host.traits = vec!["ssd".to_owned()];
        table.upsert_host(host).unwrap();
    }
    let per_host = (IN_USE.load(Ordering::Relaxed) - before) / HOSTS;
    for number in 0..HOSTS {
        let mut host = table.host(&format!("compute-{number:07}")).unwrap().inventory();
        host.ip = Some(IpAddr::from([10, 0, (number / 256) as u8, number as u8]));
        table.upsert_host(host).unwrap();
        table.heartbeat(&format!("compute-{number:07}"), 1_000).unwrap();
    }
    let alive = (IN_USE.load(Ordering::Relaxed) - before) / HOSTS;
    for number in 0..HOSTS {
        for instance in 0..4 {
            let consumer = (number * 4 + instance) as u128;
            table.allocate(&format!("compute-{number:07}"), consumer, &[2, 2_048, 20].into()).unwrap();
        }
    }
    let with_instances = (IN_USE.load(Ordering::Relaxed) - before) / HOSTS;
    println!("{per_host} bytes per host, {alive} with address and heartbeat, {with_instances} with 4 instances beside");
    assert!((50..=200).contains(&per_host), "{per_host} bytes per host");
    assert!(alive <= 300, "{alive} bytes per host with an address and a heartbeat");
    assert!(with_instances <= 640, "{with_instances} bytes per host with 4 instances");
}
