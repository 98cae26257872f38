//! Ports of several callers in one transaction.
//!
//! On a database server a transaction costs round trips and a flush, and ports of one project wait for each other at its
//! count. What comes while a transaction is under way waits and goes into the next one, together: the more callers there
//! are, the less each of them costs. Nobody waits for company. When one of them cannot have what it asks for, all of that
//! transaction are carried out one by one, so that each hears its own answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nova_core::error::chain;
use nova_core::ids::PortId;
use nova_core::network::Port;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Answer, ports, version};
use crate::ops::{operation, output_of};
use crate::rows::{Backend, Fail, Output, Transaction};
use crate::{NewPort, StoreError};

/// Jobs of one transaction at most: what is locked is not locked for long.
const TOGETHER: usize = 64;

type Tell<T> = oneshot::Sender<Answer<T>>;

/// Something to be done, and who waits for it.
enum Job {
    Create(Arc<Vec<NewPort>>, Tell<Vec<Port>>),
    Delete(PortId, Tell<Port>),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: bool,
}

/// What waits for the next transaction.
#[derive(Clone, Default)]
pub(in crate::ops) struct Joiner {
    queue: Arc<Mutex<Queue>>,
}

impl std::fmt::Debug for Joiner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joiner").field("waiting", &self.queue().waiting.len()).finish_non_exhaustive()
    }
}

impl Joiner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New ports, with what others ask for at the same time.
    pub(super) async fn create<B: Backend>(&self, backend: &Arc<B>, new: Vec<NewPort>) -> Answer<Vec<Port>> {
        self.submit(backend, |tell| Job::Create(Arc::new(new), tell)).await
    }

    /// A port less, with what others ask for at the same time.
    pub(super) async fn delete<B: Backend>(&self, backend: &Arc<B>, id: PortId) -> Answer<Port> {
        self.submit(backend, |tell| Job::Delete(id, tell)).await
    }

    /// The work goes on when its caller is gone: others rely on it.
    async fn submit<B: Backend, T>(&self, backend: &Arc<B>, job: impl FnOnce(Tell<T>) -> Job) -> Answer<T> {
        let (tell, told) = oneshot::channel();
        let begins = {
            let mut queue = self.queue();
            queue.waiting.push_back(job(tell));
            !std::mem::replace(&mut queue.running, true)
        };
        if begins {
            let (joiner, backend) = (self.clone(), Arc::clone(backend));
            tokio::spawn(async move {
                let shift = Shift(joiner);
                while let Some(jobs) = shift.0.next() {
                    carry_out(&backend, jobs).await;
                }
            });
        }
        let lost =
            |_| StoreError::Unavailable { backend: backend.name(), source: "the transaction was given up".into() };
        told.await.map_err(lost)?
    }

    /// What the next transaction does; `None` when nobody waits.
    fn next(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue();
        let count = queue.waiting.len().min(TOGETHER);
        queue.running = count > 0;
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }
}

/// Whoever carries jobs out. Should it break off, nobody waits for ever.
struct Shift(Joiner);

impl Drop for Shift {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        if std::thread::panicking() {
            queue.running = false;
            queue.waiting.clear();
        }
    }
}

/// The jobs without those who wait for them; the transaction may run several times.
struct Together {
    new: Vec<NewPort>,
    gone: Vec<PortId>,
}

impl Together {
    fn of(jobs: &[Job]) -> Self {
        let mut together = Self { new: Vec::new(), gone: Vec::new() };
        for job in jobs {
            match job {
                Job::Create(new, _) => together.new.extend(new.iter().cloned()),
                Job::Delete(id, _) => together.gone.push(*id),
            }
        }
        together
    }

    async fn run(&self, tx: &mut dyn Transaction) -> Result<(Vec<Port>, Vec<Port>), Fail> {
        let made = if self.new.is_empty() { Vec::new() } else { ports::create_all(tx, &self.new).await? };
        let gone = if self.gone.is_empty() { Vec::new() } else { ports::delete_all(tx, &self.gone).await? };
        let ids = self.new.iter().map(|new| new.port.id).chain(self.gone.iter().copied());
        raise_for(tx, ids.into_iter().next()).await?;
        Ok((made, gone))
    }
}

/// The books are changed, beginning with that port.
async fn raise_for(tx: &mut dyn Transaction, first: Option<PortId>) -> Result<(), Fail> {
    match first {
        Some(id) => version::raise(tx, version::part_of(id)).await,
        None => Ok(()),
    }
}

async fn carry_out<B: Backend>(backend: &Arc<B>, mut jobs: Vec<Job>) {
    if jobs.len() == 1 {
        if let Some(job) = jobs.pop() {
            alone(backend, job).await;
        }
        return;
    }
    let together = Arc::new(Together::of(&jobs));
    let run = operation(move |tx| {
        let together = Arc::clone(&together);
        Box::pin(async move { Ok(Box::new(together.run(tx).await?) as Output) })
    });
    let answer = match backend.write(run).await {
        Ok(output) => output_of::<(Vec<Port>, Vec<Port>)>(backend.name(), output),
        Err(error) => Err(error),
    };
    match answer {
        Ok((made, gone)) => tell_all(jobs, made, gone),
        Err(StoreError::Unavailable { source, .. }) => {
            let why = chain(&*source);
            for job in jobs {
                let error = StoreError::Unavailable { backend: backend.name(), source: why.clone().into() };
                match job {
                    Job::Create(_, tell) => drop(tell.send(Err(error))),
                    Job::Delete(_, tell) => drop(tell.send(Err(error))),
                }
            }
        }
        Err(_) => {
            let mut each = JoinSet::new();
            for job in jobs {
                let backend = Arc::clone(backend);
                each.spawn(async move { alone(&backend, job).await });
            }
            while each.join_next().await.is_some() {}
        }
    }
}

/// Whoever does not listen any more has gone; what it asked for was done.
fn tell_all(jobs: Vec<Job>, made: Vec<Port>, gone: Vec<Port>) {
    let (mut made, mut gone) = (made.into_iter(), gone.into_iter());
    for job in jobs {
        match job {
            Job::Create(new, tell) => drop(tell.send(Ok(made.by_ref().take(new.len()).collect()))),
            Job::Delete(_, tell) => {
                if let Some(port) = gone.next() {
                    drop(tell.send(Ok(port)));
                }
            }
        }
    }
}

async fn alone<B: Backend>(backend: &Arc<B>, job: Job) {
    match job {
        Job::Create(new, tell) => {
            let run = operation(move |tx| {
                let new = Arc::clone(&new);
                Box::pin(async move {
                    let made = ports::create_all(tx, &new).await?;
                    raise_for(tx, new.first().map(|new| new.port.id)).await?;
                    Ok(Box::new(made) as Output)
                })
            });
            let output = backend.write(run).await;
            drop(tell.send(output.and_then(|output| output_of(backend.name(), output))));
        }
        Job::Delete(id, tell) => {
            let run = operation(move |tx| {
                Box::pin(async move {
                    let gone = ports::delete(tx, id).await?;
                    raise_for(tx, Some(id)).await?;
                    Ok(Box::new(gone) as Output)
                })
            });
            let output = backend.write(run).await;
            drop(tell.send(output.and_then(|output| output_of(backend.name(), output))));
        }
    }
}
