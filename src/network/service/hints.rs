//! Changes that hosts are not told of yet: all of a short while is one question to the store and one word to each host.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::ids::{HostName, NetworkId, ProjectId, RouterId, SecurityGroupId};
use nova_core::rpc::network::BooksChangedRequest;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// So much waits at most, as when the store does not answer; hosts find the rest by themselves.
const MOST: usize = 100_000;

#[derive(Debug, Default)]
struct Waiting {
    networks: BTreeSet<NetworkId>,
    groups: BTreeSet<SecurityGroupId>,
    routers: BTreeSet<RouterId>,
    hosts: BTreeSet<HostName>,
    projects: BTreeSet<ProjectId>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.networks.len() + self.groups.len() + self.routers.len() + self.hosts.len() + self.projects.len()
    }
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Hints {
    waiting: Mutex<Waiting>,
    some: Notify,
}

impl Hints {
    /// Will be told with what else changes soon.
    pub(super) fn add(&self, change: BooksChangedRequest) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            tracing::debug!("too much is to be told to hosts: they will ask");
            return;
        }
        waiting.networks.extend(change.networks);
        waiting.groups.extend(change.groups);
        waiting.routers.extend(change.routers);
        waiting.hosts.extend(change.hosts);
        waiting.projects.extend(change.projects);
        drop(waiting);
        self.some.notify_one();
    }

    /// Waits for a change and then for those that follow within the window; `None`: it is to stop.
    pub(super) async fn next(&self, window: Duration, stop: &CancellationToken) -> Option<BooksChangedRequest> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = async { self.some.notified().await; tokio::time::sleep(window).await } => {}
        }
        let all = std::mem::take(&mut *self.waiting());
        Some(BooksChangedRequest {
            networks: all.networks.into_iter().collect(),
            groups: all.groups.into_iter().collect(),
            routers: all.routers.into_iter().collect(),
            hosts: all.hosts.into_iter().collect(),
            projects: all.projects.into_iter().collect(),
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
