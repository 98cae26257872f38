//! Interfaces of guests that are there: plugged in and out by order, each order as often as it comes (nova/compute/manager.py,
//! `attach_interface`, `detach_interface`).

use std::time::Duration;

use async_trait::async_trait;
use nova_core::error::chain;
use nova_core::ids::InstanceId;
use nova_core::network::{HostNetwork, Vif};
use nova_core::rpc::compute::{AttachInterfaceOrder, DetachInterfaceOrder, Order};
use nova_core::rpc::conductor::StepOutcome;
use nova_virt::{ErrorKind, HypervisorError, InterfaceSpec};

use crate::agent::Agent;
use crate::network::{BooksPlumbing, HostNetworkAgent, Plumbing, PlumbingError};

/// Tries to unplug an interface.
const TRIES: u32 = 4;

/// The network of a host that has none: interfaces lead nowhere, and are there at once.
pub(crate) struct NoNetwork;

#[async_trait]
impl HostNetworkAgent for NoNetwork {
    async fn ready(&self, vifs: &[Vif]) -> Result<Vec<InterfaceSpec>, PlumbingError> {
        let nothing = HostNetwork::default();
        vifs.iter().map(|vif| BooksPlumbing.interface(&nothing, vif)).collect()
    }

    async fn gone(&self, _instance: InstanceId) {}
}

/// Why an interface was not plugged in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("the host's network does not have the port")]
    Network(#[source] PlumbingError),
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
}

impl AttachError {
    /// What the owner of the server may read: no driver's text.
    fn reason(&self) -> &'static str {
        match self {
            Self::Network(PlumbingError::Unsupported(_)) => "its host has no such network",
            Self::Network(PlumbingError::Failed { .. }) => "the network of its host is not ready for it",
            Self::Hypervisor(error) => reason(error),
        }
    }
}

/// What the owner of a server may read of a driver's failure.
fn reason(error: &HypervisorError) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "its guest is not there",
        ErrorKind::Unsupported => "its host cannot change the interfaces of a guest",
        ErrorKind::Unavailable => "the hypervisor does not answer",
        ErrorKind::InvalidState => "the guest is in a state in which its interfaces cannot be changed",
        ErrorKind::TimedOut => "the guest did not answer in time",
        ErrorKind::NoSpace => "its host has no space left",
        _ => "the hypervisor refused it",
    }
}

impl Agent {
    /// Which of these ports the host has to tell of: with a network agent, that one does.
    pub(crate) fn plugged(&self, vifs: &[Vif]) -> Vec<nova_core::ids::PortId> {
        if self.has_network_agent { Vec::new() } else { vifs.iter().map(|vif| vif.port_id).collect() }
    }

    pub(crate) async fn attach_interface(&self, order: &Order<AttachInterfaceOrder>) -> StepOutcome {
        let (id, vif) = (order.instance_id, &order.body.vif);
        match self.plug(id, vif).await {
            Ok(()) => {
                let done = self.done(order, self.plugged(std::slice::from_ref(vif))).await;
                self.placed(id, vif.tag.is_some(), done).await
            }
            Err(error) => {
                let left = self.unplug(id, &vif.mac_address.to_string()).await;
                let left = left.err().filter(|left| left.kind() != ErrorKind::Unsupported);
                if let Some(left) = &left {
                    tracing::warn!(instance = %id, port = %vif.port_id, "the interface was not taken back: {}", chain(left));
                }
                StepOutcome::Failed {
                    message: format!("Failed to attach network adapter device to {id}: {}", error.reason()),
                    details: chain(&error),
                    // Whether nothing of it is left.
                    retryable: left.is_none(),
                }
            }
        }
    }

    pub(crate) async fn plug(&self, id: InstanceId, vif: &Vif) -> Result<(), AttachError> {
        let ready = self.network.ready(std::slice::from_ref(vif)).await.map_err(AttachError::Network)?;
        for interface in &ready {
            self.hypervisor.attach_interface(id, interface).await?;
        }
        Ok(())
    }

    /// Unplugs, and tries again: an answer may be lost, and what is unplugged once is so for good. Without the guest there
    /// is no interface of it either.
    pub(crate) async fn unplug(&self, id: InstanceId, mac_address: &str) -> Result<(), HypervisorError> {
        let mut wait = Duration::from_millis(500);
        for attempt in 1.. {
            match self.hypervisor.detach_interface(id, mac_address).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) if attempt == TRIES || error.kind() == ErrorKind::Unsupported => return Err(error),
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        Ok(())
    }

    pub(crate) async fn detach_interface(&self, order: &Order<DetachInterfaceOrder>) -> StepOutcome {
        let id = order.instance_id;
        match self.unplug(id, &order.body.mac_address.to_string()).await {
            Ok(()) => self.done(order, Vec::new()).await,
            Err(error) => StepOutcome::Failed {
                message: format!("Failed to detach network adapter device from {id}: {}", reason(&error)),
                details: chain(&error),
                retryable: false,
            },
        }
    }
}
