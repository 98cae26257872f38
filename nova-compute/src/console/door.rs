//! The host's own door to serial ports. Proxies of consoles come here over TCP, or over TLS where the host has a certificate,
//! with a ticket, which the host gave out when it confirmed the console: good once, for one guest, and for a few seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::options::Address;
use nova_virt::{Hypervisor, SerialPort};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::tls::{SerialTls, SerialTlsError};

/// How long a ticket is good.
const TICKET_LIFE: Duration = Duration::from_secs(15);
/// How long whoever connects may take to show one.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long whoever is sent away may take to hear that it is the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Characters of a ticket.
const TICKET: usize = 64;
/// Serial ports that are open at once.
const MOST_OPEN: usize = 256;
/// Tickets that wait to be used.
const MOST_TICKETS: usize = 4096;

/// By the hash of a ticket: whose port it opens, and until when.
type Tickets = BTreeMap<[u8; 32], (InstanceId, Instant)>;

/// The port that it listens on, and who lets in there.
type Serving = Option<(u16, AbortOnDropHandle<()>)>;

/// The door; it is opened when it is first asked for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SerialDoor {
    listen: Address,
    tls: Option<SerialTls>,
    hypervisor: Arc<dyn Hypervisor>,
    tickets: Arc<Mutex<Tickets>>,
    serving: Arc<tokio::sync::Mutex<Serving>>,
}

impl SerialDoor {
    pub(crate) fn new(listen: Address, tls: Option<SerialTls>, hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { listen, tls, hypervisor, tickets: Arc::default(), serving: Arc::default() }
    }

    /// Can its certificates be used, if it has any? Asked when the host starts, so that this is not found out by a user.
    pub(crate) fn check(&self) -> Result<(), SerialTlsError> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.acceptor().map(drop))
    }

    /// The port that it listens on.
    pub(super) async fn port(&self) -> std::io::Result<u16> {
        let mut serving = self.serving.lock().await;
        if let Some((port, task)) = &*serving
            && !task.is_finished()
        {
            return Ok(*port);
        }
        let tls = self.tls.as_ref().map(SerialTls::acceptor).transpose().map_err(std::io::Error::other)?;
        let listener = TcpListener::bind(self.listen.to_string()).await?;
        let port = listener.local_addr()?.port();
        let accepting = accept(self.hypervisor.clone(), self.tickets.clone(), listener, tls);
        *serving = Some((port, AbortOnDropHandle::new(tokio::spawn(accepting))));
        Ok(port)
    }

    /// A ticket for a guest's port; none while too many wait to be used.
    pub(super) fn ticket(&self, instance: InstanceId, entropy: &dyn Entropy) -> Option<String> {
        let (mut tickets, now) = (lock(&self.tickets), Instant::now());
        tickets.retain(|_, (_, until)| *until > now);
        if tickets.len() >= MOST_TICKETS {
            return None;
        }
        let ticket = entropy.hex(TICKET / 2);
        tickets.insert(hash(ticket.as_bytes()), (instance, now + TICKET_LIFE));
        Some(ticket)
    }
}

fn lock(tickets: &Mutex<Tickets>) -> MutexGuard<'_, Tickets> {
    tickets.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looked up by its hash: how long that takes says nothing of the ticket.
fn hash(ticket: &[u8]) -> [u8; 32] {
    Sha256::digest(ticket).into()
}

async fn accept(
    hypervisor: Arc<dyn Hypervisor>,
    tickets: Arc<Mutex<Tickets>>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) {
    let slots = Arc::new(Semaphore::new(MOST_OPEN));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a proxy cannot be let in to a serial port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (hypervisor, tickets, tls) = (hypervisor.clone(), tickets.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(&*hypervisor, &tickets, stream).await,
                Some(tls) => match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve(&*hypervisor, &tickets, stream).await,
                    Ok(Err(error)) => tracing::warn!("somebody came to the door of serial ports without TLS: {error}"),
                    Err(_) => {}
                },
            }
            drop(slot);
        });
    }
}

