//! Wrong input over real connections: the right 4xx in Nova's shape, never a 5xx, and nothing written.

use std::io::Write;
use std::net::TcpStream;

use nova_examples::client::Answer;
use serde_json::json;

use crate::support::{Cloud, Project, parsed, raw, read_answer};

/// One cloud for all requests of a test: what one leaves behind, the next meets.
struct Target {
    cloud: Cloud,
    project: Project,
}

impl Target {
    fn new() -> Self {
        let cloud = Cloud::started("");
        let project = cloud.project();
        Self { cloud, project }
    }

    /// A POST of a server with these headers and this body.
    fn post(&self, headers: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "POST /compute/v2.1/servers HTTP/1.1\r\nHost: nova\r\nX-Auth-Token: {}\r\nConnection: close\r\n{headers}\r\n",
            self.project.demo.token()
        )
        .into_bytes();
        request.extend_from_slice(body);
        parsed(&raw(self.cloud.port, &request))
    }

    fn post_json(&self, body: &str) -> Answer {
        self.post(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()), body.as_bytes())
    }

    /// It still works, and there are no servers.
    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(self.project.servers(), Vec::<serde_json::Value>::new(), "something was written");
        let log = self.cloud.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Status, the word for it, and a message.
#[track_caller]
fn assert_fault(answer: &Answer, status: u16, word: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body[word]["code"], status, "{body}");
    assert!(!body[word]["message"].as_str().unwrap_or_default().is_empty(), "{body}");
    let id = answer.headers.get("x-openstack-request-id").map(String::as_str).unwrap_or_default();
    assert!(id.starts_with("req-"), "no request id: {answer:?}");
}

