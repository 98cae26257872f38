//! Volumes and what hangs on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{
    InstanceId, ProjectId, RequestId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTaskId, VolumeTransferId,
    VolumeTypeId,
};
use nova_core::volume::{
    AccessMode, Attachment, AttachmentStatus, Pool, Snapshot, SnapshotStatus, Transfer, Volume, VolumeLimits,
    VolumeProblem, VolumeQuotaKey, VolumeResource, VolumeSource, VolumeStatus, VolumeTask, VolumeType, VolumeWork,
};

use super::fixtures::{Make, at};
use super::races::all_at_once;
use crate::{
    AttachmentField, Direction, ListQuery, SnapshotField, Store, StoreError, VolumeCommit, VolumeField,
    VolumeTaskField, Write,
};

impl Make {
    pub(crate) fn pool(&self, name: &str, limit_gb: u64) -> Pool {
        Pool {
            name: name.parse().unwrap(),
            zone: "nova".into(),
            total_gb: limit_gb,
            free_gb: limit_gb,
            limit_gb,
            thin: true,
            online_extend: true,
            multiattach: true,
            live_snapshot: true,
            live_copy: true,
            capabilities: BTreeMap::from([("volume_backend_name".to_owned(), "files".to_owned())]),
            booked_gb: 0,
            volumes: 0,
            heard_at: at(0),
            generation: 0,
        }
    }

    pub(crate) fn volume(&self, project: &str, size_gb: u64) -> Volume {
        Volume {
            id: VolumeId::generate(&self.0),
            project_id: project.into(),
            user_id: "u".into(),
            name: "disk".into(),
            description: String::new(),
            size_gb,
            growing_to_gb: None,
            status: VolumeStatus::Available,
            pool: Some("store1@nbd#main".parse().unwrap()),
            availability_zone: "nova".into(),
            volume_type_id: None,
            bootable: false,
            multiattach: false,
            readonly: false,
            metadata: BTreeMap::from([("k\u{e9}\"y".to_owned(), "v\u{1f980}".to_owned())]),
            image_metadata: BTreeMap::new(),
            snapshot_id: None,
            source_volid: None,
            image_id: None,
            fault: None,
            attachments: BTreeMap::new(),
            created_at: at(0),
            updated_at: at(0),
            launched_at: None,
            generation: 0,
        }
    }

    pub(crate) fn snapshot(&self, volume: &Volume) -> Snapshot {
        Snapshot {
            id: VolumeSnapshotId::generate(&self.0),
            volume_id: volume.id,
            project_id: volume.project_id.clone(),
            user_id: "u".into(),
            name: "moment".into(),
            description: String::new(),
            size_gb: volume.size_gb,
            status: SnapshotStatus::Available,
            pool: volume.pool.clone(),
            volume_type_id: volume.volume_type_id,
            metadata: BTreeMap::new(),
            fault: None,
            created_at: at(1),
            updated_at: at(1),
            generation: 0,
        }
    }

    pub(crate) fn attachment(&self, volume: &Volume) -> Attachment {
        Attachment {
            id: VolumeAttachmentId::generate(&self.0),
            volume_id: volume.id,
            instance_id: Some(InstanceId::generate(&self.0)),
            status: AttachmentStatus::Reserved,
            mode: AccessMode::ReadWrite,
            mountpoint: None,
            connector: None,
            connection_info: None,
            attached_at: None,
            created_at: at(2),
        }
    }

    pub(crate) fn volume_task(&self, volume: &Volume, work: VolumeWork) -> VolumeTask {
        VolumeTask {
            id: VolumeTaskId::generate(&self.0),
            volume_id: volume.id,
            host: "store1".into(),
            work,
            context: RequestContext::internal(RequestId::generate(&self.0)),
            owner: None,
            lease_until: at(10),
            deadline: at(100),
            attempts: 0,
            waiter: None,
            created_at: at(0),
            generation: 0,
        }
    }

