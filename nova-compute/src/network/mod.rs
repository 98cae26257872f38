//! The host's network: what it is to be comes from the network service as [`HostNetwork`]; a [`Plumbing`] makes it so.
//!
//! Implementations: [`BooksPlumbing`] plugs nothing in (simulations, machines without the rights).

mod agent;
mod books;
#[cfg(target_os = "linux")]
pub mod linux;
mod options;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use nova_core::contracts::BoxError;
use nova_core::ids::{InstanceId, NetworkId, PortId};
use nova_core::network::{HostNetwork, PortStatus, Vif};
use nova_virt::InterfaceSpec;

pub use agent::{NetworkAgent, NetworkAgentOptions, NetworkAgentParts};
pub use books::BooksPlumbing;
pub use options::{NETWORK_HOST_OPTIONS, PLUMBING, PlumbingOptions, network_options_fit};

/// Why a host's network could not be made so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlumbingError {
    /// The configuration does not fit what is asked for, or the machine.
    #[error("{0}")]
    Unsupported(String),
    /// A command or the kernel said no.
    #[error("{doing} failed")]
    Failed {
        /// What was being done.
        doing: String,
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// How far the host's network is what it is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converged {
    /// The state of each port that is to be here.
    pub ports: BTreeMap<PortId, PortStatus>,
    /// What could not be made so, one line each; the rest was.
    pub problems: Vec<String>,
}

/// Makes a host's network what it is to be.
#[async_trait]
pub trait Plumbing: Send + Sync {
    /// Its name in the configuration: `books`, `linux`.
    fn name(&self) -> &'static str;

    /// Compares what is to be with what is, and closes the gap: also one that somebody else has opened. Safe to repeat;
    /// the same state again changes nothing. What is not in `wanted` and was made by this is removed. Interrupts no
    /// connection of a port that stays as it is. Where a part can't be done the rest is, and the answer says so; an error
    /// means that nothing is known.
    async fn converge(&self, wanted: &HostNetwork) -> Result<Converged, PlumbingError>;

    /// Has other members of groups in force at once, ahead of the rest and without a look at it. `None`: there is more to
    /// do than that, and [`Plumbing::converge`] does it; it also puts things right after an error.
    async fn adjust(&self, wanted: &HostNetwork) -> Result<Option<Converged>, PlumbingError> {
        let _ = wanted;
        Ok(None)
    }

    /// How a guest's interface is plugged in. The port is in the state that was made before; what passes it was decided
    /// there, so that a guest is never without its rules.
    fn interface(&self, wanted: &HostNetwork, vif: &Vif) -> Result<InterfaceSpec, PlumbingError>;

    /// Guests of these networks have come here while they run. They know the gateways of the host that they were on by those'
    /// MAC addresses: they are told of the ones here.
    async fn announce_gateways(
        &self,
        wanted: &HostNetwork,
        networks: &BTreeSet<NetworkId>,
    ) -> Result<(), PlumbingError> {
        let _ = (wanted, networks);
        Ok(())
    }

    /// Who asks for metadata there: callers that the host answers, each known by the port that it asks from.
    async fn metadata_doors(&self) -> Vec<MetadataDoor>;
}

/// What a guest's build and end need of the host's network.
#[async_trait]
pub trait HostNetworkAgent: Send + Sync {
    /// The host's network has these ports, in force: how each is plugged in, in the same order. Safe to repeat.
    async fn ready(&self, vifs: &[Vif]) -> Result<Vec<InterfaceSpec>, PlumbingError>;

    /// A guest with these has come from another host while it runs, and is to find its gateways.
    async fn arrived(&self, _vifs: &[Vif]) {}

    /// A guest was removed: what the host has for it may go, soon.
    async fn gone(&self, instance: InstanceId);

    /// The network service says that the host's network is to be otherwise.
    fn changed(&self) {}
}

/// A listening socket for the metadata of guests, with the guest behind each address that can ask there. Nobody else
/// can: the rules of the ports drop what is sent from a foreign address.
pub struct MetadataDoor {
    /// Its name, the same for as long as it is the same door.
    pub name: String,
    /// The socket, bound to 169.254.169.254:80 in the network's own namespace.
    pub listener: std::net::TcpListener,
    /// Who asks from there.
    pub callers: BTreeMap<std::net::IpAddr, (InstanceId, PortId)>,
}
