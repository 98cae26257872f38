//! The begin of SPICE (spice-protocol's `spice/protocol.h`): every channel is a connection of its own and begins with a link:
//! who connects says which channel of which session it wants, the screen answers with a key, and is shown the password,
//! encrypted with that key. Here the proxy shows it: its own client has shown its token, and what that one encrypts is
//! thrown away.

#[cfg(test)]
mod tests;
mod ticket;

use bytes::{BufMut, Bytes, BytesMut};
use nova_core::entropy::Entropy;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::rfb::ClientSide;

/// `SPICE_MAGIC`.
const MAGIC: &[u8; 4] = b"REDQ";
/// `SPICE_VERSION_MAJOR`.
const MAJOR: u32 = 2;
/// `SpiceLinkHeader`: magic, major, minor, size of what follows.
const HEADER: usize = 16;
/// `SpiceLinkMess` before its capabilities.
const MESSAGE: usize = 18;
/// `SpiceLinkReply` before its capabilities: error, key, three numbers.
const REPLY: usize = 4 + ticket::KEY + 12;
/// Neither side says more at that point (spice-server's own limit for what it is told).
const LONGEST: usize = 4096;
/// `SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION`, as a bit of the first word.
const SELECTS: u32 = 1;
/// `SPICE_COMMON_CAP_AUTH_SPICE`: the password, encrypted.
const BY_PASSWORD: u32 = 1;
/// The longest password of a screen (`SPICE_MAX_PASSWORD_LENGTH`), in bytes.
pub const LONGEST_PASSWORD: usize = 60;

/// Why a channel did not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpiceError {
    /// The client left.
    #[error("the client left while SPICE began")]
    Client(#[source] std::io::Error),
    /// The screen's connection ended or broke.
    #[error("the screen's connection ended while SPICE began")]
    Screen(#[source] std::io::Error),
    /// It says something that has no place there.
    #[error("the {who} does not keep to SPICE: {what}")]
    Protocol {
        /// `screen` or `client`.
        who: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The screen does not want the channel, or not the password.
    #[error("the screen refused the channel: {}", reason(*code))]
    Refused {
        /// `SpiceLinkErr`.
        code: u32,
    },
}

/// What a proxy has to show, and how it reaches screens.
#[derive(Clone, Default)]
pub struct SpiceLogin {
    /// The password of screens.
    pub password: Option<String>,
    /// TLS with the authorities of the screens' certificates; `None`: without.
    pub tls: Option<TlsConnector>,
}

/// A channel of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The first of a session, which the others belong to.
    Main,
    /// Pictures.
    Display,
    /// Keys and pointer.
    Inputs,
    /// The pointer's picture.
    Cursor,
    /// Sound out.
    Playback,
    /// Sound in.
    Record,
}

impl Channel {
    /// Those that a browser has a use for. The others give guests devices of the client, or lead to other services of the host.
    fn of(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Main,
            2 => Self::Display,
            3 => Self::Inputs,
            4 => Self::Cursor,
            5 => Self::Playback,
            6 => Self::Record,
            _ => return None,
        })
    }
}

/// Speaks the begin of a channel with both sides, up to where the screen lets it in.
///
/// # Errors
/// [`SpiceError`]; both connections are good for nothing then. What the screen refuses was told to the client in its own words.
pub async fn link<S>(
    client: &mut dyn ClientSide,
    screen: &mut S,
    login: &SpiceLogin,
    entropy: &dyn Entropy,
) -> Result<Channel, SpiceError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let asked = from_client(client).await?;
    let wish = Wish::read(&asked)?;
    say(screen, &with_header(&asked)).await?;
    let answer = from_screen(screen).await?;
    let refused = number(&answer, 0).unwrap_or(0);
    let key = answer.slice(4..4 + ticket::KEY);
    tell(client, with_header(&answer)).await?;
    if refused != 0 {
        return Err(SpiceError::Refused { code: refused });
    }
    let shown = ticket::encrypt(&key, login.password.as_deref().unwrap_or_default(), entropy);
    let shown = shown.ok_or(SpiceError::Protocol { who: "screen", what: "a key that cannot be used" })?;
    let mut proof = BytesMut::new();
    if wish.selects {
        if number(&read(client, 4).await?, 0) != Some(BY_PASSWORD) {
            return Err(SpiceError::Protocol { who: "client", what: "another proof than a password" });
        }
        proof.put_u32_le(BY_PASSWORD);
    }
    read(client, ticket::TICKET).await?;
    proof.put_slice(&shown);
    say(screen, &proof).await?;
    let result = screen.read_u32_le().await.map_err(SpiceError::Screen)?;
    tell(client, Bytes::copy_from_slice(&result.to_le_bytes())).await?;
    match result {
        0 => Ok(wish.channel),
        code => Err(SpiceError::Refused { code }),
    }
}

