//! What compute asks of the built-in network service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::context::RequestContext;
use nova_core::entropy::{Entropy, SeededEntropy};
use nova_core::ids::{HostName, InstanceId, NetworkId, PortId, ProjectId, RequestId, SubnetId};
use nova_core::network::{
    Cidr, InstanceNetworks, MacAddress, Network, NetworkResource, NetworkService, NetworkServiceError, Port,
    PortStatus, RequestedInterface, RequestedNetworks, Subnet, default_gateway, default_pools,
};
use nova_db::{MemoryStore, NetworkStore, PortQuery};

use super::{NetworkManager, NetworkOptions};

struct TestClock;

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }
}

struct Bench {
    store: Arc<MemoryStore>,
    service: NetworkManager,
    entropy: Arc<SeededEntropy>,
}

fn member(project: &str) -> RequestContext {
    let request_id = RequestId::parse("req-9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a").unwrap();
    let project_id = ProjectId::from(project);
    RequestContext { project_id, roles: vec!["member".into()], ..RequestContext::internal(request_id) }
}

fn on(network: &Network) -> RequestedInterface {
    RequestedInterface { network_id: Some(network.id), ..RequestedInterface::default() }
}

impl Bench {
    fn new() -> Self {
        Self::with_entropy(Arc::new(SeededEntropy::new(1)))
    }

    fn with_entropy(drawn: Arc<dyn Entropy>) -> Self {
        let store = Arc::new(MemoryStore::new());
        let service = NetworkManager::new(store.clone(), Arc::new(TestClock), drawn, NetworkOptions::default());
        Self { store, service, entropy: Arc::new(SeededEntropy::new(2)) }
    }

