//! The bus over RabbitMQ (3.10 or later), AMQP 0-9-1.
//!
//! | what | how |
//! |---|---|
//! | a topic that several servers share | quorum queue `conductor`, at most ten lost deliveries |
//! | a topic's server on one host | classic durable queue `compute.host1` |
//! | fanouts | exchange `compute_fanout`, and for each server an exclusive queue that goes with it |
//! | answers | one exclusive queue for each connection; it keeps its name over reconnections |
//! | messages that were given up | queue `nova.dead-letters`, for a week |
//!
//! A message counts as sent when the broker has confirmed it and as done when its handler has returned; whatever happens
//! in between happens again. While the broker is away, senders wait and send again within their time, and consumers
//! come back with the connection.

mod consume;
mod deliver;
mod link;
mod publish;
mod topology;
mod url;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::BasicProperties;
use nova_core::clock::Clock;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::rpc::Envelope;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::counts::add;
use crate::{BusError, Counters, Handler, MessageBus, Serving, Subscription, Target};
use consume::{Consumption, Source};
use link::Link;
use publish::{Address, Letter};
use wire::Answer;

/// Deliveries of one message to handlers that ask for another, before it is a dead letter.
const MAX_DELIVERIES: u32 = 5;
/// Deliveries of one message to servers that go away with it, before it is a dead letter.
const MAX_LOST: u32 = 10;

fn unavailable(why: impl Into<BoxError>) -> BusError {
    BusError::Unavailable { source: why.into() }
}

/// How to reach the broker, and how patient to be.
#[derive(Clone)]
#[non_exhaustive]
pub struct AmqpOptions {
    /// `rabbit://user:password@host:port/vhost`; several hosts between commas are tried in turn. `amqp://` is the same.
    pub url: String,
    /// What this connection is called at the broker: `nova-compute@host1`. At most 100 bytes count.
    pub name: String,
    /// How long a cast, a fanout and the beginning of a service wait for a broker that is away.
    pub send_timeout: Duration,
    /// How long a ping may take.
    pub ping_timeout: Duration,
    /// Seconds between signs of life on the connection, where the URL does not say (`?heartbeat=`).
    pub heartbeat: u16,
    /// Calls that may wait for their answers at once.
    pub max_calls: usize,
    /// Judges deadlines.
    pub clock: Arc<dyn Clock>,
    /// Spreads reconnections, and names the queue of answers.
    pub entropy: Arc<dyn Entropy>,
}

impl AmqpOptions {
    /// Senders wait 30 s for a broker that is away; a ping takes at most 4 s, which is less than health checks wait;
    /// heartbeats come every 10 s; 10,000 calls may wait.
    pub fn new(
        url: impl Into<String>,
        name: impl Into<String>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            send_timeout: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(4),
            heartbeat: 10,
            max_calls: 10_000,
            clock,
            entropy,
        }
    }
}

/// The bus over one connection to RabbitMQ, made again whenever it is lost. Closed when dropped; its servers end then.
pub struct AmqpBus {
    link: Arc<Link>,
    calls: Semaphore,
    send_timeout: Duration,
    ping_timeout: Duration,
    keeper: TaskTracker,
    _close: DropGuard,
}

impl AmqpBus {
    /// Connects. Waits for a broker that is not there yet, however long, and logs what it waits for; callers bound the
    /// wait.
    ///
    /// # Errors
    /// [`BusError::Misconfigured`] where the URL cannot be.
    pub async fn connect(options: AmqpOptions) -> Result<Self, BusError> {
        let bus = Self::start(options)?;
        bus.link.session().await?;
        Ok(bus)
    }

    /// The same without waiting: what is sent before there is a connection waits for it.
    ///
    /// # Errors
    /// [`BusError::Misconfigured`] where the URL cannot be.
    pub fn start(options: AmqpOptions) -> Result<Self, BusError> {
        let hosts = url::parse(&options.url, options.heartbeat)?;
        let name: String = options.name.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
        let link = Arc::new(Link::new(hosts, name, options.clock, options.entropy));
        let keeper = TaskTracker::new();
        keeper.spawn(link.clone().keep());
        keeper.close();
        let close = link.closing.clone().drop_guard();
        let calls = Semaphore::new(options.max_calls.min(Semaphore::MAX_PERMITS));
        let (send_timeout, ping_timeout) = (options.send_timeout, options.ping_timeout);
        Ok(Self { link, calls, send_timeout, ping_timeout, keeper, _close: close })
    }

    /// Ends the connection in order, and with it every server; what they had in hand is delivered again. Stop them
    /// first.
    pub async fn close(self) {
        self.link.closing.cancel();
        self.keeper.wait().await;
    }

