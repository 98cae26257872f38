//! Ports, addresses and floating addresses that are not as they must be.

use nova::check::Outcome;
use nova_core::ids::{FloatingIpId, NetworkId, RouterId};
use nova_core::network::{Port, RequestedNetworks, Router};
use nova_db::{FixedIpRequest, FloatingTarget, GatewayChange, NewFloatingIp, NewInterface, PortChange};

use super::*;
use crate::support::networks::{on, these};

/// A server with an interface, and a port of the user's own.
struct Wired {
    cloud: Cloud,
    checker: Checker,
    server: Instance,
    mine: Port,
}

impl Wired {
    async fn new() -> Self {
        let cloud = Cloud::start(CloudOptions::default()).await;
        let network = cloud.add_network("10.0.0.0/24").await;
        let mine = cloud.add_port(network.id).await;
        let id = cloud.boot_on(these([on(network.id)]), cloud.flavor(1, 512)).await;
        cloud.settle().await;
        cloud.pass(Duration::from_secs(1)).await;
        let checker = checker(&cloud);
        assert_eq!(checker.check().await.unwrap().violations, []);
        let server = cloud.get(id).await;
        Self { cloud, checker, server, mine }
    }

    /// Exactly these are found and mended, each by a repair of that text.
    async fn finds_and_mends(&self, expected: &[(&str, &str)]) {
        let before = self.checker.check().await.unwrap();
        let repairs = before.violations.iter().map(|one| one.repair.as_ref().map(ToString::to_string));
        let has: Vec<_> = before.violations.iter().map(|one| one.invariant).zip(repairs).collect();
        let expected: Vec<_> = expected.iter().map(|(what, how)| (*what, Some((*how).to_owned()))).collect();
        assert_eq!(has, expected, "{:#?}", before.violations);
        let (_, after) = self.checker.repair().await.unwrap();
        assert_eq!(after.violations, []);
    }

