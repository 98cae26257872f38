//! What every database server has to show beyond the list of checks.

use std::sync::Arc;
use std::time::Duration;

use nova_core::ids::ProjectId;
use nova_core::network::NetworkResource;

use super::servers::{Place, Private, store_at};
use crate::conformance::fixtures::{FREE, Make};
use crate::conformance::open_store_is_healthy;
use crate::{OpenOptions, Store, StoreError, open};

/// Two programs on one database see each other's commits, and the races come out as with one.
pub(super) async fn two_stores_share_a_database(place: Place) {
    let (one, two) = (store_at(&place.url).await, store_at(&place.url).await);
    let (first, second) = tokio::join!(one.migrate(), two.migrate());
    first.unwrap();
    second.unwrap();
    let mut writers = Vec::new();
    for n in 0..64_u8 {
        let store = Arc::clone(if n % 2 == 0 { &one } else { &two });
        writers.push(tokio::spawn(async move { store.secret(&format!("key {}", n / 8), &[n]).await.unwrap() }));
    }
    for (n, writer) in writers.into_iter().enumerate() {
        let (name, answer) = (format!("key {}", n / 8), writer.await.unwrap());
        assert_eq!(one.secret(&name, b"late").await.unwrap(), answer);
        assert_eq!(two.secret(&name, b"late").await.unwrap(), answer);
    }
    assert_eq!(one.commits() + two.commits(), 8);
}

pub(super) async fn many_programs_migrate_at_once(place: Place) {
    let mut running = Vec::new();
    for _ in 0..8 {
        let store = store_at(&place.url).await;
        running.push(tokio::spawn(async move { store.migrate().await }));
    }
    for migration in running {
        migration.await.unwrap().unwrap();
    }
    open_store_is_healthy(&store_at(&place.url).await).await;
}

pub(super) async fn empty_database_has_no_schema(place: Place) {
    let store = store_at(&place.url).await;
    let (found, needed) = store.schema_version().await.unwrap();
    assert!(found == 0 && needed > 0);
    let error = store.list_flavors().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaStale { found: 0, .. }), "{error:?}");
    let error = store.secret("key", b"value").await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaStale { found: 0, .. }), "{error:?}");
}

/// `tampered` has done `INSERT INTO schema_migrations (version) VALUES (999)`.
pub(super) async fn newer_schema_is_refused(tampered: &str) {
    let store = store_at(tampered).await;
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaNewer { found: 999, .. }), "{error:?}");
    assert_eq!(store.schema_version().await.unwrap().0, 999);
}

/// A caller that leaves while its operation runs leaves the store whole, and its connections to others.
pub(super) async fn callers_may_leave(place: Place) {
    let options = OpenOptions { connections: 4, ..OpenOptions::default() };
    let store = open(&place.url, &options).await.unwrap();
    store.migrate().await.unwrap();
    for n in 0..64 {
        let other = Arc::clone(&store);
        let call = tokio::spawn(async move { other.secret(&format!("{n}"), b"value").await });
        for _ in 0..n % 8 {
            tokio::task::yield_now().await;
        }
        if n % 4 == 0 {
            let _ = store.list_flavors().await;
        }
        call.abort();
    }
    for n in 0..64 {
        assert_eq!(store.secret(&format!("{n}"), b"value").await.unwrap(), b"value");
    }
}