/// What a client asks for.
struct Wish {
    channel: Channel,
    /// It says first how it proves itself.
    selects: bool,
}

impl Wish {
    fn read(asked: &[u8]) -> Result<Self, SpiceError> {
        let protocol = |what| SpiceError::Protocol { who: "client", what };
        let kind = asked.get(4).copied().unwrap_or_default();
        let channel = Channel::of(kind).ok_or(protocol("a channel that is not served here"))?;
        let session = number(asked, 0).unwrap_or(0);
        if (channel == Channel::Main) != (session == 0) {
            return Err(protocol("its main channel is the first of a session, and no other one is"));
        }
        let [common, special, offset] = [6, 10, 14].map(|at| number(asked, at).unwrap_or(u32::MAX));
        let words = u64::from(common) + u64::from(special);
        if u64::from(offset) < MESSAGE as u64 || u64::from(offset) + 4 * words > asked.len() as u64 {
            return Err(protocol("capabilities that are not there"));
        }
        let first = usize::try_from(offset).ok().and_then(|at| number(asked, at)).unwrap_or(0);
        Ok(Self { channel, selects: common > 0 && first & SELECTS != 0 })
    }
}

async fn from_client(client: &mut dyn ClientSide) -> Result<Bytes, SpiceError> {
    let size = size_of("client", &read(client, HEADER).await?, MESSAGE)?;
    read(client, size).await
}

async fn from_screen<S: AsyncRead + Unpin>(screen: &mut S) -> Result<Bytes, SpiceError> {
    let mut header = [0; HEADER];
    screen.read_exact(&mut header).await.map_err(SpiceError::Screen)?;
    let mut answer = vec![0; size_of("screen", &header, REPLY)?];
    screen.read_exact(&mut answer).await.map_err(SpiceError::Screen)?;
    Ok(answer.into())
}

/// How much follows, of at least so many bytes.
fn size_of(who: &'static str, header: &[u8], least: usize) -> Result<usize, SpiceError> {
    let protocol = |what| SpiceError::Protocol { who, what };
    if !header.starts_with(MAGIC) || number(header, 4) != Some(MAJOR) {
        return Err(protocol("it does not begin as version 2 does"));
    }
    let size = number(header, 12).and_then(|size| usize::try_from(size).ok());
    size.filter(|size| (least..=LONGEST).contains(size)).ok_or(protocol("a begin of no such length"))
}

/// Told on in the version that both speak, whatever the minor one was.
fn with_header(body: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(HEADER + body.len());
    whole.put_slice(MAGIC);
    for number in [MAJOR, 2, body.len() as u32] {
        whole.put_u32_le(number);
    }
    whole.put_slice(body);
    whole.freeze()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

async fn read(client: &mut dyn ClientSide, count: usize) -> Result<Bytes, SpiceError> {
    client.read(count).await.map_err(SpiceError::Client)
}

async fn tell(client: &mut dyn ClientSide, bytes: Bytes) -> Result<(), SpiceError> {
    client.write(bytes).await.map_err(SpiceError::Client)
}

async fn say<S: AsyncWrite + Unpin>(screen: &mut S, bytes: &[u8]) -> Result<(), SpiceError> {
    screen.write_all(bytes).await.map_err(SpiceError::Screen)?;
    screen.flush().await.map_err(SpiceError::Screen)
}

/// `SpiceLinkErr` in words.
fn reason(code: u32) -> &'static str {
    match code {
        2 => "no SPICE",
        3 => "invalid data",
        4 => "another version",
        5 => "it is served over TLS alone (spice.ca_certs)",
        6 => "it is served without TLS alone",
        7 => "the password is wrong (spice.password)",
        8 => "there is no such session",
        9 => "there is no such channel",
        _ => "an error",
    }
}
