//! What only a hypervisor with files and neighbours can do.

use std::time::Duration;

use nova_core::state::PowerState;
use nova_core::topology::{PlacedCell, Placement};
use nova_virt::testing::{guest_spec, instance_id};
use nova_virt::{
    DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, GuestEventKind, GuestSpec, Hypervisor, InterfaceSpec,
    LibvirtHypervisor, LibvirtOptions, RebootKind,
};

use super::{folder, open, options, qemu_pid, run, uri, wait_for};

/// The driver and its process are gone; the guest runs on, and the next driver finds it as it was.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_new_driver_finds_the_guests_of_the_old_one() {
    let folder = folder();
    let guest = GuestSpec { epoch: 7, ..guest_spec(0x201) };
    let first = LibvirtHypervisor::new(options(uri(), folder.path())).unwrap();
    first.destroy(guest.instance).await.unwrap();
    first.spawn(&guest).await.unwrap();
    let (before, pid) = (first.info(guest.instance).await.unwrap(), qemu_pid(guest.instance));
    drop(first);

    let second = LibvirtHypervisor::new(options(uri(), folder.path())).unwrap();
    assert!(second.list().await.unwrap().contains(&before));
    assert_eq!(qemu_pid(guest.instance), pid, "the same process");
    let late = second.spawn(&guest_spec(0x201)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Stale);
    second.destroy(guest.instance).await.unwrap();
}

/// Files without a domain are listed, and `destroy` removes them.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_folder_without_a_domain_is_a_trace() {
    let (hypervisor, (folder, _room)) = open().await;
    let id = instance_id(0x202);
    let left = folder.path().join(id.to_string());
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("disk"), b"left over").unwrap();
    let listed = hypervisor.list().await.unwrap();
    let trace = listed.iter().find(|guest| guest.instance == id).unwrap();
    assert_eq!((trace.power_state, trace.epoch), (PowerState::NoState, 0));
    assert_eq!(hypervisor.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    hypervisor.destroy(id).await.unwrap();
    assert!(!left.exists());
}

/// A domain that others made is neither shown nor touched, whatever its UUID.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_domain_of_others_is_left_alone() {
    let (hypervisor, (folder, _room)) = open().await;
    let id = instance_id(0x203);
    let xml = format!(
        "<domain type='qemu'><uuid>{id}</uuid><name>of-others</name><memory>65536</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
    );
    let file = folder.path().join("others.xml");
    std::fs::write(&file, xml).unwrap();
    run("virsh", &["-c", &uri(), "define", file.to_str().unwrap()]);

    assert!(!hypervisor.list().await.unwrap().iter().any(|guest| guest.instance == id));
    assert_eq!(hypervisor.info(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(hypervisor.power_on(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(hypervisor.spawn(&guest_spec(0x203)).await.unwrap_err().kind(), ErrorKind::Failed);
    hypervisor.destroy(id).await.unwrap();
    run("virsh", &["-c", &uri(), "undefine", &id.to_string()]);
}

/// A name that another domain has makes the spawn fail, and nothing of it is left.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_failed_spawn_leaves_nothing() {
    let (hypervisor, (folder, _room)) = open().await;
    let first = GuestSpec { running: false, ..guest_spec(0x204) };
    hypervisor.destroy(first.instance).await.unwrap();
    hypervisor.spawn(&first).await.unwrap();
    let second = GuestSpec { name: first.name.clone(), ..guest_spec(0x205) };
    assert_eq!(hypervisor.spawn(&second).await.unwrap_err().kind(), ErrorKind::Failed);

    let no_base = DiskSource::Image { base: "/no/such/image".into(), format: DiskFormat::Qcow2 };
    let disks = vec![DiskSpec { role: DiskRole::Root, source: no_base, size_gb: 1 }];
    let third = GuestSpec { disks, ..guest_spec(0x206) };
    assert_eq!(hypervisor.spawn(&third).await.unwrap_err().kind(), ErrorKind::Failed);

    // Defined and refused at the start: no processor of such a size is made here.
    let fourth = GuestSpec { memory_mb: 1 << 30, ..guest_spec(0x207) };
    assert_eq!(hypervisor.spawn(&fourth).await.unwrap_err().kind(), ErrorKind::Failed);

    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [first.instance.to_string().as_str()]);
    for id in [second.instance, third.instance, fourth.instance] {
        assert!(!hypervisor.list().await.unwrap().iter().any(|guest| guest.instance == id));
    }
    hypervisor.destroy(first.instance).await.unwrap();
}

/// An image that refers to another file would give the guest that file: it is refused.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn an_image_that_refers_to_other_files_is_refused() {
    let (hypervisor, (folder, _room)) = open().await;
    let base = folder.path().join("image.qcow2");
    let args = ["create", "-q", "-f", "qcow2", "-u", "-F", "raw", "-b", "/etc/shadow"];
    run("qemu-img", &[&args[..], &[base.to_str().unwrap(), "1M"]].concat());
    let source = DiskSource::Image { base, format: DiskFormat::Qcow2 };
    let disks = vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }];
    let guest = GuestSpec { disks, ..guest_spec(0x208) };
    let error = hypervisor.spawn(&guest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(!folder.path().join(guest.instance.to_string()).exists());
}

