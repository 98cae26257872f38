//! What every bus must do, as tests: `bus_conformance!(open())` makes one of each, where `open()` gives an
//! `Arc<dyn MessageBus>`. Each check uses topics of its own, so that one broker serves them all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a check fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, MessageId};
use nova_core::rpc::{Envelope, Refusal, RefusalKind, Role, Sender, VERSION};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{BusError, Handler, HandlerError, MessageBus, Subscription, Target, testing};

/// Long enough for any broker; reached only when a check fails.
const PATIENCE: Duration = Duration::from_secs(20);

type Answer = Box<dyn Fn(&Envelope) -> Result<Value, HandlerError> + Send + Sync>;

struct Recorder {
    seen: mpsc::UnboundedSender<Value>,
    answer: Answer,
}

#[async_trait]
impl Handler for Recorder {
    async fn handle(&self, message: Envelope) -> Result<Value, HandlerError> {
        let _ = self.seen.send(message.payload.clone());
        (self.answer)(&message)
    }
}

fn recorder(
    answer: impl Fn(&Envelope) -> Result<Value, HandlerError> + Send + Sync + 'static,
) -> (Arc<Recorder>, mpsc::UnboundedReceiver<Value>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    (Arc::new(Recorder { seen, answer: Box::new(answer) }), receiver)
}

async fn received(receiver: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("no message came").expect("the server is gone")
}

fn topic(name: &str) -> String {
    format!("conformance-{name}-{}", std::process::id())
}

fn message(payload: Value) -> Envelope {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let entropy = SeededEntropy::new(u64::from(COUNT.fetch_add(1, Ordering::Relaxed)));
    Envelope {
        id: MessageId::from_uuid(entropy.uuid()),
        method: "check".into(),
        version: VERSION,
        sender: Sender { role: Role::Conductor, host: HostName::new("checker") },
        deadline: jiff::Timestamp::MAX,
        context: testing::context(),
        payload,
    }
}

/// A cast reaches one server, whole.
pub async fn cast_reaches_one_server(bus: Arc<dyn MessageBus>) {
    let topic = topic("cast");
    let (first, mut seen) = recorder(|_| Ok(Value::Null));
    let a = bus.serve(Subscription::shared(&topic), first.clone()).await.unwrap();
    let b = bus.serve(Subscription::shared(&topic), first).await.unwrap();
    for n in 0..10 {
        bus.cast(&Target::shared(&topic), message(json!({"n": n, "text": "ü"}))).await.unwrap();
    }
    let mut numbers = Vec::new();
    for _ in 0..10 {
        numbers.push(received(&mut seen).await["n"].as_u64().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    a.stop().await;
    b.stop().await;
    assert!(seen.try_recv().is_err(), "delivered more than once");
}

/// A call brings back what the handler answered.
pub async fn call_brings_the_answer(bus: Arc<dyn MessageBus>) {
    let topic = topic("call");
    let (echo, _seen) = recorder(|m| Ok(json!({"echo": m.payload})));
    let _serving = bus.serve(Subscription::shared(&topic), echo).await.unwrap();
    let reply = bus.call(&Target::shared(&topic), message(json!(7)), PATIENCE).await.unwrap();
    assert_eq!(reply, json!({"echo": 7}));
}

/// Many calls at once get each its own answer.
pub async fn concurrent_calls_do_not_mix(bus: Arc<dyn MessageBus>) {
    let topic = topic("mix");
    let (echo, _seen) = recorder(|m| Ok(m.payload.clone()));
    let _serving = bus.serve(Subscription::shared(&topic), echo).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..100 {
        let (bus, target) = (bus.clone(), Target::shared(&topic));
        calls.spawn(async move { (n, bus.call(&target, message(json!(n)), PATIENCE).await.unwrap()) });
    }
    while let Some(done) = calls.join_next().await {
        let (asked, answered) = done.unwrap();
        assert_eq!(answered, json!(asked));
    }
}

/// A refusal comes back as what it is.
pub async fn refusals_come_back(bus: Arc<dyn MessageBus>) {
    let topic = topic("refuse");
    let (handler, _seen) = recorder(|_| Err(Refusal::new(RefusalKind::Conflict, "taken").into()));
    let _serving = bus.serve(Subscription::shared(&topic), handler).await.unwrap();
    let error = bus.call(&Target::shared(&topic), message(Value::Null), PATIENCE).await.unwrap_err();
    assert_eq!(error.refusal().map(|r| (r.kind, r.message.as_str())), Some((RefusalKind::Conflict, "taken")));
}

/// A queue that nobody ever served is an error at once, not a wait.
pub async fn a_missing_queue_is_an_error(bus: Arc<dyn MessageBus>) {
    let nobody = Target::on(topic("nobody"), HostName::new("nowhere"));
    let cast = bus.cast(&nobody, message(Value::Null)).await.unwrap_err();
    assert!(matches!(cast, BusError::Unroutable { .. }), "{cast:?}");
    let call = bus.call(&nobody, message(Value::Null), PATIENCE).await.unwrap_err();
    assert!(matches!(call, BusError::Unroutable { .. }), "{call:?}");
}

/// Hosts get what is meant for them and nothing else; fanouts reach all.
pub async fn hosts_are_told_apart_and_fanouts_reach_all(bus: Arc<dyn MessageBus>) {
    let topic = topic("hosts");
    let (one, mut seen_one) = recorder(|_| Ok(Value::Null));
    let (two, mut seen_two) = recorder(|_| Ok(Value::Null));
    let _a = bus.serve(Subscription::on(&topic, HostName::new("one")), one).await.unwrap();
    let _b = bus.serve(Subscription::on(&topic, HostName::new("two")), two).await.unwrap();
    bus.cast(&Target::on(&topic, HostName::new("two")), message(json!("for two"))).await.unwrap();
    assert_eq!(received(&mut seen_two).await, json!("for two"));
    bus.fanout(&topic, message(json!("for all"))).await.unwrap();
    assert_eq!(received(&mut seen_one).await, json!("for all"));
    assert_eq!(received(&mut seen_two).await, json!("for all"));
}

/// What a handler could not do now is delivered again.
pub async fn unfinished_work_is_delivered_again(bus: Arc<dyn MessageBus>) {
    let topic = topic("again");
    let tries = AtomicU32::new(0);
    let (handler, mut seen) = recorder(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(HandlerError::Again("not yet".into())),
        _ => Ok(json!("done")),
    });
    let _serving = bus.serve(Subscription::shared(&topic), handler).await.unwrap();
    let reply = bus.call(&Target::shared(&topic), message(json!(1)), PATIENCE).await.unwrap();
    assert_eq!(reply, json!("done"));
    for _ in 0..3 {
        received(&mut seen).await;
    }
}

/// A message that can never be handled is given up after a bounded number of deliveries, and counted.
pub async fn poison_becomes_a_dead_letter(bus: Arc<dyn MessageBus>) {
    let topic = topic("poison");
    let before = bus.counters().dead_letters;
    let (handler, mut seen) = recorder(|m| match m.payload.as_str() {
        Some("poison") => Err(HandlerError::Again("never".into())),
        _ => Ok(Value::Null),
    });
    let _serving = bus.serve(Subscription::shared(&topic), handler).await.unwrap();
    let error = bus.call(&Target::shared(&topic), message(json!("poison")), PATIENCE).await.unwrap_err();
    assert!(matches!(error, BusError::TimedOut { .. }), "{error:?}");
    assert_eq!(bus.counters().dead_letters, before + 1);
    bus.cast(&Target::shared(&topic), message(json!("fine"))).await.unwrap();
    while received(&mut seen).await != json!("fine") {}
}

/// What nobody took before its deadline is dropped.
pub async fn late_messages_are_dropped(bus: Arc<dyn MessageBus>) {
    let topic = topic("late");
    let (handler, mut seen) = recorder(|_| Ok(Value::Null));
    bus.serve(Subscription::shared(&topic), handler.clone()).await.unwrap().stop().await;
    let mut late = message(json!("late"));
    late.deadline = jiff::Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1);
    bus.cast(&Target::shared(&topic), late).await.unwrap();
    bus.cast(&Target::shared(&topic), message(json!("in time"))).await.unwrap();
    let _serving = bus.serve(Subscription::shared(&topic), handler).await.unwrap();
    assert_eq!(received(&mut seen).await, json!("in time"));
}

