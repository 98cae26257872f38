//! Signs of life, and what the host has.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nova_core::flavor::Resources;
use nova_core::host::Inventory;
use nova_core::host_facts::HostFacts;
use nova_core::rpc::conductor::{Heartbeat, HeartbeatReply, HeartbeatRequest, NodeReport};
use nova_core::topology::{HostCell, format_cpu_set};
use nova_queue::BusError;
use nova_virt::HypervisorError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, AgentError};
use nova_core::error::chain;

/// An inventory that did not change is told again after so many looks at it: its uptime did change, and the store may be an
/// older one.
const TELL_EVERY: u32 = 10;

/// What the conductor was told of the node, and how often it was the same since. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ToldNode(Arc<Mutex<Option<(NodeReport, u32)>>>);

impl ToldNode {
    /// Is there something to tell? Asking counts.
    fn is_new(&self, report: &NodeReport) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((known, looks)) = told.as_mut() else { return true };
        *looks += 1;
        let same = NodeReport { uptime: known.uptime.clone(), ..report.clone() } == *known;
        !same || *looks >= TELL_EVERY
    }

    fn told(&self, report: NodeReport) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((report, 0));
    }
}

/// Heartbeats in a row that reports may take the place of: what only a heartbeat says (how busy the host is) waits so long.
const MOST_RESTS: u32 = 2;

/// What this host said lately. Reports are signs of life as well, so that a host that is at work need not send others. Cheap to
/// clone.
#[derive(Clone, Default)]
pub(crate) struct Spoken(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    /// When a report was last taken for a sign of life.
    reported: Option<Instant>,
    /// Heartbeats that were left out since the last one.
    rests: u32,
    /// The last heartbeat said that all is well.
    well: bool,
}

impl Spoken {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reported(&self) {
        self.said().reported = Some(Instant::now());
    }

    fn beat(&self, well: bool) {
        *self.said() = Said { well, ..Said::default() };
    }

    /// A heartbeat is due: can it be left out, and for how long?
    fn rest(&self, interval: Duration) -> Option<Duration> {
        let mut said = self.said();
        let left = interval.checked_sub(said.reported?.elapsed()).filter(|left| !left.is_zero())?;
        if !said.well || said.rests >= MOST_RESTS {
            return None;
        }
        said.rests += 1;
        Some(left)
    }
}

impl Agent {
    /// A report of this host was taken for a sign of life.
    pub(crate) fn was_heard(&self) {
        self.hearing.heard(self.clock.now());
        self.spoken.reported();
    }

    /// How long a heartbeat that is due can wait. One that brings news or keeps leases cannot.
    fn rest(&self) -> Option<Duration> {
        let hurries = !self.instances.working_on().is_empty()
            || self.health.sickness().is_some()
            || self.stats.news(false).1.is_some();
        if hurries { None } else { self.spoken.rest(self.options.report_interval) }
    }

