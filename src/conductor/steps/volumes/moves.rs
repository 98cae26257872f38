//! All volumes of a server, when it has come to a host or left one.

use async_trait::async_trait;
use nova_core::ids::HostName;
use nova_core::task::{Move, Work};

use super::super::{Ran, Services, Step, StepError};
use super::{complete, let_go, only_on};
use crate::conductor::context::TaskContext;

/// The server has its volumes where it is now.
pub struct SettleVolumes;

#[async_trait]
impl Step for SettleVolumes {
    fn name(&self) -> &'static str {
        "settle_volumes"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if let Some(host) = where_it_is(cx) {
            complete(services, cx, &host).await?;
        }
        match cx.task.work {
            // The image that it was kept as goes next: that it is there must be known before.
            Work::Move(Move::Unshelve { image_id: Some(_), .. }) => Ok(Ran::Written),
            _ => Ok(Ran::Done),
        }
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// The host that has the guest once the work is done.
fn where_it_is(cx: &TaskContext) -> Option<HostName> {
    let migration = cx.migration.as_ref();
    match &cx.task.work {
        Work::Move(Move::Resize { .. } | Move::Evacuate { .. } | Move::LiveMigrate { .. }) => {
            migration.and_then(|migration| migration.dest_compute.clone())
        }
        Work::Move(Move::RevertResize { .. }) => migration.map(|migration| migration.source_compute.clone()),
        _ => cx.instance.host.clone(),
    }
}

/// The same, and no other host comes to them any more.
pub struct LeaveVolumes;

#[async_trait]
impl Step for LeaveVolumes {
    fn name(&self) -> &'static str {
        "leave_volumes"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        if let Some(host) = where_it_is(cx) {
            complete(services, cx, &host).await?;
            only_on(services, cx, &host).await?;
        }
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// The server leaves its host: its volumes stay promised to it.
pub struct UnbindVolumes;

#[async_trait]
impl Step for UnbindVolumes {
    fn name(&self) -> &'static str {
        "unbind_volumes"
    }

    async fn run(&self, services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let_go(services, cx, |hold| hold.host.is_none()).await?;
        Ok(Ran::Done)
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        Ok(())
    }
}
