//! What is read is what was written, by whom it was, and nobody else's.

use super::*;
use crate::volume::driver::{ImageFormat, VolumeErrorKind};

const KIB: usize = 1024;
const LAST: u64 = (1 << 30) - 4096;

/// Nothing is on a new volume, from its beginning to its end.
pub async fn a_new_volume_reads_as_zeros(bench: &dyn VolumeBench) {
    bench.driver().create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &writer(1), "h1").await;
    for offset in [0, 512 << 20, LAST] {
        assert!(bench.reads(&info, ids::attachment(1), offset, 0, 4 * KIB).await);
    }
    assert!(!bench.reads(&info, ids::attachment(1), 0, 1, 4 * KIB).await);
}

/// What one host wrote, the next one reads; and it is still there when the volume has grown.
pub async fn bytes_outlive_connections(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &writer(1), "h1").await;
    assert!(bench.write(&info, ids::attachment(1), 0, 0x51, 64 * KIB).await);
    assert!(bench.write(&info, ids::attachment(1), LAST, 0x52, 4 * KIB).await);
    driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    driver.extend(ids::volume(1), 2).await.unwrap();
    let info = connect(bench, 1, &writer(2), "h2").await;
    for (offset, pattern) in [(0, 0x51), (64 << 10, 0), (LAST, 0x52), (1 << 30, 0), (LAST + (1 << 30), 0)] {
        assert!(bench.reads(&info, ids::attachment(2), offset, pattern, 4 * KIB).await, "at {offset}");
    }
}

/// Who may read only writes nothing.
pub async fn a_reader_does_not_write(bench: &dyn VolumeBench) {
    if !bench.driver().capabilities().cuts_off {
        return;
    }
    bench.driver().create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &reader(1), "h1").await;
    assert_eq!(info.access_mode, AccessMode::ReadOnly);
    assert!(!bench.write(&info, ids::attachment(1), 0, 0x51, 4 * KIB).await);
    assert!(bench.reads(&info, ids::attachment(1), 0, 0, 4 * KIB).await);
}

/// An attachment that was ended reaches nothing, while another one of the same host does.
pub async fn who_is_disconnected_reaches_nothing(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    if !driver.capabilities().cuts_off {
        return;
    }
    for number in [1, 2] {
        driver.create(&small(number)).await.unwrap();
    }
    let ended = connect(bench, 1, &writer(1), "h1").await;
    let other = connect(bench, 2, &writer(2), "h1").await;
    assert!(bench.write(&ended, ids::attachment(1), 0, 0x51, 4 * KIB).await);
    driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    assert!(!bench.reads(&ended, ids::attachment(1), 0, 0x51, 4 * KIB).await);
    assert!(!bench.write(&ended, ids::attachment(1), 0, 0x52, 4 * KIB).await);
    assert!(bench.write(&other, ids::attachment(2), 0, 0x53, 4 * KIB).await);
    let again = connect(bench, 1, &writer(3), "h1").await;
    assert!(bench.reads(&again, ids::attachment(3), 0, 0x51, 4 * KIB).await);
}

/// What one host writes, the other reads, while both have it.
pub async fn several_hosts_share_one_volume(bench: &dyn VolumeBench) {
    if !bench.driver().capabilities().multiattach {
        return;
    }
    bench.driver().create(&NewVolume { multiattach: true, ..small(1) }).await.unwrap();
    let one = connect(bench, 1, &writer(1), "h1").await;
    let two = connect(bench, 1, &writer(2), "h2").await;
    let third = connect(bench, 1, &writer(3), "h2").await;
    assert!(bench.write(&one, ids::attachment(1), 0, 0x51, 4 * KIB).await);
    assert!(bench.reads(&two, ids::attachment(2), 0, 0x51, 4 * KIB).await);
    assert!(bench.write(&two, ids::attachment(2), 8192, 0x52, 4 * KIB).await);
    bench.driver().disconnect_host(ids::volume(1), ids::attachment(2)).await.unwrap();
    assert!(bench.reads(&one, ids::attachment(1), 8192, 0x52, 4 * KIB).await);
    assert!(bench.reads(&third, ids::attachment(3), 0, 0x51, 4 * KIB).await);
}

