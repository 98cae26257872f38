//! QEMU's machine protocol, as far as a storage daemon speaks it (docs/interop/qmp-spec of QEMU).
//!
//! One connection, one command at a time. That the other side is gone is noticed without asking.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::AbortHandle;

/// The longest line that is read: a list of some ten thousand exports.
const LINE: u64 = 8 << 20;
/// Answers and events that wait to be read.
const QUEUE: usize = 256;

/// Why a command brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// The daemon said no, and why.
    #[error("{command}: {text}")]
    Refused { command: &'static str, text: String },
    /// The daemon is gone, or never was.
    #[error("the storage daemon does not answer")]
    Gone,
    /// The daemon said nothing in time.
    #[error("{command} took longer than {after:?}")]
    TimedOut { command: &'static str, after: Duration },
}

/// A connection to a daemon.
pub(super) struct Qmp {
    channel: Mutex<Channel>,
    alive: watch::Receiver<bool>,
    limit: Duration,
    reader: AbortHandle,
}

struct Channel {
    write: OwnedWriteHalf,
    lines: mpsc::Receiver<Value>,
    /// After a command that timed out, what comes next may be its answer.
    broken: bool,
}

impl Qmp {
    /// Connects and agrees on capabilities.
    pub(super) async fn connect(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let connect = async {
            let stream = UnixStream::connect(path).await.map_err(|_| QmpError::Gone)?;
            let (read, write) = stream.into_split();
            let (send, mut lines) = mpsc::channel(QUEUE);
            let (dead, alive) = watch::channel(true);
            let reader = tokio::spawn(read_lines(read, send, dead)).abort_handle();
            let greeting = lines.recv().await.ok_or(QmpError::Gone)?;
            if greeting.get("QMP").is_none() {
                return Err(QmpError::Gone);
            }
            let channel = Mutex::new(Channel { write, lines, broken: false });
            let qmp = Self { channel, alive, limit, reader };
            qmp.run("qmp_capabilities", json!({})).await?;
            Ok(qmp)
        };
        let timed_out = || QmpError::TimedOut { command: "connecting", after: limit };
        tokio::time::timeout(limit, connect).await.map_err(|_| timed_out())?
    }

    /// Runs a command and returns its answer.
    pub(super) async fn run(&self, command: &'static str, arguments: Value) -> Result<Value, QmpError> {
        let mut channel = self.channel.lock().await;
        if channel.broken {
            return Err(QmpError::Gone);
        }
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        // Whoever drops this future in the middle leaves an answer on its way as well.
        channel.broken = true;
        let after = self.limit;
        let asked = tokio::time::timeout(after, async {
            channel.write.write_all(line.as_bytes()).await.map_err(|_| QmpError::Gone)?;
            loop {
                let mut answer = channel.lines.recv().await.ok_or(QmpError::Gone)?;
                if let Some(value) = answer.get_mut("return") {
                    return Ok(Ok(value.take()));
                }
                if let Some(error) = answer.get("error") {
                    let text = error["desc"].as_str().unwrap_or("an error without a description").to_owned();
                    return Ok(Err(QmpError::Refused { command, text }));
                }
            }
        });
        let answered = asked.await.map_err(|_| QmpError::TimedOut { command, after })??;
        channel.broken = false;
        answered
    }

    /// Tells when the daemon is gone.
    pub(super) fn alive(&self) -> watch::Receiver<bool> {
        self.alive.clone()
    }

    /// Whether the connection can still be used.
    pub(super) fn usable(&self) -> bool {
        *self.alive.borrow() && self.channel.try_lock().is_ok_and(|channel| !channel.broken)
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Passes on what comes until nothing does. Events are dropped: nothing here needs them, and nobody would read them between
/// commands.
async fn read_lines(read: OwnedReadHalf, send: mpsc::Sender<Value>, dead: watch::Sender<bool>) {
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut read).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let Ok(value) = serde_json::from_slice::<Value>(&line) else { break };
        if value.get("event").is_none() && send.send(value).await.is_err() {
            break;
        }
    }
    let _ = dead.send(false);
}

/// A shared connection.
pub(super) type SharedQmp = Arc<Qmp>;

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A daemon that says these lines, one after each that it reads, and then goes.
    async fn daemon(lines: Vec<&'static str>) -> (tempfile::TempDir, Result<Qmp, QmpError>) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            for (number, line) in lines.into_iter().enumerate() {
                if number > 0 {
                    stream.read_line(&mut String::new()).await.unwrap();
                }
                stream.write_all(line.as_bytes()).await.unwrap();
            }
            stream.read_line(&mut String::new()).await.unwrap();
        });
        let qmp = Qmp::connect(&path, LIMIT).await;
        (temp, qmp)
    }

    const HELLO: &str = "{\"QMP\": {}}\n";

    #[tokio::test]
    async fn answers_are_told_from_events_and_errors() {
        let said = "{\"event\": \"X\"}\n{\"return\": {\"a\": 1}}\n";
        let (_temp, qmp) = daemon(vec![HELLO, "{\"return\": {}}\n", said, "{\"error\": {\"desc\": \"no\"}}\n"]).await;
        let qmp = qmp.unwrap();
        assert_eq!(qmp.run("one", json!({})).await.unwrap(), json!({"a": 1}));
        let error = qmp.run("two", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "two: no");
        assert!(qmp.usable());
        // The daemon goes after the next line.
        assert!(matches!(qmp.run("three", json!({})).await, Err(QmpError::Gone)));
        let mut alive = qmp.alive();
        alive.wait_for(|alive| !alive).await.unwrap();
        assert!(!qmp.usable());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_is_nobodys() {
        let (_temp, qmp) = daemon(vec![HELLO, "{\"return\": {}}\n", ""]).await;
        let qmp = qmp.unwrap();
        assert!(matches!(qmp.run("slow", json!({})).await, Err(QmpError::TimedOut { command: "slow", .. })));
        assert!(!qmp.usable());
        assert!(matches!(qmp.run("next", json!({})).await, Err(QmpError::Gone)));
    }

    #[tokio::test]
    async fn who_is_no_daemon_is_gone() {
        let (_temp, qmp) = daemon(vec!["SSH-2.0-x\n"]).await;
        assert!(matches!(qmp, Err(QmpError::Gone)));
        let qmp = Qmp::connect(Path::new("/no/such/socket"), LIMIT).await;
        assert!(matches!(qmp, Err(QmpError::Gone)));
    }
}
