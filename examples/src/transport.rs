//! From `DEFAULT.transport_url` to a bus: one connection for each service that has an identity of its own.

use std::sync::Arc;

use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::options::{Config, common};
use nova_queue::{MemoryBus, MessageBus};

use crate::cli::StartError;

/// Gives each service of this process its bus. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// All services of this process share the one bus.
    Memory(Arc<MemoryBus>),
    /// Every service has a connection of its own.
    #[cfg(feature = "amqp")]
    Amqp { url: String, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy> },
}

impl Transport {
    /// What the options name. Nothing is connected yet.
    ///
    /// # Errors
    /// A URL whose scheme is not built in.
    pub fn from_config(
        config: &Config,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let url = config.get(&common::TRANSPORT_URL);
        let scheme = url.split(':').next().unwrap_or_default();
        let kind = match scheme {
            "memory" => Kind::Memory(Arc::new(MemoryBus::new(clock.clone()))),
            _ => broker(&url, clock, entropy).ok_or_else(|| {
                StartError::config(vec![format!("DEFAULT.transport_url: support for {scheme} is not built in")])
            })?,
        };
        Ok(Self { kind })
    }

    /// Refuses a transport that reaches no other process.
    ///
    /// # Errors
    /// `DEFAULT.transport_url` is `memory:`.
    pub fn require_shared(config: &Config) -> Result<(), StartError> {
        if !config.get(&common::TRANSPORT_URL).starts_with("memory:") {
            return Ok(());
        }
        Err(StartError::config(vec![
            "DEFAULT.transport_url: 'memory:' reaches no other process, and a service of its own needs the others; \
             nova-all runs all of them together"
                .to_owned(),
        ]))
    }

    /// The bus of the service of that name (`nova-compute@host1`). Waits for a broker that is not there yet, however
    /// long, and logs what it waits for.
    ///
    /// # Errors
    /// A URL that cannot be.
    #[cfg_attr(
        not(feature = "amqp"),
        expect(unused_variables, reason = "the bus in memory has no connections to name")
    )]
    pub async fn connect(&self, name: &str) -> Result<Arc<dyn MessageBus>, StartError> {
        match &self.kind {
            Kind::Memory(bus) => Ok(bus.clone()),
            #[cfg(feature = "amqp")]
            Kind::Amqp { url, clock, entropy } => {
                let options = nova_queue::AmqpOptions::new(url, name, clock.clone(), entropy.clone());
                let bus = nova_queue::AmqpBus::connect(options).await;
                Ok(Arc::new(bus.map_err(|e| StartError::config(vec![misconfigured(&e)]))?))
            }
        }
    }
}

#[cfg(feature = "amqp")]
fn misconfigured(error: &nova_queue::BusError) -> String {
    format!("DEFAULT.transport_url: {}", nova_core::error::chain(error))
}

#[cfg(feature = "amqp")]
fn broker(url: &str, clock: &Arc<dyn Clock>, entropy: &Arc<dyn Entropy>) -> Option<Kind> {
    Some(Kind::Amqp { url: url.to_owned(), clock: clock.clone(), entropy: entropy.clone() })
}

#[cfg(not(feature = "amqp"))]
fn broker(_url: &str, _clock: &Arc<dyn Clock>, _entropy: &Arc<dyn Entropy>) -> Option<Kind> {
    None
}
