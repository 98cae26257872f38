//! Hosts, guests and the world outside, each a namespace; networks between hosts are plain wires.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use nova_compute::linux::LinuxPlumbing;
use nova_compute::linux::links::{BridgeSpec, VethEnd, VethSpec};
use nova_compute::linux::namespace::{Namespaces, Purpose};
use nova_compute::{MetadataDoor, Plumbing, PlumbingOptions};
use nova_core::ids::{NetworkId, PortId, RouterId, SubnetId};
use nova_core::network::{
    Carrier, Direction, EtherType, Group, GroupRule, HostNetwork, HostPort, HostRouter, HostSubnet, MacAddress,
    Outside, PortSecurity, Remote, RemotePort, RouterLeg, Segment, SourceNat, tap_name,
};

use crate::support::Namespace;

/// An id that ends in this number.
pub fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(kind: char, number: u8) -> T {
    let first: String = std::iter::repeat_n(kind, 6).collect();
    format!("{first}{number:02x}-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
}

pub fn network(number: u8) -> NetworkId {
    id('a', number)
}

pub fn subnet(number: u8) -> SubnetId {
    id('b', number)
}

pub fn port(number: u8) -> PortId {
    id('c', number)
}

pub fn router(number: u8) -> RouterId {
    id('d', number)
}

pub fn mac(number: u8) -> MacAddress {
    MacAddress::from_bytes([0xfa, 0x16, 0x3e, 0, 0, number])
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The outer network: a switch, and somebody on it.
pub struct World {
    switch: Namespace,
    pub client: Namespace,
}

pub const CLIENT: &str = "203.0.113.99";

impl World {
    pub async fn new() -> Self {
        let world = Self { switch: Namespace::new("wire"), client: Namespace::new("world") };
        let links = world.switch.links().await;
        let spec = BridgeSpec { name: "wire", mac: mac(250), mtu: 1500, alias: "" };
        links.ensure_bridge(&spec).await.unwrap();
        world.switch.output("ip", &["link", "set", "wire", "type", "bridge", "nf_call_iptables", "0"]);
        world.plug(&world.client, "eth0", mac(251), &format!("{CLIENT}/24")).await;
        world
    }

    pub async fn plug(&self, who: &Namespace, name: &str, mac: MacAddress, address: &str) {
        let links = self.switch.links().await;
        let end = format!("p{}", mac.to_string().replace(':', ""));
        let spec = VethSpec {
            here: VethEnd { name: &end, mac: None },
            peer: VethEnd { name, mac: Some(mac) },
            peer_namespace: Some(who.name()),
            mtu: 1500,
            alias: "",
        };
        let bridge = links.get("wire").await.unwrap().unwrap();
        let end = links.ensure_veth(&spec).await.unwrap();
        links.set_master(&end, Some(bridge.index)).await.unwrap();
        who.output("ip", &["addr", "add", address, "dev", name]);
    }
}

/// A compute host.
pub struct Host {
    pub space: Namespace,
    pub options: PlumbingOptions,
    plumbing: LinuxPlumbing,
    pub wanted: HostNetwork,
    _state: tempfile::TempDir,
}

impl Host {
    pub async fn new(word: &str) -> Self {
        let space = Namespace::new(word);
        let state = tempfile::tempdir().unwrap();
        let searchable = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(state.path(), searchable).unwrap();
        let mut options = PlumbingOptions::new(word, state.path().join("network"), ip("127.0.0.1"));
        options.namespace = Some(space.name().to_owned());
        options.public_interface = Some("eth0".to_owned());
        // Networks that join hosts are wires.
        options.interface_mappings = (1..9).map(|n| (format!("wire{n}"), format!("wire{n}"))).collect();
        let plumbing = LinuxPlumbing::open(options.clone()).await.unwrap();
        let mut wanted = HostNetwork::default();
        let any = |direction, ethertype| GroupRule {
            direction,
            ethertype,
            protocol: None,
            ports: (None, None),
            remote: Remote::Any,
        };
        let rules = [Direction::Ingress, Direction::Egress]
            .into_iter()
            .flat_map(|direction| [EtherType::V4, EtherType::V6].map(|ethertype| any(direction, ethertype)));
        let open = Group { rules: rules.collect(), members: BTreeSet::new(), stateful: true };
        wanted.groups.insert(id('f', 1), open);
        Self { space, options, plumbing, wanted, _state: state }
    }

    /// A host with a place on the outer network.
    pub async fn in_world(word: &str, world: &World, number: u8) -> Self {
        let host = Self::new(word).await;
        world.plug(&host.space, "eth0", mac(200 + number), &format!("203.0.113.{number}/24")).await;
        host
    }

    /// A new agent in place of one that was killed.
    pub async fn restart(&mut self) {
        self.plumbing = LinuxPlumbing::open(self.options.clone()).await.unwrap();
    }

    /// Makes everything so; nothing may go wrong. Waits until frames can pass all links: the kernel takes a moment.
    pub async fn converge(&self) {
        let converged = self.plumbing.converge(&self.wanted).await.unwrap();
        assert!(converged.problems.is_empty(), "{:#?}", converged.problems);
        self.space.links_run().await;
    }

    /// Makes what it can, and says what not.
    pub async fn problems(&self) -> Vec<String> {
        self.plumbing.converge(&self.wanted).await.unwrap().problems
    }

    /// Tells guests of these networks where their gateways are, as if they had come while they ran.
    pub async fn announce_gateways(&self, networks: &[u8]) {
        let networks = networks.iter().map(|number| network(*number)).collect();
        self.plumbing.announce_gateways(&self.wanted, &networks).await.unwrap();
    }

    pub async fn doors(&self) -> Vec<MetadataDoor> {
        self.plumbing.metadata_doors().await
    }

    pub fn namespace(&self, purpose: Purpose) -> String {
        Namespaces::of(&self.options).name(purpose)
    }

    /// A network with a subnet `10.<number>.0.0/24`, served here.
    pub fn add_network(&mut self, number: u8, range: &str, gateway: &str) {
        let told = HostSubnet {
            cidr: range.parse().unwrap(),
            gateway: Some(ip(gateway)),
            dhcp: true,
            dns: Vec::new(),
            routes: Vec::new(),
            ra_mode: None,
        };
        let segment = Segment {
            carrier: Carrier::Local,
            mtu: 1450,
            admin_state_up: true,
            dns_domain: String::new(),
            subnets: BTreeMap::from([(subnet(number), told)]),
            serves: true,
            ports: BTreeMap::new(),
            elsewhere: Vec::new(),
        };
        self.wanted.segments.insert(network(number), segment);
    }

    /// A router with a leg on each of these networks at its gateway's address.
    pub fn add_router(&mut self, number: u8, networks: &[u8], distributed: bool) {
        let legs = networks.iter().map(|n| {
            let told = &self.wanted.segments[&network(*n)].subnets[&subnet(*n)];
            let own = nova_compute::linux::names::fixed_mac(&[self.space.name(), &number.to_string(), &n.to_string()]);
            RouterLeg {
                network: network(*n),
                mac: own,
                addresses: vec![(told.gateway.unwrap(), told.cidr)],
                distributed,
            }
        });
        let legs = legs.collect();
        self.wanted.routers.insert(router(number), HostRouter { legs, routes: Vec::new(), outside: None });
    }

    pub fn outside(&mut self, number: u8, source_nat: SourceNat, floating: &[(&str, &str)]) {
        self.wanted.routers.get_mut(&router(number)).unwrap().outside = Some(Outside {
            subnets: vec![("203.0.113.0/24".parse().unwrap(), None)],
            source_nat,
            floating: floating.iter().map(|(a, b)| (ip(a), ip(b))).collect(),
            coming: Default::default(),
        });
    }

    /// A guest with that number on a network, plugged in.
    pub async fn add_guest(&mut self, on: u8, number: u8, address: &str, hostname: &str) -> Guest {
        let segment = self.wanted.segments.get_mut(&network(on)).unwrap();
        let here = HostPort {
            mac: mac(number),
            addresses: vec![(subnet(on), ip(address))],
            hostname: hostname.to_owned(),
            instance: Some(id('e', number)),
            admin_state_up: true,
            security: Some(PortSecurity { groups: [id('f', 1)].into(), pairs: Vec::new() }),
        };
        segment.ports.insert(port(number), here);
        self.converge().await;
        let guest = Guest { space: Namespace::new(hostname), address: ip(address), number };
        let links = self.space.links().await;
        let spec = VethSpec {
            here: VethEnd { name: &tap_name(port(number)), mac: None },
            peer: VethEnd { name: "eth0", mac: Some(mac(number)) },
            peer_namespace: Some(guest.space.name()),
            mtu: 1450,
            alias: "",
        };
        links.ensure_veth(&spec).await.unwrap();
        self.converge().await;
        guest
    }

    /// Joins a network of two hosts by a wire.
    pub async fn join(&mut self, other: &mut Self, on: u8) {
        let links = self.space.links().await;
        let name = format!("wire{on}");
        let spec = VethSpec {
            here: VethEnd { name: &name, mac: None },
            peer: VethEnd { name: &name, mac: None },
            peer_namespace: Some(other.space.name()),
            mtu: 1450,
            alias: "",
        };
        links.ensure_veth(&spec).await.unwrap();
        for host in [self, other] {
            let segment = host.wanted.segments.get_mut(&network(on)).unwrap();
            segment.carrier = Carrier::Flat { physical_network: Some(name.clone()) };
            host.converge().await;
        }
    }

    /// Tells each host of the other's guests.
    pub fn acquaint(&mut self, other: &mut Self) {
        for (network, segment) in &mut self.wanted.segments {
            let Some(theirs) = other.wanted.segments.get_mut(network) else { continue };
            let remote = |segment: &Segment| {
                let each = segment.ports.values().map(|port| RemotePort {
                    mac: port.mac,
                    addresses: port.addresses.iter().map(|(_, address)| *address).collect(),
                    tunnel: None,
                    hostname: port.hostname.clone(),
                    asks: None,
                });
                each.collect::<Vec<_>>()
            };
            (segment.elsewhere, theirs.elsewhere) = (remote(theirs), remote(segment));
        }
    }

    /// Numbers of the dnsmasq processes of this host.
    pub fn dnsmasqs(&self) -> BTreeSet<u32> {
        let mark = format!("--conf-file={}", self.options.state.display());
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let ours = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&mark))
        };
        pids.filter(ours).collect()
    }
}

