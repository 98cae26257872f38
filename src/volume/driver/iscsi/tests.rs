use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use nova_core::entropy::SeededEntropy;
use tokio::process::Command;

use super::*;
use crate::volume::driver::VolumeDriver;
use crate::volume::driver::conformance::{VolumeBench, host, ids, small, writer};

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

struct Bench {
    driver: Option<IscsiVolumes>,
    options: IscsiOptions,
    _temp: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("nova-iscsi-").tempdir_in("/tmp").unwrap();
        // Below those that servers of other tests choose from.
        let base = 13_500 + (std::process::id() % 10) as u16 * 100;
        let options = IscsiOptions {
            pool: PoolOptions {
                folder: temp.path().join("pool"),
                over_subscription_ratio: 20.0,
                reserved_percentage: 0,
                tool_limit: Duration::from_secs(60),
            },
            portal: PortalOptions {
                run_folder: temp.path().join("run"),
                listen: "127.0.0.1".into(),
                advertise: "127.0.0.1".into(),
                port: base + NEXT_PORT.fetch_add(1, Ordering::Relaxed),
                prefix: "iqn.2010-10.org.openstack".into(),
                command_limit: Duration::from_secs(20),
            },
        };
        let driver = Some(IscsiVolumes::open(options.clone(), &SeededEntropy::new(1)).await.unwrap());
        Self { driver, options, _temp: temp }
    }

    fn iscsi(&self) -> &IscsiVolumes {
        self.driver.as_ref().unwrap()
    }

    fn pid(&self) -> Option<String> {
        std::fs::read_to_string(self.options.portal.run_folder.join("tgtd.pid")).ok().map(|pid| pid.trim().to_owned())
    }
}

/// Reads or writes through a connection as QEMU's own initiator does; whether it went.
pub(in crate::volume::driver) async fn io(info: &ConnectionInfo, command: &str, with_password: bool) -> bool {
    let ConnectionTarget::Iscsi(target) = &info.target else { panic!("no iSCSI: {info:?}") };
    let mut image = format!(
        "driver=iscsi,transport=tcp,portal={},target={},lun={}",
        target.target_portal, target.target_iqn, target.target_lun
    );
    let mut args = Vec::new();
    if let Some(auth) = target.auth.as_ref().filter(|_| with_password) {
        args.extend(["--object".to_owned(), format!("secret,id=s,data={}", auth.auth_password)]);
        image.push_str(&format!(",user={},password-secret=s", auth.auth_username));
    }
    if command.starts_with("read") {
        args.push("-r".to_owned());
    }
    let words = ["--image-opts", &image, "-c", command];
    let output = Command::new("qemu-io").args(args).args(words).stdin(Stdio::null()).output();
    let run = tokio::time::timeout(Duration::from_secs(60), output);
    let output = run.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success() && !said.contains("verification failed") && !said.contains("failed:")
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = std::process::Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
        }
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn driver(&self) -> &dyn VolumeDriver {
        self.iscsi()
    }
    async fn write(
        &self,
        info: &ConnectionInfo,
        _attachment: VolumeAttachmentId,
        offset: u64,
        pattern: u8,
        length: usize,
    ) -> bool {
        io(info, &format!("write -P {pattern} {offset} {length}"), true).await
    }
    async fn reads(
        &self,
        info: &ConnectionInfo,
        _attachment: VolumeAttachmentId,
        offset: u64,
        pattern: u8,
        length: usize,
    ) -> bool {
        io(info, &format!("read -P {pattern} {offset} {length}"), true).await
    }
}

mod contract {
    use super::*;
    crate::volume_driver_conformance!(Bench::new(), ignore = "needs NOVA_TEST_VOLUMES: tgt");
}

#[tokio::test]
async fn passwords_are_the_same_each_time_and_differ() {
    let temp = tempfile::tempdir().unwrap();
    let key = temp.path().join("key");
    let first = Passwords::open(key.clone(), &SeededEntropy::new(1)).await.unwrap();
    let again = Passwords::open(key.clone(), &SeededEntropy::new(2)).await.unwrap();
    assert_eq!(first.of(ids::attachment(1)).unwrap(), again.of(ids::attachment(1)).unwrap());
    let one = first.of(ids::attachment(1)).unwrap();
    assert_ne!(one.auth_password, first.of(ids::attachment(2)).unwrap().auth_password);
    assert_eq!(one.auth_password.len(), 32);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&key, b"short").unwrap();
    Passwords::open(key, &SeededEntropy::new(1)).await.map(drop).unwrap_err();
}

/// Without the password nobody is let in, and the daemon's death takes nothing with it.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: tgt"]
async fn a_password_opens_one_volume_also_after_a_crash() {
    let mut bench = Bench::new().await;
    for number in [1, 2] {
        bench.iscsi().create(&small(number)).await.unwrap();
    }
    let one = bench.iscsi().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap();
    let two = bench.iscsi().connect_host(ids::volume(2), &writer(2), &host("h2")).await.unwrap();
    assert!(io(&one, "write -P 7 0 4k", true).await);
    assert!(!io(&one, "read 0 4k", false).await, "a volume was read without a password");
    let mut mixed = one.clone();
    let (ConnectionTarget::Iscsi(target), ConnectionTarget::Iscsi(other)) = (&mut mixed.target, &two.target) else {
        panic!("{two:?}")
    };
    target.auth = other.auth.clone();
    assert!(!io(&mixed, "read 0 4k", true).await, "one host's password opened another one's volume");
    let killed = Command::new("kill").args(["-9", &bench.pid().unwrap()]).status().await.unwrap();
    assert!(killed.success());
    bench.driver = None;
    bench.driver = Some(IscsiVolumes::open(bench.options.clone(), &SeededEntropy::new(9)).await.unwrap());
    assert!(io(&one, "read -P 7 0 4k", true).await);
    assert_eq!(bench.iscsi().connect_host(ids::volume(1), &writer(1), &host("h1")).await.unwrap(), one);
    for number in [1, 2] {
        bench.iscsi().disconnect_host(ids::volume(number), ids::attachment(number)).await.unwrap();
    }
    assert_eq!(bench.pid(), None, "a daemon without targets goes on");
}
