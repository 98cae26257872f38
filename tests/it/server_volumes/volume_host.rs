//! The volume host ends at each call of its driver, before and after it, while servers are given volumes, lose them, and boot
//! from them; another one is started in its place.

use std::time::Duration;

use nova_core::ids::InstanceId;
use nova_core::state::VmState;
use serde_json::json;

use super::options;
use super::sweep::Deed;
use crate::support::{Cloud, CloudOptions};

/// More calls than any of the operations makes.
const CALLS: usize = 20;

async fn dies_while(deed: Deed) {
    for call in 0..CALLS {
        let mut died = false;
        for after in [false, true] {
            let (mut cloud, server, volume) = deed.cloud().await;
            let driver = cloud.mortal_volume_host(call, after).await;
            deed.begin(&cloud, server, volume).await;
            cloud.pass(Duration::from_secs(3)).await;
            died |= driver.is_dead();
            cloud.replace_volume_host(None).await;
            deed.judge(&cloud, server, volume, &format!("the volume host died at {call}, after: {after}")).await;
            assert_eq!(cloud.get(server).await.volumes.is_empty(), deed == Deed::Detach, "it was made up for: {call}");
            deed.end(cloud, server).await;
        }
        if !died {
            assert!(call > 0, "{deed:?} never asks the driver");
            return;
        }
    }
    panic!("{deed:?}: more calls than were tried");
}

#[tokio::test(start_paused = true)]
async fn attaching() {
    dies_while(Deed::Attach).await;
}

#[tokio::test(start_paused = true)]
async fn detaching() {
    dies_while(Deed::Detach).await;
}

#[tokio::test(start_paused = true)]
async fn booting_from_a_volume_and_deleting() {
    for deletes in [false, true] {
        for call in 0..CALLS {
            let mut died = false;
            for after in [false, true] {
                let mut cloud = Cloud::start(CloudOptions { hosts: 2, ..options() }).await;
                let image = nova_core::ids::ImageId::generate(&*cloud.entropy);
                let boot = json!({"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0,
                    "volume_size": 1, "delete_on_termination": true});
                let mut driver = None;
                if !deletes {
                    driver = Some(cloud.mortal_volume_host(call, after).await);
                }
                let (status, answer) = super::boot_with(&cloud, json!([boot])).await;
                assert_eq!(status, 202, "{answer}");
                let id: InstanceId = answer["server"]["id"].as_str().unwrap().parse().unwrap();
                if deletes {
                    cloud.settle().await;
                    driver = Some(cloud.mortal_volume_host(call, after).await);
                    assert!(cloud.act(id, nova_core::state::Action::Delete).await);
                }
                cloud.pass(Duration::from_secs(3)).await;
                died |= driver.is_some_and(|driver| driver.is_dead());
                cloud.replace_volume_host(None).await;
                cloud.settle().await;
                cloud.pass(Duration::from_secs(60)).await;
                let (server, how) = (cloud.get(id).await, format!("at {call}, after: {after}, deletes: {deletes}"));
                if deletes {
                    assert!(server.is_deleted() && cloud.all_volumes().await.is_empty(), "{how}: {server:?}");
                    cloud.check().await;
                    cloud.stop().await;
                } else {
                    assert_eq!(server.vm_state, VmState::Active, "{how}: {server:?}");
                    assert_eq!(cloud.all_volumes().await.len(), 1, "{how}: made once");
                    cloud.check().await;
                    super::end_with_volumes(cloud, id).await;
                }
            }
            if !died {
                assert!(call > 0, "it never asks the driver");
                break;
            }
        }
    }
}
