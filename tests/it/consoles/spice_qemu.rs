//! A proxy in front of a real QEMU's screen over SPICE: without and with a password, and over TLS. Every channel is linked as
//! a browser does it, and the picture's size is read.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nova_core::console::ConsoleType;

use super::qemu::{Browser, PASSWORD, Qemu, certificates, proxy_of};

/// `SpiceLinkErr`: the password is wrong.
const DENIED: u32 = 7;

/// A port that nobody has at this moment, and that the kernel gives to nobody who connects somewhere.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 400).unwrap() * 10;
    let mut ports = (0..4000).map(|_| 61_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 4000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A channel, linked as spice-html5 does it, or the screen's word why not. The ticket is made up: the proxy has its own.
async fn linked(address: SocketAddr, session: u32, kind: u8) -> Result<Browser, u32> {
    let mut browser = Browser::open(address).await.map_err(u32::from)?;
    let head = [&b"REDQ"[..], &[2_u32, 2, 26].map(u32::to_le_bytes).concat(), &session.to_le_bytes(), &[kind, 0]];
    let capabilities = [1_u32, 1, 18, 0b1001, 0].map(u32::to_le_bytes).concat();
    browser.send(&[&head.concat()[..], &capabilities].concat()).await;
    let header = browser.read(16).await;
    assert!(header.starts_with(b"REDQ"), "{header:?}");
    let reply = browser.read(number(&header, 12) as usize).await;
    match number(&reply, 0) {
        0 => {}
        error => return Err(error),
    }
    browser.send(&[&[1, 0, 0, 0][..], &[0x5a; 128]].concat()).await;
    match number(&browser.read(4).await, 0) {
        0 => Ok(browser),
        error => Err(error),
    }
}

/// The next message of that type, short headers.
async fn message(browser: &mut Browser, wanted: u16) -> Bytes {
    loop {
        let header = browser.read(6).await;
        let size = number(&header, 2) as usize;
        let body = browser.read(size).await;
        if u16::from_le_bytes([header[0], header[1]]) == wanted {
            return body;
        }
    }
}

async fn say(browser: &mut Browser, kind: u16, body: &[u8]) {
    let header = [&kind.to_le_bytes()[..], &(body.len() as u32).to_le_bytes()].concat();
    browser.send(&[&header, body].concat()).await;
}

/// A session, to the size of its picture.
async fn sees(address: SocketAddr) -> Result<(u32, u32), u32> {
    const MAIN_INIT: u16 = 103;
    const ATTACH_CHANNELS: u16 = 104;
    const CHANNELS_LIST: u16 = 104;
    const DISPLAY_INIT: u16 = 101;
    const SURFACE_CREATE: u16 = 314;
    let mut main = linked(address, 0, 1).await?;
    let session = number(&message(&mut main, MAIN_INIT).await, 0);
    assert_ne!(session, 0);
    say(&mut main, ATTACH_CHANNELS, &[]).await;
    let list = message(&mut main, CHANNELS_LIST).await;
    let kinds: Vec<u8> = list[4..].chunks(2).map(|channel| channel[0]).collect();
    assert!(kinds.contains(&2) && kinds.contains(&3), "a display and inputs: {kinds:?}");
    let _inputs = linked(address, session, 3).await?;
    let mut display = linked(address, session, 2).await?;
    say(&mut display, DISPLAY_INIT, &[1, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    let surface = message(&mut display, SURFACE_CREATE).await;
    // A session that there is not is refused by the screen.
    assert!(linked(address, session ^ 1, 2).await.is_err());
    Ok((number(&surface, 4), number(&surface, 8)))
}

async fn seen(qemu: &Qemu, settings: &str) -> Result<(u32, u32), u32> {
    let (address, _serving) = proxy_of(qemu, ConsoleType::SpiceHtml5, &format!("[spice]\n{settings}")).await;
    tokio::time::timeout(Duration::from_secs(60), sees(address)).await.expect("a picture")
}

fn picture(seen: Result<(u32, u32), u32>) -> bool {
    matches!(seen, Ok((width, height)) if width >= 320 && height >= 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_CONSOLES: QEMU"]
async fn a_spice_screen_without_and_with_a_password() {
    let port = free_port();
    let open = Qemu::with_spice(&format!("port={port},disable-ticketing=on"), port, None);
    assert!(picture(seen(&open, "").await));
    drop(open);
    let port = free_port();
    let qemu = Qemu::with_spice(&format!("port={port},password-secret=password"), port, None);
    assert!(picture(seen(&qemu, &format!("password = {PASSWORD}\n")).await));
    assert_eq!(seen(&qemu, "password = guess\n").await, Err(DENIED));
    assert_eq!(seen(&qemu, "").await, Err(DENIED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVA_TEST_CONSOLES: QEMU"]
async fn a_spice_screen_with_tls() {
    let (folder, other) = (certificates(), certificates());
    let (port, tls_port) = (free_port(), free_port());
    let tls = format!("x509-dir={},tls-port={tls_port}", folder.path().display());
    let authority =
        |folder: &Path| format!("ca_certs = {}\npassword = {PASSWORD}\n", folder.join("ca-cert.pem").display());
    // Over TLS alone.
    let qemu = Qemu::with_spice(&format!("{tls},password-secret=password"), 0, Some(tls_port));
    assert!(picture(seen(&qemu, &authority(folder.path())).await));
    assert_eq!(seen(&qemu, &authority(other.path())).await, Err(502), "another authority");
    assert_eq!(seen(&qemu, &format!("password = {PASSWORD}\n")).await, Err(502), "a proxy without TLS");
    drop(qemu);
    // A proxy that is to speak TLS does not go on without.
    let qemu = Qemu::with_spice(&format!("port={port},password-secret=password"), port, None);
    assert_eq!(seen(&qemu, &authority(folder.path())).await, Err(502));
}
