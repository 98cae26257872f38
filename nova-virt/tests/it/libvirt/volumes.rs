//! Volumes that a storage daemon serves, in guests that run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::PowerState;
use nova_core::volume::connection::{
    AccessMode, ChapMethod, ChapSecret, ConnectionInfo, ConnectionTarget, FileFormat, FileTarget, IscsiTarget,
    NbdTarget, NbdTls,
};
use nova_virt::testing::guest_spec;
use nova_virt::{
    ConfigDrive, DiskAttachment, DiskFormat, DiskRole, DiskSource, DiskSpec, ErrorKind, GuestSpec, Hypervisor,
    LibvirtHypervisor, LibvirtOptions,
};

use super::boot::console;
use super::{PATIENCE, ROOM, folder, open, options, run, uri};

/// A port that nobody has at this moment, and that the kernel gives to nobody who connects somewhere.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 400).unwrap() * 10;
    let mut ports = (0..4000).map(|_| 61_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 4000);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// A storage daemon started by hand, with one export of one raw file.
pub(super) struct Server {
    folder: PathBuf,
    volume: VolumeId,
    port: u16,
}

impl Server {
    pub(super) fn new(folder: &Path, number: u32) -> Self {
        let volume = id_of(number);
        let file = std::fs::File::create(folder.join(format!("volume-{volume}"))).unwrap();
        file.set_len(128 << 20).unwrap();
        let port = free_port();
        let server = Self { folder: folder.to_owned(), volume, port };
        server.start(&volume.to_string());
        server
    }

    /// One that has data, of which nobody reads more than a part in a second: to copy it takes ten.
    fn slow(folder: &Path, number: u32) -> Self {
        let server = Self::new(folder, number);
        server.kill();
        let file = std::fs::OpenOptions::new().write(true).open(folder.join(format!("volume-{}", server.volume)));
        std::io::Write::write_all(&mut file.unwrap(), &vec![b'x'; 20 << 20]).unwrap();
        server.start_as(&server.volume.to_string(), true);
        server
    }

    /// Says of its export that it is the volume of that id.
    fn start(&self, description: &str) {
        self.start_as(description, false);
    }

    fn start_as(&self, description: &str, slow: bool) {
        let file = self.folder.join(format!("volume-{}", self.volume));
        let (above, below) = if slow { ("driver=throttle,throttle-group=slow,", "file.") } else { ("", "") };
        let place = format!("{below}file.driver=file,{below}file.filename={},{below}file.locking=off", file.display());
        let blockdev = format!("node-name=v,{above}{below}driver=raw,{place}");
        let limit = ["--object", "throttle-group,id=slow,limits.bps-read=2097152"];
        let server = format!("addr.type=inet,addr.host=127.0.0.1,addr.port={},max-connections=0", self.port);
        let export = format!("type=nbd,id=e,node-name=v,name=attachment-1,description={description},writable=on");
        let pid_file = self.pid_file();
        let args = ["--blockdev", &blockdev, "--nbd-server", &server, "--export", &export, "--pidfile"];
        run("qemu-storage-daemon", &[&limit, &args[..], &[pid_file.to_str().unwrap(), "--daemonize"]].concat());
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join(format!("{}.pid", self.volume))
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.pid_file()).unwrap();
        run("kill", &["-9", pid.trim()]);
        let gone = || !std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty());
        while !gone() {
            std::thread::yield_now();
        }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.folder.join(format!("volume-{}", self.volume))
    }

    pub(super) fn attachment(&self) -> DiskAttachment {
        let target = NbdTarget { host: "127.0.0.1".into(), port: self.port, export: "attachment-1".into(), tls: None };
        let (access_mode, target) = (AccessMode::ReadWrite, ConnectionTarget::Nbd(target));
        DiskAttachment::new(ConnectionInfo { volume_id: self.volume, access_mode, target })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.pid_file()) {
            let _ = std::process::Command::new("kill").args(["-9", pid.trim()]).output();
        }
    }
}

