use std::process::Stdio;

use tokio::process::Command;

use super::*;
use crate::volume::driver::conformance::{VolumeBench, host, ids, small, writer};
use crate::volume::driver::{VolumeDriver, VolumeErrorKind, conformance};

/// Ports that the tests of this process have asked for: each bench has its own.
static NEXT_PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);

struct Bench {
    driver: Option<NbdVolumes>,
    options: NbdOptions,
    tls: Option<TlsFolder>,
    temp: tempfile::TempDir,
}

impl Bench {
    async fn new(tls: bool) -> Self {
        let temp = tempfile::Builder::new().prefix("nova-nbd-").tempdir_in("/tmp").unwrap();
        let tls = tls.then(|| TlsFolder { path: temp.path().join("tls"), server_name: "volumes1".into() });
        let number = NEXT_PORT.fetch_add(8, std::sync::atomic::Ordering::Relaxed);
        // Below those that servers of other tests choose from.
        let base = 10_000 + (std::process::id() % 10) as u16 * 300;
        let options = NbdOptions {
            pool: PoolOptions {
                folder: temp.path().join("pool"),
                over_subscription_ratio: 20.0,
                reserved_percentage: 0,
                tool_limit: Duration::from_secs(60),
            },
            run_folder: temp.path().join("run"),
            listen: "127.0.0.1".into(),
            advertise: "127.0.0.1".into(),
            first_port: base + number,
            ports: 8,
            tls: tls.clone(),
            command_limit: Duration::from_secs(20),
        };
        let driver = Some(NbdVolumes::open(options.clone()).await.unwrap());
        Self { driver, options, tls, temp }
    }

    fn nbd(&self) -> &NbdVolumes {
        self.driver.as_ref().unwrap()
    }

    /// The service's process ends and comes back.
    async fn restart(&mut self) {
        self.driver.take().unwrap().close().await;
        self.driver = Some(NbdVolumes::open(self.options.clone()).await.unwrap());
    }

    /// Runs a command of qemu-io on an export, as the host of that name.
    async fn io(&self, who: &str, info: &ConnectionInfo, command: &str) -> bool {
        let ConnectionTarget::Nbd(target) = &info.target else { panic!("no NBD: {info:?}") };
        let mut image = format!("driver=nbd,host={},port={},export={}", target.host, target.port, target.export);
        let mut args = Vec::new();
        if let (Some(tls), Some(folder)) = (&target.tls, &self.tls) {
            let dir = folder.issue(&who.into()).await.unwrap();
            let object = format!("tls-creds-x509,id=t,dir={},endpoint=client,verify-peer=on", dir.display());
            args.extend(["--object".to_owned(), object]);
            image.push_str(&format!(",tls-creds=t,tls-hostname={}", tls.server_name));
        }
        if command.starts_with("read") {
            args.push("-r".to_owned());
        }
        args.extend(["--image-opts".to_owned(), image]);
        let run = Command::new("qemu-io").args(args).args(["-c", command]).stdin(Stdio::null()).output();
        let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        output.status.success() && !said.contains("verification failed") && !said.contains("failed:")
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.options.run_folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "pid") {
                pids.push(std::fs::read_to_string(path).unwrap().trim().parse().unwrap());
            }
        }
        pids
    }

    fn daemons(&self) -> usize {
        self.pids()
            .iter()
            .filter(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty()))
            .count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for pid in self.pids() {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn driver(&self) -> &dyn VolumeDriver {
        self.nbd()
    }
    async fn write(
        &self,
        info: &ConnectionInfo,
        attachment: VolumeAttachmentId,
        offset: u64,
        pattern: u8,
        length: usize,
    ) -> bool {
        let who = self.holder(attachment).await;
        self.io(&who, info, &format!("write -P {pattern} {offset} {length}")).await
    }
    async fn reads(
        &self,
        info: &ConnectionInfo,
        attachment: VolumeAttachmentId,
        offset: u64,
        pattern: u8,
        length: usize,
    ) -> bool {
        let who = self.holder(attachment).await;
        self.io(&who, info, &format!("read -P {pattern} {offset} {length}")).await
    }
}

impl Bench {
    /// The host that has the attachment; one whose attachment was ended is h1.
    async fn holder(&self, attachment: VolumeAttachmentId) -> String {
        let found = self.nbd().inventory().await.unwrap();
        let mut hosts = found.volumes.values().filter_map(|volume| volume.connections.get(&attachment));
        hosts.next().map_or("h1".to_owned(), ToString::to_string)
    }
}

