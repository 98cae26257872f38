//! What is done to a guest that lives, as its own console shows it. From the image in `NOVA_TEST_GUEST_IMAGE`.

use nova_core::state::PowerState;
use nova_virt::testing::guest_spec;
use nova_virt::{
    DiskFormat, DiskRole, DiskSource, DiskSpec, ExportRequest, GuestSpec, Hypervisor, Quiesce, RescueSpec,
    SnapshotRequest, StableRescue,
};

use super::boot::console;
use super::{PATIENCE, open, run};

/// One guest through its life: password, live copy, rebuild, a move by copy with a larger disk, rescue.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn a_guest_lives_through_all_of_it() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let (hypervisor, (folder, _room)) = open().await;
    let base = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    let root = |source: &DiskSource, size_gb| vec![DiskSpec { role: DiskRole::Root, source: source.clone(), size_gb }];
    let mut guest = GuestSpec { memory_mb: 192, disks: root(&base, 1), ..guest_spec(0x530) };
    guest.hardware.image_properties.insert("hw_qemu_guest_agent".into(), "yes".into());
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    console(&hypervisor, id, "boots=1", 1).await;
    console(&hypervisor, id, "boot finished", 1).await;
    hypervisor.set_admin_password(id, Some("nova"), "n3w").await.unwrap();

    // A copy of the running guest's disk boots as its second start, and the guest has not noticed.
    let copy = SnapshotRequest {
        destination: folder.path().join("copy.qcow2"),
        format: DiskFormat::Qcow2,
        quiesce: Quiesce::Required,
    };
    hypervisor.snapshot(id, &copy).await.unwrap();
    assert_eq!(hypervisor.info(id).await.unwrap().power_state, PowerState::Running);
    // Its file systems stand still for as long as they shall, also if that is said twice.
    for _ in 0..2 {
        hypervisor.quiesce(id, Quiesce::Required).await.unwrap();
    }
    assert!(hypervisor.unquiesce(id).await.unwrap());
    assert!(!hypervisor.unquiesce(id).await.unwrap(), "they went on");
    hypervisor.power_off(id, Some(PATIENCE)).await.unwrap();

    // Moved by a copy of its disk to a guest with a larger one.
    let destination = folder.path().join("moved.qcow2");
    let export =
        ExportRequest { role: DiskRole::Root, index: 0, destination: destination.clone(), format: DiskFormat::Qcow2 };
    hypervisor.stash(id, 2).await.unwrap();
    hypervisor.export_disk(id, &export).await.unwrap();
    let file = DiskSource::File { path: destination, format: DiskFormat::Qcow2 };
    hypervisor.spawn(&GuestSpec { epoch: 3, disks: root(&file, 2), ..guest.clone() }).await.unwrap();
    hypervisor.drop_stash(id).await.unwrap();
    let log = console(&hypervisor, id, "boot finished", 1).await;
    assert!(log.contains("boots=2") && log.contains("disk vda bytes=2147483648"), "{log}");

    // Rebuilt from the live copy: the second start of that disk, whatever the guest has done since.
    let image = DiskSource::Image { base: copy.destination.clone(), format: DiskFormat::Qcow2 };
    let rebuilt = GuestSpec { epoch: 4, disks: root(&image, 1), ..guest.clone() };
    hypervisor.rebuild(&rebuilt, false).await.unwrap();
    let log = console(&hypervisor, id, "boot finished", 2).await;
    assert_eq!(log.matches("boots=2").count(), 2, "{log}");

    // In rescue it has another root disk, and its own beside it.
    let rescue = RescueSpec { image: base, stable: None, config_drive: None };
    hypervisor.rescue(id, &rescue).await.unwrap();
    let log = console(&hypervisor, id, "boot finished", 3).await;
    let rescued = log.rsplit("guest: up").next().unwrap();
    assert!(rescued.contains("disk vda bytes=67108864") && rescued.contains("disk vdb bytes=1073741824"), "{rescued}");
    hypervisor.unrescue(id).await.unwrap();
    let log = console(&hypervisor, id, "boot finished", 4).await;
    let back = log.rsplit("guest: up").next().unwrap();
    assert!(back.contains("disk vda bytes=1073741824") && !back.contains("disk vdb"), "{back}");

    // In a stable one it has the rescue disk where the image asks for it, and boots from that: its own can't be booted any more.
    hypervisor.power_off(id, None).await.unwrap();
    let own = folder.path().join(id.to_string()).join("disk");
    run("qemu-io", &["-f", "qcow2", "-c", "write -P 0 0 512", own.to_str().unwrap()]);
    let asked = StableRescue { device: Some("disk".into()), bus: Some("scsi".into()) };
    hypervisor.rescue(id, &RescueSpec { stable: Some(asked), ..rescue.clone() }).await.unwrap();
    let log = console(&hypervisor, id, "boot finished", 5).await;
    let rescued = log.rsplit("guest: up").next().unwrap();
    assert!(rescued.contains("disk vda bytes=1073741824") && rescued.contains("disk sda bytes=67108864"), "{rescued}");
    assert!(!rescued.contains("disk vdb"), "{rescued}");
    let floppy = StableRescue { device: Some("floppy".into()), bus: None };
    let refused = hypervisor.rescue(id, &RescueSpec { stable: Some(floppy), ..rescue }).await.unwrap_err();
    assert!(refused.to_string().starts_with("hw_rescue_device"), "{refused}");
    assert_eq!(hypervisor.info(id).await.unwrap().power_state, PowerState::Running);
    hypervisor.destroy(id).await.unwrap();
}
