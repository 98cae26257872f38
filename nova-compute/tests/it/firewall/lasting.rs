//! What changes while connections live, and what somebody else breaks.

use std::process::{Child, Command, Stdio};

use nova_compute::Plumbing;
use nova_compute::linux::firewall::Applied;
use nova_core::network::Remote;

use super::*;
use crate::support::group_id;

fn tcp(port: u16) -> nova_core::network::GroupRule {
    Scene::rule(Some(6), (Some(port), Some(port)), Remote::Any)
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_rule_that_goes_cuts_its_connections_and_no_others() {
    let mut lan = Lan::new(&[tcp(22), tcp(80)]).await;
    {
        let Lan { one, two, three, .. } = &lan;
        open(one, two, 22);
        open(one, two, 80);
        open(three, one, 80);
    }
    lan.scene.group(1, &[tcp(80)]);
    lan.converge().await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Changed));
    {
        let Lan { one, two, three, .. } = &lan;
        assert!(!two.reaches(one, &answer(two, one, 22)), "from the server");
        assert!(!one.reaches(two, &ack(one, two, 22)), "from the client");
        assert!(!two.reaches(one, &answer(two, one, 22)), "from the server again");
        // The first packet after the change may be of either side.
        assert!(two.reaches(one, &answer(two, one, 80)));
        assert!(one.reaches(two, &ack(one, two, 80)));
        assert!(three.reaches(one, &ack(three, one, 80)));
        assert!(one.reaches(three, &answer(one, three, 80)));
    }
    // The rule comes back, and with it the connection.
    lan.scene.group(1, &[tcp(22), tcp(80)]);
    lan.converge().await;
    let Lan { one, two, .. } = &lan;
    assert!(two.reaches(one, &answer(two, one, 22)));
    assert!(one.reaches(two, &ack(one, two, 22)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn who_leaves_a_group_is_cut_off() {
    let mut lan = Lan::new(&[Scene::rule(Some(17), (None, None), Remote::Group(group_id(1)))]).await;
    lan.scene.members(1, &["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"]);
    lan.converge().await;
    {
        let Lan { one, two, .. } = &lan;
        assert!(one.reaches(two, &udp(one, two, (5, 6))));
        assert!(two.reaches(one, &udp(two, one, (6, 5))));
        assert!(one.reaches(two, &udp(one, two, (5, 6))));
    }
    lan.scene.members(1, &["10.0.0.2/32", "10.0.0.3/32"]);
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(!two.reaches(one, &udp(two, one, (6, 5))), "an answer to what is not allowed any more");
    assert!(!one.reaches(two, &udp(one, two, (5, 6))));
    assert!(two.reaches(three, &udp(two, three, (6, 5))));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn members_change_without_a_look_at_the_rest() {
    let named = |port| Scene::rule(Some(17), (Some(port), Some(port)), Remote::Group(group_id(2)));
    let mut lan = Lan::new(&[named(6)]).await;
    lan.scene.group(2, &[]);
    lan.scene.members(2, &["10.0.0.1/32"]);
    lan.converge().await;
    lan.scene.members(2, &["10.0.0.1/32", "10.0.0.3/32"]);
    assert!(lan.adjust().await);
    {
        let Lan { one, two, three, .. } = &lan;
        assert!(three.reaches(two, &udp(three, two, (5, 6))));
        assert!(one.reaches(two, &udp(one, two, (5, 6))));
        assert!(two.reaches(one, &udp(two, one, (6, 5))), "an answer");
    }
    lan.scene.members(2, &["10.0.0.3/32"]);
    assert!(lan.adjust().await);
    {
        let Lan { one, two, three, .. } = &lan;
        assert!(!one.reaches(two, &udp(one, two, (5, 6))), "a flow of before");
        assert!(!two.reaches(one, &udp(two, one, (6, 5))), "an answer to it");
        assert!(three.reaches(two, &udp(three, two, (5, 6))));
    }
    // What is remembered is what is there, for this agent and for the next.
    lan.converge().await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
    lan.host.restart().await;
    assert!(!lan.adjust().await, "it does not know what is there");
    lan.converge().await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
    // More than members is not done in passing.
    lan.scene.group(1, &[named(6), named(7)]);
    assert!(!lan.adjust().await);
    lan.converge().await;
    lan.scene.members(2, &["10.0.0.0/30"]);
    assert!(!lan.adjust().await);
    lan.converge().await;
    open_udp(&lan.one, &lan.two, 7);
    // Somebody has broken the rules: the change fails, and all is made anew.
    lan.scene.members(2, &["10.0.0.1/32"]);
    lan.converge().await;
    lan.host.namespace.output("nft", &["delete table inet nova"]);
    lan.scene.members(2, &["10.0.0.3/32"]);
    lan.host.plumbing.adjust(&lan.scene.wanted).await.unwrap_err();
    assert!(!lan.adjust().await);
    lan.converge().await;
    open_udp(&lan.three, &lan.two, 7);
    assert!(!lan.one.reaches(&lan.two, &udp(&lan.one, &lan.two, (5, 7))));
}

fn open_udp(from: &Guest, to: &Guest, port: u16) {
    assert!(from.reaches(to, &udp(from, to, (5, port))));
}

/// What the kernel tells of changes to its rules.
struct Monitor(Option<Child>);

impl Monitor {
    fn start(lan: &Lan) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", lan.host.namespace.name(), "nft", "monitor"]);
        Self(Some(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()))
    }

    fn stop(mut self) -> String {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn the_same_again_changes_nothing() {
    let mut lan = Lan::new(&[tcp(22)]).await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Replaced));
    lan.converge().await;
    let monitor = Monitor::start(&lan);
    let before = lan.host.namespace.links().await.list().await.unwrap();
    for _ in 0..3 {
        lan.converge().await;
        assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
    }
    assert_eq!(lan.host.namespace.links().await.list().await.unwrap(), before);
    // The agent dies and comes back: its rules are in force.
    lan.host.restart().await;
    lan.converge().await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
    // Somebody else changes something of their own.
    lan.host.namespace.output("nft", &["add", "table", "inet", "operator"]);
    lan.converge().await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
    lan.host.restart().await;
    lan.scene.group(1, &[tcp(22), tcp(23)]);
    lan.converge().await;
    // The same folder, but other rules: it is not known what is in force.
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Replaced));
    open(&lan.one, &lan.two, 23);

    let seen = monitor.stop();
    let before: Vec<&str> = seen.lines().take_while(|line| !line.contains("operator")).collect();
    let ours = |line: &&&str| line.contains("bridge nova ") || line.contains("inet nova ");
    assert!(before.len() < seen.lines().count(), "the operator's table is not in {seen}");
    assert_eq!(before.iter().find(ours), None);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_somebody_breaks_is_mended() {
    let lan = Lan::new(&[tcp(22)]).await;
    lan.converge().await;
    let Lan { host, one, two, .. } = &lan;
    open(one, two, 22);
    let all_is_well = || {
        assert!(one.reaches(two, &syn(one, two, 22)) || one.reaches(two, &ack(one, two, 22)));
        assert!(!one.reaches(two, &syn(one, two, 23)));
    };
    let broken: [&[&str]; 7] = [
        &["nft", "flush", "ruleset"],
        &["nft", "delete table inet nova"],
        &["nft", "flush chain inet nova to_connection"],
        &["nft", "delete element bridge nova arrive { tap00000001-00 }"],
        &["nft", "insert rule inet nova passing accept"],
        &["ip", "link", "set", &one.tap, "nomaster"],
        &["ip", "link", "del", "brq00000001-00"],
    ];
    for command in broken {
        host.namespace.output(command[0], &command[1..]);
        lan.converge().await;
        all_is_well();
        // What was open stays so.
        assert!(two.reaches(one, &answer(two, one, 22)), "{command:?}");
        lan.converge().await;
        assert_eq!(host.plumbing.applied().await, Some(Applied::Unchanged), "{command:?}");
    }
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn rules_that_failed_are_tried_again() {
    let mut lan = Lan::new(&[tcp(22)]).await;
    lan.scene.group(1, &[tcp(23)]);
    // What must be remembered can't be written.
    let in_the_way = lan.host.options.state.join("firewall.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let converged = lan.host.plumbing.converge(&lan.scene.wanted).await.unwrap();
    assert!(!converged.problems.is_empty());
    std::fs::remove_dir(&in_the_way).unwrap();
    lan.converge().await;
    assert_ne!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
    open(&lan.one, &lan.two, 23);
    assert!(!lan.one.reaches(&lan.two, &syn(&lan.one, &lan.two, 22)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn an_unknown_tap_is_alone() {
    let mut lan = Lan::new(&[tcp(22)]).await;
    // Its port has gone, its guest runs on.
    let three = lan.scene.wanted.segments.values_mut().next().unwrap().ports.remove(&crate::support::port_id(3));
    lan.converge().await;
    {
        let Lan { one, two, three, .. } = &lan;
        assert!(!three.reaches_before(two, &syn(three, two, 22), one));
        assert!(!one.reaches_before(two, &frames::arp(1, (three.mac(), ip4(3)), ip4(2), two.mac()), one));
        let question = frames::arp(1, (three.mac(), ip4(3)), ip4(2), frames::EVERYBODY);
        assert!(!three.reaches_before(two, &question, one));
    }
    // Something that was put on the bridge by hand, and that nobody has told of yet.
    let intruder = lan.guests.plug(&lan.host.namespace, 66);
    lan.host.namespace.output("ip", &["link", "set", &intruder.tap, "master", "brq00000001-00"]);
    lan.host.namespace.links_run().await;
    let question = frames::arp(1, (intruder.mac(), ip4(66)), ip4(2), frames::EVERYBODY);
    assert!(!intruder.reaches_before(&lan.two, &question, &lan.one));
    // Another such one: what they have in common is the bridge.
    let accomplice = lan.guests.plug(&lan.host.namespace, 67);
    lan.host.namespace.output("ip", &["link", "set", &accomplice.tap, "master", "brq00000001-00"]);
    lan.host.namespace.links_run().await;
    assert!(!intruder.reaches(&accomplice, &udp(&intruder, &accomplice, (5, 6))));
    assert!(!accomplice.reaches(&intruder, &udp6(&accomplice, &intruder, (5, 6))));
    assert!(three.is_some());
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn nothing_is_left_of_what_is_not_wanted() {
    let mut lan = Lan::new(&[tcp(22)]).await;
    lan.scene.wanted = nova_core::network::HostNetwork::default();
    lan.converge().await;
    let links = lan.host.namespace.links().await.list().await.unwrap();
    assert!(links.iter().all(|link| link.name == "lo" || link.name.starts_with("tap")), "{links:?}");
    let rules = ["bridge", "inet"].map(|family| lan.host.namespace.output("nft", &["list", "table", family, "nova"]));
    let rules = rules.concat();
    for left in ["tap", "brq", "g_", "m4_", "m6_", "profile1"] {
        assert!(!rules.contains(left), "{left} is in {rules}");
    }
    lan.converge().await;
    assert_eq!(lan.host.plumbing.applied().await, Some(Applied::Unchanged));
}
