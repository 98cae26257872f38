//! Small things for examples and tests.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{HostName, RequestId};
use nova_core::rpc::{Role, Sender};

use crate::{MessageBus, RpcClient};

/// A clock that follows the runtime's: with a paused runtime it shows virtual time, beginning at a fixed moment.
#[derive(Debug)]
pub struct VirtualClock {
    start: Timestamp,
    origin: std::sync::OnceLock<tokio::time::Instant>,
}

impl VirtualClock {
    /// 2026-01-01 at the first look.
    pub fn new() -> Self {
        let start = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { start, origin: std::sync::OnceLock::new() }
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.origin.get_or_init(tokio::time::Instant::now).elapsed();
        self.start + SignedDuration::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A [`VirtualClock`].
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(VirtualClock::new())
}

/// A client that speaks as the conductor of `test`.
pub fn client(bus: Arc<dyn MessageBus>) -> RpcClient {
    let sender = Sender { role: Role::Conductor, host: HostName::new("test") };
    RpcClient::new(bus, sender, clock(), Arc::new(SeededEntropy::new(1)))
}

/// The context of internal work.
pub fn context() -> RequestContext {
    RequestContext::internal(RequestId::generate(&SeededEntropy::new(2)))
}
