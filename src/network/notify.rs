//! Telling the network service that the books changed: all of a short while in one message, so that a burst of changes
//! costs little and nobody waits. What is lost is found by hosts that ask now and then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::error::chain;
use nova_core::ids::RequestId;
use nova_core::rpc::network::{BooksChanged, BooksChangedRequest};
use nova_queue::RpcClient;

use super::changes::Changes;

/// Changes are gathered for so long.
const WINDOW: Duration = Duration::from_millis(50);

/// A broker that takes longer than this is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// So much waits at most, as when the broker is away; what is not told is asked for.
const MOST: usize = 50_000;

/// Tells of changes of the books. Cheap to clone; clones gather together.
#[derive(Clone)]
pub struct Notifier {
    to: Option<Arc<Teller>>,
}

struct Teller {
    rpc: RpcClient,
    entropy: Arc<dyn Entropy>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    changes: Changes,
    /// Somebody waits to send it.
    due: bool,
}

impl Waiting {
    fn take(&mut self) -> BooksChangedRequest {
        std::mem::take(self).changes.into_news()
    }
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("tells", &self.to.is_some()).finish_non_exhaustive()
    }
}

impl Notifier {
    /// Tells the network service over that client.
    pub fn new(rpc: RpcClient, entropy: Arc<dyn Entropy>) -> Self {
        Self { to: Some(Arc::new(Teller { rpc, entropy, waiting: Mutex::default() })) }
    }

    /// Tells nobody: there is no network service to tell.
    pub fn silent() -> Self {
        Self { to: None }
    }

    /// What waits to be told, and does so no longer.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Option<BooksChangedRequest> {
        let teller = self.to.as_ref()?;
        let news = teller.waiting().take();
        (news != BooksChangedRequest::default()).then_some(news)
    }

    /// Will be told soon, with what else changes until then. Call it after the commit; within a tokio runtime.
    pub fn changed(&self, news: BooksChangedRequest) {
        let Some(teller) = &self.to else { return };
        let mut waiting = teller.waiting();
        if waiting.changes.len() < MOST {
            waiting.changes.add(news);
        }
        if waiting.changes.len() == 0 || waiting.due {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        waiting.due = true;
        drop(waiting);
        let teller = Arc::clone(teller);
        runtime.spawn(async move {
            tokio::time::sleep(WINDOW).await;
            teller.tell().await;
        });
    }
}

impl Teller {
    async fn tell(&self) {
        let news = self.waiting().take();
        let context = RequestContext::internal(RequestId::generate(&*self.entropy));
        match tokio::time::timeout(PATIENCE, self.rpc.cast::<BooksChanged>(&context, &news)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the network service was not told: {}", chain(&error)),
            Err(_) => tracing::debug!("the network service was not told: the broker does not answer"),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;
    use nova_core::ids::HostName;
    use nova_queue::testing::{VirtualClock, client};
    use nova_queue::{Dispatcher, MemoryBus, MessageBus, Subscription};

    use super::*;

    fn hosts(names: &[&str]) -> BooksChangedRequest {
        BooksChangedRequest { hosts: names.iter().map(|name| HostName::new(*name)).collect(), ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_message() {
        let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(Arc::new(VirtualClock::new())));
        let heard: Arc<Mutex<Vec<BooksChangedRequest>>> = Arc::default();
        let hearing = Arc::clone(&heard);
        let dispatcher = Dispatcher::new("network").method::<BooksChanged, _, _>(move |_, news| {
            hearing.lock().unwrap().push(news);
            async { Ok(()) }
        });
        let serving = bus.serve(Subscription::shared("network"), Arc::new(dispatcher)).await.unwrap();
        let notifier = Notifier::new(client(Arc::clone(&bus)), Arc::new(SeededEntropy::new(1)));
        notifier.changed(BooksChangedRequest::default());
        for name in ["h2", "h1", "h2"] {
            notifier.clone().changed(hosts(&[name]));
            tokio::time::sleep(WINDOW / 10).await;
        }
        tokio::time::sleep(2 * WINDOW).await;
        notifier.changed(hosts(&["h3"]));
        tokio::time::sleep(2 * WINDOW).await;
        assert_eq!(*heard.lock().unwrap(), [hosts(&["h1", "h2"]), hosts(&["h3"])]);
        serving.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_costs_nothing() {
        let bus: Arc<dyn MessageBus> = Arc::new(MemoryBus::new(Arc::new(VirtualClock::new())));
        Notifier::silent().changed(hosts(&["h1"]));
        // Nobody serves the topic: the cast fails, and that is all.
        let notifier = Notifier::new(client(Arc::clone(&bus)), Arc::new(SeededEntropy::new(1)));
        notifier.changed(hosts(&["h1"]));
        tokio::time::sleep(2 * WINDOW).await;
        notifier.changed(hosts(&["h1"]));
        assert!(notifier.to.as_ref().is_some_and(|teller| teller.waiting().due), "it goes on telling");
    }
}