mod plain {
    use super::*;
    crate::volume_driver_conformance!(Bench::new(false), ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon");
}

mod with_tls {
    use super::*;
    crate::volume_driver_conformance!(
        Bench::new(true),
        ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon, openssl"
    );
}

#[tokio::test]
async fn nothing_is_served_to_everybody() {
    let temp = tempfile::tempdir().unwrap();
    let options = NbdOptions {
        pool: PoolOptions {
            folder: temp.path().join("pool"),
            over_subscription_ratio: 1.0,
            reserved_percentage: 0,
            tool_limit: Duration::from_secs(1),
        },
        run_folder: temp.path().join("run"),
        listen: "0.0.0.0".into(),
        advertise: "192.0.2.1".into(),
        first_port: 10809,
        ports: 8,
        tls: None,
        command_limit: Duration::from_secs(1),
    };
    let error = NbdVolumes::open(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Failed);
    assert!(!temp.path().join("pool").exists());
    NbdVolumes::open(NbdOptions { listen: "127.0.0.1".into(), first_port: 65535, ..options }).await.unwrap_err();
}

/// Only the host that has the attachment reads the volume, though another one has one here too.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon, openssl"]
async fn another_host_is_not_let_in() {
    let bench = Bench::new(true).await;
    for (number, at) in [(1, "h1"), (2, "h2")] {
        bench.nbd().create(&small(number)).await.unwrap();
        bench.nbd().connect_host(ids::volume(number), &writer(number), &host(at)).await.unwrap();
    }
    let first = bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    assert!(bench.io("h1", &first, "read 0 4k").await);
    assert!(!bench.io("h2", &first, "read 0 4k").await, "a host read another one's volume");
    let ConnectionTarget::Nbd(target) = first.target.clone() else { panic!("{first:?}") };
    let plain = ConnectionInfo { target: ConnectionTarget::Nbd(NbdTarget { tls: None, ..target }), ..first.clone() };
    assert!(!bench.io("h1", &plain, "read 0 4k").await, "a volume was read without TLS");
    assert_eq!(bench.daemons(), 2);
    for number in [1, 2] {
        bench.nbd().disconnect_host(ids::volume(number), ids::attachment(number)).await.unwrap();
    }
    assert_eq!(bench.daemons(), 0, "a daemon without exports goes on");
}

/// Hosts do not notice that the service's process ended, and the next process knows what is connected.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn exports_outlive_the_service() {
    let mut bench = Bench::new(false).await;
    bench.nbd().create(&small(1)).await.unwrap();
    let info = bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    let pids = bench.pids();
    bench.driver.take().unwrap().close().await;
    assert!(bench.io("h1", &info, "write -P 7 0 4k").await);
    bench.driver = Some(NbdVolumes::open(bench.options.clone()).await.unwrap());
    assert_eq!(bench.pids(), pids, "the daemon was found, not started");
    assert_eq!(bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap(), info);
    assert_eq!(bench.nbd().delete(ids::volume(1)).await.unwrap_err().kind(), VolumeErrorKind::Busy);
    // A disconnection that ended in the middle: the export is gone, the connection is not.
    bench.nbd().door(&"h1".into()).await.unwrap().close(ids::attachment(1)).await.unwrap();
    assert!(!bench.io("h1", &info, "read 0 4k").await);
    bench.restart().await;
    assert!(bench.io("h1", &info, "read -P 7 0 4k").await, "what is connected is served");
    bench.nbd().disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    bench.restart().await;
    assert_eq!(bench.daemons(), 0);
    bench.nbd().delete(ids::volume(1)).await.unwrap();
}

/// A daemon that dies is started again, on its port and with its exports, without anybody asking.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn a_killed_daemon_comes_back() {
    let bench = Bench::new(false).await;
    for number in [1, 2] {
        bench.nbd().create(&small(number)).await.unwrap();
    }
    let one = bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    let two = bench.nbd().connect_host(ids::volume(2), &writer(2), &host("h1")).await.unwrap();
    assert!(bench.io("h1", &one, "write -P 7 0 4k").await);
    for _ in 0..3 {
        let door = bench.nbd().door(&"h1".into()).await.unwrap();
        let mut alive = door.daemon().await.unwrap().alive();
        let pid = bench.pids()[0];
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().await.unwrap().success());
        alive.wait_for(|alive| !alive).await.unwrap();
        // Whoever asks now, or the keeper: both wait for the same turn.
        door.restore().await.unwrap();
        assert!(bench.io("h1", &one, "read -P 7 0 4k").await && bench.io("h1", &two, "read -P 0 0 4k").await);
        assert_ne!(bench.pids()[0], pid);
    }
    bench.nbd().ping().await.unwrap();
}

