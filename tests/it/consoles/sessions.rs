//! How long they stay.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use nova::console::AuthOptions;
use nova::console::proxy::ProxyOptions;
use nova_core::identity::{Project, User};
use nova_core::ids::InstanceId;
use nova_core::state::Action;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::rig::{Browser, Rig, come_back, connect, cookie_of};

/// A session that is open, and has shown its screen.
async fn seen(rig: &Rig, id: InstanceId) -> Browser {
    let mut browser = rig.open(&rig.token(id).await).await;
    browser.read(8).await;
    browser
}

/// It is closed within a second from now, for this reason.
async fn is_cut(browser: &mut Browser, since: Instant, reason: &str) {
    let (code, said) = browser.closed().await;
    assert_eq!((code, said.as_str()), (1008, reason));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_session_ends_with_its_server() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let mut browser = seen(&rig, id).await;
    let began = Instant::now();
    assert!(rig.cloud.act(id, Action::Stop).await);
    is_cut(&mut browser, began, "The server has stopped.").await;
    rig.cloud.settle().await;
    assert!(rig.cloud.act(id, Action::Start).await);
    rig.cloud.settle().await;
    let mut browser = seen(&rig, id).await;
    let began = Instant::now();
    assert!(rig.cloud.act(id, Action::Delete).await);
    is_cut(&mut browser, began, "The server is gone.").await;
}

#[tokio::test]
async fn a_session_ends_when_its_server_moves() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let mut browser = seen(&rig, id).await;
    let began = Instant::now();
    assert_eq!(rig.cloud.live_migrate(id).await.0, 202);
    is_cut(&mut browser, began, "The server has moved to another host.").await;
}

#[tokio::test]
async fn a_session_ends_with_the_role_that_it_rests_on() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let (mut browser, instance) = (seen(&rig, id).await, rig.cloud.get(id).await);
    let began = Instant::now();
    for grant in rig.cloud.store.list_grants(Some(&instance.user_id), None).await.unwrap() {
        rig.cloud.store.remove_grant(&grant).await.unwrap();
    }
    is_cut(&mut browser, began, "You may not see this console any more.").await;
}

/// With the default of `console.check_interval`.
#[tokio::test]
async fn a_session_ends_when_its_user_or_project_is_disabled() {
    for whole_project in [false, true] {
        let rhythm = ProxyOptions::default().check_interval;
        let rig = Rig::with(|options| options.check_interval = rhythm, Default::default(), 1).await;
        let id = rig.server().await;
        let (mut browser, instance) = (seen(&rig, id).await, rig.cloud.get(id).await);
        let began = Instant::now();
        if whole_project {
            let project = rig.cloud.store.get_project(&instance.project_id).await.unwrap();
            rig.cloud.store.update_project(Project { enabled: false, ..project }).await.unwrap();
        } else {
            let user = rig.cloud.store.get_user(&instance.user_id).await.unwrap();
            rig.cloud.store.update_user(User { enabled: false, ..user }).await.unwrap();
        }
        is_cut(&mut browser, began, "You may not see this console any more.").await;
    }
}

#[tokio::test]
async fn what_leaves_the_screen_alone_leaves_the_session_alone() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let mut browser = seen(&rig, id).await;
    for action in [Action::Pause, Action::Unpause, Action::RebootSoft] {
        assert!(rig.cloud.act(id, action).await);
        rig.cloud.settle().await;
    }
    rig.cloud.pass(Duration::from_millis(300)).await;
    browser.send(b"here").await;
    assert_eq!(browser.read(4).await, "here");
}

#[tokio::test]
async fn sessions_do_not_last_for_ever() {
    let short = AuthOptions { max_session: Duration::from_millis(400), ..AuthOptions::default() };
    let rig = Rig::with(|_| {}, short, 1).await;
    let mut browser = seen(&rig, rig.server().await).await;
    assert_eq!(browser.closed().await, (1008, "The session has lasted as long as it may.".into()));
}

#[tokio::test]
async fn sessions_that_nobody_uses_are_closed() {
    let rig = Rig::with(|options| options.idle_timeout = Duration::from_millis(300), Default::default(), 1).await;
    let mut browser = seen(&rig, rig.server().await).await;
    let began = Instant::now();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        browser.send(b"k").await;
    }
    assert_eq!(browser.closed().await, (1008, "Nothing was typed for too long.".into()));
    assert!(began.elapsed() >= Duration::from_millis(750));
}

