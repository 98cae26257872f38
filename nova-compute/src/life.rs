//! Orders about a guest that is there: pausing, suspending, deferred deletion, crash dumps (nova/compute/manager.py, the
//! methods of the same names). Each may come twice.

use std::sync::Arc;

use nova_core::error::chain;
use nova_core::rpc::Method;
use nova_core::rpc::compute::{
    Order, PauseInstance, RestoreInstance, ResumeInstance, SoftDeleteInstance, SuspendInstance, TriggerCrashDump,
    UnpauseInstance,
};
use nova_core::rpc::conductor::StepOutcome;
use nova_core::state::PowerState;
use nova_queue::Dispatcher;
use nova_virt::{ErrorKind, HypervisorError};

use crate::agent::Agent;

impl Agent {
    /// Takes these orders, too.
    pub(crate) fn life_orders(&self, dispatcher: Dispatcher) -> Dispatcher {
        let dispatcher = self.snapshot_orders(self.quiesce_orders(self.remake_orders(self.power_orders(dispatcher))));
        self.on_order::<TriggerCrashDump, _, _, _>(dispatcher, |agent, order| async move {
            let work = agent.hypervisor.inject_nmi(order.instance_id).await;
            agent.ended(&order, work, "The crash dump could not be triggered.").await
        })
    }

    fn power_orders(&self, dispatcher: Dispatcher) -> Dispatcher {
        let dispatcher = self.on_order::<PauseInstance, _, _, _>(dispatcher, |agent, order| async move {
            let work = agent.hypervisor.pause(order.instance_id).await;
            agent.ended_as(&order, work, PowerState::Paused, "The server could not be paused.").await
        });
        let dispatcher = self.on_order::<UnpauseInstance, _, _, _>(dispatcher, |agent, order| async move {
            let work = agent.hypervisor.unpause(order.instance_id).await;
            agent.ended_as(&order, work, PowerState::Running, "The server could not be unpaused.").await
        });
        let dispatcher = self.on_order::<SuspendInstance, _, _, _>(dispatcher, |agent, order| async move {
            let work = agent.hypervisor.suspend(order.instance_id).await;
            agent.ended_as(&order, work, PowerState::Suspended, "The server could not be suspended.").await
        });
        let dispatcher = self.on_order::<ResumeInstance, _, _, _>(dispatcher, |agent, order| async move {
            let work = agent.hypervisor.resume(order.instance_id).await;
            agent.ended_as(&order, work, PowerState::Running, "The server could not be resumed.").await
        });
        let agent = self.clone();
        let dispatcher = dispatcher.method::<SoftDeleteInstance, _, _>(move |incoming, order| {
            let agent = agent.clone();
            async move {
                agent.stop_swapping(order.instance_id, order.epoch);
                let work = async {
                    // As Nova does where a driver has no soft deletion of its own: the plug is pulled.
                    let work = agent.hypervisor.power_off(order.instance_id, None).await;
                    let message = "The server could not be stopped for its deletion.";
                    agent.ended_as(&order, work, PowerState::Shutdown, message).await
                };
                agent.carry_out(incoming, &order, None, work).await
            }
        });
        self.on_order::<RestoreInstance, _, _, _>(dispatcher, |agent, order| async move {
            let work = agent.hypervisor.power_on(order.instance_id).await;
            agent.ended_as(&order, work, PowerState::Running, "The server could not be started again.").await
        })
    }

    /// Has the dispatcher carry out orders of that method.
    pub(crate) fn on_order<M, T, F, Fut>(&self, dispatcher: Dispatcher, work: F) -> Dispatcher
    where
        M: Method<Request = Order<T>, Reply = ()>,
        T: Send + Sync + 'static,
        F: Fn(Agent, Arc<Order<T>>) -> Fut + Copy + Send + Sync + 'static,
        Fut: Future<Output = StepOutcome> + Send + 'static,
    {
        let agent = self.clone();
        dispatcher.method::<M, _, _>(move |incoming, order: Order<T>| {
            let agent = agent.clone();
            async move {
                let order = Arc::new(order);
                agent.carry_out(incoming, &order, None, work(agent.clone(), Arc::clone(&order))).await
            }
        })
    }

    /// The same of one that leads to that power state: a guest that is in it got there, whatever the driver says. Its owner
    /// would be told otherwise that nothing has happened to a guest that stands still.
    async fn ended_as<T>(
        &self,
        order: &Order<T>,
        result: Result<(), HypervisorError>,
        state: PowerState,
        message: &str,
    ) -> StepOutcome {
        let Err(error) = &result else { return self.done(order, Vec::new()).await };
        match self.hypervisor.info(order.instance_id).await {
            Ok(guest) if guest.power_state == state => {
                tracing::warn!(instance = %order.instance_id, "it is done, though it failed: {}", chain(error));
                StepOutcome::done(Some(state))
            }
            _ => self.ended(order, result, message).await,
        }
    }

    /// What is reported of a driver's operation that leaves the guest as it was when it fails.
    pub(crate) async fn ended<T>(
        &self,
        order: &Order<T>,
        result: Result<(), HypervisorError>,
        message: &str,
    ) -> StepOutcome {
        match result {
            Ok(()) => self.done(order, Vec::new()).await,
            Err(error) => not_done(&error, message, true),
        }
    }
}

/// A failure; `untouched`: the guest is as it was. What a driver can't do it has not begun.
pub(crate) fn not_done(error: &HypervisorError, message: &str, untouched: bool) -> StepOutcome {
    let unsupported = error.kind() == ErrorKind::Unsupported;
    let message =
        if unsupported { format!("{message} The host's driver does not support it.") } else { message.into() };
    StepOutcome::Failed { message, details: chain(error), retryable: untouched || unsupported }
}
