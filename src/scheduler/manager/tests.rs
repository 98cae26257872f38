use std::sync::atomic::{AtomicUsize, Ordering};

use nova_core::entropy::SeededEntropy;
use nova_core::instance::Instance;
use nova_db::MemoryStore;
use nova_queue::MemoryBus;
use nova_queue::testing::VirtualClock;
use tokio::sync::Semaphore;

use super::*;
use crate::scheduler::testing::{algorithm, host, instance, small, stored};

/// A store that is read when the test lets it.
#[derive(Clone)]
struct Slow {
    stored: Arc<Mutex<Stored>>,
    may: Arc<Semaphore>,
    began: Arc<AtomicUsize>,
}

impl Slow {
    fn new(stored: Stored) -> Self {
        Self { stored: Arc::new(Mutex::new(stored)), may: Arc::new(Semaphore::new(0)), began: Arc::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Stored)) {
        change(&mut self.stored.lock().unwrap());
    }
}

#[async_trait]
impl Source for Slow {
    async fn read(&self) -> Result<Stored, StoreError> {
        let stored = self.stored.lock().unwrap().clone();
        self.began.fetch_add(1, Ordering::SeqCst);
        self.may.acquire().await.unwrap().forget();
        Ok(stored)
    }

    async fn instances(&self) -> Result<Vec<Instance>, StoreError> {
        Ok(Vec::new())
    }
}

fn service(slow: &Slow) -> SchedulerService {
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new());
    let parts = Parts {
        algorithm: algorithm("least_load"),
        store: Arc::new(MemoryStore::new()),
        bus: Arc::new(MemoryBus::new(Arc::clone(&clock))),
        clock,
        entropy: Arc::new(SeededEntropy::new(1)),
        options: ServiceOptions { service_down_time: Duration::from_secs(1 << 40), ..ServiceOptions::default() },
    };
    SchedulerService::reading_from(parts, Box::new(slow.clone())).unwrap()
}

fn spec(number: u128) -> RequestSpec {
    RequestSpec { instances: vec![instance(number)], resources: small(), ..RequestSpec::default() }
}

fn refused(answer: &Result<Vec<Selection>, HandlerError>) -> bool {
    matches!(answer, Err(HandlerError::Refused(refusal)) if refusal.kind == RefusalKind::NoValidHost)
}

#[tokio::test(start_paused = true)]
async fn decisions_and_news_go_on_while_the_store_is_read() {
    let slow = Slow::new(stored(2));
    let service = service(&slow);
    slow.may.add_permits(1);
    service.refresh(None).await.unwrap();
    let reading = tokio::spawn({
        let service = service.clone();
        async move { service.refresh(None).await }
    });
    while slow.began.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    // The reading has begun and does not end: a decision and news do not wait for it, and are not lost with it.
    let chosen = service.select_destinations(&spec(1)).await.unwrap();
    slow.change(|stored| stored.book(2, 0));
    let news = slow.stored.lock().unwrap().told(2, 0);
    service.state().hosts.apply(&news);
    slow.may.add_permits(1);
    reading.await.unwrap().unwrap();
    let held = |at: usize| service.state().hosts.table.consumers_on(host(at).as_str());
    assert!(held(0).contains(&2));
    let promised = usize::from(chosen[0].chosen.host == host(1));
    assert!(held(promised).contains(&1));
}

#[tokio::test(start_paused = true)]
async fn one_reading_serves_all_who_wait() {
    let slow = Slow::new(stored(1));
    let service = service(&slow);
    slow.may.add_permits(100);
    service.refresh(None).await.unwrap();
    tokio::time::sleep(BETWEEN_READINGS).await;
    let large = RequestSpec { resources: nova_core::flavor::Resources { vcpus: 99, ..small() }, ..spec(1) };
    let asking = (0..50).map(|number| {
        let (service, large) = (service.clone(), RequestSpec { instances: vec![instance(number)], ..large.clone() });
        tokio::spawn(async move { service.select_destinations(&large).await })
    });
    for answer in futures_util::future::join_all(asking.collect::<Vec<_>>()).await {
        assert!(refused(&answer.unwrap()));
    }
    assert_eq!(slow.began.load(Ordering::SeqCst), 2);
    // What was read is not read again at once for one more of them.
    assert!(refused(&service.select_destinations(&large).await));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(refused(&service.select_destinations(&large).await));
    assert_eq!(slow.began.load(Ordering::SeqCst), 3);
}
