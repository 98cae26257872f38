use std::collections::BTreeMap;

use nova_core::ids::PortId;
use nova_core::network::{Carrier, HostPort, HostRoute, RemotePort};

use super::*;

const ONE: &str = "11111111-0000-4000-8000-000000000001";
const SIX: &str = "66666666-0000-4000-8000-000000000006";

fn subnet(cidr: &str, gateway: Option<&str>) -> HostSubnet {
    HostSubnet {
        cidr: cidr.parse().unwrap(),
        gateway: gateway.map(|address| address.parse().unwrap()),
        dhcp: true,
        dns: Vec::new(),
        routes: Vec::new(),
        ra_mode: None,
    }
}

fn port(last: u8, addresses: &[(&str, &str)], hostname: &str) -> (PortId, HostPort) {
    let id = format!("aaaaaaaa-0000-4000-8000-0000000000{last:02x}").parse().unwrap();
    let port = HostPort {
        mac: MacAddress::from_bytes([0xfa, 0x16, 0x3e, 0, 0, last]),
        addresses: addresses.iter().map(|(s, a)| (s.parse().unwrap(), a.parse().unwrap())).collect(),
        hostname: hostname.to_owned(),
        instance: None,
        admin_state_up: true,
        security: None,
    };
    (id, port)
}

fn segment() -> Segment {
    let mut one = subnet("10.0.0.0/22", Some("10.0.0.1"));
    one.dns = vec!["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()];
    one.routes =
        vec![HostRoute { destination: "172.16.0.0/12".parse().unwrap(), nexthop: "10.0.0.9".parse().unwrap() }];
    Segment {
        carrier: Carrier::Local,
        mtu: 1450,
        admin_state_up: true,
        dns_domain: String::new(),
        subnets: BTreeMap::from([
            (ONE.parse().unwrap(), one),
            (SIX.parse().unwrap(), subnet("2001:db8::/64", Some("2001:db8::1"))),
        ]),
        serves: true,
        ports: BTreeMap::from([port(5, &[(ONE, "10.0.0.5"), (SIX, "2001:db8::5")], "web")]),
        elsewhere: vec![RemotePort {
            mac: MacAddress::from_bytes([0xfa, 0x16, 0x3e, 0, 0, 7]),
            addresses: vec!["10.0.0.7".parse().unwrap()],
            tunnel: None,
            hostname: "db".to_owned(),
            asks: None,
        }],
    }
}

fn place(for_all: bool) -> Place<'static> {
    Place { folder: Path::new("/srv/n"), names: Path::new("/srv/names"), link: 7, for_all }
}

fn rendered(segment: &Segment, for_all: bool) -> (DnsmasqFiles, DnsmasqFiles) {
    let options = PlumbingOptions::new("host-1", "/srv/nova", "192.0.2.1".parse().unwrap());
    let network = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
    dnsmasq_files(network, segment, &options, place(for_all)).unwrap()
}

#[test]
fn guests_are_known_by_their_mac_addresses() {
    let (files, _) = rendered(&segment(), false);
    assert_eq!(
        files.files["hosts"],
        "fa:16:3e:00:00:05,web.novalocal,10.0.0.5\nfa:16:3e:00:00:05,web.novalocal,[2001:db8::5]\n"
    );
    assert_eq!(files.leases.len(), 2);
    let (all, _) = rendered(&segment(), true);
    assert!(all.files["hosts"].contains("fa:16:3e:00:00:07,db.novalocal,10.0.0.7\n"), "{:?}", all.files);
}

#[test]
fn names_are_those_of_the_whole_network() {
    let mut segment = segment();
    assert_eq!(
        rendered(&segment, false).1.files["names"],
        "10.0.0.5 web.novalocal web\n10.0.0.7 db.novalocal db\n2001:db8::5 web.novalocal web\n"
    );
    segment.dns_domain = "Example.ORG.".to_owned();
    let (dhcp, files) = rendered(&segment, false);
    assert!(files.files["names"].starts_with("10.0.0.5 web.example.org web\n"), "{:?}", files.files);
    assert!(files.config.contains("\nlocal=/example.org/\n"), "{}", files.config);
    assert!(files.config.contains("\ndomain-needed\n"), "{}", files.config);
    assert!(dhcp.config.contains("\ndomain=example.org\n"), "{}", dhcp.config);
}

