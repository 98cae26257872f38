//! Screens over SPICE: each channel of a session is a connection of its own.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nova::console::AuthOptions;
use nova_core::console::ConsoleGrant;
use nova_core::ids::InstanceId;
use nova_core::state::Action;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::rig::{Browser, Rig, connect, cookie_of};

const MAIN: u8 = 1;
const DISPLAY: u8 = 2;
const INPUTS: u8 = 3;

/// What a browser knows of a session.
struct Session {
    token: String,
    cookie: String,
    main: Browser,
}

async fn spice_token(rig: &Rig, id: InstanceId) -> String {
    rig.token_for(id, "spice", "spice-html5").await
}

/// The first channel.
async fn begin(rig: &Rig, id: InstanceId) -> Session {
    let token = spice_token(rig, id).await;
    let (client, response) = rig.connect(&token).await.unwrap();
    let cookie = cookie_of(&response);
    let mut main = Browser::new(client);
    main.link(0, MAIN).await;
    assert_eq!(main.read(9).await, "main of 0");
    Session { token, cookie, main }
}

/// A connection with the address and the cookie of a session, through one of the proxies.
async fn come(rig: &Rig, proxy: usize, session: &Session) -> Result<(Browser, String), u16> {
    let address = rig.proxies[proxy].address;
    let origin = format!("http://{address}");
    let headers = [("Cookie", session.cookie.as_str()), ("Origin", origin.as_str())];
    match connect(address, &session.token, &headers).await {
        Ok((client, response)) => Ok((Browser::new(client), cookie_of(&response))),
        Err((status, _)) => Err(status),
    }
}

/// A further channel.
async fn channel(rig: &Rig, proxy: usize, session: &Session, kind: u8) -> Browser {
    let (mut browser, cookie) = come(rig, proxy, session).await.unwrap();
    assert_eq!(cookie, session.cookie, "it stays what it is");
    browser.link(7, kind).await;
    let greeting: &[u8] = if kind == DISPLAY { b"display of 0" } else { b"inputs of 0" };
    assert_eq!(browser.read(greeting.len()).await, greeting);
    browser
}

async fn there(browser: &mut Browser) {
    browser.send(b"there").await;
    assert_eq!(browser.read(5).await, "there");
}

#[tokio::test]
async fn the_channels_of_one_session_come_in_and_nobody_else() {
    let rig = Rig::with(|_| {}, AuthOptions::default(), 2).await;
    let id = rig.server().await;
    let mut session = begin(&rig, id).await;
    // Through any proxy.
    let mut display = channel(&rig, 0, &session, DISPLAY).await;
    let mut inputs = channel(&rig, 1, &session, INPUTS).await;
    for browser in [&mut session.main, &mut display, &mut inputs] {
        there(browser).await;
    }
    // The address alone is used up; so it is for who makes a cookie up.
    assert_eq!(rig.connect(&session.token).await.unwrap_err(), 403);
    let forged = format!("{}0", session.cookie);
    let headers = [("Cookie", forged.as_str())];
    assert_eq!(
        connect(rig.proxies[0].address, &session.token, &headers).await.err().map(|refused| refused.0),
        Some(403)
    );
    // What is no channel of SPICE is not passed on.
    let (mut usb, _) = come(&rig, 0, &session).await.unwrap();
    usb.send(&[b"REDQ", &[2_u32, 2, 18].map(u32::to_le_bytes).concat()[..], &[7, 0, 0, 0, 9, 0], &[0; 12]].concat())
        .await;
    assert_eq!(usb.closed().await.0, 1002);
}

#[tokio::test]
async fn all_channels_end_with_their_server() {
    let rig = Rig::with(|_| {}, AuthOptions::default(), 2).await;
    let id = rig.server().await;
    let mut session = begin(&rig, id).await;
    let mut display = channel(&rig, 0, &session, DISPLAY).await;
    let mut inputs = channel(&rig, 1, &session, INPUTS).await;
    let began = Instant::now();
    assert!(rig.cloud.act(id, Action::Stop).await);
    let ends = [&mut session.main, &mut display, &mut inputs].map(|browser| async move { browser.closed().await });
    for end in join_all(ends).await {
        assert_eq!(end, (1008, "The server has stopped.".into()));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    rig.cloud.settle().await;
    assert_eq!(come(&rig, 0, &session).await.err(), Some(403), "no channel comes after that");
}

#[tokio::test]
async fn a_session_that_was_closed_takes_no_channel() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    for (code, open) in [(1000_u16, false), (1001, true)] {
        let mut session = begin(&rig, id).await;
        let mut display = channel(&rig, 0, &session, DISPLAY).await;
        // Of a channel that is not the first one, nothing follows.
        let frame = |code: u16| CloseFrame { code: code.into(), reason: "".into() };
        display.client.close(Some(frame(1000))).await.unwrap();
        display.closed().await;
        there(&mut session.main).await;
        drop(channel(&rig, 0, &session, DISPLAY).await);
        session.main.client.close(Some(frame(code))).await.unwrap();
        session.main.closed().await;
        assert_eq!(come(&rig, 0, &session).await.is_ok(), open, "after {code}");
    }
}

