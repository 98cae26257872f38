//! Guests are addresses of loopback; doors are sockets there.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use nova_core::contracts::BoxError;
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{InstanceId, PortId};
use nova_core::metadata::InstanceMetadata;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::*;
use crate::network::BooksPlumbing;

fn id(number: u128) -> InstanceId {
    format!("a01b23c4-d5e6-47f8-9a0b-{number:012x}").parse().unwrap()
}

fn port(number: u128) -> PortId {
    format!("b01b23c4-d5e6-47f8-9a0b-{number:012x}").parse().unwrap()
}

/// Knows guests 1 to 9; fails when told to, and waits for leave to answer.
struct Source {
    asked: AtomicUsize,
    fails: AtomicUsize,
    leave: Semaphore,
    left: Mutex<BTreeMap<InstanceId, String>>,
}

impl Source {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            fails: AtomicUsize::new(0),
            leave: Semaphore::new(1000),
            left: Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl MetadataSource for Source {
    async fn metadata(&self, instance: InstanceId, _: PortId) -> Result<Option<InstanceMetadata>, BoxError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.leave.acquire().await.unwrap().forget();
        if self.fails.load(Ordering::SeqCst) > 0 {
            return Err("the conductor is away".into());
        }
        let number = (1..10).find(|number| id(*number) == instance);
        let left = self.left.lock().unwrap().get(&instance).cloned().unwrap_or_default();
        Ok(number.map(|number| {
            serde_json::from_value(json!({
                "instance_id": instance, "number": number, "project_id": "p", "name": "n",
                "hostname": format!("guest-{number}"), "password": left,
            }))
            .unwrap()
        }))
    }

    async fn set_password(&self, instance: InstanceId, _: PortId, password: &str) -> Result<Left, BoxError> {
        if self.fails.load(Ordering::SeqCst) > 0 {
            return Err("the conductor is away".into());
        }
        self.left.lock().unwrap().insert(instance, password.to_owned());
        Ok(Left::Kept)
    }
}

/// A door with a guest of that number behind each last part of an address of loopback.
fn door(name: &str, guests: &[(u8, u128)]) -> (MetadataDoor, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (MetadataDoor { name: name.into(), listener, callers: behind(guests) }, address)
}

fn behind(guests: &[(u8, u128)]) -> BTreeMap<IpAddr, (InstanceId, PortId)> {
    guests.iter().map(|(last, number)| (IpAddr::from([127, 0, 0, *last]), (id(*number), port(*number)))).collect()
}

fn server(source: &Arc<Source>, limits: MetadataLimits) -> MetadataServer {
    MetadataServer::new(source.clone(), Arc::new(SeededEntropy::new(1)), limits)
}

async fn connect(last: u8, door: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
    socket.connect(door).await.unwrap()
}

