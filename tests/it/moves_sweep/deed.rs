//! What is moved, and how: the cases of the sweeps.

use std::time::Duration;

use nova::check::Violation;
use nova_core::ids::{HostName, InstanceId, VolumeId};
use nova_core::instance::Instance;
use nova_core::state::{Action, VmState};
use nova_core::task::Move;
use nova_core::volume::VolumeStatus;
use nova_virt::Operation;
use serde_json::{Value, json};

use crate::moves::live_migration;
use crate::server_volumes::{attach, boot_with};
use crate::support::{Cloud, CloudOptions};

use VmState as V;

/// What is done, and what may come of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    Resize,
    ResizeHere,
    ConfirmHere,
    RevertHere,
    Migrate,
    Confirm,
    Revert,
    Live,
    Evacuate,
    Shelve,
    Unshelve,
    /// It stays on its host.
    ShelveHere,
    /// It leaves its host after that.
    Offload,
    /// It is on its host still.
    UnshelveHere,
}

/// Whatever of the driver is asked for in a move.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::PowerOff,
    Operation::Stash,
    Operation::Spawn,
    Operation::Destroy,
    Operation::Unstash,
    Operation::DropStash,
    Operation::PowerOn,
    Operation::Snapshot,
    Operation::PrepareIncoming,
    Operation::LiveMigrate,
    Operation::AdoptIncoming,
];

impl What {
    /// The cases of a kind of move: one that has none does not compile.
    pub(crate) fn all_of(kind: &Move) -> &'static [Self] {
        match kind {
            Move::Resize { .. } => &[Self::Resize, Self::ResizeHere, Self::Migrate],
            Move::ConfirmResize { .. } => &[Self::Confirm, Self::ConfirmHere],
            Move::RevertResize { .. } => &[Self::Revert, Self::RevertHere],
            Move::Evacuate { .. } => &[Self::Evacuate],
            Move::LiveMigrate { .. } => &[Self::Live],
            Move::Shelve { offload: true, .. } | Move::ShelveVolume => &[Self::Shelve],
            Move::Shelve { offload: false, .. } => &[Self::ShelveHere],
            Move::ShelveOffload => &[Self::Offload],
            Move::Unshelve { spec: Some(_), .. } => &[Self::Unshelve],
            Move::Unshelve { spec: None, .. } => &[Self::UnshelveHere],
        }
    }

    pub(super) fn body(self) -> Value {
        match self {
            Self::Resize | Self::ResizeHere => json!({"resize": {"flavorRef": "2-512"}}),
            Self::Migrate => json!({"migrate": null}),
            Self::Confirm | Self::ConfirmHere => json!({"confirmResize": null}),
            Self::Revert | Self::RevertHere => json!({"revertResize": null}),
            Self::Live => live_migration(),
            Self::Evacuate => json!({"evacuate": {}}),
            Self::Shelve | Self::ShelveHere => json!({"shelve": null}),
            Self::Offload => json!({"shelveOffload": null}),
            Self::Unshelve | Self::UnshelveHere => json!({"unshelve": null}),
        }
    }

    pub(super) fn well(self) -> VmState {
        match self {
            Self::Resize | Self::ResizeHere | Self::Migrate => V::Resized,
            Self::Confirm | Self::ConfirmHere | Self::Revert | Self::RevertHere => V::Active,
            Self::Live | Self::Unshelve | Self::UnshelveHere => V::Active,
            Self::Evacuate => V::Stopped,
            Self::Shelve | Self::Offload => V::ShelvedOffloaded,
            Self::ShelveHere => V::Shelved,
        }
    }

    pub(super) fn ill(self) -> &'static [VmState] {
        match self {
            Self::Resize | Self::ResizeHere | Self::Migrate | Self::Live => &[V::Active],
            Self::Confirm | Self::ConfirmHere => &[V::Resized],
            Self::Revert | Self::RevertHere => &[V::Resized, V::Error],
            Self::Evacuate => &[V::Error],
            Self::Shelve | Self::ShelveHere => &[V::Active, V::Error],
            Self::Unshelve => &[V::ShelvedOffloaded],
            Self::Offload | Self::UnshelveHere => &[V::Shelved],
        }
    }

    /// Does all of it happen on one host?
    pub(super) const fn is_here(self) -> bool {
        matches!(self, Self::ResizeHere | Self::ConfirmHere | Self::RevertHere) || self.stays_shelved()
    }

    /// Does a shelved server stay on its host until somebody has it leave?
    const fn stays_shelved(self) -> bool {
        matches!(self, Self::ShelveHere | Self::Offload | Self::UnshelveHere)
    }
}

