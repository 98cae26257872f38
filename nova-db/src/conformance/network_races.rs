//! Many callers at once want the same address, unit of quota, or the end of what another begins.

use std::sync::Arc;

use nova_core::ids::ProjectId;
use nova_core::network::{NetworkProblem, NetworkResource};

use super::fixtures::Make;
use super::networks::{adds_up, asked, plug, wired};
use super::races::all_at_once;
use super::routers::joined;
use crate::{FloatingTarget, NewPort, PortQuery, Store, StoreError};

const MANY: usize = 64;

async fn all_plugged(store: &Arc<dyn Store>, new: Vec<NewPort>) -> Vec<Result<nova_core::network::Port, StoreError>> {
    all_at_once(new, |new| {
        let store = Arc::clone(store);
        async move { plug(&*store, new).await }
    })
    .await
}

fn won<T>(answers: &[Result<T, StoreError>]) -> usize {
    answers.iter().filter(|answer| answer.is_ok()).count()
}

fn lost_by<T: std::fmt::Debug>(answers: &[Result<T, StoreError>], name: &str) {
    let lost = answers.iter().filter_map(|answer| answer.as_ref().err());
    lost.for_each(|e| assert!(matches!(e, StoreError::Network(problem) if problem.name() == name), "{e:?}"));
}

/// Of many who want any address of a subnet that has one left, one gets it.
pub async fn one_gets_the_last_address(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/28").await;
    for _ in 0..12 {
        plug(&**store, make.port(&network, "p")).await.unwrap();
    }
    let answers = all_plugged(store, (0..MANY).map(|_| make.port(&network, "p")).collect()).await;
    assert_eq!(won(&answers), 1);
    lost_by(&answers, "IpAddressGenerationFailure");
    adds_up(&**store, &subnet, 14).await;
}

/// Of many who ask for the same address, one gets it.
pub async fn one_gets_the_asked_address(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let new = |_| NewPort { fixed_ips: Some(vec![asked("10.0.0.40")]), ..make.port(&network, "p") };
    let answers = all_plugged(store, (0..MANY).map(new).collect()).await;
    assert_eq!(won(&answers), 1);
    lost_by(&answers, "IpAddressInUse");
    adds_up(&**store, &subnet, 254).await;
}

/// Of many who want the last unit of quota, one gets it.
pub async fn ports_race_for_the_quota(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let new = |_| NewPort { limit: Some(3), ..make.port(&network, "p") };
    let answers = all_plugged(store, (0..MANY).map(new).collect()).await;
    assert_eq!(won(&answers), 3);
    lost_by(&answers, "OverQuota");
    let accounts = store.network_accounts(&ProjectId::from("p")).await.unwrap();
    assert_eq!(accounts[&NetworkResource::Port].used, 3);
    adds_up(&**store, &subnet, 254).await;
}

/// Of many floating addresses that are to stand for one fixed address, one does; of many that ask for one outer address, one
/// has it.
pub async fn one_floating_ip_for_a_fixed_one(store: &Arc<dyn Store>) {
    let make = Make::new();
    let joined = joined(&**store, &make).await;
    let outer = &joined.outer.0;
    let new = |_| {
        let mut new = make.floating(outer, "p");
        new.address = asked("192.0.2.7");
        new
    };
    let answers = all_at_once((0..MANY).map(new).collect(), |new| {
        let store = Arc::clone(store);
        async move { store.create_floating_ip(new).await }
    })
    .await;
    assert_eq!(won(&answers), 1);
    lost_by(&answers, "IpAddressInUse");
    let port = plug(&**store, make.port(&joined.inner.0, "p")).await.unwrap();
    let mut floating = Vec::new();
    for _ in 0..8 {
        floating.push(store.create_floating_ip(make.floating(outer, "p")).await.unwrap());
    }
    let target = FloatingTarget { port_id: port.id, fixed_ip_address: Some(port.fixed_ips[0].ip_address) };
    let answers = all_at_once(floating, |floating| {
        let store = Arc::clone(store);
        async move { store.associate_floating_ip(floating, Some(target)).await }
    })
    .await;
    assert_eq!(won(&answers), 1);
    lost_by(&answers, "FloatingIPPortAlreadyAssociated");
}

