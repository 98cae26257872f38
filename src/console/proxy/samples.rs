//! What a proxy stands between, for tests, benchmarks and fuzzing: an authority that lets in whoever has the token, and what a
//! browser asks to open a console.

use std::net::SocketAddr;

use async_trait::async_trait;
use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::console::{ConsoleSession, ConsoleTarget, ConsoleType, SessionEnd, token_hash};
use nova_core::entropy::SeededEntropy;
use nova_core::ids::{ConsoleSessionId, HostName, InstanceId, ProjectId, UserId};
use nova_core::rpc::compute::ConfirmedConsole;
use nova_core::rpc::consoleauth::{EndSessionRequest, OpenConsoleRequest, SessionClaim};

use super::{Authority, AuthorityError};

/// It is always the same moment: the beginning of Unix time.
#[derive(Debug, Clone, Copy)]
pub struct Always;

impl Clock for Always {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

/// Lets in whoever has the token, as often as they like, to one console; sessions have no end.
#[derive(Debug, Clone)]
pub struct Doorman {
    /// `None`: any will do.
    pub token: Option<&'static str>,
    /// What kind of console it is.
    pub console_type: ConsoleType,
    /// Where it is served.
    pub target: ConsoleTarget,
}

impl Doorman {
    /// To a screen over RFB at this port of loopback; any token will do.
    pub fn of_screen(port: u16) -> Self {
        let target = ConsoleTarget { host: "127.0.0.1".to_owned(), port, tls_port: None };
        Self { token: None, console_type: ConsoleType::Novnc, target }
    }
}

#[async_trait]
impl Authority for Doorman {
    async fn open(&self, request: OpenConsoleRequest) -> Result<ConsoleSession, AuthorityError> {
        if self.token.is_some_and(|token| token_hash(token) != request.token_hash) {
            return Err(AuthorityError::Worthless("no such token".to_owned()));
        }
        Ok(ConsoleSession {
            id: request.session_id,
            console_type: self.console_type,
            instance_id: InstanceId::generate(&SeededEntropy::new(1)),
            host: HostName::new("h1"),
            user_id: UserId::new("user"),
            project_id: ProjectId::new("project"),
            target: self.target.clone(),
            access_url_base: String::new(),
            until: Timestamp::MAX,
        })
    }

    async fn confirm(&self, _: &ConsoleSession) -> Result<ConfirmedConsole, AuthorityError> {
        Ok(ConfirmedConsole::default())
    }

    async fn check(&self, _: Vec<SessionClaim>) -> Result<Vec<(ConsoleSessionId, SessionEnd)>, AuthorityError> {
        Ok(Vec::new())
    }

    async fn end(&self, _: EndSessionRequest) -> Result<(), AuthorityError> {
        Ok(())
    }
}

/// What a browser asks of the proxy at that address, from a page of its own.
///
/// # Errors
/// A token that can be in no address.
pub fn opening(address: SocketAddr, token: &str) -> Result<http::Request<()>, http::Error> {
    http::Request::builder()
        .uri(format!("ws://{address}/websockify?token={token}"))
        .header("Host", address.to_string())
        .header("Origin", format!("http://{address}"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
}
