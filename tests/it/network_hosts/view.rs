//! What the books say arrives at the hosts it concerns, told or asked for.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_change_of_the_books_reaches_its_hosts_within_a_second() {
    let world = World::new();
    let service = world.service().await;
    let (one, two, three) = (world.host("h1").await, world.host("h2").await, world.host("h3").await);
    let (network, apart) = (world.network("vxlan", Some(5)).await, world.network("local", None).await);
    let db = world.group(None).await;
    let web = world.group(Some(db)).await;
    let first = world.port(&network, "h1", &[web]).await;
    world.port(&apart, "h3", &[]).await;
    pass(40.0).await;
    assert_eq!((one.notes.last(), world.status(&first).await), (world.should_be("h1").await, PortStatus::Active));
    assert_eq!(two.notes.last(), HostNetwork::default());
    let quiet = (one.notes.count(), three.notes.count());
    // A member on another host of a group that a rule names.
    let second = world.port(&network, "h2", &[db]).await;
    let change = BooksChangedRequest { groups: vec![db], networks: vec![network.id], ..BooksChangedRequest::default() };
    world.notifier.changed(change);
    pass(0.9).await;
    assert_eq!(one.notes.last(), world.should_be("h1").await);
    assert_eq!(one.notes.last().groups[&db].members.len(), 1);
    assert_eq!(two.notes.last(), world.should_be("h2").await);
    assert_eq!(world.status(&second).await, PortStatus::Active);
    assert!(
        one.notes.count() <= quiet.0 + 2 && three.notes.count() <= quiet.1 + 1,
        "one round, and only where it matters"
    );
    // A rule.
    world.store.create_security_group_rules(vec![world.rule(web, None)], None).await.unwrap();
    world.notifier.changed(BooksChangedRequest { groups: vec![web], ..BooksChangedRequest::default() });
    pass(0.9).await;
    assert_eq!(one.notes.last().groups[&web].rules.len(), 2);
    // A port that goes.
    world.store.delete_port(second.id).await.unwrap();
    let change = BooksChangedRequest { networks: vec![network.id], hosts: vec!["h2".into()], ..Default::default() };
    world.notifier.changed(change);
    pass(0.9).await;
    assert_eq!(two.notes.last(), HostNetwork::default());
    assert_eq!(one.notes.last(), world.should_be("h1").await);
    for host in [one, two, three] {
        host.stop().await;
    }
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_told_is_asked_for() {
    let world = World::new();
    let service = world.service().await;
    let host = world.host("h1").await;
    pass(1.0).await;
    let network = world.network("local", None).await;
    let port = world.port(&network, "h1", &[]).await;
    // No word is sent; with a bus that loses half of everything it takes longer.
    pass(34.0).await;
    assert_eq!(host.notes.last(), world.should_be("h1").await);
    world.faults.set_chances(Chances { lose: 500, ..Chances::default() });
    world.store.delete_port(port.id).await.unwrap();
    pass(300.0).await;
    assert_eq!(host.notes.last(), HostNetwork::default());
    host.stop().await;
    service.stop().await;
}

/// What it is changed between two askings ends the same as what it is asked for as a whole.
#[tokio::test(start_paused = true)]
async fn many_small_changes_end_where_the_books_are() {
    let world = World::new();
    let service = world.service().await;
    let hosts = [world.host("h1").await, world.host("h2").await];
    let networks = [world.network("vxlan", Some(5)).await, world.network("local", None).await];
    let db = world.group(None).await;
    let web = world.group(Some(db)).await;
    let dice = SeededEntropy::new(7);
    let mut ports: Vec<Port> = Vec::new();
    for _ in 0..120 {
        let draw = dice.next_u64();
        let network = &networks[usize::try_from(draw % 2).unwrap()];
        let host = ["h1", "h2"][usize::try_from(draw / 2 % 2).unwrap()];
        match draw / 4 % 4 {
            0 | 1 => {
                ports.push(world.port(network, host, &[if (draw / 16).is_multiple_of(2) { web } else { db }]).await)
            }
            2 if !ports.is_empty() => {
                let port = ports.swap_remove(usize::try_from(draw / 16).unwrap() % ports.len());
                world.store.delete_port(port.id).await.unwrap();
            }
            _ => {
                if let Some(port) = ports.first() {
                    let read = world.store.get_port(port.id).await.unwrap();
                    let moved = Port { host: Some(host.into()), security_groups: vec![web, db], ..read };
                    let change = PortChange { port: moved, fixed_ips: None, draw: 0 };
                    world.store.update_port(change).await.unwrap();
                }
            }
        }
        // Only some are told of.
        if (draw / 64).is_multiple_of(3) {
            let networks = networks.iter().map(|network| network.id).collect();
            world.notifier.changed(BooksChangedRequest { networks, groups: vec![web, db], ..Default::default() });
        }
        pass(0.05 * (draw % 9) as f64).await;
    }
    pass(40.0).await;
    for (host, name) in hosts.iter().zip(["h1", "h2"]) {
        assert_eq!(host.notes.last(), world.should_be(name).await, "{name}");
    }
    for port in &ports {
        assert_eq!(world.status(port).await, PortStatus::Active, "{port:?}");
    }
    for host in hosts {
        host.stop().await;
    }
    service.stop().await;
}
