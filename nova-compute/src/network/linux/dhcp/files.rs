//! What dnsmasq is told: one configuration, and three files that it reads again when it is asked to.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use nova_core::ids::{NetworkId, SubnetId};
use nova_core::network::{Cidr, HostSubnet, IpVersion, MacAddress, Segment};

use super::{LINK, SERVICE_ADDRESS, SERVICE_LINK_LOCAL};
use crate::network::PlumbingOptions;

/// What a dnsmasq is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsmasqFiles {
    /// What it must be started anew for.
    pub config: String,
    /// What it reads again: name of the file and content.
    pub files: BTreeMap<&'static str, String>,
    /// Who has which address by this.
    pub leases: BTreeMap<IpAddr, MacAddress>,
}

/// Where a network's DHCP server is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The folder of its files.
    pub folder: &'a Path,
    /// That of the name server's.
    pub names: &'a Path,
    /// The number of its link: with another link it starts anew.
    pub link: u32,
    /// It answers the guests of other hosts, too (network node).
    pub for_all: bool,
}

/// What the DHCP server and the name server of a network are told; `None` if no subnet has DHCP. They are two, since a
/// DHCP server that is a name server, too, answers for names of guests that are gone until their leases end.
pub fn dnsmasq_files(
    network: NetworkId,
    segment: &Segment,
    options: &PlumbingOptions,
    place: Place<'_>,
) -> Option<(DnsmasqFiles, DnsmasqFiles)> {
    let served: Vec<(SubnetId, &HostSubnet)> =
        segment.subnets.iter().filter(|(_, subnet)| subnet.dhcp).map(|(id, subnet)| (*id, subnet)).collect();
    if served.is_empty() {
        return None;
    }
    let domain = domain_of(segment, options);
    let clients = clients_of(segment, place.for_all);
    let (hosts, leases) = hosts(&served, &clients, &domain);
    let files = BTreeMap::from([(HOSTS, hosts), (OPTIONS, options_text(segment, &served, options, &domain))]);
    let dhcp = DnsmasqFiles { config: dhcp_config(network, &served, options, &domain, place), files, leases };
    let dns = DnsmasqFiles {
        config: dns_config(network, options, &domain, place),
        files: BTreeMap::from([(NAMES, names(&clients, &domain))]),
        leases: BTreeMap::new(),
    };
    Some((dhcp, dns))
}

/// The file of addresses by MAC address.
const HOSTS: &str = "hosts";
/// The file of what guests are told besides.
const OPTIONS: &str = "options";
/// The file of names.
const NAMES: &str = "names";

/// A number that RFC 5612 leaves to examples: the DUID is told apart by what follows.
const ENTERPRISE: u32 = 32_473;

/// Somebody with addresses on the network.
struct Client<'a> {
    mac: MacAddress,
    hostname: &'a str,
    addresses: Vec<IpAddr>,
    /// It is this host that answers.
    here: bool,
}

fn clients_of(segment: &Segment, for_all: bool) -> Vec<Client<'_>> {
    let here = segment.ports.values().map(|port| Client {
        mac: port.mac,
        hostname: &port.hostname,
        addresses: port.addresses.iter().map(|(_, address)| *address).collect(),
        here: true,
    });
    let elsewhere = segment.elsewhere.iter().map(|port| Client {
        mac: port.mac,
        hostname: &port.hostname,
        addresses: port.addresses.clone(),
        here: for_all,
    });
    here.chain(elsewhere).collect()
}

fn domain_of(segment: &Segment, options: &PlumbingOptions) -> String {
    let domain = if segment.dns_domain.is_empty() { &options.dhcp_domain } else { &segment.dns_domain };
    let domain = domain.trim_matches('.').to_ascii_lowercase();
    if domain.split('.').all(is_label) { domain } else { String::new() }
}

/// A label of a name (RFC 1123), so that it is nothing else in dnsmasq's files.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}

/// A server's name on the network; without a usable one that of its address, as Neutron's agents make it.
fn label_of(hostname: &str, address: IpAddr) -> String {
    let first = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    if is_label(&first) { first } else { format!("host-{}", address.to_string().replace([':', '.'], "-")) }
}

/// What both need: nothing of the host's own configuration, and no link but the network's.
fn common(network: NetworkId, options: &PlumbingOptions, place: Place<'_>, folder: &Path) -> String {
    let mut text = format!("# network {network} on link {}\n", place.link);
    for line in ["no-hosts", "no-resolv", "bind-interfaces", "except-interface=lo"] {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "interface={LINK}");
    let _ = writeln!(text, "pid-file={}", folder.join("pid").display());
    if let Some(file) = &options.dnsmasq_config_file {
        let _ = writeln!(text, "conf-file={}", file.display());
    }
    text
}

