//! Who says what a token is worth: nova-consoleauth, over the bus.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::console::{ConsoleSession, SessionEnd};
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::ids::{ConsoleSessionId, RequestId};
use nova_core::rpc::RefusalKind;
use nova_core::rpc::compute::ConfirmedConsole;
use nova_core::rpc::consoleauth::{
    CheckSessions, CheckSessionsRequest, ConfirmSession, EndSession, EndSessionRequest, OpenConsole,
    OpenConsoleRequest, SessionClaim,
};
use nova_queue::{BusError, RpcClient};

/// A browser waits no longer for a word.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Looking at sessions has to be done before it is due again some times.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a console is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// There is no such token, or not any more.
    #[error("{0}")]
    Worthless(String),
    /// The server or the user may not have it any more.
    #[error("{0}")]
    Refused(String),
    /// Nobody who could say so answers.
    #[error("nobody can say what the token is worth")]
    Unavailable(#[source] BoxError),
}

/// What a proxy has to ask.
#[async_trait]
pub trait Authority: Send + Sync {
    /// Uses a token.
    async fn open(&self, request: OpenConsoleRequest) -> Result<ConsoleSession, AuthorityError>;

    /// Is what was connected to the server's console?
    async fn confirm(&self, session: &ConsoleSession) -> Result<ConfirmedConsole, AuthorityError>;

    /// Which of these sessions have to end?
    async fn check(&self, sessions: Vec<SessionClaim>) -> Result<Vec<(ConsoleSessionId, SessionEnd)>, AuthorityError>;

    /// The session is over here: its client may go on with it for a while, or not.
    async fn end(&self, request: EndSessionRequest) -> Result<(), AuthorityError>;
}

/// nova-consoleauth.
pub struct BusAuthority {
    rpc: RpcClient,
    entropy: Arc<dyn Entropy>,
}

impl BusAuthority {
    /// Asks as that client.
    pub fn new(rpc: RpcClient, entropy: Arc<dyn Entropy>) -> Self {
        Self { rpc, entropy }
    }

    fn context(&self) -> RequestContext {
        RequestContext::internal(RequestId::generate(&*self.entropy))
    }

    fn asking(&self, timeout: Duration) -> RpcClient {
        self.rpc.clone().with_call_timeout(timeout)
    }
}

fn failed(error: BusError) -> AuthorityError {
    match error.refusal().map(|refusal| (refusal.kind, refusal.message.clone())) {
        Some((RefusalKind::NotFound, text)) => AuthorityError::Worthless(text),
        Some((RefusalKind::Forbidden, text)) => AuthorityError::Refused(text),
        _ => AuthorityError::Unavailable(Box::new(error)),
    }
}

#[async_trait]
impl Authority for BusAuthority {
    async fn open(&self, request: OpenConsoleRequest) -> Result<ConsoleSession, AuthorityError> {
        self.asking(OPEN_TIMEOUT).call::<OpenConsole>(&self.context(), &request).await.map_err(failed)
    }

    async fn confirm(&self, session: &ConsoleSession) -> Result<ConfirmedConsole, AuthorityError> {
        self.asking(OPEN_TIMEOUT).call::<ConfirmSession>(&self.context(), session).await.map_err(failed)
    }

    async fn check(&self, sessions: Vec<SessionClaim>) -> Result<Vec<(ConsoleSessionId, SessionEnd)>, AuthorityError> {
        let request = CheckSessionsRequest { sessions };
        let reply = self.asking(CHECK_TIMEOUT).call::<CheckSessions>(&self.context(), &request).await;
        reply.map(|reply| reply.ended).map_err(failed)
    }

    async fn end(&self, request: EndSessionRequest) -> Result<(), AuthorityError> {
        self.asking(CHECK_TIMEOUT).call::<EndSession>(&self.context(), &request).await.map_err(failed)
    }
}
