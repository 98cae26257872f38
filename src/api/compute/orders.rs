//! What the API asks of other services: the only words that leave it, besides what it writes into the store.

use async_trait::async_trait;
use nova_core::console::{ConsoleTarget, ConsoleType};
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::ids::{HostName, InstanceId, PortId, TaskId};
use nova_core::rpc::compute::{Diagnostics, ExtendVolumeRequest};
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
    /// The guest is not in a state in which it could.
    #[error("the guest is not ready")]
    NotReady,
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

    /// Tells a conductor that these tasks need not wait for an interface any more: it works, or failed to. A conductor that
    /// does not hear it finds out a few seconds later.
    async fn tell_plugged(
        &self,
        context: &RequestContext,
        tasks: &[TaskId],
        port: PortId,
        works: bool,
    ) -> Result<(), OrderError>;

    /// What a guest wrote to its console: the last `length` lines, or all.
    async fn console_output(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
        length: Option<u32>,
    ) -> Result<String, OrderError>;

    /// Where a console of a guest is served.
    async fn console(
        &self,
        _context: &RequestContext,
        _host: &HostName,
        _instance: InstanceId,
        _console_type: ConsoleType,
    ) -> Result<ConsoleTarget, OrderError> {
        Err(OrderError::Unsupported)
    }

    /// Has a live migration end: soon, at the price of a pause (`force`), or so that the guest stays.
    async fn steer_live_migration(
        &self,
        context: &RequestContext,
        host: &HostName,
        instance: InstanceId,
        force: bool,
    ) -> Result<(), OrderError>;

    /// Has a guest see that a volume of it has grown. A guest that is not told sees it when it starts anew.
    async fn extend_volume(
        &self,
        _context: &RequestContext,
        _host: &HostName,
        _request: ExtendVolumeRequest,
    ) -> Result<(), OrderError> {
        Err(OrderError::Unsupported)
    }

    /// Counters of a guest that runs.
    async fn diagnostics(
        &self,
        _context: &RequestContext,
        _host: &HostName,
        _instance: InstanceId,
    ) -> Result<Diagnostics, OrderError> {
        Err(OrderError::Unsupported)
    }

    /// Asks hosts, by way of a conductor, to fetch an image ahead of its first use.
    async fn cache_image(&self, context: &RequestContext, request: CacheImageRequest) -> Result<(), OrderError>;

    /// Tells the schedulers what an operator made of hosts' services and of aggregates. Nothing is lost when it is: their
    /// tables are read anew from time to time.
    async fn hosts_changed(&self, context: &RequestContext, news: HostsChangedRequest) -> Result<(), OrderError>;
}