    fn volume_type(&self, name: &str) -> VolumeType {
        VolumeType {
            id: VolumeTypeId::generate(&self.0),
            name: name.into(),
            description: None,
            is_public: true,
            extra_specs: BTreeMap::from([("multiattach".to_owned(), "<is> True".to_owned())]),
            projects: ["p".into()].into(),
            created_at: at(0),
            updated_at: at(0),
            generation: 0,
        }
    }
}

fn creates(volumes: impl IntoIterator<Item = Volume>) -> VolumeCommit {
    let volumes = volumes.into_iter().map(Write::Create).collect();
    VolumeCommit { volumes, limits: Some(VolumeLimits::default()), ..VolumeCommit::default() }
}

async fn pooled(store: &Arc<dyn Store>, make: &Make, limit_gb: u64) {
    store.report_volume_pool(make.pool("store1@nbd#main", limit_gb)).await.unwrap();
}

async fn made(store: &Arc<dyn Store>, volume: Volume) -> Volume {
    store.commit_volumes(creates([volume])).await.unwrap().remove(0)
}

async fn booked(store: &Arc<dyn Store>) -> (u64, u64) {
    let pools = store.list_volume_pools().await.unwrap();
    (pools[0].booked_gb, pools[0].volumes)
}

async fn used(store: &Arc<dyn Store>, project: &str, resource: VolumeResource) -> u64 {
    let accounts = store.volume_accounts(&ProjectId::from(project)).await.unwrap();
    accounts.get(&VolumeQuotaKey::of(resource)).map_or(0, |account| account.used)
}