/// noVNC asks for the next picture whenever it has got one, as long as a cursor blinks: that is nobody's word.
#[tokio::test]
async fn who_asks_for_pictures_only_is_not_there() {
    let rig = Rig::with(|options| options.idle_timeout = Duration::from_millis(300), Default::default(), 1).await;
    let mut browser = seen(&rig, rig.server().await).await;
    let asks = Bytes::from([3, 1, 0, 0, 0, 0, 2, 128, 1, 224].repeat(2));
    let asking = async {
        loop {
            let _ = browser.client.send(Message::Binary(asks.clone())).await;
            match tokio::time::timeout(Duration::from_millis(50), browser.client.next()).await {
                Ok(Some(Ok(Message::Close(frame)))) => break frame,
                Ok(None | Some(Err(_))) => break None,
                Ok(Some(Ok(_))) | Err(_) => {}
            }
        }
    };
    let frame = tokio::time::timeout(Duration::from_secs(10), asking).await.expect("it is closed").unwrap();
    assert_eq!(frame.reason.as_str(), "Nothing was typed for too long.");
}

/// Whoever does not read holds no more than a little, and not for long.
#[tokio::test]
async fn a_slow_reader_holds_the_screen_back_and_is_let_go() {
    let rig = Rig::with(|options| options.stall_timeout = Duration::from_millis(500), Default::default(), 1).await;
    let id = rig.server().await;
    let mut slow = seen(&rig, id).await;
    slow.send(b"flood").await;
    let mut before = 0;
    // Until nothing goes any further: buffers of sockets are full.
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = rig.flood.sent.load(Ordering::Relaxed);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < 64 << 20, "{before} bytes were taken for one that reads none");
    // Others are served meanwhile.
    let mut other = seen(&rig, id).await;
    other.send(b"quick").await;
    assert_eq!(other.read(5).await, "quick");
    // Only then does it read what is left: it was let go before.
    let let_go = tokio::time::timeout(Duration::from_secs(10), rig.flood.over.acquire()).await;
    let_go.expect("it is let go").unwrap().forget();
    let (code, _) = slow.closed().await;
    assert!(matches!(code, 1006 | 1008), "{code}");
}

#[tokio::test]
async fn clients_keep_to_the_protocol_or_go() {
    let rig = Rig::with(|options| options.max_message_size = 8192, Default::default(), 1).await;
    let id = rig.server().await;
    let mut browser = seen(&rig, id).await;
    browser.client.send(Message::Text("keys".into())).await.unwrap();
    assert_eq!(browser.closed().await.0, 1002);
    let mut browser = seen(&rig, id).await;
    let _ = browser.client.send(Message::Binary(Bytes::from(vec![0; 8193]))).await;
    assert!(matches!(browser.closed().await.0, 1002 | 1006));
    // One that does not begin as RFB does.
    let (client, _) = rig.connect(&rig.token(id).await).await.unwrap();
    let mut browser = Browser::new(client);
    browser.send(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(browser.closed().await.0, 1002);
}

#[tokio::test]
async fn when_a_proxy_is_stopped_the_browser_goes_on_with_another() {
    let rig = Rig::with(|options| options.drain_timeout = Duration::ZERO, Default::default(), 2).await;
    let id = rig.server().await;
    let token = rig.token(id).await;
    let (client, response) = rig.connect(&token).await.unwrap();
    let cookie = cookie_of(&response);
    let mut first = Browser::new(client);
    first.begin().await;
    rig.proxies[0].stop.cancel();
    assert_eq!(first.closed().await.0, 1012);
    let other = rig.proxies[1].address;
    assert_eq!(connect(other, &token, &[]).await.unwrap_err().0, 403, "the address alone is used up");
    let own = format!("http://{other}");
    let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str())];
    let (client, response) = connect(other, &token, &headers).await.unwrap();
    let mut second = Browser::new(client);
    second.begin().await;
    assert_eq!(second.read(8).await, "screen 0");
    assert_eq!(connect(other, &token, &headers).await.unwrap_err().0, 403, "so is the cookie");
    // With the next cookie it goes on again, over another connection; the one before is closed.
    let next = cookie_of(&response);
    assert_ne!(next, cookie);
    let (client, _) = connect(other, &token, &[("Cookie", &next)]).await.unwrap();
    Browser::new(client).begin().await;
    assert_eq!(second.closed().await, (1008, "This console was opened again elsewhere.".into()));
}

