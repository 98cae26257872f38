//! The connection to the broker: made, kept, and made again. Everything that uses it takes the present [`Session`] and
//! asks for the next one when that breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::{self, Answer};
use super::{topology, unavailable};
use crate::BusError;
use crate::counts::Counts;

/// The longest pause between two attempts to connect.
const MAX_PAUSE_MS: u64 = 2_000;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long the broker gets to take a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// One connection with what belongs to it.
pub(super) struct Session {
    pub(super) connection: Connection,
    /// Confirms what is published.
    pub(super) publisher: Channel,
    /// Where answers to calls of this connection go.
    pub(super) reply_queue: ShortString,
    /// Set by whoever finds that it does not work any more.
    pub(super) broken: CancellationToken,
    /// Exchanges that were declared on it.
    pub(super) exchanges: Mutex<BTreeSet<String>>,
}

/// What the connection's keeper and its users share.
pub(super) struct Link {
    hosts: Vec<AMQPUri>,
    name: String,
    reply_queue: String,
    pub(super) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pub(super) counts: Counts,
    pub(super) closing: CancellationToken,
    session: watch::Sender<Option<Arc<Session>>>,
    trouble: Mutex<Arc<str>>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    next_call: AtomicU64,
    /// Servers whose queue is not consumed at this time, and since when.
    deaf: Mutex<BTreeMap<String, Instant>>,
}

/// A call that waits for its answer; forgotten when dropped.
pub(super) struct Waiting<'a> {
    link: &'a Link,
    pub(super) number: u64,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.link.waiting).remove(&self.number);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one insertion, removal or assignment: a panic leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the broker says of an exclusive queue whose connection it takes for alive.
const LOCKED: &str = "RESOURCE_LOCKED";
/// A server may be cut off for so long before a ping tells.
const DEAF: Duration = Duration::from_secs(3);

impl Link {
    pub(super) fn new(hosts: Vec<AMQPUri>, name: String, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let reply_queue = format!("reply.{name}.{}", entropy.uuid());
        Self {
            hosts,
            name,
            reply_queue,
            clock,
            entropy,
            counts: Counts::default(),
            closing: CancellationToken::new(),
            session: watch::Sender::new(None),
            trouble: Mutex::new("not connected yet".into()),
            waiting: Mutex::default(),
            next_call: AtomicU64::new(1),
            deaf: Mutex::default(),
        }
    }

    /// The connection, as soon as there is one that works.
    ///
    /// # Errors
    /// The bus was closed.
    pub(super) async fn session(&self) -> Result<Arc<Session>, BusError> {
        let mut sessions = self.session.subscribe();
        let works = |s: &Option<Arc<Session>>| s.as_ref().is_some_and(|s| !s.broken.is_cancelled());
        let session = tokio::select! {
            biased;
            () = self.closing.cancelled() => None,
            found = sessions.wait_for(works) => found.ok().and_then(|s| s.clone()),
        };
        session.ok_or_else(|| unavailable("it was closed"))
    }

    /// What went wrong last, as an error.
    pub(super) fn outage(&self) -> BusError {
        unavailable(lock(&self.trouble).as_ref())
    }

    pub(super) fn note(&self, trouble: &dyn std::fmt::Display) {
        *lock(&self.trouble) = trouble.to_string().into();
    }

    /// A server that was cut off from its source, or has it again.
    pub(super) fn set_deaf(&self, source: &str, deaf: bool) {
        let mut all = lock(&self.deaf);
        if deaf {
            all.entry(source.to_owned()).or_insert_with(Instant::now);
        } else {
            all.remove(source);
        }
    }

    /// A server that has been cut off for longer than a reconnection takes, if there is one.
    pub(super) fn deaf_for_long(&self) -> Option<String> {
        lock(&self.deaf).iter().find(|(_, since)| since.elapsed() > DEAF).map(|(source, _)| source.clone())
    }

