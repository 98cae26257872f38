//! A proxy in front of a real QEMU: its screen with a password, with TLS and certificates on both sides (VeNCrypt), with both.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use nova::console::CONSOLE_OPTIONS;
use nova::console::proxy::samples::{Always, Doorman, opening};
use nova::console::proxy::{ConsoleProxy, Pages, ProxyOptions, ProxyParts};
use nova_core::console::{ConsoleTarget, ConsoleType};
use nova_core::entropy::SeededEntropy;
use nova_core::options::{Config, Registry, Source, common};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(super) const PASSWORD: &str = "canary-8";

/// A QEMU without a guest: its screen is there all the same.
pub(super) struct Qemu {
    process: Child,
    port: u16,
    tls_port: Option<u16>,
}

impl Qemu {
    /// With a screen over SPICE: with these settings, and the ports that they name. A machine with a picture, since only that
    /// has channels.
    pub(super) fn with_spice(settings: &str, port: u16, tls_port: Option<u16>) -> Self {
        let mut process = Command::new("qemu-system-x86_64")
            .args(["-machine", "pc", "-accel", "tcg", "-m", "32", "-nodefaults", "-vga", "std", "-display", "none"])
            .args(["-object", &format!("secret,id=password,data={PASSWORD}"), "-qmp", "stdio"])
            .args(["-spice", &format!("addr=127.0.0.1,{settings}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dev/packages libvirt installs QEMU");
        // Once it greets, it listens.
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("QMP"), "QEMU says {line:?}");
        Self { process, port, tls_port }
    }

    /// With these settings of its screen, and the certificates of that folder.
    fn start(screen: &str, folder: &Path) -> Self {
        /// Displays, of which each test of this process begins elsewhere.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let pid = std::process::id() as u16;
        let first = 3000 + (pid % 200) * 50 + NEXT.fetch_add(10, Ordering::Relaxed);
        let tls = format!("tls-creds-x509,id=tls,dir={},endpoint=server,verify-peer=on", folder.display());
        let mut process = Command::new("qemu-system-x86_64")
            .args(["-machine", "none", "-nodefaults", "-S", "-qmp", "stdio"])
            .args(["-object", &format!("secret,id=password,data={PASSWORD}"), "-object", &tls])
            .args(["-vnc", &format!("127.0.0.1:{first},to={}{screen}", first + 9)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dev/packages libvirt installs QEMU");
        let (mut tell, mut hear) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut port = None;
        for ask in ["", "{\"execute\": \"qmp_capabilities\"}\n", "{\"execute\": \"query-vnc\"}\n"] {
            tell.write_all(ask.as_bytes()).unwrap();
            let mut line = String::new();
            hear.read_line(&mut line).unwrap();
            let answer: Value = serde_json::from_str(&line).expect("QMP");
            port = answer["return"]["service"].as_str().map(|port| port.parse().unwrap());
        }
        // What it says later goes nowhere, and it goes on for as long as it can hear.
        process.stdin = Some(tell);
        Self { process, port: port.expect("its screen has a port"), tls_port: None }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An authority, QEMU's certificate under the names that QEMU knows, and the proxy's own.
pub(super) fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca-cert.pem", root.pem());
    for (name, of, usage) in [
        ("server", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", "proxy", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![of.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        write(&format!("{name}-cert.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}-key.pem"), key.serialize_pem());
    }
    folder
}

/// A proxy with these settings in front of that screen.
async fn proxy(qemu: &Qemu, settings: &str) -> (SocketAddr, AbortOnDropHandle<()>) {
    proxy_of(qemu, ConsoleType::Novnc, &format!("[vnc]\n{settings}")).await
}

/// The same for consoles of that type.
pub(super) async fn proxy_of(
    qemu: &Qemu,
    console_type: ConsoleType,
    settings: &str,
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let registry = Registry::new().with(common::OPTIONS).with(CONSOLE_OPTIONS);
    let text = format!("[DEFAULT]\nstate_path = /state\n{settings}");
    let config = Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text.as_str())]).unwrap();
    let target = ConsoleTarget { host: "127.0.0.1".to_owned(), port: qemu.port, tls_port: qemu.tls_port };
    let parts = ProxyParts {
        authority: Arc::new(Doorman { token: None, console_type, target }),
        pages: Pages::default(),
        clock: Arc::new(Always),
        entropy: Arc::new(SeededEntropy::new(1)),
        options: ProxyOptions::from_config(&config).unwrap(),
    };
    let proxy = ConsoleProxy::bind(("127.0.0.1", 0), parts).await.unwrap();
    let address = proxy.address().unwrap();
    (address, AbortOnDropHandle::new(tokio::spawn(proxy.serve(CancellationToken::new()))))
}

/// A browser, as far as bytes are concerned.
pub(super) struct Browser {
    client: WebSocketStream<TcpStream>,
    left: BytesMut,
}

impl Browser {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).await.unwrap();
        match tokio_tungstenite::client_async(opening(address, "any").unwrap(), stream).await {
            Ok((client, _)) => Ok(Self { client, left: BytesMut::new() }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.client.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
    }

    pub(super) async fn read(&mut self, count: usize) -> Bytes {
        while self.left.len() < count {
            match self.client.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => self.left.extend_from_slice(&bytes),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        self.left.split_to(count).freeze()
    }

    /// RFB, from its begin to a whole picture (RFC 6143, 7.3 to 7.6).
    async fn sees(&mut self) -> (u16, u16) {
        assert_eq!(self.read(12).await, "RFB 003.008\n");
        self.send(b"RFB 003.008\n").await;
        assert_eq!(self.read(2).await, [1, 1][..]);
        self.send(&[1]).await;
        assert_eq!(self.read(4).await, [0; 4][..]);
        self.send(&[1]).await;
        let init = self.read(24).await;
        let number = |at: usize| u16::from_be_bytes([init[at], init[at + 1]]);
        let (width, height, pixel) = (number(0), number(2), usize::from(init[4]) / 8);
        let name = self.read(usize::from(number(22))).await;
        assert!(name.starts_with(b"QEMU"), "{name:?}");
        let mut ask = vec![3, 0, 0, 0, 0, 0];
        ask.extend_from_slice(&init[0..4]);
        self.send(&ask).await;
        assert_eq!(self.read(1).await, [0][..], "an update");
        let head = self.read(3).await;
        let mut pixels = 0;
        for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
            let place = self.read(12).await;
            assert_eq!(place[8..], [0; 4], "as it is");
            let side = |at: usize| usize::from(u16::from_be_bytes([place[at], place[at + 1]]));
            self.read(side(4) * side(6) * pixel).await;
            pixels += side(4) * side(6);
        }
        assert!(pixels > 0);
        (width, height)
    }
}

/// What becomes of it.
async fn seen(qemu: &Qemu, settings: &str) -> Result<(u16, u16), u16> {
    let (address, _serving) = proxy(qemu, settings).await;
    let mut browser = Browser::open(address).await?;
    Ok(tokio::time::timeout(Duration::from_secs(60), browser.sees()).await.expect("a picture"))
}

fn vencrypt(folder: &Path, certificate: bool) -> String {
    let folder = folder.display();
    let own =
        format!("vencrypt_client_cert = {folder}/client-cert.pem\nvencrypt_client_key = {folder}/client-key.pem\n");
    format!(
        "auth_schemes = vencrypt\nvencrypt_ca_certs = {folder}/ca-cert.pem\n{}",
        if certificate { &own } else { "" }
    )
}

/// The picture that everybody gets who is let in.
fn picture(seen: Result<(u16, u16), u16>) -> bool {
    matches!(seen, Ok((width, height)) if width >= 320 && height >= 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_CONSOLES: QEMU"]
async fn a_screen_with_a_password() {
    let folder = certificates();
    let qemu = Qemu::start(",password-secret=password", folder.path());
    assert!(
        picture(
            seen(
                &qemu,
                &format!(
                    "auth_schemes = vencrypt,vnc\npassword = {PASSWORD}\nvencrypt_ca_certs = {}\n",
                    folder.path().join("ca-cert.pem").display()
                )
            )
            .await
        ),
        "the best of those that it offers"
    );
    assert_eq!(seen(&qemu, "auth_schemes = vnc\npassword = guess\n").await, Err(502));
    assert_eq!(seen(&qemu, "auth_schemes = none\n").await, Err(502));
    // A proxy that is to speak TLS does not go on without.
    assert_eq!(seen(&qemu, &vencrypt(folder.path(), true)).await, Err(502));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_CONSOLES: QEMU"]
async fn a_screen_with_tls() {
    let (folder, other) = (certificates(), certificates());
    let qemu = Qemu::start(",tls-creds=tls", folder.path());
    assert!(picture(seen(&qemu, &vencrypt(folder.path(), true)).await));
    assert_eq!(seen(&qemu, &vencrypt(other.path(), true)).await, Err(502), "another authority");
    assert_eq!(seen(&qemu, &vencrypt(folder.path(), false)).await.err(), Some(502), "a proxy without a certificate");
    assert_eq!(seen(&qemu, &format!("auth_schemes = vnc,none\npassword = {PASSWORD}\n")).await, Err(502));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_CONSOLES: QEMU"]
async fn a_screen_with_a_password_inside_of_tls() {
    let folder = certificates();
    let qemu = Qemu::start(",tls-creds=tls,password-secret=password", folder.path());
    let tls = vencrypt(folder.path(), true);
    assert!(picture(seen(&qemu, &format!("{tls}password = {PASSWORD}\n")).await));
    assert_eq!(seen(&qemu, &format!("{tls}password = guess\n")).await, Err(502));
    assert_eq!(seen(&qemu, &tls).await, Err(502), "it has none");
}
