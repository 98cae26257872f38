//! nova-consoleauth: what tokens of consoles are worth, and which sessions have to end.
//!
//! Nothing is kept between two messages, so any number of these services run side by side, and any of them answers for any
//! proxy. A session rests on the server as the store has it (there, on its host, running) and on the role that its user has
//! on the project in which it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::console::{ConsoleGrant, ConsoleSession, ResumedSession, SessionEnd, session_end};
use nova_core::context::RequestContext;
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::{ConsoleGrantId, InstanceId, ProjectId, RequestId, UserId};
use nova_core::instance::Instance;
use nova_core::rpc::compute::{ConfirmConsole, ConfirmConsoleRequest, ConfirmedConsole};
use nova_core::rpc::consoleauth::{
    CheckSessions, CheckSessionsReply, CheckSessionsRequest, ConfirmSession, EndSession, EndSessionRequest,
    OpenConsole, OpenConsoleRequest, Ping, SessionClaim,
};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_db::{Deleted, InstanceQuery, Store, StoreError};
use nova_queue::{BusError, Dispatcher, HandlerError, RpcClient, RunningService, Subscription};
use tokio_util::sync::CancellationToken;

use super::AuthOptions;
use crate::api::policy;

/// Who asks for a console needs this; who looks at one, too.
const RULE: &str = "os_compute_api:os-remote-consoles";
/// Servers that are asked for at once.
const BATCH: usize = 200;
/// A user waits no longer for a host to confirm.
const HOST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often grants that are over are removed.
const CLEANING: Duration = Duration::from_secs(60);
/// Where sessions are not gone on with, a session's channels are opened in this time.
const CHANNELS: Duration = Duration::from_secs(60);
/// What somebody is told whose token is worth nothing; why is not told.
const WORTHLESS: &str = "This address is not good, or not any more: ask for a new one.";

/// Who may do what now, for sessions that outlast the token that they began with.
#[async_trait]
pub trait Access: Send + Sync {
    /// For each user and project, the names of the roles that the user has there, implied ones included. None for one who
    /// could not have a token for the project.
    async fn roles_of(&self, who: &[(UserId, ProjectId)]) -> Result<Vec<Vec<String>>, BoxError>;
}

