//! What goes over the wire: envelopes and answers as JSON, and the few AMQP properties that carry meaning.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use nova_core::rpc::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Header: how often a handler asked for this message to be delivered again.
const TRIES: &str = "nova-tries";
/// Header: how often a consumer of a classic queue went away with this message in hand.
const LOST: &str = "nova-lost";
/// RabbitMQ's header of quorum queues: how often a message came back to the queue.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// The longest that a message is kept, in ms: 24 days, within what RabbitMQ takes.
const MAX_EXPIRATION: i64 = i32::MAX as i64;

/// An answer to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// What the handler returned.
    Done(Value),
    /// Why it did not.
    Refused(Refusal),
    /// The message is a dead letter: nobody will answer.
    GivenUp,
}

/// Failed deliveries of a message so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// The handler asked for another.
    pub(super) tries: u32,
    /// The consumer was lost.
    pub(super) lost: u32,
}

impl Failures {
    pub(super) fn read(properties: &BasicProperties) -> Self {
        let number = |name| properties.headers().as_ref().and_then(|h| h.inner().get(name)).map_or(0, number);
        Self { tries: number(TRIES), lost: number(LOST).saturating_add(number(DELIVERY_COUNT)) }
    }

    /// The same message again, with these failures.
    pub(super) fn write(self, properties: BasicProperties) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(TRIES.into(), AMQPValue::LongUInt(self.tries));
        headers.insert(LOST.into(), AMQPValue::LongUInt(self.lost));
        properties.with_headers(headers)
    }
}

fn number(value: &AMQPValue) -> u32 {
    let wide = match value {
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::LongLongInt(n) => *n,
        _ => 0,
    };
    u32::try_from(wide.max(0)).unwrap_or(u32::MAX)
}

/// Milliseconds that a message is worth keeping; `None` where its time is over.
pub(super) fn expiration(deadline: Timestamp, now: Timestamp) -> Option<ShortString> {
    let left = deadline.duration_since(now).as_millis();
    (left > 0).then(|| (left.min(i128::from(MAX_EXPIRATION)) as i64).to_string().into())
}

/// The number of the call that an answer is for.
pub(super) fn correlation(properties: &BasicProperties) -> Option<u64> {
    properties.correlation_id().as_ref()?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_survive_the_way() {
        let failures = Failures { tries: 3, lost: 1 };
        assert_eq!(Failures::read(&failures.write(BasicProperties::default())), failures);
        assert_eq!(Failures::read(&BasicProperties::default()), Failures::default());
    }

    #[test]
    fn what_the_broker_counts_is_added() {
        let mut headers = FieldTable::default();
        headers.insert(DELIVERY_COUNT.into(), AMQPValue::LongLongInt(2));
        headers.insert(LOST.into(), AMQPValue::LongUInt(1));
        assert_eq!(Failures::read(&BasicProperties::default().with_headers(headers)).lost, 3);
    }

    #[test]
    fn expiration_is_bounded_and_ends() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(expiration(now, now), None);
        assert_eq!(expiration(Timestamp::from_millisecond(1500).unwrap(), now).unwrap().as_str(), "1500");
        assert_eq!(expiration(Timestamp::MAX, now).unwrap().as_str(), i32::MAX.to_string());
    }
}
