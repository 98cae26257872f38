//! A cloud with proxies in front of screens that are not real.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use nova::console::proxy::{BusAuthority, ConsoleProxy, Pages, ProxyOptions, ProxyParts};
use nova::console::{AuthOptions, AuthParts, ConsoleAuth};
use nova::identity::{Catalog, IdentityManager, IdentityOptions, PasswordOptions};
use nova_compute::SerialTls;
use nova_core::console::{ConsoleGrant, token_hash};
use nova_core::ids::{HostName, InstanceId};
use nova_core::rpc::{Role, Sender};
use nova_core::state::VmState;
use nova_queue::{RpcClient, RunningService};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::{Response, generate_key};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Cloud, CloudOptions};

/// Screens of one host: so many guests have one.
const SCREENS: u16 = 4;

thread_local! {
    /// Where the screens of this test's hosts are.
    static FIRST_PORT: Cell<u16> = const { Cell::new(0) };
    /// Where those over SPICE are.
    static FIRST_SPICE: Cell<Option<u16>> = const { Cell::new(None) };
    /// With which certificate this test's hosts serve serial ports, if with any.
    static SERIAL_TLS: RefCell<Option<SerialTls>> = const { RefCell::new(None) };
}

/// Hosts of this test serve serial ports with that certificate.
pub fn serve_serial_ports_with(tls: Option<SerialTls>) {
    SERIAL_TLS.set(tls);
}

pub struct Rig {
    pub cloud: Cloud,
    pub proxies: Vec<Proxy>,
    /// What screens have sent without being asked.
    pub flood: Arc<Flood>,
    auth: RefCell<Option<RunningService>>,
    screens: RefCell<Vec<AbortOnDropHandle<()>>>,
}

/// Of screens that send and send.
pub struct Flood {
    /// Bytes that were taken from them.
    pub sent: AtomicU64,
    /// A permit for each of them that was cut off.
    pub over: Semaphore,
}

pub struct Proxy {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub serving: AbortOnDropHandle<()>,
}

/// What our clients over SPICE show.
const SPICE_TICKET: [u8; 128] = [0xaa; 128];

pub type Client = WebSocketStream<TcpStream>;

/// Hosts whose guests' screens are ours.
fn dress(_: &str, machine: &mut nova_virt::FakeOptions, agent: &mut nova_compute::ComputeOptions) {
    machine.first_vnc_port = FIRST_PORT.get();
    machine.first_spice_port = FIRST_SPICE.get();
    agent.serial_tls = SERIAL_TLS.with_borrow(Clone::clone);
}

/// Ports in a row.
async fn in_a_row() -> (u16, Vec<TcpListener>) {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let mut listeners = vec![first];
        for more in 1..SCREENS {
            listeners.extend(TcpListener::bind(("127.0.0.1", port.saturating_add(more))).await.ok());
        }
        if listeners.len() == usize::from(SCREENS) {
            return (port, listeners);
        }
    }
}

/// Screens over RFB, and as many over SPICE.
async fn screens(flood: &Arc<Flood>) -> Vec<AbortOnDropHandle<()>> {
    let (port, listeners) = in_a_row().await;
    FIRST_PORT.set(port);
    let rfb = listeners.into_iter().enumerate().map(|(number, listener)| serve_rfb(number, listener, flood));
    let mut serving: Vec<_> = rfb.collect();
    let (port, listeners) = in_a_row().await;
    FIRST_SPICE.set(Some(port));
    serving.extend(listeners.into_iter().enumerate().map(|(number, listener)| {
        AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(spice_screen(number, stream));
            }
        }))
    }));
    serving
}

fn serve_rfb(number: usize, listener: TcpListener, flood: &Arc<Flood>) -> AbortOnDropHandle<()> {
    let flood = flood.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(screen(number, stream, flood.clone()));
        }
    }))
}