fn id_of(number: u32) -> VolumeId {
    format!("{number:08x}-0000-4000-8000-000000000001").parse().unwrap()
}

/// A port and a name that lead to another volume by now bring no guest to it, neither at the attachment nor at a start
/// (OSSA-2023-003).
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn another_volume_behind_the_same_export_is_refused() {
    let (hypervisor, (folder, _room)) = open().await;
    let server = Server::new(folder.path(), 0x5101);
    let guest = guest_spec(0x501);
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    assert_eq!(hypervisor.attach_disk(id, &server.attachment()).await.unwrap(), "vdb");
    hypervisor.power_off(id, None).await.unwrap();
    server.kill();
    server.start(&id_of(0x5102).to_string());
    let error = hypervisor.power_on(id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert_eq!(hypervisor.info(id).await.unwrap().power_state, PowerState::Shutdown);
    hypervisor.detach_disk(id, server.volume).await.unwrap();
    hypervisor.power_on(id).await.unwrap();
    let error = hypervisor.attach_disk(id, &server.attachment()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(hypervisor.attached_disks(id).await.unwrap().is_empty());
    server.kill();
    let error = hypervisor.attach_disk(id, &server.attachment()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    hypervisor.destroy(id).await.unwrap();
}

fn disks(image: &str) -> Vec<DiskSpec> {
    let source = DiskSource::Image { base: image.into(), format: DiskFormat::Qcow2 };
    vec![DiskSpec { role: DiskRole::Root, source, size_gb: 1 }]
}

fn guest_that(number: u32, script: &str) -> GuestSpec {
    let base = guest_spec(number);
    let meta_data = format!(r#"{{"uuid": "{}", "hostname": "v{number:x}.example"}}"#, base.instance);
    let user_data = format!("#!/bin/sh\n( {script} ) >/dev/console 2>&1 &\n");
    let files = [
        ("openstack/latest/meta_data.json".to_owned(), meta_data.into_bytes()),
        ("openstack/latest/user_data".to_owned(), user_data.into_bytes()),
    ];
    GuestSpec { memory_mb: 192, config_drive: Some(ConfigDrive { files: files.into() }), ..base }
}

fn hypervisor(folder: &Path) -> LibvirtHypervisor {
    LibvirtHypervisor::new(LibvirtOptions { detach_wait: PATIENCE, ..options(uri(), folder) }).unwrap()
}

/// What one guest writes, across the death of the storage daemon, the next one reads; and that one boots from a volume.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn a_volume_goes_from_guest_to_guest() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let hypervisor = hypervisor(folder.path());
    let server = Server::new(folder.path(), 0x5201);
    let writes = "while ! [ -b /dev/vdb ]; do sleep 0.2; done; n=0; while [ -b /dev/vdb ]; do n=$((n+1)); \
        echo canary-$n | dd of=/dev/vdb seek=$n bs=4096 conv=fsync,sync 2>/dev/null && echo wrote=$n.; sleep 0.5; done";
    let first = GuestSpec { disks: disks(&image), ..guest_that(0x502, writes) };
    hypervisor.destroy(first.instance).await.unwrap();
    hypervisor.spawn(&first).await.unwrap();
    console(&hypervisor, first.instance, "login:", 1).await;
    assert_eq!(hypervisor.attach_disk(first.instance, &server.attachment()).await.unwrap(), "vdb");
    let log = console(&hypervisor, first.instance, "wrote=", 2).await;
    server.kill();
    server.start(&server.volume.to_string());
    // It stood still until the server was there, and nothing failed.
    let log = console(&hypervisor, first.instance, "wrote=", log.matches("wrote=").count() + 3).await;
    assert!(!log.contains("I/O error"), "{log}");
    assert_eq!(hypervisor.info(first.instance).await.unwrap().power_state, PowerState::Running);
    hypervisor.detach_disk(first.instance, server.volume).await.unwrap();
    assert!(hypervisor.attached_disks(first.instance).await.unwrap().is_empty());
    hypervisor.destroy(first.instance).await.unwrap();

    let root_volume = id_of(0x5202);
    let path = folder.path().join(format!("volume-{root_volume}"));
    run("qemu-img", &["convert", "-q", "-f", "qcow2", "-O", "raw", &image, path.to_str().unwrap()]);
    let target = ConnectionTarget::File(FileTarget { path: path.clone(), format: FileFormat::Raw });
    let (access_mode, volume_id) = (AccessMode::ReadWrite, root_volume);
    let root = DiskAttachment { boot: true, ..DiskAttachment::new(ConnectionInfo { volume_id, access_mode, target }) };
    let reads = "dd if=/dev/vdb skip=1 bs=4096 count=2 2>/dev/null | tr -d '\\0'";
    let second = GuestSpec { disks: Vec::new(), volumes: vec![server.attachment(), root], ..guest_that(0x503, reads) };
    hypervisor.destroy(second.instance).await.unwrap();
    hypervisor.spawn(&second).await.unwrap();
    let log = console(&hypervisor, second.instance, "login:", 1).await;
    assert!(log.contains("canary-1") && log.contains("canary-2"), "{log}");
    let serial = &server.volume.to_string()[..20];
    assert!(log.contains(&format!("disk vdb bytes={} serial={serial}", 128 << 20)), "{log}");
    // The guest sees a file that grows; of an export it learns at its next start.
    hypervisor.extend_disk(second.instance, root_volume, 256 << 20).await.unwrap();
    console(&hypervisor, second.instance, &format!("hotplug new block vda bytes={}", 256 << 20), 1).await;
    let error = hypervisor.extend_disk(second.instance, server.volume, 256 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    hypervisor.destroy(second.instance).await.unwrap();
    assert!(path.exists());
}

/// A guest with a volume, and another one.
async fn with_two(hypervisor: &LibvirtHypervisor, folder: &Path, number: u32) -> (InstanceId, [Server; 2]) {
    let number_of = |one| 0x5600_0000 + 2 * number + one;
    let servers = [Server::slow(folder, number_of(0)), Server::new(folder, number_of(1))];
    let guest = GuestSpec { volumes: vec![servers[0].attachment()], ..guest_spec(number) };
    hypervisor.destroy(guest.instance).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    (guest.instance, servers)
}

fn virsh(args: &[&str]) -> bool {
    let uri = uri();
    let output = std::process::Command::new("virsh").args(["-q", "-c", &uri]).args(args).output().unwrap();
    output.status.success()
}

/// Waits until there is a copy: it can be told how fast it may be.
async fn copies(id: InstanceId) {
    while !virsh(&["blockjob", &id.to_string(), "vdb", "--bandwidth", "1073741824", "--bytes"]) {
        tokio::task::yield_now().await;
    }
}

async fn volumes(hypervisor: &LibvirtHypervisor, id: InstanceId) -> Vec<VolumeId> {
    hypervisor.attached_disks(id).await.unwrap().into_iter().map(|disk| disk.volume).collect()
}

/// QEMU has put the new volume in the old one's place, and whoever asked for it hears an error: it is in the guest all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_swap_whose_answer_is_lost_is_done() {
    let (hypervisor, (folder, _room)) = open().await;
    let (id, [old, new]) = with_two(&hypervisor, folder.path(), 0x507).await;
    let attachment = new.attachment();
    let swapping = hypervisor.swap_disk(id, old.volume, &attachment);
    let pivoted_by_another = async {
        copies(id).await;
        // The driver may be faster: then there is no job any more.
        while !virsh(&["blockjob", &id.to_string(), "vdb", "--pivot"]) {
            if volumes(&hypervisor, id).await == [new.volume] {
                break;
            }
        }
    };
    let (swapped, ()) = tokio::join!(swapping, pivoted_by_another);
    swapped.unwrap();
    assert_eq!(volumes(&hypervisor, id).await, [new.volume]);
    assert!(hypervisor.settle_swap(id, old.volume, new.volume).await.unwrap());
    hypervisor.reboot(id, nova_virt::RebootKind::Hard).await.unwrap();
    assert_eq!(volumes(&hypervisor, id).await, [new.volume]);
    hypervisor.destroy(id).await.unwrap();
}

/// A copy that shall end does, and the guest has what it had; a guest that shall be gone does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI"]
async fn a_swap_is_aborted() {
    let (hypervisor, (folder, _room)) = open().await;
    let (id, [old, new]) = with_two(&hypervisor, folder.path(), 0x508).await;
    for end_of_it in ["abort", "destroy"] {
        let attachment = new.attachment();
        let swapping = hypervisor.swap_disk(id, old.volume, &attachment);
        let ending = async {
            copies(id).await;
            let begun = std::time::Instant::now();
            match end_of_it {
                "abort" => hypervisor.abort_swap(id).await.unwrap(),
                _ => hypervisor.destroy(id).await.unwrap(),
            }
            begun
        };
        let (swapped, begun) = tokio::join!(swapping, ending);
        swapped.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(30), "{end_of_it}: {:?}", begun.elapsed());
        if end_of_it == "abort" {
            assert_eq!(volumes(&hypervisor, id).await, [old.volume]);
            assert!(!hypervisor.settle_swap(id, old.volume, new.volume).await.unwrap());
        }
    }
}

/// A guest stands still while its volume is away, and no longer; one that the volume was away from for too long is left to
/// people.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI and NOVA_TEST_GUEST_IMAGE"]
async fn a_guest_without_its_volume_stands_still_and_goes_on() {
    let image = std::env::var("NOVA_TEST_GUEST_IMAGE").expect("NOVA_TEST_GUEST_IMAGE names an image");
    let _room = ROOM.acquire().await.unwrap();
    let folder = folder();
    let fast = LibvirtOptions { volume_reconnect_delay: Duration::ZERO, ..options(uri(), folder.path()) };
    let hypervisor = LibvirtHypervisor::new(fast).unwrap();
    let server = Server::new(folder.path(), 0x5301);
    let writes = "n=0; while n=$((n+1)); do echo $n | dd of=/dev/vdb bs=4096 conv=fsync,sync 2>/dev/null && echo wrote=$n.; \
        sleep 0.3; done";
    let volumes = vec![server.attachment()];
    let guest = GuestSpec { disks: disks(&image), volumes, ..guest_that(0x504, writes) };
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    console(&hypervisor, id, "wrote=2.", 1).await;
    let mut events = hypervisor.events();
    server.kill();
    super::wait_for(&mut events, id, nova_virt::GuestEventKind::Paused).await;
    let before = String::from_utf8_lossy(&hypervisor.console_log(id).await.unwrap()).matches("wrote=").count();
    server.start(&server.volume.to_string());
    // A write that meets what is left of the old connection makes it stand still once more, which is told once more.
    let let_it_go_on = async {
        loop {
            hypervisor.unpause(id).await.unwrap();
            super::wait_for(&mut events, id, nova_virt::GuestEventKind::Paused).await;
        }
    };
    let log = tokio::select! {
        log = console(&hypervisor, id, "wrote=", before + 2) => log,
        _ = let_it_go_on => unreachable!("it has no end"),
    };
    assert!(!log.contains("I/O error"), "{log}");
    hypervisor.destroy(id).await.unwrap();
}

/// A daemon started by hand that serves one file over iSCSI, with a password.
struct Target {
    folder: PathBuf,
    volume: VolumeId,
    port: u16,
}

const PASSWORD: &str = "canary0123456789";

impl Target {
    fn new(folder: &Path, number: u32) -> Self {
        let volume = id_of(number);
        std::fs::File::create(folder.join("lun")).unwrap().set_len(64 << 20).unwrap();
        let port = free_port();
        let target = Self { folder: folder.to_owned(), volume, port };
        let (portal, pid_file) = (format!("portal=127.0.0.1:{port}"), folder.join("tgtd.pid"));
        let words = ["--control-port", "1", "--iscsi", &portal, "--pid-file", pid_file.to_str().unwrap()];
        assert!(target.program("tgtd").args(words).status().unwrap().success());
        while !target
            .program("tgtadm")
            .args(["-C", "1", "--op", "show", "--mode", "target"])
            .output()
            .unwrap()
            .status
            .success()
        {
            std::thread::yield_now();
        }
        let serial = format!("scsi_sn={}", volume.as_uuid().simple());
        let lun = folder.join("lun");
        for words in [
            &["--op", "new", "--mode", "target", "--tid", "1", "-T", "iqn.2010-10.org.openstack:a"][..],
            &["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", lun.to_str().unwrap()],
            &["--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", &serial],
            &["--op", "new", "--mode", "account", "--user", "u", "--password", PASSWORD],
            &["--op", "bind", "--mode", "account", "--tid", "1", "--user", "u"],
            &["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"],
        ] {
            let told = target.program("tgtadm").args(["-C", "1", "--lld", "iscsi"]).args(words).status();
            assert!(told.unwrap().success(), "{words:?}");
        }
        target
    }

    fn program(&self, program: &str) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.env("TGT_IPC_SOCKET", self.folder.join("tgtd"));
        command
    }

    fn attachment(&self, volume: VolumeId, password: &str) -> DiskAttachment {
        let auth =
            ChapSecret { auth_method: ChapMethod::Chap, auth_username: "u".into(), auth_password: password.into() };
        let target = IscsiTarget {
            target_portal: format!("127.0.0.1:{}", self.port),
            target_iqn: "iqn.2010-10.org.openstack:a".into(),
            target_lun: 1,
            auth: Some(auth),
        };
        let (access_mode, target) = (AccessMode::ReadWrite, ConnectionTarget::Iscsi(target));
        DiskAttachment::new(ConnectionInfo { volume_id: volume, access_mode, target })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.folder.join("tgtd.pid")) {
            let _ = std::process::Command::new("kill").args(["-9", pid.trim()]).output();
        }
    }
}

