//! The heart of identity: the picture of the store in memory, what tokens are worth, and changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use nova_core::clock::Clock;
use nova_core::contracts::{BoxError, IdentityError, IdentityService, TokenInfo};
use nova_core::entropy::Entropy;
use nova_core::identity::User;
use nova_core::ids::{ProjectId, UserId};
use nova_db::{IdentityStore, StoreError};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::directory::{Directory, Rejected};
use super::password::{Password, PasswordError, Passwords};
use super::token::{Claims, TokenCode};
use super::{Catalog, IdentityOptions};
use crate::api::ApiError;
use crate::console::Access;

/// How far clocks of two API processes may be apart before a token of one can seem unknown to the other.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// Under this name the key that signs tokens is in the store.
const TOKEN_KEY: &str = "identity/token-key/1";

/// Why identity cannot do what its own process asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The store said no, or nothing.
    #[error("identity's store failed")]
    Store(#[source] StoreError),
    /// A password could not be hashed.
    #[error("identity cannot hash passwords")]
    Password(#[source] PasswordError),
    /// No token can be made for that user and project.
    #[error("user {user} has no role on project {project}")]
    NoRole {
        /// The user.
        user: String,
        /// The project.
        project: String,
    },
}

impl From<StoreError> for ManagerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PasswordError> for ManagerError {
    fn from(error: PasswordError) -> Self {
        Self::Password(error)
    }
}

impl From<ManagerError> for ApiError {
    fn from(error: ManagerError) -> Self {
        match error {
            ManagerError::Store(error) => error.into(),
            ManagerError::Password(error) => error.into(),
            ManagerError::NoRole { .. } => Self::Unauthorized,
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Unavailable { retry_after: 1 },
            PasswordError::Failed(cause) => Self::Internal(cause),
        }
    }
}

/// The built-in identity. Several processes may have one over the same store; each honours what the others change
/// within [`IdentityOptions::refresh_interval`].
pub struct IdentityManager {
    pub(super) store: Arc<dyn IdentityStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) options: IdentityOptions,
    pub(super) catalog: Catalog,
    pub(super) passwords: Passwords,
    tokens: TokenCode,
    directory: ArcSwap<Directory>,
    /// How long a new token lasts, seconds; may change while the service runs.
    token_expiration: AtomicI64,
    /// When the store was last asked for its version, microseconds.
    checked_at: AtomicI64,
    /// Held while the store is read, so that many callers read it once.
    pub(super) reading: Mutex<()>,
    /// Held from reading a thing to writing it back, so that two changes made here do not undo each other.
    pub(super) changing: Mutex<()>,
}

impl IdentityManager {
    /// Reads the store, and makes the key that signs tokens if there is none yet.
    ///
    /// # Errors
    /// [`ManagerError::Store`]; [`ManagerError::Password`] for hash costs that argon2 does not take.
    pub async fn open(
        store: Arc<dyn IdentityStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        catalog: Catalog,
        options: IdentityOptions,
    ) -> Result<Self, ManagerError> {
        let mut fresh = [0; 32];
        entropy.fill(&mut fresh);
        let key = store.secret(TOKEN_KEY, &fresh).await?;
        let directory = Directory::load(&*store, clock.now()).await?;
        Ok(Self {
            passwords: Passwords::new(&options.password, Arc::clone(&entropy))?,
            tokens: TokenCode::new(&key),
            checked_at: AtomicI64::new(directory.loaded_at.as_microsecond()),
            token_expiration: AtomicI64::new(seconds(&options)),
            directory: ArcSwap::from_pointee(directory),
            reading: Mutex::new(()),
            changing: Mutex::new(()),
            store,
            clock,
            entropy,
            options,
            catalog,
        })
    }