/// A guest whose process is killed has crashed: told as an event, shown by `info`, and mended by `power_on`.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_killed_process_is_a_crash() {
    let (hypervisor, _kept) = open().await;
    let guest = guest_spec(0x209);
    hypervisor.destroy(guest.instance).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let mut events = hypervisor.events();
    run("kill", &["-9", &qemu_pid(guest.instance).to_string()]);
    wait_for(&mut events, guest.instance, GuestEventKind::Crashed).await;
    let info = hypervisor.info(guest.instance).await.unwrap();
    assert_eq!(info.power_state, PowerState::Crashed);
    hypervisor.power_on(guest.instance).await.unwrap();
    assert_eq!(hypervisor.info(guest.instance).await.unwrap().power_state, PowerState::Running);
    hypervisor.destroy(guest.instance).await.unwrap();
}

/// A guest with a CPU of its own runs on that CPU, and QEMU's other threads with it.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_pinned_guest_runs_on_its_cpu() {
    let (hypervisor, _keep) = open().await;
    let has = hypervisor.resources().await.unwrap();
    let cell = has.cells.last().unwrap();
    assert!(cell.memory_mb > 0 && has.traits.contains("HW_CPU_X86_SSE2"), "{cell:?} {:?}", has.traits);
    let cpu = *cell.shared_cpus.last().unwrap();
    let placed = PlacedCell {
        host_cell: cell.id,
        cpus: [0].into(),
        pins: [(0, cpu)].into(),
        memory_mb: 64,
        ..PlacedCell::default()
    };
    let guest = GuestSpec { placement: Some(Placement { cells: vec![placed] }), ..guest_spec(0x20a) };
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    assert_eq!(hypervisor.info(id).await.unwrap().power_state, PowerState::Running);
    let threads = std::fs::read_dir(format!("/proc/{}/task", qemu_pid(id))).unwrap();
    for thread in threads {
        // A thread may end while it is looked at.
        let Ok(status) = std::fs::read_to_string(thread.unwrap().path().join("status")) else { continue };
        let allowed =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
        assert_eq!(allowed, cpu.to_string(), "{status}");
    }
    let xml = run("virsh", &["-c", &uri(), "dumpxml", &id.to_string()]);
    assert!(xml.contains(&format!("<vcpupin vcpu='0' cpuset='{cpu}'/>")), "{xml}");
    hypervisor.destroy(id).await.unwrap();
}

/// A running guest without an operating system lets nothing go: its owner is told, and it is gone with the next start.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn an_interface_that_is_not_let_go_goes_with_the_next_start() {
    let (_, (folder, _room)) = open().await;
    let detach_wait = Duration::from_secs(1);
    let hypervisor = LibvirtHypervisor::new(LibvirtOptions { detach_wait, ..options(uri(), folder.path()) }).unwrap();
    let guest = guest_spec(0x210);
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let nic = InterfaceSpec {
        mac_address: "fa:16:3e:02:10:01".into(),
        bridge: None,
        tap_name: "tapvirt210-1".into(),
        mtu: None,
    };
    hypervisor.attach_interface(id, &nic).await.unwrap();
    for _ in 0..2 {
        let error = hypervisor.detach_interface(id, &nic.mac_address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    }
    assert_eq!(hypervisor.interfaces(id).await.unwrap(), [nic.mac_address.as_str()]);
    hypervisor.reboot(id, RebootKind::Hard).await.unwrap();
    assert!(hypervisor.interfaces(id).await.unwrap().is_empty());
    hypervisor.detach_interface(id, &nic.mac_address).await.unwrap();
    hypervisor.destroy(id).await.unwrap();
}
