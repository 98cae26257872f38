//! Books, disks, and a volume host that is started anew in every part of a test: a runtime that is dropped is a process that
//! was killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use nova::volume::driver::{ImageFormat, Inventory, MemoryVolumes, VolumeDriver};
use nova::volume::service::{HostOptions, Parts, VolumeHost};
use nova::volume::{CreateVolume, MadeOf, VolumeError, VolumeManager, VolumeOptions, VolumeParts};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::contracts::{ImageData, ImageService, ImageServiceError};
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, ImageId, ProjectId, RequestId, VolumeId};
use nova_core::image::{Image, ImageGrant, ImageMeta, ImageStatus};
use nova_core::rpc::{Role, Sender};
use nova_core::volume::{Snapshot, Volume, VolumeStatus, VolumeTask};
use nova_db::{ListQuery, MemoryStore, Store};
use nova_queue::{Chances, FaultyBus, MemoryBus, MessageBus, RpcClient};

use super::mortal_driver::MortalDriver;

pub const IMAGE: &str = "70a599e0-31e7-49b7-b260-868f441e862b";
/// What is in the image.
const CANARY: &[u8; 512] = &[0xca; 512];

/// Moves only when told to.
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0) + SignedDuration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub struct World {
    pub store: Arc<dyn Store>,
    /// The same, which can go away.
    pub database: Arc<MemoryStore>,
    /// Which can lose what it is given.
    pub broker: Arc<FaultyBus>,
    pub disks: Arc<MemoryVolumes>,
    pub entropy: Arc<dyn Entropy>,
    pub manager: VolumeManager,
    clock: Arc<HandClock>,
    bus: Arc<dyn MessageBus>,
    images: Arc<dyn ImageService>,
    starts: AtomicI64,
}

/// One image that is there, and those that are made.
struct Images(Arc<dyn Store>);

struct Bytes(Option<Vec<u8>>);

#[async_trait]
impl ImageData for Bytes {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        Ok(self.0.take())
    }
}

#[async_trait]
impl ImageService for Images {
    async fn bootable_image(&self, _: &RequestContext, id: ImageId) -> Result<ImageMeta, ImageServiceError> {
        Ok(ImageMeta {
            id,
            name: Some("guest".into()),
            disk_format: "raw".into(),
            size: CANARY.len() as u64,
            sha512: String::new(),
            min_ram: 0,
            min_disk: 0,
            virtual_size: CANARY.len() as u64,
            properties: BTreeMap::new(),
        })
    }
    async fn download(&self, _: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Ok(Box::new(Bytes(Some(CANARY.to_vec()))))
    }
    async fn upload(
        &self,
        id: ImageId,
        _: Option<&ImageGrant>,
        size: u64,
        mut data: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        let missing = |_| ImageServiceError::NotFound { id: id.to_string() };
        let image = self.0.get_image(id).await.map_err(missing)?;
        if image.status == ImageStatus::Active {
            return Ok(());
        }
        let mut read = 0;
        while let Some(piece) = data.next_chunk().await? {
            read += piece.len() as u64;
        }
        assert_eq!(read, size);
        let active = Image { status: ImageStatus::Active, size: Some(size), ..image };
        self.0.update_image(active).await.map(drop).map_err(missing)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(HandClock(AtomicI64::new(0)));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
        let database = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = database.clone();
        let broker = FaultyBus::new(Arc::new(MemoryBus::new(clock.clone())), Chances::default(), entropy.clone());
        let broker = Arc::new(broker);
        let bus: Arc<dyn MessageBus> = broker.clone();
        let images: Arc<dyn ImageService> = Arc::new(Images(store.clone()));
        let sender = Sender { role: Role::Api, host: HostName::new("controller") };
        let manager = VolumeManager::new(VolumeParts {
            store: store.clone(),
            images: Some(images.clone()),
            rpc: RpcClient::new(bus.clone(), sender, clock.clone(), entropy.clone()),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: VolumeOptions { patience: Duration::from_secs(2), ..VolumeOptions::default() },
        });
        let disks = Arc::new(MemoryVolumes::new(100, 1.0));
        Self { store, database, broker, disks, entropy, manager, clock, bus, images, starts: AtomicI64::new(0) }
    }

