//! Services and compute nodes.

use std::sync::Arc;

use nova_core::flavor::Resources;
use nova_core::host::ComputeNode;
use nova_core::host_facts::{HostFacts, HostStats};
use nova_core::ids::HostName;

use super::fixtures::{Make, at, claim};
use crate::{Kind, ServiceBeat, ServiceQuery, Store, StoreError};

/// The first beat makes the service, later ones keep its id and number and move the time.
pub async fn beats_make_services(store: &Arc<dyn Store>) {
    let make = Make::new();
    let first = store.record_beats(&[make.beat("h2", 1), make.beat("h1", 1)]).await.unwrap();
    assert_eq!(first.iter().map(|s| (s.host.as_str(), s.number)).collect::<Vec<_>>(), [("h2", 1), ("h1", 2)]);
    let beat = ServiceBeat { version: 2, zone: "z".into(), ..make.beat("h1", 5) };
    let again = store.record_beats(&[beat]).await.unwrap().remove(0);
    assert_eq!((again.id, again.number, again.generation), (first[1].id, 2, 1));
    assert_eq!((again.last_seen_up, again.version, again.zone.as_str()), (at(5), 2, "z"));
    assert_eq!(again.created_at, at(1));
    assert_eq!(store.get_service(again.id).await.unwrap(), again);
    let all: Vec<_> = store.list_services().await.unwrap().into_iter().map(|s| s.host.to_string()).collect();
    assert_eq!(all, ["h1", "h2"]);
    assert_eq!(store.record_beats(&[]).await.unwrap(), []);
}

/// Services are found by what is asked for, in order, part by part.
pub async fn services_are_found(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut beats: Vec<_> = ["h3", "h1", "h2", "h4"].map(|host| make.beat(host, 1)).into();
    beats[0].zone = "west".into();
    beats.push(ServiceBeat { binary: "nova-conductor".into(), ..make.beat("h1", 1) });
    store.record_beats(&beats).await.unwrap();
    let find = |query: ServiceQuery| async move {
        let found = store.find_services(&query).await.unwrap();
        found.into_iter().map(|service| service.host.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(find(ServiceQuery::default()).await.len(), 5);
    assert_eq!(find(ServiceQuery::computes(&["h1".into(), "h9".into()])).await, ["h1"]);
    assert_eq!(find(ServiceQuery::computes([])).await, [""; 0]);
    let of_zone = |after: Option<&str>, limit| ServiceQuery {
        binary: Some("nova-compute".into()),
        zone: Some("nova".into()),
        after: after.map(HostName::from),
        limit: Some(limit),
        ..ServiceQuery::default()
    };
    assert_eq!(find(of_zone(None, 2)).await, ["h1", "h2"]);
    assert_eq!(find(of_zone(Some("h2"), 2)).await, ["h4"]);
}

/// A beat that was overtaken on its way moves no time back.
pub async fn late_beats_change_nothing(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.record_beats(&[make.beat("h1", 9)]).await.unwrap();
    let late = store.record_beats(&[make.beat("h1", 3)]).await.unwrap();
    assert_eq!(late[0].last_seen_up, at(9));
    assert_eq!(store.list_services().await.unwrap(), late);
}

/// Two beats of one host in the same batch are one service.
pub async fn repeated_beats_of_a_batch_are_one_service(store: &Arc<dyn Store>) {
    let make = Make::new();
    let both = store.record_beats(&[make.beat("h1", 1), make.beat("h1", 2)]).await.unwrap();
    assert_eq!((both.len(), both[0].last_seen_up), (2, at(2)));
    assert_eq!(both[0], both[1]);
    assert_eq!(store.list_services().await.unwrap().len(), 1);
}

/// How busy a host is changes nothing else of its node, and what is known already is not written again.
pub async fn stats_are_written_when_they_change(store: &Arc<dyn Store>) {
    let make = Make::new();
    let host = HostName::new("h1");
    let busy = HostStats { io_ops: 3, metrics: [("cpu.percent".to_owned(), 40.0)].into(), ..HostStats::default() };
    let unknown = store.put_stats(&host, busy.clone()).await.unwrap_err();
    assert!(matches!(unknown, StoreError::NotFound { kind: Kind::ComputeNode, .. }), "{unknown:?}");
    let node = store.put_node(make.node("h1", 4096)).await.unwrap();
    let told = store.put_stats(&host, busy.clone()).await.unwrap();
    assert_eq!(told.stats, busy);
    assert_eq!((told.id, told.inventory, told.used), (node.id, node.inventory, node.used));
    assert!(told.generation > node.generation);
    assert_eq!(store.put_stats(&host, busy.clone()).await.unwrap(), told);
    assert_eq!(store.node_of_host(&host).await.unwrap(), told);
    let facts = HostFacts { traits: ["CUSTOM_FAST".to_owned()].into(), ..HostFacts::default() };
    let report = ComputeNode { facts: facts.clone(), stats: busy, ..make.node("h1", 4096) };
    assert_eq!(store.put_node(report).await.unwrap().facts, facts);
}

/// Beats and operators do not overwrite each other, and a beat fails no operator's change.
pub async fn beats_leave_what_operators_set(store: &Arc<dyn Store>) {
    let make = Make::new();
    let mut service = store.record_beats(&[make.beat("h1", 1)]).await.unwrap().remove(0);
    store.record_beats(&[make.beat("h1", 7)]).await.unwrap();
    service.disabled = true;
    service.disabled_reason = Some("broken fan".into());
    service.updated_at = at(3);
    let written = store.update_service(service.clone()).await.unwrap();
    assert_eq!((written.generation, written.last_seen_up, written.updated_at), (2, at(7), at(7)));
    assert_eq!(store.get_service(service.id).await.unwrap(), written);
    let beaten = store.record_beats(&[make.beat("h1", 8)]).await.unwrap().remove(0);
    assert!(beaten.disabled && beaten.generation == 2 && beaten.last_seen_up == at(8));
    let error = store.update_service(service).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { kind: Kind::Service, .. }), "{error:?}");
}

