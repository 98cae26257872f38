//! The hypervisors of this machine, as a check reaches them.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use nova::check::{GuestFacts, HostFacts, Hosts};
use nova_core::contracts::BoxError;
use nova_core::error::chain;
use nova_core::ids::{HostName, InstanceId};
use nova_core::options::{Config, common};
use nova_virt::Hypervisor;

use crate::parts;

/// A hypervisor that has not answered by then is told as not reached.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the hypervisors that the configuration names, anew for each look: the fake reads its file only then.
#[derive(Debug, Clone)]
pub struct DriverHosts {
    config: Config,
    state: PathBuf,
}

impl DriverHosts {
    /// Those of this configuration.
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), state: config.get(&common::STATE_PATH) }
    }

    /// Fake guests live in the memory of the process that runs them; a change of their file would be lost.
    fn kept_by_a_process(&self) -> Option<&'static str> {
        if self.config.get(&common::COMPUTE_DRIVER) != "fake" {
            return None;
        }
        ["nova-all", "nova-compute"].into_iter().find(|program| {
            let lock = File::open(self.state.join(format!("{program}.lock")));
            lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
        })
    }
}

#[async_trait]
impl Hosts for DriverHosts {
    async fn read(&self) -> Vec<HostFacts> {
        let hypervisors = match parts::open_hypervisors(&self.config, &self.state) {
            Ok(hypervisors) => hypervisors,
            Err(error) => {
                let host = HostName::new(self.config.get(&common::HOST));
                return vec![HostFacts { host, problem: Some(error.to_string()), guests: Vec::new() }];
            }
        };
        let mut all = Vec::new();
        for (host, hypervisor) in hypervisors {
            let (problem, guests) = match guests_of(&*hypervisor).await {
                Ok(guests) => (None, guests),
                Err(problem) => (Some(problem), Vec::new()),
            };
            all.push(HostFacts { host, problem, guests });
        }
        all
    }

    async fn destroy_guest(&self, host: &HostName, instance: InstanceId) -> Result<(), BoxError> {
        if let Some(program) = self.kept_by_a_process() {
            return Err(format!(
                "{program} runs and keeps its fake guests in memory; it removes such a guest by itself within a minute"
            )
            .into());
        }
        let hypervisors = parts::open_hypervisors(&self.config, &self.state)?;
        let hypervisor = hypervisors.into_iter().find_map(|(name, driver)| (name == *host).then_some(driver));
        let hypervisor = hypervisor.ok_or("its hypervisor is not on this machine")?;
        Ok(tokio::time::timeout(PATIENCE, hypervisor.destroy(instance)).await??)
    }
}

async fn guests_of(hypervisor: &dyn Hypervisor) -> Result<Vec<GuestFacts>, String> {
    let listed = tokio::time::timeout(PATIENCE, hypervisor.list()).await;
    let listed = listed.map_err(|_| format!("no answer in {} s", PATIENCE.as_secs()))?;
    let guests = listed.map_err(|error| chain(&error))?;
    Ok(guests
        .into_iter()
        .map(|guest| GuestFacts {
            instance: guest.instance,
            name: guest.name,
            power_state: guest.power_state,
            epoch: guest.epoch,
        })
        .collect())
}
