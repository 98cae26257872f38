//! Neutron's objects as it writes them, for calls of compute that are passed on.

use serde_json::{Value, json};

use super::{NeutronClient, NeutronError};

/// A kind of object: how one and many of them are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Objects {
    path: &'static str,
    many: &'static str,
    one: &'static str,
}

impl Objects {
    pub(crate) const NETWORKS: Self = Self { path: "networks", many: "networks", one: "network" };
    pub(crate) const SUBNETS: Self = Self { path: "subnets", many: "subnets", one: "subnet" };
    pub(crate) const PORTS: Self = Self { path: "ports", many: "ports", one: "port" };
    pub(crate) const FLOATING_IPS: Self = Self { path: "floatingips", many: "floatingips", one: "floatingip" };
    pub(crate) const GROUPS: Self = Self { path: "security-groups", many: "security_groups", one: "security_group" };
    pub(crate) const RULES: Self =
        Self { path: "security-group-rules", many: "security_group_rules", one: "security_group_rule" };
}

/// Ids are typed where they come from, so that nothing else gets into a path.
impl NeutronClient {
    /// All that fit.
    pub(crate) async fn find(&self, of: Objects, query: &[(&str, &str)]) -> Result<Vec<Value>, NeutronError> {
        self.session.list(of.path, of.many, query).await
    }

    /// One, if it is there.
    pub(crate) async fn show(&self, of: Objects, id: impl std::fmt::Display) -> Result<Option<Value>, NeutronError> {
        match self.session.get(&format!("/{}/{id}", of.path), of.one).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Makes one.
    pub(crate) async fn create(&self, of: Objects, body: Value) -> Result<Value, NeutronError> {
        self.session.post(&format!("/{}", of.path), &json!({ of.one: body }), of.one).await
    }

    /// Changes one.
    pub(crate) async fn change(
        &self,
        of: Objects,
        id: impl std::fmt::Display,
        body: Value,
    ) -> Result<Value, NeutronError> {
        self.session.put(&format!("/{}/{id}", of.path), &json!({ of.one: body }), of.one).await
    }

    /// Removes one; one that is not there is removed.
    pub(crate) async fn remove(&self, of: Objects, id: impl std::fmt::Display) -> Result<(), NeutronError> {
        self.session.delete(&format!("/{}/{id}", of.path)).await
    }

    /// The outer network that floating addresses come from if none is named.
    pub(crate) fn default_pool(&self) -> &str {
        &self.session.options().default_floating_pool
    }
}
