//! What is there, what may be done with it when, and how much.

use std::collections::BTreeMap;

use super::*;
use crate::volume::driver::{FoundVolume, VolumeErrorKind};

/// A made volume is in the inventory with its size; made again it is the same one, of another size it is refused.
pub async fn what_is_made_is_there(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.ping().await.unwrap();
    for _ in 0..2 {
        driver.create(&small(1)).await.unwrap();
    }
    driver.create(&NewVolume { size_gb: 3, ..small(2) }).await.unwrap();
    let found = driver.inventory().await.unwrap();
    assert!(found.unknown.is_empty(), "{found:?}");
    let one = FoundVolume { size_gb: 1, ..FoundVolume::default() };
    let three = FoundVolume { size_gb: 3, ..FoundVolume::default() };
    assert_eq!(found.volumes, BTreeMap::from([(ids::volume(1), one), (ids::volume(2), three)]));
    let error = driver.create(&NewVolume { size_gb: 2, ..small(1) }).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Conflict, "{error:?}");
}

/// What is deleted is gone, with what was promised for it; again is Ok.
pub async fn a_deleted_volume_is_gone(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    let before = driver.stats().await.unwrap().provisioned;
    driver.create(&small(1)).await.unwrap();
    assert_eq!(driver.stats().await.unwrap().provisioned, before + (1 << 30));
    for _ in 0..2 {
        driver.delete(ids::volume(1)).await.unwrap();
        assert!(driver.inventory().await.unwrap().volumes.is_empty());
    }
    assert_eq!(driver.stats().await.unwrap().provisioned, before);
}

/// Work on what is not there says so; taking away what is not there is done.
pub async fn what_is_unknown_is_not_found(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    let (none, snapshot) = (ids::volume(9), ids::snapshot(9));
    let data = || Pieces::of(&[0; 4096], 4096);
    let errors = [
        driver.create_from_volume(&small(1), none).await.unwrap_err(),
        driver.create_from_snapshot(&small(1), none, snapshot).await.unwrap_err(),
        driver.write_image(none, &image("raw"), data()).await.unwrap_err(),
        driver.read_image(none, super::super::ImageFormat::Raw).await.map(|_| ()).unwrap_err(),
        driver.extend(none, 2).await.unwrap_err(),
        driver.create_snapshot(none, snapshot).await.unwrap_err(),
        driver.connect_host(none, &writer(1), &host("h1")).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), VolumeErrorKind::NotFound, "{error:?}");
    }
    driver.create(&small(2)).await.unwrap();
    let error = driver.create_from_snapshot(&small(1), ids::volume(2), snapshot).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::NotFound, "{error:?}");
    driver.delete_snapshot(none, snapshot).await.unwrap();
    driver.disconnect_host(none, ids::attachment(1)).await.unwrap();
    driver.delete(none).await.unwrap();
    assert_eq!(driver.inventory().await.unwrap().volumes.len(), 1);
}

/// What is promised stays within the ratio, by new volumes, snapshots, copies and growth alike.
pub async fn room_is_never_promised_twice(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    let space = driver.stats().await.unwrap();
    let most_gb = space.promisable() >> 30;
    driver.create(&small(1)).await.unwrap();
    let too_much = NewVolume { size_gb: most_gb, ..small(2) };
    let full = [
        driver.create(&too_much).await,
        driver.create_from_volume(&too_much, ids::volume(1)).await,
        driver.extend(ids::volume(1), most_gb + 1).await,
    ];
    for refused in full {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::NoSpace, "{error:?}");
    }
    assert_eq!(driver.inventory().await.unwrap().volumes.len(), 1);
    let space = driver.stats().await.unwrap();
    assert!(space.provisioned <= space.promisable() && space.provisioned >= 1 << 30);
}

/// A volume that nobody has is made larger, not smaller.
pub async fn a_volume_grows(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    for _ in 0..2 {
        driver.extend(ids::volume(1), 2).await.unwrap();
        assert_eq!(driver.inventory().await.unwrap().volumes[&ids::volume(1)].size_gb, 2);
    }
    let error = driver.extend(ids::volume(1), 1).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Conflict, "{error:?}");
    assert_eq!(driver.stats().await.unwrap().provisioned, 2 << 30);
}

/// A connected volume grows where the driver says so, and is busy elsewhere.
pub async fn a_connected_volume_grows_or_is_busy(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    connect(bench, 1, &writer(1), "h1").await;
    let grown = driver.extend(ids::volume(1), 2).await;
    let size_gb = driver.inventory().await.unwrap().volumes[&ids::volume(1)].size_gb;
    match grown {
        Ok(()) => assert!(driver.capabilities().online_extend && size_gb == 2),
        Err(error) => {
            assert_eq!(error.kind(), VolumeErrorKind::Busy, "{error:?}");
            assert!(!driver.capabilities().online_extend && size_gb == 1);
        }
    }
}

/// Who is let in is in the inventory until it is not; the same attachment gets the same answer.
pub async fn a_connection_is_given_and_taken(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    let first = connect(bench, 1, &writer(1), "h1").await;
    assert_eq!((first.volume_id, first.access_mode), (ids::volume(1), AccessMode::ReadWrite));
    assert_eq!(connect(bench, 1, &writer(1), "h1").await, first);
    let found = driver.inventory().await.unwrap();
    let connections = &found.volumes[&ids::volume(1)].connections;
    assert_eq!(*connections, BTreeMap::from([(ids::attachment(1), "h1".into())]));
    for _ in 0..2 {
        driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap();
        assert!(driver.inventory().await.unwrap().volumes[&ids::volume(1)].connections.is_empty());
    }
}

/// A connected volume and one with snapshots are not deleted; a connected one gets no image.
pub async fn what_is_connected_stays(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    driver.create_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap();
    connect(bench, 1, &writer(1), "h1").await;
    let error = driver.write_image(ids::volume(1), &image("raw"), Pieces::of(&[1; 4096], 512)).await.unwrap_err();
    assert_eq!(error.kind(), VolumeErrorKind::Busy, "{error:?}");
    for step in 0..3 {
        let deleted = driver.delete(ids::volume(1)).await;
        match step {
            0 => driver.disconnect_host(ids::volume(1), ids::attachment(1)).await.unwrap(),
            1 => driver.delete_snapshot(ids::volume(1), ids::snapshot(1)).await.unwrap(),
            _ => return deleted.unwrap(),
        }
        let error = deleted.unwrap_err();
        assert_eq!(error.kind(), VolumeErrorKind::Busy, "{error:?}");
    }
}

/// Snapshots are in the inventory until they are not, and count as promised.
pub async fn snapshots_come_and_go(bench: &dyn VolumeBench) {
    let driver = bench.driver();
    driver.create(&small(1)).await.unwrap();
    for number in [1, 2, 2] {
        driver.create_snapshot(ids::volume(1), ids::snapshot(number)).await.unwrap();
    }
    let found = driver.inventory().await.unwrap();
    assert_eq!(found.volumes[&ids::volume(1)].snapshots, [ids::snapshot(1), ids::snapshot(2)]);
    assert_eq!(driver.stats().await.unwrap().provisioned, 3 << 30);
    for number in [1, 1, 2] {
        driver.delete_snapshot(ids::volume(1), ids::snapshot(number)).await.unwrap();
    }
    let found = driver.inventory().await.unwrap();
    assert!(found.volumes[&ids::volume(1)].snapshots.is_empty() && found.unknown.is_empty(), "{found:?}");
}
