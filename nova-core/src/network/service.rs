//! What compute needs of a network service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Cidr, HostRoute, MacAddress, PortStatus};
use crate::context::RequestContext;
use crate::contracts::BoxError;
use crate::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, SubnetId};

/// Why the network service did not do it. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkServiceError {
    /// No such network, or none that this project may use.
    #[error("Network {id} could not be found.")]
    NetworkNotFound {
        /// The id.
        id: NetworkId,
    },
    /// No such port, or none of this project.
    #[error("Port id {id} could not be found.")]
    PortNotFound {
        /// The id.
        id: PortId,
    },
    /// Somebody else uses the port.
    #[error("Port {id} is still in use.")]
    PortInUse {
        /// The id.
        id: PortId,
    },
    /// The same port, or network where that is not possible, twice in one request.
    #[error("Port {id} is named more than once.")]
    PortTwice {
        /// The id.
        id: PortId,
    },
    /// A server cannot be reached there.
    #[error("Network {id} requires a subnet in order to boot instances on.")]
    NoSubnet {
        /// The network.
        id: NetworkId,
    },
    /// Users' servers are not plugged into outer networks.
    #[error("It is not allowed to create an interface on external network {id}")]
    External {
        /// The network.
        id: NetworkId,
    },
    /// No network was named, and there are several.
    #[error("Multiple possible networks found, use a Network ID to be more specific.")]
    Ambiguous,
    /// `auto`, and the cloud lacks what that takes.
    #[error("Unable to automatically allocate a network for project {project}")]
    CannotAutoAllocate {
        /// The project.
        project: ProjectId,
    },
    /// No such group.
    #[error("Unable to find security_group with name or id '{name}'")]
    NoSecurityGroup {
        /// As it was named.
        name: String,
    },
    /// Several groups have that name.
    #[error("Multiple security groups found matching '{name}'. Use an ID to be more specific.")]
    ManySecurityGroups {
        /// The name.
        name: String,
    },
    /// The address is taken.
    #[error("Fixed IP address {address} is already in use on instance.")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The network has no address left.
    #[error("No fixed IP addresses available for network: {network}")]
    NoMoreAddresses {
        /// The network.
        network: NetworkId,
    },
    /// The network cannot give it.
    #[error("{0}")]
    Refused(String),
    /// The project may not have more ports.
    #[error("The number of defined ports exceeds the limit")]
    OverQuota,
    /// The service does not answer; trying again may help.
    #[error("the network service is unavailable")]
    Unavailable {
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// An interface that a server asks for: on a network, or by a port that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedInterface {
    /// The network.
    pub network_id: Option<NetworkId>,
    /// The port.
    pub port_id: Option<PortId>,
    /// The address, on a network.
    pub fixed_ip: Option<IpAddr>,
    /// What the guest knows it by.
    pub tag: Option<String>,
    /// The id that a port gets which is made for it, so that the same call again makes no second one. A service whose
    /// callers do not choose ids must know it by something else.
    #[serde(default)]
    pub new_port_id: Option<PortId>,
}

/// The interfaces that a server asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestedNetworks {
    /// Nothing is said: the one network that there is, or none.
    #[default]
    Unsaid,
    /// The project's network.
    Auto,
    /// No interface.
    Nothing,
    /// These, in order.
    These(Vec<RequestedInterface>),
}

/// A server whose interfaces are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceNetworks {
    /// The server.
    pub instance_id: InstanceId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Its name on its networks.
    pub hostname: String,
    /// Its zone, for `device_owner`.
    pub availability_zone: Option<String>,
    /// Where it is to run, if that is known.
    pub host: Option<HostName>,
    /// Names or ids of security groups, for interfaces that are made for it.
    pub security_groups: Vec<String>,
    /// What it asked for.
    pub requested: RequestedNetworks,
}

/// An address of an interface, with what a guest needs to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VifAddress {
    /// The address.
    pub address: IpAddr,
    /// Of which subnet.
    pub subnet_id: SubnetId,
    /// The subnet's range.
    pub cidr: Cidr,
    /// The way out.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Other ways out.
    pub routes: Vec<HostRoute>,
    /// The guest learns it by DHCP.
    pub dhcp: bool,
    /// How the guest learns it, of version 6: `slaac`, `dhcpv6-stateful`, `dhcpv6-stateless`.
    #[serde(default)]
    pub ipv6_address_mode: Option<String>,
    /// Addresses outside that stand for it.
    pub floating: Vec<IpAddr>,
}

