//! Who gets in.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use http::StatusCode;
use nova::console::proxy::ProxyOptions;
use nova_core::console::ConsoleGrant;
use nova_core::state::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Browser, Rig, connect};

#[tokio::test]
async fn the_owner_sees_the_screen_once() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let token = rig.token(id).await;
    let mut browser = rig.open(&token).await;
    assert_eq!(browser.read(8).await, "screen 0");
    browser.send(b"keys").await;
    assert_eq!(browser.read(4).await, "keys");
    assert_eq!(rig.connect(&token).await.unwrap_err(), 403, "used");
    // One address does not get in the way of another.
    let mut second = rig.open(&rig.token(id).await).await;
    assert_eq!(second.read(8).await, "screen 0");
    browser.send(b"still").await;
    assert_eq!(browser.read(5).await, "still");
}

#[tokio::test]
async fn of_many_who_use_an_address_at_once_one_gets_in() {
    let rig = Rig::start().await;
    let token = rig.token(rig.server().await).await;
    let tries = futures_util::future::join_all((0..8).map(|_| rig.connect(&token))).await;
    assert_eq!(tries.iter().filter(|opened| opened.is_ok()).count(), 1);
}

#[tokio::test]
async fn tokens_that_are_worth_nothing() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    for forged in ["nonsense", "00000000-0000-4000-8000-000000000000", "a%00b", "'; drop table --"] {
        let forged = forged.replace(' ', "%20").replace('\'', "%27");
        assert_eq!(rig.connect(&forged).await.unwrap_err(), 403, "{forged}");
    }
    // The hash of a token, as the database has it, is no token.
    let token = rig.token(id).await;
    let grant = rig.grant(&token).await;
    assert_eq!(rig.connect(&grant.token_hash).await.unwrap_err(), 403);
    // Over.
    rig.cloud.store.drop_console_grant(&grant.token_hash).await.unwrap();
    let over = ConsoleGrant { expires_at: rig.cloud.now(), ..grant };
    rig.cloud.store.add_console_grant(over).await.unwrap();
    assert_eq!(rig.connect(&token).await.unwrap_err(), 403);
}

#[tokio::test]
async fn what_was_done_to_the_server_since_shuts_the_door() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let (reboot, stop, delete) = (rig.token(id).await, rig.token(id).await, rig.token(id).await);
    assert!(rig.cloud.act(id, Action::RebootSoft).await);
    rig.cloud.settle().await;
    let (status, text) = connect(rig.proxies[0].address, &reboot, &[]).await.unwrap_err();
    assert_eq!((status, text.trim()), (403, "The server has changed since this address was made: ask for a new one."));
    assert!(rig.cloud.act(id, Action::Stop).await);
    rig.cloud.settle().await;
    let (status, text) = connect(rig.proxies[0].address, &stop, &[]).await.unwrap_err();
    assert_eq!((status, text.trim()), (403, "The server has stopped."));
    assert!(rig.cloud.act(id, Action::Delete).await);
    rig.cloud.settle().await;
    let (status, text) = connect(rig.proxies[0].address, &delete, &[]).await.unwrap_err();
    assert_eq!((status, text.trim()), (403, "The server is gone."));
}

#[tokio::test]
async fn a_server_that_moved_and_a_user_without_the_role() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let token = rig.token(id).await;
    let from = rig.cloud.get(id).await.host.unwrap();
    let (status, text) = rig.cloud.live_migrate(id).await;
    assert_eq!(status, 202, "{text}");
    rig.cloud.settle().await;
    assert_ne!(rig.cloud.get(id).await.host.unwrap(), from);
    let (status, text) = connect(rig.proxies[0].address, &token, &[]).await.unwrap_err();
    assert_eq!((status, text.trim()), (403, "The server has moved to another host."));
    let token = rig.token(id).await;
    let instance = rig.cloud.get(id).await;
    let (user, project) = (Some(&instance.user_id), Some(&instance.project_id));
    for grant in rig.cloud.store.list_grants(user, project).await.unwrap() {
        rig.cloud.store.remove_grant(&grant).await.unwrap();
    }
    let (status, text) = connect(rig.proxies[0].address, &token, &[]).await.unwrap_err();
    assert_eq!((status, text.trim()), (403, "You may not see this console any more."));
}

