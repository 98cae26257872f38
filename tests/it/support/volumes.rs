//! A volume host for the cloud's servers, and what must hold of both.

use nova::volume::driver::{MemoryVolumes, VolumeDriver, VolumeErrorKind, VolumeFault};
use nova::volume::service::{HostOptions, VolumeHost};
use nova::volume::{CreateVolume, MadeOf, OwnBlockStorage, VolumeManager, VolumeOptions, VolumeParts};
use nova_core::ids::VolumeId;
use nova_core::volume::{BlockStorage, ServerVolume, Volume, VolumeStatus};
use nova_db::ListQuery;
use nova_virt::Hypervisor;

use super::*;
use crate::volumes::mortal_driver::MortalDriver;

/// The volume host, and the ways to it.
pub struct Volumes {
    pub manager: Arc<VolumeManager>,
    pub for_api: Arc<dyn BlockStorage>,
    pub for_conductor: Arc<dyn BlockStorage>,
    /// Where the bytes are.
    pub disks: Arc<MemoryVolumes>,
    images: Arc<dyn ImageService>,
    rpc: RpcClient,
    starts: u32,
    running: Option<RunningService>,
}

/// Every image is there, and has a few bytes, which take so long.
struct Images(Duration);

struct Bytes(Option<Vec<u8>>, Duration);

#[async_trait]
impl ImageData for Bytes {
    async fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, ImageServiceError> {
        if self.0.is_some() {
            tokio::time::sleep(self.1).await;
        }
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
            size: 512,
            sha512: String::new(),
            min_ram: 0,
            min_disk: 0,
            virtual_size: 512,
            properties: BTreeMap::new(),
        })
    }
    async fn download(&self, _: ImageId, _: Option<&ImageGrant>) -> Result<Box<dyn ImageData>, ImageServiceError> {
        Ok(Box::new(Bytes(Some(vec![0xca; 512]), self.0)))
    }
    async fn upload(
        &self,
        _: ImageId,
        _: Option<&ImageGrant>,
        _: u64,
        _: Box<dyn ImageData>,
    ) -> Result<(), ImageServiceError> {
        Err(ImageServiceError::Unsupported("nothing is made here"))
    }
}

impl Volumes {
    pub async fn start(
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
        client: &(impl Fn(Role, &str) -> RpcClient + Sync),
        image_delay: Duration,
    ) -> Self {
        let images: Arc<dyn ImageService> = Arc::new(Images(image_delay));
        let manager = |role| {
            Arc::new(VolumeManager::new(VolumeParts {
                store: store.clone(),
                images: Some(images.clone()),
                rpc: client(role, "controller"),
                clock: clock.clone(),
                entropy: entropy.clone(),
                options: VolumeOptions::default(),
            }))
        };
        let own = manager(Role::Api);
        let mut volumes = Self {
            for_api: Arc::new(OwnBlockStorage::new(own.clone())),
            for_conductor: Arc::new(OwnBlockStorage::new(manager(Role::Conductor))),
            manager: own,
            disks: Arc::new(MemoryVolumes::new(1000, 1.0)),
            images,
            rpc: client(Role::Volume, "store1"),
            starts: 0,
            running: None,
        };
        volumes.start_host(store, clock, entropy, None).await;
        while store.list_volume_pools().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        volumes
    }

    /// The service of the volume host begins, with its own driver or another one over its disks. The one before it ends in the
    /// midst of what it has in hand.
    async fn start_host(
        &mut self,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
        driver: Option<Arc<dyn VolumeDriver>>,
    ) {
        drop(self.running.take());
        // It puts down what it has in hand.
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.starts += 1;
        let owner = format!("store1/{}", self.starts);
        let host = VolumeHost::new(nova::volume::service::Parts {
            store: store.clone(),
            driver: driver.unwrap_or_else(|| self.disks.clone()),
            images: Some(self.images.clone()),
            grants: None,
            rpc: self.rpc.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            options: HostOptions { host: "store1".into(), owner, ..HostOptions::default() },
        });
        self.running = Some(host.start().await.unwrap());
    }
}

impl Cloud {
    fn storage(&self) -> &Volumes {
        self.volumes.as_ref().unwrap()
    }

