//! How the API reaches conductors, hosts and schedulers: its [`Orders`] over the bus.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::console::{ConsoleTarget, ConsoleType};
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, PortId, TaskId};
use nova_core::rpc::RefusalKind;
use nova_core::rpc::compute::{
    ConsoleOutputRequest, Diagnostics, DiagnosticsRequest, ExtendVolume, ExtendVolumeRequest, GetConsole,
    GetConsoleOutput, GetConsoleRequest, GetDiagnostics, SteerLiveMigration, SteerLiveMigrationRequest,
};
use nova_core::rpc::conductor::{CacheImage, CacheImageRequest, StartTask, StartTaskRequest};
use nova_core::rpc::scheduler::{HostsChanged, HostsChangedRequest};
use nova_queue::{BusError, RpcClient};

use crate::api::compute::{OrderError, Orders};

/// A user waits for a console's text, and for counters, no longer than this.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(15);

/// A user waits no longer for others to be told of what is in the store already: they find it by themselves.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Orders as messages.
#[derive(Clone)]
pub struct BusOrders {
    rpc: RpcClient,
}

impl BusOrders {
    /// Sends as that client.
    pub fn new(rpc: RpcClient) -> Self {
        Self { rpc }
    }
}

fn failed(error: BusError) -> OrderError {
    match error.refusal().map(|refusal| refusal.kind) {
        Some(RefusalKind::NotFound) => OrderError::NotFound,
        Some(RefusalKind::Unsupported) => OrderError::Unsupported,
        Some(RefusalKind::Unavailable) => OrderError::HostUnavailable { source: Box::new(error) },
        Some(_) => OrderError::Failed { source: Box::new(error) },
        None if error.is_retryable() => OrderError::HostUnavailable { source: Box::new(error) },
        None => OrderError::Failed { source: Box::new(error) },
    }
}

async fn tell(telling: impl Future<Output = Result<(), BusError>>) -> Result<(), OrderError> {
    match tokio::time::timeout(TELL_TIMEOUT, telling).await {
        Ok(told) => told.map_err(failed),
        Err(elapsed) => Err(OrderError::Failed { source: Box::new(elapsed) }),
    }
}

#[async_trait]
impl Orders for BusOrders {
    async fn start_tasks(&self, context: &RequestContext, tasks: &[TaskId]) -> Result<(), OrderError> {
        let request = StartTaskRequest { tasks: tasks.to_vec(), plugged: BTreeMap::new() };
        tell(self.rpc.cast::<StartTask>(context, &request)).await
    }

    async fn tell_plugged(
        &self,
        context: &RequestContext,
        tasks: &[TaskId],
        port: PortId,
        works: bool,
    ) -> Result<(), OrderError> {
        let request = StartTaskRequest { tasks: tasks.to_vec(), plugged: BTreeMap::from([(port, works)]) };
        tell(self.rpc.cast::<StartTask>(context, &request)).await
    }

    async fn extend_volume(
        &self,
        context: &RequestContext,
        host: &HostName,
        request: ExtendVolumeRequest,
    ) -> Result<(), OrderError> {
        tell(self.rpc.cast_to::<ExtendVolume>(host, context, &request)).await
    }

    async fn console_output(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
        length: Option<u32>,
    ) -> Result<String, OrderError> {
        let request = ConsoleOutputRequest { instance_id: instance, length };
        let asking = self.rpc.clone().with_call_timeout(CONSOLE_TIMEOUT);
        let answer = asking.call_to::<GetConsoleOutput>(host, context, &request).await;
        answer.map(|console| console.output).map_err(failed)
    }

    async fn console(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
        console_type: ConsoleType,
    ) -> Result<ConsoleTarget, OrderError> {
        let request = GetConsoleRequest { instance_id: instance, console_type };
        let asking = self.rpc.clone().with_call_timeout(CONSOLE_TIMEOUT);
        asking.call_to::<GetConsole>(host, context, &request).await.map_err(|error| {
            let not_ready = error.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::Conflict);
            if not_ready { OrderError::NotReady } else { failed(error) }
        })
    }

    async fn steer_live_migration(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
        force: bool,
    ) -> Result<(), OrderError> {
        let request = SteerLiveMigrationRequest { instance_id: instance, force };
        let asking = self.rpc.clone().with_call_timeout(CONSOLE_TIMEOUT);
        asking.call_to::<SteerLiveMigration>(host, context, &request).await.map_err(failed)
    }

    async fn diagnostics(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
    ) -> Result<Diagnostics, OrderError> {
        let request = DiagnosticsRequest { instance_id: instance };
        let asking = self.rpc.clone().with_call_timeout(CONSOLE_TIMEOUT);
        asking.call_to::<GetDiagnostics>(host, context, &request).await.map_err(failed)
    }

    async fn cache_image(&self, context: &RequestContext, request: CacheImageRequest) -> Result<(), OrderError> {
        tell(self.rpc.cast::<CacheImage>(context, &request)).await
    }

    async fn hosts_changed(&self, context: &RequestContext, news: HostsChangedRequest) -> Result<(), OrderError> {
        tell(self.rpc.fanout::<HostsChanged>(context, &news)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nova_core::rpc::Envelope;
    use nova_queue::{Counters, Handler, MessageBus, Serving, Subscription, Target, testing};
    use serde_json::Value;

    use super::*;

    /// A broker that is away: nothing sent is ever confirmed.
    struct AwayBus;

    #[async_trait]
    impl MessageBus for AwayBus {
        async fn cast(&self, _: &Target, _: Envelope) -> Result<(), BusError> {
            std::future::pending().await
        }
        async fn call(&self, _: &Target, _: Envelope, _: Duration) -> Result<Value, BusError> {
            std::future::pending().await
        }
        async fn fanout(&self, _: &str, _: Envelope) -> Result<(), BusError> {
            std::future::pending().await
        }
        async fn serve(&self, _: Subscription, _: Arc<dyn Handler>) -> Result<Serving, BusError> {
            std::future::pending().await
        }
        async fn ping(&self) -> Result<(), BusError> {
            std::future::pending().await
        }
        fn counters(&self) -> Counters {
            Counters::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_is_away_holds_no_user_up() {
        let orders = BusOrders::new(testing::client(Arc::new(AwayBus)));
        let began = tokio::time::Instant::now();
        let told = orders.start_tasks(&testing::context(), &[]).await;
        assert!(matches!(told, Err(OrderError::Failed { .. })));
        assert_eq!(began.elapsed(), TELL_TIMEOUT);
    }
}
