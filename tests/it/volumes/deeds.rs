//! What users do with volumes.

use nova::volume::MadeOf;
use nova_core::ids::InstanceId;
use nova_core::image::{ImageStatus, Visibility};
use nova_core::volume::connection::Connector;
use nova_core::volume::{AccessMode, AttachmentStatus, SnapshotStatus, VolumeStatus};

use super::world::{IMAGE, World};

/// One operation, upon a volume of 2 GiB that is called `there`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deed {
    Create,
    CreateFromImage,
    CreateFromSnapshot,
    CreateFromVolume,
    Delete,
    DeleteWithSnapshots,
    Extend,
    TakeSnapshot,
    DeleteSnapshot,
    Upload,
    Reimage,
    Connect,
    CompleteAttachment,
    Release,
}

impl Deed {
    pub const ALL: [Self; 14] = [
        Self::Create,
        Self::CreateFromImage,
        Self::CreateFromSnapshot,
        Self::CreateFromVolume,
        Self::Delete,
        Self::DeleteWithSnapshots,
        Self::Extend,
        Self::TakeSnapshot,
        Self::DeleteSnapshot,
        Self::Upload,
        Self::Reimage,
        Self::Connect,
        Self::CompleteAttachment,
        Self::Release,
    ];

    /// It asks nothing of the driver.
    pub fn is_quiet(self) -> bool {
        self == Self::CompleteAttachment
    }

    /// What there is before.
    pub async fn prepare(self, world: &World) {
        let there = world.create("there", 2, MadeOf::Nothing).await.unwrap();
        world.settled().await;
        let user = world.user();
        if matches!(self, Self::CreateFromSnapshot | Self::DeleteWithSnapshots | Self::DeleteSnapshot) {
            world.manager.take_snapshot(&user, there, "moment", "", &Default::default(), false).await.unwrap();
            world.settled().await;
        }
        if matches!(self, Self::CompleteAttachment | Self::Release) {
            let server = InstanceId::generate(&*world.entropy);
            let (_, attachment) =
                world.manager.reserve(&user, there, Some(server), AccessMode::ReadWrite).await.unwrap();
            world.manager.connect(&user, attachment.id, &Connector::of("compute1".into())).await.unwrap();
        }
        if self == Self::Connect {
            let server = InstanceId::generate(&*world.entropy);
            world.manager.reserve(&user, there, Some(server), AccessMode::ReadWrite).await.unwrap();
        }
    }

    /// What is asked for. Its answer may never come.
    pub async fn done(self, world: &World) {
        let (user, there) = (world.user(), world.there().await);
        let id = there.id;
        match self {
            Self::Create => drop(world.create("new", 3, MadeOf::Nothing).await),
            Self::CreateFromImage => drop(world.create("new", 3, MadeOf::Image(IMAGE.parse().unwrap())).await),
            Self::CreateFromVolume => drop(world.create("new", 3, MadeOf::Volume(id)).await),
            Self::CreateFromSnapshot => {
                let snapshot = world.snapshots().await[0].id;
                drop(world.create("new", 3, MadeOf::Snapshot(snapshot)).await);
            }
            Self::Delete => world.manager.delete(&user, id, false, false).await.unwrap(),
            Self::DeleteWithSnapshots => world.manager.delete(&user, id, true, false).await.unwrap(),
            Self::Extend => world.manager.extend(&user, id, 5, false).await.unwrap(),
            Self::TakeSnapshot => {
                let taken = world.manager.take_snapshot(&user, id, "moment", "", &Default::default(), false).await;
                taken.unwrap();
            }
            Self::DeleteSnapshot => {
                let snapshot = world.snapshots().await[0].id;
                world.manager.delete_snapshot(&user, snapshot, false).await.unwrap();
            }
            Self::Upload => {
                let asked = world.manager.upload(&user, id, "image", "raw", Visibility::Private, false).await;
                asked.unwrap();
            }
            Self::Reimage => {
                world.manager.reimage(&user, id, IMAGE.parse().unwrap(), false).await.unwrap();
            }
            // Who waits for these may be told that the host does not answer.
            Self::Connect => {
                let attachment = *there.attachments.keys().next().unwrap();
                drop(world.manager.connect(&user, attachment, &Connector::of("compute1".into())).await);
            }
            Self::CompleteAttachment => {
                let attachment = *there.attachments.keys().next().unwrap();
                world.manager.complete(&user, attachment, Some("/dev/vdb")).await.unwrap();
            }
            Self::Release => {
                let attachment = *there.attachments.keys().next().unwrap();
                drop(world.manager.release(&user, attachment).await);
            }
        }
        world.settled().await;
    }

    /// It is as if nothing had gone wrong.
    pub async fn ended_well(self, world: &World) {
        let volumes = world.volumes().await;
        let named = |name: &str| volumes.iter().find(|volume| volume.name == name);
        match self {
            Self::Create | Self::CreateFromImage | Self::CreateFromSnapshot | Self::CreateFromVolume => {
                let new = named("new").unwrap();
                assert_eq!((new.status, new.size_gb), (VolumeStatus::Available, 3), "{self:?} {:?}", new.fault);
                assert_eq!(new.bootable, self == Self::CreateFromImage);
                if self == Self::CreateFromImage {
                    world.holds_image(new.id).await;
                }
            }
            Self::Delete | Self::DeleteWithSnapshots => {
                assert!(named("there").is_none() && world.snapshots().await.is_empty(), "{self:?}");
            }
            Self::Extend => {
                let there = named("there").unwrap();
                assert_eq!((there.status, there.size_gb), (VolumeStatus::Available, 5), "{:?}", there.fault);
            }
            Self::TakeSnapshot => assert_eq!(world.snapshots().await[0].status, SnapshotStatus::Available),
            Self::DeleteSnapshot => assert!(world.snapshots().await.is_empty()),
            Self::Upload => {
                assert_eq!(named("there").unwrap().status, VolumeStatus::Available);
                assert_eq!(world.images_made().await, [ImageStatus::Active]);
            }
            Self::Reimage => {
                let there = named("there").unwrap();
                assert_eq!((there.status, there.bootable), (VolumeStatus::Available, true), "{:?}", there.fault);
                assert_eq!(there.image_metadata["image_id"], IMAGE);
                world.holds_image(there.id).await;
            }
            Self::Connect => {
                let there = named("there").unwrap();
                let attachment = there.attachments.values().next().unwrap();
                assert_eq!((there.status, attachment.status), (VolumeStatus::Attaching, AttachmentStatus::Attaching));
                assert!(attachment.connection_info.is_some());
            }
            Self::CompleteAttachment => assert_eq!(named("there").unwrap().status, VolumeStatus::InUse),
            Self::Release => {
                let there = named("there").unwrap();
                assert_eq!((there.status, there.attachments.len()), (VolumeStatus::Available, 0));
            }
        }
    }
}