    /// Another service of the volume host takes the place of the one that is there.
    pub async fn replace_volume_host(&mut self, driver: Option<Arc<dyn VolumeDriver>>) {
        let Some(mut volumes) = self.volumes.take() else { return };
        let database: Arc<dyn Store> = self.database.clone();
        volumes.start_host(&database, &self.clock, &self.entropy, driver).await;
        self.volumes = Some(volumes);
    }

    /// One whose driver never answers from that call on, which are counted from now.
    pub async fn mortal_volume_host(&mut self, call: usize, after: bool) -> Arc<MortalDriver> {
        let driver = Arc::new(MortalDriver::new(self.storage().disks.clone(), call, after));
        self.replace_volume_host(Some(driver.clone())).await;
        // It is at rest.
        tokio::time::sleep(Duration::from_millis(50)).await;
        driver.arm();
        driver
    }

    /// The next call of that method of the volume host's driver fails for good.
    pub fn fail_volume(&self, method: &'static str) {
        self.storage().disks.fail_next(method, VolumeFault::Before(VolumeErrorKind::Failed));
    }

    /// The demo project, as a caller.
    pub fn demo(&self) -> RequestContext {
        let request_id = nova_core::ids::RequestId::generate(&*self.entropy);
        RequestContext {
            user_id: "demo".into(),
            project_id: self.project.clone(),
            roles: vec!["member".into()],
            ..RequestContext::internal(request_id)
        }
    }

    /// An empty volume of the demo project.
    pub async fn add_volume(&self, size_gb: u64) -> VolumeId {
        self.make_volume(CreateVolume { size_gb: Some(size_gb), ..CreateVolume::default() }).await
    }

    /// One that servers can boot from.
    pub async fn add_bootable_volume(&self) -> VolumeId {
        let made_of = MadeOf::Image(ImageId::generate(&*self.entropy));
        self.make_volume(CreateVolume { size_gb: Some(1), made_of, ..CreateVolume::default() }).await
    }

    pub async fn make_volume(&self, new: CreateVolume) -> VolumeId {
        let id = self.storage().manager.create(&self.demo(), new).await.unwrap().id;
        while self.volume(id).await.status != VolumeStatus::Available {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        id
    }

    pub async fn volume(&self, id: VolumeId) -> Volume {
        self.store.get_volume(id).await.unwrap()
    }

    pub async fn all_volumes(&self) -> Vec<Volume> {
        self.store.list_volumes(&ListQuery::default()).await.unwrap()
    }

    /// Servers' rows, guests and volumes agree (I7): no attachment without a device, no device without an attachment.
    pub async fn check_volumes(&self) {
        if self.volumes.is_none() {
            return;
        }
        let all = self.store.list_instances(&InstanceQuery::default()).await.unwrap();
        let volumes = self.all_volumes().await;
        for volume in &volumes {
            for attachment in volume.attachments.values() {
                let server = all.iter().find(|server| Some(server.id) == attachment.instance_id);
                let server = server.unwrap_or_else(|| panic!("an attachment of nobody: {volume:?}"));
                let holds = server.volumes.iter().flat_map(ServerVolume::all_holds);
                let known = holds.into_iter().any(|hold| hold.attachment_id == attachment.id);
                assert!(known, "an attachment that its server does not know: {attachment:?} {server:?}");
            }
        }
        for server in &all {
            let Some(host) = &server.host else {
                for volume in &server.volumes {
                    assert!(volume.holds.iter().all(|hold| hold.host.is_none()), "{server:?}");
                }
                continue;
            };
            let Ok(guest) = self.hosts[host].attached_disks(server.id).await else { continue };
            let has: BTreeSet<VolumeId> = guest.iter().map(|disk| disk.volume).collect();
            let should: BTreeSet<VolumeId> =
                server.volumes.iter().filter(|one| one.hold_of(host).is_some()).map(|one| one.volume_id).collect();
            assert_eq!(has, should, "devices and attachments of {server:?}");
            for one in server.volumes.iter().filter(|one| one.hold_of(host).is_some()) {
                let volume = volumes.iter().find(|volume| volume.id == one.volume_id).unwrap();
                let hold = one.hold_of(host).unwrap();
                let attachment = &volume.attachments[&hold.attachment_id];
                assert_eq!(attachment.host(), Some(host.as_str()), "{volume:?}");
            }
        }
    }
}