#[test]
fn what_is_no_name_becomes_none() {
    let mut segment = segment();
    for bad in ["", "-x", "_x", "a b", "x\ndhcp-script=/bin/sh", "naïve", &"x".repeat(64)] {
        segment.ports = BTreeMap::from([port(5, &[(ONE, "10.0.0.5")], bad)]);
        segment.elsewhere.clear();
        segment.dns_domain = bad.to_owned();
        let (dhcp, files) = rendered(&segment, false);
        let domain = if bad.is_empty() { "host-10-0-0-5.novalocal " } else { "" };
        assert_eq!(files.files["names"], format!("10.0.0.5 {domain}host-10-0-0-5\n"), "{bad:?}");
        assert!(!files.config.contains("script") && !dhcp.config.contains("script"), "{}", files.config);
        assert_eq!(dhcp.files["hosts"].lines().count(), 1, "{:?}", dhcp.files);
    }
}

#[test]
fn guests_are_told_of_their_subnet() {
    let (files, _) = rendered(&segment(), false);
    let tag = "tag:s11111111000040008000000000000001";
    let routes = "169.254.169.254/32,0.0.0.0,172.16.0.0/12,10.0.0.9,0.0.0.0/0,10.0.0.1";
    let expected = [
        format!("{tag},option:mtu,1450"),
        format!("{tag},option:classless-static-route,{routes}"),
        format!("{tag},249,{routes}"),
        format!("{tag},option:router,10.0.0.1"),
        format!("{tag},option:dns-server,169.254.169.254,9.9.9.9"),
        "tag:s66666666000040008000000000000006,option6:dns-server,[fe80::a9fe:a9fe]".to_owned(),
        "tag:s66666666000040008000000000000006,option6:domain-search,novalocal".to_owned(),
    ];
    assert_eq!(files.files["options"], expected.map(|line| line + "\n").concat());
}

#[test]
fn without_a_gateway_there_is_no_way_out() {
    let mut segment = segment();
    let second = "22222222-0000-4000-8000-000000000002";
    segment.subnets = BTreeMap::from([
        (ONE.parse().unwrap(), subnet("10.0.0.0/24", None)),
        (second.parse().unwrap(), subnet("10.9.0.0/16", None)),
    ]);
    let text = rendered(&segment, false).0.files["options"].clone();
    assert!(text.contains("01,option:router\n"), "{text}");
    assert!(text.contains("classless-static-route,169.254.169.254/32,0.0.0.0,10.9.0.0/16,0.0.0.0\n"), "{text}");
    assert!(text.contains("classless-static-route,169.254.169.254/32,0.0.0.0,10.0.0.0/24,0.0.0.0\n"), "{text}");
}

#[test]
fn ranges_are_served_without_an_address_in_them() {
    let (files, names) = rendered(&segment(), false);
    assert!(names.config.contains("\ninterface=link0\npid-file=/srv/names/pid\naddn-hosts=/srv/names/names\n"));
    for line in [
        "# network a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6 on link 7",
        "interface=link0",
        "dhcp-range=set:s11111111000040008000000000000001,10.0.0.0,static,255.255.252.0,86400",
        "shared-network=link0,10.0.0.0",
        "dhcp-range=set:s66666666000040008000000000000006,2001:db8::,static,64,86400",
        "shared-network=link0,2001:db8::",
        "dhcp-duid=32473,a0:1b:23:c4:d5:e6:47:f8:9a:0b:c1:d2:e3:f4:a5:b6",
        "pid-file=/srv/n/pid",
    ] {
        assert!(files.config.lines().any(|l| l == line), "{line} in {}", files.config);
    }
}

#[test]
fn subnets_without_dhcp_have_none() {
    let mut segment = segment();
    segment.subnets.get_mut(&ONE.parse().unwrap()).unwrap().dhcp = false;
    segment.subnets.get_mut(&SIX.parse().unwrap()).unwrap().ra_mode = Some("slaac".to_owned());
    let (files, _) = rendered(&segment, false);
    assert!(!files.config.contains("dhcp-range"), "{}", files.config);
    assert_eq!(files.files["hosts"], "");
    segment.subnets.remove(&SIX.parse().unwrap());
    let options = PlumbingOptions::new("host-1", "/srv/nova", "192.0.2.1".parse().unwrap());
    let network = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6".parse().unwrap();
    assert_eq!(dnsmasq_files(network, &segment, &options, place(false)), None);
}

#[test]
fn masks_are_those_of_prefixes() {
    for (prefix, text) in [(0, "0.0.0.0"), (8, "255.0.0.0"), (22, "255.255.252.0"), (32, "255.255.255.255")] {
        assert_eq!(mask(prefix).to_string(), text);
    }
}

#[test]
fn a_name_is_not_taken_for_something_else() {
    for (label, domain, told) in [
        ("web", "", ",web"),
        ("12h", "", ""),
        ("120", "", ""),
        ("ignore", "", ""),
        ("12h", "novalocal", ",12h.novalocal"),
        ("ignore", "novalocal", ",ignore.novalocal"),
    ] {
        assert_eq!(host_name(label, domain), told);
    }
}