/// A screen that is slow to answer does not keep its proxy from stopping, nor is the address lost.
#[tokio::test]
async fn a_console_that_opens_while_its_proxy_stops_goes_on_with_another() {
    let mut rig = Rig::with(|options| options.drain_timeout = Duration::ZERO, Default::default(), 2).await;
    let id = rig.server().await;
    let mut first = seen(&rig, id).await;
    let token = rig.token(id).await;
    let port = rig.grant(&token).await.target.port;
    let ports = rig.screens_end().await;
    let slow = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let screen = async {
        let (mut stream, _) = slow.accept().await.unwrap();
        rig.proxies[0].stop.cancel();
        assert_eq!(first.closed().await.0, 1012);
        // Only now does it speak.
        stream.write_all(b"RFB 003.008\n\x01\x01\0\0\0\0").await.unwrap();
        stream
    };
    let (opened, _stream) = tokio::join!(connect(rig.proxies[0].address, &token, &[]), screen);
    let (client, response) = opened.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        assert_eq!(Browser::new(client).closed().await.0, 1012);
        (&mut rig.proxies[0].serving).await.unwrap();
    });
    ended.await.expect("the proxy stops");
    drop(slow);
    rig.screens_come_back(&ports).await;
    let (other, cookie) = (rig.proxies[1].address, cookie_of(&response));
    let (client, _) = connect(other, &token, &[("Cookie", &cookie)]).await.unwrap();
    Browser::new(client).begin().await;
}

#[tokio::test]
async fn a_session_that_was_closed_is_not_gone_on_with() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    for (code, reopens) in [(1000_u16, false), (1001, true)] {
        let token = rig.token(id).await;
        let mut browser = rig.open(&token).await;
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() };
        browser.client.close(Some(frame)).await.unwrap();
        browser.closed().await;
        let headers = [("Cookie", browser.cookie.as_str())];
        let again = connect(rig.proxies[0].address, &token, &headers).await;
        assert_eq!(again.is_ok(), reopens, "after {code}");
    }
    // One that was lost without a word is.
    let token = rig.token(id).await;
    let browser = rig.open(&token).await;
    let cookie = browser.cookie.clone();
    drop(browser);
    Browser::new(come_back(&rig, &token, &cookie).await).begin().await;
    // Nor is one whose server was deleted meanwhile.
    let token = rig.token(id).await;
    let browser = rig.open(&token).await;
    let cookie = browser.cookie.clone();
    drop(browser);
    assert!(rig.cloud.act(id, Action::Delete).await);
    rig.cloud.settle().await;
    let refused = connect(rig.proxies[0].address, &token, &[("Cookie", &cookie)]).await.unwrap_err();
    assert_eq!(refused.0, 403);
}

/// Who comes back while the host is away is sent away, and comes back with what it had.
#[tokio::test]
async fn a_session_waits_for_a_host_that_is_away() {
    let rig = Rig::with(|options| options.open_timeout = Duration::from_millis(900), Default::default(), 1).await;
    let id = rig.server().await;
    let token = rig.token(id).await;
    let browser = rig.open(&token).await;
    let cookie = browser.cookie.clone();
    let ports = rig.screens_end().await;
    drop(browser);
    let address = rig.proxies[0].address;
    let mut away = 0;
    while away < 3 {
        match connect(address, &token, &[("Cookie", &cookie)]).await {
            // While the loss of the connection is told, the cookie is not good for a moment.
            Err((403, _)) => tokio::task::yield_now().await,
            Err((status, text)) => {
                assert_eq!(status, 502, "{text}");
                away += 1;
            }
            Ok(_) => panic!("there is no screen"),
        }
    }
    rig.screens_come_back(&ports).await;
    let mut again = Browser::new(come_back(&rig, &token, &cookie).await);
    again.begin().await;
    assert_eq!(again.read(8).await, "screen 0");
    // A first opening is no session: its address is used up.
    let first = rig.token(id).await;
    rig.screens_end().await;
    assert_eq!(rig.connect(&first).await.unwrap_err(), 502);
    rig.screens_come_back(&ports).await;
    assert_eq!(rig.connect(&first).await.unwrap_err(), 403);
}

#[tokio::test]
async fn sessions_end_when_nobody_can_check_them() {
    let rig = Rig::with(|options| options.check_patience = Duration::from_millis(200), Default::default(), 1).await;
    let mut browser = seen(&rig, rig.server().await).await;
    rig.end_auth().await;
    assert_eq!(browser.closed().await.0, 1013);
}