/// Sends text and reads until the other side closes.
async fn say(stream: &mut TcpStream, text: &str) -> String {
    // The other side may have hung up already.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn ask(last: u8, door: SocketAddr, line: &str, headers: &str) -> (u16, String) {
    let mut stream = connect(last, door).await;
    let text = format!("{line} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n{headers}\r\n");
    let answer = say(&mut stream, &text).await;
    let status = answer.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

const WHO: &str = "GET /latest/meta-data/hostname";

#[tokio::test]
async fn a_guest_is_known_by_its_address_and_by_nothing_else() {
    let source = Source::new();
    let server = server(&source, MetadataLimits::default());
    let (first, one) = door("one", &[(2, 1), (3, 2), (4, 77)]);
    // The same addresses lead to other guests on another network.
    let (second, two) = door("two", &[(2, 3)]);
    server.serve(vec![first, second]);
    assert_eq!(ask(2, one, WHO, "").await, (200, "guest-1".into()));
    assert_eq!(ask(3, one, WHO, "").await, (200, "guest-2".into()));
    assert_eq!(ask(2, two, WHO, "").await, (200, "guest-3".into()));
    let claims = format!("X-Instance-ID: {}\r\nX-Forwarded-For: 127.0.0.2\r\nX-Tenant-ID: p\r\n", id(1));
    assert_eq!(ask(3, one, WHO, &claims).await, (200, "guest-2".into()));
    let asked = source.asked();
    assert_eq!(ask(9, one, WHO, &claims).await.0, 404, "nobody is known at that address");
    assert_eq!(source.asked(), asked);
    assert_eq!(ask(4, one, WHO, "").await.0, 404, "not of this host, says the conductor");
    assert_eq!(ask(9, one, "GET /", "").await.0, 200);
    assert_eq!(ask(2, one, "GET /latest/none", "").await.0, 404);
    assert_eq!(ask(2, one, "GET /openstack/latest/network_data.json", "").await, (200, "{}".into()));
}

#[tokio::test]
async fn only_reading_is_offered() {
    let source = Source::new();
    let server = server(&source, MetadataLimits::default());
    let (only, address) = door("one", &[(2, 1)]);
    server.serve(vec![only]);
    assert_eq!(ask(2, address, "HEAD /latest/meta-data/hostname", "").await, (200, String::new()));
    assert_eq!(ask(2, address, "PUT /latest/api/token", "").await.0, 404);
    for line in
        ["POST /openstack/2012-08-10/password", "PUT /openstack/latest/password", "DELETE /", "PUT /latest/user-data"]
    {
        assert_eq!(ask(2, address, line, "").await.0, 405, "{line}");
    }
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    assert_eq!(ask(2, address, WHO, &long).await.0, 431);
}

#[tokio::test]
async fn a_guest_leaves_a_password_once() {
    let source = Source::new();
    let server = server(&source, MetadataLimits { cache: Duration::from_secs(3600), ..MetadataLimits::default() });
    let (only, address) = door("one", &[(2, 1), (3, 2), (4, 77)]);
    server.serve(vec![only]);
    const PATH: &str = "/openstack/latest/password";
    let read = async |guest: u8| ask(guest, address, &format!("GET {PATH}"), "").await;
    let post = async |guest: u8, text: &str| {
        let headers = format!("Content-Length: {}\r\n\r\n{text}", text.len());
        ask(guest, address, &format!("POST {PATH}"), &headers).await.0
    };
    assert_eq!(read(2).await, (200, String::new()));
    source.fails.store(1, Ordering::SeqCst);
    assert_eq!(post(3, "x").await, 503);
    source.fails.store(0, Ordering::SeqCst);
    assert_eq!(post(2, &"x".repeat(1021)).await, 400, "one byte too long");
    let longest = "x".repeat(1020);
    assert_eq!(post(2, &longest).await, 200);
    assert_eq!(read(2).await, (200, longest.clone()), "no matter what was kept");
    assert_eq!(post(2, "another").await, 409);
    assert_eq!(post(2, &longest).await, 409);
    assert_eq!((post(4, "x").await, post(9, "x").await), (404, 404), "of another host, of nobody");
    assert_eq!(read(3).await, (200, String::new()), "another guest's is its own");
    // Its owner has forgotten it.
    source.left.lock().unwrap().clear();
    assert_eq!(post(2, "again").await, 200);
    assert_eq!(read(2).await, (200, "again".into()));
}

#[tokio::test]
async fn answers_are_kept_and_troubles_are_not() {
    let source = Source::new();
    let server = server(&source, MetadataLimits { cache: Duration::from_secs(3600), ..MetadataLimits::default() });
    let (only, address) = door("one", &[(2, 1), (3, 2)]);
    server.serve(vec![only]);
    source.fails.store(1, Ordering::SeqCst);
    assert_eq!(ask(2, address, WHO, "").await.0, 503);
    source.fails.store(0, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(ask(2, address, WHO, "").await.0, 200);
    }
    assert_eq!(source.asked(), 2, "once in vain, once for all");
    // Of many that ask at once, one asks.
    source.leave.forget_permits(1000);
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(async move { ask(3, address, WHO, "").await.0 })).collect();
    source.leave.add_permits(1);
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!(source.asked(), 3);
}