impl Drop for Host {
    /// Nothing is wanted any more.
    fn drop(&mut self) {
        let options = self.options.clone();
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let plumbing = LinuxPlumbing::open(options).await.unwrap();
                plumbing.converge(&HostNetwork::default()).await.unwrap()
            })
        });
        let left = cleaner.join().unwrap().problems;
        if !std::thread::panicking() {
            assert!(left.is_empty(), "{left:#?}");
        }
    }
}

/// A guest on a network.
pub struct Guest {
    pub space: Namespace,
    pub address: IpAddr,
    pub number: u8,
}

impl Guest {
    /// Asks by DHCP and keeps to what it is told, routes on the link included, as udhcpc's usual script does.
    pub fn ask(&self) -> BTreeMap<String, String> {
        self.dhcp(true).unwrap()
    }

    /// Same, but knows nothing of classless routes.
    pub fn ask_like_long_ago(&self) -> BTreeMap<String, String> {
        self.dhcp(false).unwrap()
    }

    /// What it is told; `None`: nobody answers.
    pub fn dhcp(&self, classless: bool) -> Option<BTreeMap<String, String>> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/services/udhcpc.sh");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.space.name(), "udhcpc", "-i", "eth0", "-f", "-n", "-q"]);
        command.args(["-t", "3", "-T", "1", "-s", script, "-O", "mtu"]);
        if classless {
            command.args(["-O", "staticroutes"]);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = text.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned()));
        output.status.success().then(|| told.collect())
    }

    pub fn pings(&self, to: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.space.name(), "ping", "-c", "1", "-W", "2", to]);
        command.output().unwrap().status.success()
    }
}

/// Starts a TCP server that tells each caller who it sees. It ends with the test's process.
pub fn tell(space: &Namespace, port: u16) {
    let (ready, listening) = std::sync::mpsc::channel();
    let _server = space.start(move || {
        let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
        ready.send(()).unwrap();
        while let Ok((mut stream, peer)) = listener.accept() {
            // Who hangs up at once gets no answer.
            let _ = stream.write_all(peer.ip().to_string().as_bytes());
        }
    });
    listening.recv().unwrap();
}

/// Whom a server there takes the caller for; `None`: no connection.
pub fn seen_as(space: &Namespace, to: &str, port: u16) -> Option<String> {
    let to = SocketAddr::new(ip(to), port);
    space.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}