    /// Says that the host lives until told to stop; sends its inventory when asked for it.
    pub(crate) async fn beat_until(&self, stop: CancellationToken) {
        let mut wait = self.options.report_interval;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if let Some(rest) = self.rest() {
                wait = rest;
                continue;
            }
            wait = self.options.report_interval;
            match self.send(self.beat(None)).await {
                Ok(reply) if reply.send_node => {
                    if let Err(error) = self.report_node().await {
                        tracing::warn!("the inventory was not reported: {}", chain(&error));
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("no conductor heard the heartbeat: {}", chain(&error)),
            }
        }
    }

    /// Asks the hypervisor what there is and tells the conductor.
    pub(crate) async fn report_node(&self) -> Result<(), AgentError> {
        let report = self.look_at_node().await?;
        self.tell_node(report).await
    }

    /// The same, but an inventory that the conductor has is told again only every [`TELL_EVERY`] times.
    pub(crate) async fn report_changed_node(&self) -> Result<(), AgentError> {
        let report = self.look_at_node().await?;
        if self.told_node.is_new(&report) { self.tell_node(report).await } else { Ok(()) }
    }

    async fn look_at_node(&self) -> Result<NodeReport, AgentError> {
        let report = self.node().await?;
        self.tracker.set_inventory(report.inventory);
        let cpus = u32::try_from(report.inventory.total.vcpus).unwrap_or(u32::MAX);
        self.stats.measure(&*self.hypervisor, self.options.monitors, cpus).await;
        Ok(report)
    }

    async fn tell_node(&self, report: NodeReport) -> Result<(), AgentError> {
        self.send(self.beat(Some(report.clone()))).await?;
        self.told_node.told(report);
        Ok(())
    }

    async fn send(&self, beat: HeartbeatRequest) -> Result<HeartbeatReply, BusError> {
        let reply = self.rpc.call::<Heartbeat>(&self.context(), &beat).await?;
        self.hearing.heard(self.clock.now());
        self.stats.told(beat.stats.as_ref(), beat.disable.as_ref());
        self.spoken.beat(beat.well && beat.disable.is_none());
        Ok(reply)
    }

    fn beat(&self, node: Option<NodeReport>) -> HeartbeatRequest {
        let (stats, failed_builds) = self.stats.news(node.is_some());
        let sickness = self.health.sickness();
        HeartbeatRequest {
            host: self.options.host.clone(),
            zone: self.options.zone.clone(),
            node,
            working_on: self.instances.working_on(),
            stats,
            well: sickness.is_none(),
            disable: sickness.or(failed_builds),
        }
    }

    async fn node(&self) -> Result<NodeReport, HypervisorError> {
        let (has, can) = (self.hypervisor.resources().await?, self.hypervisor.capabilities());
        let options = &self.options;
        let (shared, dedicated) = (options.cpu_shared_set.as_ref(), options.cpu_dedicated_set.as_ref());
        let cells: Vec<HostCell> = has.cells.into_iter().map(|cell| cell.split(shared, dedicated)).collect();
        // With sets, only shared CPUs are sold by the number; those for guests of their own are counted in the cells.
        let vcpus = match shared.or(dedicated) {
            Some(_) => cells.iter().map(|cell| cell.shared_cpus.len() as u64).sum(),
            None => u64::from(has.vcpus),
        };
        warn_of_missing(&cells, shared.into_iter().chain(dedicated).flatten());
        Ok(NodeReport {
            hypervisor_hostname: has.hypervisor_hostname,
            hypervisor_type: has.hypervisor_type,
            hypervisor_version: has.hypervisor_version,
            host_ip: has.host_ip,
            architectures: can.architectures,
            inventory: Inventory {
                total: Resources { vcpus, memory_mb: has.memory_mb, disk_gb: has.disk_gb },
                reserved: options.reserved,
                cpu_ratio: options.cpu_ratio,
                ram_ratio: options.ram_ratio,
                disk_ratio: options.disk_ratio,
            },
            cpu_info: has.cpu_info,
            uptime: Some(has.uptime),
            facts: HostFacts {
                traits: has.traits.union(&options.traits).cloned().collect(),
                cells,
                guests_see_cpu: has.guests_see_cpu,
            },
        })
    }
}

/// CPUs of the sets that the machine does not have.
fn warn_of_missing<'a>(cells: &[HostCell], wanted: impl Iterator<Item = &'a u32>) {
    let has = |cpu: &&u32| cells.iter().any(|cell| cell.shared_cpus.contains(cpu) || cell.dedicated_cpus.contains(cpu));
    let missing: BTreeSet<u32> = wanted.filter(|cpu| !has(cpu)).copied().collect();
    if !missing.is_empty() {
        let missing = format_cpu_set(&missing);
        tracing::warn!(cpus = missing, "compute.cpu_shared_set and cpu_dedicated_set name CPUs that are not there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(vcpus: u64, uptime: &str) -> NodeReport {
        let total = Resources { vcpus, memory_mb: 1024, disk_gb: 10 };
        NodeReport {
            hypervisor_hostname: "host1".into(),
            hypervisor_type: "fake".into(),
            hypervisor_version: 1,
            host_ip: "192.0.2.1".into(),
            architectures: Vec::new(),
            inventory: Inventory {
                total,
                reserved: Resources::default(),
                cpu_ratio: 1.0,
                ram_ratio: 1.0,
                disk_ratio: 1.0,
            },
            cpu_info: serde_json::Value::Null,
            uptime: Some(uptime.into()),
            facts: HostFacts::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_left_out_after_reports_but_not_all() {
        let (spoken, interval) = (Spoken::default(), Duration::from_secs(10));
        spoken.reported();
        assert_eq!(spoken.rest(interval), None, "nothing was said of its health");
        spoken.beat(true);
        assert_eq!(spoken.rest(interval), None, "nothing was reported since");
        spoken.reported();
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(spoken.rest(interval), Some(Duration::from_secs(6)), "ten seconds after the report");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(spoken.rest(interval), None, "the report is too old");
        spoken.reported();
        assert_eq!(spoken.rest(interval), Some(interval));
        spoken.reported();
        assert_eq!(spoken.rest(interval), None, "two were left out");
        spoken.beat(false);
        spoken.reported();
        assert_eq!(spoken.rest(interval), None, "that it is well again is news");
    }

    #[test]
    fn a_node_is_told_when_it_changed_and_now_and_then() {
        let told = ToldNode::default();
        assert!(told.is_new(&node(4, "up 1 min")), "nothing was told yet");
        assert!(told.is_new(&node(4, "up 1 min")), "asking is not telling");
        told.told(node(4, "up 1 min"));
        assert!(told.is_new(&node(8, "up 2 min")));
        for _ in 2..TELL_EVERY {
            assert!(!told.is_new(&node(4, "up 3 min")), "only the uptime is another");
        }
        assert!(told.is_new(&node(4, "up 9 min")));
        told.told(node(4, "up 9 min"));
        assert!(!told.is_new(&node(4, "up 10 min")));
    }
}