/// Whatever is asked for when the daemon has just died is done, and nothing is left behind.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn operations_begin_a_daemon_that_died() {
    let bench = Bench::new(false).await;
    for number in [1, 2] {
        bench.nbd().create(&small(number)).await.unwrap();
    }
    let one = bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    assert!(bench.io("h1", &one, "write -P 7 0 4k").await);
    let killed = async || {
        let door = bench.nbd().door(&"h1".into()).await.unwrap();
        let mut alive = door.daemon().await.unwrap().alive();
        let pid = bench.pids()[0].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().await.unwrap().success());
        alive.wait_for(|alive| !alive).await.unwrap();
    };
    killed().await;
    let two = bench.nbd().connect_host(ids::volume(2), &writer(2), &host("h1")).await.unwrap();
    assert!(bench.io("h1", &two, "write -P 8 0 4k").await && bench.io("h1", &one, "read -P 7 0 4k").await);
    killed().await;
    bench.nbd().create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    killed().await;
    let copy = small(3);
    bench.nbd().create_from_snapshot(&copy, ids::volume(1), ids::snapshot(1)).await.unwrap();
    bench.nbd().create_from_volume(&small(4), ids::volume(2)).await.unwrap();
    let three = bench.nbd().connect_host(ids::volume(3), &writer(3), &host("h1")).await.unwrap();
    assert!(bench.io("h1", &three, "read -P 7 0 4k").await);
    for number in [1, 2, 3] {
        killed().await;
        bench.nbd().disconnect_host(ids::volume(number), ids::attachment(number)).await.unwrap();
        // The last one ends the daemon, and it is not begun again.
        if number == 3 {
            break;
        }
        assert!(bench.io("h1", &three, "read -P 7 0 4k").await, "the others are served on");
    }
    assert!(!bench.io("h1", &two, "read 0 4k").await, "an attachment that was ended is served");
    assert_eq!(bench.daemons(), 0);
    bench.nbd().delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    for number in 1..=4 {
        bench.nbd().delete(ids::volume(number)).await.unwrap();
    }
    let left = std::fs::read_dir(&bench.options.pool.folder).unwrap().count();
    assert_eq!(left, 1, "the lock");
}

/// The keeper does so by itself.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn nobody_has_to_ask_for_it() {
    let bench = Bench::new(false).await;
    bench.nbd().create(&small(1)).await.unwrap();
    let info = bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    let pid = bench.pids()[0];
    let door = bench.nbd().door(&"h1".into()).await.unwrap();
    let mut started = door.started_for_tests();
    started.borrow_and_update();
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().await.unwrap().success());
    tokio::time::timeout(Duration::from_secs(30), started.changed()).await.unwrap().unwrap();
    door.attachments().await;
    assert!(bench.io("h1", &info, "read 0 4k").await);
}

/// A daemon that does not answer any more is ended when an attachment is: nothing is written through it.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn a_hung_daemon_keeps_nobody_connected() {
    let mut bench = Bench::new(false).await;
    bench.driver.take().unwrap().close().await;
    bench.options.command_limit = Duration::from_secs(2);
    bench.driver = Some(NbdVolumes::open(bench.options.clone()).await.unwrap());
    for number in [1, 2] {
        bench.nbd().create(&small(number)).await.unwrap();
        bench.nbd().connect_host(ids::volume(number), &writer(number), &host("h1")).await.unwrap();
    }
    let pid = bench.pids()[0];
    assert!(Command::new("kill").args(["-STOP", &pid.to_string()]).status().await.unwrap().success());
    bench.nbd().disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    assert_ne!(bench.pids()[0], pid);
    let info = bench.nbd().connect_host(ids::volume(2), &writer(2), &host("h1")).await.unwrap();
    assert!(bench.io("h1", &info, "read -P 0 0 4k").await, "the other one is served on");
    assert!(bench.nbd().inventory().await.unwrap().volumes[&ids::volume(1)].connections.is_empty());
}

/// Snapshots of a shared volume would see the writes of one host only.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn a_volume_of_several_hosts_is_not_copied() {
    let bench = Bench::new(false).await;
    bench.nbd().create(&small(1)).await.unwrap();
    for (number, at) in [(1, "h1"), (2, "h2")] {
        bench.nbd().connect_host(ids::volume(1), &writer(number), &host(at)).await.unwrap();
    }
    let error = bench.nbd().create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Busy, "{error}");
    bench.nbd().disconnect_host(ids::volume(1), ids::attachment(2)).await.unwrap();
    bench.nbd().create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    let left = std::fs::read_dir(&bench.options.pool.folder).unwrap().count();
    assert_eq!(left, 4, "lock, volume, connections, snapshot");
    assert!(bench.temp.path().exists());
}

/// An attachment is one host's until it is ended.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: QEMU's storage daemon"]
async fn an_attachment_does_not_change_hands() {
    let bench = Bench::new(false).await;
    bench.nbd().create(&small(1)).await.unwrap();
    bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    let error = bench.nbd().connect_host(ids::volume(1), &writer(1), &host("h2")).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Conflict);
    let error = bench.nbd().connect_host(ids::volume(1), &conformance::reader(1), &host("h1")).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Conflict);
}
