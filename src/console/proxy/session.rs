//! One session, from the accepted websocket to its close.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nova_core::console::{ConsoleType, SessionEnd};
use nova_core::error::chain;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::ProxyOptions;
use super::open::{COMES_BACK, Opened};
use super::relay::{End, Relay, relay};
use super::rfb::{ClientSide, LoggedIn, RfbError, welcome};
use super::server::Shell;
use super::sessions::{Cut, Held, Which};
use super::spice::{Channel, SpiceError, link};

type Client = WebSocketStream<TokioIo<Upgraded>>;

/// A client that does not take its close in that time is not there.
const CLOSING: Duration = Duration::from_secs(2);
/// Longer than any session.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Bytes that are read from a client's socket at once.
const READ_BUFFER: usize = 4 << 10;

/// Why it is over.
enum Over {
    Cut(Cut),
    TooLong,
    Ended(End),
}

/// Relays until one side ends, or the session has to end.
pub(super) async fn run(shell: &Shell, upgraded: Upgraded, opened: Opened, mut held: Held) {
    let Opened { session, console, next, joined } = opened;
    let options = &shell.options;
    let mut part = Part { console_type: session.console_type, which: held.which(), channel: None, joined };
    if !session.console_type.has_channels() {
        shell.sessions.take_over(held.which());
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(4 << 20)
        .max_message_size(Some(options.max_message_size))
        .max_frame_size(Some(options.max_message_size));
    let mut client = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let lasts = session.until.duration_since(shell.clock.now());
    let lasts = Duration::try_from(lasts).unwrap_or(Duration::ZERO);
    let over = tokio::select! {
        biased;
        cut = held.cut() => Over::Cut(cut),
        () = tokio::time::sleep(lasts) => Over::TooLong,
        end = both_ways(shell, &mut client, console, &mut part) => Over::Ended(end),
    };
    drop(held);
    let (code, reason, keep) = farewell(&over);
    tracing::info!(session = %session.id, instance = %session.instance_id, channel = ?part.channel, reason,
        "a console is closed");
    metrics::counter!("nova_console_closed_total", "reason" => reason).increment(1);
    let telling = async {
        if let Some(keep) = keep.filter(|keep| part.ends_all(&over, *keep)) {
            if keep.is_zero() && session.console_type.has_channels() {
                shell.sessions.end_others(part.which, code, reason);
            }
            shell.end(&next, keep).await;
        }
    };
    let frame = CloseFrame { code, reason: reason.into() };
    let closing = async {
        let _ = client.send(Message::Close(Some(frame))).await;
        // The client's own close, so that ours is not lost with the connection.
        while let Some(Ok(_)) = client.next().await {}
    };
    let closing = tokio::time::timeout(CLOSING, closing);
    match over {
        // Whoever is cut hears of it at once, whatever the bus does. What it could go on with is worth nothing by then.
        Over::Cut(_) | Over::TooLong => drop(tokio::join!(closing, telling)),
        // Whoever comes back has to find what is left for it.
        Over::Ended(_) => {
            telling.await;
            let _ = closing.await;
        }
    }
}

/// The code and the words of the close, and how long the client may come back; `None`: as long as the session may last.
fn farewell(over: &Over) -> (CloseCode, &'static str, Option<Duration>) {
    const NEVER: Option<Duration> = Some(Duration::ZERO);
    match over {
        Over::Cut(Cut::Ended(end)) => (CloseCode::Policy, end.message(), NEVER),
        Over::Cut(Cut::Unchecked) => (CloseCode::Again, "Nobody can say whether this console may stay open.", None),
        Over::Cut(Cut::TakenOver) => (CloseCode::Policy, "This console was opened again elsewhere.", NEVER),
        Over::Cut(Cut::Together(code, reason)) => (*code, reason, NEVER),
        Over::Cut(Cut::Stopping) => (CloseCode::Restart, "This proxy is being stopped.", None),
        Over::TooLong => (CloseCode::Policy, SessionEnd::TooLong.message(), NEVER),
        Over::Ended(End::Closed) => (CloseCode::Normal, "The console is closed.", NEVER),
        Over::Ended(End::Gone) => (CloseCode::Away, "The client is gone.", Some(COMES_BACK)),
        Over::Ended(End::Console) => (CloseCode::Away, "The console has ended.", Some(COMES_BACK)),
        Over::Ended(End::Idle) => (CloseCode::Policy, "Nothing was typed for too long.", NEVER),
        Over::Ended(End::Stalled) => (CloseCode::Policy, "The connection is too slow.", Some(COMES_BACK)),
        Over::Ended(End::Protocol) => (CloseCode::Protocol, "The client does not keep to the protocol.", NEVER),
    }
}

/// What this connection is of its session.
struct Part {
    console_type: ConsoleType,
    which: Which,
    /// Which channel it is, where sessions have several, and once that is known.
    channel: Option<Channel>,
    /// It came to a session that was there.
    joined: bool,
}

impl Part {
    /// Does the session end with this connection, or may it be gone on with for so long only? Of several, with the first one;
    /// with any of them that may not go on.
    fn ends_all(&self, over: &Over, keep: Duration) -> bool {
        if !self.console_type.has_channels() {
            return true;
        }
        // Whoever took it over has the same cookie.
        let elsewhere = matches!(over, Over::Cut(Cut::TakenOver | Cut::Together(..)));
        let first = !self.joined || self.channel == Some(Channel::Main);
        let forbidden = keep.is_zero() && !matches!(over, Over::Ended(End::Closed));
        !elsewhere && (first || forbidden)
    }

    fn limits(&self, options: &ProxyOptions) -> Relay {
        // What clients say by other channels, they say by themselves.
        let used = !self.console_type.has_channels() || self.channel == Some(Channel::Inputs);
        Relay {
            idle: if used { options.idle_timeout } else { FOR_EVER },
            stall: options.stall_timeout,
            ping: options.ping_interval,
            rate: options.client_rate,
            console_type: self.console_type,
        }
    }
}

async fn both_ways(shell: &Shell, client: &mut Client, mut console: LoggedIn<TcpStream>, part: &mut Part) -> End {
    let mut begin = Begin { client, left: BytesMut::new() };
    let begun = tokio::time::timeout(shell.options.open_timeout, begins(shell, &mut begin, &mut console, part)).await;
    if let Err(end) = begun.unwrap_or(Err(End::Gone)) {
        return end;
    }
    let Begin { client, left } = begin;
    let (first, limits) = (left.freeze(), part.limits(&shell.options));
    match console {
        LoggedIn::Plain(stream) => {
            let (reader, writer) = stream.into_split();
            relay(client, first, reader, writer, &limits).await
        }
        LoggedIn::Tls(mut stream) => {
            let end = {
                let (reader, writer) = tokio::io::split(&mut stream);
                relay(client, first, reader, writer, &limits).await
            };
            let _ = stream.shutdown().await;
            end
        }
    }
}

/// What both sides say before bytes are bytes.
async fn begins(
    shell: &Shell,
    client: &mut Begin<'_>,
    console: &mut LoggedIn<TcpStream>,
    part: &mut Part,
) -> Result<(), End> {
    match part.console_type {
        ConsoleType::Novnc => welcome(client).await.map_err(|error| match error {
            RfbError::Io(_) => End::Gone,
            error => sent_away(&error, End::Protocol),
        }),
        ConsoleType::SpiceHtml5 => {
            let (login, entropy) = (&shell.options.spice, &*shell.entropy);
            let linked = match console {
                LoggedIn::Plain(stream) => link(client, stream, login, entropy).await,
                LoggedIn::Tls(stream) => link(client, &mut **stream, login, entropy).await,
            };
            let channel = linked.map_err(|error| match error {
                SpiceError::Client(_) => End::Gone,
                SpiceError::Protocol { who: "client", .. } => sent_away(&error, End::Protocol),
                error => sent_away(&error, End::Console),
            })?;
            part.channel = Some(channel);
            if channel == Channel::Main {
                shell.sessions.take_over(part.which);
            }
            Ok(())
        }
        ConsoleType::Serial | ConsoleType::SpiceDirect | ConsoleType::Webmks => Ok(()),
    }
}

fn sent_away(error: &dyn std::error::Error, end: End) -> End {
    tracing::info!("a client is sent away: {}", chain(error));
    end
}

/// A client that has to say some things first.
struct Begin<'a> {
    client: &'a mut Client,
    left: BytesMut,
}

#[async_trait]
impl ClientSide for Begin<'_> {
    async fn read(&mut self, count: usize) -> std::io::Result<Bytes> {
        while self.left.len() < count {
            match self.client.next().await {
                Some(Ok(Message::Binary(bytes))) => self.left.extend_from_slice(&bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_)) | None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Some(Err(error)) => return Err(broken(error)),
            }
        }
        Ok(self.left.split_to(count).freeze())
    }

    async fn write(&mut self, bytes: Bytes) -> std::io::Result<()> {
        self.client.send(Message::Binary(bytes)).await.map_err(broken)
    }
}

fn broken(error: Error) -> std::io::Error {
    std::io::Error::other(Cow::from(error.to_string()))
}
