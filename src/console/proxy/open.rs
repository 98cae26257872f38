//! From a token to a console that answers: what it is worth, the connection, the host's word that this is the guest, and
//! the begin of RFB.

use std::sync::Arc;
use std::time::Duration;

use nova_core::console::{ConsoleSession, ConsoleType, token_hash};
use nova_core::error::chain;
use nova_core::ids::ConsoleSessionId;
use nova_core::rpc::consoleauth::{EndSessionRequest, OpenConsoleRequest};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::request::Shown;
use super::rfb::{LoggedIn, RfbError, log_in};
use super::server::Shell;
use super::{Authority, AuthorityError};

/// What a host's own door says to a good ticket.
const WELCOME: &[u8; 3] = b"ok\n";
/// A host that takes longer to be connected to is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client that was lost may come back.
pub(super) const COMES_BACK: Duration = Duration::from_secs(60);
/// The pause before another try to reach the console of a client that comes back.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// A console that answers.
pub(super) struct Opened {
    pub(super) session: ConsoleSession,
    pub(super) console: LoggedIn<TcpStream>,
    /// By this the client can go on, and open further channels of the session.
    pub(super) next: String,
    /// The session was there: this is a further connection of it, opened by what its client has and keeps.
    pub(super) joined: bool,
}

/// What a token was worth.
struct Redeemed {
    session: ConsoleSession,
    next: String,
    /// What was used up for it, of a session that was there. Where nothing comes of it, it is good again.
    used: Option<String>,
    joined: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("the console cannot be reached")]
    Connect(#[source] std::io::Error),
    #[error("the console does not let the proxy in")]
    Rfb(#[from] RfbError),
    #[error("the console does not answer in time")]
    Late,
    #[error("the page is not of the scheme at which the console was given out")]
    Scheme,
}

impl OpenError {
    /// Can it be otherwise in a moment?
    fn may_pass(&self) -> bool {
        match self {
            Self::Authority(AuthorityError::Unavailable(_)) | Self::Connect(_) | Self::Late => true,
            Self::Authority(AuthorityError::Worthless(_) | AuthorityError::Refused(_)) => false,
            Self::Rfb(_) | Self::Scheme => false,
        }
    }
}

/// Opens what the client shows.
pub(super) async fn open(shell: &Shell, shown: &Shown) -> Result<Opened, OpenError> {
    let in_time = Instant::now() + shell.options.open_timeout * 4 / 5;
    let Redeemed { session, next, used, joined } = redeem(shell, shown).await?;
    let again = used.is_some() || joined;
    let connecting = async {
        match shown.fits(&session.access_url_base) {
            true => connect_in_time(shell, &session, again).await,
            false => Err(OpenError::Scheme),
        }
    };
    let error = match tokio::time::timeout_at(in_time, connecting).await.unwrap_or(Err(OpenError::Late)) {
        Ok(console) => return Ok(Opened { session, console, next, joined }),
        Err(error) => error,
    };
    match used {
        _ if joined => {}
        // The host is away for longer: the client may try again with what it has.
        Some(used) if error.may_pass() => shell.give_back(&next, &used).await,
        // Nobody has the cookie: nobody goes on.
        _ => shell.end(&next, Duration::ZERO).await,
    }
    Err(error)
}

/// Whoever comes back is not sent away because the host is slow for a moment: it is tried `again` until there is no time left.
async fn connect_in_time(
    shell: &Shell,
    session: &ConsoleSession,
    again: bool,
) -> Result<LoggedIn<TcpStream>, OpenError> {
    let give_up = Instant::now() + if again { shell.options.open_timeout * 2 / 3 } else { Duration::ZERO };
    loop {
        match connect(shell, session).await {
            Err(error) if error.may_pass() && Instant::now() + TRY_AGAIN < give_up => {
                tracing::info!(session = %session.id, "a console is not reached yet: {}", chain(&error));
                tokio::time::sleep(TRY_AGAIN).await;
            }
            connected => return connected,
        }
    }
}

/// A session that was begun with this token is gone on with; otherwise the token begins one.
async fn redeem(shell: &Shell, shown: &Shown) -> Result<Redeemed, AuthorityError> {
    let authority: &Arc<dyn Authority> = &shell.authority;
    let next = shell.entropy.hex(32);
    let request = |token: &str| OpenConsoleRequest {
        token_hash: token_hash(token),
        session_id: ConsoleSessionId::generate(&*shell.entropy),
        next_hash: Some(token_hash(&next)),
    };
    if let Some(resume) = &shown.resume {
        match authority.open(request(resume)).await {
            Err(AuthorityError::Worthless(_)) => {}
            Err(error) => return Err(error),
            // Each of its channels comes with the same.
            Ok(session) if session.console_type.has_channels() => {
                return Ok(Redeemed { session, next: resume.clone(), used: None, joined: true });
            }
            Ok(session) => return Ok(Redeemed { session, next, used: Some(resume.clone()), joined: false }),
        }
    }
    let session = authority.open(request(&shown.token)).await?;
    Ok(Redeemed { session, next, used: None, joined: false })
}

async fn connect(shell: &Shell, session: &ConsoleSession) -> Result<LoggedIn<TcpStream>, OpenError> {
    match session.console_type {
        // First the connection, then the host's word: a port that goes to another guest in between is not confirmed.
        ConsoleType::Novnc => {
            let stream = reach(session).await?;
            shell.authority.confirm(session).await?;
            Ok(log_in(stream, &session.target.host, &shell.options.login).await?)
        }
        ConsoleType::Serial => {
            let confirmed = shell.authority.confirm(session).await?;
            let stream = reach(session).await?;
            let mut console = secured(stream, session, shell.options.serial_tls.as_ref()).await?;
            if let Some(ticket) = confirmed.ticket {
                let shown = match &mut console {
                    LoggedIn::Plain(stream) => show(stream, &ticket).await,
                    LoggedIn::Tls(stream) => show(stream, &ticket).await,
                };
                shown.map_err(OpenError::Connect)?;
            }
            Ok(console)
        }
        ConsoleType::SpiceHtml5 => {
            let tls = shell.options.spice.tls.as_ref();
            let stream = reach_by(session, spice_port(session, tls.is_some())?).await?;
            shell.authority.confirm(session).await?;
            secured(stream, session, tls).await
        }
        other => Err(OpenError::Connect(std::io::Error::other(format!("{other} is not relayed here")))),
    }
}

/// By TLS where the operator wants it: then a screen without is not spoken to.
fn spice_port(session: &ConsoleSession, tls: bool) -> Result<u16, OpenError> {
    let (port, what) = match tls {
        true => (session.target.tls_port, "the screen is not served over TLS"),
        false => (Some(session.target.port).filter(|port| *port > 0), "the screen is served over TLS alone"),
    };
    port.ok_or_else(|| OpenError::Connect(std::io::Error::other(what)))
}

async fn reach(session: &ConsoleSession) -> Result<TcpStream, OpenError> {
    reach_by(session, session.target.port).await
}

async fn reach_by(session: &ConsoleSession, port: u16) -> Result<TcpStream, OpenError> {
    let target = (session.target.host.as_str(), port);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await;
    let stream = connected.map_err(|late| OpenError::Connect(late.into()))?.map_err(OpenError::Connect)?;
    // Keys are to be there at once.
    stream.set_nodelay(true).map_err(OpenError::Connect)?;
    Ok(stream)
}

/// By TLS where the operator wants it: then a host without it is not spoken to.
async fn secured(
    stream: TcpStream,
    session: &ConsoleSession,
    tls: Option<&TlsConnector>,
) -> Result<LoggedIn<TcpStream>, OpenError> {
    let Some(tls) = tls else { return Ok(LoggedIn::Plain(stream)) };
    let name = ServerName::try_from(session.target.host.clone())
        .map_err(|error| OpenError::Connect(std::io::Error::other(error)))?;
    let secured = tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(name, stream)).await;
    let stream = secured.map_err(|late| OpenError::Connect(late.into()))?.map_err(OpenError::Connect)?;
    Ok(LoggedIn::Tls(Box::new(stream)))
}

/// Shows the ticket to the host's own door.
async fn show<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, ticket: &str) -> std::io::Result<()> {
    stream.write_all(format!("{ticket}\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = [0; WELCOME.len()];
    stream.read_exact(&mut answer).await?;
    match answer == *WELCOME {
        true => Ok(()),
        false => Err(std::io::Error::other("the host's door refuses the ticket")),
    }
}

impl Shell {
    /// Nobody goes on with the session of that token, or not for long.
    pub(super) async fn end(&self, next: &str, keep: Duration) {
        self.tell(EndSessionRequest { next_hash: token_hash(next), keep, back: None }).await;
    }

    /// Nothing came of going on: what was used up for it is good again, for a while.
    async fn give_back(&self, next: &str, used: &str) {
        let back = Some(token_hash(used));
        self.tell(EndSessionRequest { next_hash: token_hash(next), keep: COMES_BACK, back }).await;
    }

    async fn tell(&self, request: EndSessionRequest) {
        if let Err(error) = self.authority.end(request).await {
            tracing::debug!("a session's end could not be told: {}", chain(&error));
        }
    }
}
