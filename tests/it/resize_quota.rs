//! A server that is being resized counts for the larger of both flavors from the moment that was asked for.

use nova_core::ids::InstanceId;
use nova_core::quota::Usage;
use nova_core::state::VmState;
use nova_virt::{ErrorKind, Operation};
use serde_json::json;

use crate::support::{Cloud, CloudOptions};

impl Cloud {
    async fn limit_cores(&self, cores: u64) {
        let project = self.store.list_projects(Some("demo")).await.unwrap().remove(0).id;
        let path = format!("/compute/v2.1/os-quota-sets/{project}");
        let body = json!({"quota_set": {"cores": cores, "force": true}});
        let (status, answer) = self.call_as_admin("PUT", &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn used(&self) -> Usage {
        let project = self.store.list_projects(Some("demo")).await.unwrap().remove(0).id;
        self.store.usage(&project).await.unwrap()
    }

    async fn resize(&self, id: InstanceId, flavor: &str) -> (u16, String) {
        self.action(id, json!({"resize": {"flavorRef": flavor}})).await
    }
}

#[tokio::test(start_paused = true)]
async fn two_resizes_that_fit_only_one_by_one_do_not_both_begin() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    cloud.stored_flavor(2, 512).await;
    let servers = cloud.boot(2, cloud.flavor(1, 256)).await.unwrap();
    cloud.settle().await;
    cloud.limit_cores(3).await;
    let (one, other) = (cloud.resize(servers[0], "2-512"), cloud.resize(servers[1], "2-512"));
    let answers: [(u16, String); 2] = tokio::join!(one, other).into();
    let mut codes = answers.clone().map(|(status, _)| status);
    codes.sort_unstable();
    assert_eq!(codes, [202, 403], "{answers:?}");
    let refused = answers.iter().find(|(status, _)| *status == 403).unwrap();
    assert!(refused.1.contains("Quota exceeded for cores: Requested 1, but already used 3 of 3 cores"), "{refused:?}");
    assert_eq!(cloud.used().await.cores, 3, "it counts while it is being resized");
    cloud.settle().await;
    assert_eq!(cloud.used().await, Usage { instances: 2, cores: 3, ram: 768 });
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_fails_gives_back_what_it_took_of_the_quota() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    cloud.stored_flavor(2, 512).await;
    let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    cloud.hosts.values().for_each(|host| host.fail_next(Operation::Stash, 1, ErrorKind::Failed));
    assert_eq!(cloud.resize(id, "2-512").await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.get(id).await.vm_state, VmState::Active);
    assert_eq!(cloud.used().await, Usage { instances: 1, cores: 1, ram: 256 });
    cloud.check_still(id).await;
    cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_goes_back_to_a_larger_flavor_only_if_it_fits() {
    let cloud = Cloud::start(CloudOptions::default()).await;
    cloud.stored_flavor(1, 256).await;
    let id = cloud.boot(1, cloud.flavor(2, 512)).await.unwrap()[0];
    cloud.settle().await;
    cloud.limit_cores(2).await;
    assert_eq!(cloud.resize(id, "1-256").await.0, 202);
    cloud.settle().await;
    assert_eq!(cloud.used().await.cores, 1, "what it gave back can be had");
    let other = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
    cloud.settle().await;
    let (status, answer) = cloud.action(id, json!({"revertResize": null})).await;
    assert_eq!((status, answer.contains("Quota exceeded for cores")), (403, true), "{answer}");
    assert_eq!(cloud.get(id).await.vm_state, VmState::Resized);
    assert!(cloud.act(other, nova_core::state::Action::Delete).await);
    cloud.settle().await;
    assert_eq!(cloud.action(id, json!({"revertResize": null})).await.0, 202);
    assert_eq!(cloud.used().await.cores, 2);
    cloud.settle().await;
    assert_eq!(cloud.used().await, Usage { instances: 1, cores: 2, ram: 512 });
    cloud.check_still(id).await;
    cloud.stop().await;
}