/// CVE-2013-0335: the port of the screen is another guest's by now.
#[tokio::test]
async fn a_port_that_is_another_guests_is_not_shown() {
    let rig = Rig::with(|_| {}, Default::default(), 1).await;
    // The fake gives out ports in the order of ids: when the first of three on a host goes, the second takes its port,
    // and the third the second's. Of five servers on two hosts, three are on one.
    let mut by_host: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for _ in 0..5 {
        let id = rig.server().await;
        by_host.entry(rig.cloud.get(id).await.host).or_default().push(id);
    }
    let mut guests = by_host.into_values().find(|guests| guests.len() >= 3).expect("three on one host");
    guests.sort();
    let (gone, watched, successor) = (guests[0], guests[1], guests[2]);
    let token = rig.token(watched).await;
    let before = rig.grant(&token).await.target;
    assert!(rig.cloud.act(gone, Action::Delete).await);
    rig.cloud.settle().await;
    assert_eq!(rig.grant(&rig.token(successor).await).await.target, before, "the port is another guest's");
    assert_eq!(rig.connect(&token).await.unwrap_err(), 403, "confirmed by the host");
    let now = rig.grant(&rig.token(watched).await).await.target;
    assert_ne!(before, now);
}

#[tokio::test]
async fn other_pages_and_other_names_do_not_open_anything() {
    let rig = Rig::start().await;
    let token = rig.token(rig.server().await).await;
    let address = rig.proxies[0].address;
    let own = format!("http://{address}");
    let evil = format!("evil:{}", address.port());
    for (headers, expected) in [
        (vec![("Origin", "http://evil")], 403),
        (vec![("Origin", "null")], 403),
        (vec![("Origin", "")], 403),
        (vec![("Host", evil.as_str()), ("Origin", "http://evil")], 400),
        (vec![("Host", evil.as_str()), ("Origin", &own)], 400),
        (vec![("Sec-WebSocket-Protocol", "base64")], 400),
        (vec![("Sec-WebSocket-Version", "12")], 400),
    ] {
        let refused = connect(address, &token, &headers).await.unwrap_err();
        assert_eq!(refused.0, expected, "{headers:?}: {}", refused.1);
        assert!(!refused.1.contains(&token));
    }
    // None of these used it up; and the cookie of noVNC does as well as the address.
    let cookie = format!("token={token}");
    let (client, _) = connect(address, "", &[("Cookie", &cookie)]).await.unwrap();
    let mut browser = Browser::new(client);
    browser.begin().await;
    assert_eq!(browser.read(8).await, "screen 0");
}

/// Of a console that was given out at `https`, with everything else at `http`, as the defaults are.
#[tokio::test]
async fn a_console_opens_in_pages_of_its_own_scheme() {
    let both = |options: &mut ProxyOptions| options.schemes = ["http", "https"].map(String::from).into();
    let rig = Rig::with(both, Default::default(), 1).await;
    let id = rig.server().await;
    let address = rig.proxies[0].address;
    let (plain, secured) = (format!("http://{address}"), format!("https://{address}"));
    for (base, own, other) in [("https://c/vnc.html", &secured, &plain), ("http://c/vnc.html", &plain, &secured)] {
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let token = rig.token(id).await;
            let grant = rig.grant(&token).await;
            rig.cloud.store.drop_console_grant(&grant.token_hash).await.unwrap();
            let moved = ConsoleGrant { access_url_base: base.to_owned(), ..grant };
            rig.cloud.store.add_console_grant(moved).await.unwrap();
            tokens.push(token);
        }
        let refused = connect(address, &tokens[0], &[("Origin", other)]).await.unwrap_err();
        assert_eq!(refused.0, 403, "{}", refused.1);
        assert_eq!(connect(address, &tokens[0], &[("Origin", own)]).await.unwrap_err().0, 403, "used");
        let (client, response) = connect(address, &tokens[1], &[("Origin", own)]).await.unwrap();
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        assert_eq!(cookie.ends_with("; Secure"), base.starts_with("https"), "{cookie}");
        Browser::new(client).begin().await;
    }
}

