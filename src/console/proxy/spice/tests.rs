//! The begin of a channel with screens and clients that keep to it, and with some that do not.

use async_trait::async_trait;
use nova_core::entropy::SeededEntropy;
use rsa::Oaep;
use sha1::Sha1;
use tokio::io::{DuplexStream, duplex};

use super::*;

/// Common capabilities of spice-html5: it selects, and speaks with short headers.
const CAPABILITIES: u32 = 0b1001;
/// What the client encrypts.
const JUNK: [u8; ticket::TICKET] = [0xaa; ticket::TICKET];

const PUBLIC: &[u8; ticket::KEY] = include_bytes!("testdata/public.der");

fn message(session: u32, kind: u8, capabilities: u32) -> Vec<u8> {
    let mut message = BytesMut::new();
    message.put_u32_le(session);
    message.put_slice(&[kind, 0]);
    for number in [1, 0, MESSAGE as u32, capabilities] {
        message.put_u32_le(number);
    }
    message.to_vec()
}

/// What a client says from begin to end.
fn said(session: u32, kind: u8, capabilities: u32) -> Vec<u8> {
    let mut said = with_header(&message(session, kind, capabilities)).to_vec();
    if capabilities & SELECTS != 0 {
        said.extend(BY_PASSWORD.to_le_bytes());
    }
    said.extend(JUNK);
    said
}

/// A screen: says so, and takes whoever knows the password. Returns the kind of channel that was asked for.
async fn screen(mut io: DuplexStream, error: u32, password: &'static str) -> std::io::Result<u8> {
    let mut header = [0; HEADER];
    io.read_exact(&mut header).await?;
    let mut asked = vec![0; number(&header, 12).unwrap_or(0) as usize];
    io.read_exact(&mut asked).await?;
    let mut answer = BytesMut::new();
    answer.put_u32_le(error);
    answer.put_slice(PUBLIC);
    for number in [1, 0, REPLY as u32, 0b1011] {
        answer.put_u32_le(number);
    }
    io.write_all(&with_header(&answer)).await?;
    if error == 0 {
        if number(&asked, MESSAGE).unwrap_or(0) & SELECTS != 0 {
            assert_eq!(io.read_u32_le().await?, BY_PASSWORD);
        }
        let mut shown = [0; ticket::TICKET];
        io.read_exact(&mut shown).await?;
        assert_ne!(shown, JUNK, "the client's");
        let read = ticket::tests::screens_key().decrypt(Oaep::new::<Sha1>(), &shown).unwrap();
        let good = read.strip_suffix(&[0]) == Some(password.as_bytes());
        io.write_u32_le(if good { 0 } else { 7 }).await?;
    }
    Ok(asked[4])
}

struct Scripted {
    says: Bytes,
    heard: Vec<u8>,
}

#[async_trait]
impl ClientSide for Scripted {
    async fn read(&mut self, count: usize) -> std::io::Result<Bytes> {
        match self.says.len() < count {
            true => Err(std::io::ErrorKind::UnexpectedEof.into()),
            false => Ok(self.says.split_to(count)),
        }
    }

    async fn write(&mut self, bytes: Bytes) -> std::io::Result<()> {
        self.heard.extend_from_slice(&bytes);
        Ok(())
    }
}

/// What comes of it, what the client heard, and what the screen was asked for, if it got so far.
async fn linked(
    said: Vec<u8>,
    error: u32,
    password: Option<&str>,
) -> (Result<Channel, SpiceError>, Vec<u8>, Option<u8>) {
    let (mut ours, theirs) = duplex(4096);
    let screen = tokio::spawn(screen(theirs, error, "secret"));
    let mut client = Scripted { says: said.into(), heard: Vec::new() };
    let login = SpiceLogin { password: password.map(str::to_owned), tls: None };
    let result = link(&mut client, &mut ours, &login, &SeededEntropy::new(1)).await;
    drop(ours);
    (result, client.heard, screen.await.unwrap().ok())
}

#[tokio::test]
async fn the_proxy_shows_the_password_in_place_of_its_client() {
    for (session, kind, capabilities, channel) in
        [(0, 1, CAPABILITIES, Channel::Main), (7, 2, CAPABILITIES, Channel::Display), (7, 3, 0, Channel::Inputs)]
    {
        let (result, heard, asked) = linked(said(session, kind, capabilities), 0, Some("secret")).await;
        assert_eq!(result.unwrap(), channel);
        assert_eq!(asked, Some(kind));
        assert_eq!(heard.len(), HEADER + REPLY + 4 + 4);
        assert!(heard.starts_with(MAGIC) && heard.ends_with(&[0; 4]));
    }
}

