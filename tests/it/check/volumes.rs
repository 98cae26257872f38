//! Volumes that are not as they must be.

use nova::volume::driver::{AttachmentOf, MemoryVolumes, NewVolume, VolumeDriver};
use nova::volume::service::{HostOptions, Parts, VolumeHost};
use nova_core::ids::{BlockDeviceId, VolumeAttachmentId, VolumeId, VolumeSnapshotId, VolumeTaskId};
use nova_core::rpc::{Role, Sender};
use nova_core::volume::connection::{AccessMode, Connector};
use nova_core::volume::{
    Attachment, AttachmentStatus, Hold, Pool, ServerVolume, Snapshot, SnapshotStatus, Volume, VolumeSource,
    VolumeStatus, VolumeTask, VolumeWork,
};
use nova_db::{VolumeCommit, Write};
use nova_queue::{MemoryBus, RpcClient};

use super::*;

const POOL: &str = "store1@nbd#main";

/// Some servers, a pool, and a volume in it.
struct Stored {
    still: Still,
    volume: Volume,
}

impl Stored {
    async fn new() -> Self {
        let still = Still::new().await;
        still.store.report_volume_pool(pool(&still)).await.unwrap();
        let volume = still.store.commit_volumes(commit(new_volume(&still))).await.unwrap().remove(0);
        assert_eq!(still.checker.check().await.unwrap().violations, []);
        Self { still, volume }
    }

    /// Writes the volume as no service would.
    async fn write(&mut self, change: impl FnOnce(&mut Volume)) {
        change(&mut self.volume);
        let volumes = vec![Write::Update(self.volume.clone())];
        self.commit(VolumeCommit { volumes, ..VolumeCommit::default() }).await;
    }

    async fn commit(&mut self, commit: VolumeCommit) {
        self.volume = self.still.store.commit_volumes(commit).await.unwrap().remove(0);
    }

    async fn now(&self) -> Volume {
        self.still.store.get_volume(self.volume.id).await.unwrap()
    }

    fn attachment(&self, status: AttachmentStatus, instance: InstanceId) -> Attachment {
        Attachment {
            id: VolumeAttachmentId::generate(&*self.still.entropy),
            volume_id: self.volume.id,
            instance_id: Some(instance),
            status,
            mode: AccessMode::ReadWrite,
            mountpoint: None,
            connector: None,
            connection_info: None,
            attached_at: None,
            created_at: self.still.clock.now(),
        }
    }

    async fn attach(
        &mut self,
        status: AttachmentStatus,
        instance: InstanceId,
        connector: Option<Connector>,
    ) -> Attachment {
        let attachment = Attachment { connector, ..self.attachment(status, instance) };
        let new = attachment.clone();
        self.write(|volume| {
            volume.attachments.insert(new.id, new);
            volume.status = nova_core::volume::rest(volume.holds());
        })
        .await;
        attachment
    }

    /// A server has it, and knows of it.
    async fn attach_to(&mut self, server: &Instance) {
        let host = server.host.clone().unwrap();
        let attachment = self.attach(AttachmentStatus::Attached, server.id, Some(Connector::of(host.clone()))).await;
        let known = ServerVolume {
            id: BlockDeviceId::generate(&*self.still.entropy),
            volume_id: self.volume.id,
            make: None,
            holds: vec![Hold { attachment_id: attachment.id, host: Some(host) }],
            device: Some("/dev/vdb".into()),
            tag: None,
            boot_index: None,
            delete_on_termination: false,
            shareable: false,
            read_only: false,
            swap: None,
        };
        let server = Instance { volumes: vec![known], ..server.clone() };
        self.still.store.update_instance(server).await.unwrap();
    }

    /// A server that was deleted, and left nothing but its volumes.
    async fn deleted_server(&self) -> InstanceId {
        let mut server = self.still.server();
        server.set_states(States { vm_state: VmState::Deleted, task_state: None, power_state: PowerState::NoState });
        server.deleted_at = Some(self.still.clock.now());
        self.still.store.update_instance(server.clone()).await.unwrap();
        self.still.store.delete_allocation(server.id, server.host.as_ref().unwrap()).await.unwrap();
        self.still.host_of(&server).destroy(server.id).await.unwrap();
        self.still.store.rebuild_accounts().await.unwrap();
        server.id
    }
}

fn pool(still: &Still) -> Pool {
    Pool {
        name: POOL.parse().unwrap(),
        zone: "nova".into(),
        total_gb: 100,
        free_gb: 100,
        limit_gb: 100,
        thin: true,
        online_extend: false,
        multiattach: true,
        live_snapshot: true,
        live_copy: true,
        capabilities: BTreeMap::new(),
        booked_gb: 0,
        volumes: 0,
        heard_at: still.clock.now(),
        generation: 0,
    }
}