/// What the server has with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cargo {
    /// Its own disk.
    Nothing,
    /// And a volume beside it, which others may have after it.
    Volume,
    /// It boots from a volume, which goes with it when it is deleted, and has no disk of its own.
    Root,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Deed {
    pub(super) what: What,
    pub(super) cargo: Cargo,
}

impl Deed {
    /// A cloud of two hosts in which it can be done, or of one.
    pub(super) async fn cloud(self) -> (Cloud, InstanceId) {
        let hosts = if self.what.is_here() { 1 } else { 2 };
        let same_host = self.what.is_here();
        let volumes = self.cargo != Cargo::Nothing;
        let mut options = CloudOptions { hosts, same_host, volumes, ..CloudOptions::default() };
        if self.what.stays_shelved() {
            options.conductor.moves.shelved_offload_time = None;
        }
        let cloud = Cloud::start(options).await;
        let id = self.boot(&cloud).await;
        cloud.stored_flavor(2, 512).await;
        let before = match self.what {
            What::Confirm | What::Revert | What::ConfirmHere | What::RevertHere => Some(What::Resize),
            What::Unshelve => Some(What::Shelve),
            What::Offload | What::UnshelveHere => Some(What::ShelveHere),
            _ => None,
        };
        if let Some(what) = before {
            assert!(Self { what, ..self }.begins(&cloud, id).await);
            cloud.settle().await;
        }
        if self.what == What::Evacuate {
            let host = cloud.get(id).await.host.unwrap();
            cloud.hosts[&host].lose_power();
            cloud.force_down(&host, true).await;
        }
        (cloud, id)
    }

    async fn boot(self, cloud: &Cloud) -> InstanceId {
        if self.cargo == Cargo::Root {
            let root = cloud.add_bootable_volume().await;
            let boot = json!({"source_type": "volume", "destination_type": "volume", "uuid": root, "boot_index": 0,
                "delete_on_termination": true});
            let (status, answer) = boot_with(cloud, json!([boot])).await;
            assert_eq!(status, 202, "{answer}");
            cloud.settle().await;
            return answer["server"]["id"].as_str().unwrap().parse().unwrap();
        }
        let id = cloud.boot(1, cloud.flavor(1, 256)).await.unwrap()[0];
        cloud.settle().await;
        if self.cargo == Cargo::Volume {
            let volume = cloud.add_volume(1).await;
            assert_eq!(attach(cloud, id, volume).await.0, 202);
            cloud.settle().await;
        }
        id
    }

    pub(super) async fn begins(self, cloud: &Cloud, id: InstanceId) -> bool {
        let (status, text) = cloud.action(id, self.what.body()).await;
        assert!(matches!(status, 200 | 202 | 204 | 409), "{self:?}: {status} {text}");
        status != 409
    }

