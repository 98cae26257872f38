//! What a proxy of consoles adds: `console/relay/<bytes>` is the way of a console's piece of that size from the screen's
//! socket to the browser's, over loopback, from the moment it is asked for; `console/direct/<bytes>` the same without proxy.
//!
//! Besides, what memory sessions take: a whole proxy in a process of its own, with a thousand idle sessions, fifty busy ones,
//! and ten that do not read. It is printed, and kept beside what criterion keeps (`console/sessions.json`);
//! `dev/floors_console.py` holds all of it to the floors.

#![allow(clippy::expect_used, reason = "a benchmark fails by panicking")]

mod sessions;

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use futures_util::{SinkExt, StreamExt};
use nova::console::proxy::{Relay, relay};
use nova_core::console::ConsoleType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

const SIZES: [usize; 4] = [16, 4 << 10, 64 << 10, 8 << 20];

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("loopback");
    let (far, _) = listener.accept().await.expect("loopback");
    near.set_nodelay(true).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    (near, far)
}

/// A screen that answers each eight bytes with so many as they say.
async fn screen(mut stream: TcpStream) {
    let piece = vec![7; 1 << 20];
    while let Ok(asked) = stream.read_u64_le().await {
        let mut left = usize::try_from(asked).unwrap_or(0);
        while left > 0 {
            let count = left.min(piece.len());
            if stream.write_all(&piece[..count]).await.is_err() {
                return;
            }
            left -= count;
        }
    }
}

/// The proxy has a thread of its own, as it has a core of its own.
fn proxied(runtime: &Runtime) -> WebSocketStream<TcpStream> {
    runtime.block_on(async {
        let (console, far) = pair().await;
        tokio::spawn(screen(far));
        let (browser, client) = pair().await;
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let console = TcpStream::from_std(console.into_std().expect("a socket")).expect("a socket");
                let client = TcpStream::from_std(client.into_std().expect("a socket")).expect("a socket");
                let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(0);
                let mut client = WebSocketStream::from_raw_socket(client, Role::Server, Some(config)).await;
                let (reader, writer) = console.into_split();
                let long = Duration::from_secs(3600);
                let limits =
                    Relay { idle: long, stall: long, ping: long, rate: 1 << 40, console_type: ConsoleType::Novnc };
                relay(&mut client, Bytes::new(), reader, writer, &limits).await
            })
        });
        WebSocketStream::from_raw_socket(browser, Role::Client, None).await
    })
}

async fn ask(browser: &mut WebSocketStream<TcpStream>, bytes: usize) {
    let asked = Bytes::copy_from_slice(&(bytes as u64).to_le_bytes());
    browser.send(Message::Binary(asked)).await.expect("the relay");
    let mut left = bytes;
    while left > 0 {
        if let Message::Binary(piece) = browser.next().await.expect("the relay").expect("the relay") {
            left -= piece.len();
        }
    }
}

fn relays(c: &mut Criterion) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("console");
    let mut browser = proxied(&runtime);
    let mut direct = runtime.block_on(async {
        let (near, far) = pair().await;
        tokio::spawn(screen(far));
        near
    });
    for bytes in SIZES {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("relay", bytes), |b| {
            b.iter(|| runtime.block_on(ask(&mut browser, bytes)));
        });
        let mut buffer = vec![0; bytes];
        group.bench_function(BenchmarkId::new("direct", bytes), |b| {
            b.iter(|| {
                runtime.block_on(async {
                    direct.write_all(&(bytes as u64).to_le_bytes()).await.expect("the screen");
                    direct.read_exact(&mut buffer).await.expect("the screen");
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, relays);

fn main() {
    if sessions::is_proxy() {
        return sessions::proxy();
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    sessions::measure();
}