/// An interface of a server, as hosts, metadata and `addresses` need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vif {
    /// The port.
    pub port_id: PortId,
    /// The network.
    pub network_id: NetworkId,
    /// The network's name: the key in `addresses`.
    pub label: String,
    /// The largest packet.
    pub mtu: u32,
    /// The MAC address.
    pub mac_address: MacAddress,
    /// Its addresses.
    pub addresses: Vec<VifAddress>,
    /// Does it work?
    pub status: PortStatus,
    /// Where it is plugged in.
    pub host: Option<HostName>,
    /// It goes with the server.
    pub delete_with_instance: bool,
    /// What the guest knows it by.
    #[serde(default)]
    pub tag: Option<String>,
    /// The id under which it was asked for, where the service has given its port another.
    #[serde(default)]
    pub asked_as: Option<PortId>,
}

impl Vif {
    /// Is it the one of that id, or the one that was asked for under it?
    #[must_use]
    pub fn is(&self, id: PortId) -> bool {
        self.port_id == id || self.asked_as == Some(id)
    }
}

/// Whoever keeps the networks (Neutron, or the built-in service).
#[async_trait]
pub trait NetworkService: Send + Sync {
    /// Can so many servers of the caller's project have these interfaces, as far as can be told now? Takes nothing.
    ///
    /// # Errors
    /// What would be in the way.
    async fn validate(
        &self,
        context: &RequestContext,
        requested: &RequestedNetworks,
        count: u32,
    ) -> Result<(), NetworkServiceError>;

    /// Is there a network for a server of that project that does not say which?
    async fn has_network(&self, context: &RequestContext, project: &ProjectId) -> Result<bool, NetworkServiceError>;

    /// Makes a server's interfaces, all or none, in the order in which they were asked for. The same call again finds them
    /// made, where they were; one that was cut off half way makes the rest.
    async fn allocate(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
    ) -> Result<Vec<Vif>, NetworkServiceError>;

    /// Takes a server's interfaces away: those that were made for it are removed, others are free for others. A server
    /// that has none is no error.
    async fn deallocate(&self, context: &RequestContext, instance: InstanceId) -> Result<(), NetworkServiceError>;

    /// One more interface for a server. By the same `port_id` or `new_port_id` again, it finds it made.
    async fn attach(
        &self,
        context: &RequestContext,
        wanted: &InstanceNetworks,
        interface: &RequestedInterface,
    ) -> Result<Vif, NetworkServiceError>;

    /// One interface less.
    ///
    /// # Errors
    /// [`NetworkServiceError::PortNotFound`] for a port that the server does not have.
    async fn detach(
        &self,
        context: &RequestContext,
        instance: InstanceId,
        port: PortId,
    ) -> Result<(), NetworkServiceError>;

    /// The server comes there while it runs: that host's network is to be ready for its ports before they are bound to it.
    /// `None`: it stays where it is.
    async fn prepare_binding(
        &self,
        context: &RequestContext,
        instance: InstanceId,
        host: Option<&HostName>,
    ) -> Result<(), NetworkServiceError>;

    /// The server runs there, or is about to; `None`: nowhere.
    async fn bind(
        &self,
        context: &RequestContext,
        instance: InstanceId,
        host: Option<&HostName>,
    ) -> Result<Vec<Vif>, NetworkServiceError>;

    /// The host says whether an interface works.
    async fn set_status(
        &self,
        context: &RequestContext,
        port: PortId,
        status: PortStatus,
    ) -> Result<(), NetworkServiceError>;

    /// The same of several, in one go where that is possible. Ports that are gone, and those that are known to be
    /// elsewhere, are passed over.
    async fn set_statuses(
        &self,
        context: &RequestContext,
        _host: &HostName,
        ports: &BTreeMap<PortId, PortStatus>,
    ) -> Result<(), NetworkServiceError> {
        for (port, status) in ports {
            match self.set_status(context, *port, *status).await {
                Ok(()) | Err(NetworkServiceError::PortNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Is the port that server's on that host, and of the server's project? Whoever asks from it is taken for its guest.
    /// Where the project and the host of ports are not known, that it is an interface of the server is enough.
    async fn owns_port(
        &self,
        context: &RequestContext,
        instance: InstanceId,
        _project: &ProjectId,
        _host: &HostName,
        port: PortId,
    ) -> Result<bool, NetworkServiceError> {
        Ok(self.interfaces(context, &[instance]).await?.iter().any(|(_, vif)| vif.port_id == port))
    }

    /// Are interfaces plugged in by others, once the guest is there, who tell when they work? Then their state says it, too.
    fn tells_when_plugged(&self) -> bool {
        false
    }

    /// The interfaces of servers, each server's in order.
    async fn interfaces(
        &self,
        context: &RequestContext,
        instances: &[InstanceId],
    ) -> Result<Vec<(InstanceId, Vif)>, NetworkServiceError>;
}
