//! Does the hypervisor answer? A host whose hypervisor is gone or hangs lives on, and hears orders that it can't carry out: it
//! asks to be taken out of scheduling, and to be put back when the hypervisor answers again (nova/virt/libvirt/driver.py,
//! `_set_host_enabled`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::error::chain;
use nova_core::host::AUTO_DISABLED;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;

/// What is known of the hypervisor. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Health {
    /// So long it may be silent or fail.
    patience: Duration,
    state: Arc<Mutex<State>>,
}

struct State {
    /// When it last answered as it should.
    answered: Instant,
    /// Why the host is out of scheduling.
    sick: Option<String>,
}

impl Health {
    /// One that answers now.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, state: Arc::new(Mutex::new(State { answered: Instant::now(), sick: None })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the host asks to be taken out of scheduling; `None`: it is well.
    pub(crate) fn sickness(&self) -> Option<String> {
        self.state().sick.clone()
    }

    /// It answered as it should.
    pub(crate) fn well(&self) {
        let mut state = self.state();
        state.answered = Instant::now();
        if state.sick.take().is_some() {
            tracing::info!("the hypervisor answers again");
        }
    }

    /// It failed, or did not answer. A moment of that is no sickness: daemons are restarted.
    pub(crate) fn failed(&self, why: &str) {
        let mut state = self.state();
        if state.sick.is_none() && state.answered.elapsed() >= self.patience {
            tracing::error!("the host asks to be taken out of scheduling: {why}");
            state.sick = Some(format!("{AUTO_DISABLED}{why}"));
        }
    }
}

impl Agent {
    /// Asks the hypervisor whether it is there, as often as the host says that it lives, until told to stop.
    pub(crate) async fn probe_until(&self, stop: CancellationToken) {
        let probing = async {
            loop {
                tokio::time::sleep(self.options.report_interval).await;
                self.probe().await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = probing => {}
        }
    }

    async fn probe(&self) {
        let patience = self.options.hypervisor_timeout;
        match tokio::time::timeout(patience, self.hypervisor.resources()).await {
            Ok(Ok(_)) => self.health.well(),
            Ok(Err(error)) => self.health.failed(&format!("the hypervisor fails: {}", chain(&error))),
            Err(_) => {
                let seconds = patience.as_secs();
                self.health.failed(&format!("the hypervisor has not answered for {seconds} seconds"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hypervisor_that_fails_for_a_moment_only_is_well() {
        let health = Health::new(Duration::from_secs(30));
        for _ in 0..9 {
            tokio::time::advance(Duration::from_secs(20)).await;
            health.failed("no daemon");
            assert_eq!(health.sickness(), None, "daemons are restarted");
            health.well();
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        health.failed("no daemon");
        assert_eq!(health.sickness().as_deref(), Some("AUTO: no daemon"));
        health.failed("another reason");
        assert_eq!(health.sickness().as_deref(), Some("AUTO: no daemon"), "what it began with");
        health.well();
        assert_eq!(health.sickness(), None);
    }
}