fn problem(answer: Result<Vec<Volume>, StoreError>) -> VolumeProblem {
    match answer {
        Err(StoreError::Volume(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

/// What was written is read; the counts follow; a stale writer loses.
pub async fn volumes_live_and_die(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 100).await;
    let new = make.volume("p", 5);
    let volume = made(store, new.clone()).await;
    assert_eq!(volume, Volume { generation: 1, ..new });
    assert_eq!(store.get_volume(volume.id).await.unwrap(), volume);
    assert_eq!((booked(store).await, used(store, "p", VolumeResource::Gigabytes).await), ((5, 1), 5));

    let larger = Volume { size_gb: 8, name: "larger".into(), ..volume.clone() };
    let updated = VolumeCommit { volumes: vec![Write::Update(larger.clone())], ..VolumeCommit::default() };
    let larger = store.commit_volumes(updated.clone()).await.unwrap().remove(0);
    assert_eq!((larger.generation, booked(store).await), (2, (8, 1)));
    let late = store.commit_volumes(updated).await.unwrap_err();
    assert!(matches!(late, StoreError::Conflict { .. }), "{late:?}");
    let stale = VolumeCommit { volumes: vec![Write::Delete(volume)], ..VolumeCommit::default() };
    assert!(matches!(store.commit_volumes(stale).await.unwrap_err(), StoreError::Conflict { .. }));

    // Given away, it counts for the other.
    let given = Volume { project_id: "q".into(), ..larger };
    let given = VolumeCommit { volumes: vec![Write::Update(given)], ..VolumeCommit::default() };
    let given = store.commit_volumes(given).await.unwrap().remove(0);
    let of = |project| used(store, project, VolumeResource::Volumes);
    assert_eq!((of("p").await, of("q").await), (0, 1));

    let gone = VolumeCommit { volumes: vec![Write::Delete(given.clone())], ..VolumeCommit::default() };
    assert!(store.commit_volumes(gone).await.unwrap().is_empty());
    assert_eq!((booked(store).await, used(store, "q", VolumeResource::Gigabytes).await), ((0, 0), 0));
    assert!(matches!(store.get_volume(given.id).await.unwrap_err(), StoreError::NotFound { .. }));
}

/// Filters, order, pages, whose they are.
pub async fn volumes_are_listed(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 100).await;
    for (number, project) in [(3, "p"), (1, "p"), (2, "p"), (4, "q")] {
        let name = format!("v{number}");
        made(store, Volume { name, created_at: at(number), ..make.volume(project, number as u64) }).await;
    }
    let names = async |query: ListQuery<VolumeField>| -> Vec<String> {
        store.list_volumes(&query).await.unwrap().into_iter().map(|volume| volume.name).collect()
    };
    let mut query = ListQuery { visible_to: Some("p".into()), ..ListQuery::default() };
    query.sort = vec![(VolumeField::CreatedAt, Direction::Descending), (VolumeField::Id, Direction::Descending)];
    assert_eq!(names(query.clone()).await, ["v3", "v2", "v1"]);
    query.limit = Some(2);
    let page = store.list_volumes(&query).await.unwrap();
    query.after = Some(page[1].id.to_string());
    assert_eq!(names(query.clone()).await, ["v1"]);
    assert_eq!(names(ListQuery::of(VolumeField::Size, 4)).await, ["v4"]);
    assert_eq!(names(ListQuery::of(VolumeField::Status, "error")).await, [""; 0]);
    query.after = Some(VolumeId::generate(&make.0).to_string());
    assert!(matches!(store.list_volumes(&query).await.unwrap_err(), StoreError::NotFound { .. }));
}

/// A limit is met exactly, and nothing is left of what did not fit.
pub async fn volume_quotas_are_exact(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10_000).await;
    let project = ProjectId::from("p");
    let of_type = make.volume_type("fast");
    let fast = VolumeQuotaKey::of_type(VolumeResource::Gigabytes, of_type.id);
    let limits = BTreeMap::from([
        (VolumeQuotaKey::of(VolumeResource::Volumes), Some(Some(2))),
        (VolumeQuotaKey::of(VolumeResource::PerVolumeGigabytes), Some(Some(500))),
        (fast, Some(Some(10))),
    ]);
    store.set_volume_limits(&project, limits).await.unwrap();
    made(store, make.volume("p", 400)).await;
    let over = problem(store.commit_volumes(creates([make.volume("p", 501)])).await);
    assert_eq!(over, VolumeProblem::OverSize { size: 501, limit: 500 });
    let two = creates([make.volume("p", 1), make.volume("p", 1)]);
    let over = problem(store.commit_volumes(two).await);
    assert_eq!(over, VolumeProblem::TooMany { resource: VolumeResource::Volumes, name: "volumes".into(), limit: 2 });
    let mut typed = creates([Volume { volume_type_id: Some(of_type.id), ..make.volume("p", 11) }]);
    typed.type_names.insert(of_type.id, "fast".into());
    let over = problem(store.commit_volumes(typed).await);
    assert_eq!(over, VolumeProblem::TooLarge { name: "gigabytes_fast".into(), requested: 11, limit: 10, used: 0 });
    assert_eq!((booked(store).await, used(store, "p", VolumeResource::Gigabytes).await), ((400, 1), 400));

    store.set_volume_limits(&project, BTreeMap::from([(fast, None)])).await.unwrap();
    made(store, Volume { volume_type_id: Some(of_type.id), ..make.volume("p", 11) }).await;
    let accounts = store.volume_accounts(&project).await.unwrap();
    assert_eq!(accounts[&fast].used, 11);
    assert_eq!(accounts[&fast].limit, None);
    assert_eq!(accounts[&VolumeQuotaKey::of(VolumeResource::Volumes)].limit, Some(Some(2)));
}

/// A pool never promises more than it may, also while volumes grow; what is unknown has no room.
pub async fn pools_are_not_over_booked(store: &Arc<dyn Store>) {
    let make = Make::new();
    let no_room = problem(store.commit_volumes(creates([make.volume("p", 1)])).await);
    assert!(matches!(no_room, VolumeProblem::NoRoom { .. }), "{no_room:?}");
    pooled(store, &make, 10).await;
    let volume = made(store, make.volume("p", 6)).await;
    problem(store.commit_volumes(creates([make.volume("p", 5)])).await);
    let mut grow = creates([]);
    grow.volumes.push(Write::Update(Volume { growing_to_gb: Some(11), ..volume.clone() }));
    problem(store.commit_volumes(grow).await);
    let mut grow = creates([]);
    grow.volumes.push(Write::Update(Volume { growing_to_gb: Some(10), ..volume }));
    store.commit_volumes(grow).await.unwrap();
    assert_eq!(booked(store).await, (10, 1));

    // What its host says does not change what is booked.
    let said = Pool { limit_gb: 20, heard_at: at(5), ..make.pool("store1@nbd#main", 20) };
    let pool = store.report_volume_pool(said).await.unwrap();
    assert_eq!((pool.booked_gb, pool.room_gb(), pool.heard_at), (10, 10, at(5)));
}

/// A pool that is heard of later has what is there.
pub async fn late_pools_are_counted(store: &Arc<dyn Store>) {
    let make = Make::new();
    let elsewhere = Volume { pool: Some("store2@nbd#main".parse().unwrap()), ..make.volume("p", 3) };
    let unchecked = VolumeCommit { limits: None, ..creates([elsewhere]) };
    store.commit_volumes(unchecked).await.unwrap();
    let pool = store.report_volume_pool(make.pool("store2@nbd#main", 10)).await.unwrap();
    assert_eq!((pool.booked_gb, pool.volumes), (3, 1));
}

/// Snapshots count, are found by their volume, and keep it.
pub async fn snapshots_keep_their_volume(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10).await;
    let volume = made(store, make.volume("p", 4)).await;
    let snapshot = make.snapshot(&volume);
    let alone = VolumeCommit { snapshots: vec![Write::Create(snapshot.clone())], ..VolumeCommit::default() };
    assert!(matches!(store.commit_volumes(alone).await.unwrap_err(), StoreError::Conflict { .. }));
    let mut taken = creates([]);
    taken.volumes.push(Write::Update(volume.clone()));
    taken.snapshots.push(Write::Create(snapshot.clone()));
    let volume = store.commit_volumes(taken).await.unwrap().remove(0);
    assert_eq!((booked(store).await, used(store, "p", VolumeResource::Snapshots).await), ((8, 1), 1));
    assert_eq!(used(store, "p", VolumeResource::Gigabytes).await, 8);
    let found = store.list_volume_snapshots(&ListQuery::of(SnapshotField::VolumeId, volume.id)).await.unwrap();
    assert_eq!(found, [Snapshot { generation: 1, ..snapshot }]);

    let mut gone = VolumeCommit { volumes: vec![Write::Delete(volume.clone())], ..VolumeCommit::default() };
    let kept = problem(store.commit_volumes(gone.clone()).await);
    assert_eq!(kept, VolumeProblem::HasSnapshots { volume: volume.id, count: 1 });
    gone.snapshots.push(Write::Delete(found[0].clone()));
    store.commit_volumes(gone).await.unwrap();
    assert_eq!((booked(store).await, used(store, "p", VolumeResource::Snapshots).await), ((0, 0), 0));
    assert!(store.get_volume_snapshot(found[0].id).await.is_err());
}