/// Of many who remove a port, one does; its address is free once.
pub async fn one_removes_a_port(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
    let port = plug(&**store, make.port(&network, "p")).await.unwrap();
    let answers = all_at_once(vec![port.id; MANY], |id| {
        let store = Arc::clone(store);
        async move { store.delete_port(id).await }
    })
    .await;
    assert_eq!(won(&answers), 1);
    assert_eq!(store.count_addresses(subnet.id).await.unwrap(), (254, 0));
    let accounts = store.network_accounts(&ProjectId::from("p")).await.unwrap();
    assert_eq!(accounts[&NetworkResource::Port].used, 0);
}

/// Takings and givings back on one subnet, chosen and asked for, add up.
pub async fn addresses_add_up_under_load(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, subnet) = wired(&**store, &make, "10.0.0.0/25").await;
    let mut work = Vec::new();
    for n in 0..MANY {
        let first = NewPort { draw: n as u64 * 7919, ..make.port(&network, "p") };
        let mut second = NewPort { draw: n as u64, ..make.port(&network, "p") };
        if n % 4 == 0 {
            second.fixed_ips = Some(vec![asked(&format!("10.0.0.{}", 60 + n / 8))]);
        }
        work.push((first, second));
    }
    all_at_once(work, |(first, second)| {
        let store = Arc::clone(store);
        async move {
            let made = plug(&*store, first).await;
            let _ = plug(&*store, second).await;
            if let Ok(port) = made {
                store.delete_port(port.id).await.unwrap();
            }
        }
    })
    .await;
    adds_up(&**store, &subnet, 126).await;
    let ports = store.list_ports(&PortQuery::default()).await.unwrap();
    for port in &ports {
        store.delete_port(port.id).await.unwrap();
    }
    assert_eq!(store.count_addresses(subnet.id).await.unwrap(), (126, 0));
}

/// A network is removed, or ports are made on it: never both.
pub async fn networks_and_ports_exclude_each_other(store: &Arc<dyn Store>) {
    let make = Make::new();
    for round in 0..4 {
        let (network, subnet) = wired(&**store, &make, "10.0.0.0/24").await;
        let bare = |n: usize| (n % 2 == 1).then(Vec::new);
        let mut work: Vec<_> =
            (0..8).map(|n| Some(NewPort { fixed_ips: bare(n), ..make.port(&network, "p") })).collect();
        work.insert(round * 2, None);
        let answers = all_at_once(work, |new| {
            let (store, id) = (Arc::clone(store), network.id);
            async move {
                match new {
                    Some(new) => plug(&*store, new).await.is_ok(),
                    None => store.delete_network(id).await.is_ok(),
                }
            }
        })
        .await;
        let gone = answers[round * 2];
        let made = answers.iter().filter(|won| **won).count() - usize::from(gone);
        assert_eq!(store.get_network(network.id).await.is_err(), gone);
        assert!(gone != (made > 0), "removed: {gone}, ports: {made}");
        if gone {
            assert_eq!(store.count_addresses(subnet.id).await.unwrap(), (0, 0));
        } else {
            adds_up(&**store, &subnet, 254).await;
        }
    }
}

/// A group is removed, or ports take it: never both.
pub async fn groups_and_ports_exclude_each_other(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, _) = wired(&**store, &make, "10.0.0.0/24").await;
    for round in 0..4 {
        let group = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
        let new = |_| {
            let mut new = make.port(&network, "p");
            new.port.security_groups = vec![group.id];
            Some(new)
        };
        let mut work: Vec<_> = (0..6).map(new).collect();
        work.insert(round, None);
        let answers = all_at_once(work, |new| {
            let (store, id) = (Arc::clone(store), group.id);
            async move {
                match new {
                    Some(new) => match plug(&*store, new).await {
                        Ok(_) => true,
                        Err(StoreError::Network(NetworkProblem::NoSuchGroup { .. })) => false,
                        Err(other) => panic!("{other:?}"),
                    },
                    None => store.delete_security_group(id, false).await.is_ok(),
                }
            }
        })
        .await;
        let gone = answers[round];
        let with = PortQuery { security_groups: vec![group.id], ..PortQuery::default() };
        let users = store.list_ports(&with).await.unwrap().len();
        assert_eq!((store.get_security_group(group.id).await.is_err(), users == 0), (gone, gone));
    }
}
