//! The event log of a simulation: everything that goes over the bus, with its virtual time, as one running hash.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::clock::Clock;
use nova_core::rpc::Envelope;
use nova_queue::{BusError, Counters, Handler, MessageBus, Serving, Subscription, Target};
use serde_json::Value;

/// A log of which the hash and the length are kept, and the lines on request.
pub struct EventLog {
    clock: Arc<dyn Clock>,
    state: Mutex<(u64, u64)>,
}

impl EventLog {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, state: Mutex::new((0xcbf2_9ce4_8422_2325, 0)) })
    }

    /// Adds a line (FNV-1a over time and text).
    pub fn add(&self, line: &str) {
        let line = format!("{} {line}\n", self.clock.now());
        if std::env::var_os("NOVA_TEST_EVENT_LOG").is_some() {
            eprint!("{line}");
        }
        let mut state = self.state.lock().unwrap();
        for byte in line.bytes() {
            state.0 = (state.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        state.1 += 1;
    }

    /// Hash and number of lines.
    pub fn digest(&self) -> (u64, u64) {
        *self.state.lock().unwrap()
    }
}

/// Writes down all traffic of the bus that it wraps.
pub struct RecordingBus {
    pub inner: Arc<dyn MessageBus>,
    pub log: Arc<EventLog>,
}

impl RecordingBus {
    fn note(&self, pattern: &str, to: &str, message: &Envelope) {
        let from = &message.sender.host;
        self.log.add(&format!("{pattern} {from} -> {to} {} {} {}", message.method, message.id, message.payload));
    }
}

#[async_trait]
impl MessageBus for RecordingBus {
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError> {
        self.note("cast", &target.queue(), &message);
        self.inner.cast(target, message).await
    }

    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<Value, BusError> {
        self.note("call", &target.queue(), &message);
        let method = message.method.clone();
        let answer = self.inner.call(target, message, timeout).await;
        match &answer {
            Ok(value) => self.log.add(&format!("reply {method} {value}")),
            Err(error) => self.log.add(&format!("error {method} {error}")),
        }
        answer
    }

    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError> {
        self.note("fanout", topic, &message);
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