    async fn network(&self, project: &str, cidr: &str) -> Network {
        let now = TestClock.now();
        let network = Network {
            id: NetworkId::generate(&*self.entropy),
            project_id: project.into(),
            name: format!("net of {project}"),
            description: String::new(),
            admin_state_up: true,
            shared: false,
            external: false,
            mtu: 1450,
            port_security_enabled: true,
            dns_domain: String::new(),
            network_type: None,
            physical_network: None,
            segmentation_id: None,
            is_default: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        let network = self.store.create_network(network, None).await.unwrap();
        if cidr.is_empty() {
            return network;
        }
        let cidr: Cidr = cidr.parse().unwrap();
        let gateway_ip = Some(default_gateway(&cidr));
        let subnet = Subnet {
            id: SubnetId::generate(&*self.entropy),
            network_id: network.id,
            project_id: project.into(),
            name: String::new(),
            description: String::new(),
            cidr,
            gateway_ip,
            allocation_pools: default_pools(&cidr, gateway_ip),
            dns_nameservers: vec!["9.9.9.9".parse().unwrap()],
            host_routes: Vec::new(),
            enable_dhcp: true,
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            shared: false,
            created_at: now,
            updated_at: now,
            generation: 0,
        };
        self.store.create_subnet(subnet, None, None).await.unwrap();
        network
    }

    fn server(&self, project: &str, interfaces: Vec<RequestedInterface>) -> InstanceNetworks {
        InstanceNetworks {
            instance_id: InstanceId::generate(&*self.entropy),
            project_id: project.into(),
            hostname: "web".into(),
            availability_zone: Some("zone-1".into()),
            host: None,
            security_groups: Vec::new(),
            requested: RequestedNetworks::These(interfaces),
        }
    }

    /// A port of a user's own.
    async fn port(&self, network: &Network, project: &str) -> Port {
        let new = self.service.new_port(network.id, &project.into());
        self.service.create_ports(vec![new], &[true]).await.unwrap().remove(0)
    }

    async fn ports(&self) -> Vec<Port> {
        self.store.list_ports(&PortQuery::default()).await.unwrap()
    }
}

#[tokio::test]
async fn servers_get_interfaces_in_order_and_give_them_back() {
    let bench = Bench::new();
    let (one, two) = (bench.network("p", "10.0.0.0/24").await, bench.network("p", "10.1.0.0/24").await);
    let own = bench.port(&one, "p").await;
    let mine = RequestedInterface { port_id: Some(own.id), ..RequestedInterface::default() };
    let address: IpAddr = "10.1.0.77".parse().unwrap();
    let third = RequestedInterface { fixed_ip: Some(address), ..on(&two) };
    let wanted = bench.server("p", vec![on(&two), mine, third, on(&one)]);
    let context = member("p");
    let vifs = bench.service.allocate(&context, &wanted).await.unwrap();
    let networks: Vec<_> = vifs.iter().map(|vif| vif.network_id).collect();
    assert_eq!(networks, [two.id, one.id, two.id, one.id]);
    assert_eq!((vifs[1].port_id, vifs[2].addresses[0].address), (own.id, address));
    assert_eq!((vifs[0].label.as_str(), vifs[0].mtu), ("net of p", 1450));
    let given = &vifs[0].addresses[0];
    assert_eq!((given.gateway, given.dns.len(), given.dhcp), (Some("10.1.0.1".parse().unwrap()), 1, true));
    let ports = bench.ports().await;
    assert!(ports.iter().all(|port| port.device_owner == "compute:zone-1"));
    let again = bench.service.allocate(&context, &wanted).await.unwrap();
    assert_eq!(again.len(), 4, "the same order again makes nothing");
    assert_eq!(bench.ports().await.len(), 4);
    bench.service.deallocate(&context, wanted.instance_id).await.unwrap();
    bench.service.deallocate(&context, wanted.instance_id).await.unwrap();
    let left = bench.ports().await;
    assert_eq!((left.len(), left[0].id, left[0].device_id.as_str()), (1, own.id, ""), "what was there before stays");
    assert_eq!(left[0].device_owner, "");
}

#[tokio::test]
async fn a_failed_allocation_leaves_nothing() {
    let bench = Bench::new();
    let network = bench.network("p", "10.0.0.0/24").await;
    let own = bench.port(&network, "p").await;
    let taken = RequestedInterface { fixed_ip: Some(own.fixed_ips[0].ip_address), ..on(&network) };
    let mine = RequestedInterface { port_id: Some(own.id), ..RequestedInterface::default() };
    let wanted = bench.server("p", vec![mine, on(&network), taken]);
    let error = bench.service.allocate(&member("p"), &wanted).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::AddressInUse { .. }), "{error:?}");
    let left = bench.ports().await;
    assert_eq!((left.len(), left[0].device_id.as_str()), (1, ""));
    let mut unknown = bench.server("p", vec![on(&network)]);
    unknown.security_groups = vec!["no such".into()];
    let error = bench.service.allocate(&member("p"), &unknown).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::NoSecurityGroup { .. }), "{error:?}");
    assert_eq!(bench.ports().await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_told_before() {
    let bench = Bench::new();
    let network = bench.network("p", "10.0.0.0/24").await;
    let bare = bench.network("p", "").await;
    let foreign = bench.network("q", "10.0.0.0/24").await;
    let alien = bench.port(&foreign, "q").await;
    let own = bench.port(&network, "p").await;
    let port = |id: PortId| RequestedInterface { port_id: Some(id), ..RequestedInterface::default() };
    let at = |address: &str| RequestedInterface { fixed_ip: Some(address.parse().unwrap()), ..on(&network) };
    let used = own.fixed_ips[0].ip_address.to_string();
    for (interfaces, count, expected) in [
        (vec![on(&network)], 3, "fine"),
        (vec![port(own.id)], 1, "fine"),
        (vec![port(own.id)], 2, "PortTwice"),
        (vec![port(own.id), port(own.id)], 1, "PortTwice"),
        (vec![on(&foreign)], 1, "NetworkNotFound"),
        (vec![port(alien.id)], 1, "PortNotFound"),
        (vec![on(&bare)], 1, "NoSubnet"),
        (vec![at("10.9.0.1")], 1, "Refused"),
        (vec![at(&used)], 1, "AddressInUse"),
    ] {
        let requested = RequestedNetworks::These(interfaces);
        let answer = bench.service.validate(&member("p"), &requested, count).await;
        let text = answer.map_or_else(|error| format!("{error:?}"), |()| "fine".to_owned());
        assert!(text.starts_with(expected), "{expected}: {text}");
    }
    let limit = [(NetworkResource::Port, Some(Some(2)))].into();
    bench.store.set_network_limits(&"p".into(), limit).await.unwrap();
    let many = RequestedNetworks::These(vec![on(&network)]);
    assert!(bench.service.validate(&member("p"), &many, 1).await.is_ok());
    let over = bench.service.validate(&member("p"), &many, 2).await.unwrap_err();
    assert!(matches!(over, NetworkServiceError::OverQuota), "{over:?}");
    let unsaid = bench.service.validate(&member("p"), &RequestedNetworks::Unsaid, 1).await.unwrap_err();
    assert!(matches!(unsaid, NetworkServiceError::Ambiguous), "{unsaid:?}");
    bench.service.validate(&member("r"), &RequestedNetworks::Unsaid, 1).await.expect("no network is no interface");
}

/// A port is taken by one server; another's id in a port of mine gives me nothing of theirs.
#[tokio::test]
async fn ports_are_one_servers() {
    let bench = Bench::new();
    let network = bench.network("p", "10.0.0.0/24").await;
    let own = bench.port(&network, "p").await;
    let mine = RequestedInterface { port_id: Some(own.id), ..RequestedInterface::default() };
    let first = bench.server("p", vec![mine.clone()]);
    bench.service.allocate(&member("p"), &first).await.unwrap();
    let error = bench.service.allocate(&member("p"), &bench.server("p", vec![mine])).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::PortInUse { .. }), "{error:?}");
    let claimed = bench.port(&network, "p").await;
    let device = first.instance_id.to_string();
    bench
        .service
        .change_port(claimed.id, |port| {
            port.device_id.clone_from(&device);
            Ok(())
        })
        .await
        .unwrap();
    let seen = bench.service.interfaces(&member("p"), &[first.instance_id]).await.unwrap();
    assert_eq!(seen.iter().map(|(_, vif)| vif.port_id).collect::<Vec<_>>(), [own.id]);
}

