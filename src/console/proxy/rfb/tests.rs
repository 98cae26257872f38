//! The begin of RFB against screens and clients that keep to it, and against some that do not.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nova_core::entropy::{Entropy, SeededEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn by(schemes: &[Scheme], password: Option<&str>) -> ServerLogin {
    ServerLogin { schemes: schemes.to_vec(), password: password.map(str::to_owned), tls: None }
}

/// A screen that offers these, and takes whoever knows the password.
async fn screen(mut io: DuplexStream, offers: &'static [u8]) -> std::io::Result<u8> {
    io.write_all(VERSION).await?;
    let mut version = [0; 12];
    io.read_exact(&mut version).await?;
    assert_eq!(version, *VERSION);
    io.write_u8(offers.len() as u8).await?;
    io.write_all(offers).await?;
    if offers.is_empty() {
        io.write_u32(4).await?;
        io.write_all(b"busy").await?;
        return Ok(0);
    }
    let chosen = io.read_u8().await?;
    let mut good = true;
    if chosen == PASSWORD {
        good = challenge(&mut io).await?;
    }
    io.write_u32(u32::from(!good)).await?;
    if !good {
        io.write_u32(5).await?;
        io.write_all(b"wrong").await?;
    }
    Ok(chosen)
}

async fn challenge<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(io: &mut S) -> std::io::Result<bool> {
    let challenge = *b"0123456789abcdef";
    io.write_all(&challenge).await?;
    io.flush().await?;
    let mut answer = [0; 16];
    io.read_exact(&mut answer).await?;
    Ok(answer == password::answer("secret", challenge))
}

async fn against(offers: &'static [u8], login: &ServerLogin) -> (Result<(), RfbError>, Option<u8>) {
    let (ours, theirs) = duplex(1024);
    let screen = tokio::spawn(screen(theirs, offers));
    let login = log_in(ours, "screen", login).await.map(drop);
    (login, screen.await.unwrap().ok())
}

#[tokio::test]
async fn the_best_scheme_that_both_know_is_taken() {
    let both = by(&[Scheme::Password, Scheme::None], Some("secret"));
    assert!(matches!(against(&[NONE, PASSWORD], &both).await, (Ok(()), Some(PASSWORD))));
    assert!(matches!(against(&[NONE], &both).await, (Ok(()), Some(NONE))));
    // What may not be used is not, whatever the screen would like.
    assert!(matches!(against(&[NONE], &by(&[Scheme::Password], Some("secret"))).await, (Err(RfbError::NoScheme), _)));
    assert!(matches!(against(&[PASSWORD], &by(&[Scheme::None], None)).await, (Err(RfbError::NoScheme), _)));
    assert!(matches!(against(&[16, 30, 129], &both).await, (Err(RfbError::NoScheme), _)));
}

#[tokio::test]
async fn a_screen_that_refuses_says_why() {
    let (result, _) = against(&[PASSWORD], &by(&[Scheme::Password], Some("guess"))).await;
    assert!(matches!(&result, Err(RfbError::Refused(why)) if why == "wrong"), "{result:?}");
    let (result, _) = against(&[], &by(&[Scheme::None], None)).await;
    assert!(matches!(&result, Err(RfbError::Refused(why)) if why == "busy"), "{result:?}");
}

