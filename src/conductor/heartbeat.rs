//! Hosts' signs of life and inventories.

use jiff::Timestamp;
use nova_core::flavor::Resources;
use nova_core::host::{ComputeNode, Service};
use nova_core::ids::{ComputeNodeId, HostName, TaskId};
use nova_core::rpc::conductor::{HeartbeatReply, HeartbeatRequest, NodeReport};
use nova_core::rpc::scheduler::{HostsChanged, HostsChangedRequest, NodeNews, ServiceNews};
use nova_db::StoreError;
use nova_queue::{HandlerError, Incoming};

use super::engine::later;
use super::manager::Conductor;
use super::report::{speaks_of_itself, unavailable};
use nova_core::error::chain;

/// As much as the API takes of an operator.
const LONGEST_REASON: usize = 255;

impl Conductor {
    pub(super) async fn heartbeat(
        &self,
        incoming: Incoming,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatReply, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        let now = self.clock.now();
        let beat = self.beat_of(request.host.clone(), request.zone.clone());
        let brings = request.node.is_some() || request.stats.is_some() || request.disable.is_some();
        let service = if brings { self.record_beat_now(beat).await? } else { self.record_beat(beat).await? };
        self.keep_leases(&incoming, &request.working_on, now).await;
        let wished = wished(&service, &request, now);
        if !brings && wished.is_none() && self.beats.knows_node(&service) {
            return Ok(HeartbeatReply { now, send_node: false });
        }
        let node = match self.write_node(&request, now).await {
            Ok(node) => node,
            Err(StoreError::NotFound { .. }) => return Ok(HeartbeatReply { now, send_node: true }),
            Err(error) => return Err(unavailable(&error)),
        };
        self.beats.saw_node(&service);
        let turned = match wished {
            Some(wished) => Some(self.store.update_service(wished).await.map_err(|e| unavailable(&e))?),
            None => None,
        };
        if request.node.is_some() || request.stats.is_some() || turned.is_some() {
            self.tell_schedulers(&incoming, request.host, node, &turned.unwrap_or(service)).await;
        }
        Ok(HeartbeatReply { now, send_node: false })
    }

    /// Writes what the beat brings of the node, if anything.
    async fn write_node(&self, request: &HeartbeatRequest, now: Timestamp) -> Result<ComputeNode, StoreError> {
        match (&request.node, &request.stats) {
            (Some(report), _) => self.store.put_node(self.node(request, report, now)).await,
            (None, Some(stats)) => self.store.put_stats(&request.host, stats.clone()).await,
            (None, None) => self.store.node_of_host(&request.host).await,
        }
    }

    async fn tell_schedulers(&self, incoming: &Incoming, host: HostName, node: ComputeNode, service: &Service) {
        let (disabled, up) = (service.disabled, !service.forced_down);
        let news = HostsChangedRequest {
            services: vec![ServiceNews { host, disabled, up, generation: service.generation }],
            nodes: vec![NodeNews { node }],
            ..HostsChangedRequest::default()
        };
        if let Err(error) = self.services.rpc.fanout::<HostsChanged>(&incoming.context, &news).await {
            tracing::debug!("schedulers were not told: {}", chain(&error));
        }
    }

    /// What a host says it is working on is not given to it again, until it is done or the task's deadline is there.
    async fn keep_leases(&self, incoming: &Incoming, tasks: &[TaskId], now: Timestamp) {
        for id in tasks {
            if let Err(error) = self.keep_lease(incoming, *id, now).await {
                tracing::debug!(task = %id, "its lease was not prolonged: {}", chain(&error));
            }
        }
    }

    async fn keep_lease(&self, incoming: &Incoming, id: TaskId, now: Timestamp) -> Result<(), StoreError> {
        let task = self.store.get_task(id).await?;
        let instance = self.store.get_instance(task.instance_id).await?;
        let (Some(owner), true) = (&task.owner, instance.host.as_ref() == Some(&incoming.sender.host)) else {
            return Ok(());
        };
        let until = later(now, self.services.options.get().task_lease).min(task.deadline);
        self.store.renew_leases(&[id], owner, until).await
    }

    fn node(&self, request: &HeartbeatRequest, report: &NodeReport, now: Timestamp) -> ComputeNode {
        ComputeNode {
            id: ComputeNodeId::generate(&*self.entropy),
            number: 0,
            host: request.host.clone(),
            hypervisor_hostname: report.hypervisor_hostname.clone(),
            hypervisor_type: report.hypervisor_type.clone(),
            hypervisor_version: report.hypervisor_version,
            host_ip: report.host_ip.clone(),
            zone: request.zone.clone(),
            architectures: report.architectures.clone(),
            inventory: report.inventory,
            cpu_info: report.cpu_info.clone(),
            uptime: report.uptime.clone(),
            created_at: now,
            updated_at: now,
            generation: 0,
            used: Resources::default(),
            allocations: 0,
            facts: report.facts.clone(),
            stats: request.stats.clone().unwrap_or_default(),
        }
    }
}

/// The service as its host wants it, if it is otherwise. A host may take itself out of scheduling. It is put back by it only
/// when it was taken out for as long as something lasted, and that is over; else by an operator.
fn wished(known: &Service, request: &HeartbeatRequest, now: Timestamp) -> Option<Service> {
    let over = request.well && known.is_auto_disabled();
    if known.disabled && !over {
        return None;
    }
    let reason = match &request.disable {
        Some(reason) => Some(reason.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect::<String>()),
        None if over => None,
        None => return None,
    };
    match &reason {
        Some(reason) => tracing::warn!(host = %known.host, "taken out of scheduling: {reason}"),
        None => tracing::info!(host = %known.host, "put back into scheduling"),
    }
    Some(Service { disabled: reason.is_some(), disabled_reason: reason, updated_at: now, ..known.clone() })
}