    /// Time goes by.
    pub fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn host(&self, name: &str, driver: Arc<dyn VolumeDriver>) -> VolumeHost {
        let owner = format!("{name}/{}", self.starts.fetch_add(1, Ordering::SeqCst));
        let sender = Sender { role: Role::Volume, host: HostName::new(name) };
        VolumeHost::new(Parts {
            store: self.store.clone(),
            driver,
            images: Some(self.images.clone()),
            grants: None,
            rpc: RpcClient::new(self.bus.clone(), sender, self.clock.clone(), self.entropy.clone()),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            options: HostOptions { host: name.into(), owner, ..HostOptions::default() },
        })
    }

    /// Runs something beside a volume host that works.
    pub fn run<T>(&self, work: impl AsyncFnOnce(&Self) -> T) -> T {
        runtime().block_on(async {
            let host = self.host("store1", self.disks.clone());
            let _running = host.start().await.unwrap();
            // A database that is away is waited for.
            while self.store.list_volume_pools().await.map_or(true, |pools| pools.is_empty()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            work(self).await
        })
    }

    /// Runs something beside a volume host that dies when its driver says so. Did it?
    pub fn run_until_death(&self, driver: &Arc<MortalDriver>, work: impl AsyncFnOnce(&Self)) -> bool {
        runtime().block_on(async {
            let host = self.host("store1", driver.clone());
            let _running = host.start().await.unwrap();
            // It is at rest.
            tokio::time::sleep(Duration::from_millis(50)).await;
            driver.arm();
            tokio::select! {
                biased;
                () = driver.died.notified() => true,
                () = work(self) => false,
            }
        })
    }

    /// Runs something while the volume host is away.
    pub fn run_without_host<T>(&self, work: impl AsyncFnOnce(&Self) -> T) -> T {
        runtime().block_on(async { work(self).await })
    }

    /// Another host, beside none.
    pub fn run_elsewhere(&self, work: impl AsyncFnOnce(VolumeHost)) {
        runtime().block_on(async { work(self.host("store2", self.disks.clone())).await });
    }

    /// A host is started when all leases are over, and finds what there is to be done.
    pub fn recover(&self) {
        for _ in 0..4 {
            self.pass(60);
            self.run(async |world| world.settled().await);
        }
    }

    /// Waits until no task is worked on. What is put off stays.
    pub async fn settled(&self) {
        for _ in 0..200 {
            let now = self.clock.now();
            if self.tasks().await.iter().all(|task| task.owner.is_some() && task.lease_until > now) {
                // Whoever has it may be at it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if self.tasks().await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn user(&self) -> RequestContext {
        let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
        RequestContext {
            user_id: "u".into(),
            project_id: "p".into(),
            roles: vec!["member".into()],
            ..RequestContext::internal(request_id)
        }
    }

    pub async fn create(&self, name: &str, size_gb: u64, made_of: MadeOf) -> Result<VolumeId, VolumeError> {
        let new = CreateVolume { name: name.into(), size_gb: Some(size_gb), made_of, ..CreateVolume::default() };
        self.manager.create(&self.user(), new).await.map(|volume| volume.id)
    }

    pub async fn volume(&self, id: VolumeId) -> Volume {
        self.store.get_volume(id).await.unwrap()
    }

    pub async fn volumes(&self) -> Vec<Volume> {
        self.store.list_volumes(&ListQuery::default()).await.unwrap()
    }

    pub async fn there(&self) -> Volume {
        self.volumes().await.into_iter().find(|volume| volume.name == "there").unwrap()
    }

    pub async fn snapshots(&self) -> Vec<Snapshot> {
        self.store.list_volume_snapshots(&ListQuery::default()).await.unwrap()
    }

    pub async fn tasks(&self) -> Vec<VolumeTask> {
        loop {
            match self.store.list_volume_tasks(&ListQuery::default()).await {
                Ok(tasks) => return tasks,
                Err(error) => {
                    assert!(self.database.will_be_away() || error.is_retryable(), "{error}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    pub async fn images_made(&self) -> Vec<ImageStatus> {
        self.store.list_images().await.unwrap().into_iter().map(|image| image.status).collect()
    }

    /// Everything there is, in the books and on disks.
    pub async fn everything(&self) -> (Vec<Volume>, Vec<Snapshot>, Inventory) {
        (self.volumes().await, self.snapshots().await, self.disks.inventory().await.unwrap())
    }

    /// The volume begins with the image's bytes.
    pub async fn holds_image(&self, id: VolumeId) {
        let read = || self.disks.read_image(id, ImageFormat::Raw);
        // A failure that nothing else met may have waited until now.
        let image = match read().await {
            Ok(image) => image,
            Err(_) => read().await.unwrap(),
        };
        let mut data = image.data;
        let first = data.next_chunk().await.unwrap().unwrap();
        assert_eq!(first[..CANARY.len()], CANARY[..]);
    }

    /// Books and disks agree: no disk, snapshot or connection without a row or the other way round; nothing is being done;
    /// counts are exact.
    pub async fn agrees(&self, label: &str) {
        assert!(self.tasks().await.is_empty(), "{label}: {:?}", self.tasks().await);
        let found = self.disks.inventory().await.unwrap();
        let (volumes, snapshots) = (self.volumes().await, self.snapshots().await);
        let known: BTreeMap<VolumeId, &Volume> = volumes.iter().map(|volume| (volume.id, volume)).collect();
        for (id, disk) in &found.volumes {
            let volume = known.get(id).unwrap_or_else(|| panic!("{label}: a disk without a volume"));
            assert_eq!(disk.size_gb, volume.size_gb, "{label}");
            let mut of_it: Vec<_> = snapshots.iter().filter(|one| one.volume_id == *id).map(|one| one.id).collect();
            of_it.retain(|one| {
                let row = snapshots.iter().find(|row| row.id == *one);
                row.is_some_and(|row| row.fault.is_none())
            });
            of_it.sort_unstable();
            let kept: Vec<_> = disk.snapshots.iter().copied().filter(|one| of_it.contains(one)).collect();
            assert_eq!(kept.len(), of_it.len(), "{label}: snapshots {of_it:?} {:?}", disk.snapshots);
            let orphans: Vec<_> =
                disk.snapshots.iter().filter(|one| snapshots.iter().all(|row| row.id != **one)).collect();
            assert!(orphans.is_empty(), "{label}: snapshots without a row: {orphans:?}");
            let let_in: Vec<_> = disk.connections.keys().copied().collect();
            let connected = volume.attachments.values().filter(|one| one.connector.is_some());
            let connected: Vec<_> = connected.map(|one| one.id).collect();
            assert_eq!(let_in, connected, "{label}: connections");
        }
        for volume in &volumes {
            let settled = [
                VolumeStatus::Available,
                VolumeStatus::Reserved,
                VolumeStatus::Attaching,
                VolumeStatus::InUse,
                VolumeStatus::Error,
                VolumeStatus::ErrorDeleting,
            ];
            assert!(settled.contains(&volume.status), "{label}: {} is {}", volume.name, volume.status);
            let is_there = found.volumes.contains_key(&volume.id);
            let may_lack = matches!(volume.status, VolumeStatus::Error | VolumeStatus::ErrorDeleting);
            assert!(is_there || may_lack, "{label}: a volume without a disk");
            assert_eq!(volume.growing_to_gb, None, "{label}");
        }
        assert_eq!(self.store.recount_volumes().await.unwrap(), [""; 0], "{label}");
    }

    /// Users remove all that they have.
    pub async fn remove_everything(&self, label: &str) {
        let user = self.user();
        // A failure that waited until now is had first.
        for _ in 0..2 {
            for volume in self.volumes().await {
                for attachment in volume.attachments.keys() {
                    self.manager.release(&user, *attachment).await.unwrap();
                }
                self.manager.delete(&user, volume.id, true, false).await.unwrap();
            }
            self.settled().await;
            self.pass(60);
            self.settled().await;
        }
        assert!(self.volumes().await.is_empty() && self.snapshots().await.is_empty(), "{label}");
        assert!(self.disks.inventory().await.unwrap().volumes.is_empty(), "{label}");
        let accounts = self.store.volume_accounts(&ProjectId::from("p")).await.unwrap();
        assert!(accounts.values().all(|account| account.used == 0), "{label}");
    }
}