/// A guest logs in with the password of its volume, which stands in no definition and goes with the volume; another volume
/// behind the same target is refused.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI, tgt and libiscsi-bin"]
async fn a_volume_over_iscsi_has_a_password() {
    let (hypervisor, (folder, _room)) = open().await;
    let target = Target::new(folder.path(), 0x5401);
    let guest = guest_spec(0x505);
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    let other = target.attachment(id_of(0x5402), PASSWORD);
    assert_eq!(hypervisor.attach_disk(id, &other).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let wrong = target.attachment(target.volume, "another-password-1");
    assert_eq!(hypervisor.attach_disk(id, &wrong).await.unwrap_err().kind(), ErrorKind::Failed);
    let secrets = || run("virsh", &["-c", &uri(), "secret-list"]).contains(&target.volume.to_string());
    assert!(!secrets());
    let volume = target.attachment(target.volume, PASSWORD);
    for _ in 0..2 {
        assert_eq!(hypervisor.attach_disk(id, &volume).await.unwrap(), "vdb");
    }
    assert!(secrets());
    let xml = run("virsh", &["-c", &uri(), "dumpxml", "--security-info", &id.to_string()]);
    assert!(xml.contains("protocol='iscsi'") && !xml.contains("canary"), "{xml}");
    hypervisor.reboot(id, nova_virt::RebootKind::Hard).await.unwrap();
    assert_eq!(hypervisor.attached_disks(id).await.unwrap().len(), 1);
    hypervisor.power_off(id, None).await.unwrap();
    hypervisor.detach_disk(id, target.volume).await.unwrap();
    assert!(!secrets(), "the password is still there");
    let guest = GuestSpec { epoch: 2, volumes: vec![volume], ..guest };
    hypervisor.spawn(&guest).await.unwrap();
    assert!(secrets());
    hypervisor.destroy(id).await.unwrap();
    assert!(!secrets(), "the password outlived the guest");
}

/// An authority, a server's certificate, and this host's one where libvirt looks for it.
fn certificates(folder: &Path, host: &Path) {
    let script = r#"
set -e
new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@"; }
cd "$1"
new -x509 -keyout ca-key.pem -out ca-cert.pem -days 2 -subj '/CN=test' -addext keyUsage=critical,keyCertSign
sign() { # KIND NAME USAGE FOLDER
  printf 'extendedKeyUsage=%s\nsubjectAltName=DNS:%s\n' "$3" "$2" >rules
  new -keyout "$4/$1-key.pem" -out request -subj "/CN=$2"
  openssl x509 -req -in request -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile rules -out "$4/$1-cert.pem"
}
sign server volumes1 serverAuth .
sign client compute1 clientAuth "$2"
cp ca-cert.pem "$2"
"#;
    run("bash", &["-c", script, "-", folder.to_str().unwrap(), host.to_str().unwrap()]);
}

/// With TLS both sides prove who they are: a guest gets a volume of the server that is named, and of no other.
#[tokio::test]
#[ignore = "needs NOVA_TEST_LIBVIRT_URI, openssl"]
async fn a_volume_comes_over_tls() {
    let (_, (folder, _room)) = open().await;
    let socket = uri().split_once("socket=").unwrap().1.to_owned();
    let host = Path::new(&socket).parent().unwrap().parent().unwrap().join("nbd-tls");
    certificates(folder.path(), &host);
    let options = LibvirtOptions { volume_tls_path: host, ..options(uri(), folder.path()) };
    let hypervisor = LibvirtHypervisor::new(options).unwrap();
    let server = Server::new(folder.path(), 0x5501);
    server.kill();
    let tls = format!("tls-creds-x509,id=t,dir={},endpoint=server,verify-peer=on", folder.path().display());
    let rules = "authz-list,id=a,policy=deny,rules.0.match=CN=compute1,rules.0.policy=allow,rules.0.format=exact";
    let blockdev = format!(
        "driver=raw,node-name=v,file.driver=file,file.filename={}",
        folder.path().join(format!("volume-{}", server.volume)).display()
    );
    let listen = format!("addr.type=inet,addr.host=127.0.0.1,addr.port={},tls-creds=t,tls-authz=a", server.port);
    let export = format!("type=nbd,id=e,node-name=v,name=attachment-1,description={},writable=on", server.volume);
    let pid_file = server.pid_file();
    let args = ["--object", &tls, "--object", rules, "--blockdev", &blockdev, "--nbd-server", &listen, "--export"];
    let more = [&export, "--pidfile", pid_file.to_str().unwrap(), "--daemonize"];
    run("qemu-storage-daemon", &[&args[..], &more].concat());
    let secure = |name: &str| {
        let mut attachment = server.attachment();
        if let ConnectionTarget::Nbd(nbd) = &mut attachment.connection.target {
            nbd.tls = Some(NbdTls { server_name: name.into() });
        }
        attachment
    };
    let guest = guest_spec(0x506);
    let id = guest.instance;
    hypervisor.destroy(id).await.unwrap();
    hypervisor.spawn(&guest).await.unwrap();
    for bad in [server.attachment(), secure("volumes2")] {
        assert_eq!(hypervisor.attach_disk(id, &bad).await.unwrap_err().kind(), ErrorKind::Failed);
    }
    assert_eq!(hypervisor.attach_disk(id, &secure("volumes1")).await.unwrap(), "vdb");
    hypervisor.reboot(id, nova_virt::RebootKind::Hard).await.unwrap();
    assert_eq!(hypervisor.attached_disks(id).await.unwrap().len(), 1);
    hypervisor.destroy(id).await.unwrap();
}
