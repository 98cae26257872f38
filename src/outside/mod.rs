//! Asking a service of somebody else's, as a service user: tokens, retries, and what errors mean. What is asked is the
//! business of the clients: [`crate::network::NeutronClient`], [`crate::volume::CinderClient`].

mod error;
mod session;
#[cfg(test)]
pub(crate) mod testing;
mod transport;

use std::time::Duration;

pub use error::OutsideError;
pub(crate) use session::{Ask, Scope, Service, Session};

/// As whom an outside service is asked, and with how much patience.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The Keystone that gives tokens.
    pub auth_url: String,
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// The project.
    pub project_name: String,
    /// The user's domain.
    pub user_domain_name: String,
    /// The project's domain.
    pub project_domain_name: String,
    /// The region of the catalog; empty: the first.
    pub region_name: String,
    /// How often a request is tried again.
    pub retries: u32,
    /// Before the first of these; doubled for each further one, and jittered.
    pub first_wait: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How long a connection is waited for.
    pub connect_timeout: Duration,
}

impl Account {
    /// Nova's defaults, with tokens from that Keystone for that user.
    pub fn new(auth_url: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            auth_url: auth_url.into(),
            username: username.into(),
            password: password.into(),
            project_name: "service".into(),
            user_domain_name: "Default".into(),
            project_domain_name: "Default".into(),
            region_name: String::new(),
            retries: 3,
            first_wait: Duration::from_millis(200),
            timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Without the password.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("auth_url", &self.auth_url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
