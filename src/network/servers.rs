//! What the compute API asks of the books about servers.

use std::collections::{BTreeMap, BTreeSet};

use nova_core::ids::{InstanceId, ProjectId, SecurityGroupId};
use nova_core::network::{NetworkServiceError, Port, SecurityGroup, Vif};
use nova_db::{ListQuery, PortField, PortQuery, SecurityGroupField, StoreError};

use super::NetworkManager;

/// So many ids are asked for at once.
pub(super) const AT_ONCE: usize = 500;

/// Anybody may write a server's id into a port of theirs; only compute says that it is the server's.
pub(super) fn is_of_compute(port: &Port) -> bool {
    port.device_owner.starts_with("compute:")
}

fn failed(error: StoreError) -> NetworkServiceError {
    NetworkServiceError::Unavailable { source: Box::new(error) }
}

impl NetworkManager {
    /// The ports of servers, oldest first within one server.
    pub(crate) async fn ports_of_servers(&self, servers: &[InstanceId]) -> Result<Vec<Port>, StoreError> {
        let mut ports = Vec::new();
        for some in servers.chunks(AT_ONCE) {
            let devices = some.iter().map(InstanceId::to_string).collect();
            let list = ListQuery { filters: vec![(PortField::DeviceId, devices)], ..ListQuery::default() };
            let found = self.store.list_ports(&PortQuery { list, ..PortQuery::default() }).await?;
            ports.extend(found.into_iter().filter(is_of_compute));
        }
        Ok(ports)
    }

    /// Servers' interfaces, each server's in order, with the groups of their ports.
    pub(crate) async fn interfaces_and_groups(
        &self,
        servers: &[InstanceId],
    ) -> Result<Vec<(InstanceId, Vif, Vec<SecurityGroupId>)>, NetworkServiceError> {
        let ports = self.ports_of_servers(servers).await.map_err(failed)?;
        let owners: Vec<_> =
            ports.iter().map(|port| (port.device_id.parse().ok(), port.security_groups.clone())).collect();
        let vifs = self.vifs(ports).await?;
        let of = |((owner, groups), vif): ((Option<InstanceId>, _), Vif)| Some((owner?, vif, groups));
        Ok(owners.into_iter().zip(vifs).filter_map(of).collect())
    }

    /// What groups are called, by their ids.
    pub(crate) async fn group_names(
        &self,
        groups: &BTreeSet<SecurityGroupId>,
    ) -> Result<BTreeMap<SecurityGroupId, String>, StoreError> {
        let mut names = BTreeMap::new();
        let ids: Vec<String> = groups.iter().map(SecurityGroupId::to_string).collect();
        for some in ids.chunks(AT_ONCE) {
            let query = ListQuery { filters: vec![(SecurityGroupField::Id, some.to_vec())], ..ListQuery::default() };
            let found = self.store.list_bare_security_groups(&query).await?;
            let name = |group: SecurityGroup| match group.name.is_empty() {
                true => (group.id, group.id.to_string()),
                false => (group.id, group.name),
            };
            names.extend(found.into_iter().map(name));
        }
        Ok(names)
    }

    /// A project's group by its id, or by a name that no other of them has.
    ///
    /// # Errors
    /// [`NetworkServiceError::NoSecurityGroup`] and [`NetworkServiceError::ManySecurityGroups`].
    pub(crate) async fn group_named(
        &self,
        project: &ProjectId,
        name: &str,
    ) -> Result<SecurityGroup, NetworkServiceError> {
        let missing = || NetworkServiceError::NoSecurityGroup { name: name.chars().take(255).collect() };
        if let Ok(id) = name.parse::<SecurityGroupId>() {
            match self.store.get_security_group(id).await {
                Ok(group) if group.project_id == *project => return Ok(group),
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if name == "default" {
            return self.default_group(project).await.map_err(failed);
        }
        let mut query = ListQuery::of(SecurityGroupField::ProjectId, project);
        query.filters.push((SecurityGroupField::Name, vec![name.to_owned()]));
        let mut found = self.store.list_bare_security_groups(&query).await.map_err(failed)?.into_iter();
        match (found.next(), found.next()) {
            (Some(group), None) => Ok(group),
            (None, _) => Err(missing()),
            (Some(_), Some(_)) => Err(NetworkServiceError::ManySecurityGroups { name: name.to_owned() }),
        }
    }
}
