//! Towards the screen: version, security, and TLS where it is asked for (VeNCrypt with certificates, as QEMU has it).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{NONE, PASSWORD, RfbError, VENCRYPT, VERSION, password};

/// The longest reason that is read.
const LONGEST_REASON: u32 = 4096;
/// VeNCrypt: TLS with certificates, nothing further.
const X509_NONE: u32 = 260;
/// VeNCrypt: TLS with certificates, and the password inside.
const X509_PASSWORD: u32 = 261;

/// How a proxy shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Not at all.
    None,
    /// By a password.
    Password,
    /// By TLS with certificates.
    VeNCrypt,
}

/// What a proxy has to show.
#[derive(Clone)]
pub struct ServerLogin {
    /// Schemes that it may use, the best first.
    pub schemes: Vec<Scheme>,
    /// The password of screens.
    pub password: Option<String>,
    /// TLS with the authorities and the certificate of this proxy.
    pub tls: Option<TlsConnector>,
}

impl Default for ServerLogin {
    fn default() -> Self {
        Self { schemes: vec![Scheme::None], password: None, tls: None }
    }
}

/// A screen that was logged in to.
#[derive(Debug)]
pub enum LoggedIn<S> {
    /// Over the connection as it was.
    Plain(S),
    /// Over TLS in it.
    Tls(Box<TlsStream<S>>),
}

/// Speaks the begin of RFB with a screen, up to where a client says whether it shares the screen.
///
/// # Errors
/// [`RfbError`]; the connection is good for nothing then.
pub async fn log_in<S>(mut stream: S, host: &str, login: &ServerLogin) -> Result<LoggedIn<S>, RfbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    if version != *VERSION {
        return Err(RfbError::Version { who: "screen" });
    }
    stream.write_all(VERSION).await?;
    let count = stream.read_u8().await?;
    if count == 0 {
        return Err(RfbError::Refused(reason(&mut stream).await?));
    }
    let mut offered = vec![0; usize::from(count)];
    stream.read_exact(&mut offered).await?;
    let fits = |scheme: &&Scheme| match scheme {
        Scheme::None => offered.contains(&NONE),
        Scheme::Password => offered.contains(&PASSWORD) && login.password.is_some(),
        Scheme::VeNCrypt => offered.contains(&VENCRYPT) && login.tls.is_some(),
    };
    match (login.schemes.iter().find(fits), &login.tls) {
        (Some(Scheme::None), _) => {
            stream.write_u8(NONE).await?;
            result(&mut stream).await?;
            Ok(LoggedIn::Plain(stream))
        }
        (Some(Scheme::Password), _) => {
            stream.write_u8(PASSWORD).await?;
            prove(&mut stream, login).await?;
            Ok(LoggedIn::Plain(stream))
        }
        (Some(Scheme::VeNCrypt), Some(tls)) => {
            stream.write_u8(VENCRYPT).await?;
            Ok(LoggedIn::Tls(Box::new(vencrypt(stream, host, tls, login).await?)))
        }
        _ => Err(RfbError::NoScheme),
    }
}

/// VeNCrypt 0.2: one byte says that the version is good, a list of subtypes, one byte that the choice is.
async fn vencrypt<S>(
    mut stream: S,
    host: &str,
    tls: &TlsConnector,
    login: &ServerLogin,
) -> Result<TlsStream<S>, RfbError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let protocol = |what| RfbError::Protocol { who: "screen", what };
    let mut version = [0; 2];
    stream.read_exact(&mut version).await?;
    if version != [0, 2] {
        return Err(protocol("another version of VeNCrypt than 0.2"));
    }
    stream.write_all(&[0, 2]).await?;
    if stream.read_u8().await? != 0 {
        return Err(protocol("it refuses the version that it offered"));
    }
    let mut offered = Vec::new();
    for _ in 0..stream.read_u8().await? {
        offered.push(stream.read_u32().await?);
    }
    let subtype = match &login.password {
        Some(_) if offered.contains(&X509_PASSWORD) => X509_PASSWORD,
        _ if offered.contains(&X509_NONE) => X509_NONE,
        _ => return Err(RfbError::NoScheme),
    };
    stream.write_u32(subtype).await?;
    if stream.read_u8().await? != 1 {
        return Err(protocol("it refuses a subtype that it offered"));
    }
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| protocol("its address is no name for a certificate"))?;
    let mut stream = tls.connect(name, stream).await?;
    match subtype {
        X509_PASSWORD => prove(&mut stream, login).await?,
        _ => result(&mut stream).await?,
    }
    Ok(stream)
}

/// Answers the challenge with the password.
async fn prove<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, login: &ServerLogin) -> Result<(), RfbError> {
    let mut challenge = [0; 16];
    stream.read_exact(&mut challenge).await?;
    let password = login.password.as_deref().unwrap_or_default();
    stream.write_all(&password::answer(password, challenge)).await?;
    stream.flush().await?;
    result(stream).await
}

/// What became of it (RFC 6143, 7.1.3).
async fn result<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), RfbError> {
    match stream.read_u32().await? {
        0 => Ok(()),
        _ => Err(RfbError::Refused(reason(stream).await.unwrap_or_default())),
    }
}

/// Why not, in the screen's words: for the log.
async fn reason<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, RfbError> {
    let length = stream.read_u32().await?;
    if length > LONGEST_REASON {
        return Err(RfbError::Protocol { who: "screen", what: "a reason without end" });
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect())
}
