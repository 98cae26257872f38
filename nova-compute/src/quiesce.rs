//! A guest's file systems stand still while snapshots of its volumes are taken (nova/compute/manager.py, `quiesce_instance`,
//! `unquiesce_instance`).

use std::time::Duration;

use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::rpc::compute::{Order, QuiesceInstance, QuiesceOrder, UnquiesceInstance};
use nova_core::rpc::conductor::StepOutcome;
use nova_queue::Dispatcher;
use nova_virt::{Hypervisor, HypervisorError, Operation, Quiesce};

use crate::agent::Agent;
use crate::life::not_done;

/// No guest stands still for longer: whoever had it do so may be gone.
const AT_MOST: Duration = Duration::from_secs(300);
/// Tries to let a guest's file systems go on.
const TRIES: u32 = 4;

const NOT_STILL: &str = "The file systems of the server did not stand still for the snapshots.";

impl Agent {
    /// Takes these orders, too.
    pub(crate) fn quiesce_orders(&self, dispatcher: Dispatcher) -> Dispatcher {
        let dispatcher =
            self.on_order::<QuiesceInstance, _, _, _>(
                dispatcher,
                |agent, order| async move { agent.quiesce(&order).await },
            );
        self.on_order::<UnquiesceInstance, _, _, _>(
            dispatcher,
            |agent, order| async move { agent.unquiesce(&order).await },
        )
    }

    async fn quiesce(&self, order: &Order<QuiesceOrder>) -> StepOutcome {
        let (id, required) = (order.instance_id, order.body.required);
        let how = if required { Quiesce::Required } else { Quiesce::IfPossible };
        match self.hypervisor.quiesce(id, how).await {
            Ok(()) => {}
            Err(error @ HypervisorError::Unsupported { operation: Operation::Quiesce }) if required => {
                let message = self.cannot_quiesce(id);
                return StepOutcome::Failed { message, details: chain(&error), retryable: true };
            }
            Err(error) => {
                // Some of them may.
                let left = thaw(&*self.hypervisor, id).await;
                if required {
                    return not_done(&error, NOT_STILL, left.is_ok());
                }
                tracing::info!(instance = %id, "its file systems do not stand still for the snapshots: {}", chain(&error));
            }
        }
        self.end_it_in_time(order);
        self.done(order, Vec::new()).await
    }

    async fn unquiesce(&self, order: &Order<QuiesceOrder>) -> StepOutcome {
        match thaw(&*self.hypervisor, order.instance_id).await {
            Ok(false) if order.body.required => {
                let details = "they went on before the last one was taken".to_owned();
                StepOutcome::Failed { message: NOT_STILL.to_owned(), details, retryable: false }
            }
            Err(error) if order.body.required => not_done(&error, "The file systems of the server stand still.", false),
            Ok(_) | Err(_) => self.done(order, Vec::new()).await,
        }
    }

    fn end_it_in_time<T>(&self, order: &Order<T>) {
        let (hypervisor, instances) = (self.hypervisor.clone(), self.instances.clone());
        let (id, epoch) = (order.instance_id, order.epoch);
        tokio::spawn(async move {
            tokio::time::sleep(AT_MOST).await;
            if !instances.overtaken(id, epoch) && matches!(thaw(&*hypervisor, id).await, Ok(true)) {
                tracing::warn!(instance = %id, "its file systems go on, though nobody said that they may");
            }
        });
    }
}

/// Lets a guest's file systems go on, and tries again. Did they stand still until now?
async fn thaw(hypervisor: &dyn Hypervisor, id: InstanceId) -> Result<bool, HypervisorError> {
    let mut wait = Duration::from_millis(500);
    for attempt in 1.. {
        match hypervisor.unquiesce(id).await {
            Err(error @ HypervisorError::Unsupported { .. }) => return Err(error),
            Err(error) if attempt == TRIES => {
                tracing::warn!(instance = %id, "its file systems may stand still: {}", chain(&error));
                return Err(error);
            }
            Err(_) => tokio::time::sleep(wait).await,
            thawed => return thawed,
        }
        wait *= 2;
    }
    Ok(false)
}
