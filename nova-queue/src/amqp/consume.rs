//! Receiving: a consumer that survives its connections.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::{Link, Session};
use super::topology;
use crate::{BusError, Handler, Target};

/// How long the broker gets to end a consumer in order.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the broker may take until a consumer is there. A thousand hosts that connect again at once have it take long.
const OPENING: Duration = Duration::from_secs(60);

/// What is consumed.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A target's queue.
    Queue(Target, ShortString),
    /// A topic's fanouts, by its exchange.
    Fanouts(ShortString),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(_, name) => write!(f, "queue {name}"),
            Self::Fanouts(exchange) => write!(f, "fanouts of {exchange}"),
        }
    }
}

/// A server's consumption of one source.
pub(super) struct Consumption {
    pub(super) link: Arc<Link>,
    pub(super) source: Source,
    pub(super) handler: Arc<dyn Handler>,
    /// One for each message that may be in hand.
    pub(super) slots: Arc<Semaphore>,
    pub(super) prefetch: u16,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// A consumer on one connection.
struct Opened {
    session: Arc<Session>,
    channel: Channel,
    consumer: Consumer,
    queue: ShortString,
}

/// Where a message in hand came from. Holding it keeps the channel open on which it is acknowledged.
pub(super) struct Origin {
    pub(super) _channel: Channel,
    pub(super) queue: ShortString,
    /// A single host's queue: the broker does not count lost deliveries there.
    pub(super) classic: bool,
}

impl Consumption {
    /// Begins, and returns when messages flow.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] when the time is up.
    pub(super) async fn begin(self, within: Duration) -> Result<(), BusError> {
        let opened = match tokio::time::timeout(within, self.establish()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(self.link.outage()),
        };
        let tasks = self.tasks.clone();
        tasks.spawn(Arc::new(self).run(opened));
        Ok(())
    }

    async fn run(self: Arc<Self>, mut opened: Opened) {
        loop {
            if self.consume(opened).await {
                return;
            }
            let source = self.source.to_string();
            self.link.set_deaf(&source, true);
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                next = self.establish() => Some(next),
            };
            self.link.set_deaf(&source, false);
            let Some(next) = next else { return };
            // The bus was closed.
            let Ok(next) = next else { return };
            opened = next;
        }
    }

    /// Declares and consumes, again and again until it works.
    async fn establish(&self) -> Result<Opened, BusError> {
        let mut failures = 0;
        loop {
            let session = self.link.session().await?;
            match self.attempt(&session).await {
                Ok(opened) => return Ok(opened),
                Err(error) => {
                    self.link.note(&error);
                    // Early in a row of failures, then about two a minute.
                    if failures % 16 == 3 {
                        tracing::warn!(source = %self.source, "cannot receive yet: {error}");
                    }
                    tokio::time::sleep(self.link.pause(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Opens within its time, or says why not: a broker that has just come back may leave a question about a queue without an
    /// answer, and nothing comes over a connection that is lost.
    async fn attempt(&self, session: &Arc<Session>) -> Result<Opened, String> {
        tokio::select! {
            biased;
            () = session.broken.cancelled() => Err("the connection was lost meanwhile".to_owned()),
            opened = tokio::time::timeout(OPENING, self.open(session)) => match opened {
                Ok(opened) => opened.map_err(|error| error.to_string()),
                Err(_) => Err(format!("the broker did not answer within {OPENING:?}")),
            },
        }
    }

    async fn open(&self, session: &Arc<Session>) -> Result<Opened, lapin::Error> {
        let channel = session.connection.create_channel().await?;
        let queue = match &self.source {
            Source::Queue(target, name) => {
                topology::declare_queue(&channel, target, name.clone()).await?;
                name.clone()
            }
            Source::Fanouts(exchange) => topology::declare_listener(&channel, exchange.clone()).await?,
        };
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await?;
        Ok(Opened { session: session.clone(), channel, consumer, queue })
    }

    /// Hands messages to the handler until stopped (true) or cut off (false).
    async fn consume(self: &Arc<Self>, mut opened: Opened) -> bool {
        let classic = matches!(&self.source, Source::Queue(target, _) if target.host.is_some());
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.farewell(opened, None).await,
                () = opened.session.broken.cancelled() => return false,
                next = opened.consumer.next() => next,
            };
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    self.link.note(&error);
                    return false;
                }
                None => return false,
            };
            let slot = tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.farewell(opened, Some(delivery)).await,
                // What is in hand of an earlier connection holds its slots until it is done.
                () = opened.session.broken.cancelled() => return false,
                slot = self.slots.clone().acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return true };
            let origin = Origin { _channel: opened.channel.clone(), queue: opened.queue.clone(), classic };
            let this = self.clone();
            self.tasks.spawn(async move {
                let _slot = slot;
                this.deliver(origin, delivery).await;
            });
        }
    }

    /// Takes no more, and gives back what came meanwhile. What is in hand keeps the channel until it is acknowledged.
    async fn farewell(&self, mut opened: Opened, unhandled: Option<Delivery>) -> bool {
        let give_back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let goodbye = async {
            let tag = opened.consumer.tag();
            if let Some(delivery) = unhandled {
                let _ = delivery.acker.nack(give_back).await;
            }
            // Where the connection is lost meanwhile, the broker gives everything back by itself.
            let _ = opened.channel.basic_cancel(tag, BasicCancelOptions::default()).await;
            while let Some(Ok(delivery)) = opened.consumer.next().await {
                let _ = delivery.acker.nack(give_back).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
        true
    }
}
