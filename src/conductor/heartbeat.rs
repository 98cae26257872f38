//! Hosts' signs of life and inventories.

use jiff::Timestamp;
use nova_core::flavor::Resources;
use nova_core::host::ComputeNode;
use nova_core::ids::{ComputeNodeId, ServiceId, TaskId};
use nova_core::rpc::conductor::{HeartbeatReply, HeartbeatRequest, NodeReport};
use nova_core::rpc::scheduler::{HostsChanged, HostsChangedRequest, NodeNews, ServiceNews};
use nova_db::{ServiceBeat, StoreError};
use nova_queue::{HandlerError, Incoming};

use super::engine::later;
use super::manager::Conductor;
use super::report::{speaks_of_itself, unavailable};
use nova_core::error::chain;

impl Conductor {
    pub(super) async fn heartbeat(
        &self,
        incoming: Incoming,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatReply, HandlerError> {
        speaks_of_itself(&incoming, &request.host)?;
        let now = self.clock.now();
        let beat = ServiceBeat {
            new_id: ServiceId::generate(&*self.entropy),
            binary: "nova-compute".into(),
            host: request.host.clone(),
            zone: request.zone.clone(),
            now,
            version: u32::from(nova_core::rpc::VERSION.minor),
        };
        let services = self.store.record_beats(std::slice::from_ref(&beat)).await.map_err(|e| unavailable(&e))?;
        self.keep_leases(&incoming, &request.working_on, now).await;
        let Some(report) = &request.node else {
            let known = match self.store.node_of_host(&request.host).await {
                Ok(_) => true,
                Err(StoreError::NotFound { .. }) => false,
                Err(error) => return Err(unavailable(&error)),
            };
            return Ok(HeartbeatReply { now, send_node: !known });
        };
        let node = self.node(&request, report, now);
        let node = self.store.put_node(node).await.map_err(|e| unavailable(&e))?;
        let service = services.first();
        let (disabled, up) = (service.is_some_and(|s| s.disabled), service.is_none_or(|s| !s.forced_down));
        let generation = service.map_or(0, |s| s.generation);
        let news = HostsChangedRequest {
            services: vec![ServiceNews { host: request.host, disabled, up, generation }],
            nodes: vec![NodeNews { node }],
            ..HostsChangedRequest::default()
        };
        if let Err(error) = self.services.rpc.fanout::<HostsChanged>(&incoming.context, &news).await {
            tracing::debug!("schedulers were not told: {}", chain(&error));
        }
        Ok(HeartbeatReply { now, send_node: false })
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
        }
    }
}
