//! Signs of life of the control services (nova/servicegroup): each writes its own row at intervals. Hosts have no store;
//! theirs go through a conductor.

use std::sync::Arc;
use std::time::Duration;

use nova_core::clock::Clock;
use nova_core::entropy::Entropy;
use nova_core::ids::{HostName, ServiceId, ZoneName};
use nova_db::{ServiceBeat, Store, StoreError};
use tokio_util::sync::CancellationToken;

use nova_core::error::chain;

/// The services of one process.
pub struct Membership {
    /// Where the rows are.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for the ids of new rows.
    pub entropy: Arc<dyn Entropy>,
    /// The host that they run on.
    pub host: HostName,
    /// The zone that they are shown in (`internal_service_availability_zone`).
    pub zone: ZoneName,
    /// `nova-conductor`, `nova-scheduler`, …
    pub binaries: Vec<&'static str>,
    /// How often (`report_interval`).
    pub interval: Duration,
}

impl Membership {
    /// Writes one sign of life of each, in one transaction.
    pub async fn beat(&self) -> Result<(), StoreError> {
        let beats: Vec<_> = self.binaries.iter().map(|binary| self.sign(binary)).collect();
        self.store.record_beats(&beats).await.map(drop)
    }

    fn sign(&self, binary: &str) -> ServiceBeat {
        ServiceBeat {
            new_id: ServiceId::generate(&*self.entropy),
            binary: binary.to_owned(),
            host: self.host.clone(),
            zone: self.zone.clone(),
            now: self.clock.now(),
            version: u32::from(nova_core::rpc::VERSION.minor),
        }
    }

    /// Goes on until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.beat().await {
                tracing::warn!("no sign of life was written: {}", chain(&error));
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }
}