#[tokio::test]
async fn interfaces_come_and_go_and_follow_the_server() {
    let bench = Bench::new();
    let network = bench.network("p", "10.0.0.0/24").await;
    let wanted = bench.server("p", vec![on(&network)]);
    let (context, id) = (member("p"), wanted.instance_id);
    let first = bench.service.allocate(&context, &wanted).await.unwrap().remove(0);
    let second = bench.service.attach(&context, &wanted, &RequestedInterface::default()).await.unwrap();
    assert_ne!((second.port_id, second.mac_address), (first.port_id, first.mac_address));
    let host = HostName::from("h1");
    let bound = bench.service.bind(&context, id, Some(&host)).await.unwrap();
    assert!(bound.len() == 2 && bound.iter().all(|vif| vif.host.as_ref() == Some(&host)));
    bench.service.set_status(&context, first.port_id, PortStatus::Active).await.unwrap();
    let same = bench.service.bind(&context, id, Some(&host)).await.unwrap();
    let states: BTreeSet<_> = same.iter().map(|vif| vif.status.as_str()).collect();
    assert_eq!(states, BTreeSet::from(["ACTIVE", "DOWN"]), "who stays keeps what works");
    bench.service.detach(&context, id, second.port_id).await.unwrap();
    let error = bench.service.detach(&context, id, second.port_id).await.unwrap_err();
    assert!(matches!(error, NetworkServiceError::PortNotFound { .. }), "{error:?}");
    assert_eq!(bench.service.interfaces(&context, &[id]).await.unwrap().len(), 1);
    let other = HostName::from("h2");
    let migrates = async || bench.store.get_port(first.port_id).await.unwrap().migrating_to();
    for _ in 0..2 {
        bench.service.prepare_binding(&context, id, Some(&other)).await.unwrap();
        assert_eq!(migrates().await.as_ref(), Some(&other));
    }
    let there = bench.service.interfaces(&context, &[id]).await.unwrap();
    assert!(there.iter().all(|(_, vif)| vif.host.as_ref() == Some(&host)), "still where it is");
    bench.service.prepare_binding(&context, id, None).await.unwrap();
    assert_eq!(migrates().await, None);
    bench.service.prepare_binding(&context, id, Some(&other)).await.unwrap();
    bench.service.bind(&context, id, Some(&other)).await.unwrap();
    assert_eq!(migrates().await, None, "it has come");
    let nowhere = bench.service.bind(&context, id, None).await.unwrap();
    assert_eq!((nowhere[0].host.clone(), nowhere[0].status), (None, PortStatus::Down));
}