struct Authority {
    root: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

fn authority() -> Authority {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    Authority { root: root.der().clone(), issuer: rcgen::Issuer::new(params, key) }
}

impl Authority {
    fn signed(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    /// A screen of that name that wants certificates of this authority, too.
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let (chain, key) = self.signed(name);
        let clients = WebPkiClientVerifier::builder(Arc::new(self.roots())).build().unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn connector(&self, own: bool) -> TlsConnector {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        let config = match own {
            true => {
                let (chain, key) = self.signed("proxy");
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            false => builder.with_no_client_auth(),
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// A screen that speaks VeNCrypt, as QEMU does; returns what it was told over TLS.
async fn secure_screen(mut io: DuplexStream, tls: TlsAcceptor, subtypes: &'static [u32]) -> std::io::Result<Vec<u8>> {
    io.write_all(VERSION).await?;
    io.read_exact(&mut [0; 12]).await?;
    io.write_all(&[1, VENCRYPT]).await?;
    assert_eq!(io.read_u8().await?, VENCRYPT);
    io.write_all(&[0, 2]).await?;
    io.read_exact(&mut [0; 2]).await?;
    io.write_u8(0).await?;
    io.write_u8(subtypes.len() as u8).await?;
    for subtype in subtypes {
        io.write_u32(*subtype).await?;
    }
    let chosen = io.read_u32().await?;
    io.write_u8(1).await?;
    let mut io = tls.accept(io).await?;
    let good = chosen == 260 || challenge(&mut io).await?;
    io.write_u32(u32::from(!good)).await?;
    io.flush().await?;
    let mut said = vec![0; 3];
    io.read_exact(&mut said).await?;
    Ok(said)
}

async fn over_tls(
    tls: TlsAcceptor,
    subtypes: &'static [u32],
    login: ServerLogin,
) -> (Result<(), RfbError>, Option<Vec<u8>>) {
    let (ours, theirs) = duplex(4096);
    let screen = tokio::spawn(secure_screen(theirs, tls, subtypes));
    let result = match log_in(ours, "screen", &login).await {
        Ok(LoggedIn::Tls(mut stream)) => {
            stream.write_all(b"hey").await.unwrap();
            stream.flush().await.unwrap();
            Ok(())
        }
        Ok(LoggedIn::Plain(_)) => panic!("not over TLS"),
        Err(error) => Err(error),
    };
    (result, screen.await.unwrap().ok())
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let (own, other) = (authority(), authority());
    let login = |tls, password: Option<&str>| ServerLogin { tls: Some(tls), ..by(&[Scheme::VeNCrypt], password) };
    let good = over_tls(own.acceptor("screen"), &[260], login(own.connector(true), None)).await;
    assert!(matches!(good, (Ok(()), Some(said)) if said == b"hey"));
    let good = over_tls(own.acceptor("screen"), &[260, 261], login(own.connector(true), Some("secret"))).await;
    assert!(matches!(good, (Ok(()), Some(said)) if said == b"hey"), "the password, inside");
    // A screen of another authority, one of another name, and a proxy without a certificate.
    let bad = over_tls(other.acceptor("screen"), &[260], login(own.connector(true), None)).await;
    assert!(matches!(bad, (Err(RfbError::Io(_)), None)));
    let bad = over_tls(own.acceptor("elsewhere"), &[260], login(own.connector(true), None)).await;
    assert!(matches!(bad, (Err(RfbError::Io(_)), None)));
    let bad = over_tls(own.acceptor("screen"), &[260], login(own.connector(false), None)).await;
    assert!(bad.0.is_err() && bad.1.is_none());
    // Subtypes without certificates would be TLS with anybody.
    let bad = over_tls(own.acceptor("screen"), &[256, 257, 258, 259], login(own.connector(true), None)).await;
    assert!(matches!(bad.0, Err(RfbError::NoScheme)));
}

/// Says what it is given, and keeps what it is told.
struct Scripted {
    says: Vec<u8>,
    heard: Vec<u8>,
}

#[async_trait]
impl ClientSide for Scripted {
    async fn read(&mut self, count: usize) -> std::io::Result<Bytes> {
        if self.says.len() < count {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.says.drain(..count).collect::<Vec<_>>().into())
    }
    async fn write(&mut self, bytes: Bytes) -> std::io::Result<()> {
        self.heard.extend_from_slice(&bytes);
        Ok(())
    }
}

#[tokio::test]
async fn clients_are_asked_for_nothing() {
    let mut client = Scripted { says: b"RFB 003.008\n\x01\x01".to_vec(), heard: Vec::new() };
    welcome(&mut client).await.unwrap();
    assert_eq!(client.heard, b"RFB 003.008\n\x01\x01\0\0\0\0");
    assert_eq!(client.says, b"\x01", "what it says next is for the screen");
    for wrong in [&b"RFB 003.003\n\x01"[..], b"RFB 003.008\n\x10", b"GET / HTTP/1.1", b"RFB 003.008\n", b""] {
        let mut client = Scripted { says: wrong.to_vec(), heard: Vec::new() };
        assert!(welcome(&mut client).await.is_err(), "{wrong:?}");
        assert!(!client.heard.ends_with(&[0, 0, 0, 0]));
    }
}

#[test]
fn a_picture_is_asked_for_by_nobody() {
    let asks = [3, 1, 0, 0, 0, 0, 2, 128, 1, 224];
    assert!(only_asks_for_pictures(&asks) && only_asks_for_pictures(&asks.repeat(3)));
    let (key, pointer) = ([4, 1, 0, 0, 0, 0, 0, 97], [5, 0, 0, 3, 0, 3]);
    for word in
        [&b""[..], b"\x01", &asks[..9], &key, &pointer, &[&asks[..], &key].concat(), &[&key[..], &asks].concat()]
    {
        assert!(!only_asks_for_pictures(word), "{word:?}");
    }
}

/// Whatever a screen says, the login ends: with success only where it said that all is well.
#[tokio::test]
async fn changed_screens_do_no_harm() {
    let dice = SeededEntropy::new(8);
    let good: &[u8] = b"RFB 003.008\n\x02\x01\x02\0\0\0\0";
    let login = by(&[Scheme::None, Scheme::Password], Some("secret"));
    for _ in 0..5_000 {
        let mut said = good.to_vec();
        for _ in 0..=dice.below(4) {
            let at = dice.below(said.len() as u64) as usize;
            match dice.below(3) {
                0 => said[at] = dice.below(256) as u8,
                1 => said.truncate(at.max(1)),
                _ => said.insert(at, dice.below(256) as u8),
            }
        }
        let (ours, mut theirs) = duplex(4096);
        theirs.write_all(&said).await.unwrap();
        theirs.shutdown().await.unwrap();
        let result = log_in(ours, "screen", &login).await;
        if result.is_ok() {
            assert!(said.starts_with(VERSION), "{said:?}");
        }
    }
}