/// Attachments come and go with their volume's row.
pub async fn attachments_are_their_volumes(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10).await;
    let mut volume = made(store, make.volume("p", 1)).await;
    let attachment = make.attachment(&volume);
    volume.attachments.insert(attachment.id, attachment.clone());
    let update = |volume| VolumeCommit { volumes: vec![Write::Update(volume)], ..VolumeCommit::default() };
    volume = store.commit_volumes(update(volume)).await.unwrap().remove(0);
    assert_eq!(store.volume_of_attachment(attachment.id).await.unwrap(), volume);
    let of = ListQuery::of(AttachmentField::InstanceId, attachment.instance_id.unwrap());
    let found = store.list_volume_attachments(&of).await.unwrap();
    assert_eq!(found, [(ProjectId::from("p"), attachment.clone())]);

    volume.attachments.get_mut(&attachment.id).unwrap().status = AttachmentStatus::Attached;
    volume = store.commit_volumes(update(volume)).await.unwrap().remove(0);
    let reserved = ListQuery::of(AttachmentField::Status, "reserved");
    assert!(store.list_volume_attachments(&reserved).await.unwrap().is_empty());
    volume.attachments.clear();
    store.commit_volumes(update(volume)).await.unwrap();
    assert!(store.list_volume_attachments(&of).await.unwrap().is_empty());
    assert!(matches!(store.volume_of_attachment(attachment.id).await.unwrap_err(), StoreError::NotFound { .. }));
}

