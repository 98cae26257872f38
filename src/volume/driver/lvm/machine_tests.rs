//! On a machine that has device-mapper, against its own LVM: a group of its own for each check, on a file.

use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};

use nova_core::entropy::SeededEntropy;
use tokio::process::Command;

use super::*;
use crate::volume::driver::conformance::VolumeBench;
use crate::volume::driver::iscsi::tests::io;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// What the pool has; volumes of the checks are of 1 to 3 GiB, and hold next to nothing.
const POOL_MIB: u64 = 8 << 10;

struct Bench {
    driver: LvmVolumes,
    group: String,
    disk: String,
    run_folder: PathBuf,
    _temp: tempfile::TempDir,
}

async fn program(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Bench {
    async fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temp = tempfile::Builder::new().prefix("nova-lvm-").tempdir().unwrap();
        let file = temp.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len((POOL_MIB + 64) << 20).unwrap();
        let disk = program(&["losetup", "--find", "--show", file.to_str().unwrap()]).await;
        let group = format!("novatest{number}");
        program(&["vgcreate", "-y", &group, &disk]).await;
        let (size, pool) = (format!("{POOL_MIB}m"), format!("{group}/volumes"));
        let kind = ["-y", "--type", "thin-pool", "-Z", "y", "--poolmetadatasize", "8m", "-L", &size, "-n", &pool];
        program(&[&["lvcreate"], &kind[..]].concat()).await;
        let run_folder = temp.path().join("run");
        let options = LvmOptions {
            group: group.clone(),
            thin_pool: "volumes".into(),
            staging: temp.path().join("staging"),
            over_subscription_ratio: 20.0,
            reserved_percentage: 0,
            tool_limit: Duration::from_secs(300),
            portal: PortalOptions {
                run_folder: run_folder.clone(),
                listen: "127.0.0.1".into(),
                advertise: "127.0.0.1".into(),
                port: 14_500 + number,
                prefix: "iqn.2010-10.org.openstack".into(),
                command_limit: Duration::from_secs(120),
            },
        };
        let driver = LvmVolumes::open(options, &SeededEntropy::new(1)).await.unwrap();
        Self { driver, group, disk, run_folder, _temp: temp }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let run = |words: &[&str]| {
            let mut command = std::process::Command::new(words[0]);
            let _ = command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).status();
        };
        if let Ok(pid) = std::fs::read_to_string(self.run_folder.join("tgtd.pid")) {
            run(&["kill", "-9", pid.trim()]);
        }
        run(&["vgremove", "-y", "-f", "-f", &self.group]);
        run(&["losetup", "-d", &self.disk]);
    }
}

#[async_trait]
impl VolumeBench for Bench {
    fn driver(&self) -> &dyn VolumeDriver {
        &self.driver
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

mod soak_on_device_mapper {
    use super::*;
    crate::volume_driver_conformance!(
        Bench::new(),
        ignore = "needs device-mapper, LVM and tgt: tests/guests/lvm_guest"
    );
}
