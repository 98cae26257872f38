//! Whose addresses a guest may send from.

use nova_core::network::{AddressPair, Remote};

use super::*;
use crate::support::frames::EVERYBODY;
use crate::support::mac;

fn all() -> [nova_core::network::GroupRule; 2] {
    let six = Remote::Prefix("fd00::/16".parse().unwrap());
    [Scene::rule(None, (None, None), Remote::Any), Scene::rule(None, (None, None), six)]
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn forged_addresses_are_dropped() {
    let lan = Lan::new(&all()).await;
    let Lan { one, two, .. } = &lan;
    let to: IpAddr = ip4(2).into();
    let third: IpAddr = ip4(3).into();
    assert!(one.reaches(two, &udp(one, two, (5, 6))));
    assert!(!one.reaches(two, &frames::udp(macs(one, two), (third, 5), (to, 6))), "IP");
    assert!(!one.reaches(two, &frames::udp((mac(3), two.mac()), (ip4(1).into(), 5), (to, 6))), "MAC");
    assert!(!one.reaches(two, &frames::udp((mac(3), two.mac()), (third, 5), (to, 6))), "both");

    assert!(one.reaches(two, &udp6(one, two, (5, 6))));
    let forged6 = frames::udp(macs(one, two), (ip6(3).into(), 5), (ip6(2).into(), 6));
    assert!(!one.reaches(two, &forged6), "IPv6");
    let local: IpAddr = "fe80::f816:3eff:fe00:1".parse().unwrap();
    let other_local: IpAddr = "fe80::f816:3eff:fe00:3".parse().unwrap();
    assert!(!one.reaches(two, &frames::udp(macs(one, two), (other_local, 5), (ip6(2).into(), 6))), "link-local");
    let echo = frames::icmp(macs(one, two), local, ip6(2).into(), 135, 0, &[0; 20]);
    assert!(one.reaches(two, &echo), "its own link-local");

    // Neither IP nor ARP; a tag.
    assert!(!one.reaches(two, &frames::ethernet(one.mac(), two.mac(), 0x88b5, &[0; 46])), "another protocol");
    assert!(!one.reaches(two, &frames::ethernet(one.mac(), two.mac(), 0x8100, &[0; 46])), "a VLAN tag");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn nobody_speaks_for_another_in_arp_and_nd() {
    let lan = Lan::new(&all()).await;
    let Lan { one, two, .. } = &lan;
    assert!(one.reaches(two, &frames::arp(1, (one.mac(), ip4(1)), ip4(2), EVERYBODY)));
    assert!(one.reaches(two, &frames::arp(2, (one.mac(), ip4(1)), ip4(2), two.mac())));
    assert!(!one.reaches(two, &frames::arp(2, (one.mac(), ip4(3)), ip4(2), two.mac())), "another's IP");
    assert!(!one.reaches(two, &frames::arp(1, (one.mac(), ip4(254)), ip4(254), EVERYBODY)), "the gateway's IP");
    let mut inner = frames::arp(2, (one.mac(), ip4(1)), ip4(2), two.mac());
    inner[22..28].copy_from_slice(&mac(3).bytes());
    assert!(!one.reaches(two, &inner), "another's MAC inside");
    assert!(one.reaches(two, &frames::arp(1, (one.mac(), [0; 4].into()), ip4(1), EVERYBODY)), "is it free?");

    let about = |from, kind, address| frames::neighbour(macs(one, two), from, ip6(2), kind, address);
    assert!(one.reaches(two, &about(ip6(1), 135, ip6(2))));
    assert!(one.reaches(two, &about(ip6(1), 136, ip6(1))));
    assert!(!one.reaches(two, &about(ip6(1), 136, ip6(3))), "another's target");
    assert!(!one.reaches(two, &about(ip6(3), 136, ip6(3))), "another's source");
    assert!(one.reaches(two, &about([0; 16].into(), 135, ip6(1))), "is it free?");
    assert!(!one.reaches(two, &about([0; 16].into(), 136, ip6(1))));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn no_guest_is_a_dhcp_server_or_a_router() {
    let mut lan = Lan::new(&all()).await;
    let Lan { one, two, .. } = &lan;
    assert!(!one.reaches(two, &udp(one, two, (67, 68))));
    assert!(!one.reaches(two, &udp6(one, two, (547, 546))));
    let local: IpAddr = "fe80::f816:3eff:fe00:1".parse().unwrap();
    assert!(!one.reaches(two, &frames::icmp(macs(one, two), local, ip6(2).into(), 134, 0, &[0; 12])), "advertisement");
    assert!(!one.reaches(two, &frames::icmp(macs(one, two), local, ip6(2).into(), 137, 0, &[0; 36])), "redirect");
    // Behind an option that any host ignores.
    let mut hidden = frames::icmp(macs(one, two), local, ip6(2).into(), 134, 0, &[0; 12]);
    let tail = hidden.split_off(54);
    hidden[20] = 60;
    hidden[19] += 8;
    hidden.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    hidden.extend(tail);
    assert!(!one.reaches(two, &hidden), "advertisement after destination options");

    // In pieces: what is in the first, and what hides behind a header of which the rest is in another (RFC 6980).
    let pieces = |next: u8, offset: u16, payload: &[u8]| {
        let [a, b] = offset.to_be_bytes();
        let payload = [&[next, 0, a, b, 0, 0, 0, 7], payload].concat();
        frames::ip(macs(one, two), local, ip6(2).into(), 44, &payload)
    };
    let question = frames::neighbour(macs(one, two), "fe80::f816:3eff:fe00:1".parse().unwrap(), ip6(2), 135, ip6(2));
    assert!(one.reaches(two, &question));
    assert!(!one.reaches(two, &pieces(58, 0, &question[54..])), "a question that is one piece");
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    assert!(!one.reaches(two, &pieces(60, 0, &[&options, &question[54..]].concat())), "behind options");

    // One whose security is off may be one; and asks get through whatever the groups say.
    lan.scene.group(1, &[]).rules.clear();
    lan.scene.edit(3).security = None;
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(three.reaches(two, &udp(three, two, (67, 68))));
    let question = frames::udp((one.mac(), EVERYBODY), ([0; 4].into(), 68), ([255; 4].into(), 67));
    assert!(one.reaches(three, &question));
    assert!(one.reaches(three, &udp(one, three, (68, 67))), "renewal");
    assert!(!one.reaches(two, &udp(one, two, (68, 68))));
    let forged = frames::udp((mac(2), EVERYBODY), ([0; 4].into(), 68), ([255; 4].into(), 67));
    assert!(!one.reaches(three, &forged));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn metadata_can_always_be_asked_for_and_nobody_answers_in_its_place() {
    let mut lan = Lan::new(&[]).await;
    lan.scene.group(1, &[]).rules.clear();
    lan.scene.edit(3).security = None;
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    let service: IpAddr = [169, 254, 169, 254].into();
    let ask = |port| frames::tcp(macs(one, three), (ip4(1).into(), 40_000), (service, port), SYN, (1, 0));
    assert!(one.reaches(three, &ask(80)));
    assert!(!one.reaches(three, &ask(81)));
    let answer = frames::tcp(macs(three, one), (service, 80), (ip4(1).into(), 40_000), SYN_ACK, (1, 2));
    assert!(three.reaches(one, &answer));
    let unasked = frames::tcp(macs(three, two), (service, 80), (ip4(2).into(), 40_000), SYN_ACK, (1, 2));
    assert!(!three.reaches(two, &unasked));
    let forged = frames::tcp(macs(two, one), (service, 80), (ip4(1).into(), 40_000), SYN_ACK, (1, 2));
    assert!(!two.reaches(one, &forged));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn security_off_lets_everything_through() {
    let mut lan = Lan::new(&[]).await;
    lan.scene.edit(1).security = None;
    lan.scene.edit(2).security = None;
    lan.converge().await;
    let Lan { one, two, three, .. } = &lan;
    assert!(one.reaches(two, &frames::udp((mac(9), two.mac()), (ip4(9).into(), 67), (ip4(8).into(), 68))));
    assert!(one.reaches(two, &frames::ethernet(one.mac(), two.mac(), 0x88b5, &[0; 46])));
    assert!(one.reaches(two, &syn(one, two, 99)));
    assert!(two.reaches(one, &answer(two, one, 7)));
    assert!(!one.reaches(three, &syn(one, three, 99)), "the other side has its rules");
    assert!(three.reaches(one, &syn(three, one, 99)));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn pairs_of_addresses_may_be_used_besides() {
    let mut lan = Lan::new(&all()).await;
    let pair = |range: &str, mac| AddressPair { ip_address: range.parse().unwrap(), mac_address: mac };
    lan.scene.edit(1).security.as_mut().unwrap().pairs = vec![
        pair("10.0.0.100/32", None),
        pair("10.0.1.0/24", None),
        pair("10.0.1.128/25", None),
        pair("10.0.0.101/32", Some(mac(77))),
        pair("fd00::100/120", None),
    ];
    lan.converge().await;
    let Lan { one, two, .. } = &lan;
    let from = |mac, address: &str| frames::udp((mac, two.mac()), (address.parse().unwrap(), 5), (ip4(2).into(), 6));
    assert!(one.reaches(two, &from(one.mac(), "10.0.0.1")));
    assert!(one.reaches(two, &from(one.mac(), "10.0.0.100")));
    assert!(one.reaches(two, &from(one.mac(), "10.0.1.7")));
    assert!(one.reaches(two, &from(one.mac(), "10.0.1.200")));
    assert!(one.reaches(two, &from(mac(77), "10.0.0.101")));
    assert!(!one.reaches(two, &from(one.mac(), "10.0.0.101")));
    assert!(!one.reaches(two, &from(mac(77), "10.0.0.100")));
    assert!(!one.reaches(two, &from(one.mac(), "10.0.2.1")));
    let arp = |mac, address: [u8; 4]| frames::arp(2, (mac, address.into()), ip4(2), two.mac());
    assert!(one.reaches(two, &arp(one.mac(), [10, 0, 1, 9])));
    assert!(one.reaches(two, &arp(mac(77), [10, 0, 0, 101])));
    assert!(!one.reaches(two, &arp(mac(77), [10, 0, 1, 9])));
    let six = |address: &str| frames::udp(macs(one, two), (address.parse().unwrap(), 5), (ip6(2).into(), 6));
    assert!(one.reaches(two, &six("fd00::1ff")));
    assert!(!one.reaches(two, &six("fd00::200")));
    // It hears what is sent to the other MAC address, too.
    let to_pair = frames::udp((two.mac(), mac(77)), (ip4(2).into(), 5), ([10, 0, 0, 101].into(), 6));
    assert!(two.reaches(one, &to_pair));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_is_for_another_is_not_heard() {
    let lan = Lan::new(&all()).await;
    let Lan { one, two, three, .. } = &lan;
    // The bridge has not heard of three yet, and sends the frame everywhere.
    assert!(!one.reaches(two, &udp(one, three, (5, 6))));
    assert!(one.reaches(three, &udp(one, three, (5, 7))));
}
