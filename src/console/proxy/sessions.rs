//! The sessions of a proxy: looked at again and again, and cut as soon as one has to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nova_core::console::{ConsoleType, SessionEnd};
use nova_core::error::chain;
use nova_core::ids::ConsoleSessionId;
use nova_core::rpc::consoleauth::SessionClaim;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::{Authority, ProxyOptions};

/// Why a session is cut from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server or the user may not have it any more.
    Ended(SessionEnd),
    /// For too long nobody could say whether it may go on.
    Unchecked,
    /// The client goes on with it over another connection.
    TakenOver,
    /// With another of its connections, and for its reason.
    Together(CloseCode, &'static str),
    /// The proxy stops.
    Stopping,
}

struct Entry {
    claim: SessionClaim,
    cut: watch::Sender<Option<Cut>>,
}

/// A connection: its session, and a number of its own, since sessions may have several.
type Key = (ConsoleSessionId, u64);

#[derive(Default)]
struct Table {
    entries: BTreeMap<Key, Entry>,
    numbers: u64,
    /// All of them were cut since the proxy stops: whatever opens later is, too.
    stopping: bool,
}

impl Table {
    fn told(&self) {
        metrics::gauge!("nova_console_sessions").set(self.entries.len() as f64);
    }

    fn of(&self, id: ConsoleSessionId) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range((id, u64::MIN)..=(id, u64::MAX))
    }
}

/// Connections that a session may have here: twice what clients open for a screen with sound.
const MOST_CHANNELS: usize = 12;

/// All sessions of a proxy. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    table: Arc<Mutex<Table>>,
}

/// A connection that is in the table for as long as this lives.
pub(super) struct Held {
    sessions: Sessions,
    key: Key,
    cut: watch::Receiver<Option<Cut>>,
}

/// Which connection, for whoever does not hold it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Which(Key);

impl Held {
    pub(super) fn which(&self) -> Which {
        Which(self.key)
    }

    /// Waits until it is cut.
    pub(super) async fn cut(&mut self) -> Cut {
        match self.cut.wait_for(Option::is_some).await.map(|cut| *cut) {
            Ok(Some(cut)) => cut,
            // Nobody is left to cut it: it is not in the table.
            _ => Cut::TakenOver,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        table.entries.remove(&self.key);
        table.told();
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, beside those of its session that there are; `None`: there are as many as may be.
    pub(super) fn add(&self, claim: SessionClaim, console_type: ConsoleType) -> Option<Held> {
        let mut table = self.lock();
        let (cut, receiver) = watch::channel(table.stopping.then_some(Cut::Stopping));
        let most = if console_type.has_channels() { MOST_CHANNELS } else { usize::MAX };
        if table.of(claim.id).count() >= most {
            return None;
        }
        table.numbers += 1;
        let key = (claim.id, table.numbers);
        table.entries.insert(key, Entry { claim, cut });
        table.told();
        Some(Held { sessions: self.clone(), key, cut: receiver })
    }

    /// What ended that connection ends the others of its session here.
    pub(super) fn end_others(&self, Which(own): Which, code: CloseCode, reason: &'static str) {
        for (_, other) in self.lock().of(own.0).filter(|(key, _)| **key != own) {
            other.cut.send_if_modified(|cut| {
                let first = cut.is_none();
                cut.get_or_insert(Cut::Together(code, reason));
                first
            });
        }
    }

    /// It is the session now: those that were its connections before are cut.
    pub(super) fn take_over(&self, Which(own): Which) {
        for (_, before) in self.lock().of(own.0).filter(|(key, _)| key.1 < own.1) {
            before.cut.send_replace(Some(Cut::TakenOver));
        }
    }

    /// How many connections there are.
    pub(super) fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Cuts all of them, and those that are still being opened as soon as they are.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.cut_all(Cut::Stopping);
    }

    /// Cuts all of them.
    fn cut_all(&self, cut: Cut) {
        for entry in self.lock().entries.values() {
            entry.cut.send_replace(Some(cut));
        }
    }

    /// One for each session.
    fn claims(&self) -> Vec<SessionClaim> {
        let mut claims: Vec<_> = self.lock().entries.values().map(|entry| entry.claim.clone()).collect();
        claims.dedup_by_key(|claim| claim.id);
        claims
    }

    fn end(&self, ended: &[(ConsoleSessionId, SessionEnd)]) {
        let table = self.lock();
        for (id, end) in ended {
            for (_, entry) in table.of(*id) {
                entry.cut.send_replace(Some(Cut::Ended(*end)));
            }
        }
    }

    /// Asks again and again which sessions have to end. If nobody answers for too long, all of them do.
    pub(super) async fn check_until(&self, authority: &dyn Authority, options: &ProxyOptions, stop: CancellationToken) {
        let mut good = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(options.check_interval) => {}
            }
            let claims = self.claims();
            if claims.is_empty() {
                good = Instant::now();
                continue;
            }
            match authority.check(claims).await {
                Ok(ended) => {
                    good = Instant::now();
                    self.end(&ended);
                }
                Err(error) => {
                    tracing::warn!("sessions cannot be checked: {}", chain(&error));
                    if good.elapsed() >= options.check_patience {
                        self.cut_all(Cut::Unchecked);
                    }
                }
            }
        }
    }
}
