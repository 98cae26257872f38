//! What groups let through.

use nova_core::network::{Carrier, Direction, EtherType, GroupRule, PortStatus, Remote};

use super::*;
use crate::support::{group_id, port_id};

fn tcp(first: u16, last: u16) -> GroupRule {
    Scene::rule(Some(6), (Some(first), Some(last)), Remote::Any)
}

fn from(cidr: &str) -> Remote {
    Remote::Prefix(cidr.parse().unwrap())
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_the_group_allows_passes_and_nothing_else() {
    let rules = [
        tcp(22, 22),
        tcp(8000, 8010),
        tcp(8005, 8100),
        tcp(443, 443),
        Scene::rule(Some(17), (Some(53), Some(53)), from("10.0.0.3/32")),
        Scene::rule(Some(132), (Some(7), Some(7)), Remote::Any),
    ];
    let lan = Lan::new(&rules).await;
    let Lan { one, two, three, .. } = &lan;
    for (port, passes) in
        [(22, true), (23, false), (7999, false), (8000, true), (8100, true), (8101, false), (443, true)]
    {
        assert_eq!(one.reaches(two, &syn(one, two, port)), passes, "{port}");
    }
    assert!(!one.reaches(two, &udp(one, two, (9, 53))));
    assert!(three.reaches(two, &udp(three, two, (9, 53))));
    assert!(!three.reaches(two, &udp(three, two, (9, 54))));
    assert!(!one.reaches(two, &ping(one, two, 1)));
    assert!(!one.reaches(two, &udp6(one, two, (9, 22))));
    let converged = lan.host.converge(&lan.scene.wanted).await;
    assert_eq!(converged.ports[&port_id(1)], PortStatus::Active);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn answers_pass_and_nothing_is_taken_for_one() {
    let lan = Lan::new(&[tcp(22, 22)]).await;
    let Lan { one, two, three, .. } = &lan;
    open(one, two, 22);
    assert!(two.reaches(one, &answer(two, one, 22)));
    // Nobody asked.
    assert!(!three.reaches(one, &syn_ack(three, one, 22)));
    assert!(!two.reaches(one, &answer(two, one, 23)));
    // Two asks; one's answer passes though no rule lets anything in to two from it.
    assert!(two.reaches(one, &syn(two, one, 22)));
    assert!(one.reaches(two, &syn_ack(one, two, 22)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn types_and_codes_of_icmp() {
    let six = |kind| GroupRule { ethertype: EtherType::V6, ..Scene::rule(Some(58), (Some(kind), None), Remote::Any) };
    let rules = [
        Scene::rule(Some(1), (Some(8), Some(0)), Remote::Any),
        Scene::rule(Some(1), (Some(13), None), from("10.0.0.3/32")),
        six(128),
    ];
    let lan = Lan::new(&rules).await;
    let Lan { one, two, three, .. } = &lan;
    assert!(one.reaches(two, &ping(one, two, 1)));
    assert!(two.reaches(one, &pong(two, one, 1)));
    assert!(!two.reaches(one, &pong(two, one, 2)), "nobody asked");
    let (a, b) = four(one, two);
    assert!(!one.reaches(two, &frames::icmp(macs(one, two), a, b, 13, 0, &[0; 16])), "timestamp request");
    let (c, d) = four(three, two);
    assert!(three.reaches(two, &frames::icmp(macs(three, two), c, d, 13, 0, &[0; 16])), "timestamp request");
    let (a, b) = super::six(one, two);
    assert!(one.reaches(two, &frames::echo(macs(one, two), a, b, false, 3)));
    assert!(two.reaches(one, &frames::echo(macs(two, one), b, a, true, 3)));
    assert!(!one.reaches(two, &frames::icmp(macs(one, two), a, b, 139, 0, &[0; 16])), "node information");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_remote_group_is_whoever_is_in_it() {
    let rules = [Scene::rule(Some(6), (None, None), Remote::Group(group_id(2)))];
    let mut lan = Lan::new(&rules).await;
    lan.scene.group(2, &[]);
    lan.scene.members(2, &["10.0.0.1/32"]);
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(one.reaches(two, &syn(one, two, 80)));
    assert!(!three.reaches(two, &syn(three, two, 80)));

    lan.scene.members(2, &["10.0.0.1/32", "10.0.0.2/31", "fd00::1/128"]);
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(three.reaches(two, &syn(three, two, 80)));
    assert!(one.reaches(two, &syn(one, two, 81)));

    lan.scene.members(2, &["10.0.0.3/32"]);
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(three.reaches(two, &syn(three, two, 82)));
    assert!(!one.reaches(two, &syn(one, two, 82)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_goes_out_needs_leave_too() {
    let mut lan = Lan::new(&[tcp(1, 65535)]).await;
    let only =
        GroupRule { direction: Direction::Egress, ..Scene::rule(Some(6), (Some(80), Some(80)), from("10.0.0.2/32")) };
    lan.scene.group(2, &[]).rules = [only].into();
    lan.scene.edit(1).security.as_mut().unwrap().groups = [group_id(2)].into();
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(one.reaches(two, &syn(one, two, 80)));
    assert!(two.reaches(one, &syn_ack(two, one, 80)), "an answer needs no leave to come in");
    assert!(!one.reaches(two, &syn(one, two, 81)));
    assert!(!one.reaches(three, &syn(one, three, 80)));
    assert!(!one.reaches(two, &udp(one, two, (5, 80))));
    assert!(!two.reaches(one, &syn(two, one, 80)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn groups_add_up_and_none_lets_nothing_in() {
    let mut lan = Lan::new(&[tcp(22, 22)]).await;
    lan.scene.group(2, &[tcp(80, 80)]);
    lan.scene.edit(2).security.as_mut().unwrap().groups = [group_id(1), group_id(2)].into();
    lan.scene.edit(3).security.as_mut().unwrap().groups.clear();
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(one.reaches(two, &syn(one, two, 22)));
    assert!(one.reaches(two, &syn(one, two, 80)));
    assert!(!two.reaches(one, &syn(two, one, 80)));
    assert!(!one.reaches(three, &syn(one, three, 22)));
    assert!(!three.reaches(one, &syn(three, one, 22)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_stateless_group_looks_at_every_packet() {
    let mut lan = Lan::new(&[tcp(22, 22)]).await;
    lan.scene.group(2, &[tcp(22, 22)]).stateful = false;
    lan.scene.edit(1).security.as_mut().unwrap().groups = [group_id(2)].into();
    lan.converge().await;
    let Lan { one, two, .. } = &lan;
    assert!(one.reaches(two, &syn(one, two, 22)));
    assert!(!two.reaches(one, &syn_ack(two, one, 22)), "an answer comes in by a rule only");
    assert!(two.reaches(one, &syn(two, one, 22)));
    assert!(one.reaches(two, &syn_ack(one, two, 22)), "the other side knows connections");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn two_projects_with_the_same_addresses_know_nothing_of_each_other() {
    let mut lan = Lan::new(&[tcp(22, 22)]).await;
    lan.scene.network(2, Carrier::Local);
    lan.scene.group(2, &[]);
    lan.scene.port(2, 257, Some(&[2]));
    lan.scene.port(2, 258, Some(&[2]));
    let (other_one, other_two) = (lan.guests.plug(&lan.host.namespace, 257), lan.guests.plug(&lan.host.namespace, 258));
    lan.converge().await;
    let Lan { one, two, .. } = &lan;
    open(one, two, 22);
    // The same addresses and ports; there it is no answer.
    assert!(!other_two.reaches(&other_one, &syn_ack(&other_two, &other_one, 22)));
    assert!(!other_one.reaches(&other_two, &ack(&other_one, &other_two, 22)));
    assert!(!other_one.reaches_before(two, &syn(&other_one, two, 22), one));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_is_off_passes_nothing() {
    let mut lan = Lan::new(&[tcp(22, 22)]).await;
    lan.scene.edit(2).admin_state_up = false;
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(!two.reaches_before(one, &syn(two, one, 22), three));
    let question = frames::arp(1, (two.mac(), ip4(2)), ip4(1), frames::EVERYBODY);
    assert!(!two.reaches_before(one, &question, three));
    lan.scene.network(1, Carrier::Local).admin_state_up = false;
    lan.scene.edit(2).admin_state_up = true;
    lan.scene.edit(3).security = None;
    lan.scene.network(2, Carrier::Local);
    lan.converge().await;
    let plan = lan.host.namespace.output("nft", &["list", "map", "bridge", "nova", "arrive"]);
    assert_eq!(plan.matches(": drop").count(), 3, "{plan}");
}
