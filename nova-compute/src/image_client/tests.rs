//! Downloads from servers on loopback that do what they should, and what they should not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nova_core::entropy::SeededEntropy;
use nova_core::ids::RequestId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

const IMAGE: &str = "70a599e0-31e7-49b7-b260-868f441e862b";

fn id() -> ImageId {
    IMAGE.parse().unwrap()
}

fn grant() -> ImageGrant {
    ImageGrant::new("1000.abc")
}

/// What a test server writes to a connection.
struct Reply {
    bytes: Vec<u8>,
    /// Keeps the connection open, and silent.
    stall: bool,
}

fn reply(head: &str, body: &[u8]) -> Reply {
    Reply { bytes: [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat(), stall: false }
}

fn whole(data: &[u8]) -> Reply {
    reply(&format!("200 OK\r\nContent-Length: {}", data.len()), data)
}

fn status(line: &str) -> Reply {
    reply(&format!("{line}\r\nContent-Length: 0"), b"")
}

/// Where a request wants the data to begin.
fn wanted(request: &str) -> Option<usize> {
    let line = request.lines().find(|line| line.to_ascii_lowercase().starts_with("range:"))?;
    line.split_once("bytes=")?.1.strip_suffix('-')?.parse().ok()
}

fn rest(data: &[u8], from: usize) -> Reply {
    let (last, left) = (data.len() - 1, data.len() - from);
    let head =
        format!("206 Partial Content\r\nContent-Length: {left}\r\nContent-Range: bytes {from}-{last}/{}", data.len());
    reply(&head, &data[from..])
}

/// A server whose answer to the n-th connection is a function of n and the request's head.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDrop,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    async fn start(answer: impl Fn(usize, &str) -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn on(listener: TcpListener, answer: impl Fn(usize, &str) -> Reply + Send + 'static) -> Self {
        let endpoint = format!("http://{}/image", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = read_head(&mut stream).await;
                let reply = answer(n, &head);
                seen.lock().unwrap().push(head);
                // A client that has heard enough may have left.
                let _ = stream.write_all(&reply.bytes).await;
                if reply.stall {
                    open.push(stream);
                }
            }
        });
        Self { endpoint, requests, _serving: AbortOnDrop(serving) }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Patient for as long as a test may take, and quick.
fn options() -> HttpImageOptions {
    HttpImageOptions {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(2),
        ..HttpImageOptions::default()
    }
}

fn impatient() -> HttpImageOptions {
    HttpImageOptions { patience: Duration::from_millis(20), ..options() }
}

fn service(endpoint: &str, options: HttpImageOptions) -> HttpImageService {
    HttpImageService::new(endpoint, options, Arc::new(SeededEntropy::new(1))).unwrap()
}

async fn fetch(service: &HttpImageService) -> Result<Vec<u8>, ImageServiceError> {
    let mut data = service.download(id(), Some(&grant())).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = data.next_chunk().await? {
        assert!(!piece.is_empty() && piece.len() <= 1 << 20, "{}", piece.len());
        bytes.extend(piece);
    }
    assert!(data.next_chunk().await.unwrap().is_none(), "the end stays the end");
    Ok(bytes)
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn data_comes_in_pieces_for_a_grant_alone() {
    let data = sample(5_000_001);
    let served = data.clone();
    let server = Server::start(move |_, _| whole(&served)).await;
    assert_eq!(fetch(&service(&server.endpoint, options())).await.unwrap(), data);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].starts_with(&format!("GET /image/v2/images/{IMAGE}/file HTTP/1.1\r\n")), "{requests:?}");
    let head = requests[0].to_ascii_lowercase();
    assert!(head.contains("x-image-grant: 1000.abc\r\n") && head.contains("host: 127.0.0.1:"), "{head}");
    assert!(!head.contains("range") && !head.contains("x-auth-token"), "{head}");
}

