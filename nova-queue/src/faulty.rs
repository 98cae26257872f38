//! A bus that does what buses may do: lose, repeat and delay, by a seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::entropy::Entropy;
use nova_core::rpc::Envelope;
use serde_json::Value;

use crate::{BusError, Counters, Handler, MessageBus, Serving, Subscription, Target};

/// How often what happens to a message, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chances {
    /// It is lost although it was handed over.
    pub lose: u64,
    /// It is delivered twice.
    pub repeat: u64,
    /// It arrives late, by up to [`Chances::longest_delay`], past others.
    pub delay: u64,
    /// The bus refuses it.
    pub fail: u64,
    /// Upper bound of delays.
    pub longest_delay: Duration,
}

/// Wraps any bus.
pub struct FaultyBus {
    inner: Arc<dyn MessageBus>,
    chances: Mutex<Chances>,
    entropy: Arc<dyn Entropy>,
}

impl FaultyBus {
    /// The same seed in `entropy` and the same traffic give the same faults.
    pub fn new(inner: Arc<dyn MessageBus>, chances: Chances, entropy: Arc<dyn Entropy>) -> Self {
        Self { inner, chances: Mutex::new(chances), entropy }
    }

    /// From now on, these.
    pub fn set_chances(&self, chances: Chances) {
        *self.chances.lock().unwrap_or_else(PoisonError::into_inner) = chances;
    }

    fn chances(&self) -> Chances {
        *self.chances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hits(&self, thousandths: u64) -> bool {
        thousandths > 0 && self.entropy.below(1000) < thousandths
    }

    /// Another copy, at some time within ten times the longest delay: long after the first was done, perhaps.
    fn copy_later(&self, target: Target, message: Envelope) {
        let bound = u64::try_from(self.chances().longest_delay.as_millis()).unwrap_or(u64::MAX);
        let (inner, wait) = (self.inner.clone(), Duration::from_millis(self.entropy.below(bound.saturating_mul(10))));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // It is a copy: nobody misses it.
            let _ = inner.cast(&target, message).await;
        });
    }

    async fn maybe_delay(&self) {
        if self.hits(self.chances().delay) {
            let bound = u64::try_from(self.chances().longest_delay.as_millis()).unwrap_or(u64::MAX);
            tokio::time::sleep(Duration::from_millis(self.entropy.below(bound))).await;
        }
    }
}

#[async_trait]
impl MessageBus for FaultyBus {
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError> {
        if self.hits(self.chances().fail) {
            return Err(BusError::Unavailable { source: "injected fault".into() });
        }
        if self.hits(self.chances().lose) {
            return Ok(());
        }
        self.maybe_delay().await;
        if self.hits(self.chances().repeat) {
            self.copy_later(target.clone(), message.clone());
        }
        self.inner.cast(target, message).await
    }

    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<Value, BusError> {
        if self.hits(self.chances().fail) {
            return Err(BusError::Unavailable { source: "injected fault".into() });
        }
        if self.hits(self.chances().lose) {
            tokio::time::sleep(timeout).await;
            return Err(BusError::TimedOut { method: message.method, queue: target.queue(), timeout });
        }
        self.maybe_delay().await;
        if self.hits(self.chances().repeat) {
            self.inner.call(target, message.clone(), timeout).await?;
        }
        self.inner.call(target, message, timeout).await
    }

    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError> {
        if self.hits(self.chances().lose) {
            return Ok(());
        }
        self.inner.fanout(topic, message).await
    }

    async fn serve(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<Serving, BusError> {
        self.inner.serve(subscription, handler).await
    }

    async fn ping(&self) -> Result<(), BusError> {
        self.inner.ping().await
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}
