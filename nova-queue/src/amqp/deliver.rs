//! One message in hand: from its arrival to its acknowledgement, which comes last.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use nova_core::rpc::Envelope;

use super::consume::{Consumption, Origin};
use super::publish::{Address, Letter};
use super::wire::{Answer, Failures};
use super::{MAX_DELIVERIES, MAX_LOST};
use crate::counts::add;
use crate::{BusError, HandlerError};

/// How long an answer waits for a caller that is just connecting again.
const REPLY_PATIENCE: Duration = Duration::from_secs(3);
/// Between two attempts to answer it.
const REPLY_PAUSE: Duration = Duration::from_millis(100);
/// How long a message waits for the broker when it goes back into its queue, or its answer is sent.
const PATIENCE: Duration = Duration::from_secs(30);

impl Consumption {
    pub(super) async fn deliver(&self, origin: Origin, delivery: Delivery) {
        let message: Envelope = match serde_json::from_slice(&delivery.data) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(queue = %origin.queue, "a message cannot be read: {error}");
                return self.bury(&delivery).await;
            }
        };
        if message.deadline < self.link.clock.now() {
            add(&self.link.counts.expired);
            return acknowledge(&delivery).await;
        }
        let failures = Failures::read(&delivery.properties);
        if origin.classic && delivery.redelivered {
            let failures = Failures { lost: failures.lost + 1, ..failures };
            return self.count_loss(&origin, &delivery, &message, failures).await;
        }
        if failures.lost > MAX_LOST {
            return self.give_up(&delivery, &message, "its servers were lost over it").await;
        }
        if failures.lost > 0 {
            add(&self.link.counts.redelivered);
        }
        let handled = AssertUnwindSafe(self.handler.handle(message.clone())).catch_unwind().await;
        match handled.unwrap_or_else(|_| Err(HandlerError::Again("the handler panicked".into()))) {
            Ok(value) => self.answer(&delivery, &message, Answer::Done(value)).await,
            Err(HandlerError::Refused(refusal)) => {
                if delivery.properties.reply_to().is_none() {
                    tracing::warn!(method = %message.method, "a message was refused: {refusal}");
                }
                self.answer(&delivery, &message, Answer::Refused(refusal)).await;
            }
            Err(HandlerError::Again(why)) => return self.again(&origin, &delivery, &message, failures, &why).await,
        }
        acknowledge(&delivery).await;
    }

    /// Puts the message behind the others of its queue, with one more try counted; gives it up after the last.
    async fn again(&self, origin: &Origin, delivery: &Delivery, message: &Envelope, failures: Failures, why: &str) {
        let failures = Failures { tries: failures.tries + 1, ..failures };
        if failures.tries >= MAX_DELIVERIES {
            return self.give_up(delivery, message, why).await;
        }
        add(&self.link.counts.redelivered);
        tokio::time::sleep(Duration::from_millis(50 << failures.tries)).await;
        self.put_back(origin, delivery, message, failures).await;
    }

    /// A classic queue does not count how often a message comes back from a consumer that is gone, so the message
    /// itself does. It is counted before it is handled: it may be what ends its consumers.
    async fn count_loss(&self, origin: &Origin, delivery: &Delivery, message: &Envelope, failures: Failures) {
        if failures.lost > MAX_LOST {
            return self.give_up(delivery, message, "its servers were lost over it").await;
        }
        self.put_back(origin, delivery, message, failures).await;
    }

    async fn give_up(&self, delivery: &Delivery, message: &Envelope, why: &str) {
        tracing::error!(method = %message.method, "a message was given up: {why}");
        self.bury(delivery).await;
        self.answer(delivery, message, Answer::GivenUp).await;
    }

    /// The copy is in the queue before the original is let go of: there may be two for a moment, never none.
    async fn put_back(&self, origin: &Origin, delivery: &Delivery, message: &Envelope, failures: Failures) {
        let letter = Letter {
            to: Address::Queue(origin.queue.clone()),
            body: delivery.data.clone(),
            properties: failures.write(delivery.properties.clone()),
            deadline: message.deadline,
            wants_answer: false,
        };
        match self.link.publish(&letter, PATIENCE).await {
            Ok(()) => acknowledge(delivery).await,
            Err(error) => {
                tracing::warn!(queue = %origin.queue, "a message was given back uncounted: {error}");
                // Where the connection is gone, the broker does this by itself.
                let _ = delivery.acker.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await;
            }
        }
    }

    /// To the dead letters.
    async fn bury(&self, delivery: &Delivery) {
        // Counted only where the broker still has it from us; else it comes again.
        if let Ok(true) = delivery.acker.reject(BasicRejectOptions { requeue: false }).await {
            add(&self.link.counts.dead_letters);
        }
    }

    /// Sends the answer, where one is wanted. A caller whose queue is not there may be connecting again.
    async fn answer(&self, delivery: &Delivery, message: &Envelope, answer: Answer) {
        let (Some(queue), Some(number)) = (delivery.properties.reply_to(), delivery.properties.correlation_id()) else {
            return;
        };
        let Ok(body) = serde_json::to_vec(&answer) else { return };
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_correlation_id(number.clone());
        let to = Address::Queue(queue.clone());
        let letter = Letter { to, body, properties, deadline: message.deadline, wants_answer: false };
        if answer != Answer::GivenUp {
            add(&self.link.counts.replies);
        }
        let until = tokio::time::Instant::now() + REPLY_PATIENCE;
        loop {
            match self.link.publish(&letter, PATIENCE).await {
                Ok(()) => return,
                Err(BusError::Unroutable { .. }) if tokio::time::Instant::now() < until => {
                    tokio::time::sleep(REPLY_PAUSE).await;
                }
                // The caller is gone, or will ask again.
                Err(error) => return tracing::debug!(method = %message.method, "nobody took an answer: {error}"),
            }
        }
    }
}

async fn acknowledge(delivery: &Delivery) {
    if let Err(error) = delivery.acker.ack(BasicAckOptions::default()).await {
        // The connection is gone: the message comes again.
        tracing::debug!("not acknowledged: {error}");
    }
}
