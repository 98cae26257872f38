//! Threads for calls that block.
//!
//! libvirt's calls block, some of them for ever when its daemon or a QEMU hangs. A call that hangs holds one of these
//! threads and nothing else: the others go on, and once all of them hang, new calls are refused at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Why no thread took a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("each of the {0} threads for hypervisor calls hangs")]
    AllHang(usize),
    #[error("{0} hypervisor calls wait already")]
    QueueFull(usize),
    #[error("the call panicked")]
    Panicked,
}

/// A fixed number of threads and a bounded queue before them. Dropping it lets the threads end after their last call.
pub(super) struct Workers {
    queue: SyncSender<Job>,
    queue_limit: usize,
    busy_since: Arc<Mutex<Vec<Option<Instant>>>>,
    hung_after: Duration,
}

impl Workers {
    pub(super) fn new(threads: usize, queue_limit: usize, hung_after: Duration) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel::<Job>(queue_limit);
        let jobs = Arc::new(Mutex::new(jobs));
        let busy_since = Arc::new(Mutex::new(vec![None; threads]));
        for index in 0..threads {
            let (jobs, busy_since) = (jobs.clone(), busy_since.clone());
            thread::Builder::new().name(format!("libvirt-{index}")).spawn(move || work(index, &jobs, &busy_since))?;
        }
        Ok(Self { queue, queue_limit, busy_since, hung_after })
    }

    /// Runs a blocking call on one of the threads. The call goes on when the caller stops waiting.
    pub(super) async fn run<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
        self.check_alive()?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more.
            let _ = answer.send(call());
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refused::QueueFull(self.queue_limit),
            TrySendError::Disconnected(_) => Refused::Panicked,
        })?;
        answered.await.map_err(|_| Refused::Panicked)
    }

    fn check_alive(&self) -> Result<(), Refused> {
        let busy_since = lock(&self.busy_since);
        let hangs = |since: &Option<Instant>| since.is_some_and(|since| since.elapsed() >= self.hung_after);
        if busy_since.iter().all(hangs) { Err(Refused::AllHang(busy_since.len())) } else { Ok(()) }
    }
}

fn work(index: usize, jobs: &Mutex<Receiver<Job>>, busy_since: &Mutex<Vec<Option<Instant>>>) {
    loop {
        // The lock is held while waiting: one thread waits for the queue, the others for the lock.
        let Ok(job) = lock(jobs).recv() else { return };
        mark(busy_since, index, Some(Instant::now()));
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a hypervisor call panicked");
        }
        mark(busy_since, index, None);
    }
}

fn mark(busy_since: &Mutex<Vec<Option<Instant>>>, index: usize, since: Option<Instant>) {
    if let Some(slot) = lock(busy_since).get_mut(index) {
        *slot = since;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_holds_one_thread_only() {
        let workers = Arc::new(Workers::new(2, 8, Duration::from_secs(3600)).unwrap());
        let (release, hung) = channel::<()>();
        let first = tokio::spawn({
            let workers = workers.clone();
            async move { workers.run(move || hung.recv().is_ok()).await }
        });
        for number in 0..10 {
            assert_eq!(workers.run(move || number).await, Ok(number));
        }
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
    }

    #[tokio::test]
    async fn when_all_hang_new_calls_are_refused_at_once() {
        // Any call that is under way counts as hanging.
        let workers = Arc::new(Workers::new(1, 8, Duration::ZERO).unwrap());
        let (release, hung) = channel::<()>();
        let (begin, begun) = oneshot::channel();
        let first = tokio::spawn({
            let workers = workers.clone();
            let call = move || {
                begin.send(()).unwrap();
                hung.recv().is_ok()
            };
            async move { workers.run(call).await }
        });
        begun.await.unwrap();
        assert_eq!(workers.run(|| ()).await, Err(Refused::AllHang(1)));
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let workers = Arc::new(Workers::new(1, 0, Duration::from_secs(3600)).unwrap());
        let (release, hung) = channel::<()>();
        let (begin, begun) = channel::<()>();
        // Without room in the queue, a job is taken only once the thread waits for it: offer until it does.
        let call = move || {
            begin.send(()).unwrap();
            hung.recv().is_ok()
        };
        let call = Arc::new(Mutex::new(Some(call)));
        let first = tokio::spawn({
            let (workers, call) = (workers.clone(), call.clone());
            async move {
                loop {
                    let call = call.clone();
                    let run = move || call.lock().unwrap().take().map(|call| call());
                    match workers.run(run).await {
                        Ok(answer) => return answer,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            }
        });
        tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
        assert_eq!(workers.run(|| ()).await, Err(Refused::QueueFull(0)));
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Some(true));
    }

    #[tokio::test]
    async fn a_panic_costs_one_call() {
        let workers = Workers::new(1, 8, Duration::from_secs(3600)).unwrap();
        assert_eq!(workers.run(|| panic!("on purpose")).await, Err::<(), _>(Refused::Panicked));
        assert_eq!(workers.run(|| 1).await, Ok(1));
    }
}