/// A task is one worker's until its lease ends; it is found by what it works on and reads.
pub async fn volume_tasks_have_one_worker(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10).await;
    let source = made(store, make.volume("p", 1)).await;
    let volume = make.volume("p", 1);
    let work = VolumeWork::Create { source: VolumeSource::Volume(source.id) };
    let task = make.volume_task(&volume, work);
    let mut new = creates([volume]);
    new.tasks.push(Write::Create(task.clone()));
    assert!(matches!(store.commit_volumes(new.clone()).await.unwrap_err(), StoreError::Conflict { .. }));
    new.volumes.push(Write::Update(source.clone()));
    store.commit_volumes(new).await.unwrap();
    let reading = ListQuery::of(VolumeTaskField::SourceId, source.id);
    assert_eq!(store.list_volume_tasks(&reading).await.unwrap()[0].id, task.id);

    let host = "store1".into();
    assert!(store.due_volume_tasks(&host, at(9), 10).await.unwrap().is_empty());
    assert_eq!(store.due_volume_tasks(&host, at(10), 10).await.unwrap().len(), 1);
    assert!(store.due_volume_tasks(&"store2".into(), at(10), 10).await.unwrap().is_empty());
    // Nobody has it yet: it need not wait.
    let mine = store.claim_volume_task(task.id, "a", at(1), at(20)).await.unwrap();
    assert_eq!((mine.owner.as_deref(), mine.attempts), (Some("a"), 1));
    let other = store.claim_volume_task(task.id, "b", at(19), at(30)).await.unwrap_err();
    assert!(matches!(other, StoreError::Conflict { .. }), "{other:?}");
    assert_eq!(store.claim_volume_task(task.id, "a", at(19), at(30)).await.unwrap().attempts, 1);
    assert_eq!(store.claim_volume_task(task.id, "b", at(30), at(40)).await.unwrap().attempts, 2);
    store.release_volume_task(task.id, "a", at(31)).await.unwrap();
    assert!(store.due_volume_tasks(&host, at(31), 10).await.unwrap().is_empty());
    store.release_volume_task(task.id, "b", at(31)).await.unwrap();
    assert_eq!(store.due_volume_tasks(&host, at(31), 10).await.unwrap().len(), 1);
    assert!(store.overdue_volume_tasks(at(99), 10).await.unwrap().is_empty());
    assert_eq!(store.overdue_volume_tasks(at(100), 10).await.unwrap().len(), 1);

    let over = VolumeCommit { tasks: vec![Write::Delete(task.clone())], ..VolumeCommit::default() };
    store.commit_volumes(over.clone()).await.unwrap();
    store.commit_volumes(over).await.unwrap();
    assert!(matches!(store.get_volume_task(task.id).await.unwrap_err(), StoreError::NotFound { .. }));
    store.release_volume_task(task.id, "b", at(31)).await.unwrap();
}

/// Types have names of their own, and stay while something is of them.
pub async fn volume_types_live_and_die(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10).await;
    let fast = store.create_volume_type(make.volume_type("fast")).await.unwrap();
    let twice = store.create_volume_type(make.volume_type("fast")).await.unwrap_err();
    assert!(matches!(twice, StoreError::Duplicate { field: "name", .. }), "{twice:?}");
    let slow = store.create_volume_type(make.volume_type("slow")).await.unwrap();
    let renamed = VolumeType { name: "fast".into(), ..slow.clone() };
    assert!(matches!(store.update_volume_type(renamed).await.unwrap_err(), StoreError::Duplicate { .. }));
    let changed = store.update_volume_type(VolumeType { is_public: false, ..slow.clone() }).await.unwrap();
    assert!(matches!(store.update_volume_type(slow.clone()).await.unwrap_err(), StoreError::Conflict { .. }));
    assert_eq!(store.list_volume_types().await.unwrap(), [fast.clone(), changed]);
    made(store, Volume { volume_type_id: Some(fast.id), ..make.volume("p", 1) }).await;
    assert!(matches!(store.delete_volume_type(fast.id).await.unwrap_err(), StoreError::Volume(_)));
    store.delete_volume_type(slow.id).await.unwrap();
    assert!(matches!(store.get_volume_type(slow.id).await.unwrap_err(), StoreError::NotFound { .. }));
}

