//! Anybody connects to a proxy and sends anything: whatever is answered is an answer of HTTP that leads nowhere else, nobody
//! is let in without the token and a page of this proxy, and the proxy goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nova::console::proxy::samples::{Always, Doorman};
use nova::console::proxy::{ConsoleProxy, Pages, ProxyOptions, ProxyParts};
use nova_core::entropy::SeededEntropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// The one token that opens something.
const TOKEN: &str = "the-good-token";

/// Where the proxy runs.
const THREAD: &str = "proxy";

/// Requests for pages, and for the console.
pub fn seeds() -> Vec<Vec<u8>> {
    let address = world().address;
    let page = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
    let open = |token: &str, more: &str| {
        format!(
            "GET /websockify?token={token} HTTP/1.1\r\nHost: {address}\r\nOrigin: http://{address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: binary\r\n{more}\r\n"
        )
        .into_bytes()
    };
    vec![
        page("/vnc_auto.html?path=%3Ftoken%3Dabc"),
        page("//evil/%2e%2e"),
        page("/console/link.js"),
        open(TOKEN, ""),
        open("bad", "Cookie: token=abc; nova_console_0=x\r\n"),
    ]
}

/// Runs it.
pub fn run(sent: &[u8]) {
    let world = world();
    let answer = world.ask(sent);
    assert!(!world.panicked.load(Ordering::Relaxed), "the proxy panicked, by now or for an input before");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.is_empty() || text.starts_with("HTTP/1."), "{text}");
    let head = text.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
    assert!(!head.contains("\r\nlocation:") && !head.contains("evil"), "{head}");
    if text.starts_with("HTTP/1.1 101") {
        assert!(shows_token_and_page(&String::from_utf8_lossy(sent)), "{}", sent.escape_ascii());
    }
}

/// The page is of the host that the request names; at which port it is reached, the proxy cannot know.
fn shows_token_and_page(sent: &str) -> bool {
    let sent = sent.to_ascii_lowercase().replace(['\t', ' '], "");
    let host = sent.lines().find_map(|line| line.strip_prefix("host:"));
    let page = host.and_then(|host| host.split(':').next()).map(|name| format!("origin:http://{name}"));
    sent.contains(TOKEN) && page.is_some_and(|page| sent.contains(&page))
}

struct World {
    address: SocketAddr,
    /// Something in the proxy did.
    panicked: Arc<AtomicBool>,
    _runtime: Runtime,
}

impl World {
    /// What is answered to these bytes, as far as it comes at once.
    fn ask(&self, sent: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).expect("the proxy goes on");
        let opens = sent.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes());
        // Who waits for a console stays; the others are done with what they said.
        let patience = if opens { Duration::from_millis(20) } else { crate::LONG };
        stream.set_read_timeout(Some(patience)).expect("a socket");
        if stream.write_all(sent).is_ok() && !opens {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if opens && answer.starts_with(b"HTTP/1.1 101") {
                break;
            }
        }
        answer
    }
}

/// One proxy for all inputs.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let panicked = told_of_panics();
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(THREAD).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let address = runtime.block_on(async {
            let screen = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
            let port = screen.local_addr().expect("an address").port();
            tokio::spawn(screens(screen));
            let parts = ProxyParts {
                authority: Arc::new(Doorman { token: Some(TOKEN), ..Doorman::of_screen(port) }),
                pages: Pages::default(),
                clock: Arc::new(Always),
                entropy: Arc::new(SeededEntropy::new(1)),
                options: ProxyOptions { max_failures: u32::MAX, ..ProxyOptions::default() },
            };
            let proxy = ConsoleProxy::bind(("127.0.0.1", 0), parts).await.expect("loopback");
            let address = proxy.address().expect("an address");
            tokio::spawn(proxy.serve(CancellationToken::new()));
            address
        });
        World { address, panicked, _runtime: runtime }
    })
}

/// A panic in a task ends that task and nothing else: here it is to be seen.
fn told_of_panics() -> Arc<AtomicBool> {
    let panicked = Arc::new(AtomicBool::new(false));
    let (told, before) = (panicked.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some(THREAD) {
            told.store(true, Ordering::Relaxed);
        }
        before(panic);
    }));
    panicked
}

/// Screens that ask for nothing and show nothing.
async fn screens(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            stream.write_all(b"RFB 003.008\n\x01\x01\0\0\0\0").await?;
            let mut buffer = [0; 1024];
            while stream.read(&mut buffer).await? > 0 {}
            std::io::Result::Ok(())
        });
    }
}