    /// Lets everything come to its end, and looks.
    pub(super) async fn judge(self, cloud: &Cloud, id: InstanceId, how: &str) -> Instance {
        cloud.settle().await;
        if self.what == What::Evacuate {
            // The dead host comes back, and finds what it has no more.
            for host in cloud.hosts.keys() {
                cloud.force_down(host, false).await;
            }
        }
        // Long enough for hosts to compare guests and power states.
        cloud.pass(Duration::from_secs(250)).await;
        cloud.settle().await;
        let server = cloud.get(id).await;
        let fine = server.vm_state == self.what.well() || self.what.ill().contains(&server.vm_state);
        assert!(fine, "{self:?}, {how}: {server:#?}");
        assert!(server.vm_state != V::Error || server.fault.is_some(), "{self:?}, {how}: an error that says nothing");
        let actions = cloud.store.list_actions(id).await.unwrap();
        assert!(actions.iter().all(|action| action.finished.is_some()), "{self:?}, {how}: {actions:#?}");
        if server.vm_state == V::Resized {
            let confirm = Self { what: What::Confirm, ..self };
            assert!(confirm.begins(cloud, id).await, "{self:?}, {how}");
            cloud.settle().await;
            cloud.pass(Duration::from_secs(100)).await;
        }
        if server.vm_state != V::Error {
            cloud.check_still(id).await;
        }
        self.holds_what_it_had(cloud, id, how).await;
        server
    }

    /// Whatever became of it, the server has its volume still, where it is and nowhere else.
    async fn holds_what_it_had(self, cloud: &Cloud, id: InstanceId, how: &str) {
        if self.cargo == Cargo::Nothing {
            return;
        }
        let server = cloud.get(id).await;
        let [known] = &server.volumes[..] else { panic!("{self:?}, {how}: {server:#?}") };
        let volume = cloud.volume(known.volume_id).await;
        let hosts: Vec<Option<HostName>> =
            volume.attachments.values().map(|one| one.host().map(HostName::new)).collect();
        let status = if server.host.is_some() { VolumeStatus::InUse } else { VolumeStatus::Reserved };
        assert_eq!((hosts, volume.status), (vec![server.host.clone()], status), "{self:?}, {how}: {server:#?}");
        let wrong = crate::check::violations(cloud).await;
        // Images that are thrown away as they come are not what they say.
        let of_image = |one: &&Violation| one.subject.iter().any(|(kind, _)| *kind == "image");
        let wrong: Vec<_> = wrong.iter().filter(|one| matches!(one.invariant, "I7" | "I9") && !of_image(one)).collect();
        assert!(wrong.is_empty(), "{self:?}, {how}: {wrong:#?}");
    }

    /// After whatever happened the server can be deleted, and nothing is left.
    pub(super) async fn end(self, cloud: Cloud, id: InstanceId) {
        // What was to fail may fail now; a deletion that failed is asked for again.
        for _ in 0..3 {
            if !cloud.get(id).await.is_deleted() {
                assert!(cloud.act(id, Action::ForceDelete).await, "{self:?}");
                cloud.settle().await;
            }
        }
        cloud.pass(Duration::from_secs(200)).await;
        assert!(cloud.get(id).await.is_deleted(), "{self:?}");
        self.is_over(cloud, id).await;
    }

    /// The server is deleted: what it had is free, or gone with it.
    pub(super) async fn is_over(self, cloud: Cloud, id: InstanceId) {
        for image in cloud.store.list_images().await.unwrap() {
            cloud.store.delete_image(image.id).await.unwrap();
        }
        if self.cargo != Cargo::Nothing {
            let left: Vec<(VolumeId, VolumeStatus, usize)> =
                cloud.all_volumes().await.iter().map(|one| (one.id, one.status, one.attachments.len())).collect();
            let free = left.iter().all(|(_, status, hands)| (*status, *hands) == (VolumeStatus::Available, 0));
            assert!(free && left.len() == usize::from(self.cargo == Cargo::Volume), "{self:?}: {left:?}");
        }
        cloud.check_still(id).await;
        cloud.stop().await;
    }

    /// The host that the server is on, or the other one.
    pub(super) async fn host(self, cloud: &Cloud, id: InstanceId, source: bool) -> Option<HostName> {
        if self.what == What::Evacuate && source {
            return None;
        }
        let on = cloud.get(id).await.host;
        cloud.hosts.keys().find(|host| (on.as_ref() == Some(*host)) == source).cloned()
    }
}
