//! Hosts' signs of life, those of a short while in one transaction: a thousand hosts that say every ten seconds that they
//! live cost the database five transactions a second and not a hundred.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nova_core::error::chain;
use nova_core::host::Service;
use nova_core::ids::{HostName, ServiceId, ZoneName};
use nova_core::rpc::{Refusal, RefusalKind};
use nova_db::ServiceBeat;
use nova_queue::HandlerError;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::engine::signed;
use super::manager::Conductor;
use super::report::unavailable;

/// For so long signs of life are gathered. Far below `report_interval`, so that no host seems silent for it.
const WINDOW: Duration = Duration::from_millis(200);

/// A host that reports all the time is noted to live so often within `service_down_time`, not more.
const NOTED: u32 = 20;

/// Signs of life that are still to be written.
#[derive(Debug, Default)]
pub(super) struct Beats {
    waiting: Mutex<Waiting>,
    some: Notify,
    /// Hosts whose node the store was seen to have, by the service that it was seen with: another one may have none.
    nodes: Mutex<HashMap<HostName, ServiceId>>,
    /// When hosts that report were last noted to live.
    noted: Mutex<HashMap<HostName, Timestamp>>,
}

#[derive(Debug, Default)]
struct Waiting {
    beats: Vec<(ServiceBeat, oneshot::Sender<Service>)>,
    /// Nobody writes any more.
    ended: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Beats {
    /// Will be written soon; then the answer comes. Without one it was not written.
    fn add(&self, beat: ServiceBeat) -> oneshot::Receiver<Service> {
        let (tell, told) = oneshot::channel();
        let mut waiting = locked(&self.waiting);
        if !waiting.ended {
            waiting.beats.push((beat, tell));
        }
        drop(waiting);
        self.some.notify_one();
        told
    }

    /// The store has this host's node.
    pub(super) fn saw_node(&self, service: &Service) {
        locked(&self.nodes).insert(service.host.clone(), service.id);
    }

    /// Was the node of that service's host seen?
    pub(super) fn knows_node(&self, service: &Service) -> bool {
        locked(&self.nodes).get(&service.host) == Some(&service.id)
    }
}

impl Conductor {
    /// A sign of life, now.
    pub(super) fn beat_of(&self, host: HostName, zone: ZoneName) -> ServiceBeat {
        ServiceBeat {
            new_id: ServiceId::generate(&*self.entropy),
            binary: "nova-compute".into(),
            host,
            zone,
            now: self.clock.now(),
            version: u32::from(nova_core::rpc::VERSION.minor),
        }
    }

    /// The next batch has that a host lives. Should it be lost, the host says it again soon enough.
    pub(super) fn note_beat(&self, beat: ServiceBeat) {
        let before = locked(&self.beats.noted).get(&beat.host).copied();
        let lately = signed(self.services.options.get().service_down_time / NOTED);
        if before.is_some_and(|before| beat.now.duration_since(before) < lately) {
            return;
        }
        locked(&self.beats.noted).insert(beat.host.clone(), beat.now);
        drop(self.beats.add(beat));
    }

    /// Writes that a host lives, with what others say within [`WINDOW`].
    pub(super) async fn record_beat(&self, beat: ServiceBeat) -> Result<Service, HandlerError> {
        let written = self.beats.add(beat).await;
        written.map_err(|_| Refusal::new(RefusalKind::Unavailable, "that the host lives was not written").into())
    }

    /// The same without waiting for others: for a host that has more to say.
    pub(super) async fn record_beat_now(&self, beat: ServiceBeat) -> Result<Service, HandlerError> {
        let services = self.store.record_beats(std::slice::from_ref(&beat)).await.map_err(|e| unavailable(&e))?;
        let none = || Refusal::new(RefusalKind::Unavailable, "the host's service went while it was written").into();
        services.into_iter().next().ok_or_else(none)
    }

    /// Writes signs of life, a short while after the first of them. At the end, what is left.
    pub(super) async fn write_beats_until(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = async { self.beats.some.notified().await; tokio::time::sleep(WINDOW).await } => {}
            }
            self.write_beats(stop.is_cancelled()).await;
        }
    }

    async fn write_beats(&self, last: bool) {
        let waiting =
            std::mem::replace(&mut *locked(&self.beats.waiting), Waiting { ended: last, ..Waiting::default() });
        // One time for all, the latest: a group of rows that are written alike is one statement.
        let Some(now) = waiting.beats.iter().map(|(beat, _)| beat.now).max() else { return };
        let (mut beats, tells): (Vec<_>, Vec<_>) = waiting.beats.into_iter().unzip();
        beats.iter_mut().for_each(|beat| beat.now = now);
        match self.store.record_beats(&beats).await {
            Ok(services) => {
                let by_host: HashMap<HostName, Service> = services.into_iter().map(|s| (s.host.clone(), s)).collect();
                for (beat, tell) in beats.into_iter().zip(tells) {
                    if let Some(service) = by_host.get(&beat.host) {
                        // One that does not wait any more need not know.
                        let _ = tell.send(service.clone());
                    }
                }
            }
            // Whoever waits hears nothing, and says it again.
            Err(error) => tracing::warn!(hosts = beats.len(), "that hosts live was not written: {}", chain(&error)),
        }
    }
}
