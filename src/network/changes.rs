//! Changes of the books that wait to be told of: each thing once.

use std::collections::BTreeSet;

use nova_core::ids::{HostName, NetworkId, ProjectId, RouterId, SecurityGroupId};
use nova_core::rpc::network::BooksChangedRequest;

/// What was changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    networks: BTreeSet<NetworkId>,
    groups: BTreeSet<SecurityGroupId>,
    routers: BTreeSet<RouterId>,
    hosts: BTreeSet<HostName>,
    projects: BTreeSet<ProjectId>,
}

impl Changes {
    /// How many things.
    pub(super) fn len(&self) -> usize {
        self.networks.len() + self.groups.len() + self.routers.len() + self.hosts.len() + self.projects.len()
    }

    /// These as well.
    pub(super) fn add(&mut self, news: BooksChangedRequest) {
        self.networks.extend(news.networks);
        self.groups.extend(news.groups);
        self.routers.extend(news.routers);
        self.hosts.extend(news.hosts);
        self.projects.extend(news.projects);
    }

    /// All of it, as one message.
    pub(super) fn into_news(self) -> BooksChangedRequest {
        BooksChangedRequest {
            networks: self.networks.into_iter().collect(),
            groups: self.groups.into_iter().collect(),
            routers: self.routers.into_iter().collect(),
            hosts: self.hosts.into_iter().collect(),
            projects: self.projects.into_iter().collect(),
        }
    }
}