/// A snapshot has what was there when it was made, of a volume in use too where the driver can.
pub async fn a_snapshot_keeps_what_was(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &writer(1), "h1").await;
    assert!(bench.write(&info, ids::attachment(1), 0, 0x51, 64 * KIB).await);
    if driver.capabilities().live_snapshot {
        driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
        assert!(bench.write(&info, ids::attachment(1), 0, 0x52, 64 * KIB).await);
        driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    } else {
        let error = driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::Busy, "{error:?}");
        driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
        driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
        let info = connect(bench, 1, &writer(2), "h1").await;
        assert!(bench.write(&info, ids::attachment(2), 0, 0x52, 64 * KIB).await);
        driver.disconnect_host(ids::volume(1), ids::attachment(2)).await.unwrap();
    }
    let larger = NewVolume { size_gb: 2, ..small(2) };
    for _ in 0..2 {
        driver.create_from_snapshot(&larger, ids::volume(1), ids::snapshot(1)).await.unwrap();
    }
    driver.delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    let kept = connect(bench, 2, &writer(3), "h1").await;
    for (offset, pattern) in [(0, 0x51), (60 << 10, 0x51), (64 << 10, 0), (LAST, 0), (1 << 30, 0)] {
        assert!(bench.reads(&kept, ids::attachment(3), offset, pattern, 4 * KIB).await, "at {offset}");
    }
    let now = connect(bench, 1, &writer(4), "h1").await;
    assert!(bench.reads(&now, ids::attachment(4), 0, 0x52, 64 * KIB).await);
}

/// A copy has what the source had, and neither sees what the other does then.
pub async fn a_copy_is_independent(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &writer(1), "h1").await;
    assert!(bench.write(&info, ids::attachment(1), 4096, 0x51, 8 * KIB).await);
    driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    driver.create_from_volume(&small(2), ids::volume(1)).await.unwrap();
    let (source, copy) = (connect(bench, 1, &writer(2), "h1").await, connect(bench, 2, &writer(3), "h1").await);
    assert!(bench.write(&source, ids::attachment(2), 4096, 0x52, 4 * KIB).await);
    assert!(bench.write(&copy, ids::attachment(3), 8192, 0x53, 4 * KIB).await);
    assert!(bench.reads(&source, ids::attachment(2), 8192, 0x51, 4 * KIB).await);
    assert!(bench.reads(&copy, ids::attachment(3), 4096, 0x51, 4 * KIB).await);
    driver.disconnect_host(ids::volume(1), ids::attachment(2)).await.unwrap();
    driver.delete(ids::volume(1)).await.unwrap();
    assert!(bench.reads(&copy, ids::attachment(3), 4096, 0x51, 4 * KIB).await);
    let small_copy = driver.create_from_volume(&NewVolume { size_gb: 0, ..small(3) }, ids::volume(2)).await;
    small_copy.unwrap_err();
    assert_eq!(driver.inventory().await.unwrap().volumes.len(), 1);
}

/// A disk's bytes, which are no header of anything.
fn disk() -> Vec<u8> {
    let mut disk = vec![0x51; 96 * KIB];
    disk[64 * KIB..].fill(0x52);
    disk
}

/// A raw image is on the volume as it is, over what was there; behind its end are zeros.
pub async fn an_image_becomes_a_volume(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &writer(1), "h1").await;
    assert!(bench.write(&info, ids::attachment(1), 0, 0x77, 256 * KIB).await);
    driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    for piece in [1000, 1 << 20] {
        driver.write_image(ids::volume(1), &image("raw"), Pieces::of(&disk(), piece)).await.unwrap();
    }
    let info = connect(bench, 1, &writer(2), "h1").await;
    for (offset, pattern) in [(0, 0x51), (60 << 10, 0x51), (64 << 10, 0x52), (96 << 10, 0), (LAST, 0)] {
        assert!(bench.reads(&info, ids::attachment(2), offset, pattern, 4 * KIB).await, "at {offset}");
    }
    assert!(bench.write(&info, ids::attachment(2), LAST, 0x53, 4 * KIB).await);
}

/// Snapshots of a volume have what was there before an image was written onto it.
pub async fn an_image_leaves_snapshots_as_they_were(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    let info = connect(bench, 1, &writer(1), "h1").await;
    assert!(bench.write(&info, ids::attachment(1), 0, 0x77, 64 * KIB).await);
    driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
    driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    driver.write_image(ids::volume(1), &image("raw"), Pieces::of(&disk(), 4096)).await.unwrap();
    assert_eq!(driver.inventory().await.unwrap().volumes[&ids::volume(1)].snapshots, [ids::snapshot(1)]);
    driver.create_from_snapshot(&small(2), ids::volume(1), ids::snapshot(1)).await.unwrap();
    for (volume, pattern) in [(1, 0x51), (2, 0x77)] {
        let info = connect(bench, volume, &writer(volume + 1), "h1").await;
        assert!(bench.reads(&info, ids::attachment(volume + 1), 0, pattern, 64 * KIB).await, "volume {volume}");
    }
    driver.delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
}