fn dns_config(network: NetworkId, options: &PlumbingOptions, domain: &str, place: Place<'_>) -> String {
    let mut text = common(network, options, place, place.names);
    let _ = writeln!(text, "addn-hosts={}", place.names.join(NAMES).display());
    // Names without a dot are ours alone: one that has no address of the asked kind is answered with none.
    let _ = writeln!(text, "domain-needed");
    if !domain.is_empty() {
        let _ = writeln!(text, "local=/{domain}/");
    }
    text
}

fn dhcp_config(
    network: NetworkId,
    served: &[(SubnetId, &HostSubnet)],
    options: &PlumbingOptions,
    domain: &str,
    place: Place<'_>,
) -> String {
    let at = |name: &str| place.folder.join(name).display().to_string();
    let seconds = options.dhcp_lease_time.as_secs();
    let mut text = common(network, options, place, place.folder);
    for line in [
        "port=0",
        "leasefile-ro",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        "dhcp-ignore-names",
        "no-ping",
        // As many as there are hosts in the file: what is known is bounded already.
        "dhcp-lease-max=16777216",
    ] {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "dhcp-hostsfile={}", at(HOSTS));
    let _ = writeln!(text, "dhcp-optsfile={}", at(OPTIONS));
    let uid: Vec<String> = network.as_uuid().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = writeln!(text, "dhcp-duid={ENTERPRISE},{}", uid.join(":"));
    if !domain.is_empty() {
        let _ = writeln!(text, "domain={domain}");
    }
    for (id, subnet) in served.iter().filter(|(_, subnet)| has_range(subnet)) {
        let (base, tag) = (subnet.cidr.base(), tag_of(*id));
        let size = match base {
            IpAddr::V4(_) => mask(subnet.cidr.prefix()).to_string(),
            IpAddr::V6(_) => subnet.cidr.prefix().to_string(),
        };
        let _ = writeln!(text, "dhcp-range=set:{tag},{base},static,{size},{seconds}");
        let _ = writeln!(text, "shared-network={LINK},{base}");
    }
    text
}

/// Guests ask for addresses of it. Those of SLAAC make them up themselves; dnsmasq knows no IPv6 range above /64.
fn has_range(subnet: &HostSubnet) -> bool {
    match subnet.cidr.version() {
        IpVersion::V4 => true,
        IpVersion::V6 => subnet.ra_mode.as_deref() != Some("slaac") && subnet.cidr.prefix() >= 64,
    }
}

fn mask(prefix: u8) -> std::net::Ipv4Addr {
    let ones = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    ones.into()
}

fn tag_of(subnet: SubnetId) -> String {
    format!("s{}", subnet.as_uuid().simple())
}