async fn serve<S>(hypervisor: &dyn Hypervisor, tickets: &Mutex<Tickets>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut line = [0; TICKET + 1];
    match tokio::time::timeout(PATIENCE, stream.read_exact(&mut line)).await {
        Ok(Ok(_)) if line.ends_with(b"\n") => {}
        _ => return,
    }
    let ticket = lock(tickets).remove(&hash(line.strip_suffix(b"\n").unwrap_or(&line)));
    let Some((instance, until)) = ticket.filter(|(_, until)| *until > Instant::now()) else {
        tracing::warn!("somebody came to the door of serial ports without a good ticket");
        return;
    };
    let port = match hypervisor.open_serial(instance).await {
        Ok(port) => port,
        Err(error) => {
            tracing::warn!(%instance, "a serial port cannot be opened: {}", chain(&error));
            return;
        }
    };
    tracing::debug!(%instance, left = ?until.elapsed(), "a serial port is open");
    let welcome = async {
        stream.write_all(b"ok\n").await?;
        stream.flush().await
    };
    if welcome.await.is_ok() {
        relay(stream, port).await;
    }
}

/// Both ways, until one side ends. What one side does not take, the other is not asked for.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(stream: S, port: SerialPort) {
    let (mut from_proxy, mut to_proxy) = tokio::io::split(stream);
    let SerialPort { input, mut output } = port;
    let typed = async {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = from_proxy.read(&mut buffer).await {
            if input.send(buffer.get(..count).unwrap_or_default().to_vec()).await.is_err() {
                return;
            }
        }
    };
    let written = async {
        while let Some(piece) = output.recv().await {
            if to_proxy.write_all(&piece).await.is_err() || to_proxy.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = typed => {}
        () = written => {}
    }
    // In TLS an end has to be said.
    let _ = tokio::time::timeout(FAREWELL, to_proxy.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;
    use nova_virt::{FakeHypervisor, FakeOptions};
    use tokio::net::TcpStream;

    use super::*;

    fn door() -> SerialDoor {
        let fake = FakeHypervisor::new(FakeOptions::new("h1"));
        SerialDoor::new(Address { host: "127.0.0.1".into(), port: 0 }, None, Arc::new(fake))
    }

    async fn said(port: u16, line: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn without_a_ticket_nobody_comes_in() {
        let (door, entropy) = (door(), SeededEntropy::new(1));
        let port = door.port().await.unwrap();
        assert_eq!(door.port().await.unwrap(), port, "opened once");
        assert!(said(port, &format!("{}\n", "0".repeat(TICKET))).await.is_empty());
        assert!(said(port, &format!("{}x", "0".repeat(TICKET))).await.is_empty());
        // A guest that is not there has no port, and the ticket is used up by the attempt.
        let ticket = door.ticket(InstanceId::generate(&entropy), &entropy).unwrap();
        assert_eq!(lock(&door.tickets).len(), 1);
        assert!(said(port, &format!("{ticket}\n")).await.is_empty());
        assert!(lock(&door.tickets).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_do_not_last() {
        let (door, entropy) = (door(), SeededEntropy::new(1));
        door.ticket(InstanceId::generate(&entropy), &entropy).unwrap();
        tokio::time::advance(TICKET_LIFE).await;
        door.ticket(InstanceId::generate(&entropy), &entropy).unwrap();
        assert_eq!(lock(&door.tickets).len(), 1);
    }

    /// Whoever comes without TLS hears nothing; who comes with it and without a certificate that is asked for, neither.
    #[tokio::test]
    async fn with_a_certificate_the_door_speaks_tls_only() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = folder.path().join("host.pem");
        std::fs::write(&file, own.pem() + &key.serialize_pem()).unwrap();
        let tls = SerialTls { certificate: file.clone(), key: file.clone(), client_authorities: None };
        let door = |tls| SerialDoor { tls: Some(tls), ..door() };
        let (open, entropy) = (door(tls.clone()), SeededEntropy::new(1));
        open.check().unwrap();
        let port = open.port().await.unwrap();
        let ticket = open.ticket(InstanceId::generate(&entropy), &entropy).unwrap();
        let heard = said(port, &format!("{ticket}\n")).await;
        // At most TLS's own word that this is none of it (RFC 8446, 6.2).
        assert!(heard.is_empty() || heard.starts_with(&[0x15]), "{heard:?}");
        assert_eq!(lock(&open.tickets).len(), 1, "the ticket was not looked at");
        for broken in [
            SerialTls { key: folder.path().join("none"), ..tls.clone() },
            SerialTls { certificate: "/dev/null".into(), ..tls.clone() },
            SerialTls { client_authorities: Some("/dev/null".into()), ..tls },
        ] {
            let error = door(broken.clone()).check().unwrap_err();
            assert!(error.to_string().starts_with("serial_console: "), "{error}");
            assert!(door(broken).port().await.is_err(), "it is not served without");
        }
    }
}
