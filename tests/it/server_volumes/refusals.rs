//! What fails and cannot be taken back, since those whose it is refuse for good: it ends all the same, in the state that it would end
//! in, with a word for administrators of what is left. What nobody knows of is given back when that can be done.

use std::time::Duration;

use nova_core::ids::{ImageId, InstanceId};
use nova_core::state::{Action, VmState};
use nova_core::task::Work;
use nova_core::volume::VolumeStatus;
use nova_virt::{ErrorKind, Operation};
use serde_json::json;

use super::images::id_of;
use super::sweep::Deed;
use super::{boot_with, end, options};
use crate::support::mortal::Life;
use crate::support::networks::{on, these};
use crate::support::{Cloud, CloudOptions};

/// Longer than it is insisted on anything, and than it takes until it is looked twice for what is nobody's.
const LONG_ENOUGH: Duration = Duration::from_secs(700);

/// What the last operation on the server failed of, for administrators.
pub(super) async fn details(cloud: &Cloud, server: InstanceId) -> String {
    assert!(cloud.store.list_tasks(None).await.unwrap().is_empty(), "it goes on: {:?}", cloud.get(server).await);
    let actions = cloud.store.list_actions(server).await.unwrap();
    assert!(actions.iter().all(|action| action.finished.is_some()), "{actions:?}");
    cloud.get(server).await.fault.unwrap().details
}

async fn plugging(deed: Deed, operation: Operation) {
    let (mut cloud, server, volume) = deed.cloud().await;
    let life = Life::long();
    cloud.replace_conductor("refused", Some(life.clone())).await;
    cloud.hosts.values().next().unwrap().fail_next(operation, 1, ErrorKind::Failed);
    life.refuse(true);
    assert_eq!(deed.ask(&cloud, server, volume).await, 202);
    cloud.pass(LONG_ENOUGH).await;
    let row = cloud.get(server).await;
    assert_eq!(row.volumes.len(), usize::from(deed != Deed::Attach), "{row:?}");
    assert!(row.volumes.iter().all(|known| known.swap.is_none()), "{row:?}");
    let details = details(&cloud, server).await;
    assert!(details.contains("left as it is: attachment"), "{details}");
    let held: usize = cloud.all_volumes().await.iter().map(|one| one.attachments.len()).sum();
    assert_eq!(held, row.volumes.len() + 1, "one is nobody's");
    life.refuse(false);
    cloud.pass(LONG_ENOUGH).await;
    match deed {
        Deed::Attach => deed.judge(&cloud, server, volume, "refused").await,
        // That it is not being detached any more was refused as well.
        _ => assert!(details.contains(&format!("volume {volume}, which is still told to be detached")), "{details}"),
    }
    let held: usize = cloud.all_volumes().await.iter().map(|one| one.attachments.len()).sum();
    assert_eq!(held, row.volumes.len(), "what is nobody's is given back");
    deed.end(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn attaching() {
    plugging(Deed::Attach, Operation::AttachDisk).await;
}

#[tokio::test(start_paused = true)]
async fn swapping() {
    plugging(Deed::Swap, Operation::SwapDisk).await;
}

/// A swap that was done is done, though the old volume is not given back.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_swap() {
    let (mut cloud, server, volume) = Deed::Swap.cloud().await;
    let life = Life::long();
    cloud.replace_conductor("refused", Some(life.clone())).await;
    life.refuse(true);
    assert_eq!(Deed::Swap.ask(&cloud, server, volume).await, 202);
    cloud.pass(Duration::from_secs(3)).await;
    assert!(cloud.store.list_tasks(None).await.unwrap().is_empty(), "it goes on: {:?}", cloud.get(server).await);
    let row = cloud.get(server).await;
    assert!(row.volume(volume).is_none() && row.fault.is_none(), "{row:?}");
    assert_eq!(cloud.volume(volume).await.attachments.len(), 1);
    life.refuse(false);
    cloud.pass(LONG_ENOUGH).await;
    Deed::Swap.judge(&cloud, server, volume, "refused").await;
    end(cloud, server).await;
}

#[tokio::test(start_paused = true)]
async fn booting_from_a_volume() {
    let mut cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
    let life = Life::long();
    cloud.replace_conductor("refused", Some(life.clone())).await;
    cloud.hosts.values().next().unwrap().fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    life.refuse(true);
    let image = ImageId::generate(&*cloud.entropy);
    let boot = json!([{"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0,
        "volume_size": 1, "delete_on_termination": true}]);
    let (status, answer) = boot_with(&cloud, boot).await;
    assert_eq!(status, 202, "{answer}");
    let server = id_of(&answer);
    cloud.pass(LONG_ENOUGH).await;
    let row = cloud.get(server).await;
    assert_eq!((row.vm_state, row.task_state, &row.host), (VmState::Error, None, &None), "{row:?}");
    let details = details(&cloud, server).await;
    assert!(details.contains("left as it is: attachment"), "{details}");
    life.refuse(false);
    cloud.pass(LONG_ENOUGH).await;
    let left = cloud.all_volumes().await;
    assert!(left.iter().all(|one| one.attachments.is_empty() && one.status == VolumeStatus::Available), "{left:?}");
    assert!(cloud.act(server, Action::Delete).await);
    cloud.settle().await;
    cloud.pass(Duration::from_secs(30)).await;
    assert!(cloud.all_volumes().await.is_empty(), "it goes with its server");
    cloud.check().await;
    cloud.stop().await;
}

/// The same of ports: of a build, and of an interface that is not plugged in.
#[tokio::test(start_paused = true)]
async fn ports() {
    let mut cloud = Cloud::start(CloudOptions { hosts: 1, ..CloudOptions::default() }).await;
    let network = cloud.add_network("10.0.0.0/24").await.id;
    let life = Life::long();
    cloud.replace_conductor("refused", Some(life.clone())).await;
    let host = cloud.hosts.values().next().unwrap().clone();
    host.fail_next(Operation::Spawn, 1, ErrorKind::Failed);
    life.refuse(true);
    let failed = cloud.boot_on(these([on(network)]), cloud.flavor(1, 256)).await;
    cloud.pass(LONG_ENOUGH).await;
    assert_eq!(cloud.get(failed).await.vm_state, VmState::Error);
    let said = details(&cloud, failed).await;
    assert!(said.contains("left as it is: its ports"), "{said}");

    life.refuse(false);
    let server = cloud.boot_on(these([on(network)]), cloud.flavor(1, 256)).await;
    cloud.settle().await;
    assert_eq!(cloud.get(server).await.vm_state, VmState::Active);
    host.fail_next(Operation::AttachInterface, 1, ErrorKind::Failed);
    life.refuse(true);
    cloud.change_interface(server, Work::AttachInterface { interface: on(network) }).await.unwrap();
    cloud.pass(LONG_ENOUGH).await;
    let said = details(&cloud, server).await;
    assert!(said.contains("left as it is: port"), "{said}");
    life.refuse(false);
    for one in [failed, server] {
        assert!(cloud.act(one, Action::Delete).await);
    }
    cloud.settle().await;
    cloud.pass(LONG_ENOUGH).await;
    assert!(cloud.ports().await.is_empty(), "{:?}", cloud.ports().await);
    cloud.check().await;
    cloud.stop().await;
}
