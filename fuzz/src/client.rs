//! A client sends anything into an open websocket: the relay ends, and what reaches the console was in its messages.

use bytes::Bytes;
use nova::console::proxy::{Relay, relay};
use nova_core::console::ConsoleType;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The longest message.
const LONGEST: usize = 1 << 12;

/// Messages as clients send them (RFC 6455, 5.2), behind the byte that says whether the console takes text.
pub fn seeds() -> Vec<Vec<u8>> {
    let long = vec![7; 300];
    let frames = [
        vec![(0x82, &b"keys"[..]), (0x82, &long), (0x88, &[3, 232])],
        vec![(0x02, &b"in "[..]), (0x89, &b"are you there"[..]), (0x80, &b"two"[..]), (0x8a, &[][..])],
        vec![(0x81, &b"text"[..]), (0x82, &[][..]), (0x88, &[][..])],
    ];
    let session = |frames: &Vec<(u8, &[u8])>, text: u8| {
        let mut session = vec![text];
        for (first, payload) in frames {
            session.extend(frame(*first, payload));
        }
        session
    };
    frames.iter().flat_map(|frames| [session(frames, 0), session(frames, 1)]).collect()
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Runs it.
pub fn run(bytes: &[u8]) {
    let Some((text, sent)) = bytes.split_first() else { return };
    let sent = sent.get(..sent.len().min(1 << 16)).unwrap_or_default();
    crate::runtime().block_on(async {
        let (proxy, mut browser) = duplex(1 << 17);
        let (reader, mut console) = duplex(1 << 17);
        browser.write_all(sent).await.expect("there is room");
        browser.shutdown().await.expect("an end");
        let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
        let mut client = WebSocketStream::from_raw_socket(proxy, Role::Server, Some(config)).await;
        let long = crate::LONG;
        let console_type = if text % 2 == 1 { ConsoleType::Serial } else { ConsoleType::Novnc };
        let limits = Relay { idle: long, stall: long, ping: long, rate: 1 << 40, console_type };
        let (from, to) = tokio::io::split(reader);
        relay(&mut client, Bytes::new(), from, to, &limits).await;
        let mut arrived = Vec::new();
        console.read_to_end(&mut arrived).await.expect("an end");
        // Each message has two bytes of its own at least, and a mask.
        assert!(arrived.len() <= sent.len().saturating_sub(2), "more came out than went in");
        assert!(arrived.is_empty() || sent.len() > 6);
    });
}