    async fn change(&self, change: impl FnOnce(&mut Port)) -> Port {
        let mut port = self.cloud.ports_of(self.server.id).await.remove(0);
        change(&mut port);
        self.cloud.store.update_port(PortChange { port, fixed_ips: None, draw: 0 }).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn i8_a_port_is_where_its_server_is_not() {
    let wired = Wired::new().await;
    let host = wired.server.host.clone();
    let moved = wired.change(|port| port.host = Some("elsewhere".into())).await;
    wired.finds_and_mends(&[("I8", &format!("bind port {} to the host of its server", moved.id))]).await;
    assert_eq!(wired.cloud.store.get_port(moved.id).await.unwrap().host, host);
    wired.cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i8_ports_outlive_their_servers() {
    let wired = Wired::new().await;
    let (store, mine) = (&wired.cloud.store, &wired.mine);
    let nobody = InstanceId::generate(&*wired.cloud.entropy).to_string();
    let taken = |port: &mut Port| {
        port.device_id.clone_from(&nobody);
        port.device_owner = "compute:nova".into();
        port.host = Some("host00".into());
    };
    let mut own = mine.clone();
    taken(&mut own);
    store.update_port(PortChange { port: own, fixed_ips: None, draw: 0 }).await.unwrap();
    let made = wired.change(taken).await;
    let mut expected = [mine.id, made.id];
    expected.sort_by_key(|id| wired.cloud.now().min(if *id == mine.id { mine.created_at } else { made.created_at }));
    let repairs: Vec<_> = expected.iter().map(|id| format!("give back port {id}")).collect();
    wired.finds_and_mends(&repairs.iter().map(|text| ("I8", text.as_str())).collect::<Vec<_>>()).await;
    let left = wired.cloud.ports().await;
    assert_eq!(left.len(), 1, "what was made for the server is removed");
    assert_eq!((left[0].id, left[0].device_id.as_str(), &left[0].host), (mine.id, "", &None));
    wired.cloud.stop().await;
}

#[tokio::test(start_paused = true)]
async fn i8_a_server_that_failed_keeps_a_port() {
    let wired = Wired::new().await;
    let cloud = &wired.cloud;
    for host in cloud.hosts.values() {
        host.fail_next(Operation::Spawn, 9, nova_virt::ErrorKind::Failed);
    }
    let id = cloud.boot_on(RequestedNetworks::Nothing, cloud.flavor(1, 512)).await;
    cloud.settle().await;
    let network = wired.mine.network_id;
    let port = cloud.add_port_of(wired.server.project_id.clone(), network, id.to_string()).await;
    wired.finds_and_mends(&[("I8", &format!("give back port {}", port.id))]).await;
    assert_eq!(cloud.store.get_port(port.id).await.unwrap().device_id, "");
    wired.cloud.stop().await;
}

/// The conductor finds it by itself, too.
#[tokio::test(start_paused = true)]
async fn ports_of_servers_that_ended_lately_are_swept() {
    let wired = Wired::new().await;
    let cloud = &wired.cloud;
    assert!(cloud.act(wired.server.id, Action::Delete).await);
    cloud.settle().await;
    let (project, network) = (wired.server.project_id.clone(), wired.mine.network_id);
    let port = cloud.add_port_of(project, network, wired.server.id.to_string()).await;
    cloud.pass(Duration::from_secs(400)).await;
    assert_eq!(cloud.store.get_port(port.id).await.unwrap().device_id, "");
    assert_eq!(wired.checker.check().await.unwrap().violations, []);
    wired.cloud.stop().await;
}

// ---- what no operation of the store would do -------------------------------------------------------------------------

/// Two ports in a SQLite file, one with a floating address.
struct Rows {
    _folder: tempfile::TempDir,
    url: String,
    checker: Checker,
    ports: Vec<Port>,
}

impl Rows {
    async fn new() -> Self {
        let mut cloud = Cloud::start(CloudOptions::default()).await;
        tokio::time::resume();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("nova.db").display());
        let store = nova_db::open(&url, &OpenOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let options = CheckOptions { pause: Duration::ZERO, ..CheckOptions::default() };
        let checker =
            Checker { store: store.clone(), hosts: Arc::new(FakeHosts(Fakes::new())), options, ..checker(&cloud) };
        cloud.store = store.clone();
        let (inner, outer) = (cloud.add_network("10.0.0.0/24").await, cloud.add_network("172.24.4.0/24").await);
        let mut outer = store.get_network(outer.id).await.unwrap();
        outer.external = true;
        let outer = store.update_network(outer).await.unwrap();
        let ports = vec![cloud.add_port(inner.id).await, cloud.add_port(inner.id).await];
        route(&cloud, &ports[0], outer.id).await;
        assert_eq!(checker.check().await.unwrap().violations, []);
        Self { _folder: folder, url, checker, ports }
    }

    async fn damage(&self, damage: String) {
        use sqlx::Connection;
        let mut connection = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
        let done = sqlx::query(sqlx::AssertSqlSafe(damage.clone())).execute(&mut connection).await.unwrap();
        assert!(done.rows_affected() > 0, "{damage}");
        connection.close().await.unwrap();
    }
}

impl Rows {
    /// Mends, after which nothing is wrong; returns what was changed.
    async fn mended(&self) -> Vec<String> {
        let (tried, after) = self.checker.repair().await.unwrap();
        assert_eq!(after.violations, []);
        let done = tried.into_iter().filter_map(|mended| match mended.outcome {
            Outcome::Done(lines) => Some(lines),
            _ => None,
        });
        done.flatten().collect()
    }
}

/// A floating address for the port, by a router of its own.
async fn route(cloud: &Cloud, port: &Port, outer: NetworkId) {
    let (store, now) = (&cloud.store, cloud.now());
    let router = Router {
        id: RouterId::generate(&*cloud.entropy),
        project_id: port.project_id.clone(),
        name: String::new(),
        description: String::new(),
        admin_state_up: true,
        gateway: None,
        routes: Vec::new(),
        created_at: now,
        updated_at: now,
        generation: 0,
    };
    let gateway = GatewayChange::Set { enable_snat: true, port: Box::new(cloud.new_port("".into(), outer)) };
    let router = store.create_router(router, gateway, None).await.unwrap();
    let subnet_id = port.fixed_ips[0].subnet_id;
    let mut own = cloud.new_port(port.project_id.clone(), port.network_id);
    own.fixed_ips = None;
    let interface = NewInterface::Subnet { subnet_id, port: Box::new(own) };
    store.add_router_interface(router.id, interface).await.unwrap();
    let new = NewFloatingIp {
        id: FloatingIpId::generate(&*cloud.entropy),
        project_id: port.project_id.clone(),
        description: String::new(),
        network_id: outer,
        address: FixedIpRequest { subnet_id: None, ip_address: None },
        target: Some(FloatingTarget { port_id: port.id, fixed_ip_address: None }),
        draw: 0,
        limit: None,
        now,
    };
    store.create_floating_ip(new).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn i1_i8_a_port_is_gone_and_its_address_and_floating_address_are_not() {
    let rows = Rows::new().await;
    let lost = &rows.ports[0];
    rows.damage(format!("DELETE FROM ports WHERE id = '{}'", lost.id)).await;
    let report = rows.checker.check().await.unwrap();
    assert_eq!(found(&report), ["I1", "I8"], "{:#?}", report.violations);
    let lines = rows.mended().await;
    let address = lost.fixed_ips[0].ip_address;
    assert!(lines.contains(&format!("{address} was taken by {}, which is not there", lost.id)), "{lines:?}");
    let store = &rows.checker.store;
    assert_eq!(store.list_floating_ips(&Default::default()).await.unwrap()[0].port_id, None);
    assert_eq!(
        store.list_ports(&Default::default()).await.unwrap().iter().filter(|port| port.id == lost.id).count(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn i1_addresses_are_neither_free_nor_taken() {
    let rows = Rows::new().await;
    let subnet = rows.ports[0].fixed_ips[0].subnet_id;
    rows.damage(format!("DELETE FROM free_ranges WHERE subnet_id = '{subnet}'")).await;
    let report = rows.checker.check().await.unwrap();
    assert_eq!(found(&report), ["I1"], "{:#?}", report.violations);
    let text = &report.violations[0].text;
    assert!(text.starts_with("of 254 addresses of 10.0.0.0/24, 0 are free and 3 are taken"), "{text}");
    assert_eq!(rows.mended().await, ["0 addresses were free, and 251 are"]);
}

/// Ports have them, and others could get them.
#[tokio::test(start_paused = true)]
async fn i1_addresses_in_use_are_not_taken() {
    let rows = Rows::new().await;
    let [one, two] = [&rows.ports[0], &rows.ports[1]].map(|port| (port.id, port.fixed_ips[0]));
    for (id, _) in [one, two] {
        rows.damage(format!("DELETE FROM addresses WHERE owner_id = '{id}'")).await;
    }
    let report = rows.checker.check().await.unwrap();
    assert_eq!(found(&report), ["I1"], "{:#?}", report.violations);
    let text = &report.violations[0].text;
    assert!(text.starts_with("3 addresses of 10.0.0.0/24 are in use, 1 are written as taken"), "{text}");
    let mut lines = rows.mended().await;
    lines.sort();
    let mut expected = [one, two].map(|(id, ip)| format!("{} is used by {id}, and was not taken", ip.ip_address));
    expected.sort();
    assert_eq!(lines, expected);
    // And one that was given to somebody else meanwhile: free in the ranges, and so for whoever comes next.
    let (id, ip) = two;
    let subnet = ip.subnet_id;
    rows.damage(format!("DELETE FROM addresses WHERE owner_id = '{id}'")).await;
    rows.damage(format!("DELETE FROM free_ranges WHERE subnet_id = '{subnet}'")).await;
    let lines = rows.mended().await;
    let expected = format!("{} is used by {id}, and was not taken", ip.ip_address);
    assert_eq!(lines, [expected, "0 addresses were free, and 251 are".to_owned()]);
    assert_eq!(rows.checker.store.count_addresses(subnet).await.unwrap(), (251, 3));
}

#[tokio::test(start_paused = true)]
async fn i1_an_address_is_two_ports() {
    let rows = Rows::new().await;
    let [one, two] = [&rows.ports[0], &rows.ports[1]];
    let address = one.fixed_ips[0].ip_address;
    let damage = format!(
        "UPDATE ports SET body = json_set(body, '$.fixed_ips[0].ip_address', '{address}') WHERE id = '{}'",
        two.id
    );
    rows.damage(damage).await;
    let report = rows.checker.check().await.unwrap();
    assert_eq!(found(&report), ["I1"], "{:#?}", report.violations);
    assert!(report.violations[0].repair.is_none(), "which one is to go is not for us to say");
    assert!(report.violations[0].text.contains(&two.id.to_string()));
}
