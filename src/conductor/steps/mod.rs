//! The steps of long operations. Each may run twice, and so may its undo; none writes anything by itself: effects are
//! staged in the [`TaskContext`] and written with the next commit, orders to hosts are sent after it.

mod build;
mod interface;
mod moves;
mod network;
mod on_host;
mod plugging;
mod remake;
mod snapshot;
mod terminate;
mod volumes;

pub(super) use build::{BUILD_EVENT, lost, select, select_anew};
pub(super) use interface::takes_turns;
pub(crate) use moves::{SHELVED_AT, SHELVED_IMAGE};
pub(super) use moves::{booking_of, ended_by_deletion, history_of, moved, must_be_done, not_moved};
pub(super) use network::{makes_ports, release_build};
pub(super) use on_host::{failed as on_host_failed, phase as on_host_phase, succeeded as on_host_succeeded};
pub(super) use volumes::{abandoned_snapshots, holds_volumes, release_unknown, way_again};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::network::NetworkService;
use nova_core::task::Failure;
use nova_core::volume::BlockStorage;
use nova_db::Store;
use nova_queue::{BusError, RpcClient};

use super::ConductorOptions;
use super::context::{StagedOrder, TaskContext};
use crate::image::GrantKey;
use crate::live::Live;

/// What the steps may use.
#[derive(Clone)]
pub struct Services {
    /// The store, to read from; what a step writes is staged.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub rpc: RpcClient,
    /// Settings.
    pub options: Live<ConductorOptions>,
    /// Lets hosts fetch the images that their orders name.
    pub image_grants: GrantKey,
    /// Whoever keeps the networks; without it servers have no interfaces.
    pub network: Option<Arc<dyn NetworkService>>,
    /// Whoever keeps the volumes; without it servers have none.
    pub volumes: Option<Arc<dyn BlockStorage>>,
}

/// How far a step got.
#[derive(Debug)]
pub enum Ran {
    /// Its effect exists, or is staged.
    Done,
    /// Its effect is staged, and must be durable before anything else is done.
    Written,
    /// A host must do it; its report ends the step.
    Ordered(StagedOrder),
    /// It is not so yet: it is looked again after so long, or when something is heard.
    Waits(Duration),
}

/// Why a step did not do it.
#[derive(Debug)]
pub enum StepError {
    /// It can't be done: undo and end, or try elsewhere.
    Failed(Failure),
    /// Something that the control plane needs does not answer: the task is taken up again later.
    Later(String),
}

impl StepError {
    /// A failure that another host can't mend.
    pub fn fatal(code: u16, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self::Failed(Failure { code, message: message.into(), details: details.into(), retryable: false })
    }

    /// What a failed message means: worth another try later.
    pub fn of_bus(error: &BusError) -> Self {
        Self::Later(chain(error))
    }
}

/// One step of a long operation; either half may run twice.
#[async_trait]
pub trait Step: Send + Sync {
    /// Its name in the plan and the log.
    fn name(&self) -> &'static str;
    /// Does it.
    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError>;
    /// Takes it back. Called for a step that was begun, whether or not it was done.
    async fn undo(&self, services: &Services, cx: &mut TaskContext) -> Result<(), StepError>;
    /// The same where a host must do it: its report ends the undo. Until then nothing before it is taken back, for some while after
    /// the task's deadline, or for ever ([`must_be_undone`](Self::must_be_undone)).
    async fn take_back(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        self.undo(services, cx).await.map(|()| Ran::Done)
    }
    /// Is its host asked until it answers? What is before the step is then never taken from a guest that may have it.
    fn must_be_undone(&self) -> bool {
        false
    }
}

