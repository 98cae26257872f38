//! The bus over a real RabbitMQ. `NOVA_TEST_AMQP_URL` names one that is shared by all tests; those that end their broker
//! start one of their own with the script that `NOVA_TEST_AMQP_RESTART` names (`dev/rabbitmq`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, MessageId};
use nova_core::rpc::{Envelope, Role, Sender, VERSION};
use nova_queue::{
    AmqpBus, AmqpOptions, BusError, Handler, HandlerError, MessageBus, Serving, Subscription, Target, testing,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

/// Different in every run: a broker keeps queues from earlier ones.
fn entropy() -> Arc<dyn Entropy> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    Arc::new(SeededEntropy::new(since ^ (u64::from(std::process::id()) << 32) ^ COUNT.fetch_add(1, Ordering::Relaxed)))
}

async fn connect(url: &str) -> Arc<AmqpBus> {
    let options = AmqpOptions::new(url, "nova-test@checker", testing::clock(), entropy());
    Arc::new(tokio::time::timeout(PATIENCE, AmqpBus::connect(options)).await.unwrap().unwrap())
}

fn shared_url() -> String {
    std::env::var("NOVA_TEST_AMQP_URL").expect("NOVA_TEST_AMQP_URL names a broker")
}

async fn open() -> Arc<AmqpBus> {
    connect(&shared_url()).await
}

mod conformance {
    use super::*;
    nova_queue::bus_conformance!(open().await, ignore = "needs NOVA_TEST_AMQP_URL");
}

fn message(payload: Value) -> Envelope {
    Envelope {
        id: MessageId::from_uuid(entropy().uuid()),
        method: "check".into(),
        version: VERSION,
        sender: Sender { role: Role::Conductor, host: HostName::new("checker") },
        deadline: Timestamp::MAX,
        context: testing::context(),
        payload,
    }
}

fn topic(name: &str) -> String {
    format!("amqp-{name}-{}", entropy().hex(4))
}

/// Notes what arrives, then answers it with itself, panics, or never returns.
struct Server {
    seen: mpsc::UnboundedSender<u64>,
    mood: Mood,
}

#[derive(Clone, Copy)]
enum Mood {
    Echo,
    Panic,
    Hang,
}

#[async_trait]
impl Handler for Server {
    async fn handle(&self, message: Envelope) -> Result<Value, HandlerError> {
        let _ = self.seen.send(message.payload.as_u64().unwrap_or_default());
        match self.mood {
            Mood::Echo => Ok(message.payload),
            Mood::Panic => panic!("as ordered"),
            Mood::Hang => std::future::pending().await,
        }
    }
}

async fn serve(bus: &AmqpBus, target: &Target, mood: Mood) -> (Serving, mpsc::UnboundedReceiver<u64>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    let subscription = Subscription { target: target.clone(), fanout: true, prefetch: 16 };
    (bus.serve(subscription, Arc::new(Server { seen, mood })).await.unwrap(), receiver)
}

async fn next(seen: &mut mpsc::UnboundedReceiver<u64>) -> u64 {
    tokio::time::timeout(PATIENCE, seen.recv()).await.expect("nothing came").unwrap()
}

