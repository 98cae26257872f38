//! A guest's serial port and its log: one device. From the image in `NOVA_TEST_GUEST_IMAGE`.

use std::time::{Duration, Instant};

use nova_core::ids::InstanceId;
use nova_virt::testing::guest_spec;
use nova_virt::{
    ConfigDrive, DiskFormat, DiskRole, DiskSource, DiskSpec, GuestSpec, Hypervisor, LibvirtHypervisor, RebootKind,
    SerialPort,
};

use super::boot::console;
use super::{PATIENCE, open};

/// virtlogd continues a log in a new file after so many bytes (`max_size` of virtlogd.conf).
const LOG_FILE: usize = 2 << 20;

/// Reads until the port has shown that text.
pub(super) async fn shown(port: &mut SerialPort, text: &str) -> String {
    let mut seen = String::new();
    let come = async {
        while !seen.contains(text) {
            let piece = port.output.recv().await.expect("the port is open");
            seen.push_str(&String::from_utf8_lossy(&piece));
        }
    };
    let come = tokio::time::timeout(PATIENCE, come).await;
    assert!(come.is_ok(), "{text:?} never came: {seen}");
    seen
}

/// What is typed is in the log as the guest repeats it, and what the guest says is on the port.
pub(super) async fn typed_is_logged(hypervisor: &LibvirtHypervisor, id: InstanceId, word: &str) {
    let mut port = hypervisor.open_serial(id).await.unwrap();
    port.input.send(b"\n".to_vec()).await.unwrap();
    shown(&mut port, "login:").await;
    // A name: the guest's terminal repeats it, and asks for a password.
    port.input.send(format!("{word}\n").into_bytes()).await.unwrap();
    shown(&mut port, word).await;
    shown(&mut port, "Password:").await;
    console(hypervisor, id, word, 1).await;
}

/// While somebody looks at a port on which nothing is said, everything else is answered as ever.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn an_open_port_holds_nobody_up() {
    let (hypervisor, _kept) = open().await;
    let guest = guest_spec(0x411);
    hypervisor.destroy(guest.instance).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let mut ports = Vec::new();
    for _ in 0..3 {
        // Each takes it from the one before.
        ports.push(hypervisor.open_serial(guest.instance).await.unwrap());
        for _ in 0..10 {
            let began = Instant::now();
            hypervisor.info(guest.instance).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
    let last = ports.pop().unwrap();
    let taken_over = async { while ports[0].output.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, taken_over).await.unwrap();
    for _ in 0..20 {
        last.input.send(b"x".to_vec()).await.unwrap();
    }
    drop((last, ports));
    let began = Instant::now();
    hypervisor.destroy(guest.instance).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// The log is the port's, is continued in new files, and outlasts reboots.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn the_log_of_the_serial_port_is_continued_in_new_files() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let (hypervisor, (folder, _room)) = open().await;
    let base = guest_spec(0x410);
    let id = base.instance;
    let kib = LOG_FILE / 1024 + 300;
    let user_data = format!(
        "#!/bin/sh\n[ -e /dev/shm/done ] || (touch /dev/shm/done; dd if=/dev/zero bs=1024 count={kib} | tr '\\0' x; \
         echo; echo all-of-$((6*7))-said) >/dev/ttyS0 2>/dev/null\n"
    );
    let meta_data = format!(r#"{{"uuid": "{id}", "hostname": "talks"}}"#);
    let files = [
        ("openstack/latest/meta_data.json".to_owned(), meta_data.into_bytes()),
        ("openstack/latest/user_data".to_owned(), user_data.into_bytes()),
    ];
    let source = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    let guest = GuestSpec {
        memory_mb: 192,
        disks: vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }],
        config_drive: Some(ConfigDrive { files: files.into() }),
        ..base
    };
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let log = console(&hypervisor, id, "all-of-42-said", 1).await;
    assert_eq!(log.len(), 1 << 20, "bounded");
    let own = folder.path().join(id.to_string());
    let size = |name: &str| std::fs::metadata(own.join(name)).map(|file| file.len()).unwrap_or_default();
    assert!(size("console.log.0") as usize > LOG_FILE / 2, "the first file");
    assert!((size("console.log") as usize) < LOG_FILE, "the one that goes on");
    typed_is_logged(&hypervisor, id, "somebody").await;
    hypervisor.reboot(id, RebootKind::Hard).await.unwrap();
    let log = tokio::time::timeout(Duration::from_secs(30), hypervisor.console_log(id)).await.unwrap().unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("somebody") && log.contains("all-of-42-said"), "what was said before is there");
    hypervisor.destroy(id).await.unwrap();
    assert!(!own.exists(), "and goes with the guest");
}
