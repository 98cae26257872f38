//! The topology that a project gets without asking for its parts: a network, a subnet, and a router to the default outer
//! network (neutron/services/auto_allocate/db.py). And the outer network that a new cloud begins with.
//!
//! The ids follow from the project: of several who make it at once, each finds what the others made, and who comes after
//! one that died goes on from there.

use nova_core::ids::{NetworkId, ProjectId, RouterId, SubnetId};
use nova_core::network::{
    Cidr, InstanceNetworks, Network, NetworkProblem, NetworkResource, NetworkServiceError, RequestedInterface,
    RequestedNetworks, Router, Subnet, default_gateway, default_pools,
};
use nova_db::{GatewayChange, InterfaceRef, ListQuery, NetworkField, NewInterface, PortField, PortQuery, StoreError};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::NetworkManager;

/// Why a project cannot have one, as Neutron words it (`AutoAllocationFailure`).
#[derive(Debug, thiserror::Error)]
pub(crate) enum AutoError {
    /// Something that it needs is not there.
    #[error("Deployment error: {0}.")]
    Deployment(&'static str),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The network of a project's topology, made or not.
pub(crate) fn auto_network_id(project: &ProjectId) -> NetworkId {
    NetworkId::from_uuid(derived(&["network", project.as_str()]))
}

fn auto_subnet_id(project: &ProjectId) -> SubnetId {
    SubnetId::from_uuid(derived(&["subnet", project.as_str()]))
}

fn auto_router_id(project: &ProjectId) -> RouterId {
    RouterId::from_uuid(derived(&["router", project.as_str()]))
}

/// An id that everybody finds who knows the words.
fn derived(words: &[&str]) -> Uuid {
    let digest = Sha256::digest(["auto-allocated-topology", &words.join("\0")].join("\0").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// What is there already is as good as made.
fn unless_there<T>(answer: Result<T, StoreError>) -> Result<(), StoreError> {
    match answer {
        Ok(_) | Err(StoreError::Duplicate { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A lack of quota is told as Neutron tells it.
fn or_failure(answer: Result<(), StoreError>, what: &'static str) -> Result<(), AutoError> {
    match answer {
        Err(StoreError::Network(_)) => Err(AutoError::Deployment(what)),
        other => Ok(other?),
    }
}

impl From<AutoError> for NetworkServiceError {
    fn from(error: AutoError) -> Self {
        match error {
            AutoError::Deployment(_) => Self::Refused(error.to_string()),
            AutoError::Store(source) => Self::Unavailable { source: Box::new(source) },
        }
    }
}

impl NetworkManager {
    /// The outer network that topologies lead to: of several the oldest.
    ///
    /// # Errors
    /// [`AutoError::Deployment`] if there is none.
    pub(crate) async fn default_external(&self) -> Result<Network, AutoError> {
        let networks = self.store.list_networks(&ListQuery::of(NetworkField::External, true)).await?;
        let mut defaults = networks.into_iter().filter(|network| network.is_default);
        defaults.next().ok_or(AutoError::Deployment("No default router:external network"))
    }

    /// What every topology needs: the outer network, and the range of the inner one.
    ///
    /// # Errors
    /// [`AutoError::Deployment`] if one of them is missing.
    pub(crate) async fn auto_parts(&self) -> Result<(Network, Cidr), AutoError> {
        let outer = self.default_external().await?;
        let range = self.options.auto_subnet.ok_or(AutoError::Deployment("No default subnetpools defined"))?;
        Ok((outer, range))
    }

    /// The network of the project's topology, if that was made.
    pub(crate) async fn auto_network(&self, project: &ProjectId) -> Result<Option<Network>, StoreError> {
        match self.store.get_network(auto_network_id(project)).await {
            Ok(network) => Ok(Some(network)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The interface of a server that asks for `auto` where the project has no network yet.
    ///
    /// # Errors
    /// [`NetworkServiceError::CannotAutoAllocate`] if the topology could not be made.
    pub(super) async fn auto_interface(&self, project: &ProjectId) -> Result<RequestedInterface, NetworkServiceError> {
        match self.auto_parts().await {
            Ok(_) => Ok(RequestedInterface { network_id: Some(auto_network_id(project)), ..Default::default() }),
            Err(AutoError::Deployment(_)) => Err(NetworkServiceError::CannotAutoAllocate { project: project.clone() }),
            Err(other) => Err(other.into()),
        }
    }

    /// Makes the topology, or what is missing of it, if a server that asks for `auto` is to be plugged into it.
    pub(super) async fn prepare_auto(
        &self,
        wanted: &InstanceNetworks,
        interfaces: &[RequestedInterface],
    ) -> Result<(), NetworkServiceError> {
        let network = Some(auto_network_id(&wanted.project_id));
        if wanted.requested == RequestedNetworks::Auto && interfaces.iter().any(|one| one.network_id == network) {
            self.make_auto_topology(&wanted.project_id).await?;
        }
        Ok(())
    }

    /// The project's topology, made as far as it is not there.
    pub(crate) async fn make_auto_topology(&self, project: &ProjectId) -> Result<NetworkId, AutoError> {
        let id = auto_network_id(project);
        // The interface is what is made last.
        if self.store.get_router(auto_router_id(project)).await.is_ok() && self.is_joined(project).await? {
            return Ok(id);
        }
        let (outer, range) = self.auto_parts().await?;
        let network = Network { name: "auto_allocated_network".to_owned(), ..self.new_network(id, project) };
        let limit = |resource| self.limit(resource);
        let made = unless_there(self.create_network(network, limit(NetworkResource::Network)).await);
        or_failure(made, "Unable to provide tenant private network")?;
        let subnet = Subnet {
            name: "auto_allocated_subnet_v4".to_owned(),
            ..self.new_subnet(auto_subnet_id(project), id, project, range)
        };
        let made = match self.store.create_subnet(subnet, None, limit(NetworkResource::Subnet)).await {
            // Of the network's one subnet, the range is found taken before the id is.
            Err(StoreError::Network(NetworkProblem::SubnetsOverlap { .. })) => Ok(()),
            other => unless_there(other),
        };
        or_failure(made, "Unable to provide tenant private network")?;
        self.join(project, &outer).await?;
        Ok(id)
    }

    /// Router and interface.
    async fn join(&self, project: &ProjectId, outer: &Network) -> Result<(), AutoError> {
        const FAILED: &str = "Unable to provide external connectivity";
        let now = self.now();
        let router = Router {
            id: auto_router_id(project),
            project_id: project.clone(),
            name: "auto_allocated_router".to_owned(),
            description: String::new(),
            admin_state_up: true,
            gateway: None,
            routes: Vec::new(),
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let gateway = GatewayChange::Set { enable_snat: true, port: Box::new(self.new_port(outer.id, &"".into())) };
        let made = self.store.create_router(router, gateway, self.limit(NetworkResource::Router)).await;
        or_failure(unless_there(made), FAILED)?;
        let mut port = self.new_port(auto_network_id(project), project);
        port.port.port_security_enabled = false;
        let interface = NewInterface::Subnet { subnet_id: auto_subnet_id(project), port: Box::new(port) };
        let joined = match self.store.add_router_interface(auto_router_id(project), interface).await {
            // Somebody else did it just now.
            Err(StoreError::Network(_) | StoreError::Conflict { .. }) if self.is_joined(project).await? => Ok(()),
            other => other.map(drop),
        };
        self.routers_changed([auto_router_id(project)]);
        self.network_changed(auto_network_id(project));
        or_failure(joined, FAILED)
    }

    async fn is_joined(&self, project: &ProjectId) -> Result<bool, StoreError> {
        let list = ListQuery::of(PortField::DeviceId, auto_router_id(project));
        let query = PortQuery { list, subnets: vec![auto_subnet_id(project)], ..PortQuery::default() };
        Ok(!self.store.list_ports(&query).await?.is_empty())
    }

    /// Takes the project's topology away. What is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Network`] while ports or floating addresses need it.
    pub(crate) async fn remove_auto_topology(&self, project: &ProjectId) -> Result<(), StoreError> {
        self.require_only_router(project).await?;
        let gone = |answer: Result<(), StoreError>| match answer {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        };
        let router = auto_router_id(project);
        let which = InterfaceRef { subnet_id: Some(auto_subnet_id(project)), port_id: None };
        match self.store.remove_router_interface(router, which).await {
            Err(StoreError::Network(NetworkProblem::NoInterfaceOnSubnet { .. })) => {}
            other => gone(other.map(drop))?,
        }
        self.routers_changed([router]);
        self.network_changed(auto_network_id(project));
        gone(self.store.delete_router(router).await.map(drop))?;
        gone(self.store.delete_network(auto_network_id(project)).await.map(drop))?;
        self.routers_changed([router]);
        self.network_changed(auto_network_id(project));
        Ok(())
    }

    /// Nothing but its router may be on the network.
    async fn require_only_router(&self, project: &ProjectId) -> Result<(), StoreError> {
        let network = auto_network_id(project);
        let ports = PortQuery { list: ListQuery::of(PortField::NetworkId, network), ..PortQuery::default() };
        let router = auto_router_id(project).to_string();
        match self.store.list_ports(&ports).await?.iter().all(|port| port.device_id == router) {
            true => Ok(()),
            false => Err(NetworkProblem::NetworkInUse { network }.into()),
        }
    }

    /// An outer network for all projects, as a new cloud begins with: no DHCP, the default for topologies. Who comes
    /// second finds it made.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn bootstrap(&self) -> Result<(), StoreError> {
        let Some(range) = self.options.public_subnet else { return Ok(()) };
        // It is the cloud's, and counts for nobody.
        let project = ProjectId::from("");
        let id = NetworkId::from_uuid(derived(&["public network"]));
        let network =
            Network { name: "public".to_owned(), external: true, is_default: true, ..self.new_network(id, &project) };
        unless_there(self.create_network(network, None).await)?;
        let subnet = SubnetId::from_uuid(derived(&["public subnet"]));
        let subnet =
            Subnet { name: "public".to_owned(), enable_dhcp: false, ..self.new_subnet(subnet, id, &project, range) };
        match self.store.create_subnet(subnet, None, None).await {
            Err(StoreError::Network(NetworkProblem::SubnetsOverlap { .. })) => Ok(()),
            other => unless_there(other),
        }
    }

    /// A network as projects get it, not yet kept.
    pub(crate) fn new_network(&self, id: NetworkId, project: &ProjectId) -> Network {
        let now = self.now();
        Network {
            id,
            project_id: project.clone(),
            name: String::new(),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            mtu: self.options.mtu,
            port_security_enabled: true,
            dns_domain: String::new(),
            network_type: None,
            physical_network: None,
            segmentation_id: None,
            is_default: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        }
    }

    /// A subnet of that range with gateway and pool where they usually are, not yet kept.
    fn new_subnet(&self, id: SubnetId, network_id: NetworkId, project: &ProjectId, cidr: Cidr) -> Subnet {
        let now = self.now();
        let gateway_ip = Some(default_gateway(&cidr));
        Subnet {
            id,
            network_id,
            project_id: project.clone(),
            name: String::new(),
            description: String::new(),
            cidr,
            gateway_ip,
            allocation_pools: default_pools(&cidr, gateway_ip),
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: true,
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            shared: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        }
    }
}