const STEPS: &[&dyn Step] = &[
    &build::Schedule,
    &network::Network,
    &build::Claim,
    &build::Spawn,
    &plugging::AwaitNetwork,
    &plugging::LetGo,
    &terminate::Terminate,
    &network::ReleaseNetwork,
    &remake::Reboot,
    &remake::Rescue,
    &remake::CheckHost,
    &remake::Rebuild,
    &snapshot::Snapshot,
    &snapshot::RotateBackups,
    &interface::AllocateInterface,
    &interface::AttachInterface,
    &interface::DetachInterface,
    &interface::ReleaseInterface,
    &volumes::ReserveVolume,
    &volumes::AttachVolume,
    &volumes::CompleteVolume,
    &volumes::BeginDetaching,
    &volumes::DetachVolume,
    &volumes::ReleaseVolume,
    &volumes::StopToReimage,
    &volumes::LeaveRootVolume,
    &volumes::Reimage,
    &volumes::AwaitReimage,
    &volumes::SnapshotVolumes,
    &volumes::Quiesce,
    &volumes::TakeSnapshots,
    &volumes::Unquiesce,
    &volumes::CompleteImage,
    &volumes::BeginSwap,
    &volumes::SwapVolume,
    &volumes::EndSwap,
    &volumes::MakeVolumes,
    &volumes::SettleVolumes,
    &volumes::LeaveVolumes,
    &volumes::UnbindVolumes,
    &volumes::ReleaseVolumes,
];

/// The step of that name.
pub fn find(name: &str) -> Option<&'static dyn Step> {
    STEPS.iter().copied().chain(on_host::steps()).chain(moves::STEPS).find(|step| step.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planned_step_exists() {
        use nova_core::request::RequestSpec;
        use nova_core::task::{Move, Work};
        let build = Work::Build {
            spec: RequestSpec::default(),
            selection: None,
            admin_password: None,
            keys: std::collections::BTreeMap::new(),
            networks: nova_core::task::BuildNetworks::default(),
        };
        let attach = Work::AttachInterface { interface: nova_core::network::RequestedInterface::default() };
        let detach = Work::DetachInterface { port_id: nova_core::ids::PortId::from_uuid(uuid::Uuid::nil()) };
        let mut all = vec![build, Work::Delete, Work::Start, Work::Stop, Work::Reboot { hard: true }, attach, detach];
        let device = nova_core::ids::BlockDeviceId::from_uuid(uuid::Uuid::nil());
        let volume_id = nova_core::ids::VolumeId::from_uuid(uuid::Uuid::nil());
        all.extend([Work::AttachVolume { device }, Work::DetachVolume { volume_id }, Work::SwapVolume { device }]);
        all.extend([Work::Pause, Work::Unpause, Work::Suspend, Work::Resume]);
        all.extend([Work::SoftDelete, Work::Restore, Work::TriggerCrashDump, Work::Unrescue]);
        let image = serde_json::json!({"id": uuid::Uuid::nil(), "disk_format": "raw", "size": 1, "sha512": ""});
        let image = serde_json::from_value(image).unwrap();
        all.push(Work::Rescue { image, admin_password: None });
        all.push(Work::Rebuild {
            previous_image: None,
            preserve_ephemeral: false,
            admin_password: None,
            stopped: false,
            reimage: None,
            previous_volume_image: None,
        });
        all.push(Work::Rebuild {
            previous_image: None,
            preserve_ephemeral: false,
            admin_password: None,
            stopped: false,
            reimage: Some(nova_core::ids::ImageId::from_uuid(uuid::Uuid::nil())),
            previous_volume_image: None,
        });
        all.push(Work::ChangePassword { password: String::new() });
        let image_id = nova_core::ids::ImageId::from_uuid(uuid::Uuid::nil());
        all.extend([Work::CreateImage { image_id }, Work::SnapshotVolumes { image_id }]);
        all.push(Work::CreateBackup { image_id, backup_type: "daily".into(), rotation: 1 });
        let (migration, spec) =
            (nova_core::ids::MigrationId::from_uuid(uuid::Uuid::nil()), Box::<RequestSpec>::default());
        let moves = [
            Move::Resize { migration, spec: spec.clone() },
            Move::ConfirmResize { migration },
            Move::RevertResize { migration },
            Move::Evacuate { migration, spec: spec.clone(), stays_off: true, admin_password: None },
            Move::LiveMigrate { migration, spec: spec.clone(), block: None },
            Move::Shelve { image_id, offload: false },
            Move::Shelve { image_id, offload: true },
            Move::ShelveVolume,
            Move::ShelveOffload,
            Move::Unshelve { spec: None, image_id: None },
            Move::Unshelve { spec: Some(spec), image_id: None },
        ];
        all.extend(moves.map(Work::Move));
        for work in all {
            for step in work.plan().steps {
                assert!(find(step).is_some(), "{step} of {work:?}");
            }
        }
    }
}