/// Draws the same MAC address again and again, and then another.
struct Repeating {
    left: std::sync::atomic::AtomicUsize,
    rest: SeededEntropy,
}

impl Entropy for Repeating {
    fn fill(&self, buffer: &mut [u8]) {
        use std::sync::atomic::Ordering;
        let macs = buffer.len() == 3;
        let repeat = macs && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        if repeat { buffer.fill(7) } else { self.rest.fill(buffer) }
    }
}

#[tokio::test]
async fn mac_addresses_that_meet_are_drawn_again() {
    let drawn = |left: usize| Arc::new(Repeating { left: left.into(), rest: SeededEntropy::new(3) });
    let bench = Bench::with_entropy(drawn(4));
    let network = bench.network("p", "10.0.0.0/24").await;
    let macs: BTreeSet<MacAddress> = [bench.port(&network, "p").await, bench.port(&network, "p").await]
        .iter()
        .map(|port| port.mac_address)
        .collect();
    assert_eq!(macs.len(), 2);
    let hopeless = Bench::with_entropy(drawn(100));
    let network = hopeless.network("p", "10.0.0.0/24").await;
    hopeless.port(&network, "p").await;
    let new = hopeless.service.new_port(network.id, &"p".into());
    let error = hopeless.service.create_ports(vec![new], &[true]).await.unwrap_err();
    assert!(error.to_string().contains("The mac address fa:16:3e:07:07:07 is in use."), "{error}");
    assert_eq!(hopeless.ports().await.len(), 1);
}

/// Whoever goes on where another one died finds what that one made, and makes the rest; of two at once, one does.
#[tokio::test]
async fn an_allocation_that_was_cut_off_goes_on() {
    let bench = Bench::new();
    let network = bench.network("p", "10.0.0.0/24").await;
    let own = bench.port(&network, "p").await;
    let mine = RequestedInterface { port_id: Some(own.id), ..RequestedInterface::default() };
    let context = member("p");
    let whole = bench.server("p", vec![on(&network), mine.clone(), on(&network)]);
    // As after the first of its transactions, and as another process that read before them.
    let part = InstanceNetworks { requested: RequestedNetworks::These(vec![mine]), ..whole.clone() };
    bench.service.allocate(&context, &part).await.unwrap();
    let (one, two) = tokio::join!(bench.service.allocate(&context, &whole), bench.service.allocate(&context, &whole));
    let ids = |vifs: Vec<nova_core::network::Vif>| vifs.into_iter().map(|vif| vif.port_id).collect::<Vec<_>>();
    let (one, two) = (ids(one.unwrap()), ids(two.unwrap()));
    assert_eq!((one.len(), one[1]), (3, own.id));
    assert_eq!(one, two);
    assert_eq!(bench.ports().await.len(), 3);
    assert_eq!(bench.service.interfaces(&context, &[whole.instance_id]).await.unwrap().len(), 3);
    // An interface that is attached by the same name again is the same.
    let named = RequestedInterface { new_port_id: Some(PortId::generate(&*bench.entropy)), ..on(&network) };
    let first = bench.service.attach(&context, &whole, &named).await.unwrap();
    let again = bench.service.attach(&context, &whole, &named).await.unwrap();
    assert_eq!((Some(first.port_id), again.port_id), (named.new_port_id, first.port_id));
    assert_eq!(bench.ports().await.len(), 4);
    bench.service.deallocate(&context, whole.instance_id).await.unwrap();
    assert_eq!(bench.ports().await.iter().map(|port| port.id).collect::<Vec<_>>(), [own.id]);
}

#[tokio::test]
async fn a_pool_that_is_empty_says_so() {
    let bench = Bench::new();
    let network = bench.network("p", "10.0.0.0/30").await;
    let context = member("p");
    bench.service.allocate(&context, &bench.server("p", vec![on(&network)])).await.unwrap();
    let error = bench.service.allocate(&context, &bench.server("p", vec![on(&network)])).await.unwrap_err();
    assert_eq!(error.to_string(), format!("No fixed IP addresses available for network: {}", network.id));
    assert_eq!(bench.ports().await.len(), 1);
}