/// Stopping a server waits for what is in hand and leaves the rest to the next one.
pub async fn stopping_loses_nothing(bus: Arc<dyn MessageBus>) {
    let topic = topic("stop");
    let (handler, mut seen) = recorder(|_| Ok(Value::Null));
    let first = bus.serve(Subscription::shared(&topic), handler.clone()).await.unwrap();
    bus.cast(&Target::shared(&topic), message(json!(1))).await.unwrap();
    assert_eq!(received(&mut seen).await, json!(1));
    first.stop().await;
    bus.cast(&Target::shared(&topic), message(json!(2))).await.unwrap();
    let _second = bus.serve(Subscription::shared(&topic), handler).await.unwrap();
    assert_eq!(received(&mut seen).await, json!(2));
}

/// Makes a test of every check. With a second argument, the tests are ignored for that reason unless asked for.
#[macro_export]
macro_rules! bus_conformance {
    ($open:expr) => { $crate::bus_conformance!(@all [] $open); };
    ($open:expr, ignore = $reason:literal) => {
        $crate::bus_conformance!(@all [#[ignore = $reason]] $open);
    };
    (@all $ignore:tt $open:expr) => {
        $crate::bus_conformance!(@each $ignore $open =>
            cast_reaches_one_server, call_brings_the_answer, concurrent_calls_do_not_mix, refusals_come_back,
            a_missing_queue_is_an_error, hosts_are_told_apart_and_fanouts_reach_all,
            unfinished_work_is_delivered_again, poison_becomes_a_dead_letter, late_messages_are_dropped,
            stopping_loses_nothing);
    };
    (@each $ignore:tt $open:expr => $($check:ident),+) => {
        $( $crate::bus_conformance!(@one $ignore $open, $check); )+
    };
    (@one [$($ignore:tt)*] $open:expr, $check:ident) => {
        #[tokio::test]
        $($ignore)*
        async fn $check() { $crate::conformance::$check($open).await }
    };
}
