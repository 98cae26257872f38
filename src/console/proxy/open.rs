//! From a token to a console that answers: what it is worth, the connection, the host's word that this is the guest, and
//! the begin of RFB.

use std::sync::Arc;
use std::time::Duration;

use nova_core::console::{ConsoleSession, ConsoleType, token_hash};
use nova_core::error::chain;
use nova_core::ids::ConsoleSessionId;
use nova_core::rpc::consoleauth::OpenConsoleRequest;
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

/// The pause before another try to reach the console of a client that comes back.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// A console that answers.
pub(super) struct Opened {
    pub(super) session: ConsoleSession,
    pub(super) console: LoggedIn<TcpStream>,
    /// By this the client can go on.
    pub(super) next: String,
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
}

impl OpenError {
    /// Can it be otherwise in a moment?
    fn may_pass(&self) -> bool {
        match self {
            Self::Authority(AuthorityError::Unavailable(_)) | Self::Connect(_) => true,
            Self::Authority(AuthorityError::Worthless(_) | AuthorityError::Refused(_)) | Self::Rfb(_) => false,
        }
    }
}

/// Opens what the client shows.
pub(super) async fn open(shell: &Shell, shown: &Shown) -> Result<Opened, OpenError> {
    let next = shell.entropy.hex(32);
    let (session, resumed) = redeem(shell, shown, &next).await?;
    // Whoever comes back shows what is good once: it is not to be lost because the host is slow for a moment.
    let give_up = Instant::now() + if resumed { shell.options.open_timeout * 2 / 3 } else { Duration::ZERO };
    let connected = loop {
        match connect(shell, &session).await {
            Err(error) if error.may_pass() && Instant::now() + TRY_AGAIN < give_up => {
                tracing::info!(session = %session.id, "a console is not reached yet: {}", chain(&error));
                tokio::time::sleep(TRY_AGAIN).await;
            }
            connected => break connected,
        }
    };
    match connected {
        Ok(console) => Ok(Opened { session, console, next }),
        Err(error) => {
            // Nobody has the cookie: nobody goes on.
            shell.end(&next, Duration::ZERO).await;
            Err(error)
        }
    }
}

/// A session that was begun with this token is gone on with (true); otherwise the token begins one.
async fn redeem(shell: &Shell, shown: &Shown, next: &str) -> Result<(ConsoleSession, bool), AuthorityError> {
    let authority: &Arc<dyn Authority> = &shell.authority;
    let request = |token: &str| OpenConsoleRequest {
        token_hash: token_hash(token),
        session_id: ConsoleSessionId::generate(&*shell.entropy),
        next_hash: Some(token_hash(next)),
    };
    if let Some(resume) = &shown.resume {
        match authority.open(request(resume)).await {
            Err(AuthorityError::Worthless(_)) => {}
            answer => return answer.map(|session| (session, true)),
        }
    }
    authority.open(request(&shown.token)).await.map(|session| (session, false))
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
        other => Err(OpenError::Connect(std::io::Error::other(format!("{other} is not relayed here")))),
    }
}

async fn reach(session: &ConsoleSession) -> Result<TcpStream, OpenError> {
    let target = (session.target.host.as_str(), session.target.port);
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
        if let Err(error) = self.authority.end(token_hash(next), keep).await {
            tracing::debug!("a session's end could not be told: {}", chain(&error));
        }
    }
}