/// Each console that a browser opened has left a cookie there, good or not.
#[tokio::test]
async fn who_has_opened_many_consoles_opens_another() {
    let rig = Rig::start().await;
    let token = rig.token(rig.server().await).await;
    let address = rig.proxies[0].address;
    let cookies: Vec<_> = (0..180).map(|n| format!("nova_console_{n:016x}={}", "c".repeat(64))).collect();
    let cookies = cookies.join("; ");
    let (client, _) = connect(address, &token, &[("Cookie", &cookies)]).await.unwrap();
    Browser::new(client).begin().await;
}

/// CVE-2021-3654, and everything else that is no page.
#[tokio::test]
async fn no_path_leads_elsewhere() {
    let rig = Rig::start().await;
    let address = rig.proxies[0].address;
    for (line, expected) in [
        ("GET //evil/%2e%2e HTTP/1.1", StatusCode::NOT_FOUND),
        ("GET //evil.example HTTP/1.1", StatusCode::NOT_FOUND),
        ("GET /../../etc/passwd HTTP/1.1", StatusCode::NOT_FOUND),
        ("GET /novnc HTTP/1.1", StatusCode::NOT_FOUND),
        ("POST /vnc_auto.html HTTP/1.1", StatusCode::METHOD_NOT_ALLOWED),
        ("OPTIONS * HTTP/1.1", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = raw(address, &format!("{line}\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {}", expected.as_u16())), "{line}: {answer}");
        assert!(!answer.to_lowercase().contains("location:") && !answer.contains("evil"), "{answer}");
        assert!(answer.contains("x-content-type-options: nosniff") && answer.contains("referrer-policy: no-referrer"));
    }
    let spoofed = raw(address, "GET /vnc.html HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n").await;
    assert!(spoofed.starts_with("HTTP/1.1 400"), "{spoofed}");
}

async fn raw(address: std::net::SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn who_guesses_waits() {
    let rig = Rig::with(|options| options.max_failures = 3, Default::default(), 1).await;
    let token = rig.token(rig.server().await).await;
    for _ in 0..3 {
        assert_eq!(rig.connect("guess").await.unwrap_err(), 403);
    }
    assert_eq!(rig.connect(&token).await.unwrap_err(), 429);
}

/// Behind what ends TLS, all come from one address.
#[tokio::test]
async fn who_guesses_waits_alone() {
    let front = |options: &mut ProxyOptions| {
        options.max_failures = 3;
        options.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    };
    let rig = Rig::with(front, Default::default(), 1).await;
    let (token, address) = (rig.token(rig.server().await).await, rig.proxies[0].address);
    // Whatever it says of itself.
    for from in ["198.51.100.1, 192.0.2.1", "198.51.100.2, 192.0.2.1", "198.51.100.3, 192.0.2.1"] {
        assert_eq!(connect(address, "guess", &[("X-Forwarded-For", from)]).await.unwrap_err().0, 403);
    }
    let guesses = [("X-Forwarded-For", "198.51.100.4, 192.0.2.1")];
    assert_eq!(connect(address, &token, &guesses).await.unwrap_err().0, 429);
    assert!(connect(address, &token, &[("X-Forwarded-For", "192.0.2.2")]).await.is_ok());
}

#[tokio::test]
async fn there_are_only_so_many() {
    let rig = Rig::with(|options| options.max_sessions = 1, Default::default(), 1).await;
    let id = rig.server().await;
    let first = rig.open(&rig.token(id).await).await;
    let token = rig.token(id).await;
    assert_eq!(rig.connect(&token).await.unwrap_err(), 503);
    drop(first);
    // The place is free once the proxy has seen that.
    let mut tries = 0;
    while rig.connect(&token).await.is_err() {
        tries += 1;
        assert!(tries < 1000);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_serial_port_is_typed_into() {
    let rig = Rig::start().await;
    let id = rig.server().await;
    let (client, _) = rig.connect(&rig.token_for(id, "serial", "serial").await).await.unwrap();
    let mut browser = Browser::new(client);
    let greeting = browser.read(5).await;
    assert!(greeting.starts_with(b"\r\n"), "{greeting:?}");
    browser.send(b"root\n").await;
    let mut said = Vec::new();
    while !said.ends_with(b"root\n") {
        said.extend_from_slice(&browser.read(1).await);
    }
    assert!(String::from_utf8_lossy(&said).contains("login: "));
    assert!(rig.cloud.act(id, Action::Stop).await);
    browser.closed().await;
    assert!(browser.client.next().await.is_none_or(|last| last.is_err()));
}
