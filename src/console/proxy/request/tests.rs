use http::HeaderValue;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn options() -> ProxyOptions {
    ProxyOptions { hosts: ["cloud", "127.0.0.1", "::1"].map(String::from).into(), ..ProxyOptions::default() }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let base = [
        ("host", "cloud:6080"),
        ("origin", "http://cloud:6080"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-protocol", "binary"),
    ];
    for (name, value) in base.iter().chain(pairs) {
        // Empty: not sent. What is said again replaces.
        headers.remove(*name);
        if !value.is_empty() {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
    }
    headers
}

fn judged(query: &str, pairs: &[(&'static str, &str)]) -> Result<Shown, Wrong> {
    judge(&Method::GET, query, &headers(pairs), &options())
}

#[test]
fn a_browser_on_our_page_is_let_through() {
    let shown = judged("token=abc", &[]).unwrap();
    assert_eq!((shown.token.as_str(), shown.resume, shown.binary), ("abc", None, true));
    assert_eq!(shown.scheme, Some("http"));
    assert!(!judged("token=abc", &[("sec-websocket-protocol", "")]).unwrap().binary);
    assert!(judged("token=abc", &[("host", "[::1]:80"), ("origin", "http://[::1]")]).is_ok());
    assert!(judged("token=abc", &[("host", "CLOUD"), ("origin", "http://Cloud:80")]).is_ok());
}

#[test]
fn pages_of_others_are_not() {
    for origin in [
        "http://evil",
        "http://evil:6080",
        "null",
        "http://cloud",
        "http://cloud:6081",
        "https://cloud:6080",
        "file://cloud:6080",
        "http://cloud:6080@evil",
        "http://evil/cloud:6080",
        "http://cloud.evil:6080",
        "http://cloud:6080/",
        "cloud:6080",
        "http://",
    ] {
        assert_eq!(judged("token=abc", &[("origin", origin)]), Err(Wrong::Origin), "{origin}");
    }
    assert_eq!(judged("token=abc", &[("origin", "")]), Err(Wrong::Origin), "not said");
    let mut twice = headers(&[]);
    twice.append("origin", HeaderValue::from_static("http://evil"));
    assert_eq!(judge(&Method::GET, "token=abc", &twice, &options()), Err(Wrong::Origin));
    let lenient = ProxyOptions { require_origin: false, ..options() };
    assert!(judge(&Method::GET, "token=abc", &headers(&[("origin", "")]), &lenient).is_ok());
    assert_eq!(judge(&Method::GET, "token=abc", &headers(&[("origin", "http://evil")]), &lenient), Err(Wrong::Origin));
}

/// The defaults of what is not set are of `http`, whatever the rest is.
#[test]
fn a_page_is_of_the_scheme_at_which_its_console_was_given_out() {
    let both = ProxyOptions { schemes: ["http", "https"].map(String::from).into(), ..options() };
    let shown = |origin: &str| judge(&Method::GET, "token=abc", &headers(&[("origin", origin)]), &both).unwrap();
    let (plain, secured) = (shown("http://cloud:6080"), shown("https://cloud:6080"));
    for (base, secure) in
        [("https://cloud/vnc.html", true), ("wss://cloud/", true), ("ws://cloud:6080/", false), ("", false)]
    {
        assert_eq!((plain.fits(base), secured.fits(base)), (!secure, secure), "{base}");
    }
    let options = ProxyOptions { allowed_origins: vec!["cloud".to_owned()], require_origin: false, ..both };
    for origin in ["https://cloud:99", ""] {
        let other = judge(&Method::GET, "token=abc", &headers(&[("origin", origin)]), &options).unwrap();
        assert!(other.fits("https://cloud/") && other.fits("http://cloud/"), "{origin}");
    }
}

#[test]
fn operators_allow_hosts_or_whole_origins() {
    let allowed = ["dashboard".to_owned(), "https://other:8443".to_owned()].into();
    let options = ProxyOptions { allowed_origins: allowed, ..options() };
    for (origin, fits) in [
        ("https://dashboard", true),
        ("http://dashboard:99", true),
        ("https://other:8443", true),
        ("https://other", false),
        ("ftp://dashboard", false),
    ] {
        let judged = judge(&Method::GET, "token=abc", &headers(&[("origin", origin)]), &options);
        assert_eq!(judged.is_ok(), fits, "{origin}");
    }
}

#[test]
fn a_host_that_is_not_ours_is_refused_even_if_the_origin_agrees() {
    for host in ["evil", "evil:6080", "cloud:6080:1", "cloud@evil", "cloud:x", "[cloud]", "", "127.0.0.1.evil"] {
        let origin = format!("http://{host}");
        let judged = judged("token=abc", &[("host", host), ("origin", &origin)]);
        assert_eq!(judged, Err(Wrong::Host), "{host}");
    }
    let mut twice = headers(&[]);
    twice.append("host", HeaderValue::from_static("cloud:6080"));
    assert_eq!(judge(&Method::GET, "token=abc", &twice, &options()), Err(Wrong::Host));
}

#[test]
fn tokens_come_from_the_address_or_the_cookie() {
    let cookie = |text: &str| judged("", &[("cookie", text)]).map(|shown| shown.token);
    assert_eq!(cookie("a=b; token=\"xyz\"; c=d"), Ok("xyz".into()));
    assert_eq!(judged("token=abc", &[("cookie", "token=xyz")]).unwrap().token, "abc");
    assert_eq!(judged("token=", &[("cookie", "token=xyz")]).unwrap().token, "xyz");
    assert_eq!(judged("token=a%2Db", &[]).unwrap().token, "a-b");
    for none in ["", "token=", "Token=abc", "token=a&token=b", "token=a%0d%0ab"] {
        assert_eq!(judged(none, &[]), Err(Wrong::Token), "{none}");
    }
    assert_eq!(judged(&format!("token={}", "x".repeat(129)), &[]), Err(Wrong::Token));
    assert_eq!(cookie("token=a; token=b"), Err(Wrong::Token));
}

#[test]
fn a_session_is_gone_on_with_by_the_cookie_of_its_own_token() {
    let (own, other) = (resume_cookie("abc"), resume_cookie("abd"));
    assert_ne!(own, other);
    let shown = judged("token=abc", &[("cookie", &format!("{own}=next; {other}=others"))]).unwrap();
    assert_eq!(shown.resume.as_deref(), Some("next"));
    assert!(!format!("{shown:?}").contains("abc") && !format!("{shown:?}").contains("next"));
    assert_eq!(judged("token=abc", &[("cookie", &format!("{other}=others"))]).unwrap().resume, None);
}

#[test]
fn other_handshakes_are_refused() {
    for (name, value) in [
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "short"),
        ("sec-websocket-key", ""),
        ("connection", "close"),
    ] {
        assert_eq!(judged("token=abc", &[(name, value)]), Err(Wrong::NoWebsocket), "{name}: {value}");
    }
    assert_eq!(judge(&Method::POST, "token=abc", &headers(&[]), &options()), Err(Wrong::NoWebsocket));
    assert_eq!(judged("token=abc", &[("sec-websocket-protocol", "base64")]), Err(Wrong::Subprotocol));
    assert!(judged("token=abc", &[("sec-websocket-protocol", "base64, binary")]).is_ok());
}

/// Whatever comes from outside is judged, and what is not quite right is refused.
#[test]
fn changed_requests_do_no_harm() {
    use nova_core::entropy::{Entropy, SeededEntropy};
    let dice = SeededEntropy::new(20);
    let known = options();
    let names = ["host", "origin", "cookie", "connection", "sec-websocket-key", "sec-websocket-protocol"];
    for _ in 0..20_000 {
        let mut sent = headers(&[("cookie", "token=xyz")]);
        let name = names[dice.below(names.len() as u64) as usize];
        let mut bytes = sent[name].as_bytes().to_vec();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] = 32 + dice.below(95) as u8;
        }
        sent.insert(name, HeaderValue::from_bytes(&bytes).unwrap());
        let judged = judge(&Method::GET, "token=abc", &sent, &known);
        if name == "host" || name == "origin" {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            let same =
                text == "cloud:6080" || text == "http://cloud:6080" || text.trim_start_matches('0') == "cloud:6080";
            assert!(judged.is_err() || same || text.contains(":06080"), "{name}: {text}");
        }
    }
}
