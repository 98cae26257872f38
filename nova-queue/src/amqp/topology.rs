//! The queues and exchanges of a cloud. Declaring is safe to repeat: every server declares what it consumes, on every
//! connection.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::MAX_LOST;
use crate::{BusError, Target};

/// Where RabbitMQ puts messages that were given up.
pub(super) const DEAD_LETTERS: &str = "nova.dead-letters";
/// Messages that one queue holds; more are refused to their senders.
const MAX_QUEUE: u32 = 100_000;
/// Messages that a fanout queue holds; the oldest goes first.
const MAX_FANOUT: u32 = 10_000;
/// Dead letters that are kept, and for how long, in ms: a week.
const MAX_DEAD: u32 = 100_000;
const DEAD_TTL: u32 = 7 * 24 * 3600 * 1000;

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A name as AMQP takes it: at most 255 bytes.
pub(super) fn name(name: &str) -> Result<ShortString, BusError> {
    ShortString::try_new(name)
        .map_err(|e| BusError::Misconfigured { what: "a queue's name".into(), why: e.to_string() })
}

/// The exchange of a topic's fanouts, as oslo.messaging names it.
pub(super) fn fanout_exchange(topic: &str) -> Result<ShortString, BusError> {
    name(&format!("{topic}_fanout"))
}

/// The queue of a target: a quorum queue where several servers share it, a classic durable one for a single host, whose
/// losses the leases in the store make good.
pub(super) async fn declare_queue(channel: &Channel, target: &Target, name: ShortString) -> Result<(), lapin::Error> {
    declare_dead_letters(channel).await?;
    let mut arguments = table([
        ("x-dead-letter-exchange", text(DEAD_LETTERS)),
        ("x-max-length", AMQPValue::LongUInt(MAX_QUEUE)),
        ("x-overflow", text("reject-publish")),
    ]);
    if target.host.is_none() {
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongUInt(MAX_LOST));
    }
    channel.queue_declare(name, QueueDeclareOptions::durable(), arguments).await.map(drop)
}

/// RabbitMQ dead-letters what expires too, and nobody wants to read that: the exchange looks at the reason and passes
/// on only what was rejected or came back too often.
async fn declare_dead_letters(channel: &Channel) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(DEAD_LETTERS.into(), ExchangeKind::Headers, durable, FieldTable::default()).await?;
    let arguments =
        table([("x-max-length", AMQPValue::LongUInt(MAX_DEAD)), ("x-message-ttl", AMQPValue::LongUInt(DEAD_TTL))]);
    channel.queue_declare(DEAD_LETTERS.into(), QueueDeclareOptions::durable(), arguments).await?;
    for reason in ["rejected", "delivery_limit"] {
        let wanted = table([("x-match", text("any-with-x")), ("x-first-death-reason", text(reason))]);
        let (queue, exchange) = (DEAD_LETTERS.into(), DEAD_LETTERS.into());
        channel.queue_bind(queue, exchange, "".into(), QueueBindOptions::default(), wanted).await?;
    }
    Ok(())
}

pub(super) async fn declare_fanout(channel: &Channel, exchange: ShortString) -> Result<(), lapin::Error> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange, ExchangeKind::Fanout, durable, FieldTable::default()).await
}

/// A queue of this connection's own that receives a topic's fanouts. It goes with its consumer.
pub(super) async fn declare_listener(channel: &Channel, exchange: ShortString) -> Result<ShortString, lapin::Error> {
    declare_fanout(channel, exchange.clone()).await?;
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let bounds = table([("x-max-length", AMQPValue::LongUInt(MAX_FANOUT))]);
    let queue = channel.queue_declare("".into(), own, bounds).await?.name().clone();
    channel.queue_bind(queue.clone(), exchange, "".into(), QueueBindOptions::default(), FieldTable::default()).await?;
    Ok(queue)
}

/// The queue on which this connection receives answers.
pub(super) async fn declare_replies(channel: &Channel, name: ShortString) -> Result<(), lapin::Error> {
    let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name, own, FieldTable::default()).await.map(drop)
}

/// How many dead letters the broker holds.
pub(super) async fn count_dead_letters(channel: &Channel) -> Result<u32, lapin::Error> {
    declare_dead_letters(channel).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(DEAD_LETTERS.into(), passive, FieldTable::default()).await?.message_count())
}
