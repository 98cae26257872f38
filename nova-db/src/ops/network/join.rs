//! Ports of several callers in one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use nova_core::ids::PortId;
use nova_core::network::Port;

use super::{Answer, ports, version};
use crate::ops::join;
use crate::rows::{Backend, Fail, Transaction};
use crate::{NewPort, StoreError};

/// Something to be done about ports; its caller gets those that were made, or the one that is gone.
#[derive(Clone)]
pub(in crate::ops) enum Job {
    Create(Arc<Vec<NewPort>>),
    Delete(PortId),
}

/// Of a store's ports.
pub(in crate::ops) type Joiner = join::Joiner<Job>;

/// New ports, with what others ask for at the same time.
pub(super) async fn create<B: Backend>(joiner: &Joiner, backend: &Arc<B>, new: Vec<NewPort>) -> Answer<Vec<Port>> {
    joiner.submit(backend, Job::Create(Arc::new(new))).await
}

/// A port less, with what others ask for at the same time.
pub(super) async fn delete<B: Backend>(joiner: &Joiner, backend: &Arc<B>, id: PortId) -> Answer<Port> {
    let gone = joiner.submit(backend, Job::Delete(id)).await?;
    gone.into_iter().next().ok_or_else(|| StoreError::Unavailable {
        backend: backend.name(),
        source: "a deletion did not say what it deleted".into(),
    })
}

#[async_trait]
impl join::Job for Job {
    type Done = Vec<Port>;

    const TOGETHER: usize = 64;

    async fn carry_out(jobs: &[Self], tx: &mut dyn Transaction) -> Result<Vec<Answer<Vec<Port>>>, Fail> {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Self::Create(ports) => new.extend(ports.iter().cloned()),
                Self::Delete(id) => gone.push(*id),
            }
        }
        let made = if new.is_empty() { Vec::new() } else { ports::create_all(tx, &new).await? };
        let deleted = if gone.is_empty() { Vec::new() } else { ports::delete_all(tx, &gone).await? };
        // The books are changed, beginning with that port.
        if let Some(id) = new.iter().map(|new| new.port.id).chain(gone).next() {
            version::raise(tx, version::part_of(id)).await?;
        }
        let (mut made, mut deleted) = (made.into_iter(), deleted.into_iter());
        let answers = jobs.iter().map(|job| match job {
            Self::Create(new) => Ok(made.by_ref().take(new.len()).collect()),
            Self::Delete(_) => Ok(deleted.by_ref().take(1).collect()),
        });
        Ok(answers.collect())
    }
}
