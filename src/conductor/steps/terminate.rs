//! Deleting an instance: the host removes the guest, then the rows go.

use async_trait::async_trait;

use super::{Ran, Services, Step, StepError};
use crate::conductor::context::{StagedOrder, TaskContext};

/// Removes the guest from its host.
pub struct Terminate;

#[async_trait]
impl Step for Terminate {
    fn name(&self) -> &'static str {
        "terminate"
    }

    async fn run(&self, _services: &Services, cx: &mut TaskContext) -> Result<Ran, StepError> {
        let Some(host) = cx.instance.host.clone() else {
            return Ok(Ran::Done);
        };
        if let Some(action) = &mut cx.action {
            action.begin_event("compute_terminate_instance", Some(host.as_str()), cx.now);
        }
        Ok(Ran::Ordered(StagedOrder::Terminate))
    }

    async fn undo(&self, _services: &Services, _cx: &mut TaskContext) -> Result<(), StepError> {
        // What was removed is gone; a failed deletion ends in ERROR and may be asked for again.
        Ok(())
    }
}
