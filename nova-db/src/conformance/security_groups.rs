//! Security groups and their rules.

use std::sync::Arc;

use nova_core::ids::ProjectId;
use nova_core::network::{NetworkResource, SecurityGroup};

use super::fixtures::Make;
use super::networks::{not_found, plug, problem, wired};
use crate::{Kind, ListQuery, PortChange, PortQuery, RuleField, SecurityGroupField, Store};

async fn used(store: &dyn Store, resource: NetworkResource) -> u64 {
    store.network_accounts(&ProjectId::from("p")).await.unwrap().get(&resource).map_or(0, |account| account.used)
}

/// The first who asks makes it; it can be neither renamed nor, but by administrators, removed.
pub async fn projects_have_one_default_group(store: &Arc<dyn Store>) {
    let make = Make::new();
    store.set_network_limits(&"p".into(), [(NetworkResource::SecurityGroup, Some(Some(0)))].into()).await.unwrap();
    let first = store.default_security_group(make.security_group("p", true)).await.unwrap();
    assert_eq!(first.rules.len(), 4, "whatever the project's limits");
    let again = store.default_security_group(make.security_group("p", true)).await.unwrap();
    assert_eq!(again, first);
    let other = store.default_security_group(make.security_group("q", true)).await.unwrap();
    assert_ne!(other.id, first.id);
    let renamed = SecurityGroup { name: "mine".into(), ..first.clone() };
    assert_eq!(problem(store.update_security_group(renamed).await).name(), "SecurityGroupCannotUpdateDefault");
    assert_eq!(problem(store.delete_security_group(first.id, false).await).name(), "SecurityGroupCannotRemoveDefault");
    store.delete_security_group(first.id, true).await.unwrap();
    assert_eq!(used(&**store, NetworkResource::SecurityGroupRule).await, 0);
    let new = store.default_security_group(make.security_group("p", true)).await.unwrap();
    assert_ne!(new.id, first.id);
}

/// The same rule again is refused with the id of the one that is there; groups grow and shrink rule by rule.
pub async fn rules_are_unique_in_their_group(store: &Arc<dyn Store>) {
    let make = Make::new();
    let group = store.create_security_group(make.security_group("p", false), Some(1), Some(4)).await.unwrap();
    let error = store.create_security_group(make.security_group("p", false), Some(1), None).await;
    assert_eq!(problem(error).name(), "OverQuota");
    let tcp = make.rule(&group, "tcp");
    store.create_security_group_rules(vec![tcp.clone()], Some(4)).await.unwrap();
    let same = store.create_security_group_rules(vec![make.rule(&group, "6")], Some(4)).await;
    assert_eq!(problem(same).to_string(), format!("Security group rule already exists. Rule id is {}.", tcp.id));
    let pair = vec![make.rule(&group, "udp"), make.rule(&group, "udp")];
    assert_eq!(problem(store.create_security_group_rules(pair, None).await).name(), "SecurityGroupRuleExists");
    let pair = vec![make.rule(&group, "udp"), make.rule(&group, "sctp")];
    assert_eq!(problem(store.create_security_group_rules(pair, Some(4)).await).name(), "OverQuota");
    let read = store.get_security_group(group.id).await.unwrap();
    assert_eq!((read.rules.len(), used(&**store, NetworkResource::SecurityGroupRule).await), (3, 3));
    assert!(read.generation > group.generation, "a new rule is a change of the group");
    let list = store.list_security_group_rules(&ListQuery::of(RuleField::Protocol, "tcp")).await.unwrap();
    assert_eq!(list, std::slice::from_ref(&tcp));
    store.delete_security_group_rule(tcp.id).await.unwrap();
    not_found(store.delete_security_group_rule(tcp.id).await, Kind::SecurityGroupRule);
    assert_eq!(used(&**store, NetworkResource::SecurityGroupRule).await, 2);
    let mut lost = make.rule(&group, "tcp");
    lost.remote_group_id = Some(make.security_group("p", false).id);
    assert_eq!(problem(store.create_security_group_rules(vec![lost], None).await).name(), "SecurityGroupNotFound");
}

/// A group that a port has is not removed; ports take only groups that are there and their own project's.
pub async fn groups_in_use_stay(store: &Arc<dyn Store>) {
    let make = Make::new();
    let (network, _) = wired(&**store, &make, "10.0.0.0/24").await;
    let own = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let foreign = store.create_security_group(make.security_group("q", false), None, None).await.unwrap();
    let mut new = make.port(&network, "p");
    new.port.security_groups = vec![own.id];
    let port = plug(&**store, new).await.unwrap();
    let with = PortQuery { security_groups: vec![own.id], ..PortQuery::default() };
    assert_eq!(store.list_ports(&with).await.unwrap(), std::slice::from_ref(&port));
    assert_eq!(problem(store.delete_security_group(own.id, true).await).name(), "SecurityGroupInUse");
    for group in [foreign.id, make.security_group("p", false).id] {
        let mut new = make.port(&network, "p");
        new.port.security_groups = vec![own.id, group];
        assert_eq!(problem(plug(&**store, new).await).name(), "SecurityGroupNotFound");
        let mut changed = port.clone();
        changed.security_groups = vec![group];
        let answer = store.update_port(PortChange { port: changed, fixed_ips: None, draw: 0 }).await;
        assert_eq!(problem(answer).name(), "SecurityGroupNotFound");
    }
    let mut bare = port;
    bare.security_groups = Vec::new();
    store.update_port(PortChange { port: bare, fixed_ips: None, draw: 0 }).await.unwrap();
    store.delete_security_group(own.id, false).await.unwrap();
    not_found(store.get_security_group(own.id).await, Kind::SecurityGroup);
}

/// Rules of others that name a removed group go with it, and are not counted any more.
pub async fn removed_groups_take_rules_along(store: &Arc<dyn Store>) {
    let make = Make::new();
    let one = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let two = store.create_security_group(make.security_group("p", false), None, None).await.unwrap();
    let mut rule = make.rule(&one, "tcp");
    rule.remote_group_id = Some(two.id);
    store.create_security_group_rules(vec![rule], None).await.unwrap();
    store.delete_security_group(two.id, false).await.unwrap();
    let left = store.list_security_groups(&ListQuery::of(SecurityGroupField::ProjectId, "p")).await.unwrap();
    assert_eq!((left.len(), left[0].id, left[0].rules.len()), (1, one.id, 2));
    assert_eq!(used(&**store, NetworkResource::SecurityGroupRule).await, 2);
    assert_eq!(used(&**store, NetworkResource::SecurityGroup).await, 1);
}