/// A line for each address of version 4, since a client gets one, and one for all of version 6. Without `set:`: dnsmasq
/// 2.90 falls over when it reads a file again where a client with a lease had one.
fn hosts(
    served: &[(SubnetId, &HostSubnet)],
    clients: &[Client<'_>],
    domain: &str,
) -> (String, BTreeMap<IpAddr, MacAddress>) {
    let (mut text, mut leases) = (String::new(), BTreeMap::new());
    for client in clients.iter().filter(|client| client.here) {
        let told = |address: &&IpAddr| served.iter().any(|(_, s)| has_range(s) && s.cidr.contains(**address));
        let (four, six): (Vec<IpAddr>, Vec<IpAddr>) =
            client.addresses.iter().filter(told).copied().partition(IpAddr::is_ipv4);
        leases.extend(four.iter().chain(&six).map(|address| (*address, client.mac)));
        let name = |address| host_name(&label_of(client.hostname, address), domain);
        for address in four {
            let _ = writeln!(text, "{}{},{address}", client.mac, name(address));
        }
        if let Some(first) = six.first() {
            let six: Vec<String> = six.iter().map(|address| format!("[{address}]")).collect();
            let _ = writeln!(text, "{}{},{}", client.mac, name(*first), six.join(","));
        }
    }
    (text, leases)
}

/// A name among what else may be said of a host. With a dot in it it is nothing but a name; without it could be a time
/// (`12h`) or a word that means something, and is left out then.
fn host_name(label: &str, domain: &str) -> String {
    let time = label.trim_end_matches(['w', 'd', 'h', 'm', 's']).bytes().all(|b| b.is_ascii_digit());
    match domain {
        "" if time || ["ignore", "infinite"].contains(&label) => String::new(),
        "" => format!(",{label}"),
        domain => format!(",{label}.{domain}"),
    }
}

fn options_text(
    segment: &Segment,
    served: &[(SubnetId, &HostSubnet)],
    options: &PlumbingOptions,
    domain: &str,
) -> String {
    let mut text = String::new();
    for (id, subnet) in served {
        let tag = tag_of(*id);
        let lines = match subnet.cidr.version() {
            IpVersion::V4 => options_four(segment, subnet, options),
            IpVersion::V6 => options_six(subnet, options, domain),
        };
        for line in lines {
            let _ = writeln!(text, "tag:{tag},{line}");
        }
    }
    text
}

fn options_four(segment: &Segment, subnet: &HostSubnet, options: &PlumbingOptions) -> Vec<String> {
    let mut lines = vec![format!("option:mtu,{}", segment.mtu)];
    let routes: Vec<String> = classless_routes(segment, subnet).iter().map(|(to, by)| format!("{to},{by}")).collect();
    lines.push(format!("option:classless-static-route,{}", routes.join(",")));
    // Windows asked for these before there was a standard.
    lines.push(format!("249,{}", routes.join(",")));
    lines.push(match subnet.gateway {
        Some(gateway) => format!("option:router,{gateway}"),
        None => "option:router".to_owned(),
    });
    let servers = std::iter::once(IpAddr::V4(SERVICE_ADDRESS)).chain(servers(subnet, options, IpVersion::V4));
    let servers: Vec<String> = servers.map(|server| server.to_string()).collect();
    lines.push(format!("option:dns-server,{}", servers.join(",")));
    lines
}

fn options_six(subnet: &HostSubnet, options: &PlumbingOptions, domain: &str) -> Vec<String> {
    let mut servers: Vec<String> =
        servers(subnet, options, IpVersion::V6).iter().map(|server| format!("[{server}]")).collect();
    if servers.is_empty() {
        servers.push(format!("[{SERVICE_LINK_LOCAL}]"));
    }
    let mut lines = vec![format!("option6:dns-server,{}", servers.join(","))];
    if !domain.is_empty() {
        lines.push(format!("option6:domain-search,{domain}"));
    }
    lines
}

/// Name servers for what the network's own does not know: it passes nothing on, having no way out.
fn servers(subnet: &HostSubnet, options: &PlumbingOptions, version: IpVersion) -> Vec<IpAddr> {
    let of_version = |servers: &[IpAddr]| -> Vec<IpAddr> {
        servers.iter().filter(|server| IpVersion::of(**server) == version).copied().collect()
    };
    let own = of_version(&subnet.dns);
    if own.is_empty() { of_version(&options.dns_servers) } else { own }
}

/// RFC 3442: who reads them ignores the router, so the way out is among them. On the link: metadata, and the network's
/// other ranges, as Neutron's agent has it.
fn classless_routes(segment: &Segment, subnet: &HostSubnet) -> Vec<(Cidr, IpAddr)> {
    let on_link = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    let mut routes: Vec<(Cidr, IpAddr)> = Vec::new();
    routes.extend(Cidr::around(SERVICE_ADDRESS.into(), 32).map(|metadata| (metadata, on_link)));
    let told = subnet.routes.iter().filter(|route| route.destination.version() == IpVersion::V4);
    routes.extend(told.map(|route| (route.destination, route.nexthop)));
    let others = segment.subnets.values().map(|other| other.cidr);
    let others = others.filter(|other| other.version() == IpVersion::V4 && *other != subnet.cidr);
    for other in others {
        if !routes.iter().any(|(to, _)| *to == other) {
            routes.push((other, on_link));
        }
    }
    if let (Some(gateway), Some(all)) = (subnet.gateway, Cidr::around(on_link, 0))
        && !routes.iter().any(|(to, _)| *to == all)
    {
        routes.push((all, gateway));
    }
    routes
}

fn names(clients: &[Client<'_>], domain: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for client in clients {
        for address in &client.addresses {
            let label = label_of(client.hostname, *address);
            let full = if domain.is_empty() { String::new() } else { format!("{label}.{domain} ") };
            lines.push(format!("{address} {full}{label}\n"));
        }
    }
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests;
