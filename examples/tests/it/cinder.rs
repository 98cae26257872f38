//! The client of an outside Cinder against a `nova-all` of another process, found by its catalog.

use std::sync::Arc;
use std::time::Duration;

use nova::outside::Account;
use nova::volume::{CinderClient, CinderOptions};
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{InstanceId, ProjectId, RequestId, VolumeAttachmentId, VolumeId, VolumeSnapshotId};
use nova_core::volume::connection::{AccessMode, Connector};
use nova_core::volume::{
    BlockSource, BlockStorage, BlockStorageError, BlockVolume, NewBlockSnapshot, NewBlockVolume, VolumeStatus,
};
use nova_examples::client::{agent, send_json};
use nova_examples::process::{OsEntropy, SystemClock};

use crate::support::Cloud;

/// The id of what has that name.
fn id_of(cloud: &Cloud, collection: &str, name: &str) -> String {
    let admin = cloud.sign_in("nova");
    let url = cloud.url(&format!("/identity/v3/{collection}?name={name}"));
    let answer = send_json(&agent(), "GET", &url, &[("X-Auth-Token", admin.token())], None).unwrap();
    answer.text(&format!("/{collection}/0/id")).unwrap()
}

/// Whoever asks for volumes of the project demo has a role there.
fn let_in(cloud: &Cloud, project: &str) {
    let (user, role) = (id_of(cloud, "users", "admin"), id_of(cloud, "roles", "admin"));
    let url = cloud.url(&format!("/identity/v3/projects/{project}/users/{user}/roles/{role}"));
    let admin = cloud.sign_in("nova");
    let answer = send_json(&agent(), "PUT", &url, &[("X-Auth-Token", admin.token())], None).unwrap();
    assert_eq!(answer.status, 204, "{}", answer.message());
}

fn member(project: &str) -> RequestContext {
    RequestContext {
        project_id: ProjectId::new(project),
        roles: vec!["member".into()],
        ..RequestContext::internal(RequestId::generate(&OsEntropy))
    }
}

fn disk(key: VolumeId, source: BlockSource) -> NewBlockVolume {
    NewBlockVolume {
        key,
        source,
        size_gb: Some(1),
        name: "disk \u{2603} <&>".into(),
        description: String::new(),
        volume_type: None,
        availability_zone: None,
        metadata: [("a".to_owned(), "b".to_owned())].into(),
        waiter: None,
    }
}