/// What is not what it is said to be, refers to other files, is too large or breaks off changes nothing (OSSA-2024-001,
/// -2024-002, -2023-002, -2013-012).
pub async fn a_bad_image_leaves_the_volume_as_it_was(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    driver.write_image(ids::volume(1), &image("raw"), Pieces::of(&disk(), 4096)).await.unwrap();
    let mut referring = b"QFI\xfb\0\0\0\x03".to_vec();
    referring.resize(64 * KIB, 0);
    referring[8..16].copy_from_slice(&512u64.to_be_bytes());
    referring[16..20].copy_from_slice(&11u32.to_be_bytes());
    referring[20..24].copy_from_slice(&16u32.to_be_bytes());
    referring[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
    referring[512..523].copy_from_slice(b"/etc/passwd");
    let flat = b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n";
    let bad: [(&str, &[u8]); 5] =
        [("qcow2", &referring), ("raw", &referring), ("qcow2", &[0x51; 4096]), ("vmdk", flat), ("raw", flat)];
    for (format, bytes) in bad {
        let written = driver.write_image(ids::volume(1), &image(format), Pieces::of(bytes, 512)).await;
        assert_eq!(written.unwrap_err().kind(), VolumeErrorKind::InvalidImage, "{format}");
    }
    let written = driver.write_image(ids::volume(1), &image("raw"), Box::new(Broken(false))).await;
    assert_eq!(written.unwrap_err().kind(), VolumeErrorKind::Source);
    let found = driver.inventory().await.unwrap();
    assert!(found.unknown.is_empty(), "{found:?}");
    let info = connect(bench, 1, &writer(1), "h1").await;
    assert!(bench.reads(&info, ids::attachment(1), 0, 0x51, 64 * KIB).await);
}

/// What is on a volume is what its image has.
pub async fn a_volume_becomes_an_image(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    driver.write_image(ids::volume(1), &image("raw"), Pieces::of(&disk(), 4096)).await.unwrap();
    let mut made = driver.read_image(ids::volume(1), ImageFormat::Qcow2).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = made.data.next_chunk().await.unwrap() {
        bytes.extend(chunk);
    }
    assert_eq!(bytes.len() as u64, made.size);
    let format = if bytes.starts_with(b"QFI\xfb") { "qcow2" } else { "raw" };
    driver.create(&small(2)).await.unwrap();
    driver.write_image(ids::volume(2), &image(format), Pieces::of(&bytes, 1 << 20)).await.unwrap();
    let info = connect(bench, 2, &writer(1), "h1").await;
    for (offset, pattern) in [(0, 0x51), (64 << 10, 0x52), (96 << 10, 0)] {
        assert!(bench.reads(&info, ids::attachment(1), offset, pattern, 4 * KIB).await, "at {offset}");
    }
    drop(made.data);
    assert!(driver.inventory().await.unwrap().unknown.is_empty());
}

/// One tenant's bytes are in no volume that is made after theirs is gone, nor in what another one grows by (OSSA-2014-003,
/// -2012-020).
pub async fn space_of_the_deleted_reads_as_zeros(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    let spots = || (0..8u64).map(|place| place * (120 << 20));
    for round in 0..2 {
        driver.create(&small(1)).await.unwrap();
        let info = connect(bench, 1, &writer(1), "h1").await;
        for offset in spots() {
            assert!(bench.reads(&info, ids::attachment(1), offset, 0, 1 << 20).await, "round {round} at {offset}");
            assert!(bench.write(&info, ids::attachment(1), offset, 0xca, 1 << 20).await);
        }
        if driver.capabilities().live_snapshot {
            driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
        }
        driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
        driver.delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
        driver.delete(ids::volume(1)).await.unwrap();
    }
    driver.create(&small(2)).await.unwrap();
    driver.extend(ids::volume(2), 2).await.unwrap();
    let info = connect(bench, 2, &writer(2), "h1").await;
    for offset in spots().chain(spots().map(|offset| offset + (1 << 30))) {
        assert!(bench.reads(&info, ids::attachment(2), offset, 0, 1 << 20).await, "at {offset}");
    }
}
