//! Asking Neutron, and what it can do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::network::NetworkServiceError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::NeutronOptions;
use crate::outside::{self, Ask, OutsideError, Service};

/// Why Neutron did not do it.
pub type NeutronError = OutsideError;

impl From<NeutronError> for NetworkServiceError {
    fn from(error: NeutronError) -> Self {
        if matches!(&error, NeutronError::Refused { kind, .. } if kind == "OverQuota") {
            return Self::OverQuota;
        }
        match error.answer() {
            Some((_, message)) => Self::Refused(message.to_owned()),
            None => Self::Unavailable { source: Box::new(error) },
        }
    }
}

/// The way to one Neutron.
pub(super) struct Session {
    options: NeutronOptions,
    outside: outside::Session,
    extensions: Mutex<Option<(Instant, Arc<BTreeSet<String>>)>>,
}

impl Session {
    pub(super) fn new(
        options: NeutronOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, NeutronError> {
        let service = Service {
            name: "Neutron",
            types: &["network"],
            options: ["neutron.auth_url", "neutron.endpoint_override"],
            base: |path| format!("{}/v2.0", path.strip_suffix("/v2.0").unwrap_or(path)),
            endpoint: options.endpoint.clone(),
        };
        let outside = outside::Session::new(service, options.account.clone(), clock, entropy)?;
        Ok(Self { options, outside, extensions: Mutex::default() })
    }

    pub(super) fn options(&self) -> &NeutronOptions {
        &self.options
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, key: &str) -> Result<T, NeutronError> {
        self.outside.read(path, self.ask(Method::GET, path, None).await?, key)
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<T, NeutronError> {
        self.outside.read(path, self.ask(Method::POST, path, Some(body)).await?, key)
    }

    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<T, NeutronError> {
        self.outside.read(path, self.ask(Method::PUT, path, Some(body)).await?, key)
    }

    /// What is not there any more is deleted.
    pub(super) async fn delete(&self, path: &str) -> Result<(), NeutronError> {
        match self.ask(Method::DELETE, path, None).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// All items of a list, page after page.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
        query: &[(&str, &str)],
    ) -> Result<Vec<T>, NeutronError> {
        self.outside.list(Ask::default(), collection, key, query).await
    }

    /// Can it do this?
    pub(super) async fn has_extension(&self, alias: &str) -> Result<bool, NeutronError> {
        let known = self.extensions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((since, aliases)) = known
            && since.elapsed() < self.options.extensions_for
        {
            return Ok(aliases.contains(alias));
        }
        let answer: Vec<Value> = self.get("/extensions", "extensions").await?;
        let aliases: BTreeSet<String> =
            answer.iter().filter_map(|extension| extension["alias"].as_str().map(str::to_owned)).collect();
        let has = aliases.contains(alias);
        let now = Some((Instant::now(), Arc::new(aliases)));
        *self.extensions.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(has)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, NeutronError> {
        self.outside.ask(Ask::default(), method, path, body).await
    }
}