/// A volume is offered once, and the offer ends once.
pub async fn volumes_are_offered_once(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10).await;
    let volume = made(store, make.volume("p", 1)).await;
    let offer = || Transfer {
        id: VolumeTransferId::generate(&make.0),
        volume_id: volume.id,
        project_id: "p".into(),
        name: String::new(),
        no_snapshots: false,
        salt: make.0.hex(4),
        digest: make.0.hex(8),
        created_at: at(3),
        generation: 0,
    };
    let first = offer();
    let commit = |volume: &Volume, write| VolumeCommit {
        volumes: vec![Write::Update(volume.clone())],
        transfers: vec![write],
        ..VolumeCommit::default()
    };
    let volume = store.commit_volumes(commit(&volume, Write::Create(first.clone()))).await.unwrap().remove(0);
    assert!(store.commit_volumes(commit(&volume, Write::Create(offer()))).await.is_err());
    let found = store.get_volume_transfer(first.id).await.unwrap();
    assert_eq!(found, Transfer { generation: 1, ..first });
    let volume = store.commit_volumes(commit(&volume, Write::Delete(found.clone()))).await.unwrap().remove(0);
    let again = store.commit_volumes(commit(&volume, Write::Delete(found))).await.unwrap_err();
    assert!(matches!(again, StoreError::NotFound { .. }), "{again:?}");
    assert_eq!(store.get_volume(volume.id).await.unwrap(), volume);
}

/// Right counts are left alone.
pub async fn right_volume_counts_are_left_alone(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 10).await;
    let volume = made(store, make.volume("p", 3)).await;
    let gone = made(store, make.volume("q", 2)).await;
    let commit = VolumeCommit { volumes: vec![Write::Delete(gone)], ..VolumeCommit::default() };
    store.commit_volumes(commit).await.unwrap();
    assert!(store.recount_volumes().await.unwrap().is_empty());
    assert_eq!((booked(store).await, store.get_volume(volume.id).await.unwrap()), ((3, 1), volume));
}

/// Of many who want the last of quota and pool, as many get it as there is, and the counts are theirs.
pub async fn volumes_race_for_the_room(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 7).await;
    let new: Vec<Volume> = (0..32).map(|number| make.volume(["p", "q"][number % 2], 2)).collect();
    let answers = all_at_once(new, |new| {
        let store = Arc::clone(store);
        async move { store.commit_volumes(creates([new])).await }
    })
    .await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((won, booked(store).await), (3, (6, 3)));
    let volumes = used(store, "p", VolumeResource::Volumes).await + used(store, "q", VolumeResource::Volumes).await;
    assert_eq!(volumes, 3);
    assert!(store.recount_volumes().await.unwrap().is_empty());
}

/// Of many who reserve a volume as they read it, one does.
pub async fn one_reserves_a_volume(store: &Arc<dyn Store>) {
    let make = Make::new();
    pooled(store, &make, 7).await;
    let volume = made(store, make.volume("p", 2)).await;
    let wanted: Vec<Volume> = (0..32)
        .map(|_| {
            let attachment = make.attachment(&volume);
            let attachments = BTreeMap::from([(attachment.id, attachment)]);
            Volume { attachments, status: VolumeStatus::Reserved, ..volume.clone() }
        })
        .collect();
    let answers = all_at_once(wanted, |wanted| {
        let store = Arc::clone(store);
        async move {
            let volumes = vec![Write::Update(wanted)];
            store.commit_volumes(VolumeCommit { volumes, ..VolumeCommit::default() }).await
        }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let of_it = ListQuery::of(AttachmentField::VolumeId, volume.id);
    assert_eq!(store.list_volume_attachments(&of_it).await.unwrap().len(), 1);
}
