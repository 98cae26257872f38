//! The agent of a host: with the service and without it, and guests that wait for their ports.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_the_service_the_host_keeps_what_it_has() {
    let world = World::new();
    let service = world.service().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wanted.json");
    let network = world.network("local", None).await;
    world.port(&network, "h1", &[]).await;
    let host = world.host_with("h1", Arc::default(), Some(file.clone())).await;
    pass(2.0).await;
    let before = world.should_be("h1").await;
    assert_eq!(host.notes.last(), before);
    service.stop().await;
    let count = host.notes.count();
    pass(60.0).await;
    assert!(host.notes.count() >= count + 5, "it goes on to make it so");
    assert_eq!(host.notes.last(), before);
    host.stop().await;
    // Started again, still without the service; and a host that knows nothing touches nothing.
    let again = world.host_with("h1", Arc::default(), Some(file)).await;
    let new = world.host("h2").await;
    pass(0.5).await;
    assert_eq!((again.notes.count(), again.notes.last()), (1, before));
    pass(60.0).await;
    assert_eq!(new.notes.count(), 0);
    let second = world.port(&network, "h1", &[]).await;
    let service = world.service().await;
    pass(40.0).await;
    assert!(again.notes.last().segments[&network.id].ports.contains_key(&second.id));
    again.stop().await;
    new.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_waits_for_its_ports_and_shares_the_asking() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    pass(1.0).await;
    let network = world.network("local", None).await;
    let mut ports = Vec::new();
    for _ in 0..20 {
        ports.push(world.port(&network, "h1", &[]).await);
    }
    host.notes.absent.lock().unwrap().extend(ports.iter().map(|port| port.id));
    let before = (world.bus.counters().messages, host.notes.count());
    let began = tokio::time::Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for port in &ports {
        let (agent, vif) = (host.agent.clone(), vif(port));
        waiting.spawn(async move { agent.ready(&[vif]).await.map(|specs| specs.len()) });
    }
    while let Some(ready) = waiting.join_next().await {
        assert_eq!(ready.unwrap().unwrap(), 1);
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(host.notes.count() - before.1 <= 2, "many share a round");
    pass(0.01).await;
    assert!(world.bus.counters().messages - before.0 <= 6, "two rounds with their reports at most");
    // The guests' ends come, and it is seen soon.
    assert_eq!(world.status(&ports[0]).await, PortStatus::Down);
    host.notes.absent.lock().unwrap().clear();
    pass(1.5).await;
    for port in &ports {
        assert_eq!(world.status(port).await, PortStatus::Active);
    }
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_ports_cannot_be_is_told_so() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    pass(1.0).await;
    let network = world.network("local", None).await;
    let foreign = world.port(&network, "h2", &[]).await;
    let why = host.agent.ready(&[vif(&foreign)]).await.unwrap_err();
    assert!(nova_core::error::chain(&why).contains("do not have it on this host"), "{why:?}");
    let broken = world.port(&network, "h1", &[]).await;
    host.notes.broken.lock().unwrap().insert(broken.id);
    let why = host.agent.ready(&[vif(&broken)]).await.unwrap_err();
    assert!(nova_core::error::chain(&why).contains("can't be plugged in"), "{why:?}");
    pass(1.0).await;
    assert_eq!(world.status(&broken).await, PortStatus::Error);
    let state = world.store.get_network_state(&"h1".into()).await.unwrap().unwrap();
    assert_eq!(state.problems.len(), 1);
    assert!(!state.applied.contains_key(&format!("segment:{}", network.id)));
    host.notes.broken.lock().unwrap().clear();
    pass(15.0).await;
    assert_eq!(world.status(&broken).await, PortStatus::Active, "it is tried again");
    // Without the service it waits, and gives up.
    service.stop().await;
    let late = world.port(&network, "h1", &[]).await;
    let began = tokio::time::Instant::now();
    host.agent.ready(&[vif(&late)]).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(60));
    assert_eq!(host.agent.ready(&[vif(&broken)]).await.unwrap().len(), 1, "what it has it has");
    *host.notes.down.lock().unwrap() = true;
    pass(15.0).await;
    *host.notes.down.lock().unwrap() = false;
    let service = world.service().await;
    host.agent.ready(&[vif(&late)]).await.unwrap();
    host.stop().await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_guests_ports_go_soon() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    pass(1.0).await;
    host.agent.ready(&[vif(&port)]).await.unwrap();
    host.agent.gone(port.device_id.parse().unwrap()).await;
    pass(0.5).await;
    world.store.delete_port(port.id).await.unwrap();
    pass(2.0).await;
    assert_eq!(host.notes.last(), HostNetwork::default());
    host.stop().await;
    service.stop().await;
}
