//! Sending: a message counts as sent when the broker has confirmed it; until then it is sent again over whatever
//! connection there is, within its time.

use std::time::Duration;

use jiff::Timestamp;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Confirmation};
use nova_core::rpc::Envelope;

use super::link::{Link, Session, lock};
use super::{topology, wire};
use crate::BusError;

/// A message larger than this, in bytes, is refused here: the broker would end the connection over it.
const MAX_BYTES: usize = 16 << 20;

/// Who gets it.
#[derive(Debug, Clone)]
pub(super) enum Address {
    /// One queue, which must exist.
    Queue(ShortString),
    /// All queues that listen to this exchange, if any.
    Exchange(ShortString),
    /// The queue of answers of whatever connection it goes over.
    Myself,
}

/// A message ready to go.
pub(super) struct Letter {
    pub(super) to: Address,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
    pub(super) deadline: Timestamp,
    /// An answer is wanted at the sender's queue.
    pub(super) wants_answer: bool,
}

impl Letter {
    /// An envelope. `persistent` ones survive a restart of the broker.
    pub(super) fn of(to: Address, message: &Envelope, persistent: bool) -> Result<Self, BusError> {
        let method = &message.method;
        let body = serde_json::to_vec(message)
            .map_err(|e| BusError::Malformed { method: method.clone(), source: Box::new(e) })?;
        if body.len() > MAX_BYTES {
            let source = format!("{} bytes are more than the {MAX_BYTES} that a message may have", body.len()).into();
            return Err(BusError::Malformed { method: method.clone(), source });
        }
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(if persistent { 2 } else { 1 })
            .with_message_id(message.id.to_string().into());
        if let Ok(kind) = ShortString::try_new(method.as_str()) {
            properties = properties.with_type(kind);
        }
        Ok(Self { to, body, properties, deadline: message.deadline, wants_answer: false })
    }

    /// The same, with its answer to be sent to us under this number.
    pub(super) fn with_answer(mut self, number: u64) -> Self {
        self.properties = self.properties.with_correlation_id(number.to_string().into());
        self.wants_answer = true;
        self
    }
}

impl Link {
    /// Sends, and returns when the broker has it.
    ///
    /// # Errors
    /// [`BusError::Unroutable`] and [`BusError::Overloaded`] at once, [`BusError::Unavailable`] when the time is up.
    pub(super) async fn publish(&self, letter: &Letter, within: Duration) -> Result<(), BusError> {
        tokio::time::timeout(within, self.publish_until_confirmed(letter)).await.unwrap_or_else(|_| Err(self.outage()))
    }

    async fn publish_until_confirmed(&self, letter: &Letter) -> Result<(), BusError> {
        loop {
            let session = self.session().await?;
            match self.attempt(&session, letter).await {
                Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => return Ok(()),
                Ok(Confirmation::Nack(None)) => {
                    return Err(BusError::Overloaded { what: letter.to.describe(&session) });
                }
                Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                    return Err(BusError::Unroutable { queue: letter.to.describe(&session) });
                }
                Err(error) => {
                    self.note(&error);
                    session.broken.cancel();
                }
            }
        }
    }

    async fn attempt(&self, session: &Session, letter: &Letter) -> Result<Confirmation, lapin::Error> {
        let Some(expiration) = wire::expiration(letter.deadline, self.clock.now()) else {
            // Its time is over: nobody would read it.
            crate::counts::add(&self.counts.expired);
            return Ok(Confirmation::Ack(None));
        };
        let mut properties = letter.properties.clone().with_expiration(expiration);
        if letter.wants_answer {
            properties = properties.with_reply_to(session.reply_queue.clone());
        }
        let (exchange, queue) = match &letter.to {
            Address::Queue(queue) => ("".into(), queue.clone()),
            Address::Myself => ("".into(), session.reply_queue.clone()),
            Address::Exchange(exchange) => {
                session.ensure_exchange(exchange).await?;
                (exchange.clone(), "".into())
            }
        };
        let mandatory = !matches!(letter.to, Address::Exchange(_));
        let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
        session.publisher.basic_publish(exchange, queue, options, &letter.body, properties).await?.await
    }
}

impl Session {
    /// Publishing to an exchange that is not there would end the channel, with all that waits for confirmation on it.
    async fn ensure_exchange(&self, exchange: &ShortString) -> Result<(), lapin::Error> {
        if lock(&self.exchanges).contains(exchange.as_str()) {
            return Ok(());
        }
        let channel = self.connection.create_channel().await?;
        topology::declare_fanout(&channel, exchange.clone()).await?;
        lock(&self.exchanges).insert(exchange.to_string());
        Ok(())
    }
}

impl Address {
    fn describe(&self, session: &Session) -> String {
        match self {
            Self::Queue(name) | Self::Exchange(name) => name.to_string(),
            Self::Myself => session.reply_queue.to_string(),
        }
    }

    /// The queue of this name.
    pub(super) fn queue(name: &str) -> Result<Self, BusError> {
        // A name that AMQP cannot carry is a queue that cannot be.
        topology::name(name).map(Self::Queue).map_err(|_| BusError::Unroutable { queue: name.to_owned() })
    }
}
