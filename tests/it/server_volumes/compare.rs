//! Devices, rows and attachments that differ are found and mended by hosts and conductors: nobody has to ask for it.

use std::collections::BTreeSet;
use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeAttachmentId, VolumeId};
use nova_core::state::Action;
use nova_core::volume::VolumeStatus;
use nova_core::volume::connection::{AccessMode, ConnectionInfo, ConnectionTarget, Connector, FileFormat, FileTarget};
use nova_virt::{DiskAttachment, FakeHypervisor, Hypervisor};

use super::{attach, cloud_with_server, end, options};
use crate::support::{Cloud, CloudOptions};

/// Hosts compare devices every five minutes.
const COMPARED: Duration = Duration::from_secs(330);
/// Conductors compare attachments as often, and believe what they saw twice.
const SEEN_TWICE: Duration = Duration::from_secs(660);

async fn cloud() -> (Cloud, InstanceId, VolumeId) {
    let (cloud, server) = cloud_with_server(CloudOptions { hosts: 1, ..options() }).await;
    let volume = cloud.add_volume(1).await;
    assert_eq!(attach(&cloud, server, volume).await.0, 202);
    cloud.settle().await;
    (cloud, server, volume)
}

fn host(cloud: &Cloud) -> &FakeHypervisor {
    cloud.hosts.values().next().unwrap()
}

async fn devices(cloud: &Cloud, server: InstanceId) -> BTreeSet<VolumeId> {
    host(cloud).attached_disks(server).await.unwrap().into_iter().map(|disk| disk.volume).collect()
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_the_servers_goes() {
    let (cloud, server, volume) = cloud().await;
    let strange = cloud.add_volume(1).await;
    let target = ConnectionTarget::File(FileTarget { path: "/elsewhere".into(), format: FileFormat::Raw });
    let connection = ConnectionInfo { volume_id: strange, access_mode: AccessMode::ReadWrite, target };
    host(&cloud).attach_disk(server, &DiskAttachment::new(connection)).await.unwrap();
    assert_eq!(devices(&cloud, server).await, [volume, strange].into());
    cloud.pass(COMPARED).await;
    assert_eq!(devices(&cloud, server).await, [volume].into());
    cloud.check().await;
    end(cloud, server).await;
}

/// Of a guest that runs, and of one that is off.
#[tokio::test(start_paused = true)]
async fn a_device_that_the_server_should_have_comes_again() {
    let (cloud, server, volume) = cloud().await;
    for off in [false, true] {
        if off {
            assert!(cloud.act(server, Action::Stop).await);
            cloud.settle().await;
        }
        host(&cloud).detach_disk(server, volume).await.unwrap();
        assert_eq!(devices(&cloud, server).await, [].into());
        cloud.pass(COMPARED).await;
        assert_eq!(devices(&cloud, server).await, [volume].into(), "off: {off}");
        assert_eq!(cloud.volume(volume).await.status, VolumeStatus::InUse);
        cloud.check().await;
    }
    end(cloud, server).await;
}

/// A guest in rescue has other disks than its own: nobody touches them.
#[tokio::test(start_paused = true)]
async fn a_guest_in_rescue_is_left_alone() {
    let (cloud, server, volume) = cloud().await;
    assert!(cloud.act(server, Action::Rescue).await);
    cloud.settle().await;
    host(&cloud).detach_disk(server, volume).await.unwrap();
    cloud.pass(COMPARED).await;
    assert_eq!(devices(&cloud, server).await, [].into());
    assert!(cloud.act(server, Action::Unrescue).await);
    cloud.settle().await;
    cloud.pass(COMPARED).await;
    assert_eq!(devices(&cloud, server).await, [volume].into());
    cloud.check().await;
    end(cloud, server).await;
}

/// A promise, and one with a host: as a conductor leaves them that dies right after it asked.
#[tokio::test(start_paused = true)]
async fn attachments_that_no_server_knows_of_are_given_back() {
    let (cloud, server, volume) = cloud().await;
    let (promised, connected, strange) =
        (cloud.add_volume(1).await, cloud.add_volume(1).await, cloud.add_volume(1).await);
    let manager = cloud.volumes.as_ref().unwrap().manager.clone();
    let nobody = InstanceId::generate(&*cloud.entropy);
    for (id, of) in [(promised, server), (connected, server), (strange, nobody)] {
        let key = VolumeAttachmentId::generate(&*cloud.entropy);
        manager.reserve_as(&cloud.demo(), id, key, Some(of), AccessMode::ReadWrite).await.unwrap();
        if id == connected {
            let name = cloud.hosts.keys().next().unwrap().clone();
            manager.connect(&cloud.demo(), key, &Connector::of(name)).await.unwrap();
        }
    }
    let found = crate::check::violations(&cloud).await;
    assert_eq!(found.iter().filter(|one| one.invariant == "I7").count(), 3, "{found:?}");
    cloud.pass(SEEN_TWICE).await;
    for id in [promised, connected] {
        let now = cloud.volume(id).await;
        assert_eq!((now.status, now.attachments.len()), (VolumeStatus::Available, 0));
    }
    assert_eq!(cloud.volume(volume).await.status, VolumeStatus::InUse, "its server knows of it");
    let stays = cloud.volume(strange).await;
    assert_eq!(stays.attachments.len(), 1, "it may be another cloud's: {stays:?}");
    let key = *stays.attachments.keys().next().unwrap();
    manager.release(&cloud.demo(), key).await.unwrap();
    end(cloud, server).await;
}
