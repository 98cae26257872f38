//! What tests of clients need: a server that says what it is told to say.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Stands still.
pub(crate) struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }
}

/// A server whose answer to the n-th request is a function of n and the request.
pub(crate) struct Scripted {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Scripted {
    /// `None` closes the connection without a word.
    pub(crate) async fn start(answer: impl Fn(usize, &str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), seen.clone());
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, answer.clone(), log.clone()));
            }
        }));
        Self { url, seen, _serving: serving }
    }

    /// First lines of what came, logins left out.
    pub(crate) fn seen(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|line| !line.contains("/auth/tokens")).cloned().collect()
    }

    pub(crate) fn logins(&self) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.contains("/auth/tokens")).count()
    }
}

async fn talk(
    mut stream: TcpStream,
    answer: Arc<impl Fn(usize, &str) -> Option<String>>,
    log: Arc<Mutex<Vec<String>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(read) if read > 0 => buffer.extend_from_slice(&part[..read]),
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while buffer.len() < end + length {
            let mut part = [0; 4096];
            match stream.read(&mut part).await {
                Ok(read) if read > 0 => buffer.extend_from_slice(&part[..read]),
                _ => return,
            }
        }
        buffer.drain(..end + length);
        let number = {
            let mut log = log.lock().unwrap();
            log.push(head.lines().next().unwrap().to_owned());
            log.iter().filter(|line| !line.contains("/auth/tokens")).count()
        };
        let local = stream.local_addr().unwrap();
        let text = if head.starts_with("POST /v3/auth/tokens") {
            let expires = TestClock.now() + SignedDuration::from_hours(1);
            let of = |kind: &str, path: &str| {
                json!({"type": kind, "endpoints": [
                    {"interface": "public", "region": "A", "url": format!("http://{local}/elsewhere")},
                    {"interface": "internal", "region": "A", "url": format!("http://{local}{path}")},
                ]})
            };
            let catalog = json!([of("network", "/net/"), of("volumev3", "/v3/p")]);
            let body = json!({"token": {"expires_at": expires, "catalog": catalog}});
            Some(reply("201 Created\r\nX-Subject-Token: t", &body))
        } else {
            answer(number, &head)
        };
        match text {
            Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
            None => return,
        }
    }
}

pub(crate) fn reply(status: &str, body: &Value) -> String {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
