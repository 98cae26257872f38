//! Why an outside service did not do it.

use http::StatusCode;
use nova_core::contracts::BoxError;
use serde_json::Value;

use super::transport::{Reply, TransportError};

/// Why an outside service did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideError {
    /// A URL that cannot be used: only `http://` is spoken.
    #[error("{option}: '{url}' is no http:// URL")]
    Url {
        /// The option.
        option: &'static str,
        /// What it says.
        url: String,
    },
    /// It said no.
    #[error("{service} answered {status}: {message}")]
    Refused {
        /// Which service.
        service: &'static str,
        /// The status.
        status: StatusCode,
        /// The service's name for it.
        kind: String,
        /// For people.
        message: String,
    },
    /// It did not answer, or could not be asked.
    #[error("{service} is unavailable")]
    Unavailable {
        /// Which service.
        service: &'static str,
        /// What happened.
        #[source]
        source: BoxError,
    },
    /// The answer is not what such a service answers.
    #[error("{service}'s answer to {what} cannot be read")]
    Malformed {
        /// Which service.
        service: &'static str,
        /// What was asked.
        what: String,
        /// What is wrong.
        #[source]
        source: BoxError,
    },
}

impl OutsideError {
    /// There is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// What it said, if that is about the request, and not about the service or our right to ask.
    pub(crate) fn answer(&self) -> Option<(StatusCode, &str)> {
        match self {
            Self::Refused { status, message, .. } if is_an_answer(*status) => Some((*status, message)),
            _ => None,
        }
    }

    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Url { .. } | Self::Malformed { .. } => false,
        }
    }

    pub(super) fn unavailable(service: &'static str, error: TransportError) -> Self {
        Self::Unavailable { service, source: error.into() }
    }

    /// `{"NeutronError": {"type": …, "message": …}}`, `{"itemNotFound": {"code": …, "message": …}}` of Cinder, `{"error": {…}}`
    /// of Keystone, or anything.
    pub(super) fn refused(service: &'static str, reply: &Reply) -> Self {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let named =
            body.as_object().and_then(|map| map.iter().find(|(_, error)| error.is_object() || error.is_string()));
        let (key, error) = named.map_or(("", &Value::Null), |(key, error)| (key.as_str(), error));
        let kind = error["type"].as_str().unwrap_or(key).to_owned();
        let message = error["message"].as_str().or_else(|| error.as_str());
        let message = message.or(reply.status.canonical_reason()).unwrap_or_default();
        Self::Refused { service, status: reply.status, kind, message: message.chars().take(1024).collect() }
    }
}

fn is_an_answer(status: StatusCode) -> bool {
    status.is_client_error()
        && ![StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}