/// The link of SPICE, which takes every ticket but the client's own; then it says which screen and which channel it is, and
/// repeats what it is told.
async fn spice_screen(number: usize, mut stream: TcpStream) -> std::io::Result<()> {
    let mut asked = [0; 16 + 22];
    stream.read_exact(&mut asked).await?;
    assert!(asked.starts_with(b"REDQ"));
    let words = |numbers: [u32; 3]| numbers.map(u32::to_le_bytes).concat();
    let key = include_bytes!("../../../src/console/proxy/spice/testdata/public.der");
    let answer = [b"REDQ", &words([2, 2, 182])[..], &[0; 4], key, &words([1, 0, 178]), &[0b1011, 0, 0, 0]].concat();
    stream.write_all(&answer).await?;
    let mut shown = [0; 4 + 128];
    stream.read_exact(&mut shown).await?;
    assert!(shown.starts_with(&[1, 0, 0, 0]) && shown[4..] != SPICE_TICKET);
    stream.write_all(&[0; 4]).await?;
    let channel = match asked[20] {
        1 => "main",
        2 => "display",
        3 => "inputs",
        _ => "other",
    };
    stream.write_all(format!("{channel} of {number}").as_bytes()).await?;
    let mut buffer = vec![0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}

/// RFB 3.8 without security; then it says which screen it is, and repeats what it is told. After `flood` it sends and sends.
async fn screen(number: usize, mut stream: TcpStream, flood: Arc<Flood>) -> std::io::Result<()> {
    stream.write_all(b"RFB 003.008\n").await?;
    stream.read_exact(&mut [0; 12]).await?;
    stream.write_all(&[1, 1]).await?;
    assert_eq!(stream.read_u8().await?, 1);
    stream.write_all(&[0; 4]).await?;
    stream.write_all(format!("screen {number}").as_bytes()).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if buffer.starts_with(b"flood") {
            while let Ok(count) = stream.write(&[7; 65_536]).await {
                flood.sent.fetch_add(count as u64, Ordering::Relaxed);
            }
            flood.over.add_permits(1);
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

impl Rig {
    pub async fn start() -> Self {
        Self::with(|_| {}, AuthOptions::default(), 1).await
    }

    /// With so many proxies.
    pub async fn with(dress_proxy: impl Fn(&mut ProxyOptions), auth: AuthOptions, proxies: usize) -> Self {
        let flood = Arc::new(Flood { sent: AtomicU64::new(0), over: Semaphore::new(0) });
        let screens = screens(&flood).await;
        let cloud = Cloud::start(CloudOptions { hosts: 2, dress, ..CloudOptions::default() }).await;
        let identity = IdentityManager::open(
            cloud.store.clone(),
            cloud.clock.clone(),
            cloud.entropy.clone(),
            Catalog::new(""),
            IdentityOptions { password: PasswordOptions::cheap(), ..IdentityOptions::default() },
        );
        let (bus, clock, entropy) = (cloud.bus.clone(), cloud.clock.clone(), cloud.entropy.clone());
        let client = |role| {
            let sender = Sender { role, host: HostName::new("controller") };
            RpcClient::new(bus.clone(), sender, clock.clone(), entropy.clone())
        };
        let service = ConsoleAuth::new(AuthParts {
            store: cloud.store.clone(),
            access: Arc::new(identity.await.unwrap()),
            rpc: client(Role::Consoleauth),
            clock: cloud.clock.clone(),
            entropy: cloud.entropy.clone(),
            options: auth,
        });
        let running = service.start().await.unwrap();
        let mut rig = Self {
            proxies: Vec::new(),
            flood,
            auth: RefCell::new(Some(running)),
            screens: RefCell::new(screens),
            cloud,
        };
        for _ in 0..proxies {
            let mut options = ProxyOptions { check_interval: Duration::from_millis(100), ..ProxyOptions::default() };
            dress_proxy(&mut options);
            let parts = ProxyParts {
                authority: Arc::new(BusAuthority::new(client(Role::Novncproxy), rig.cloud.entropy.clone())),
                pages: Pages::default(),
                clock: rig.cloud.clock.clone(),
                entropy: rig.cloud.entropy.clone(),
                options,
            };
            let proxy = ConsoleProxy::bind(("127.0.0.1", 0), parts).await.unwrap();
            let (address, stop) = (proxy.address().unwrap(), CancellationToken::new());
            let serving = AbortOnDropHandle::new(tokio::spawn(proxy.serve(stop.clone())));
            rig.proxies.push(Proxy { address, stop, serving });
        }
        rig
    }

    /// What a proxy asks by, for a test that asks by itself.
    pub fn authority(&self) -> BusAuthority {
        let sender = Sender { role: Role::Novncproxy, host: HostName::new("controller") };
        let (bus, clock, entropy) = (self.cloud.bus.clone(), self.cloud.clock.clone(), self.cloud.entropy.clone());
        BusAuthority::new(RpcClient::new(bus, sender, clock, entropy), self.cloud.entropy.clone())
    }

    /// The hosts' screens are gone; the ports of those over RFB, for who lets them come back.
    pub async fn screens_end(&self) -> Vec<u16> {
        for gone in self.screens.take() {
            gone.abort();
            let _ = gone.await;
        }
        (0..SCREENS).map(|number| FIRST_PORT.get() + number).collect()
    }

    /// They are back.
    pub async fn screens_come_back(&self, ports: &[u16]) {
        for (number, port) in ports.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", *port)).await.unwrap();
            self.screens.borrow_mut().push(serve_rfb(number, listener, &self.flood));
        }
    }

    /// nova-consoleauth ends.
    pub async fn end_auth(&self) {
        let auth = self.auth.borrow_mut().take();
        auth.unwrap().stop().await;
    }

    /// A server that runs.
    pub async fn server(&self) -> InstanceId {
        let id = self.cloud.boot(1, self.cloud.flavor(1, 512)).await.unwrap().remove(0);
        self.cloud.settle().await;
        assert_eq!(self.cloud.get(id).await.vm_state, VmState::Active);
        id
    }

    /// A fresh token for its screen, as the API gives it to its owner.
    pub async fn token(&self, id: InstanceId) -> String {
        self.token_for(id, "vnc", "novnc").await
    }

    pub async fn token_for(&self, id: InstanceId, protocol: &str, console_type: &str) -> String {
        let path = format!("/compute/v2.1/servers/{id}/remote-consoles");
        let asked = json!({"remote_console": {"protocol": protocol, "type": console_type}});
        let (status, answer) = self.cloud.call("POST", &path, Some(asked)).await;
        assert_eq!(status, 200, "{answer}");
        let url = answer["remote_console"]["url"].as_str().unwrap().to_owned();
        url.rsplit_once("%3D").or(url.rsplit_once('=')).unwrap().1.to_owned()
    }

    pub async fn grant(&self, token: &str) -> ConsoleGrant {
        self.cloud.store.get_console_grant(&token_hash(token), self.cloud.clock.now()).await.unwrap()
    }

    /// A websocket of the first proxy, as a browser opens it.
    pub async fn connect(&self, token: &str) -> Result<(Client, Response), u16> {
        connect(self.proxies[0].address, token, &[]).await.map_err(|(status, _)| status)
    }

    /// The screen behind a token.
    pub async fn open(&self, token: &str) -> Browser {
        let (client, response) = self.connect(token).await.unwrap();
        let mut browser = Browser { client, cookie: cookie_of(&response), left: BytesMut::new() };
        browser.begin().await;
        browser
    }
}

/// The cookie that comes with an opened console, as a browser sends it back.
pub fn cookie_of(response: &Response) -> String {
    let set = response.headers()["set-cookie"].to_str().unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
    set.split(';').next().unwrap().to_owned()
}

/// Opens a websocket; headers replace what a browser would send, and empty ones are not sent.
pub async fn connect(
    address: SocketAddr,
    token: &str,
    headers: &[(&str, &str)],
) -> Result<(Client, Response), (u16, String)> {
    let mut request = http::Request::builder().uri(format!("ws://{address}/websockify?token={token}"));
    let (host, origin, key) = (address.to_string(), format!("http://{address}"), generate_key());
    let usual = [
        ("Host", host.as_str()),
        ("Origin", &origin),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", &key),
        ("Sec-WebSocket-Protocol", "binary"),
    ];
    let replaced = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    for (name, value) in usual.iter().filter(|(name, _)| !replaced(name)).chain(headers) {
        if !value.is_empty() {
            request = request.header(*name, *value);
        }
    }
    let stream = TcpStream::connect(address).await.unwrap();
    match tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await {
        Ok(opened) => Ok(opened),
        Err(Error::Http(response)) => {
            let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            Err((response.status().as_u16(), text))
        }
        Err(error) => panic!("{error}"),
    }
}

/// While the loss of the connection is told, the cookie is not good for a moment: a page tries again.
pub async fn come_back(rig: &Rig, token: &str, cookie: &str) -> Client {
    for _ in 0..50 {
        if let Ok((client, _)) = connect(rig.proxies[0].address, token, &[("Cookie", cookie)]).await {
            return client;
        }
    }
    panic!("it is not let in again");
}

/// noVNC, as far as bytes are concerned.
pub struct Browser {
    pub client: Client,
    pub cookie: String,
    left: BytesMut,
}

impl Browser {
    pub fn new(client: Client) -> Self {
        Self { client, cookie: String::new(), left: BytesMut::new() }
    }

    /// The begin of RFB, as clients see it.
    pub async fn begin(&mut self) {
        assert_eq!(self.read(12).await, "RFB 003.008\n");
        self.send(b"RFB 003.008\n").await;
        assert_eq!(self.read(2).await, [1, 1][..]);
        self.send(&[1]).await;
        assert_eq!(self.read(4).await, [0; 4][..]);
    }

    /// The begin of a channel of SPICE, as clients see it.
    pub async fn link(&mut self, session: u32, channel: u8) {
        let words = |numbers: [u32; 4]| numbers.map(u32::to_le_bytes).concat();
        let head = [b"REDQ", &[2, 2, 22].map(u32::to_le_bytes).concat()[..], &session.to_le_bytes(), &[channel, 0]];
        self.send(&[&head.concat()[..], &words([1, 0, 18, 0b1001])].concat()).await;
        assert!(self.read(16 + 182).await.starts_with(b"REDQ"));
        self.send(&[&[1, 0, 0, 0][..], &SPICE_TICKET].concat()).await;
        assert_eq!(self.read(4).await, [0; 4][..]);
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.client.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
    }

    /// Exactly so many bytes.
    pub async fn read(&mut self, count: usize) -> Bytes {
        while self.left.len() < count {
            match self.client.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => self.left.extend_from_slice(&bytes),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        self.left.split_to(count).freeze()
    }

    /// Waits for the close: its code and its words.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.client.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Ok(Message::Close(None)) | Err(_)) | None => return (1006, String::new()),
                Some(Ok(_)) => {}
            }
        }
    }
}
