//! The message bus between the services of a cloud: [`MessageBus::cast`] (one receiver, at least once),
//! [`MessageBus::call`] (with a reply or a timeout), [`MessageBus::fanout`] (every live receiver), and typed RPC on top
//! ([`RpcClient`], [`Dispatcher`]).
//!
//! What it is not: a source of truth. The bus may lose, repeat, delay and reorder; nothing in the cloud is correct
//! *because* a message arrived. A message is acknowledged after its handler is done, so that what it does is durable.
//!
//! | implementation | for |
//! |---|---|
//! | [`MemoryBus`] | services in one process, and tests |
//! | `amqp::AmqpBus` (feature `amqp`) | services in processes of their own, over RabbitMQ |
//! | [`FaultyBus`] | a wrapper that loses, repeats and delays by a seed |
//!
//! ```
//! use std::sync::Arc;
//! use nova_core::rpc::conductor::Ping;
//! use nova_queue::{Dispatcher, MemoryBus, MessageBus, RpcClient, Subscription, testing};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(testing::clock()));
//! let conductor = Dispatcher::new("conductor").method::<Ping, _, _>(|_incoming, ()| async { Ok(()) });
//! let serving = bus.serve(Subscription::shared("conductor"), Arc::new(conductor)).await?;
//!
//! let client: RpcClient = testing::client(bus.clone());
//! client.call::<Ping>(&testing::context(), &()).await?;
//! serving.stop().await;
//! # Ok::<(), nova_queue::BusError>(()) }).unwrap();
//! ```

#[cfg(feature = "amqp")]
pub mod amqp;
mod counts;
mod dispatch;
mod error;
mod faulty;
mod memory;
mod rpc;
mod serving;
pub mod testing;

#[cfg(feature = "conformance")]
pub mod conformance;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::ids::HostName;
use nova_core::rpc::{Envelope, Refusal};

#[cfg(feature = "amqp")]
pub use amqp::{AmqpBus, AmqpOptions};
pub use dispatch::{Dispatcher, Incoming};
pub use error::BusError;
pub use faulty::{Chances, FaultyBus};
pub use memory::MemoryBus;
pub use rpc::RpcClient;
pub use serving::{RunningService, Serving};

/// Where a message goes: any one server of a topic, or that topic's server on one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `conductor`, `scheduler`, `compute`.
    pub topic: String,
    /// Only the one on this host.
    pub host: Option<HostName>,
}

impl Target {
    /// Any one server of the topic.
    pub fn shared(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), host: None }
    }

    /// The topic's server on this host.
    pub fn on(topic: impl Into<String>, host: HostName) -> Self {
        Self { topic: topic.into(), host: Some(host) }
    }

    /// The name of its queue, as Nova names it: `compute.host1`.
    pub fn queue(&self) -> String {
        match &self.host {
            Some(host) => format!("{}.{host}", self.topic),
            None => self.topic.clone(),
        }
    }
}

/// What a server wants to receive.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Messages to this target, shared with whoever else serves it.
    pub target: Target,
    /// Also everything that is fanned out on the topic.
    pub fanout: bool,
    /// How many messages may be in hand at once.
    pub prefetch: usize,
}

impl Subscription {
    /// A share of a topic's messages, and its fanouts.
    pub fn shared(topic: &str) -> Self {
        Self { target: Target::shared(topic), fanout: true, prefetch: 64 }
    }

    /// What is meant for one host, and the topic's fanouts.
    pub fn on(topic: &str, host: HostName) -> Self {
        Self { target: Target::on(topic, host), fanout: true, prefetch: 64 }
    }
}

/// Why a handler did not do what a message asked.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It never will: callers are told why, and the message is done with.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not now: deliver it again (a bounded number of times; then it is a dead letter). Callers see a timeout or the
    /// answer of the repetition.
    #[error("{0}; it will be delivered again")]
    Again(String),
}

/// Receives messages. May be called for several at once, and for the same one twice.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Does what the message asks, durably, before it returns.
    async fn handle(&self, message: Envelope) -> Result<serde_json::Value, HandlerError>;
}

/// How much went over the bus since the start of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Casts and calls sent.
    pub messages: u64,
    /// Replies sent.
    pub replies: u64,
    /// Fanouts sent (one each, however many receive it).
    pub fanouts: u64,
    /// Messages delivered again.
    pub redelivered: u64,
    /// Messages dropped because their deadline had passed.
    pub expired: u64,
    /// Messages given up.
    pub dead_letters: u64,
}

/// Carries messages between services.
#[async_trait]
pub trait MessageBus: Send + Sync {
    /// Hands over a message for one receiver, at least once. Returned means: the bus has it.
    ///
    /// # Errors
    /// [`BusError::Unroutable`] where no such queue exists; [`BusError::Overloaded`] where it is full.
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError>;

    /// Hands over a message and waits for its answer.
    ///
    /// # Errors
    /// As [`MessageBus::cast`]; [`BusError::TimedOut`]; [`BusError::Refused`] with the handler's reason.
    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<serde_json::Value, BusError>;

    /// Gives a message to every live receiver of a topic. Nobody listening is fine.
    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError>;

    /// Begins to receive. The queue exists from now on; when the [`Serving`] goes, messages wait in it until their
    /// deadline.
    async fn serve(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<Serving, BusError>;

    /// Does the bus answer? Cheap; behind `/healthz`.
    async fn ping(&self) -> Result<(), BusError>;

    /// What went over it.
    fn counters(&self) -> Counters;
}
