//! What sessions take of a proxy's memory. The proxy is this program, started once more: what it takes is its own.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, future};
use nova::console::proxy::samples::{Always, Doorman, opening};
use nova::console::proxy::{ConsoleProxy, Pages, ProxyOptions, ProxyParts};
use nova_core::entropy::SeededEntropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// The port of the screens, for the process that is the proxy.
const SCREENS: &str = "NOVA_BENCH_CONSOLE_SCREENS";
/// What a busy session asks for at a time.
const UPDATE: usize = 256 << 10;

/// Is this process the proxy?
pub fn is_proxy() -> bool {
    std::env::var_os(SCREENS).is_some()
}

/// Serves until its input ends.
pub fn proxy() {
    let port = std::env::var(SCREENS).ok().and_then(|port| port.parse().ok()).expect("a port");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let address = runtime.block_on(async {
        let parts = ProxyParts {
            authority: Arc::new(Doorman::of_screen(port)),
            pages: Pages::default(),
            clock: Arc::new(Always),
            entropy: Arc::new(SeededEntropy::new(1)),
            options: ProxyOptions::default(),
        };
        let proxy = ConsoleProxy::bind(("127.0.0.1", 0), parts).await.expect("loopback");
        let address = proxy.address().expect("an address");
        tokio::spawn(proxy.serve(CancellationToken::new()));
        address
    });
    println!("{address}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Measures, prints, and keeps the figures. A benchmark that only shows that it works does it with few sessions.
pub fn measure() {
    let in_earnest = std::env::args().any(|argument| argument == "--bench");
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if in_earnest && filter.is_some_and(|filter| !"console/sessions".contains(&filter)) {
        return;
    }
    raise_file_limit();
    let [idle, busy, slow] = if in_earnest { [1000, 50, 10] } else { [20, 2, 1] };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let flooded = Arc::new(AtomicU64::new(0));
    let screens = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(serve_screens(listener, flooded.clone()));
        port
    });
    let proxy = Proxy::start(screens);
    // The first of all brings what a proxy takes once.
    let first = runtime.block_on(open(proxy.address));
    let before = proxy.memory_kib();
    let kept = runtime.block_on(open_many(proxy.address, idle));
    let with_idle = proxy.memory_kib();
    let per_idle = (with_idle - before) / idle as f64;
    let began = Instant::now();
    let rounds = if in_earnest { 40 } else { 2 };
    let (hung, moved) = runtime.block_on(async {
        let mut hung = open_many(proxy.address, slow).await;
        for session in &mut hung {
            ask(session, u64::MAX).await;
        }
        let busy = open_many(proxy.address, busy).await;
        let moved = future::join_all(busy.into_iter().map(|session| draw(session, rounds))).await;
        (hung, moved.iter().sum::<usize>())
    });
    let took = began.elapsed();
    let with_all = proxy.memory_kib();
    let per_busy = (with_all - with_idle) / (busy + slow) as f64;
    let held = (flooded.load(Ordering::Relaxed) / slow as u64) >> 10;
    println!("console/sessions: a proxy with one session takes {before:.0} KiB");
    println!("console/sessions: {per_idle:.1} KiB for each of {idle} idle sessions");
    println!("console/sessions: {per_busy:.1} KiB for each of {busy} busy ones and {slow} that do not read");
    println!("console/sessions: the busy ones moved {} MiB in {took:.1?} beside them", moved >> 20);
    println!("console/sessions: a screen got rid of {held} KiB at a client that does not read, then waited");
    drop((first, kept, hung));
    if in_earnest {
        let figures = serde_json::json!({
            "idle": idle, "busy": busy, "slow": slow, "proxy_kib": before, "kib_per_idle": per_idle,
            "kib_per_busy": per_busy, "mib_per_second": (moved >> 20) as f64 / took.as_secs_f64(), "kib_held": held,
        });
        keep(&figures.to_string());
    }
}

/// Here and in the proxy, which inherits it.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("as many files as may be");
}

/// Beside what criterion keeps: this program is target/PROFILE/deps/console-HASH.
fn keep(figures: &str) {
    let own = std::env::current_exe().expect("a program has a path");
    let folder = own.ancestors().nth(3).expect("it is in cargo's target folder").join("criterion/console");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(folder.join("sessions.json"), figures))
        .expect("kept");
}

/// The proxy in its process; it ends with this.
struct Proxy {
    process: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(screens: u16) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a program has a path"))
            .env(SCREENS, screens.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let mut line = String::new();
        let said = process.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("it says where it listens");
        Self { process, address: line.trim().parse().expect("an address") }
    }

    /// What it has in memory (`VmRSS`).
    fn memory_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut input) = self.process.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.process.wait();
    }
}

type Session = WebSocketStream<TcpStream>;

/// RFB without security, up to the first thing that a screen would show; then each eight bytes ask for so many.
async fn serve_screens(listener: TcpListener, flooded: Arc<AtomicU64>) {
    let piece: Arc<[u8]> = vec![7; 64 << 10].into();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (piece, flooded) = (piece.clone(), flooded.clone());
        tokio::spawn(async move { screen(&mut stream, &piece, &flooded).await });
    }
}

async fn screen(stream: &mut TcpStream, piece: &[u8], flooded: &AtomicU64) -> std::io::Result<()> {
    stream.write_all(b"RFB 003.008\n\x01\x01\0\0\0\0").await?;
    stream.read_exact(&mut [0; 13]).await?;
    loop {
        let asked = stream.read_u64_le().await?;
        let mut left = asked;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let sent = stream.write(piece.get(..count).unwrap_or_default()).await? as u64;
            left -= sent;
            if asked == u64::MAX {
                flooded.fetch_add(sent, Ordering::Relaxed);
            }
        }
    }
}

async fn open(address: SocketAddr) -> Session {
    let request = opening(address, "any").expect("a request");
    let stream = TcpStream::connect(address).await.expect("the proxy");
    let (mut session, _) = tokio_tungstenite::client_async(request, stream).await.expect("the proxy lets it in");
    let mut heard = BytesMut::new();
    read(&mut session, &mut heard, 12).await;
    say(&mut session, b"RFB 003.008\n").await;
    read(&mut session, &mut heard, 14).await;
    say(&mut session, &[1]).await;
    read(&mut session, &mut heard, 18).await;
    session
}

async fn open_many(address: SocketAddr, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    while sessions.len() < count {
        let more = (count - sessions.len()).min(50);
        sessions.extend(future::join_all((0..more).map(|_| open(address))).await);
    }
    sessions
}

async fn say(session: &mut Session, bytes: &[u8]) {
    session.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.expect("the proxy");
}

async fn ask(session: &mut Session, bytes: u64) {
    say(session, &bytes.to_le_bytes()).await;
}

/// Until so many bytes have come in all.
async fn read(session: &mut Session, heard: &mut BytesMut, count: usize) {
    while heard.len() < count {
        if let Message::Binary(bytes) = session.next().await.expect("the proxy").expect("the proxy") {
            heard.extend_from_slice(&bytes);
        }
    }
}

/// Asks for one picture after the other.
async fn draw(mut session: Session, rounds: usize) -> usize {
    for _ in 0..rounds {
        ask(&mut session, UPDATE as u64).await;
        let mut left = UPDATE;
        while left > 0 {
            if let Message::Binary(piece) = session.next().await.expect("the proxy").expect("the proxy") {
                left -= piece.len();
            }
        }
    }
    rounds * UPDATE
}