    /// How many dead letters the broker keeps, of all services. [`Counters::dead_letters`] counts those of this process.
    ///
    /// # Errors
    /// [`BusError::Unavailable`].
    pub async fn dead_letters(&self) -> Result<u32, BusError> {
        let count = async {
            let session = self.link.session().await?;
            let channel = session.connection.create_channel().await.map_err(unavailable)?;
            topology::count_dead_letters(&channel).await.map_err(unavailable)
        };
        tokio::time::timeout(self.ping_timeout, count).await.unwrap_or_else(|_| Err(self.link.outage()))
    }
}

/// Is what is sent there still there after a restart of the broker? What a single host is told is not: each of a thousand queues
/// would write and flush a file of its own for it, and what is lost the leases in the store have told again.
fn outlasts_the_broker(target: &Target) -> bool {
    target.host.is_none()
}

#[async_trait]
impl MessageBus for AmqpBus {
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError> {
        let letter = Letter::of(Address::queue(&target.queue())?, &message, outlasts_the_broker(target))?;
        self.link.publish(&letter, self.send_timeout).await?;
        add(&self.link.counts.messages);
        Ok(())
    }

    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<Value, BusError> {
        let _slot = self.calls.try_acquire().map_err(|_| BusError::Overloaded { what: "calls in flight".into() })?;
        let until = Instant::now() + timeout;
        let queue = target.queue();
        let mut waiting = self.link.expect_answer();
        let letter =
            Letter::of(Address::queue(&queue)?, &message, outlasts_the_broker(target))?.with_answer(waiting.number);
        self.link.publish(&letter, timeout).await?;
        add(&self.link.counts.messages);
        let method = message.method;
        match tokio::time::timeout_at(until, &mut waiting.answer).await {
            Ok(Ok(Answer::Done(value))) => Ok(value),
            Ok(Ok(Answer::Refused(refusal))) => Err(BusError::Refused { method, refusal }),
            Ok(Ok(Answer::GivenUp) | Err(_)) | Err(_) => Err(BusError::TimedOut { method, queue, timeout }),
        }
    }

    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError> {
        let letter = Letter::of(Address::Exchange(topology::fanout_exchange(topic)?), &message, false)?;
        self.link.publish(&letter, self.send_timeout).await?;
        add(&self.link.counts.fanouts);
        Ok(())
    }

    async fn serve(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<Serving, BusError> {
        let name = topology::name(&subscription.target.queue())?;
        let exchange = topology::fanout_exchange(&subscription.target.topic)?;
        let prefetch = u16::try_from(subscription.prefetch.max(1)).unwrap_or(u16::MAX);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let slots = Arc::new(Semaphore::new(usize::from(prefetch)));
        let serving = Serving::new(stop.clone(), tasks.clone());
        let mut sources = vec![Source::Queue(subscription.target, name)];
        if subscription.fanout {
            sources.push(Source::Fanouts(exchange));
        }
        for source in sources {
            let (link, handler, slots) = (self.link.clone(), handler.clone(), slots.clone());
            let (stop, tasks) = (stop.clone(), tasks.clone());
            Consumption { link, source, handler, slots, prefetch, stop, tasks }.begin(self.send_timeout).await?;
        }
        Ok(serving)
    }

    /// A message from here through the broker to here.
    async fn ping(&self) -> Result<(), BusError> {
        let lifetime = jiff::SignedDuration::try_from(self.ping_timeout).unwrap_or(jiff::SignedDuration::from_secs(60));
        let mut waiting = self.link.expect_answer();
        let letter = Letter {
            to: Address::Myself,
            body: serde_json::to_vec(&Answer::Done(Value::Null)).map_err(unavailable)?,
            properties: BasicProperties::default().with_correlation_id(waiting.number.to_string().into()),
            deadline: self.link.clock.now() + lifetime,
            wants_answer: false,
        };
        let there_and_back = async {
            self.link.publish(&letter, self.ping_timeout).await?;
            (&mut waiting.answer).await.map(drop).map_err(unavailable)
        };
        tokio::time::timeout(self.ping_timeout, there_and_back).await.unwrap_or_else(|_| {
            Err(unavailable(format!("a message to ourselves did not arrive within {:?}", self.ping_timeout)))
        })?;
        match self.link.deaf_for_long() {
            Some(source) => {
                Err(unavailable(format!("{source}: cannot receive: {}", nova_core::error::chain(&self.link.outage()))))
            }
            None => Ok(()),
        }
    }

    fn counters(&self) -> Counters {
        self.link.counts.read()
    }
}