fn new_volume(still: &Still) -> Volume {
    let now = still.clock.now();
    Volume {
        id: VolumeId::generate(&*still.entropy),
        project_id: still.server().project_id,
        user_id: "u".into(),
        name: "disk".into(),
        description: String::new(),
        size_gb: 1,
        growing_to_gb: None,
        status: VolumeStatus::Available,
        pool: Some(POOL.parse().unwrap()),
        availability_zone: "nova".into(),
        volume_type_id: None,
        bootable: false,
        multiattach: false,
        readonly: false,
        metadata: BTreeMap::new(),
        image_metadata: BTreeMap::new(),
        snapshot_id: None,
        source_volid: None,
        image_id: None,
        fault: None,
        attachments: BTreeMap::new(),
        created_at: now,
        updated_at: now,
        launched_at: None,
        generation: 0,
    }
}

fn commit(volume: Volume) -> VolumeCommit {
    VolumeCommit { volumes: vec![Write::Create(volume)], ..VolumeCommit::default() }
}

fn task(still: &Still, volume: VolumeId, work: VolumeWork) -> VolumeTask {
    let now = still.clock.now();
    VolumeTask {
        id: VolumeTaskId::generate(&*still.entropy),
        volume_id: volume,
        host: "store1".into(),
        work,
        context: RequestContext::internal(RequestId::generate(&*still.entropy)),
        owner: None,
        lease_until: now,
        deadline: now + SignedDuration::from_mins(10),
        attempts: 0,
        waiter: None,
        created_at: now,
        generation: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_volume_is_busy_but_nothing_works_on_it() {
    use VolumeStatus as S;
    let mut stored = Stored::new().await;
    for (busy, ends) in [
        (S::Creating, S::Error),
        (S::Downloading, S::Error),
        (S::Extending, S::ErrorExtending),
        (S::Deleting, S::ErrorDeleting),
        (S::Uploading, S::Available),
    ] {
        stored.write(|volume| volume.status = busy).await;
        stored.still.finds_and_mends(&["I4"]).await;
        stored.volume = stored.now().await;
        assert_eq!(stored.volume.status, ends);
        assert!(stored.volume.fault.as_ref().is_some_and(|fault| fault.starts_with(busy.as_str())));
    }
    // Somebody works on it: then it is no violation.
    let mut busy = stored.volume.clone();
    busy.status = S::Extending;
    let work = VolumeWork::Extend { from_gb: 1, to_gb: 2 };
    let tasks = vec![Write::Create(task(&stored.still, busy.id, work))];
    stored.commit(VolumeCommit { volumes: vec![Write::Update(busy)], tasks, ..VolumeCommit::default() }).await;
    assert_eq!(stored.still.checker.check().await.unwrap().violations, []);
}

#[tokio::test(start_paused = true)]
async fn i4_a_snapshot_is_busy_but_nothing_works_on_it() {
    let mut stored = Stored::new().await;
    for (busy, ends) in
        [(SnapshotStatus::Creating, SnapshotStatus::Error), (SnapshotStatus::Deleting, SnapshotStatus::ErrorDeleting)]
    {
        let now = stored.still.clock.now();
        let snapshot = Snapshot {
            id: VolumeSnapshotId::generate(&*stored.still.entropy),
            volume_id: stored.volume.id,
            project_id: stored.volume.project_id.clone(),
            user_id: "u".into(),
            name: String::new(),
            description: String::new(),
            size_gb: 1,
            status: busy,
            pool: stored.volume.pool.clone(),
            volume_type_id: None,
            metadata: BTreeMap::new(),
            fault: None,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let id = snapshot.id;
        let volumes = vec![Write::Update(stored.volume.clone())];
        stored
            .commit(VolumeCommit { volumes, snapshots: vec![Write::Create(snapshot)], ..VolumeCommit::default() })
            .await;
        stored.still.finds_and_mends(&["I4"]).await;
        stored.volume = stored.now().await;
        assert_eq!(stored.still.store.get_volume_snapshot(id).await.unwrap().status, ends);
    }
}

#[tokio::test(start_paused = true)]
async fn i4_a_volume_host_that_does_not_come_back() {
    let mut stored = Stored::new().await;
    let mut busy = stored.volume.clone();
    busy.status = VolumeStatus::Deleting;
    let tasks = vec![Write::Create(task(&stored.still, busy.id, VolumeWork::Delete))];
    stored.commit(VolumeCommit { volumes: vec![Write::Update(busy)], tasks, ..VolumeCommit::default() }).await;
    tokio::time::sleep(Duration::from_secs(11 * 60)).await;
    assert_eq!(stored.still.checker.check().await.unwrap().violations, [], "a host needs a moment to give it up");
    tokio::time::sleep(Duration::from_secs(120)).await;
    // Services of the cloud are long gone, too: that is nothing that a check speaks of.
    let report = stored.still.checker.check().await.unwrap();
    assert_eq!(found(&report), ["I4"], "{:#?}", report.violations);
    assert!(report.violations[0].text.contains("host store1: is nova-volume up there?"), "{}", report.violations[0]);
    assert!(report.violations[0].repair.is_none());
}

/// A volume goes with its tasks; in a database that was put together by hand it may be otherwise.
#[tokio::test(start_paused = true)]
async fn i4_a_task_outlives_its_volume() {
    let mut stored = Stored::new().await;
    let orphan = task(&stored.still, stored.volume.id, VolumeWork::Create { source: VolumeSource::Empty });
    let id = orphan.id;
    let (volumes, tasks) = (vec![Write::Update(stored.volume.clone())], vec![Write::Create(orphan)]);
    stored.commit(VolumeCommit { volumes, tasks, ..VolumeCommit::default() }).await;
    let volumes = vec![Write::Delete(stored.volume.clone())];
    stored.still.store.commit_volumes(VolumeCommit { volumes, ..VolumeCommit::default() }).await.unwrap();
    stored.still.finds_and_mends(&["I4"]).await;
    assert!(stored.still.store.get_volume_task(id).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn i7_a_deleted_server_has_a_volume_promised() {
    let mut stored = Stored::new().await;
    let server = stored.deleted_server().await;
    stored.attach(AttachmentStatus::Reserved, server, None).await;
    stored.still.finds_and_mends(&["I7"]).await;
    let volume = stored.now().await;
    assert_eq!((volume.status, volume.attachments.len()), (VolumeStatus::Available, 0));
}

/// The host that it is connected to is shut out before the books forget it.
#[tokio::test(start_paused = true)]
async fn i7_a_deleted_server_has_a_volume() {
    let mut stored = Stored::new().await;
    let server = stored.deleted_server().await;
    let connector = Connector::of("host00".into());
    let attachment = stored.attach(AttachmentStatus::Attached, server, Some(connector.clone())).await;
    let disks = Arc::new(MemoryVolumes::new(100, 1.0));
    disks.create(&NewVolume { id: stored.volume.id, size_gb: 1, multiattach: false }).await.unwrap();
    let of = AttachmentOf { id: attachment.id, access: AccessMode::ReadWrite };
    disks.connect_host(stored.volume.id, &of, &connector).await.unwrap();

    stored.still.finds_and_mends(&["I7"]).await;
    let left = stored.now().await;
    assert_eq!(left.attachments[&attachment.id].status, AttachmentStatus::Detaching, "it is not forgotten yet");

    let still = &stored.still;
    let bus: Arc<dyn nova_queue::MessageBus> = Arc::new(MemoryBus::new(still.clock.clone()));
    let sender = Sender { role: Role::Volume, host: HostName::new("store1") };
    let host = VolumeHost::new(Parts {
        store: still.store.clone(),
        driver: disks.clone(),
        images: None,
        grants: None,
        rpc: RpcClient::new(bus, sender, still.clock.clone(), still.entropy.clone()),
        clock: still.clock.clone(),
        entropy: still.entropy.clone(),
        options: HostOptions { host: "store1".into(), owner: "store1/1".into(), ..HostOptions::default() },
    });
    host.sweep().await.unwrap();
    host.idle().await;
    assert!(disks.inventory().await.unwrap().volumes[&stored.volume.id].connections.is_empty());
    let volume = stored.now().await;
    assert_eq!((volume.status, volume.attachments.len()), (VolumeStatus::Available, 0));
    assert_eq!(still.checker.check().await.unwrap().violations, []);
}

/// It may be another cloud's server that uses these volumes.
#[tokio::test(start_paused = true)]
async fn i7_a_server_that_nobody_knows_has_a_volume() {
    let mut stored = Stored::new().await;
    let stranger = InstanceId::generate(&*stored.still.entropy);
    stored.attach(AttachmentStatus::Attached, stranger, Some(Connector::of("host00".into()))).await;
    stored.still.finds_and_leaves(&["I7"]).await;
}

#[tokio::test(start_paused = true)]
async fn i7_two_servers_have_a_volume_that_is_for_one() {
    let mut stored = Stored::new().await;
    let servers: Vec<Instance> = stored.still.servers.iter().take(2).cloned().collect();
    for server in &servers {
        stored.attach_to(server).await;
    }
    stored.still.finds_and_leaves(&["I7"]).await;
    stored.write(|volume| volume.multiattach = true).await;
    assert_eq!(stored.still.checker.check().await.unwrap().violations, []);
}

/// Asked for by a conductor that died, or by somebody who went past the servers.
#[tokio::test(start_paused = true)]
async fn i7_a_server_does_not_know_of_its_volume() {
    let mut stored = Stored::new().await;
    let server = stored.still.server().id;
    stored.attach(AttachmentStatus::Attached, server, Some(Connector::of("host00".into()))).await;
    stored.still.finds_and_leaves(&["I7"]).await;
}

/// And the other way round.
#[tokio::test(start_paused = true)]
async fn i7_a_server_thinks_that_it_has_a_volume() {
    let mut stored = Stored::new().await;
    let server = stored.still.server();
    stored.attach_to(&server).await;
    assert_eq!(stored.still.checker.check().await.unwrap().violations, []);
    stored
        .write(|volume| {
            volume.attachments.clear();
            volume.status = VolumeStatus::Available;
        })
        .await;
    stored.still.finds_and_leaves(&["I7"]).await;
}

#[tokio::test(start_paused = true)]
async fn i9_a_volume_is_not_what_its_attachments_say() {
    use VolumeStatus as S;
    let mut stored = Stored::new().await;
    for wrong in [S::InUse, S::Reserved, S::Attaching, S::Detaching] {
        stored.write(|volume| volume.status = wrong).await;
        stored.still.finds_and_mends(&["I9"]).await;
        stored.volume = stored.now().await;
        assert_eq!(stored.volume.status, S::Available, "{wrong}");
    }
    let server = stored.still.server();
    stored.attach_to(&server).await;
    // Its server is asked to give it back.
    stored.write(|volume| volume.status = S::Detaching).await;
    assert_eq!(stored.still.checker.check().await.unwrap().violations, []);
    stored.write(|volume| volume.status = S::Available).await;
    stored.still.finds_and_mends(&["I9"]).await;
    assert_eq!(stored.now().await.status, S::InUse);
}

// ---- what no operation of the store would do -------------------------------------------------------------------------

async fn damage(url: &str, damage: String) {
    use sqlx::Connection;
    let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
    let done = sqlx::query(sqlx::AssertSqlSafe(damage.clone())).execute(&mut connection).await.unwrap();
    assert!(done.rows_affected() > 0, "{damage}");
    connection.close().await.unwrap();
}

/// A volume with a snapshot in a SQLite file.
#[tokio::test(start_paused = true)]
async fn i6_i16_counts_and_rows_that_were_lost() {
    let still = Still::new().await;
    tokio::time::resume();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("nova.db").display());
    let store = nova_db::open(&url, &OpenOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    store.report_volume_pool(pool(&still)).await.unwrap();
    let volume = store.commit_volumes(commit(new_volume(&still))).await.unwrap().remove(0);
    let options = CheckOptions { pause: Duration::ZERO, ..CheckOptions::default() };
    let checker =
        Checker { store: store.clone(), hosts: Arc::new(FakeHosts(Fakes::new())), clock: still.clock.clone(), options };
    assert_eq!(checker.check().await.unwrap().violations, []);
    for wrong in [
        "UPDATE volume_usages SET body = json_set(body, '$.used', 7)",
        "UPDATE volume_pools SET body = json_set(body, '$.booked_gb', 9)",
    ] {
        damage(&url, wrong.to_owned()).await;
        let report = checker.check().await.unwrap();
        assert!(!report.violations.is_empty() && found(&report).iter().all(|one| *one == "I6"), "{report:#?}");
        let (_, after) = checker.repair().await.unwrap();
        assert_eq!(after.violations, [], "{wrong}");
    }
    let pools = store.list_volume_pools().await.unwrap();
    assert_eq!((pools[0].booked_gb, pools[0].volumes), (1, 1));

    let snapshot = Snapshot {
        id: VolumeSnapshotId::generate(&*still.entropy),
        volume_id: volume.id,
        project_id: volume.project_id.clone(),
        user_id: "u".into(),
        name: String::new(),
        description: String::new(),
        size_gb: 1,
        status: SnapshotStatus::Available,
        pool: volume.pool.clone(),
        volume_type_id: None,
        metadata: BTreeMap::new(),
        fault: None,
        created_at: volume.created_at,
        updated_at: volume.updated_at,
        generation: 0,
    };
    let (volumes, snapshots) = (vec![Write::Update(volume.clone())], vec![Write::Create(snapshot)]);
    store.commit_volumes(VolumeCommit { volumes, snapshots, ..VolumeCommit::default() }).await.unwrap();
    damage(&url, format!("DELETE FROM volumes WHERE id = '{}'", volume.id)).await;
    let report = checker.check().await.unwrap();
    assert!(found(&report).contains(&"I16"), "{report:#?}");
    assert!(report.violations.iter().any(|one| one.text == "its volume is not there" && one.repair.is_none()));
}