#[tokio::test]
async fn a_guest_holds_only_so_many_connections() {
    let source = Source::new();
    let server = server(&source, MetadataLimits { per_guest: 1, ..MetadataLimits::default() });
    let (only, address) = door("one", &[(2, 1), (3, 2)]);
    server.serve(vec![only]);
    let mut held = connect(2, address).await;
    held.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut begin = [0; 12];
    held.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    assert_eq!(ask(2, address, WHO, "").await, (0, String::new()), "closed without a word");
    assert_eq!(ask(3, address, WHO, "").await.0, 200, "another guest's are its own");
    // The first connection is asked to end; then there is room again.
    let rest = say(&mut held, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(rest.contains("latest"));
    let mut answer = ask(2, address, WHO, "").await;
    for _ in 0..1000 {
        if answer.0 == 200 {
            break;
        }
        tokio::task::yield_now().await;
        answer = ask(2, address, WHO, "").await;
    }
    assert_eq!(answer, (200, "guest-1".into()));
}

#[tokio::test]
async fn silent_connections_end() {
    let source = Source::new();
    let short = Duration::from_millis(50);
    let server = server(&source, MetadataLimits { header_timeout: short, ..MetadataLimits::default() });
    let (only, address) = door("one", &[(2, 1)]);
    server.serve(vec![only]);
    let mut stream = connect(2, address).await;
    let answer = say(&mut stream, "GET / HTTP/1.1\r\nHo").await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn doors_come_and_go() {
    let source = Source::new();
    let server = server(&source, MetadataLimits::default());
    let (first, one) = door("one", &[(2, 1)]);
    let (second, two) = door("two", &[(2, 2)]);
    server.serve(vec![first, second]);
    assert_eq!(server.doors(), ["one", "two"]);
    let mut held = connect(2, one).await;
    held.write_all(b"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut begin = [0; 12];
    held.read_exact(&mut begin).await.unwrap();
    // The same door again, with somebody else behind the address; the other one is gone.
    let (again, _) = door("one", &[(2, 4)]);
    server.serve(vec![again]);
    assert_eq!(server.doors(), ["one"]);
    assert_eq!(ask(2, one, WHO, "").await, (200, "guest-4".into()));
    let rest = say(&mut held, "GET /latest/meta-data/hostname HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(rest.ends_with("guest-4"), "an open connection is asked anew: {rest}");
    server.refresh(&BooksPlumbing).await;
    assert!(server.doors().is_empty());
    let socket = TcpSocket::new_v4().unwrap();
    let gone = async {
        loop {
            // The socket closes when the runtime has dropped its task.
            if TcpStream::connect(two).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    drop(socket);
}

#[tokio::test(start_paused = true)]
async fn answers_get_old_and_slow_sources_are_given_up() {
    let source = Source::new();
    let cache = Cache::new(source.clone(), Duration::from_secs(5), Duration::from_secs(10));
    assert!(cache.get((id(1), port(1))).await.unwrap().is_some());
    assert!(cache.get((id(77), port(77))).await.unwrap().is_none());
    tokio::time::advance(Duration::from_secs(4)).await;
    cache.get((id(1), port(1))).await.unwrap();
    cache.get((id(77), port(77))).await.unwrap();
    assert_eq!(source.asked(), 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    cache.get((id(1), port(1))).await.unwrap();
    assert_eq!(source.asked(), 3);
    source.leave.forget_permits(1000);
    assert!(cache.get((id(2), port(2))).await.is_err(), "ten seconds are enough");
    tokio::time::advance(Duration::from_secs(60)).await;
    source.leave.add_permits(1);
    cache.get((id(3), port(3))).await.unwrap();
    assert_eq!(cache.len(), 1, "guests that ask no more are forgotten");
}
