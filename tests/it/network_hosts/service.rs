//! The service: whom it believes, whom it tells, what asking costs.

use std::sync::atomic::{AtomicUsize, Ordering};

use nova_core::ids::NetworkAgentId;
use nova_core::network::NetworkState;
use nova_db::{GroupBooks, HostBooks, StoreError};

use super::*;

/// Small changes are made as they come, and do not keep the host from looking at all of it every ten seconds.
#[tokio::test(start_paused = true)]
async fn small_changes_do_not_put_off_the_full_look() {
    let world = World::new();
    let service = world.service().await;
    let network = world.network("vxlan", Some(5)).await;
    let group = world.group(None).await;
    world.port(&network, "h1", &[group]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wanted.json");
    let host = world.host_with("h1", Arc::default(), Some(file.clone())).await;
    pass(5.0).await;
    *host.notes.small.lock().unwrap() = Some(Vec::new());
    let looks = host.notes.count();
    let rule =
        |port| SecurityGroupRule { port_range_min: Some(port), port_range_max: Some(port), ..world.rule(group, None) };
    for port in 1..=25 {
        world.store.create_security_group_rules(vec![rule(port)], None).await.unwrap();
        world.notifier.changed(BooksChangedRequest { groups: vec![group], ..BooksChangedRequest::default() });
        pass(1.0).await;
        let small = host.notes.small.lock().unwrap().clone().unwrap_or_default();
        let newest = [small.last().cloned().unwrap_or_default(), host.notes.last()];
        assert!(newest.contains(&world.should_be("h1").await));
    }
    let small = host.notes.small.lock().unwrap().as_ref().map_or(0, Vec::len);
    let looks = host.notes.count() - looks;
    assert!(small >= 20 && (2..=3).contains(&looks), "{small} small changes, {looks} full looks");
    let kept: HostNetwork = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept, world.should_be("h1").await);
    // What it cannot make as a small change is made with all the rest.
    *host.notes.small.lock().unwrap() = None;
    world.store.create_security_group_rules(vec![rule(26)], None).await.unwrap();
    world.notifier.changed(BooksChangedRequest { groups: vec![group], ..BooksChangedRequest::default() });
    pass(0.9).await;
    assert_eq!(host.notes.last(), world.should_be("h1").await);
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tunnels_are_told_when_a_host_is_first_heard_of() {
    let world = World::new();
    let service = world.service().await;
    let network = world.network("vxlan", Some(5)).await;
    world.port(&network, "h1", &[]).await;
    world.port(&network, "h2", &[]).await;
    let one = world.host("h1").await;
    pass(1.0).await;
    assert!(one.notes.last().segments[&network.id].elsewhere[0].tunnel.is_none());
    let two = world.host("h2").await;
    pass(1.0).await;
    assert_eq!(one.notes.last().segments[&network.id].elsewhere[0].tunnel, Some("192.0.2.2".parse().unwrap()));
    let known = world.known().await;
    assert_eq!(known.iter().map(|agent| agent.plumbing.as_str()).collect::<Vec<_>>(), ["notes", "notes"]);
    one.stop().await;
    two.stop().await;
    service.stop().await;
}

/// Two services, one of which dies: hosts do not notice.
#[tokio::test(start_paused = true)]
async fn services_stand_in_for_each_other() {
    let world = World::new();
    let (first, second) = (world.service().await, world.service().await);
    let host = world.host("h1").await;
    let network = world.network("local", None).await;
    pass(1.0).await;
    for n in 0..6 {
        let port = world.port(&network, "h1", &[]).await;
        world.notifier.changed(BooksChangedRequest { hosts: vec!["h1".into()], ..Default::default() });
        pass(0.9).await;
        assert_eq!(world.status(&port).await, PortStatus::Active, "{n}");
    }
    first.stop().await;
    let port = world.port(&network, "h1", &[]).await;
    world.notifier.changed(BooksChangedRequest { hosts: vec!["h1".into()], ..Default::default() });
    pass(0.9).await;
    assert_eq!(world.status(&port).await, PortStatus::Active);
    host.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_speaks_of_its_own_network_only() {
    let world = World::new();
    let service = world.service().await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    let evil = world.client(Role::Compute, "h2");
    let sync = SyncHostRequest {
        host: "h1".into(),
        plumbing: "linux".into(),
        tunnel_ip: None,
        physical_networks: Vec::new(),
        have: BTreeMap::new(),
    };
    let refused = |error: BusError| error.refusal().map(|refusal| refusal.kind);
    let forbidden = Some(nova_core::rpc::RefusalKind::Forbidden);
    assert_eq!(refused(evil.call::<SyncHost>(&context(), &sync).await.unwrap_err()), forbidden);
    let mut report = ReportHostRequest {
        host: "h1".into(),
        applied: BTreeMap::new(),
        ports: [(port.id, PortStatus::Active)].into(),
        problems: Vec::new(),
    };
    assert_eq!(refused(evil.call::<ReportHost>(&context(), &report).await.unwrap_err()), forbidden);
    report.host = "h2".into();
    evil.call::<ReportHost>(&context(), &report).await.unwrap();
    assert_eq!(world.status(&port).await, PortStatus::Down, "it is not bound there");
    for wrong in [
        SyncHostRequest { plumbing: "x".repeat(65), ..sync.clone() },
        SyncHostRequest { physical_networks: vec!["w".into(); 65], ..sync.clone() },
        SyncHostRequest { tunnel_ip: Some("0.0.0.0".parse().unwrap()), ..sync.clone() },
    ] {
        let wrong = SyncHostRequest { host: "h2".into(), ..wrong };
        let kind = refused(evil.call::<SyncHost>(&context(), &wrong).await.unwrap_err());
        assert_eq!(kind, Some(nova_core::rpc::RefusalKind::Malformed));
    }
    assert_eq!(world.known().await, []);
    service.stop().await;
}

/// Where nothing is plugged in the host is only known to be there: no views are made for it, and no word is sent to it.
#[tokio::test(start_paused = true)]
async fn hosts_with_books_only_cost_next_to_nothing() {
    let world = World::new();
    let service = world.service().await;
    let agent = NetworkAgent::new(NetworkAgentParts {
        plumbing: Arc::new(nova_compute::BooksPlumbing),
        rpc: world.client(Role::Compute, "h1"),
        entropy: world.entropy.clone(),
        metadata: None,
        options: NetworkAgentOptions::new("h1"),
    });
    let (stop, running) = (CancellationToken::new(), agent.clone());
    let until = stop.clone();
    let running = tokio::spawn(async move { running.run(until).await });
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    pass(0.5).await;
    let before = world.bus.counters().messages;
    assert_eq!(agent.ready(&[vif(&port)]).await.unwrap().len(), 1);
    world.notifier.changed(BooksChangedRequest { hosts: vec!["h1".into()], ..Default::default() });
    pass(1.0).await;
    assert_eq!(world.bus.counters().messages, before + 1, "the word that the books changed, and nothing after it");
    pass(100.0).await;
    assert!((4..=6).contains(&(world.bus.counters().messages - before)), "a sign of life now and then");
    assert!(!world.known().await[0].plugs());
    stop.cancel();
    running.await.unwrap();
    service.stop().await;
}

/// What is read of the books.
struct Counted {
    inner: Arc<dyn Store>,
    read: AtomicUsize,
}

impl Counted {
    fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl NetworkHostStore for Counted {
    async fn host_books(&self, scope: &HostScope) -> Result<HostBooks, StoreError> {
        self.read.fetch_add(1, Ordering::SeqCst);
        self.inner.host_books(scope).await
    }
    async fn books_version(&self) -> Result<u64, StoreError> {
        self.inner.books_version().await
    }
    async fn hosts_concerned(&self, change: &BooksChangedRequest) -> Result<BTreeSet<HostName>, StoreError> {
        self.inner.hosts_concerned(change).await
    }
    async fn group_books(&self, id: SecurityGroupId) -> Result<GroupBooks, StoreError> {
        self.inner.group_books(id).await
    }
    async fn hear_network_agent(&self, agent: Known) -> Result<(Known, bool), StoreError> {
        self.inner.hear_network_agent(agent).await
    }
    async fn report_network(
        &self,
        state: NetworkState,
        ports: BTreeMap<PortId, PortStatus>,
    ) -> Result<Vec<Port>, StoreError> {
        self.inner.report_network(state, ports).await
    }
    async fn list_network_agents(&self, hosts: Option<&[HostName]>) -> Result<Vec<Known>, StoreError> {
        self.inner.list_network_agents(hosts).await
    }
    async fn get_network_agent(&self, id: NetworkAgentId) -> Result<Known, StoreError> {
        self.inner.get_network_agent(id).await
    }
    async fn get_network_state(&self, host: &HostName) -> Result<Option<NetworkState>, StoreError> {
        self.inner.get_network_state(host).await
    }
    async fn delete_network_agent(&self, id: NetworkAgentId) -> Result<(), StoreError> {
        self.inner.delete_network_agent(id).await
    }
}

/// While the books stay, asking again does not read them; what changes is seen by the next who asks.
#[tokio::test(start_paused = true)]
async fn who_asks_again_costs_next_to_nothing() {
    let world = World::new();
    let counted = Arc::new(Counted { inner: world.store.clone(), read: AtomicUsize::new(0) });
    let service = world.service_over(counted.clone()).await;
    let host = world.host("h1").await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    pass(70.0).await;
    assert_eq!(host.notes.last(), world.should_be("h1").await);
    let before = counted.read();
    pass(300.0).await;
    assert_eq!(counted.read(), before, "nobody has changed anything");
    // Nobody is told of this.
    world.store.delete_port(port.id).await.unwrap();
    pass(40.0).await;
    assert_eq!(host.notes.last(), HostNetwork::default());
    assert_eq!(counted.read(), before + 1);
    // A host that has something else than it was told is told again.
    host.stop().await;
    let again = world.host("h1").await;
    world.port(&network, "h1", &[]).await;
    pass(1.0).await;
    assert_eq!(again.notes.last(), world.should_be("h1").await);
    again.stop().await;
    service.stop().await;
}