/// A browser that lost its connections begins its session again with the first channel: what is left of before is cut.
#[tokio::test]
async fn a_session_that_was_lost_is_gone_on_with() {
    let rig = Rig::with(|_| {}, AuthOptions::default(), 2).await;
    let id = rig.server().await;
    let mut session = begin(&rig, id).await;
    let mut display = channel(&rig, 0, &session, DISPLAY).await;
    let (mut again, _) = come(&rig, 0, &session).await.unwrap();
    again.link(0, MAIN).await;
    let taken = (1008, "This console was opened again elsewhere.".to_owned());
    assert_eq!(session.main.closed().await, taken);
    assert_eq!(display.closed().await, taken);
    there(&mut channel(&rig, 1, &session, INPUTS).await).await;
    // The loss of that one is told, and shortens how long it can be gone on with: who is back, by another proxy, has all of it.
    drop(again);
    let cookie = session.cookie.split_once('=').unwrap().1;
    let shortened = |grant: ConsoleGrant| grant.expires_at < grant.resumes.unwrap().until;
    let mut tries = 0;
    while !shortened(rig.grant(cookie).await) {
        tries += 1;
        assert!(tries < 10_000, "the loss is told");
        tokio::task::yield_now().await;
    }
    let (mut again, _) = come(&rig, 1, &session).await.unwrap();
    again.link(0, MAIN).await;
    there(&mut channel(&rig, 1, &session, DISPLAY).await).await;
    assert!(!shortened(rig.grant(cookie).await));
}

/// Where sessions are not gone on with, their channels come in all the same, for a minute.
#[tokio::test]
async fn without_going_on_there_are_channels_all_the_same() {
    let rig = Rig::with(|_| {}, AuthOptions { resume: false, ..AuthOptions::default() }, 1).await;
    let session = begin(&rig, rig.server().await).await;
    there(&mut channel(&rig, 0, &session, DISPLAY).await).await;
    let grant = rig.grant(session.cookie.split_once('=').unwrap().1).await;
    let lasts = grant.expires_at.duration_since(rig.cloud.now());
    assert!(lasts.as_secs() <= 60, "{lasts:?}");
}

/// Pictures come without a word of the user.
#[tokio::test]
async fn only_the_inputs_say_that_somebody_is_there() {
    let rig = Rig::with(|options| options.idle_timeout = Duration::from_millis(300), AuthOptions::default(), 1).await;
    let id = rig.server().await;
    let mut session = begin(&rig, id).await;
    let mut display = channel(&rig, 0, &session, DISPLAY).await;
    let mut inputs = channel(&rig, 0, &session, INPUTS).await;
    for browser in [&mut inputs, &mut display, &mut session.main] {
        assert_eq!(browser.closed().await, (1008, "Nothing was typed for too long.".into()));
    }
    assert_eq!(come(&rig, 0, &session).await.err(), Some(403), "the session is over: nothing is added to it");
}

/// One cookie is not a way to have all the connections that a proxy has for everybody.
#[tokio::test]
async fn a_session_has_so_many_connections() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let session = begin(&rig, id).await;
    let mut more = Vec::new();
    for _ in 1..12 {
        more.push(channel(&rig, 0, &session, DISPLAY).await);
    }
    assert_eq!(come(&rig, 0, &session).await.err(), Some(429));
    let mut last = more.pop().unwrap();
    last.client.close(None).await.unwrap();
    last.closed().await;
    drop(channel(&rig, 0, &session, DISPLAY).await);
}

/// The port is another guest's by now: the host does not confirm it, for any channel.
#[tokio::test]
async fn a_host_without_the_screen_says_so() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let token = spice_token(&rig, id).await;
    let mut grant = rig.grant(&token).await;
    rig.cloud.store.drop_console_grant(&grant.token_hash).await.unwrap();
    grant.target.port += 1;
    rig.cloud.store.add_console_grant(grant).await.unwrap();
    assert_eq!(rig.connect(&token).await.unwrap_err(), 403);
}
