//! A guest with an operating system, from the image in `NOVA_TEST_GUEST_IMAGE`.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_virt::testing::guest_spec;
use nova_virt::{
    ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, GuestSpec, Hypervisor, InterfaceSpec, LibvirtHypervisor,
    LibvirtOptions, RebootKind,
};

use super::{PATIENCE, ROOM, folder, options, uri};

/// Waits until the guest has written `text` so many times, and returns all that it wrote.
pub(super) async fn console(hypervisor: &LibvirtHypervisor, id: InstanceId, text: &str, times: usize) -> String {
    let mut look = tokio::time::interval(Duration::from_millis(200));
    let mut log = String::new();
    let written = async {
        while log.matches(text).count() < times {
            look.tick().await;
            log = String::from_utf8_lossy(&hypervisor.console_log(id).await.unwrap()).into_owned();
        }
    };
    let come = tokio::time::timeout(PATIENCE, written).await;
    assert!(come.is_ok(), "{text:?} never came {times} times:\n{log}");
    log
}

/// From an image to the login banner: the disk has the flavor's size, the config drive is read, a soft reboot is the
/// guest's own, and what it wrote to its disk is there after it.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn an_image_boots_to_its_login_banner() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let soft_reboot_wait = PATIENCE;
    let hypervisor =
        LibvirtHypervisor::new(LibvirtOptions { soft_reboot_wait, ..options(uri(), folder.path()) }).unwrap();
    let source = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    let base = guest_spec(0x401);
    let meta_data = format!(r#"{{"uuid": "{}", "hostname": "booted.example"}}"#, base.instance);
    let user_data = "#!/bin/sh\necho \"user data ran on $(hostname)\"\n";
    let files = [
        ("openstack/latest/meta_data.json".to_owned(), meta_data.into_bytes()),
        ("openstack/latest/user_data".to_owned(), user_data.into()),
    ];
    let guest = GuestSpec {
        memory_mb: 192,
        disks: vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }],
        config_drive: Some(ConfigDrive { files: files.into() }),
        ..base
    };
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();

    let log = console(&hypervisor, id, "login:", 1).await;
    assert!(log.contains("metadata source=config-drive"), "{log}");
    assert!(log.contains(&format!("uuid={id} hostname=booted.example")), "{log}");
    assert!(log.contains("user data ran on booted"), "{log}");
    assert!(log.contains("disk vda bytes=1073741824"), "{log}");
    assert!(log.contains("boots=1"), "{log}");

    // A guest that listens lets an interface go.
    let nic = InterfaceSpec {
        mac_address: "fa:16:3e:04:01:01".into(),
        bridge: None,
        tap_name: "tapvirt401-1".into(),
        mtu: None,
    };
    for _ in 0..2 {
        hypervisor.attach_interface(id, &nic).await.unwrap();
        assert_eq!(hypervisor.interfaces(id).await.unwrap(), [nic.mac_address.as_str()]);
        hypervisor.detach_interface(id, &nic.mac_address).await.unwrap();
        assert!(hypervisor.interfaces(id).await.unwrap().is_empty());
    }

    hypervisor.reboot(id, RebootKind::Soft).await.unwrap();
    let log = console(&hypervisor, id, "boots=2", 1).await;
    assert!(log.contains("power button"), "it was asked, and listened:\n{log}");
    hypervisor.destroy(id).await.unwrap();
    assert!(!folder.path().join(id.to_string()).exists());
}