#[tokio::test]
async fn an_empty_image_and_one_without_a_length_end() {
    let server =
        Server::start(|n, _| if n == 0 { whole(b"") } else { reply("200 OK", b"until the connection ends") }).await;
    let service = service(&server.endpoint, options());
    assert_eq!(fetch(&service).await.unwrap(), b"");
    assert_eq!(fetch(&service).await.unwrap(), b"until the connection ends");
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_ended() {
    let data = sample(3_000_000);
    for ranges in [true, false] {
        let served = data.clone();
        let server = Server::start(move |n, head| {
            let mut reply = match wanted(head).filter(|_| ranges) {
                Some(from) => rest(&served, from),
                None => whole(&served),
            };
            // Twice in the middle of the data, each time a little later.
            if n < 2 {
                let progress = if ranges { 1_000_000 } else { (n + 1) * 1_000_000 };
                reply.bytes.truncate(progress + 200);
            }
            reply
        })
        .await;
        assert!(fetch(&service(&server.endpoint, options())).await.unwrap() == data, "ranges: {ranges}");
        let asked: Vec<_> = server.requests().iter().map(|head| wanted(head)).collect();
        assert_eq!((asked.len(), asked[0]), (3, None));
        assert!(asked[1] < asked[2] && asked[1] > Some(900_000), "{asked:?}");
    }
}

/// Tells of each draw: the client draws once before each further try.
struct Telling(mpsc::UnboundedSender<()>, AtomicU64);

impl Entropy for Telling {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(self.1.fetch_add(1, Ordering::Relaxed) as u8);
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_server_that_is_away_and_comes_back_costs_time_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (telling, mut tries) = mpsc::unbounded_channel();
    let entropy = Arc::new(Telling(telling, AtomicU64::new(0)));
    let service = HttpImageService::new(&format!("http://{address}"), options(), entropy).unwrap();
    let download = tokio::spawn(async move { fetch(&service).await });
    for _ in 0..3 {
        tries.recv().await.unwrap();
    }
    let server = Server::on(TcpListener::bind(address).await.unwrap(), |n, _| match n {
        0 => status("503 Service Unavailable"),
        1 => Reply { bytes: Vec::new(), stall: false },
        _ => whole(b"back again"),
    });
    assert_eq!(download.await.unwrap().unwrap(), b"back again");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_final_and_says_which() {
    type Right = fn(&ImageServiceError) -> bool;
    let cases: [(&str, Right); 7] = [
        ("204 No Content", |e| matches!(e, ImageServiceError::NotActive { .. })),
        ("403 Forbidden", |e| matches!(e, ImageServiceError::NotActive { .. })),
        ("401 Unauthorized", |e| matches!(e, ImageServiceError::Refused { .. })),
        ("404 Not Found", |e| matches!(e, ImageServiceError::NotFound { .. })),
        ("302 Found", |e| matches!(e, ImageServiceError::Unavailable { .. })),
        ("400 Bad Request", |e| matches!(e, ImageServiceError::Unavailable { .. })),
        ("206 Partial Content", |e| matches!(e, ImageServiceError::Unavailable { .. })),
    ];
    for (line, right) in cases {
        let server = Server::start(move |_, _| status(line)).await;
        let error = fetch(&service(&server.endpoint, options())).await.unwrap_err();
        assert!(right(&error), "{line}: {error:?}");
        assert_eq!(server.requests().len(), 1, "{line}");
    }
}

#[tokio::test]
async fn without_a_grant_nobody_is_asked() {
    let server = Server::start(|_, _| whole(b"secret")).await;
    let service = service(&server.endpoint, options());
    let Err(error) = service.download(id(), None).await else { panic!("it was let in") };
    assert!(matches!(error, ImageServiceError::Refused { .. }), "{error:?}");
    let Err(error) = service.download(id(), Some(&ImageGrant::new("a\r\nX-Auth-Token: b"))).await else { panic!("in") };
    assert!(matches!(error, ImageServiceError::Refused { .. }), "{error:?}");
    assert!(server.requests().iter().all(String::is_empty), "{:?}", server.requests());
    let context = RequestContext::internal(RequestId::generate(&SeededEntropy::new(1)));
    let error = service.bootable_image(&context, id()).await.unwrap_err();
    assert!(matches!(error, ImageServiceError::Unsupported(_)), "{error:?}");
}

#[tokio::test]
async fn patience_ends_when_nothing_moves() {
    let data = sample(10_000);
    let always_cut = move |_: usize, _: &str| {
        let mut reply = whole(&data);
        reply.bytes.truncate(5_000);
        reply
    };
    let busy = |_: usize, _: &str| status("503 Service Unavailable");
    let servers = [Server::start(always_cut).await, Server::start(busy).await];
    for server in &servers {
        let error = fetch(&service(&server.endpoint, impatient())).await.unwrap_err();
        assert!(matches!(error, ImageServiceError::Unavailable { .. }), "{error:?}");
        assert!(server.requests().len() > 2, "{}", server.requests().len());
    }
    let error = fetch(&service(&servers[1].endpoint, impatient())).await.unwrap_err();
    assert!(nova_core::error::chain(&error).ends_with("answered 503 Service Unavailable"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let options = HttpImageOptions { idle_timeout: Duration::from_millis(20), ..options() };
    let server = Server::start(|n, head| match (n, wanted(head)) {
        // Before the head, then in the middle of the data.
        (0, _) => Reply { bytes: Vec::new(), stall: true },
        (1, _) => Reply { stall: true, bytes: whole(b"0123456789").bytes[..45].to_vec() },
        (_, Some(from)) => rest(b"0123456789", from),
        (_, None) => whole(b"0123456789"),
    })
    .await;
    assert_eq!(fetch(&service(&server.endpoint, options)).await.unwrap(), b"0123456789");
    assert_eq!(server.requests().len(), 3);
    assert!(wanted(&server.requests()[2]).is_some());
}

#[tokio::test]
async fn an_image_that_changes_meanwhile_is_not_pieced_together() {
    let server = Server::start(|n, _| {
        let mut reply = if n == 0 { whole(&[1; 2000]) } else { rest(&[2; 3000], 1000) };
        reply.bytes.truncate(reply.bytes.len() - 1000);
        reply
    })
    .await;
    let error = fetch(&service(&server.endpoint, options())).await.unwrap_err();
    assert!(matches!(error, ImageServiceError::Unavailable { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 2);
}
