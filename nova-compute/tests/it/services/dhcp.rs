//! Guests get their addresses, and names are answered.

use std::net::UdpSocket;
use std::time::Duration;

use nova_compute::linux::namespace::Purpose;
use nova_core::network::{HostRoute, RemotePort};

use super::stage::{Guest, Host, ip, mac, network, port, subnet};

/// What the guest's resolver says.
fn resolves(guest: &Guest, name: &str) -> Option<String> {
    let mut command = std::process::Command::new("ip");
    let server = "169.254.169.254";
    command.args(["netns", "exec", guest.space.name(), "busybox", "nslookup", "-type=a", name, server]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let answer = text.split_once("Name:")?.1.split_once("Address:")?.1;
    answer.split_whitespace().next().map(str::to_owned)
}

/// Asks the server for its own address once more, by unicast (RFC 2131, 4.3.2, RENEWING). Answers with the kind of the
/// answer: 5 is an ACK.
fn renew(guest: &Guest) -> Option<u8> {
    let (address, number) = (guest.address, guest.number);
    guest.space.run(move || {
        let std::net::IpAddr::V4(own) = address else { return None };
        let mut packet = vec![1, 1, 6, 0, 7, 7, 7, 7, 0, 0, 0, 0];
        packet.extend(own.octets());
        packet.resize(28, 0);
        packet.extend(mac(number).bytes());
        packet.resize(236, 0);
        packet.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 3, 255]);
        let socket = UdpSocket::bind((own, 68)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket.send_to(&packet, "169.254.169.254:67").ok()?;
        let mut answer = [0; 1500];
        let (length, from) = socket.recv_from(&mut answer).ok()?;
        assert_eq!(
            (from.ip(), &answer[4..8], &answer[16..20]),
            (ip("169.254.169.254"), &[7; 4][..], &own.octets()[..])
        );
        let options = answer.get(240..length)?;
        assert_eq!(options[..2], [53, 1], "the first option is the kind");
        options.get(2).copied()
    })
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_guest_is_told_what_the_books_say() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let told = host.wanted.segments.get_mut(&network(1)).unwrap();
    told.elsewhere.push(RemotePort {
        mac: mac(77),
        addresses: vec![ip("10.1.0.77")],
        tunnel: None,
        hostname: "db".to_owned(),
        asks: None,
    });
    let one = told.subnets.get_mut(&subnet(1)).unwrap();
    one.dns = vec![ip("9.9.9.9")];
    one.routes = vec![HostRoute { destination: "172.16.0.0/12".parse().unwrap(), nexthop: ip("10.1.0.9") }];
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;

    let told = guest.ask();
    assert_eq!(told["ip"], "10.1.0.5");
    assert_eq!((told["mtu"].as_str(), told["mask"].as_str()), ("1450", "24"));
    assert_eq!((told["hostname"].as_str(), told["domain"].as_str()), ("web", "novalocal"));
    assert_eq!((told["dns"].as_str(), told["router"].as_str()), ("169.254.169.254 9.9.9.9", "10.1.0.1"));
    assert_eq!(told["staticroutes"], "169.254.169.254/32 0.0.0.0 172.16.0.0/12 10.1.0.9 0.0.0.0/0 10.1.0.1");
    assert_eq!((told["serverid"].as_str(), told["lease"].as_str()), ("169.254.169.254", "86400"));

    assert_eq!(resolves(&guest, "db.novalocal").as_deref(), Some("10.1.0.77"));
    assert_eq!(resolves(&guest, "nobody.novalocal"), None);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn addresses_are_renewed_while_the_agent_is_gone() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    guest.ask();
    let before = host.dnsmasqs();
    assert_eq!(before.len(), 2, "one for addresses, one for names");
    // As after kill -9: nothing of it is tidied up, and it knows nothing.
    host.restart().await;
    assert_eq!(renew(&guest), Some(5));
    host.converge().await;
    assert_eq!(host.dnsmasqs(), before, "there was no reason to start another");
    // Another guest: the files change, the process stays, and knows both.
    let other = host.add_guest(1, 6, "10.1.0.6", "db").await;
    assert_eq!(host.dnsmasqs(), before);
    assert_eq!(other.ask()["ip"], "10.1.0.6");
    assert_eq!(renew(&guest), Some(5));
    assert_eq!(resolves(&guest, "db").as_deref(), Some("10.1.0.6"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn a_renewal_is_answered_after_dnsmasq_died() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    guest.ask();
    let before = host.dnsmasqs();
    for pid in &before {
        let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(status.success());
    }
    assert_eq!(renew(&guest), None);
    host.converge().await;
    assert!(host.dnsmasqs().is_disjoint(&before) && host.dnsmasqs().len() == 2);
    assert_eq!(renew(&guest), Some(5), "it knows no lease, and gives the same again");
    assert!(guest.pings("169.254.169.254"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn an_address_goes_to_the_next_guest() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let first = host.add_guest(1, 5, "10.1.0.5", "web").await;
    assert_eq!(first.ask()["ip"], "10.1.0.5");
    host.wanted.segments.get_mut(&network(1)).unwrap().ports.remove(&port(5));
    host.converge().await;
    assert_eq!(first.dhcp(true), None, "it is nobody's guest any more");
    let second = host.add_guest(1, 6, "10.1.0.5", "db").await;
    assert_eq!(second.ask()["ip"], "10.1.0.5");
    assert_eq!(resolves(&second, "web.novalocal"), None);
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn subnets_without_dhcp_have_none() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    assert_eq!(guest.ask()["ip"], "10.1.0.5");
    // A second range on the same network has it, the first no longer.
    let segment = host.wanted.segments.get_mut(&network(1)).unwrap();
    let mut second = segment.subnets[&subnet(1)].clone();
    second.cidr = "10.2.0.0/24".parse().unwrap();
    second.gateway = None;
    segment.subnets.insert(subnet(2), second);
    segment.subnets.get_mut(&subnet(1)).unwrap().dhcp = false;
    let there = host.add_guest(1, 6, "10.2.0.6", "db").await;
    assert_eq!(guest.dhcp(true), None);
    let told = there.ask();
    assert_eq!((told["ip"].as_str(), told.get("router")), ("10.2.0.6", None));
    assert_eq!(told["staticroutes"], "169.254.169.254/32 0.0.0.0 10.1.0.0/24 0.0.0.0");
    host.wanted.segments.get_mut(&network(1)).unwrap().subnets.get_mut(&subnet(2)).unwrap().dhcp = false;
    host.converge().await;
    assert!(host.dnsmasqs().is_empty());
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn who_knows_no_classless_routes_asks_over_the_gateway() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    host.add_router(1, &[1], true);
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    let told = guest.ask_like_long_ago();
    assert_eq!(told.get("staticroutes"), None);
    let route = guest.space.output("ip", &["route", "get", "169.254.169.254"]);
    assert!(route.contains("via 10.1.0.1"), "{route}");
    assert_eq!(renew(&guest), Some(5));
    assert_eq!(resolves(&guest, "web.novalocal").as_deref(), Some("10.1.0.5"));
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn what_was_tampered_with_comes_back_and_what_is_unwanted_goes() {
    let mut host = Host::new("h").await;
    host.add_network(1, "10.1.0.0/24", "10.1.0.1");
    let guest = host.add_guest(1, 5, "10.1.0.5", "web").await;
    let name = host.namespace(Purpose::Service(network(1)));
    for tampering in [
        vec!["ip", "netns", "del", &name],
        vec!["ip", "-n", &name, "link", "del", "link0"],
        vec!["ip", "-n", &name, "addr", "flush", "dev", "link0"],
        vec!["ip", "-n", &name, "link", "set", "link0", "down"],
    ] {
        let output = std::process::Command::new(tampering[0]).args(&tampering[1..]).output().unwrap();
        assert!(output.status.success(), "{tampering:?}");
        host.converge().await;
        assert_eq!(guest.ask()["ip"], "10.1.0.5", "{tampering:?}");
        assert_eq!(renew(&guest), Some(5), "{tampering:?}");
        assert_eq!(host.dnsmasqs().len(), 2, "{tampering:?}");
    }
    let files = host.options.state.join("dnsmasq").join(format!("net-{}", network(1)));
    assert!(files.exists());
    host.wanted.segments.clear();
    host.converge().await;
    assert!(host.dnsmasqs().is_empty() && !files.exists());
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
    let links = host.space.links().await.list().await.unwrap();
    assert!(!links.iter().any(|link| link.name.starts_with("ns")), "{links:?}");
}

#[tokio::test]
#[ignore = "needs NOVA_TEST_NETNS"]
async fn addresses_of_version_6_are_told_by_dhcp() {
    let mut host = Host::new("h").await;
    host.add_network(6, "2001:db8:6::/64", "2001:db8:6::1");
    let guest = host.add_guest(6, 5, "2001:db8:6::77", "web").await;
    // Its link-local address is good at once.
    guest.space.output("ip", &["link", "set", "eth0", "down"]);
    guest.space.output("ip", &["link", "set", "eth0", "addrgenmode", "eui64"]);
    guest.space.run(|| std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0")).unwrap();
    guest.space.output("ip", &["link", "set", "eth0", "up"]);
    host.space.links_run().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/services/dhclient.sh");
    let told = format!("NOVA_TEST_TOLD={}", file("told"));
    let (leases, pid) = (file("leases"), file("pid"));
    let words = ["-6", "-1", "-d", "-q", "-lf", &leases, "-pf", &pid, "-e", &told, "-sf", script, "eth0"];
    let mut client = std::process::Command::new("ip");
    client.args(["netns", "exec", guest.space.name(), "dhclient"]).args(words);
    client.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut client = client.spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let told = loop {
        match std::fs::read_to_string(file("told")) {
            Ok(text) if text.contains("reason=BOUND6") => break text,
            _ => assert!(std::time::Instant::now() < deadline, "nobody has told it anything"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(told.contains("new_ip6_address=2001:db8:6::77\n"), "{told}");
    assert!(told.contains("new_dhcp6_domain_search=novalocal.\n"), "{told}");
    assert!(told.contains("new_dhcp6_name_servers=fe80::a9fe:a9fe\n"), "{told}");
}
