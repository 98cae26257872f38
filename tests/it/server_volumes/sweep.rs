//! Attaching, detaching, swapping, booting from a volume, cut off everywhere: conductor and host die at each moment, drivers fail before
//! and after their effect, orders come twice, the server is deleted in the midst of it. After each, volumes, rows and guests
//! agree, and nothing is left without an owner.

use std::time::Duration;

use nova_core::ids::{InstanceId, VolumeId};
use nova_core::state::{Action, VmState};
use nova_core::volume::VolumeStatus;
use nova_queue::Chances;
use nova_virt::{ErrorKind, Operation};
use serde_json::json;

use super::swap::swap;
use super::{attach, cloud_with_server, detach, options};
use crate::support::mortal::Life;
use crate::support::{Cloud, CloudOptions};

/// More moments than any of the operations has.
const MOMENTS: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Deed {
    Attach,
    Detach,
    Swap,
}

impl Deed {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::Attach => Operation::AttachDisk,
            Self::Detach => Operation::DetachDisk,
            Self::Swap => Operation::SwapDisk,
        }
    }

    pub(super) async fn cloud(self) -> (Cloud, InstanceId, VolumeId) {
        let (cloud, server) = cloud_with_server(CloudOptions { hosts: 1, ..options() }).await;
        let volume = cloud.add_volume(1).await;
        if self != Self::Attach {
            assert_eq!(attach(&cloud, server, volume).await.0, 202);
            cloud.settle().await;
        }
        if self == Self::Swap {
            cloud.add_volume(2).await;
        }
        (cloud, server, volume)
    }

    /// Whether the API answers is not the question: a conductor that dies may keep it waiting.
    pub(super) async fn begin(self, cloud: &Cloud, server: InstanceId, volume: VolumeId) {
        let _ = tokio::time::timeout(Duration::from_secs(3), self.ask(cloud, server, volume)).await;
    }

    pub(super) async fn ask(self, cloud: &Cloud, server: InstanceId, volume: VolumeId) -> u16 {
        match self {
            Self::Attach => attach(cloud, server, volume).await.0,
            Self::Detach => detach(cloud, server, volume).await,
            Self::Swap => {
                let other = cloud.all_volumes().await.into_iter().find(|one| one.id != volume).unwrap();
                swap(cloud, server, volume, other.id).await.0
            }
        }
    }

    pub(super) async fn judge(self, cloud: &Cloud, server: InstanceId, volume: VolumeId, how: &str) {
        cloud.settle().await;
        cloud.pass(Duration::from_secs(250)).await;
        cloud.settle().await;
        let row = cloud.get(server).await;
        assert_eq!(row.vm_state, VmState::Active, "{self:?}, {how}: {row:?}");
        assert!(row.volumes.iter().all(|known| known.swap.is_none()), "{self:?}, {how}: {row:?}");
        assert!(self != Self::Swap || row.volumes.len() == 1, "{self:?}, {how}: {row:?}");
        for now in cloud.all_volumes().await {
            let has = row.volume(now.id).is_some();
            let expected = if has { VolumeStatus::InUse } else { VolumeStatus::Available };
            assert_eq!(now.status, expected, "{self:?}, {how}: {now:?} {row:?}");
        }
        let all = cloud.all_volumes().await;
        assert!(all.iter().any(|one| one.id == volume), "{self:?}, {how}: a volume is gone");
        cloud.check().await;
    }

    /// Is what was asked for so?
    pub(super) async fn is_done(self, cloud: &Cloud, server: InstanceId, volume: VolumeId) -> bool {
        let row = cloud.get(server).await;
        match self {
            Self::Attach => row.volume(volume).is_some(),
            Self::Detach | Self::Swap => row.volume(volume).is_none(),
        }
    }

    pub(super) async fn end(self, cloud: Cloud, server: InstanceId) {
        assert!(cloud.act(server, Action::Delete).await, "{self:?}");
        self.end_of(cloud, server).await;
    }

    /// The server is being deleted.
    pub(super) async fn end_of(self, cloud: Cloud, server: InstanceId) {
        cloud.settle().await;
        assert!(cloud.get(server).await.is_deleted());
        let all = cloud.all_volumes().await;
        assert!(all.iter().all(|volume| volume.status == VolumeStatus::Available), "{self:?}: {all:?}");
        cloud.check().await;
        cloud.stop().await;
    }

    async fn driver_fails(self) {
        for kind in [ErrorKind::Failed, ErrorKind::TimedOut, ErrorKind::Unsupported] {
            // What a driver cannot do has no effect.
            for after in [false, true].into_iter().filter(|after| !after || kind != ErrorKind::Unsupported) {
                let (cloud, server, volume) = self.cloud().await;
                let host = cloud.hosts.values().next().unwrap();
                if after {
                    host.fail_next_after_effect(self.operation(), 1, kind);
                } else {
                    host.fail_next(self.operation(), 1, kind);
                }
                self.begin(&cloud, server, volume).await;
                self.judge(&cloud, server, volume, &format!("{kind:?}, after its effect: {after}")).await;
                assert!(
                    !after || self == Self::Attach || self.is_done(&cloud, server, volume).await,
                    "{self:?} {kind:?}"
                );
                self.end(cloud, server).await;
            }
        }
    }

    async fn orders_come_twice(self) {
        let (cloud, server, volume) = self.cloud().await;
        cloud.set_chances(Chances { repeat: 1000, ..Chances::default() });
        self.begin(&cloud, server, volume).await;
        self.judge(&cloud, server, volume, "twice").await;
        assert!(self.is_done(&cloud, server, volume).await);
        self.end(cloud, server).await;
    }

    async fn conductor_dies(self, fails: bool) {
        for moment in 1..MOMENTS {
            let (mut cloud, server, volume) = self.cloud().await;
            if fails {
                cloud.hosts.values().next().unwrap().fail_next(self.operation(), 1, ErrorKind::Failed);
            }
            let life = Life::of(moment);
            cloud.replace_conductor("mortal", Some(life.clone())).await;
            self.begin(&cloud, server, volume).await;
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.replace_conductor("next", None).await;
            self.judge(&cloud, server, volume, &format!("the conductor died at {moment}, fails: {fails}")).await;
            assert!(fails || self.is_done(&cloud, server, volume).await, "{self:?} at {moment}");
            self.end(cloud, server).await;
            if !died {
                return;
            }
        }
        panic!("{self:?}: more moments than were tried");
    }

    async fn host_dies(self) {
        for moment in 1..MOMENTS {
            let (mut cloud, server, volume) = self.cloud().await;
            let host = cloud.hosts.keys().next().unwrap().clone();
            let life = Life::long();
            cloud.start_agent(&host, Some(life.clone())).await;
            cloud.settle().await;
            life.end_after(moment);
            self.begin(&cloud, server, volume).await;
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.start_agent(&host, None).await;
            self.judge(&cloud, server, volume, &format!("the host died at {moment}")).await;
            assert!(self.is_done(&cloud, server, volume).await, "{self:?} at {moment}");
            self.end(cloud, server).await;
            if !died {
                return;
            }
        }
        panic!("{self:?}: more moments than were tried");
    }

    /// The server is deleted at each moment of it.
    async fn deleted_meanwhile(self) {
        for wait in [0, 1, 3, 5, 8, 12, 20, 40] {
            let (cloud, server, volume) = self.cloud().await;
            let deletion = async {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                assert!(cloud.act(server, Action::Delete).await);
            };
            tokio::join!(self.begin(&cloud, server, volume), deletion);
            cloud.settle().await;
            cloud.pass(Duration::from_secs(60)).await;
            assert!(cloud.get(server).await.is_deleted(), "{self:?} {wait}");
            let all = cloud.all_volumes().await;
            assert!(all.iter().all(|volume| volume.status == VolumeStatus::Available), "{self:?} {wait}: {all:?}");
            cloud.check().await;
            cloud.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn drivers_fail() {
    Deed::Attach.driver_fails().await;
    Deed::Detach.driver_fails().await;
    Deed::Swap.driver_fails().await;
}

#[tokio::test(start_paused = true)]
async fn orders_come_twice() {
    Deed::Attach.orders_come_twice().await;
    Deed::Detach.orders_come_twice().await;
    Deed::Swap.orders_come_twice().await;
}

#[tokio::test(start_paused = true)]
async fn conductors_die_while_they_attach() {
    Deed::Attach.conductor_dies(false).await;
    Deed::Attach.conductor_dies(true).await;
}

#[tokio::test(start_paused = true)]
async fn conductors_die_while_they_detach() {
    Deed::Detach.conductor_dies(false).await;
    Deed::Detach.conductor_dies(true).await;
}

#[tokio::test(start_paused = true)]
async fn conductors_die_while_they_swap() {
    Deed::Swap.conductor_dies(false).await;
    Deed::Swap.conductor_dies(true).await;
}

#[tokio::test(start_paused = true)]
async fn hosts_die() {
    Deed::Attach.host_dies().await;
    Deed::Detach.host_dies().await;
    Deed::Swap.host_dies().await;
}

#[tokio::test(start_paused = true)]
async fn servers_are_deleted_meanwhile() {
    Deed::Attach.deleted_meanwhile().await;
    Deed::Detach.deleted_meanwhile().await;
    Deed::Swap.deleted_meanwhile().await;
}

/// Boot from a volume that is made of an image on the way, with a conductor that dies at each moment, and a host that fails.
#[tokio::test(start_paused = true)]
async fn conductors_die_while_they_boot_from_volumes() {
    for fails in [false, true] {
        let mut moment = 0;
        loop {
            moment += 1;
            assert!(moment < 60, "more moments than were tried");
            let mut cloud = Cloud::start(CloudOptions { hosts: 2, ..options() }).await;
            if fails {
                cloud.hosts.values().next().unwrap().fail_next(Operation::Spawn, 9, ErrorKind::Failed);
            }
            let life = Life::of(moment);
            cloud.replace_conductor("mortal", Some(life.clone())).await;
            let image = nova_core::ids::ImageId::generate(&*cloud.entropy);
            let boot = json!({"source_type": "image", "destination_type": "volume", "uuid": image, "boot_index": 0,
                "volume_size": 1, "delete_on_termination": true});
            let (status, answer) = super::boot_with(&cloud, json!([boot])).await;
            assert_eq!(status, 202, "{answer}");
            let id: InstanceId = answer["server"]["id"].as_str().unwrap().parse().unwrap();
            cloud.pass(Duration::from_secs(3)).await;
            let died = life.is_over();
            cloud.replace_conductor("next", None).await;
            cloud.settle().await;
            let server = cloud.get(id).await;
            assert_eq!(server.vm_state, VmState::Active, "{moment}: {server:?}");
            assert_eq!(cloud.all_volumes().await.len(), 1, "{moment}: made once");
            cloud.check().await;
            super::end_with_volumes(cloud, id).await;
            if !died {
                break;
            }
        }
    }
}