/// A deleted service is gone; its next beat makes a new one.
pub async fn deleted_service_is_gone(store: &Arc<dyn Store>) {
    let make = Make::new();
    let old = store.record_beats(&[make.beat("h1", 1)]).await.unwrap().remove(0);
    store.delete_service(old.id).await.unwrap();
    for error in [store.delete_service(old.id).await.unwrap_err(), store.get_service(old.id).await.unwrap_err()] {
        assert!(matches!(error, StoreError::NotFound { kind: Kind::Service, .. }), "{error:?}");
    }
    let new = store.record_beats(&[make.beat("h1", 2)]).await.unwrap().remove(0);
    assert_ne!((new.id, new.number), (old.id, old.number));
}

/// A node's first report makes it; a new inventory keeps what is the store's; an unchanged report writes nothing.
pub async fn reports_make_nodes(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (instance, task) = make.building(&**store).await;
    let mut forged = make.node("h1", 4096);
    forged.used.vcpus = 50;
    forged.allocations = 50;
    let made = store.put_node(forged).await.unwrap();
    assert_eq!((made.number, made.generation, made.used, made.allocations), (1, 1, Resources::default(), 0));
    store.commit_task(claim(&task, &instance, "h1")).await.unwrap();
    let mut report = make.node("h1", 8192);
    report.updated_at = at(5);
    let grown = store.put_node(report.clone()).await.unwrap();
    assert_eq!((grown.id, grown.number, grown.allocations, grown.used.memory_mb), (made.id, 1, 1, 512));
    assert_eq!((grown.inventory.total.memory_mb, grown.generation, grown.updated_at), (8192, 3, at(5)));
    let commits = store.commits();
    report.updated_at = at(6);
    assert_eq!(store.put_node(report).await.unwrap(), grown);
    assert_eq!(store.commits(), commits);
    assert_eq!(store.get_node(made.id).await.unwrap(), grown);
}

/// Nodes are listed by host and found by host.
pub async fn nodes_are_listed_by_host(store: &Arc<dyn Store>) {
    let make = Make::new();
    for host in ["h2", "h10", "h1"] {
        store.put_node(make.node(host, 1)).await.unwrap();
    }
    let hosts: Vec<_> = store.list_nodes().await.unwrap().into_iter().map(|n| n.host.to_string()).collect();
    assert_eq!(hosts, ["h1", "h10", "h2"]);
    assert_eq!(store.node_of_host(&HostName::from("h2")).await.unwrap().number, 1);
    let (h1, name) = (HostName::from("h1"), "h1.example");
    let found = |nodes: Vec<ComputeNode>| nodes.into_iter().map(|node| node.host.to_string()).collect::<Vec<_>>();
    assert_eq!(found(store.find_nodes(Some(&h1), None).await.unwrap()), ["h1"]);
    let known = store.node_of_host(&h1).await.unwrap().hypervisor_hostname;
    assert_eq!(known, name);
    assert_eq!(found(store.find_nodes(None, Some(name)).await.unwrap()), ["h1"]);
    assert_eq!(found(store.find_nodes(Some(&h1), Some("h2.example")).await.unwrap()), [""; 0]);
    assert_eq!(store.find_nodes(None, None).await.unwrap().len(), 3);
    let error = store.node_of_host(&HostName::from("h3")).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { kind: Kind::ComputeNode, .. }), "{error:?}");
}
