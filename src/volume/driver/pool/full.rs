//! A pool without room, for real: on a file system of a few MiB, in a mount namespace of its own.

use std::os::unix::fs::FileExt;
use std::process::Command;

use super::tests::{Nobody, options};
use super::*;
use crate::volume::driver::conformance::{Pieces, ids, image, small};
use crate::volume::driver::{ImageFormat, VolumeErrorKind};

const INNER: &str = "NOVA_TEST_IN_NAMESPACE";

/// Runs this test again where mounts are its own. True in there.
fn alone(test: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]).arg(own);
    let done = command.args(["--exact", test, "--ignored", "--nocapture"]).env(INNER, "yes").status().unwrap();
    assert!(done.success());
    false
}

fn names(pool: &FilePool) -> Vec<String> {
    let all = fs::read_dir(&pool.options.folder).unwrap();
    let mut names: Vec<_> = all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whatever fails for want of room leaves nothing, and goes on once there is some.
#[tokio::test]
#[ignore = "needs NOVA_TEST_VOLUMES: root, qemu-img"]
async fn a_full_pool_refuses_and_keeps_what_it_has() {
    if !alone("volume::driver::pool::full::a_full_pool_refuses_and_keeps_what_it_has") {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = temp.path().to_str().unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "pool", at]).status().unwrap().success());
    let pool = FilePool::open(PoolOptions { over_subscription_ratio: 1000.0, ..options(temp.path()) }).await.unwrap();
    pool.create(&small(1)).await.unwrap();
    pool.create(&small(2)).await.unwrap();
    let disk = vec![0x51; 9 << 20];
    pool.write_image(ids::volume(1), &image("raw"), Pieces::of(&disk, 1 << 20)).await.unwrap();
    let before = names(&pool);
    let provisioned = pool.space().unwrap().provisioned;

    let full = [
        pool.write_image(ids::volume(2), &image("raw"), Pieces::of(&disk, 1 << 20)).await,
        pool.copy_volume(&small(3), ids::volume(1), &Nobody).await,
        pool.create_snapshot(ids::volume(1), ids::snapshot(1), &Nobody).await,
        pool.read_image(ids::volume(1), ImageFormat::Qcow2, &Nobody).await.map(drop),
        pool.read_image(ids::volume(1), ImageFormat::Raw, &Nobody).await.map(drop),
    ];
    for (number, refused) in full.into_iter().enumerate() {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::NoSpace, "{number}: {error:?}");
    }
    assert_eq!(names(&pool), before, "something was left behind");
    assert_eq!(pool.space().unwrap().provisioned, provisioned);
    let mut kept = vec![0; 4096];
    let file = File::open(pool.path(ids::volume(1))).unwrap();
    file.read_exact_at(&mut kept, (9 << 20) - 4096).unwrap();
    assert!(kept.iter().all(|byte| *byte == 0x51));
    drop(file);

    pool.delete(ids::volume(1)).await.unwrap();
    pool.write_image(ids::volume(2), &image("raw"), Pieces::of(&disk, 1 << 20)).await.unwrap();
    drop(pool);
    assert!(Command::new("umount").arg(at).status().unwrap().success());
}
