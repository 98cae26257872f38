//! The listener, on a real socket of this machine.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::world::World;
use crate::api::{ServeError, Server, ServerOptions};

fn options() -> ServerOptions {
    ServerOptions {
        header_timeout: Duration::from_secs(30),
        max_connections: 2,
        shutdown_timeout: Duration::from_secs(5),
    }
}

async fn ask(address: std::net::SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is turned away may be reset after its answer.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_busy_port_is_told() {
    let server = Server::bind("127.0.0.1:0", options()).await.unwrap();
    let address = server.address().unwrap().to_string();
    let ServeError::Bind { address: told, .. } = Server::bind(&address, options()).await.unwrap_err();
    assert_eq!(told, address);
}

#[tokio::test]
async fn connections_are_served_bounded_and_drained() {
    let world = World::new().await;
    let server = Server::bind("127.0.0.1:0", options()).await.unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.serve(world.api.clone(), stopped));

    let request = "GET /compute/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = ask(address, request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("http://x/compute/v2.1/"), "{answer}");

    // Two that say nothing take all places; the third is turned away.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /compute/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        idle.push(stream);
    }
    let turned_away = ask(address, "").await;
    assert!(turned_away.starts_with("HTTP/1.1 503"), "{turned_away}");
    assert!(turned_away.contains("Retry-After: 1"));

    stop.send(true).unwrap();
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_ends_its_head_is_cut_off() {
    let world = World::new().await;
    let server = Server::bind("127.0.0.1:0", options()).await.unwrap();
    let address = server.address().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.serve(world.api.clone(), stopped));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /compute/ HTTP/1.1\r\nhost: ").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(3600), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the connection is still open after an hour");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    serving.abort();
}
