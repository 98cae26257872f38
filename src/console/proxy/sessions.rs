//! The sessions of a proxy: looked at again and again, and cut as soon as one has to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nova_core::console::SessionEnd;
use nova_core::error::chain;
use nova_core::ids::ConsoleSessionId;
use nova_core::rpc::consoleauth::SessionClaim;
use tokio::sync::watch;
use tokio::time::Instant;
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
    /// The proxy stops.
    Stopping,
}

struct Entry {
    claim: SessionClaim,
    cut: watch::Sender<Option<Cut>>,
    /// Of two with one id, the later one is in the table.
    number: u64,
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<ConsoleSessionId, Entry>,
    numbers: u64,
}

/// All sessions of a proxy. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    table: Arc<Mutex<Table>>,
}

/// A session that is in the table for as long as this lives.
pub(super) struct Held {
    sessions: Sessions,
    id: ConsoleSessionId,
    number: u64,
    cut: watch::Receiver<Option<Cut>>,
}

impl Held {
    /// Waits until it is cut.
    pub(super) async fn cut(&mut self) -> Cut {
        match self.cut.wait_for(Option::is_some).await.map(|cut| *cut) {
            Ok(Some(cut)) => cut,
            // Nobody is left to cut it: another one of its id has taken its place.
            _ => Cut::TakenOver,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        if table.entries.get(&self.id).is_some_and(|entry| entry.number == self.number) {
            table.entries.remove(&self.id);
            metrics::gauge!("nova_console_sessions").set(table.entries.len() as f64);
        }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more. One of its id that is there already is cut.
    pub(super) fn add(&self, claim: SessionClaim) -> Held {
        let (cut, receiver) = watch::channel(None);
        let mut table = self.lock();
        table.numbers += 1;
        let (id, number) = (claim.id, table.numbers);
        if let Some(old) = table.entries.insert(id, Entry { claim, cut, number }) {
            old.cut.send_replace(Some(Cut::TakenOver));
        }
        metrics::gauge!("nova_console_sessions").set(table.entries.len() as f64);
        Held { sessions: self.clone(), id, number, cut: receiver }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Cuts all of them.
    pub(super) fn cut_all(&self, cut: Cut) {
        for entry in self.lock().entries.values() {
            entry.cut.send_replace(Some(cut));
        }
    }

    fn claims(&self) -> Vec<SessionClaim> {
        self.lock().entries.values().map(|entry| entry.claim.clone()).collect()
    }

    fn end(&self, ended: &[(ConsoleSessionId, SessionEnd)]) {
        let table = self.lock();
        for (id, end) in ended {
            if let Some(entry) = table.entries.get(id) {
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
