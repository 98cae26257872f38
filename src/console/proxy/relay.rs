//! Bytes both ways, until one side ends: what one side does not take, the other side is not asked for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use nova_core::console::ConsoleType;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::limits::Allowance;
use super::rfb::only_asks_for_pictures;

/// Room for what a console says, while it says little: an idle session has no more.
const SMALL: usize = 2 << 10;
/// Room while it says much.
const LARGE: usize = 256 << 10;

/// Limits of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// How long a client may say nothing of its own.
    pub idle: Duration,
    /// How long either side may take nothing.
    pub stall: Duration,
    /// How often a client is asked whether it is there.
    pub ping: Duration,
    /// What a client may send in a second.
    pub rate: u64,
    /// What is relayed: clients of serial ports send text, which counts as bytes, and those of screens over RFB ask for the
    /// next picture by themselves.
    pub console_type: ConsoleType,
}

impl Relay {
    /// Is it a word of the client's own, as somebody there pressed a key or moved a pointer?
    fn is_word(&self, bytes: &[u8]) -> bool {
        self.console_type != ConsoleType::Novnc || !only_asks_for_pictures(bytes)
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client is done with it.
    Closed,
    /// The client left, or is not there any more.
    Gone,
    /// The console ended or broke.
    Console,
    /// The client said nothing for too long.
    Idle,
    /// One side took nothing for too long.
    Stalled,
    /// The client did not keep to the protocol, or to its limits.
    Protocol,
}

/// Relays until one side ends. `first` is what the client has said already.
pub async fn relay<C, R, W>(client: &mut WebSocketStream<C>, first: Bytes, reader: R, writer: W, limits: &Relay) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sink, stream) = client.split();
    let said = watch::Sender::new(Instant::now());
    let heard = said.subscribe();
    tokio::select! {
        biased;
        end = to_console(stream, first, writer, &said, limits) => end,
        end = to_client(sink, reader, limits) => end,
        end = idle(heard, limits.idle) => end,
    }
}

/// Ends once nothing was said for that long.
async fn idle(heard: watch::Receiver<Instant>, longest: Duration) -> End {
    loop {
        let last = *heard.borrow();
        if last.elapsed() >= longest {
            return End::Idle;
        }
        tokio::time::sleep_until(last + longest).await;
    }
}

async fn to_console<S, W>(
    mut client: S,
    first: Bytes,
    mut console: W,
    said: &watch::Sender<Instant>,
    limits: &Relay,
) -> End
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut allowance = Allowance::new(limits.rate, Instant::now());
    let mut next = Some(first).filter(|first| !first.is_empty());
    loop {
        if let Some(bytes) = next.take() {
            let wait = allowance.take(bytes.len(), Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if limits.is_word(&bytes) {
                said.send_replace(Instant::now());
            }
            let write = async {
                console.write_all(&bytes).await?;
                console.flush().await
            };
            match tokio::time::timeout(limits.stall, write).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Console,
                Err(_) => return End::Stalled,
            }
        }
        // A client that is there answers each ping.
        let message = match tokio::time::timeout(limits.ping * 3, client.next()).await {
            Err(_) | Ok(None) => return End::Gone,
            Ok(Some(message)) => message,
        };
        match message {
            Ok(Message::Binary(bytes)) => next = Some(bytes),
            Ok(Message::Text(text)) if limits.console_type == ConsoleType::Serial => next = Some(text.into()),
            Ok(Message::Text(_) | Message::Frame(_)) => return End::Protocol,
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            // Who goes to another page may come back, who closes does not.
            Ok(Message::Close(Some(frame))) if frame.code == CloseCode::Normal => return End::Closed,
            Ok(Message::Close(_)) => return End::Gone,
            // Cut off without a word, as when a phone leaves its network.
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return End::Gone,
            Err(Error::Capacity(_) | Error::Protocol(_) | Error::Utf8(_)) => return End::Protocol,
            Err(_) => return End::Gone,
        }
    }
}

async fn to_client<S, R>(mut client: S, mut console: R, limits: &Relay) -> End
where
    S: Sink<Message, Error = Error> + Unpin,
    R: AsyncRead + Unpin,
{
    let mut ping = tokio::time::interval_at(Instant::now() + limits.ping, limits.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut buffer, mut size) = (BytesMut::new(), SMALL);
    loop {
        buffer.reserve(size);
        let message = tokio::select! {
            biased;
            _ = ping.tick() => Message::Ping(Bytes::new()),
            read = console.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => return End::Console,
                Ok(count) => {
                    size = next_size(size, count);
                    Message::Binary(buffer.split().freeze())
                }
            },
        };
        match tokio::time::timeout(limits.stall, client.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::Stalled,
        }
        if size == SMALL && buffer.capacity() > SMALL {
            buffer = BytesMut::new();
        }
    }
}

/// Room for the next read: more after a full one, less after one that filled little of it.
fn next_size(size: usize, read: usize) -> usize {
    if read >= size {
        (size * 4).min(LARGE)
    } else if read < size / 8 {
        (size / 4).max(SMALL)
    } else {
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_while_it_is_filled_and_goes_when_it_is_not() {
        let mut size = SMALL;
        for _ in 0..5 {
            size = next_size(size, size);
        }
        assert_eq!(size, LARGE);
        assert_eq!(next_size(size, LARGE / 2), LARGE);
        for _ in 0..5 {
            size = next_size(size, 10);
        }
        assert_eq!(size, SMALL);
    }
}
