//! A client and a screen say anything while a channel of SPICE begins: a client is let on only where the screen says so, a screen
//! is asked for nothing but channels that are served, and what a client shows in place of a password goes nowhere.

use nova::console::proxy::{SpiceLogin, link};
use nova_core::entropy::SeededEntropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::speaker::Speaker;

/// A screen's key, as it comes in its answer.
const KEY: &[u8; 162] = include_bytes!("../../src/console/proxy/spice/testdata/public.der");
/// What clients show: no byte of it is likely elsewhere.
const TICKET: [u8; 128] = [0xa7; 128];
/// The longest input.
const LONGEST: usize = 16 << 10;

/// Both sides of good begins, behind two bytes that say how much of it the client says.
pub fn seeds() -> Vec<Vec<u8>> {
    let words = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let client = |session: u32, channel: u8, capabilities: u32| {
        let message = [&words(&[session])[..], &[channel, 0], &words(&[1, 0, 18, capabilities])].concat();
        let proof = if capabilities & 1 == 1 { words(&[1]) } else { Vec::new() };
        [&b"REDQ"[..], &words(&[2, 2, message.len() as u32]), &message, &proof, &TICKET].concat()
    };
    let screen = |error: u32, result: u32| {
        let answer = [&words(&[error])[..], KEY, &words(&[1, 0, 178, 0b1011])].concat();
        [&b"REDQ"[..], &words(&[2, 2, answer.len() as u32]), &answer, &words(&[result])].concat()
    };
    let both = |client: Vec<u8>, screen: Vec<u8>| {
        let said = u16::try_from(client.len()).unwrap_or(u16::MAX);
        [&said.to_le_bytes()[..], &client, &screen].concat()
    };
    vec![
        both(client(0, 1, 0b1001), screen(0, 0)),
        both(client(7, 2, 0), screen(0, 0)),
        both(client(7, 3, 0b1001), screen(0, 7)),
        both(client(0, 1, 0b1001), screen(5, 0)),
    ]
}

/// Runs it.
pub fn run(input: &[u8]) {
    let Some((length, said)) = input.split_first_chunk::<2>() else { return };
    let said = said.get(..said.len().min(LONGEST)).unwrap_or_default();
    let (client, screen) = said.split_at(usize::from(u16::from_le_bytes(*length)).min(said.len()));
    crate::runtime().block_on(async {
        let (mut ours, mut theirs) = duplex(LONGEST * 2);
        theirs.write_all(screen).await.expect("there is room");
        theirs.shutdown().await.expect("an end");
        let mut browser = Speaker::saying(client);
        let login = SpiceLogin { password: Some("secret".to_owned()), tls: None };
        let linked = link(&mut browser, &mut ours, &login, &SeededEntropy::new(1)).await;
        drop(ours);
        let mut asked = Vec::new();
        theirs.read_to_end(&mut asked).await.expect("an end");
        if !asked.is_empty() {
            assert!(asked.starts_with(b"REDQ\x02\0\0\0"));
            assert!(matches!(asked.get(20), Some(1..=6)), "a channel that is not served");
        }
        if linked.is_ok() {
            assert!(!asked.ends_with(&TICKET), "the client's ticket");
            assert!(screen.windows(4).any(|four| four == [0; 4]), "the screen did not let it in");
            assert!(browser.told.ends_with(&[0; 4]) && client.starts_with(b"REDQ"));
        }
    });
}