/// What cannot work is told at once, by name, without the password.
pub(super) async fn what_cannot_work_is_told(url: &str) {
    let (address, _) = url.rsplit_once('/').unwrap();
    let (scheme, rest) = address.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    for wrong in [
        format!("{scheme}://nova:nova@{host}/no_such_database"),
        format!("{scheme}://nova:nova@{host}/"),
        format!("{scheme}://nova:geheim@{host}:x/nova"),
        format!("{scheme}://nobody:geheim@{host}/nova"),
    ] {
        let error = open(&wrong, &OpenOptions::default()).await.err().unwrap();
        assert!(matches!(error, StoreError::Connection { .. }), "{wrong}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    }
    // Port 1 of this machine: nobody listens.
    let away = format!("{scheme}://nova:geheim@127.0.0.1:1/nova");
    let error = open(&away, &OpenOptions::default()).await.err().unwrap();
    assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    let store = store_at(url).await;
    store.ping().await.unwrap();
}

/// A restart of the server in the middle of creates: what was answered is there, the accounts are exact, and a create
/// fails only where the answer to its COMMIT was lost.
pub(super) async fn restarts_lose_nothing(name: &str) {
    let (server, url) = Private::start(name);
    let options = OpenOptions { patience: Duration::from_secs(60), ..OpenOptions::default() };
    let store = open(&url, &options).await.unwrap();
    store.migrate().await.unwrap();
    let make = Make::new();
    for end in ["stop", "kill"] {
        let work: Vec<_> = (0..10)
            .map(|_| {
                let requests: Vec<_> = (0..60).map(|_| make.request_of(vec![make.instance("p")], FREE)).collect();
                tokio::spawn(creates(Arc::clone(&store), requests))
            })
            .collect();
        // Once all are in the middle of it.
        while store.commits() < 100 {
            tokio::task::yield_now().await;
        }
        let server = &server;
        tokio::task::block_in_place(|| {
            server.run(end);
            server.run("start");
        });
        let (mut made, mut unknown) = (Vec::new(), 0);
        for task in work {
            let (ids, lost) = task.await.unwrap();
            made.extend(ids);
            unknown += lost;
        }
        assert!(made.len() + unknown == 600 && unknown <= 10, "{end}: {} made, {unknown} unknown", made.len());
        for id in &made {
            store.get_instance(*id).await.unwrap();
        }
        let all = store.list_instances(&Default::default()).await.unwrap().len();
        assert_eq!(store.usage(&ProjectId::from("p")).await.unwrap().instances, all as u64);
        assert_eq!(store.rebuild_accounts().await.unwrap(), Vec::<String>::new());
    }
    server.run("stop");
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

async fn creates(
    store: Arc<dyn Store>,
    requests: Vec<crate::NewInstances>,
) -> (Vec<nova_core::ids::InstanceId>, usize) {
    let (mut made, mut unknown) = (Vec::new(), 0);
    for request in requests {
        match store.create_instances(request).await {
            Ok(instances) => made.extend(instances.iter().map(|instance| instance.id)),
            Err(StoreError::Unavailable { source, .. }) => {
                assert!(source.to_string().contains("may or may not have happened"), "{source:?}");
                unknown += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    (made, unknown)
}

/// Ports and servers that callers of several projects take and give back at once are few transactions, and all are counted.
pub(super) async fn callers_share_transactions(place: Place) {
    let store = store_at(&place.url).await;
    store.migrate().await.unwrap();
    let make = Make::new();
    let mut network = make.network("p0");
    network.shared = true;
    let network = store.create_network(network, None).await.unwrap();
    let subnet = store.create_subnet(make.subnet(&network, "10.0.0.0/16"), None, None).await.unwrap();
    let before = store.commits();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..48 {
        let (store, port) = (Arc::clone(&store), make.port(&network, &format!("p{}", n % 6)));
        callers.spawn(async move { store.create_ports(vec![port]).await.unwrap().remove(0) });
    }
    let ports = callers.join_all().await;
    assert!(store.commits() - before < 24, "{} transactions", store.commits() - before);
    for project in 0..6 {
        let accounts = store.network_accounts(&ProjectId::new(format!("p{project}"))).await.unwrap();
        assert_eq!(accounts[&NetworkResource::Port].used, 8);
    }
    assert_eq!(store.count_addresses(subnet.id).await.unwrap().1, 48);
    let mut callers = tokio::task::JoinSet::new();
    for port in ports {
        let store = Arc::clone(&store);
        callers.spawn(async move { store.delete_port(port.id).await.unwrap() });
    }
    callers.join_all().await;
    for project in 0..6 {
        let accounts = store.network_accounts(&ProjectId::new(format!("p{project}"))).await.unwrap();
        assert_eq!(accounts[&NetworkResource::Port].used, 0);
    }
    assert_eq!(store.count_addresses(subnet.id).await.unwrap().1, 0);
    let before = store.commits();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..48 {
        let (store, new) = (Arc::clone(&store), make.request_of(vec![make.instance(&format!("p{}", n % 6))], FREE));
        callers.spawn(async move { store.create_instances(new).await.unwrap() });
    }
    assert_eq!(callers.join_all().await.len(), 48);
    assert!(store.commits() - before < 24, "{} transactions", store.commits() - before);
    assert_eq!(store.usage(&ProjectId::new("p5")).await.unwrap().instances, 8);
}
