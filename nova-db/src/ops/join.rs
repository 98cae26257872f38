//! What several callers ask for, in one transaction.
//!
//! On a database server a transaction costs round trips and a flush, and whoever counts for the same project waits for the row
//! of its count. What comes while a transaction is under way waits and goes into the next one, together: the more callers there
//! are, the less each of them costs. Nobody waits for company. When the transaction fails, its jobs are carried out one by one,
//! so that each hears its own answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use nova_core::error::chain;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{operation, output_of};
use crate::StoreError;
use crate::rows::{Backend, Fail, Output, Transaction};

type Answer<T> = Result<T, StoreError>;

/// Something that can be done together with others of its kind.
#[async_trait]
pub(in crate::ops) trait Job: Clone + Send + Sync + 'static {
    /// What its caller gets.
    type Done: Send + 'static;

    /// Jobs of one transaction at most: what is locked is not locked for long.
    const TOGETHER: usize;

    /// Carries out all of them, and answers each of them in order. It may run several times. Jobs that are refused have written
    /// nothing; an error takes back the whole transaction.
    async fn carry_out(jobs: &[Self], tx: &mut dyn Transaction) -> Result<Vec<Answer<Self::Done>>, Fail>;
}

/// A job, and who waits for it.
type Waiting<J> = (J, oneshot::Sender<Answer<<J as Job>::Done>>);

struct Queue<J: Job> {
    waiting: VecDeque<Waiting<J>>,
    running: bool,
}

/// What waits for the next transaction.
pub(in crate::ops) struct Joiner<J: Job> {
    queue: Arc<Mutex<Queue<J>>>,
}

impl<J: Job> Default for Joiner<J> {
    fn default() -> Self {
        Self { queue: Arc::new(Mutex::new(Queue { waiting: VecDeque::new(), running: false })) }
    }
}

impl<J: Job> Clone for Joiner<J> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl<J: Job> std::fmt::Debug for Joiner<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joiner").field("waiting", &self.queue().waiting.len()).finish_non_exhaustive()
    }
}

impl<J: Job> Joiner<J> {
    fn queue(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it, with what others ask for at the same time. The work goes on when its caller is gone: others rely on it.
    pub(in crate::ops) async fn submit<B: Backend>(&self, backend: &Arc<B>, job: J) -> Answer<J::Done> {
        let (tell, told) = oneshot::channel();
        let begins = {
            let mut queue = self.queue();
            queue.waiting.push_back((job, tell));
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
    fn next(&self) -> Option<Vec<Waiting<J>>> {
        let mut queue = self.queue();
        let count = queue.waiting.len().min(J::TOGETHER);
        queue.running = count > 0;
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }
}

/// Whoever carries jobs out. Should it break off, nobody waits for ever.
struct Shift<J: Job>(Joiner<J>);

impl<J: Job> Drop for Shift<J> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        if std::thread::panicking() {
            queue.running = false;
            queue.waiting.clear();
        }
    }
}

async fn in_one<B: Backend, J: Job>(backend: &Arc<B>, jobs: Vec<J>) -> Answer<Vec<Answer<J::Done>>> {
    let jobs = Arc::new(jobs);
    let run = operation(move |tx| {
        let jobs = Arc::clone(&jobs);
        Box::pin(async move { Ok(Box::new(J::carry_out(&jobs, tx).await?) as Output) })
    });
    output_of(backend.name(), backend.write(run).await?)
}

/// Whoever does not listen any more has gone; what it asked for was done.
async fn carry_out<B: Backend, J: Job>(backend: &Arc<B>, waiting: Vec<Waiting<J>>) {
    let (jobs, tells): (Vec<J>, Vec<_>) = waiting.into_iter().unzip();
    match in_one(backend, jobs.clone()).await {
        Ok(answers) => {
            for (tell, answer) in tells.into_iter().zip(answers) {
                drop(tell.send(answer));
            }
        }
        Err(StoreError::Unavailable { source, .. }) => {
            let why = chain(&*source);
            for tell in tells {
                let error = StoreError::Unavailable { backend: backend.name(), source: why.clone().into() };
                drop(tell.send(Err(error)));
            }
        }
        Err(error) if jobs.len() == 1 => {
            if let Some(tell) = tells.into_iter().next() {
                drop(tell.send(Err(error)));
            }
        }
        Err(_) => {
            let mut each = JoinSet::new();
            for (job, tell) in jobs.into_iter().zip(tells) {
                let backend = Arc::clone(backend);
                each.spawn(async move {
                    let answer = in_one(&backend, vec![job]).await.and_then(|mut answers| {
                        answers.pop().unwrap_or_else(|| {
                            let source = "a transaction did not answer".into();
                            Err(StoreError::Unavailable { backend: backend.name(), source })
                        })
                    });
                    drop(tell.send(answer));
                });
            }
            while each.join_next().await.is_some() {}
        }
    }
}