#[test]
fn malformed_bodies_are_400() {
    let target = Target::new();
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let many =
        format!(r#"{{"server": {{{}}}}}"#, (0..5000).map(|n| format!(r#""k{n}":1"#)).collect::<Vec<_>>().join(","));
    let bodies = [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        "42",
        "\"server\"",
        "{}",
        r#"{"server": null}"#,
        r#"{"server": []}"#,
        r#"{"server": {"name": 7}}"#,
        r#"{"server": {"name": ""}}"#,
        r#"{"other": {}}"#,
        r#"{"server": {"name": "x", "imageRef": 1, "flavorRef": true}}"#,
        "{\"server\": {\"name\": \"\u{0}\"}}",
        r#"{"server": {"name": "\ud800"}}"#,
        &deep,
        &many,
    ];
    for body in bodies {
        let shown: String = body.chars().take(60).collect();
        println!("{shown}");
        assert_fault(&target.post_json(body), 400, "badRequest");
    }
    assert_fault(&target.post("Content-Length: 4\r\n", b"\xff\xfe\x00{"), 400, "badRequest");
    target.assert_untouched();
}

#[test]
fn values_of_a_wrong_kind_are_400_and_unknown_ids_too() {
    let target = Target::new();
    let good = target.project.request("x");
    let wrong = [
        ("name", json!("x".repeat(256))),
        ("name", json!(" ")),
        ("name", json!({"a": 1})),
        ("flavorRef", json!("no-such-flavor")),
        ("imageRef", json!("7f0a6cde-0000-4000-8000-000000000000")),
        ("imageRef", json!("../../etc/passwd")),
        ("metadata", json!(["a"])),
        ("metadata", json!({"k": "v".repeat(256)})),
        ("min_count", json!(0)),
        ("min_count", json!(-1)),
        ("max_count", json!("many")),
        ("user_data", json!("not base64!")),
        ("config_drive", json!("perhaps")),
        ("key_name", json!("no-such-key")),
        ("unknown", json!(1)),
        ("availability_zone", json!(7)),
    ];
    for (field, value) in wrong {
        let mut body = good.clone();
        body["server"][field] = value;
        println!("{field}: {}", &body["server"][field].to_string().chars().take(60).collect::<String>());
        let answer = target.project.demo.compute("POST", "/servers", Some(&body)).unwrap();
        assert_fault(&answer, 400, "badRequest");
    }
    target.assert_untouched();
}

#[test]
fn a_body_of_another_type_is_415() {
    let target = Target::new();
    let body = target.project.request("x").to_string();
    for kind in ["text/plain", "application/xml", "multipart/form-data; boundary=x"] {
        let headers = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        assert_fault(&target.post(&headers, body.as_bytes()), 415, "badMediaType");
    }
    target.assert_untouched();
}

#[test]
fn bodies_that_are_too_long_are_413() {
    let target = Target::new();
    // Refused by what is announced, without waiting for it.
    let announced = target.post("Content-Type: application/json\r\nContent-Length: 10000000000\r\n", b"{");
    assert_fault(&announced, 413, "overLimit");
    // And by what comes, where nothing is announced.
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let chunked = format!("{}0\r\n\r\n", chunk.repeat(4));
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    assert_fault(&target.post(headers, chunked.as_bytes()), 413, "overLimit");
    target.assert_untouched();
}

#[test]
fn abuse_of_the_protocol_is_refused() {
    let target = Target::new();
    let token = target.project.demo.token();
    let line = "POST /compute/v2.1/servers HTTP/1.1\r\nHost: nova\r\n";
    let requests = [
        ("no HTTP", "\u{16}\u{3}\u{1}hello\r\n\r\n".to_owned()),
        (
            "a chunk without a size",
            format!("{line}X-Auth-Token: {token}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{{}}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk size without end",
            format!("{line}X-Auth-Token: {token}\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n", "f".repeat(40)),
        ),
        ("two lengths", format!("{line}X-Auth-Token: {token}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}")),
        ("a length that is no number", format!("{line}X-Auth-Token: {token}\r\nContent-Length: -1\r\n\r\n{{}}")),
        ("a control character in a header", format!("{line}X-Auth-Token: a\u{1}b\r\n\r\n")),
        ("a thousand headers", format!("{line}{}\r\n", "X-More: 1\r\n".repeat(1000))),
        ("a header of a megabyte", format!("{line}X-Long: {}\r\n\r\n", "a".repeat(1 << 20))),
        ("a path of a megabyte", format!("GET /compute/v2.1/{} HTTP/1.1\r\nHost: nova\r\n\r\n", "a".repeat(1 << 20))),
    ];
    for (what, request) in requests {
        let text = raw(target.cloud.port, request.as_bytes());
        let status = parsed(&text).status;
        // Without an answer the connection was closed: what the other side sent was not read to its end.
        assert!(text.is_empty() || (400..500).contains(&status), "{what}: {text}");
        println!("{what}: {status}");
    }
    target.assert_untouched();
}

#[test]
fn a_client_that_breaks_off_leaves_nothing() {
    let target = Target::new();
    let body = target.project.request("x").to_string();
    let head = format!(
        "POST /compute/v2.1/servers HTTP/1.1\r\nHost: nova\r\nX-Auth-Token: {}\r\nContent-Length: {}\r\n\r\n",
        target.project.demo.token(),
        body.len() + 10
    );
    for cut in [head.len() / 2, head.len(), head.len() + body.len()] {
        let whole = format!("{head}{body}");
        let mut stream = TcpStream::connect(("127.0.0.1", target.cloud.port)).unwrap();
        stream.write_all(&whole.as_bytes()[..cut]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let status = parsed(&read_answer(&mut stream)).status;
        assert!(status == 0 || (400..500).contains(&status), "cut at {cut}: {status}");
    }
    target.assert_untouched();
}

#[test]
fn tokens_that_are_none_are_401() {
    let target = Target::new();
    let real = target.project.demo.token().to_owned();
    // The last characters of base64 may stand for nothing: change one in the middle.
    let changed = |at: usize| {
        let mut bytes = real.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let forged = [
        None,
        Some(String::new()),
        Some("x".into()),
        Some("gAAAAABother".into()),
        Some(changed(real.len() / 2)),
        Some(changed(real.len() / 4)),
        Some(real[..real.len() / 2].to_owned()),
        Some(format!("{real}{real}")),
        Some("a".repeat(7000)),
    ];
    for token in &forged {
        let header = token.as_ref().map(|t| format!("X-Auth-Token: {t}\r\n")).unwrap_or_default();
        for (method, path) in
            [("GET", "/servers"), ("POST", "/servers"), ("DELETE", "/servers/x"), ("GET", "/os-services")]
        {
            // Claims about oneself are not worth anything.
            let claims = "X-User-Id: admin\r\nX-Roles: admin\r\nX_Roles: admin\r\nx-project-id: admin\r\nX-Identity-Status: Confirmed\r\n";
            let request = format!(
                "{method} /compute/v2.1{path} HTTP/1.1\r\nHost: nova\r\n{header}{claims}Connection: close\r\n\r\n"
            );
            let answer = parsed(&raw(target.cloud.port, request.as_bytes()));
            assert_fault(&answer, 401, "unauthorized");
        }
    }
    target.assert_untouched();
}

#[test]
fn claims_do_not_add_to_a_real_token() {
    let target = Target::new();
    let request = format!(
        "GET /compute/v2.1/os-services HTTP/1.1\r\nHost: nova\r\nX-Auth-Token: {}\r\nX-Roles: admin\r\nx_roles: admin\r\n\
         X-Is-Admin-Project: True\r\nConnection: close\r\n\r\n",
        target.project.demo.token()
    );
    assert_fault(&parsed(&raw(target.cloud.port, request.as_bytes())), 403, "forbidden");
}

#[test]
fn unknown_things_are_404_and_versions_out_of_range_406() {
    let target = Target::new();
    let get = |path: &str, version: &str| {
        let request = format!(
            "GET /compute/v2.1{path} HTTP/1.1\r\nHost: nova\r\nX-Auth-Token: {}\r\n{version}Connection: close\r\n\r\n",
            target.project.demo.token()
        );
        parsed(&raw(target.cloud.port, request.as_bytes()))
    };
    for path in
        ["/servers/7f0a6cde-0000-4000-8000-000000000000", "/servers/x%2Fy", "/servers/%00", "/no-such", "/flavors/77"]
    {
        assert_fault(&get(path, ""), 404, "itemNotFound");
    }
    for path in ["/servers?limit=x", "/servers?limit=-1", "/servers?marker=nobody"] {
        assert_fault(&get(path, ""), 400, "badRequest");
    }
    assert_eq!(get("/servers", "X-OpenStack-Nova-API-Version: 2.999\r\n").status, 406);
    assert_eq!(get("/servers", "X-OpenStack-Nova-API-Version: two\r\n").status, 400);
}