/// Until the volume is so.
async fn settled(cinder: &CinderClient, who: &RequestContext, id: VolumeId, status: VolumeStatus) -> BlockVolume {
    let looking = async {
        loop {
            let volume = cinder.volume(who, id).await.unwrap();
            if volume.status == Some(status) {
                return volume;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap()
}

fn is_gone<T>(answer: &Result<T, BlockStorageError>) -> bool {
    matches!(answer, Err(BlockStorageError::VolumeNotFound { .. }))
}

#[test]
fn a_cinder_of_another_process_keeps_the_volumes() {
    let cloud = Cloud::started("[volume_driver]\nname = memory\n");
    let project = id_of(&cloud, "projects", "demo");
    let account = cloud.account("nova");
    let options = CinderOptions::new(cloud.url("/identity/v3"), account.username.clone(), account.password.clone());
    let options = CinderOptions {
        account: Account { project_name: account.project.clone(), retries: 0, ..options.account },
        ..options
    };
    let entropy = OsEntropy;
    let cinder = CinderClient::new(options, Arc::new(SystemClock), Arc::new(OsEntropy)).unwrap();
    let (me, stranger) = (member(&project), member("nobody"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = VolumeId::generate(&entropy);
    runtime.block_on(async {
        let refused = cinder.create(&me, disk(key, BlockSource::Empty)).await.unwrap_err();
        assert!(matches!(refused, BlockStorageError::Unavailable { .. }), "no role in the project: {refused:?}");
    });
    let_in(&cloud, &project);
    runtime.block_on(life(&cinder, &me, &stranger, key, &entropy));
    cloud.assert_checked();
}

async fn life(
    cinder: &CinderClient,
    me: &RequestContext,
    stranger: &RequestContext,
    key: VolumeId,
    entropy: &dyn Entropy,
) {
    let made = cinder.create(me, disk(key, BlockSource::Empty)).await.unwrap();
    assert_eq!(cinder.create(me, disk(key, BlockSource::Empty)).await.unwrap().id, made.id, "asked for twice");
    let volume = settled(cinder, me, made.id, VolumeStatus::Available).await;
    assert_eq!((volume.name.as_str(), volume.size_gb, volume.metadata.len()), ("disk \u{2603} <&>", 1, 1));
    assert!(volume.created_at.is_some() && volume.attachments.is_empty());
    let all = cinder.volumes(me).await.unwrap();
    assert_eq!(all.iter().map(|volume| volume.id).collect::<Vec<_>>(), [made.id]);
    assert!(cinder.volumes(stranger).await.unwrap().is_empty());
    assert!(is_gone(&cinder.volume(stranger, made.id).await));
    assert!(cinder.has_type(me, "__DEFAULT__").await.unwrap() && !cinder.has_type(me, "gold").await.unwrap());

    // Promised, connected, in use.
    let (server, key) = (InstanceId::generate(entropy), VolumeAttachmentId::generate(entropy));
    let reserve = || cinder.reserve(me, made.id, key, server, AccessMode::ReadWrite);
    let promised = reserve().await.unwrap();
    assert_eq!(reserve().await.unwrap(), promised, "asked for twice");
    assert_eq!(settled(cinder, me, made.id, VolumeStatus::Reserved).await.size_gb, 1);
    assert!(is_gone(&cinder.reserve(stranger, made.id, key, server, AccessMode::ReadWrite).await));
    let other = cinder.reserve(me, made.id, key, InstanceId::generate(entropy), AccessMode::ReadWrite).await;
    assert!(matches!(other, Err(BlockStorageError::Invalid { .. })), "{other:?}");
    let connector = Connector { mountpoint: Some("/dev/vdb".into()), ..Connector::of("compute1".into()) };
    let info = cinder.connect(me, promised.id, &connector).await.unwrap();
    assert_eq!(info.volume_id, made.id);
    assert_eq!(cinder.connect(me, promised.id, &connector).await.unwrap(), info, "connected twice");
    assert!(cinder.connect(stranger, promised.id, &connector).await.is_err());
    for _ in 0..2 {
        cinder.complete(me, promised.id, Some("/dev/vdb")).await.unwrap();
    }
    let volume = settled(cinder, me, made.id, VolumeStatus::InUse).await;
    let held = volume.of(server).next().unwrap();
    assert_eq!(
        (held.id, held.device.as_deref(), held.host.as_deref()),
        (promised.id, Some("/dev/vdb"), Some("compute1"))
    );
    let of_server = cinder.attachments_of(me, server).await.unwrap();
    assert_eq!(of_server.iter().map(|one| one.id).collect::<Vec<_>>(), [promised.id]);

    // A snapshot meanwhile, and a volume of it.
    let key = VolumeSnapshotId::generate(entropy);
    let new = NewBlockSnapshot { key, volume_id: made.id, name: "moment".into(), description: String::new() };
    assert_eq!(cinder.snapshot_of_key(me, made.id, key).await.unwrap(), None);
    let taken = cinder.take_snapshot(me, new.clone()).await.unwrap();
    assert_eq!(cinder.take_snapshot(me, new).await.unwrap().id, taken.id, "asked for twice, taken once");
    assert_eq!(cinder.snapshot_of_key(me, made.id, key).await.unwrap().map(|found| found.id), Some(taken.id));
    let snapshots = async || cinder.snapshot(me, taken.id).await.unwrap().status;
    let ready = async { while snapshots().await != "available" {} };
    tokio::time::timeout(Duration::from_secs(60), ready).await.unwrap();
    assert!(cinder.snapshot(stranger, taken.id).await.is_err() && cinder.snapshots(stranger).await.unwrap().is_empty());
    assert_eq!(cinder.snapshots(me).await.unwrap()[0].volume_id, made.id);
    let copy = cinder.create(me, disk(VolumeId::generate(entropy), BlockSource::Snapshot(taken.id))).await.unwrap();
    settled(cinder, me, copy.id, VolumeStatus::Available).await;
    assert_eq!(cinder.swapped(me, made.id, copy.id).await.unwrap(), copy.id);

    // Given back.
    for _ in 0..2 {
        cinder.begin_detaching(me, made.id).await.unwrap();
        settled(cinder, me, made.id, VolumeStatus::Detaching).await;
    }
    for _ in 0..2 {
        cinder.roll_detaching(me, made.id).await.unwrap();
        settled(cinder, me, made.id, VolumeStatus::InUse).await;
    }
    let busy = cinder.delete(me, made.id).await;
    assert!(matches!(busy, Err(BlockStorageError::Invalid { .. })), "{busy:?}");
    cinder.release(stranger, promised.id).await.unwrap();
    settled(cinder, me, made.id, VolumeStatus::InUse).await;
    for _ in 0..2 {
        cinder.release(me, promised.id).await.unwrap();
    }
    settled(cinder, me, made.id, VolumeStatus::Available).await;
    assert!(cinder.attachments_of(me, server).await.unwrap().is_empty());
    for _ in 0..2 {
        cinder.delete_snapshot(me, taken.id).await.unwrap();
    }
    while cinder.snapshot(me, taken.id).await.is_ok() {}
    for id in [made.id, copy.id] {
        cinder.delete(stranger, id).await.unwrap();
        assert!(cinder.volume(me, id).await.is_ok(), "another project's");
        cinder.delete(me, id).await.unwrap();
        cinder.delete(me, id).await.unwrap();
    }
    let emptied = async { while !cinder.volumes(me).await.unwrap().is_empty() {} };
    tokio::time::timeout(Duration::from_secs(60), emptied).await.unwrap();
}
