//! What the API asks of other services: the only words that leave it, besides what it writes into the store.

use async_trait::async_trait;
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::ids::{HostName, InstanceId, TaskId};
use nova_core::rpc::conductor::CacheImageRequest;
use nova_core::rpc::scheduler::HostsChangedRequest;

/// Why an order could not be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The host's service is not there, or did not answer in time.
    #[error("the host's service does not answer")]
    HostUnavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// The host knows no such guest.
    #[error("the host has no such guest")]
    NotFound,
    /// The host's driver cannot do it.
    #[error("the host's driver does not support it")]
    Unsupported,
    /// Anything else.
    #[error("the order failed")]
    Failed {
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// The API's way to conductors and hosts. Implemented over the bus.
#[async_trait]
pub trait Orders: Send + Sync {
    /// Tells a conductor that there are new tasks in the store. Losing it costs time, not the task.
    async fn start_tasks(&self, context: &RequestContext, tasks: &[TaskId]) -> Result<(), OrderError>;

    /// What a guest wrote to its console: the last `length` lines, or all.
    async fn console_output(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
        length: Option<u32>,
    ) -> Result<String, OrderError>;

    /// Asks hosts, by way of a conductor, to fetch an image ahead of its first use.
    async fn cache_image(&self, context: &RequestContext, request: CacheImageRequest) -> Result<(), OrderError>;

    /// Tells the schedulers what an operator made of hosts' services and of aggregates. Nothing is lost when it is: their
    /// tables are read anew from time to time.
    async fn hosts_changed(&self, context: &RequestContext, news: HostsChangedRequest) -> Result<(), OrderError>;
}
