//! The bus inside one process: queues in memory, consumers as tasks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nova_core::clock::Clock;
use nova_core::rpc::{Envelope, Refusal};
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counts::{Counts, add};
use crate::{BusError, Counters, Handler, HandlerError, MessageBus, Serving, Subscription, Target};

type HandlerFuture<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Value, HandlerError>> + Send + 'a>>;

/// Deliveries of one message before it is a dead letter.
const MAX_DELIVERIES: u32 = 5;
/// Messages that one queue holds.
const MAX_QUEUE: usize = 100_000;
/// Calls that wait for an answer at once.
const MAX_CALLS: usize = 10_000;

/// Queues in memory. Deterministic: first in, first out, and nothing happens by itself.
pub struct MemoryBus {
    shared: Arc<Shared>,
    calls: Semaphore,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    counts: Counts,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Arc<Queue>>,
    listeners: BTreeMap<String, Vec<Arc<Queue>>>,
    dead: VecDeque<Envelope>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
}

struct Delivery {
    message: Envelope,
    reply: Option<oneshot::Sender<Result<Value, Refusal>>>,
    tries: u32,
}

/// A handler that panics has not done its work: the message is delivered again, and given up in the end.
async fn guarded(mut work: HandlerFuture<'_>) -> Result<Value, HandlerError> {
    std::future::poll_fn(move |cx| {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(_) => std::task::Poll::Ready(Err(HandlerError::Again("the handler panicked".into()))),
        }
    })
    .await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while a queue is locked leaves it whole: every change is one push or pop.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryBus {
    /// A bus without queues. The clock judges deadlines.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared { clock, state: Mutex::default(), counts: Counts::default() };
        Self { shared: Arc::new(shared), calls: Semaphore::new(MAX_CALLS) }
    }

    /// Messages that were given up, oldest first; the last thousand are kept.
    pub fn dead_letters(&self) -> Vec<Envelope> {
        lock(&self.shared.state).dead.iter().cloned().collect()
    }

    fn put(&self, target: &Target, delivery: Delivery) -> Result<(), BusError> {
        let name = target.queue();
        let queue = lock(&self.shared.state).queues.get(&name).cloned();
        let queue = queue.ok_or(BusError::Unroutable { queue: name.clone() })?;
        if lock(&queue.waiting).len() >= MAX_QUEUE {
            return Err(BusError::Overloaded { what: format!("queue {name}") });
        }
        add(&self.shared.counts.messages);
        queue.push_back(delivery);
        Ok(())
    }
}

impl Queue {
    fn push_back(&self, delivery: Delivery) {
        lock(&self.waiting).push_back(delivery);
        self.arrived.notify_one();
    }

    async fn pop(&self) -> Delivery {
        loop {
            let arrived = self.arrived.notified();
            if let Some(delivery) = lock(&self.waiting).pop_front() {
                return delivery;
            }
            arrived.await;
        }
    }
}

impl Shared {
    async fn consume(
        self: Arc<Self>,
        queue: Arc<Queue>,
        handler: Arc<dyn Handler>,
        slots: Arc<Semaphore>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) {
        loop {
            let slot = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                slot = slots.clone().acquire_owned() => slot,
            };
            let Ok(slot) = slot else { return };
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                delivery = queue.pop() => delivery,
            };
            if delivery.message.deadline < self.clock.now() {
                add(&self.counts.expired);
                continue;
            }
            let (shared, queue, handler) = (self.clone(), queue.clone(), handler.clone());
            tasks.spawn(async move {
                let _slot = slot;
                shared.deliver(&queue, &*handler, delivery).await;
            });
        }
    }

    async fn deliver(&self, queue: &Queue, handler: &dyn Handler, mut delivery: Delivery) {
        match guarded(handler.handle(delivery.message.clone())).await {
            Ok(value) => self.answer(delivery.reply, Ok(value)),
            Err(HandlerError::Refused(refusal)) => {
                if delivery.reply.is_none() {
                    tracing::warn!(method = %delivery.message.method, "a message was refused: {refusal}");
                }
                self.answer(delivery.reply, Err(refusal));
            }
            Err(HandlerError::Again(why)) => {
                delivery.tries += 1;
                if delivery.tries < MAX_DELIVERIES {
                    add(&self.counts.redelivered);
                    tokio::time::sleep(Duration::from_millis(50 << delivery.tries)).await;
                    queue.push_back(delivery);
                } else {
                    tracing::error!(method = %delivery.message.method, "a message was given up: {why}");
                    self.bury(delivery.message);
                }
            }
        }
    }

    fn answer(&self, reply: Option<oneshot::Sender<Result<Value, Refusal>>>, answer: Result<Value, Refusal>) {
        if let Some(reply) = reply {
            add(&self.counts.replies);
            // The caller may have stopped waiting; that is its right.
            let _ = reply.send(answer);
        }
    }

    fn bury(&self, message: Envelope) {
        add(&self.counts.dead_letters);
        let mut state = lock(&self.state);
        if state.dead.len() == 1000 {
            state.dead.pop_front();
        }
        state.dead.push_back(message);
    }
}

#[async_trait]
impl MessageBus for MemoryBus {
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError> {
        self.put(target, Delivery { message, reply: None, tries: 0 })
    }

    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<Value, BusError> {
        let _slot = self.calls.try_acquire().map_err(|_| BusError::Overloaded { what: "calls in flight".into() })?;
        let method = message.method.clone();
        let (reply, answer) = oneshot::channel();
        self.put(target, Delivery { message, reply: Some(reply), tries: 0 })?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(refusal))) => Err(BusError::Refused { method, refusal }),
            // The handler died, or nobody was there before the time was up.
            Ok(Err(_)) | Err(_) => Err(BusError::TimedOut { method, queue: target.queue(), timeout }),
        }
    }

    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError> {
        add(&self.shared.counts.fanouts);
        let listeners = lock(&self.shared.state).listeners.get(topic).cloned().unwrap_or_default();
        for queue in listeners {
            if lock(&queue.waiting).len() >= MAX_QUEUE {
                tracing::warn!(topic, "a listener is too slow; it misses news");
                continue;
            }
            queue.push_back(Delivery { message: message.clone(), reply: None, tries: 0 });
        }
        Ok(())
    }

    async fn serve(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<Serving, BusError> {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let slots = Arc::new(Semaphore::new(subscription.prefetch.max(1)));
        let own = lock(&self.shared.state).queues.entry(subscription.target.queue()).or_default().clone();
        let consume = |queue: Arc<Queue>| {
            let (handler, slots) = (handler.clone(), slots.clone());
            self.shared.clone().consume(queue, handler, slots, stop.clone(), tasks.clone())
        };
        tasks.spawn(consume(own));
        if subscription.fanout {
            let listener = Arc::new(Queue::default());
            let topic = subscription.target.topic;
            lock(&self.shared.state).listeners.entry(topic.clone()).or_default().push(listener.clone());
            let (shared, fanouts) = (self.shared.clone(), consume(listener.clone()));
            tasks.spawn(async move {
                fanouts.await;
                if let Some(all) = lock(&shared.state).listeners.get_mut(&topic) {
                    all.retain(|queue| !Arc::ptr_eq(queue, &listener));
                }
            });
        }
        Ok(Serving::new(stop, tasks))
    }

    async fn ping(&self) -> Result<(), BusError> {
        Ok(())
    }

    fn counters(&self) -> Counters {
        self.shared.counts.read()
    }
}