/// What the service is built from.
pub struct AuthParts {
    /// Grants, servers.
    pub store: Arc<dyn Store>,
    /// Roles.
    pub access: Arc<dyn Access>,
    /// Its way onto the bus.
    pub rpc: RpcClient,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub options: AuthOptions,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct ConsoleAuth {
    parts: Arc<AuthParts>,
}

impl ConsoleAuth {
    /// A service that does nothing yet.
    pub fn new(parts: AuthParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Listens on the bus, and removes grants that are over.
    ///
    /// # Errors
    /// The bus can't be used.
    pub async fn start(self) -> Result<RunningService, BusError> {
        let subscription = Subscription::shared("consoleauth");
        let serving = self.parts.rpc.bus().serve(subscription, Arc::new(self.dispatcher())).await?;
        let running = RunningService::new(serving, &CancellationToken::new());
        Ok(running.with(|stop| async move { self.clean_until(stop).await }))
    }

    fn dispatcher(&self) -> Dispatcher {
        let [a, b, c, d] = std::array::from_fn(|_| self.clone());
        Dispatcher::new("consoleauth")
            .method::<OpenConsole, _, _>(move |_, request| {
                let service = a.clone();
                async move { service.open(request).await }
            })
            .method::<ConfirmSession, _, _>(move |_, session| {
                let service = b.clone();
                async move { service.confirm(session).await }
            })
            .method::<CheckSessions, _, _>(move |_, request| {
                let service = c.clone();
                async move { service.check(&request).await }
            })
            .method::<EndSession, _, _>(move |_, request| {
                let service = d.clone();
                async move { service.end(request).await }
            })
            .method::<Ping, _, _>(|_, ()| async { Ok(()) })
    }

    /// Uses a grant. It is used up whatever comes out: a token that was shown once is known to whoever saw it. The same
    /// message again is answered as before.
    async fn open(&self, request: OpenConsoleRequest) -> Result<ConsoleSession, HandlerError> {
        let parts = &self.parts;
        let now = parts.clock.now();
        let grant = match self.grant(&request.token_hash, now).await {
            Ok(grant) => grant,
            Err(StoreError::NotFound { .. }) => return self.open_again(&request, now).await,
            Err(error) => return Err(unavailable(&error)),
        };
        self.may_open(&grant, &request).await?;
        let session = session_of(&grant, &request, until(now, parts.options.max_session));
        let channels = grant.console_type.has_channels();
        if grant.resumes.is_some() && channels {
            self.renew(grant, &session, now).await?;
            tracing::debug!(instance = %session.instance_id, session = %session.id, "a channel of a console is opened");
            return Ok(session);
        }
        if let Some(next_hash) = request.next_hash.filter(|_| parts.options.resume || channels) {
            let lasts = if parts.options.resume { session.until } else { session.until.min(until(now, CHANNELS)) };
            let next = ConsoleGrant {
                id: ConsoleGrantId::generate(&*parts.entropy),
                token_hash: next_hash,
                resumes: Some(ResumedSession { id: session.id, until: session.until }),
                created_at: now,
                expires_at: lasts,
                ..grant
            };
            self.add(next).await?;
        }
        tracing::info!(instance = %session.instance_id, session = %session.id, user = %session.user_id,
            kind = %session.console_type, "a console is opened");
        Ok(session)
    }

    /// Where the same message has been here before, it is there.
    async fn add(&self, grant: ConsoleGrant) -> Result<(), HandlerError> {
        match self.parts.store.add_console_grant(grant).await {
            Ok(()) | Err(StoreError::Duplicate { .. }) => Ok(()),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// What was to last for a while only, since a connection of the session was lost, lasts as long as that again: its
    /// client is back.
    async fn renew(&self, grant: ConsoleGrant, session: &ConsoleSession, now: Timestamp) -> Result<(), HandlerError> {
        if !self.parts.options.resume || grant.expires_at >= session.until {
            return Ok(());
        }
        match self.parts.store.take_console_grant(&grant.token_hash, now).await {
            Ok(grant) => self.add(ConsoleGrant { expires_at: session.until, ..grant }).await,
            // Another channel did it, in this moment.
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The token is used up. If this message did that, and only its answer was lost, what came of it is still there: under
    /// a hash that only its sender knows.
    async fn open_again(&self, request: &OpenConsoleRequest, now: Timestamp) -> Result<ConsoleSession, HandlerError> {
        let worthless = || Err(Refusal::new(RefusalKind::NotFound, WORTHLESS).into());
        let Some(next_hash) = &request.next_hash else { return worthless() };
        let grant = match self.parts.store.get_console_grant(next_hash, now).await {
            Ok(grant) => grant,
            Err(StoreError::NotFound { .. }) => return worthless(),
            Err(error) => return Err(unavailable(&error)),
        };
        let Some(resumed) = grant.resumes else { return worthless() };
        self.may_open(&grant, request).await?;
        tracing::info!(instance = %grant.instance_id, session = %resumed.id, "a console is opened: told once more");
        Ok(session_of(&grant, request, resumed.until))
    }

    /// Does the server still have that console, and its user the right to see it?
    async fn may_open(&self, grant: &ConsoleGrant, request: &OpenConsoleRequest) -> Result<(), HandlerError> {
        let instance = self.instance(grant.instance_id).await?;
        let claim = claim_of(grant, request);
        let end = self.ends(&[claim], &instance.iter().map(|one| (one.id, one)).collect()).await?;
        let changed = grant.resumes.is_none() && instance.is_some_and(|one| one.epoch != grant.epoch);
        match end.first().map(|(_, end)| *end).or(changed.then_some(SessionEnd::Changed)) {
            None => Ok(()),
            Some(end) => {
                tracing::info!(instance = %grant.instance_id, grant = %grant.id, ?end, "a console was not opened");
                Err(Refusal::new(RefusalKind::Forbidden, end.message()).into())
            }
        }
    }

    async fn grant(&self, token_hash: &str, now: Timestamp) -> Result<ConsoleGrant, StoreError> {
        let store = &self.parts.store;
        let grant = store.get_console_grant(token_hash, now).await?;
        let lasts = match grant.resumes {
            Some(_) => grant.console_type.has_channels(),
            None => !self.parts.options.single_use,
        };
        if lasts { Ok(grant) } else { store.take_console_grant(token_hash, now).await }
    }

    /// Asks the host. The server is looked at again: the host's answer must not be newer than what is known of it.
    async fn confirm(&self, session: ConsoleSession) -> Result<ConfirmedConsole, HandlerError> {
        let request = ConfirmConsoleRequest {
            instance_id: session.instance_id,
            console_type: session.console_type,
            target: session.target.clone(),
        };
        let asking = self.parts.rpc.clone().with_call_timeout(HOST_TIMEOUT);
        let confirmed = asking.call_to::<ConfirmConsole>(&session.host, &self.context(), &request).await;
        let confirmed = confirmed.map_err(|error| {
            tracing::info!(instance = %session.instance_id, host = %session.host, "a host did not confirm a console: {}",
                chain(&error));
            match error.refusal() {
                Some(_) => Refusal::new(RefusalKind::NotFound, "The console is not served there any more."),
                None => Refusal::new(RefusalKind::Unavailable, "The server's host does not answer."),
            }
        })?;
        let ended = self.check(&CheckSessionsRequest { sessions: vec![SessionClaim::from(&session)] }).await?;
        match ended.ended.first() {
            Some((_, end)) => Err(Refusal::new(RefusalKind::Forbidden, end.message()).into()),
            None => Ok(confirmed),
        }
    }

    async fn check(&self, request: &CheckSessionsRequest) -> Result<CheckSessionsReply, HandlerError> {
        let ids: BTreeSet<InstanceId> = request.sessions.iter().map(|session| session.instance_id).collect();
        let ids: Vec<InstanceId> = ids.into_iter().collect();
        let mut instances = Vec::new();
        for ids in ids.chunks(BATCH) {
            let query = InstanceQuery { ids: Some(ids.to_vec()), deleted: Deleted::Any, ..InstanceQuery::default() };
            let found = self.parts.store.list_instances(&query).await;
            instances.extend(found.map_err(|error| unavailable(&error))?);
        }
        let instances = instances.iter().map(|instance| (instance.id, instance)).collect();
        Ok(CheckSessionsReply { ended: self.ends(&request.sessions, &instances).await? })
    }

    /// Which of these end, and why: the server's state first, then the user's role.
    async fn ends(
        &self,
        sessions: &[SessionClaim],
        instances: &BTreeMap<InstanceId, &Instance>,
    ) -> Result<Vec<(nova_core::ids::ConsoleSessionId, SessionEnd)>, HandlerError> {
        let who: BTreeSet<_> = sessions.iter().map(|one| (one.user_id.clone(), one.project_id.clone())).collect();
        let who: Vec<_> = who.into_iter().collect();
        let roles = self.parts.access.roles_of(&who).await.map_err(|error| unavailable(&*error))?;
        let roles: BTreeMap<_, _> = who.into_iter().zip(roles).collect();
        let none = Vec::new();
        let end = |session: &SessionClaim| {
            let Some(instance) = instances.get(&session.instance_id) else { return Some(SessionEnd::Deleted) };
            let key = (session.user_id.clone(), session.project_id.clone());
            let context = RequestContext {
                user_id: session.user_id.clone(),
                project_id: session.project_id.clone(),
                roles: roles.get(&key).unwrap_or(&none).clone(),
                ..self.context()
            };
            let owner = policy::Target { project_id: Some(&instance.project_id), user_id: Some(&instance.user_id) };
            let revoked = (!policy::allows(RULE, &context, owner)).then_some(SessionEnd::Revoked);
            session_end(instance, &session.host).or(revoked)
        };
        Ok(sessions.iter().filter_map(|session| Some((session.id, end(session)?))).collect())
    }

    async fn end(&self, request: EndSessionRequest) -> Result<(), HandlerError> {
        let (store, now) = (&self.parts.store, self.parts.clock.now());
        let grant = match store.take_console_grant(&request.next_hash, now).await {
            Ok(grant) => grant,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(unavailable(&error)),
        };
        if request.keep.is_zero() || grant.resumes.is_none() {
            return Ok(());
        }
        let expires_at = grant.expires_at.min(until(now, request.keep));
        let token_hash = request.back.unwrap_or_else(|| grant.token_hash.clone());
        self.add(ConsoleGrant { token_hash, expires_at, ..grant }).await
    }

    async fn instance(&self, id: InstanceId) -> Result<Option<Instance>, HandlerError> {
        match self.parts.store.get_instance(id).await {
            Ok(instance) => Ok(Some(instance)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn clean_until(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(CLEANING) => {}
            }
            match self.parts.store.drop_expired_console_grants(self.parts.clock.now()).await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "grants of consoles that were over are removed"),
                Err(error) => tracing::warn!("grants of consoles that are over stay: {}", chain(&error)),
            }
        }
    }

    fn context(&self) -> RequestContext {
        RequestContext::internal(RequestId::generate(&*self.parts.entropy))
    }
}

fn claim_of(grant: &ConsoleGrant, request: &OpenConsoleRequest) -> SessionClaim {
    SessionClaim {
        id: request.session_id,
        instance_id: grant.instance_id,
        host: grant.host.clone(),
        user_id: grant.user_id.clone(),
        project_id: grant.project_id.clone(),
    }
}

/// One that goes on ends no later for it.
fn session_of(grant: &ConsoleGrant, request: &OpenConsoleRequest, until: Timestamp) -> ConsoleSession {
    ConsoleSession {
        id: grant.resumes.map_or(request.session_id, |resumed| resumed.id),
        console_type: grant.console_type,
        instance_id: grant.instance_id,
        host: grant.host.clone(),
        user_id: grant.user_id.clone(),
        project_id: grant.project_id.clone(),
        target: grant.target.clone(),
        access_url_base: grant.access_url_base.clone(),
        until: grant.resumes.map_or(until, |resumed| resumed.until),
    }
}

fn until(now: Timestamp, max_session: Duration) -> Timestamp {
    let longest = SignedDuration::try_from(max_session).unwrap_or(SignedDuration::MAX);
    now.saturating_add(longest).unwrap_or(Timestamp::MAX)
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> HandlerError {
    tracing::warn!("consoles cannot be checked now: {}", chain(error));
    Refusal::new(RefusalKind::Unavailable, "Consoles cannot be checked now; try again.").into()
}

impl std::fmt::Debug for ConsoleAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleAuth").field("options", &self.parts.options).finish_non_exhaustive()
    }
}
