//! Servers that wait for volumes that are being made for them.

use std::time::Duration;

use jiff::SignedDuration;
use nova_core::ids::InstanceId;
use nova_core::state::VmState;
use nova_core::volume::VolumeStatus;
use nova_queue::Chances;
use serde_json::json;

use super::{boot_with, end_with_volumes, options};
use crate::support::{Cloud, CloudOptions};

/// Not a moment at which a sweep would look by chance.
const DELAY: Duration = Duration::from_millis(23_456);

async fn boot(cloud: &Cloud) -> InstanceId {
    let image = nova_core::ids::ImageId::generate(&*cloud.entropy);
    let of_image = json!({"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0,
        "volume_size": 2, "delete_on_termination": true});
    let blank = json!({"source_type": "blank", "destination_type": "volume", "volume_size": 1,
        "delete_on_termination": true});
    let (status, answer) = boot_with(cloud, json!([of_image, blank])).await;
    assert_eq!(status, 202, "{answer}");
    answer["server"]["id"].as_str().unwrap().parse().unwrap()
}

/// From the volume's end to the server's: `None`: one of both is not over.
async fn took(cloud: &Cloud, id: InstanceId) -> Option<SignedDuration> {
    let server = cloud.get(id).await;
    let volume = cloud.volume(server.volumes.first()?.volume_id).await;
    Some(server.launched_at?.duration_since(volume.launched_at?))
}

#[tokio::test(start_paused = true)]
async fn the_end_of_its_making_lets_a_server_go_on_at_once() {
    let cloud = Cloud::start(CloudOptions { image_delay: DELAY, ..options() }).await;
    let id = boot(&cloud).await;
    cloud.pass(Duration::from_secs(20)).await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Building);
    // It rests: nobody holds it, and everybody may go on with it.
    let [task] = &cloud.store.list_tasks(Some(id)).await.unwrap()[..] else { panic!("one task") };
    assert_eq!(task.owner, None);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    let took = took(&cloud, id).await.unwrap();
    assert!(took < SignedDuration::from_millis(200), "{took}");
    cloud.check().await;
    end_with_volumes(cloud, id).await;
}

#[tokio::test(start_paused = true)]
async fn a_word_that_is_lost_only_costs_time() {
    let cloud = Cloud::start(CloudOptions { image_delay: DELAY, ..options() }).await;
    let id = boot(&cloud).await;
    cloud.pass(Duration::from_secs(22)).await;
    cloud.set_chances(Chances { lose: 1000, ..Chances::default() });
    cloud.pass(Duration::from_secs(2)).await;
    cloud.set_chances(Chances::default());
    assert_eq!(cloud.get(id).await.vm_state, VmState::Building, "it was told");
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    let took = took(&cloud, id).await.unwrap();
    assert!(took < SignedDuration::from_secs(25), "{took}");
    end_with_volumes(cloud, id).await;
}

/// A volume that cannot be made is known at once, too.
#[tokio::test(start_paused = true)]
async fn the_failure_of_its_making_ends_the_build_at_once() {
    let cloud = Cloud::start(CloudOptions { image_delay: DELAY, ..options() }).await;
    let id = boot(&cloud).await;
    cloud.pass(Duration::from_secs(20)).await;
    let begun = cloud.now();
    cloud.fail_volume("write_image");
    cloud.settle().await;
    let server = cloud.get(id).await;
    let fault = server.fault.clone().unwrap();
    assert_eq!(server.vm_state, VmState::Error);
    assert!(fault.message.contains("did not finish being created"), "{fault:?}");
    assert!(cloud.now().duration_since(begun) < SignedDuration::from_secs(5), "{}", cloud.now());
    cloud.check().await;
    let left: Vec<_> = cloud.all_volumes().await.iter().map(|volume| volume.status).collect();
    assert!(!left.contains(&VolumeStatus::Downloading), "{left:?}");
    end_with_volumes(cloud, id).await;
}
