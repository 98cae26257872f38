//! The steps of long operations. Each may run twice, and so may its undo; none writes anything by itself: effects are
//! staged in the [`TaskContext`] and written with the next commit, orders to hosts are sent after it.

mod build;
mod interface;
mod network;
mod power;
mod terminate;

pub(super) use build::{BUILD_EVENT, lost, select, select_anew};
pub(super) use interface::is_of_interface;
pub(super) use network::{makes_ports, release_build};

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::network::NetworkService;
use nova_core::task::Failure;
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
}

/// How far a step got.
#[derive(Debug)]
pub enum Ran {
    /// Its effect exists, or is staged.
    Done,
    /// A host must do it; its report ends the step.
    Ordered(StagedOrder),
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
}

const STEPS: [&dyn Step; 13] = [
    &build::Schedule,
    &network::Network,
    &build::Claim,
    &build::Spawn,
    &terminate::Terminate,
    &power::PowerOn,
    &power::PowerOff,
    &power::Reboot,
    &network::ReleaseNetwork,
    &interface::AllocateInterface,
    &interface::AttachInterface,
    &interface::DetachInterface,
    &interface::ReleaseInterface,
];

/// The step of that name.
pub fn find(name: &str) -> Option<&'static dyn Step> {
    STEPS.into_iter().find(|step| step.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planned_step_exists() {
        use nova_core::request::RequestSpec;
        use nova_core::task::Work;
        let build = Work::Build {
            spec: RequestSpec::default(),
            selection: None,
            admin_password: None,
            keys: std::collections::BTreeMap::new(),
            networks: nova_core::task::BuildNetworks::default(),
        };
        let attach = Work::AttachInterface { interface: nova_core::network::RequestedInterface::default() };
        let detach = Work::DetachInterface { port_id: nova_core::ids::PortId::from_uuid(uuid::Uuid::nil()) };
        for work in [build, Work::Delete, Work::Start, Work::Stop, Work::Reboot { hard: true }, attach, detach] {
            for step in work.plan().steps {
                assert!(find(step).is_some(), "{step} of {work:?}");
            }
        }
    }
}