async fn dead_letters_reach(bus: &AmqpBus, count: u32) {
    let reached = async {
        while bus.dead_letters().await.unwrap() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("the dead letters did not come");
}

/// One of each kind of queue.
fn targets(name: &str) -> [Target; 2] {
    [Target::shared(topic(name)), Target::on(topic(name), HostName::new("host1"))]
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_AMQP_URL"]
async fn two_connections_see_each_other() {
    let (one, two) = (open().await, open().await);
    for target in targets("two") {
        let (_serving, mut seen) = serve(&one, &target, Mood::Echo).await;
        assert_eq!(two.call(&target, message(json!(1)), PATIENCE).await.unwrap(), json!(1));
        two.cast(&target, message(json!(2))).await.unwrap();
        two.fanout(&target.topic, message(json!(3))).await.unwrap();
        let seen: BTreeSet<_> = [next(&mut seen).await, next(&mut seen).await, next(&mut seen).await].into();
        assert_eq!(seen, BTreeSet::from([1, 2, 3]));
        two.ping().await.unwrap();
    }
    assert_eq!((two.counters().messages, two.counters().fanouts), (4, 2));
    assert_eq!(one.counters().replies, 2);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_AMQP_URL"]
async fn a_handler_that_panics_makes_a_dead_letter_in_the_broker() {
    let bus = open().await;
    for target in targets("panic") {
        let before = bus.dead_letters().await.unwrap();
        let (serving, mut seen) = serve(&bus, &target, Mood::Panic).await;
        let error = bus.call(&target, message(json!(1)), PATIENCE).await.unwrap_err();
        assert!(matches!(error, BusError::TimedOut { .. }), "{error:?}");
        dead_letters_reach(&bus, before + 1).await;
        for _ in 0..5 {
            next(&mut seen).await;
        }
        serving.stop().await;
        assert!(seen.recv().await.is_none(), "delivered more often than it may be");
    }
    assert_eq!(bus.counters().dead_letters, 2);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_AMQP_URL"]
async fn what_a_lost_server_had_in_hand_goes_to_the_next() {
    let sender = open().await;
    for target in targets("lost") {
        let dying = open().await;
        let (_serving, mut seen) = serve(&dying, &target, Mood::Hang).await;
        sender.cast(&target, message(json!(7))).await.unwrap();
        assert_eq!(next(&mut seen).await, 7);
        drop(dying);
        let heir = open().await;
        let (_serving, mut seen) = serve(&heir, &target, Mood::Echo).await;
        assert_eq!(next(&mut seen).await, 7);
        assert_eq!(heir.counters().redelivered, 1);
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_AMQP_URL"]
async fn a_message_that_ends_its_servers_becomes_a_dead_letter() {
    let sender = open().await;
    for target in targets("deadly") {
        let before = sender.dead_letters().await.unwrap();
        serve(&sender, &target, Mood::Echo).await.0.stop().await;
        sender.cast(&target, message(json!(7))).await.unwrap();
        // Eleven servers, or a few more where one went between counting the message anew and letting go of the old one.
        let mut lost = 0;
        loop {
            let dying = open().await;
            let (_serving, mut seen) = serve(&dying, &target, Mood::Hang).await;
            match tokio::time::timeout(Duration::from_secs(2), seen.recv()).await {
                Ok(seen) => assert_eq!(seen, Some(7)),
                Err(_) => break,
            }
            lost += 1;
            assert!(lost < 25, "{target:?}: the message came again and again");
        }
        assert!(lost > 3, "{target:?}: the message was given up after {lost}");
        dead_letters_reach(&sender, before + 1).await;
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_AMQP_URL"]
async fn calls_in_flight_are_bounded() {
    let server = open().await;
    let mut options = AmqpOptions::new(shared_url(), "nova-test@bounded", testing::clock(), entropy());
    options.max_calls = 1;
    let client = Arc::new(AmqpBus::connect(options).await.unwrap());
    let target = Target::shared(topic("bound"));
    let (_serving, mut seen) = serve(&server, &target, Mood::Hang).await;
    let (caller, to) = (client.clone(), target.clone());
    let hanging = tokio::spawn(async move { caller.call(&to, message(json!(1)), PATIENCE).await });
    assert_eq!(next(&mut seen).await, 1);
    let error = client.call(&target, message(json!(2)), PATIENCE).await.unwrap_err();
    assert!(matches!(error, BusError::Overloaded { .. }), "{error:?}");
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    let error = client.call(&target, message(json!(3)), Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, BusError::TimedOut { .. }), "a call that was given up still counts: {error:?}");
}

/// A broker of a test's own, removed with it.
struct Broker {
    script: String,
    folder: PathBuf,
    url: String,
}

impl Broker {
    async fn start(name: &str) -> Self {
        let script = std::env::var("NOVA_TEST_AMQP_RESTART").expect("NOVA_TEST_AMQP_RESTART names dev/rabbitmq");
        let folder = std::env::temp_dir().join(format!("nova-amqp-{name}-{}", std::process::id()));
        let mut broker = Self { script, folder, url: String::new() };
        broker.url = broker.run("start").await;
        broker
    }

    async fn run(&self, verb: &str) -> String {
        self.run_with(verb, &[]).await
    }

    async fn run_with(&self, verb: &str, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::new(&self.script);
        let output = command.arg(verb).arg(&self.folder).args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = std::process::Command::new(&self.script).arg("remove").arg(&self.folder).status();
    }
}

/// Casts numbers, eight at a time, until told to stop; `confirmed` holds those that the bus took.
async fn keep_casting(bus: Arc<AmqpBus>, target: Target, confirmed: Arc<Mutex<BTreeSet<u64>>>, stop: Arc<AtomicU64>) {
    let mut casters = tokio::task::JoinSet::new();
    for lane in 0..8_u64 {
        let (bus, target, confirmed, stop) = (bus.clone(), target.clone(), confirmed.clone(), stop.clone());
        casters.spawn(async move {
            let mut number = lane * 1_000_000 + 1;
            while stop.load(Ordering::Relaxed) == 0 {
                if bus.cast(&target, message(json!(number))).await.is_ok() {
                    confirmed.lock().unwrap().insert(number);
                }
                number += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    while let Some(done) = casters.join_next().await {
        done.unwrap();
    }
}

/// Everything that a bus does, through a broker that has just come back.
async fn all_works_again(client: &AmqpBus, target: &Target, seen: &Mutex<BTreeSet<u64>>, mark: u64) {
    let again = async {
        while client.call(target, message(json!(0)), Duration::from_secs(2)).await.is_err() {}
        client.ping().await.unwrap();
        // A listener may be declared a moment after the queue.
        while !seen.lock().unwrap().contains(&mark) {
            client.fanout(&target.topic, message(json!(mark))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.expect("not all works within 5 s of the broker's return");
}

async fn survives_the_end_of_its_broker(target: Target, name: &str) {
    let broker = Broker::start(name).await;
    let (client, server) = (connect(&broker.url).await, connect(&broker.url).await);
    let (_serving, arrivals) = serve(&server, &target, Mood::Echo).await;
    let seen = noted(arrivals);
    let (confirmed, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicU64::new(0)));
    let traffic = tokio::spawn(keep_casting(client.clone(), target.clone(), confirmed.clone(), stop.clone()));
    for (round, end) in ["stop", "kill"].into_iter().enumerate() {
        // The broker goes in the middle of traffic that flows.
        let flowing = confirmed.lock().unwrap().len() + 30;
        let flows = async {
            while confirmed.lock().unwrap().len() < flowing {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, flows).await.expect("nothing is confirmed");
        // A call that is on its way while the broker goes ends well or with an error, and does not hang.
        let (caller, to) = (client.clone(), target.clone());
        let pending = tokio::spawn(async move { caller.call(&to, message(json!(0)), PATIENCE).await });
        broker.run(end).await;
        assert!(matches!(client.ping().await, Err(BusError::Unavailable { .. })), "a ping through no broker");
        assert_eq!(broker.run("start").await, broker.url);
        all_works_again(&client, &target, &seen, 900_000_000 + round as u64).await;
        let _ = tokio::time::timeout(PATIENCE, pending).await.expect("a call hangs").unwrap();
    }
    // What a host is told the broker need not keep over its end.
    let excused = if target.host.is_some() { confirmed.lock().unwrap().clone() } else { BTreeSet::new() };
    let enough = excused.len() + 50;
    let flows = async {
        while confirmed.lock().unwrap().len() < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, flows).await.expect("nothing is confirmed after the broker's return");
    stop.store(1, Ordering::Relaxed);
    traffic.await.unwrap();
    let confirmed: BTreeSet<u64> = confirmed.lock().unwrap().difference(&excused).copied().collect();
    let missing = || confirmed.difference(&seen.lock().unwrap()).copied().collect::<Vec<_>>();
    let all = async {
        while !missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, all).await;
    assert!(in_time.is_ok(), "of {} confirmed casts these did not arrive: {:?}", confirmed.len(), missing());
}

/// Which casts of three the next server of the target sees first, when the broker ended and came back after the first two.
async fn first_after_the_end_of_the_broker(broker: &Broker, target: &Target) -> u64 {
    let client = connect(&broker.url).await;
    let (serving, _) = serve(&client, target, Mood::Echo).await;
    serving.stop().await;
    for number in [1, 2] {
        client.cast(target, message(json!(number))).await.unwrap();
    }
    broker.run("stop").await;
    assert_eq!(broker.run("start").await, broker.url);
    client.cast(target, message(json!(3))).await.unwrap();
    // One after the other, in the order of the queue.
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let subscription = Subscription { target: target.clone(), fanout: false, prefetch: 1 };
    let _serving = client.serve(subscription, Arc::new(Server { seen, mood: Mood::Echo })).await.unwrap();
    next(&mut arrivals).await
}

/// The store knows what hosts were told, and tells them again. Everything else the broker keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_AMQP_RESTART"]
async fn only_what_a_single_host_is_told_ends_with_the_broker() {
    let broker = Broker::start("kept").await;
    assert_eq!(first_after_the_end_of_the_broker(&broker, &Target::shared("conductor")).await, 1);
    let host = Target::on("compute", HostName::new("host1"));
    assert_eq!(first_after_the_end_of_the_broker(&broker, &host).await, 3);
}

fn noted(mut arrivals: mpsc::UnboundedReceiver<u64>) -> Arc<Mutex<BTreeSet<u64>>> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = seen.clone();
    tokio::spawn(async move {
        while let Some(number) = arrivals.recv().await {
            notes.lock().unwrap().insert(number);
        }
    });
    seen
}

/// What an operator, or a policy of the broker, may take away while everything runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_AMQP_RESTART"]
async fn queues_and_connections_that_are_taken_away_come_back() {
    let broker = Broker::start("taken").await;
    let (client, server) = (connect(&broker.url).await, connect(&broker.url).await);
    let target = Target::shared("conductor");
    let (_serving, arrivals) = serve(&server, &target, Mood::Echo).await;
    let seen = noted(arrivals);
    all_works_again(&client, &target, &seen, 1).await;
    broker.run_with("ctl", &["delete_queue", "conductor"]).await;
    all_works_again(&client, &target, &seen, 2).await;
    broker.run_with("ctl", &["close_all_connections", "as ordered"]).await;
    all_works_again(&client, &target, &seen, 3).await;
    // Queues of answers and of fanouts: exclusive ones have no name that is known outside.
    let delete = "Pids = [amqqueue:get_pid(Q) || Q <- rabbit_amqqueue:list(), amqqueue:get_exclusive_owner(Q) =/= none], \
                  rabbit_amqqueue:delete_immediately(Pids), timer:sleep(200), \
                  {length(Pids), lists:any(fun erlang:is_process_alive/1, Pids)}.";
    assert_eq!(broker.run_with("ctl", &["eval", delete]).await, "{3,false}", "not taken away");
    all_works_again(&client, &target, &seen, 4).await;
}

/// The connection is well, and messages to ourselves arrive; but a queue is gone that may not be made again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_AMQP_RESTART"]
async fn a_server_that_cannot_receive_says_so() {
    let broker = Broker::start("deaf").await;
    let (client, server) = (connect(&broker.url).await, connect(&broker.url).await);
    let target = Target::shared("conductor");
    let (_serving, arrivals) = serve(&server, &target, Mood::Echo).await;
    let seen = noted(arrivals);
    all_works_again(&client, &target, &seen, 1).await;
    broker.run_with("ctl", &["set_permissions", "-p", "/", "guest", "^$", ".*", ".*"]).await;
    broker.run_with("ctl", &["delete_queue", "conductor"]).await;
    let told = async {
        loop {
            if let Err(error) = server.ping().await {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let error = tokio::time::timeout(PATIENCE, told).await.expect("nobody says that the server is deaf");
    assert!(nova_core::error::chain(&error).contains("queue conductor: cannot receive"), "{error:?}");
    client.ping().await.expect("who serves nothing is not deaf");
    broker.run_with("ctl", &["set_permissions", "-p", "/", "guest", ".*", ".*", ".*"]).await;
    all_works_again(&client, &target, &seen, 2).await;
    server.ping().await.unwrap();
}

/// Waits until every thread of the process has been stopped: until then it may still answer.
async fn frozen(pid: &str) {
    let stopped = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        // The state follows the name, which stands in brackets.
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    };
    let all = async {
        while !std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(stopped) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("it goes on");
}

/// A connection that looks healthy and carries nothing: only signs of life and pings tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_AMQP_RESTART"]
async fn a_frozen_broker_is_noticed_and_found_again() {
    let broker = Broker::start("frozen").await;
    let url = format!("{}?heartbeat=2", broker.url);
    let (client, server) = (connect(&url).await, connect(&url).await);
    let target = Target::shared("conductor");
    let (_serving, arrivals) = serve(&server, &target, Mood::Echo).await;
    client.call(&target, message(json!(1)), PATIENCE).await.unwrap();
    let pid = std::fs::read_to_string(broker.folder.join("rabbitmq.pid")).unwrap();
    let signal = async |name: &str| {
        let done = tokio::process::Command::new("kill").args([name, pid.trim()]).status().await.unwrap();
        assert!(done.success());
    };
    signal("-STOP").await;
    frozen(pid.trim()).await;
    let error = client.ping().await.unwrap_err();
    assert!(matches!(error, BusError::Unavailable { .. }), "{error:?}");
    // Longer than the broker's silence may last: both sides have given their connections up by now.
    let error = client.call(&target, message(json!(1)), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, BusError::Unavailable { .. }), "{error:?}");
    signal("-CONT").await;
    let seen = noted(arrivals);
    all_works_again(&client, &target, &seen, 900_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_AMQP_RESTART"]
async fn a_shared_queue_survives_the_end_of_its_broker() {
    survives_the_end_of_its_broker(Target::shared("conductor"), "shared").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_AMQP_RESTART"]
async fn a_hosts_queue_survives_the_end_of_its_broker() {
    survives_the_end_of_its_broker(Target::on("compute", HostName::new("host1")), "host").await;
}

#[tokio::test]
async fn what_is_sent_without_a_broker_fails_within_its_time() {
    // Nobody listens on the port of a listener that was just dropped.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("rabbit://guest:guest@127.0.0.1:{port}/");
    let mut options = AmqpOptions::new(url, "nova-test@nowhere", testing::clock(), entropy());
    options.send_timeout = Duration::from_millis(500);
    let bus = AmqpBus::start(options).unwrap();
    let error = bus.cast(&Target::shared("conductor"), message(json!(1))).await.unwrap_err();
    assert!(matches!(error, BusError::Unavailable { .. }), "{error:?}");
    assert_eq!(bus.counters().messages, 0);
}
