//! Telling the schedulers what was booked and given back: all of a short while in one message, so that boots hardly pay
//! for it and never wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId, RequestId};
use nova_core::rpc::scheduler::{AllocationNews, HostsChanged, HostsChangedRequest};
use nova_queue::RpcClient;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// So much waits at most, as when the broker is away; what is not told is read.
const MOST: usize = 10_000;

/// A broker that takes longer than this is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What waits to be told: the newest of each instance and host.
#[derive(Debug, Default)]
pub(super) struct AllocationsNews {
    waiting: Mutex<BTreeMap<(InstanceId, HostName), AllocationNews>>,
    some: Notify,
}

impl AllocationsNews {
    /// Will be told with the next message.
    pub(super) fn add(&self, news: AllocationNews) {
        let mut waiting = self.waiting();
        let key = (news.instance_id, news.host.clone());
        let full = waiting.len() >= MOST;
        match waiting.get_mut(&key) {
            Some(known) if known.version > news.version => {}
            Some(known) => *known = news,
            None if full => tracing::debug!("too much is to be told to schedulers: they will read it"),
            None => drop(waiting.insert(key, news)),
        }
        drop(waiting);
        self.some.notify_one();
    }

    /// Tells, `window` after the first thing that there is to tell. At the end, what is left.
    pub(super) async fn tell_until(
        &self,
        stop: CancellationToken,
        rpc: &RpcClient,
        entropy: &dyn Entropy,
        window: Duration,
    ) {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = async { self.some.notified().await; tokio::time::sleep(window).await } => {}
            }
            self.tell(rpc, entropy).await;
        }
    }

    async fn tell(&self, rpc: &RpcClient, entropy: &dyn Entropy) {
        let allocations: Vec<AllocationNews> = std::mem::take(&mut *self.waiting()).into_values().collect();
        if allocations.is_empty() {
            return;
        }
        let context = RequestContext::internal(RequestId::generate(entropy));
        let news = HostsChangedRequest { allocations, ..HostsChangedRequest::default() };
        match tokio::time::timeout(PATIENCE, rpc.fanout::<HostsChanged>(&context, &news)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("schedulers were not told: {}", chain(&error)),
            Err(_) => tracing::debug!("schedulers were not told: the broker does not answer"),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(InstanceId, HostName), AllocationNews>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nova_core::entropy::SeededEntropy;
    use nova_core::flavor::Resources;
    use nova_core::host::NodeVersion;
    use nova_queue::testing::{VirtualClock, client};
    use nova_queue::{Dispatcher, MemoryBus, MessageBus, Subscription};

    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    fn news(instance: u128, generation: Option<u64>, vcpus: Option<u64>) -> AllocationNews {
        AllocationNews {
            instance_id: InstanceId::from_uuid(uuid::Uuid::from_u128(instance)),
            host: "h1".into(),
            resources: vcpus.map(|vcpus| Resources { vcpus, memory_mb: 1, disk_gb: 1 }),
            placement: None,
            version: generation.map(|generation| NodeVersion { number: 1, generation }),
        }
    }

    #[test]
    fn of_what_waits_the_newest_is_told() {
        let all = AllocationsNews::default();
        all.add(news(1, Some(5), None));
        all.add(news(1, Some(4), Some(1)));
        all.add(news(1, None, None));
        all.add(news(2, None, None));
        all.add(news(2, Some(6), Some(2)));
        let waiting: Vec<_> = all.waiting().values().cloned().collect();
        assert_eq!(waiting, [news(1, Some(5), None), news(2, Some(6), Some(2))]);
        for instance in 3..2 * MOST as u128 {
            all.add(news(instance, None, None));
        }
        assert_eq!(all.waiting().len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_a_short_while_is_one_message() {
        let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(Arc::new(VirtualClock::new())));
        let heard: Arc<Mutex<Vec<usize>>> = Arc::default();
        let hearing = Arc::clone(&heard);
        let dispatcher = Dispatcher::new("scheduler").method::<HostsChanged, _, _>(move |_, news| {
            hearing.lock().unwrap().push(news.allocations.len());
            async { Ok(()) }
        });
        let serving = bus.serve(Subscription::shared("scheduler"), Arc::new(dispatcher)).await.unwrap();
        let (all, stop) = (Arc::new(AllocationsNews::default()), CancellationToken::new());
        let (telling, stopping, rpc) = (Arc::clone(&all), stop.clone(), client(Arc::clone(&bus)));
        let telling = tokio::spawn(async move {
            telling.tell_until(stopping, &rpc, &SeededEntropy::new(1), WINDOW).await;
        });
        for batch in [1..41_u128, 41..43] {
            batch.for_each(|instance| all.add(news(instance, Some(1), Some(1))));
            tokio::time::sleep(2 * WINDOW).await;
        }
        all.add(news(99, Some(1), None));
        stop.cancel();
        telling.await.unwrap();
        tokio::time::sleep(WINDOW).await;
        assert_eq!(*heard.lock().unwrap(), [40, 2, 1], "what is left at the end is told, too");
        serving.stop().await;
    }
}
