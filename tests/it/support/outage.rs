//! A broker and a database that go away in the midst of something, and come back.

use std::sync::Mutex;

use nova_core::rpc::Envelope;
use nova_db::Outage;
use nova_queue::{BusError, Counters, Handler, Serving, Subscription, Target};
use tokio::sync::watch;

use super::*;

/// How long each is away: services look again for what they could not do more often than that, and take no host for dead.
const AWAY: Duration = Duration::from_secs(10);

/// What becomes of the message in whose midst the broker goes away. Those after it are refused, and nobody gets an answer that he
/// waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// It is refused.
    Refused,
    /// It is delivered, which its sender is not told.
    Unconfirmed,
    /// It was taken, and is gone.
    Lost,
    /// It was taken, and is delivered when the broker is back.
    Kept,
}

impl Fate {
    pub const ALL: [Self; 4] = [Self::Refused, Self::Unconfirmed, Self::Lost, Self::Kept];
}

/// Wraps a bus. From some message on it is away.
pub struct Broker {
    inner: Arc<dyn MessageBus>,
    /// How many messages go through before, and what becomes of the next.
    to_come: Mutex<Option<(u32, Fate)>>,
    away: watch::Sender<bool>,
}

fn gone() -> BusError {
    BusError::Unavailable { source: "it is away for a test".into() }
}

impl Broker {
    pub fn new(inner: Arc<dyn MessageBus>) -> Self {
        Self { inner, to_come: Mutex::new(None), away: watch::Sender::new(false) }
    }

    /// From now on so many messages go through; then it is away.
    fn go_away(&self, after: u32, fate: Fate) {
        *self.to_come.lock().unwrap() = Some((after, fate));
    }

    /// It is there, and stays.
    fn come_back(&self) {
        *self.to_come.lock().unwrap() = None;
        self.away.send_replace(false);
    }

    fn is_away(&self) -> bool {
        *self.away.borrow()
    }

    /// Counts a message. `None`: it goes through.
    fn fate(&self) -> Option<Fate> {
        if self.is_away() {
            return Some(Fate::Refused);
        }
        let mut to_come = self.to_come.lock().unwrap();
        let (after, fate) = (*to_come)?;
        if after > 0 {
            *to_come = Some((after - 1, fate));
            return None;
        }
        *to_come = None;
        self.away.send_replace(true);
        Some(fate)
    }

    async fn until_away(&self) {
        // Its sender is here, so that it does not end before.
        drop(self.away.subscribe().wait_for(|away| *away).await);
    }
}

#[async_trait]
impl MessageBus for Broker {
    async fn cast(&self, target: &Target, message: Envelope) -> Result<(), BusError> {
        match self.fate() {
            None => self.inner.cast(target, message).await,
            Some(Fate::Refused) => Err(gone()),
            Some(Fate::Unconfirmed) => self.inner.cast(target, message).await.and(Err(gone())),
            Some(Fate::Lost) => Ok(()),
            Some(Fate::Kept) => {
                let (inner, target, mut away) = (self.inner.clone(), target.clone(), self.away.subscribe());
                tokio::spawn(async move {
                    drop(away.wait_for(|away| !away).await);
                    drop(inner.cast(&target, message).await);
                });
                Ok(())
            }
        }
    }

    async fn call(&self, target: &Target, message: Envelope, timeout: Duration) -> Result<Value, BusError> {
        let timed_out = BusError::TimedOut { method: message.method.clone(), queue: target.queue(), timeout };
        match self.fate() {
            None => tokio::select! {
                biased;
                () = self.until_away() => Err(gone()),
                answer = self.inner.call(target, message, timeout) => answer,
            },
            Some(Fate::Refused) => Err(gone()),
            Some(Fate::Unconfirmed) => {
                let (inner, target) = (self.inner.clone(), target.clone());
                tokio::spawn(async move { inner.call(&target, message, timeout).await });
                Err(gone())
            }
            Some(Fate::Lost | Fate::Kept) => {
                tokio::time::sleep(timeout).await;
                Err(timed_out)
            }
        }
    }

    async fn fanout(&self, topic: &str, message: Envelope) -> Result<(), BusError> {
        if self.is_away() { Err(gone()) } else { self.inner.fanout(topic, message).await }
    }

    async fn serve(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<Serving, BusError> {
        self.inner.serve(subscription, handler).await
    }

    async fn ping(&self) -> Result<(), BusError> {
        if self.is_away() { Err(gone()) } else { self.inner.ping().await }
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

/// What goes away, and in the midst of what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gone {
    Broker(Fate),
    /// `late`: it carried out the transaction that it does not answer to.
    Database {
        late: bool,
    },
}

impl Gone {
    pub fn all() -> Vec<Self> {
        let databases = [false, true].map(|late| Self::Database { late });
        Fate::ALL.map(Self::Broker).into_iter().chain(databases).collect()
    }

    /// Those after which least is known.
    pub fn harshest() -> Vec<Self> {
        vec![Self::Broker(Fate::Unconfirmed), Self::Database { late: true }]
    }

    fn go_away(self, cloud: &Cloud, after: u32) {
        match self {
            Self::Broker(fate) => cloud.broker.go_away(after, fate),
            Self::Database { late } => cloud.database.go_away(Some(Outage { after, lasts: u32::MAX, late })),
        }
    }

    fn come_back(self, cloud: &Cloud) {
        match self {
            Self::Broker(_) => cloud.broker.come_back(),
            Self::Database { .. } => cloud.database.go_away(None),
        }
    }

    fn is_away(self, cloud: &Cloud) -> bool {
        match self {
            Self::Broker(_) => cloud.broker.is_away(),
            Self::Database { .. } => cloud.database.is_away(),
        }
    }

    /// Does something in a cloud from which this goes away after so many messages or questions, for a while. False: all was over
    /// before.
    pub async fn in_the_midst<T>(self, cloud: &Cloud, after: u32, work: impl Future<Output = T>) -> (T, bool) {
        let asked = watch::Sender::new(false);
        self.go_away(cloud, after);
        let work = async {
            let done = work.await;
            asked.send_replace(true);
            done
        };
        let outage = async {
            while !self.is_away(cloud) {
                if *asked.borrow() && cloud.is_at_rest().await {
                    break;
                }
                cloud.pass(Duration::from_millis(5)).await;
            }
            let went = self.is_away(cloud);
            if went {
                cloud.pass(AWAY).await;
            }
            self.come_back(cloud);
            went
        };
        tokio::join!(work, outage)
    }
}

impl Cloud {
    /// Nobody does anything, on servers or on volumes.
    async fn is_at_rest(&self) -> bool {
        self.store.list_tasks(None).await.unwrap().is_empty()
            && self.store.list_volume_tasks(&nova_db::ListQuery::default()).await.unwrap().is_empty()
    }
}