    /// Prepares for an answer.
    pub(super) fn expect_answer(&self) -> Waiting<'_> {
        let number = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(number, sender);
        Waiting { link: self, number, answer }
    }

    /// Pause before the next attempt: doubled each time up to two seconds, the half of it by chance, so that the
    /// services of a cloud do not come back all at once.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let whole = (100_u64 << failures.min(10)).min(MAX_PAUSE_MS);
        Duration::from_millis(whole / 2 + self.entropy.below(whole / 2))
    }

    /// Connects and connects again, until the bus is closed.
    pub(super) async fn keep(self: Arc<Self>) {
        let (mut failures, mut locked) = (0, 0);
        while !self.closing.is_cancelled() {
            let host = &self.hosts[failures as usize % self.hosts.len()];
            let place = format!("RabbitMQ at {}:{}", host.authority.host, host.authority.port);
            let opened = tokio::select! {
                biased;
                () = self.closing.cancelled() => return,
                opened = tokio::time::timeout(ATTEMPT, self.open(host.clone(), locked)) => opened,
            };
            let why = match opened {
                Ok(Ok((session, replies))) => {
                    tracing::info!(bus = %self.name, "connected to {place}");
                    (failures, locked) = (0, 0);
                    let why = self.use_session(session, replies).await;
                    if self.closing.is_cancelled() {
                        return;
                    }
                    tracing::warn!(bus = %self.name, "lost {place}: {why}");
                    why
                }
                Ok(Err(error)) => {
                    let why = error.to_string();
                    locked += u32::from(why.contains(LOCKED));
                    why
                }
                Err(_) => format!("no connection within {ATTEMPT:?}"),
            };
            self.note(&format!("{place}: {why}"));
            // Early in a row of failures, then about two a minute.
            if failures % 16 == 1 {
                tracing::warn!(bus = %self.name, "waiting for {place}: {why}");
            }
            let pause = self.pause(failures);
            failures = failures.saturating_add(1);
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn open(&self, host: AMQPUri, locked: u32) -> Result<(Session, Consumer), lapin::Error> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connection = Connection::connect_uri(host, properties).await?;
        let publisher = connection.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        let receiver = connection.create_channel().await?;
        // The name stays over reconnections, so that answers to calls from before find their way. While the broker
        // takes an old connection of ours for alive, its queue is locked; then there has to be another.
        let reply_queue = match locked {
            0..4 => self.reply_queue.clone(),
            n => format!("{}.{n}", self.reply_queue),
        };
        let reply_queue: ShortString = reply_queue.into();
        topology::declare_replies(&receiver, reply_queue.clone()).await?;
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let replies = receiver.basic_consume(reply_queue.clone(), "".into(), options, FieldTable::default()).await?;
        let (broken, exchanges) = (CancellationToken::new(), Mutex::default());
        Ok((Session { connection, publisher, reply_queue, broken, exchanges }, replies))
    }

    /// Receives answers until the session ends; says why it did.
    async fn use_session(&self, session: Session, mut replies: Consumer) -> String {
        let session = Arc::new(session);
        self.session.send_replace(Some(session.clone()));
        let why = loop {
            let next = tokio::select! {
                biased;
                () = self.closing.cancelled() => break "it was closed".to_owned(),
                () = session.broken.cancelled() => break lock(&self.trouble).to_string(),
                next = replies.next() => next,
            };
            match next {
                Some(Ok(delivery)) => self.deliver_answer(&delivery),
                Some(Err(error)) => break error.to_string(),
                None => break "the queue of answers is gone".to_owned(),
            }
        };
        self.session.send_replace(None);
        session.broken.cancel();
        let _ = tokio::time::timeout(GOODBYE, session.connection.close(200, "bye".into())).await;
        why
    }

    fn deliver_answer(&self, delivery: &lapin::message::Delivery) {
        let Some(number) = wire::correlation(&delivery.properties) else {
            tracing::warn!(bus = %self.name, "an answer without a number was dropped");
            return;
        };
        // Nobody waits any more for an answer that came too late, or twice.
        let Some(waiting) = lock(&self.waiting).remove(&number) else { return };
        match serde_json::from_slice(&delivery.data) {
            // The caller may have stopped waiting this very moment.
            Ok(answer) => drop(waiting.send(answer)),
            Err(error) => tracing::warn!(bus = %self.name, "an answer cannot be read: {error}"),
        }
    }
}
