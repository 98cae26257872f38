//! How the API reaches conductors, hosts and schedulers: its [`Orders`] over the bus.

use std::time::Duration;

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::ids::{HostName, InstanceId, TaskId};
use nova_core::rpc::RefusalKind;
use nova_core::rpc::compute::{ConsoleOutputRequest, GetConsoleOutput};
use nova_core::rpc::conductor::{StartTask, StartTaskRequest};
use nova_core::rpc::scheduler::{HostsChanged, HostsChangedRequest};
use nova_queue::{BusError, RpcClient};

use crate::api::compute::{OrderError, Orders};

/// A user waits for a console's text no longer than this.
const CONSOLE_TIMEOUT: Duration = Duration::from_secs(15);

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

#[async_trait]
impl Orders for BusOrders {
    async fn start_tasks(&self, context: &RequestContext, tasks: &[TaskId]) -> Result<(), OrderError> {
        let request = StartTaskRequest { tasks: tasks.to_vec() };
        self.rpc.cast::<StartTask>(context, &request).await.map_err(failed)
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

    async fn hosts_changed(&self, context: &RequestContext, news: HostsChangedRequest) -> Result<(), OrderError> {
        self.rpc.fanout::<HostsChanged>(context, &news).await.map_err(failed)
    }
}