    /// Looks whether another process changed something, and takes it over. One small query if nobody did.
    ///
    /// # Errors
    /// What the store says; what is known stays as it was.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _reading = self.reading.lock().await;
        let now = self.clock.now();
        if self.store.identity_version().await? != self.directory.load().version {
            self.directory.store(Arc::new(Directory::load(&*self.store, now).await?));
        }
        self.checked_at.store(now.as_microsecond(), Ordering::Relaxed);
        Ok(())
    }

    /// Refreshes again and again until cancelled. A store that does not answer is asked again at the next turn.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(self.options.refresh_interval) => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "identity could not be refreshed");
            }
        }
    }

    /// Takes over what may change while the service runs: how long new tokens last.
    pub fn reload(&self, options: &IdentityOptions) {
        self.token_expiration.store(seconds(options), Ordering::Relaxed);
    }

    /// The services that tokens point to.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Everything as of now.
    pub(super) async fn current(&self) -> Result<Arc<Directory>, StoreError> {
        self.refresh().await?;
        Ok(self.directory.load_full())
    }

    /// Takes over what this process has just changed, so that it counts before the change is answered.
    pub(super) async fn changed(&self) -> Result<Arc<Directory>, StoreError> {
        let _reading = self.reading.lock().await;
        let directory = Arc::new(Directory::load(&*self.store, self.clock.now()).await?);
        self.directory.store(Arc::clone(&directory));
        Ok(directory)
    }

    /// A token for a user who proved nothing: for programs that hold the store anyway, and for tests.
    ///
    /// # Errors
    /// [`ManagerError::NoRole`] if the user may not have it.
    pub async fn issue_token(
        &self,
        user: &UserId,
        project: Option<&ProjectId>,
    ) -> Result<(String, TokenInfo), ManagerError> {
        let directory = self.current().await?;
        let claims = self.new_claims(user.clone(), vec!["password".to_owned()], self.clock.now());
        let claims = Claims { project_id: project.cloned(), ..claims };
        self.sign(&directory, claims).ok_or_else(|| ManagerError::NoRole {
            user: user.to_string(),
            project: project.map(ToString::to_string).unwrap_or_default(),
        })
    }

    /// Unscoped claims that begin then.
    pub(super) fn new_claims(&self, user_id: UserId, methods: Vec<String>, issued_at: Timestamp) -> Claims {
        let lasts = SignedDuration::from_secs(self.token_expiration.load(Ordering::Relaxed));
        Claims {
            user_id,
            project_id: None,
            methods,
            audit_ids: vec![self.audit_id()],
            issued_at,
            expires_at: issued_at.saturating_add(lasts).unwrap_or(Timestamp::MAX),
        }
    }

    /// Names a token without giving it away (16 random bytes, as Keystone).
    pub(super) fn audit_id(&self) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The token of these claims, unless they would not count.
    pub(super) fn sign(&self, directory: &Directory, claims: Claims) -> Option<(String, TokenInfo)> {
        let info = directory.check(&claims, self.clock.now()).ok()?;
        Some((self.tokens.encode(&claims), info))
    }

    /// What a token claims, if it was signed here; whether it still counts is another question.
    pub(super) fn claims(&self, token: &str) -> Option<Claims> {
        self.tokens.decode(token)
    }

    /// Takes a token back.
    pub(super) async fn revoke(&self, info: &TokenInfo) -> Result<(), StoreError> {
        if let Some(audit_id) = info.audit_ids.first() {
            self.store.revoke_token(audit_id, info.expires_at).await?;
            self.changed().await?;
        }
        Ok(())
    }

    /// Gives a user another password and takes all tokens of theirs back. `false` if they are gone, or if the password is
    /// no longer the one of `proved`, the hash that was checked.
    pub(super) async fn set_password(
        &self,
        id: &UserId,
        proved: Option<&str>,
        password: Password,
    ) -> Result<bool, ManagerError> {
        let password_hash = Some(self.passwords.hash(password).await?);
        let _turn = self.changing.lock().await;
        let user = match self.store.get_user(id).await {
            Ok(user) => user,
            Err(StoreError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if proved.is_some() && user.password_hash.as_deref() != proved {
            return Ok(false);
        }
        let tokens_valid_from = Some(self.clock.now());
        self.store.update_user(User { password_hash, tokens_valid_from, ..user }).await?;
        self.changed().await?;
        Ok(true)
    }
}

#[async_trait]
impl Access for IdentityManager {
    async fn roles_of(&self, who: &[(UserId, ProjectId)]) -> Result<Vec<Vec<String>>, BoxError> {
        let directory = self.current().await?;
        let roles = |(user, project): &(UserId, ProjectId)| {
            let user_counts = directory.users.get(user).is_some_and(|user| directory.user_counts(user));
            let counts = directory.projects.get(project).is_some_and(|project| directory.project_counts(project));
            let roles = if user_counts && counts { directory.effective_roles(user, project) } else { Vec::new() };
            roles.into_iter().map(|role| role.name).collect()
        };
        Ok(who.iter().map(roles).collect())
    }
}

fn seconds(options: &IdentityOptions) -> i64 {
    i64::try_from(options.token_expiration.as_secs()).unwrap_or(i64::MAX)
}

#[async_trait]
impl IdentityService for IdentityManager {
    async fn validate(&self, token: &str) -> Result<TokenInfo, IdentityError> {
        let claims = self.tokens.decode(token).ok_or(IdentityError::Unauthorized)?;
        let now = self.clock.now();
        match self.directory.load().check(&claims, now) {
            Ok(info) => return Ok(info),
            Err(Rejected::Final) => return Err(IdentityError::Unauthorized),
            Err(Rejected::Unknown) => {}
        }
        // Another process may have made the user a moment ago. Tokens from before the last look cannot gain from another.
        let checked_at = Timestamp::from_microsecond(self.checked_at.load(Ordering::Relaxed)).unwrap_or_default();
        if claims.issued_at.saturating_add(CLOCK_SKEW).unwrap_or(Timestamp::MAX) < checked_at {
            return Err(IdentityError::Unauthorized);
        }
        let unavailable = |error| IdentityError::Unavailable { source: Box::new(error) };
        let directory = self.current().await.map_err(unavailable)?;
        directory.check(&claims, now).map_err(|_| IdentityError::Unauthorized)
    }
}

impl std::fmt::Debug for IdentityManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityManager").field("options", &self.options).finish_non_exhaustive()
    }
}
