//! Broker and database go away in the midst of each message, and of each question and transaction, of what is done with volumes of
//! servers, and come back. What was accepted is done, what was not may be; nothing is left without an owner.

use std::time::Duration;

use nova_core::ids::{ImageId, InstanceId};
use nova_core::state::{Action, VmState};
use serde_json::json;

use super::images::{create_image, id_of, judge, server_of_volumes};
use super::rebuild::{is_of, rebuild, with_server};
use super::sweep::Deed;
use super::{boot_with, end_with_volumes, options};
use crate::support::outage::Gone;
use crate::support::{Cloud, CloudOptions};

/// More messages, questions and transactions than any of the operations takes.
const MOMENTS: u32 = 400;

/// Does something, with something gone from each moment on; until it is over before that.
async fn at_each_moment(deed: impl AsyncFn(Gone, u32) -> bool) {
    for gone in Gone::all() {
        let mut moment = 0;
        while deed(gone, moment).await {
            moment += 1;
            assert!(moment < MOMENTS, "{gone:?}: more moments than were tried");
        }
        assert!(moment > 2, "{gone:?}: it asks for nothing");
    }
}

/// Was it accepted? What the API said of an operation that it could not write may be wrong: its answer was lost.
fn accepted(status: u16, how: &str) -> bool {
    assert!(matches!(status, 202 | 204 | 500 | 503), "{how}: {status}");
    status < 300
}

async fn all_is_over(cloud: &Cloud) {
    cloud.settle().await;
    cloud.pass(Duration::from_secs(250)).await;
    cloud.settle().await;
}

async fn plugging(deed: Deed) {
    at_each_moment(async |gone, moment| {
        let how = format!("{gone:?} at {moment}");
        let (cloud, server, volume) = deed.cloud().await;
        let (status, went) = gone.in_the_midst(&cloud, moment, deed.ask(&cloud, server, volume)).await;
        deed.judge(&cloud, server, volume, &how).await;
        let done = deed.is_done(&cloud, server, volume).await;
        assert!(done || !accepted(status, &how), "{deed:?}, {how}: it was accepted");
        deed.end(cloud, server).await;
        went
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn attaching() {
    plugging(Deed::Attach).await;
}

#[tokio::test(start_paused = true)]
async fn detaching() {
    plugging(Deed::Detach).await;
}

#[tokio::test(start_paused = true)]
async fn swapping() {
    plugging(Deed::Swap).await;
}

#[tokio::test(start_paused = true)]
async fn booting_from_a_volume() {
    at_each_moment(async |gone, moment| {
        let how = format!("{gone:?} at {moment}");
        let cloud = Cloud::start(CloudOptions { hosts: 2, ..options() }).await;
        let image = ImageId::generate(&*cloud.entropy);
        let boot = json!([{"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0,
            "volume_size": 1, "delete_on_termination": true}]);
        let ((status, _), went) = gone.in_the_midst(&cloud, moment, boot_with(&cloud, boot)).await;
        all_is_over(&cloud).await;
        let servers = cloud.store.list_instances(&Default::default()).await.unwrap();
        assert_eq!(cloud.all_volumes().await.len(), servers.len(), "{how}: made once");
        cloud.check().await;
        match &servers[..] {
            [] => {
                assert!(!accepted(status, &how), "{how}: it was accepted");
                cloud.stop().await;
            }
            [server] => {
                assert_eq!(server.vm_state, VmState::Active, "{how}: {server:?}");
                end_with_volumes(cloud, server.id).await;
            }
            more => panic!("{how}: {more:?}"),
        }
        went
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleting() {
    at_each_moment(async |gone, moment| {
        let how = format!("{gone:?} at {moment}");
        let (cloud, server) = deletable().await;
        let path = format!("/compute/v2.1/servers/{server}");
        let ((status, _), went) = gone.in_the_midst(&cloud, moment, cloud.call("DELETE", &path, None)).await;
        all_is_over(&cloud).await;
        let row = cloud.get(server).await;
        assert!(row.is_deleted() || !accepted(status, &how), "{how}: it was accepted");
        if !row.is_deleted() {
            assert_eq!(row.vm_state, VmState::Active, "{how}: {row:?}");
            cloud.check().await;
            assert!(cloud.act(server, Action::Delete).await, "{how}");
            all_is_over(&cloud).await;
        }
        let left = cloud.all_volumes().await;
        assert!(left.len() == 1 && left[0].attachments.is_empty(), "{how}: {left:?}");
        cloud.check().await;
        cloud.stop().await;
        went
    })
    .await;
}

/// A server with a volume that goes with it, and one that does not.
async fn deletable() -> (Cloud, InstanceId) {
    let cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
    let kept = cloud.add_volume(1).await;
    let image = ImageId::generate(&*cloud.entropy);
    let boot = json!([
        {"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0, "volume_size": 1,
            "delete_on_termination": true},
        {"source_type": "volume", "destination_type": "volume", "uuid": kept},
    ]);
    let (status, answer) = boot_with(&cloud, boot).await;
    assert_eq!(status, 202, "{answer}");
    cloud.settle().await;
    (cloud, id_of(&answer))
}

#[tokio::test(start_paused = true)]
async fn making_an_image() {
    at_each_moment(async |gone, moment| {
        let how = format!("{gone:?} at {moment}");
        let cloud = Cloud::start(CloudOptions { hosts: 1, ..options() }).await;
        let server = server_of_volumes(&cloud).await;
        let ((status, _), went) = gone.in_the_midst(&cloud, moment, create_image(&cloud, server)).await;
        let made = judge(&cloud, &how).await;
        assert!(made || !accepted(status, &how), "{how}: it was accepted");
        assert_eq!(cloud.get(server).await.vm_state, VmState::Active, "{how}");
        cloud.stop().await;
        went
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rebuilding() {
    at_each_moment(async |gone, moment| {
        let how = format!("{gone:?} at {moment}");
        let (cloud, server, root) = with_server(CloudOptions { hosts: 1, ..options() }).await;
        let image = ImageId::generate(&*cloud.entropy);
        let ((status, _), went) = gone.in_the_midst(&cloud, moment, rebuild(&cloud, 104, server, image)).await;
        all_is_over(&cloud).await;
        let row = cloud.get(server).await;
        assert_eq!(row.vm_state, VmState::Active, "{how}: {row:?}");
        let now = cloud.volume(root).await.image_id.unwrap();
        assert!(now == image || !accepted(status, &how), "{how}: it was accepted");
        is_of(&cloud, server, root, now).await;
        end_with_volumes(cloud, server).await;
        went
    })
    .await;
}
