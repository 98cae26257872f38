use std::os::unix::fs::FileExt;

use super::*;
use crate::volume::driver::conformance::{Broken, Pieces, ids, image, small};
use crate::volume::driver::{ImageFormat, VolumeErrorKind};

/// Copies nothing that somebody has.
pub(super) struct Nobody;

impl LiveCopier for Nobody {}

pub(super) fn options(folder: &Path) -> PoolOptions {
    PoolOptions {
        folder: folder.join("pool"),
        over_subscription_ratio: 20.0,
        reserved_percentage: 0,
        tool_limit: Duration::from_secs(60),
    }
}

fn granted(host: &str) -> Granted {
    Granted { host: host.into(), access: AccessMode::ReadWrite }
}

/// What is remembered is what is there: after anything.
async fn assert_true(pool: &FilePool) {
    let remembered = std::mem::take(&mut *pool.table());
    let seen = remembered.volumes.clone();
    *pool.table() = remembered;
    let folder = pool.options.folder.clone();
    assert_eq!(Table::read(&folder).unwrap().volumes, seen);
    assert_eq!(pool.table().promised, 0);
}

#[tokio::test]
async fn a_pool_belongs_to_one_process_and_is_found_again() {
    let temp = tempfile::tempdir().unwrap();
    let pool = FilePool::open(options(temp.path())).await.unwrap();
    pool.create(&small(1)).await.unwrap();
    pool.create_snapshot(ids::volume(1), ids::snapshot(1), &Nobody).await.unwrap();
    assert!(!pool.grant(ids::volume(1), ids::attachment(1), granted("h1")).await.unwrap());
    assert!(pool.grant(ids::volume(1), ids::attachment(1), granted("h1")).await.unwrap(), "it was before");
    FilePool::open(options(temp.path())).await.map(drop).unwrap_err();
    assert_true(&pool).await;
    let before = pool.inventory().await.unwrap();
    drop(pool);
    let pool = FilePool::open(options(temp.path())).await.unwrap();
    assert_eq!(pool.inventory().await.unwrap(), before);
    assert_eq!(pool.space().unwrap().provisioned, 2 << 30);
    pool.revoke(ids::volume(1), ids::attachment(1)).await.unwrap();
    pool.delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    pool.delete(ids::volume(1)).await.unwrap();
    assert_true(&pool).await;
    let names: Vec<_> = fs::read_dir(&pool.options.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".lock"], "something was left behind");
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_and_what_others_left_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("pool");
    fs::create_dir(&folder).unwrap();
    let orphan = format!("volume-{}.snapshot-{}", ids::volume(7), ids::snapshot(7));
    let upper = format!("volume-{}", ids::volume(0xab).to_string().to_uppercase());
    for name in [&format!("volume-{}.new", ids::volume(1)), "lost+found", "volume-x", &orphan, &upper] {
        fs::write(folder.join(name), b"x").unwrap();
    }
    let pool = FilePool::open(options(temp.path())).await.unwrap();
    let found = pool.inventory().await.unwrap();
    assert!(found.volumes.is_empty());
    assert_eq!(found.unknown, ["lost+found".to_owned(), orphan, upper, "volume-x".to_owned()]);
    assert!(!folder.join(format!("volume-{}.new", ids::volume(1))).exists());
}

#[tokio::test]
async fn at_once_is_as_one_after_the_other() {
    let temp = tempfile::tempdir().unwrap();
    let pool = Arc::new(FilePool::open(options(temp.path())).await.unwrap());
    let mut work = tokio::task::JoinSet::new();
    for number in 0..32 {
        let pool = pool.clone();
        work.spawn(async move {
            pool.create(&small(number % 4)).await.unwrap();
            pool.create_snapshot(ids::volume(number % 4), ids::snapshot(number), &Nobody).await.unwrap();
        });
    }
    work.join_all().await;
    assert_eq!(pool.space().unwrap().provisioned, 36 << 30);
    assert_true(&pool).await;
}

#[tokio::test]
async fn a_broken_image_leaves_no_file_and_no_promise() {
    let temp = tempfile::tempdir().unwrap();
    let pool = FilePool::open(options(temp.path())).await.unwrap();
    pool.create(&small(1)).await.unwrap();
    let file = File::options().write(true).open(pool.path(ids::volume(1))).unwrap();
    file.write_all_at(b"canary", 1 << 20).unwrap();
    for data in [Box::new(Broken(false)) as Box<dyn nova_core::contracts::ImageData>, Pieces::of(b"QFI\xfb", 1)] {
        pool.write_image(ids::volume(1), &image("raw"), data).await.unwrap_err();
    }
    let read = fs::read_dir(&pool.options.folder).unwrap().count();
    assert_eq!(read, 2, "the lock and the volume");
    let mut kept = [0; 6];
    File::open(pool.path(ids::volume(1))).unwrap().read_exact_at(&mut kept, 1 << 20).unwrap();
    assert_eq!(&kept, b"canary");
    assert_true(&pool).await;
}

#[tokio::test]
async fn an_image_may_not_be_larger_than_the_volume() {
    let temp = tempfile::tempdir().unwrap();
    let pool = FilePool::open(options(temp.path())).await.unwrap();
    pool.create(&small(1)).await.unwrap();
    struct Endless;
    #[async_trait]
    impl nova_core::contracts::ImageData for Endless {
        async fn next_chunk(
            &mut self,
        ) -> std::result::Result<Option<Vec<u8>>, nova_core::contracts::ImageServiceError> {
            Ok(Some(vec![0; 64 << 20]))
        }
    }
    let error = pool.write_image(ids::volume(1), &image("raw"), Box::new(Endless)).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::InvalidImage);
    // A header of a few bytes may promise much.
    let mut header = nova_core::disk_format::samples::qcow2();
    header[24..32].copy_from_slice(&((1u64 << 30) + 512).to_be_bytes());
    let error = pool.write_image(ids::volume(1), &image("qcow2"), Pieces::of(&header, 512)).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::InvalidImage, "{error}");
}

#[tokio::test]
async fn an_image_of_a_volume_is_of_one_moment() {
    let temp = tempfile::tempdir().unwrap();
    let pool = FilePool::open(options(temp.path())).await.unwrap();
    pool.create(&small(1)).await.unwrap();
    let file = File::options().write(true).open(pool.path(ids::volume(1))).unwrap();
    file.write_all_at(b"before", 0).unwrap();
    let mut made = pool.read_image(ids::volume(1), ImageFormat::Raw, &Nobody).await.unwrap();
    file.write_all_at(b"after!", 0).unwrap();
    assert_eq!(made.size, 1 << 30);
    let first = made.data.next_chunk().await.unwrap().unwrap();
    assert_eq!(&first[..6], b"before");
    assert!(pool.inventory().await.unwrap().unknown.is_empty());
}