#[tokio::test]
async fn a_screen_that_refuses_is_heard() {
    for guess in [None, Some("guess")] {
        let (result, heard, _) = linked(said(0, 1, CAPABILITIES), 0, guess).await;
        assert!(matches!(result, Err(SpiceError::Refused { code: 7 })));
        assert!(heard.ends_with(&[7, 0, 0, 0]));
    }
    let (result, heard, _) = linked(said(0, 1, CAPABILITIES), 5, Some("secret")).await;
    let error = result.unwrap_err();
    assert!(
        matches!(error, SpiceError::Refused { code: 5 }) && error.to_string().contains("spice.ca_certs"),
        "{error}"
    );
    assert_eq!(heard.len(), HEADER + REPLY + 4);
}

/// None of these reaches the screen.
#[tokio::test]
async fn clients_keep_to_it_or_go() {
    let mut other_version = said(0, 1, 0);
    other_version[4] = 1;
    let mut long = said(0, 1, 0);
    long[12..16].copy_from_slice(&5000_u32.to_le_bytes());
    let mut short = said(0, 1, 0);
    short[12..16].copy_from_slice(&17_u32.to_le_bytes());
    let with = |at: usize, number: u32| {
        let mut said = said(0, 1, 0);
        said[HEADER + at..HEADER + at + 4].copy_from_slice(&number.to_le_bytes());
        said
    };
    for (what, wrong) in [
        ("not SPICE", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("another version", other_version),
        ("too long", long),
        ("too short", short),
        ("a main channel of a session", said(7, 1, 0)),
        ("another channel without", said(0, 2, 0)),
        ("USB", said(7, 9, 0)),
        ("a port of the host", said(7, 10, 0)),
        ("no channel", said(7, 0, 0)),
        ("more capabilities than there are", with(6, 2)),
        ("very many", with(10, u32::MAX)),
        ("capabilities elsewhere", with(14, 4000)),
        ("capabilities in the message itself", with(14, 2)),
    ] {
        let (result, heard, asked) = linked(wrong, 0, Some("secret")).await;
        assert!(matches!(result, Err(SpiceError::Protocol { who: "client", .. })), "{what}: {result:?}");
        assert!(heard.is_empty() && asked.is_none(), "{what}");
    }
    let mut otherwise = said(0, 1, CAPABILITIES);
    let at = otherwise.len() - JUNK.len() - 4;
    otherwise[at] = 2;
    let (result, heard, _) = linked(otherwise, 0, Some("secret")).await;
    assert!(matches!(result, Err(SpiceError::Protocol { who: "client", what: "another proof than a password" })));
    assert_eq!(heard.len(), HEADER + REPLY + 4, "it was not let in");
    let (result, ..) = linked(said(0, 1, 0)[..20].to_vec(), 0, None).await;
    assert!(matches!(result, Err(SpiceError::Client(_))));
}

#[tokio::test]
async fn screens_keep_to_it_or_are_left() {
    let answer = |edit: fn(&mut Vec<u8>)| {
        let mut body = vec![0; REPLY];
        body[4..4 + ticket::KEY].copy_from_slice(PUBLIC);
        let mut whole = with_header(&body).to_vec();
        edit(&mut whole);
        whole
    };
    for (what, told) in [
        ("RFB", b"RFB 003.008\nand more".to_vec()),
        ("an answer that is too short", answer(|whole| whole[12] = 20)),
        ("an answer without end", answer(|whole| whole[15] = 1)),
        ("no key", answer(|whole| whole[HEADER + 8] ^= 0xff)),
    ] {
        let (mut ours, mut theirs) = duplex(4096);
        theirs.write_all(&told).await.unwrap();
        let mut client = Scripted { says: said(0, 1, CAPABILITIES).into(), heard: Vec::new() };
        let result = link(&mut client, &mut ours, &SpiceLogin::default(), &SeededEntropy::new(1)).await;
        assert!(matches!(result, Err(SpiceError::Protocol { who: "screen", .. })), "{what}: {result:?}");
    }
}
