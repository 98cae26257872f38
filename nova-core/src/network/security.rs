//! Security groups and their rules (neutron/db/securitygroups_db.py).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Cidr, IpVersion, NetworkProblem};
use crate::entropy::Entropy;
use crate::ids::{ProjectId, SecurityGroupId, SecurityGroupRuleId};

/// Into the guest or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each variant is the thing that it names")]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// As clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// The direction of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ingress, Self::Egress].into_iter().find(|direction| direction.as_str() == text)
    }
}

/// Which packets: of version 4 or 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is the thing that it names")]
pub enum EtherType {
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

impl EtherType {
    /// As clients write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The type of that name, whatever the case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|ethertype| ethertype.as_str().eq_ignore_ascii_case(text))
    }

    const fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }
}

/// What may pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// The id.
    pub id: SecurityGroupId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text; `default` is the project's own.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Each project has one, made when it is first needed.
    pub is_default: bool,
    /// Answers to what was let through pass by themselves.
    pub stateful: bool,
    /// Its rules, kept as rows of their own; oldest first.
    #[serde(default)]
    pub rules: Vec<SecurityGroupRule>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Of the store.
    #[serde(default)]
    pub generation: u64,
}

/// Something that may pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// The id.
    pub id: SecurityGroupRuleId,
    /// Its group.
    pub security_group_id: SecurityGroupId,
    /// Whose it is.
    pub project_id: ProjectId,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Which way.
    pub direction: Direction,
    /// Which packets.
    pub ethertype: EtherType,
    /// A name (`tcp`) or a number; all if none is named.
    pub protocol: Option<String>,
    /// The first port, or the ICMP type.
    pub port_range_min: Option<u16>,
    /// The last port, or the ICMP code.
    pub port_range_max: Option<u16>,
    /// The other side is in this range.
    pub remote_ip_prefix: Option<Cidr>,
    /// The other side is in this group.
    pub remote_group_id: Option<SecurityGroupId>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl SecurityGroupRule {
    /// The protocol's number on the wire; `None` for all.
    pub fn protocol_number(&self) -> Option<u8> {
        match (number_of(self.protocol.as_deref()?)?, self.ethertype) {
            // `ip` is all of them.
            (0, _) => None,
            (1, EtherType::V6) => Some(58),
            (number, _) => Some(number),
        }
    }

    /// Equal for rules that say the same. Names and numbers of a protocol are one.
    pub fn fingerprint(&self) -> String {
        let protocol = self.protocol.as_deref().map(|text| match (number_of(text), self.ethertype) {
            (Some(1), EtherType::V6) => "58".to_owned(),
            (Some(number), _) => number.to_string(),
            (None, _) => text.to_owned(),
        });
        let prefix = self.remote_ip_prefix.filter(|prefix| prefix.prefix() > 0);
        let port = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        [
            self.direction.as_str().to_owned(),
            self.ethertype.as_str().to_owned(),
            protocol.unwrap_or_default(),
            port(self.port_range_min),
            port(self.port_range_max),
            prefix.map(|prefix| prefix.to_string()).unwrap_or_default(),
            self.remote_group_id.map(|group| group.to_string()).unwrap_or_default(),
        ]
        .join(",")
    }
}

/// Protocols that have a name (neutron_lib.constants).
const PROTOCOLS: [(&str, u8); 24] = [
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
];

/// Protocols that have ports.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// Protocols that are only of version 6.
const ONLY_V6: [u8; 6] = [41, 43, 44, 58, 59, 60];

fn number_of(protocol: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == protocol).map(|(_, number)| *number);
    named.or_else(|| protocol.bytes().all(|b| b.is_ascii_digit()).then(|| protocol.parse().ok()).flatten())
}

/// A rule as clients ask for it, before it is checked.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the fields of a rule, as they were written")]
pub struct RuleRequest {
    pub direction: String,
    pub ethertype: Option<String>,
    pub protocol: Option<String>,
    pub port_range_min: Option<i64>,
    pub port_range_max: Option<i64>,
    pub remote_ip_prefix: Option<String>,
    pub remote_group_id: Option<SecurityGroupId>,
    pub description: String,
}

/// The rule that a request means.
///
/// # Errors
/// [`NetworkProblem::BadRule`], [`NetworkProblem::Invalid`].
pub fn check_rule(
    request: &RuleRequest,
    id: SecurityGroupRuleId,
    group: &SecurityGroup,
    now: Timestamp,
) -> Result<SecurityGroupRule, NetworkProblem> {
    let invalid = |message: String| NetworkProblem::Invalid { message };
    let direction = Direction::parse(&request.direction)
        .ok_or_else(|| invalid(format!("'{}' is not in ['ingress', 'egress']", request.direction)))?;
    let ethertype = match request.ethertype.as_deref() {
        None => EtherType::V4,
        Some(text) => EtherType::parse(text).ok_or_else(|| {
            let message = format!(
                "Security group rule for ethertype '{text}' not supported. Allowed values are ['IPv4', 'IPv6']."
            );
            bad("SecurityGroupRuleInvalidEtherType", message)
        })?,
    };
    let protocol = protocol(request.protocol.as_deref(), ethertype)?;
    let (port_range_min, port_range_max) = ports(request, protocol.as_deref())?;
    let remote_ip_prefix = prefix(request, ethertype)?;
    Ok(SecurityGroupRule {
        id,
        security_group_id: group.id,
        project_id: group.project_id.clone(),
        description: request.description.clone(),
        direction,
        ethertype,
        protocol,
        port_range_min,
        port_range_max,
        remote_ip_prefix,
        remote_group_id: request.remote_group_id,
        created_at: now,
    })
}

fn bad(kind: &'static str, message: impl Into<String>) -> NetworkProblem {
    NetworkProblem::BadRule { kind, message: message.into() }
}

/// The protocol as it is kept: in lower case, `None` for all.
fn protocol(text: Option<&str>, ethertype: EtherType) -> Result<Option<String>, NetworkProblem> {
    let Some(text) = text else { return Ok(None) };
    let name = text.to_ascii_lowercase();
    if ["any", ""].contains(&name.as_str()) {
        return Ok(None);
    }
    let Some(number) = number_of(&name) else {
        let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        let text: String = text.chars().take(64).collect();
        let message = format!(
            "Security group rule protocol {text} not supported. Only protocol values [{}] and integer representations [0 to 255] are supported.",
            names.join(", ")
        );
        return Err(bad("SecurityGroupRuleInvalidProtocol", message));
    };
    // `icmp` in a rule of version 6 means ICMPv6: clients of all ages write it so.
    if ethertype == EtherType::V4 && ONLY_V6.contains(&number) {
        let message = format!("Invalid ethertype {} for protocol {name}.", ethertype.as_str());
        return Err(bad("SecurityGroupEthertypeConflictWithProtocol", message));
    }
    Ok(Some(name))
}

fn ports(request: &RuleRequest, protocol: Option<&str>) -> Result<(Option<u16>, Option<u16>), NetworkProblem> {
    let (min, max) = (request.port_range_min, request.port_range_max);
    if min.is_none() && max.is_none() {
        return Ok((None, None));
    }
    let number = protocol.and_then(number_of);
    match number {
        None => {
            Err(bad("SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given."))
        }
        Some(1 | 58) => icmp(min, max),
        Some(number) if WITH_PORTS.contains(&number) => range(min, max),
        Some(_) => {
            let message = "Only TCP, UDP, DCCP, SCTP and UDPLITE rules may have a port range.";
            Err(bad("SecurityGroupInvalidProtocolForPort", message))
        }
    }
}

fn icmp(kind: Option<i64>, code: Option<i64>) -> Result<(Option<u16>, Option<u16>), NetworkProblem> {
    for (field, attribute, value) in [("port_range_min", "type", kind), ("port_range_max", "code", code)] {
        if let Some(value) = value.filter(|value| !(0..=255).contains(value)) {
            let message = format!("Invalid value for ICMP {attribute} ({field}) {value}. It must be 0 to 255.");
            return Err(bad("SecurityGroupInvalidIcmpValue", message));
        }
    }
    if let (None, Some(code)) = (kind, code) {
        let message =
            format!("ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing.");
        return Err(bad("SecurityGroupMissingIcmpType", message));
    }
    let number = |value: Option<i64>| value.and_then(|value| u16::try_from(value).ok());
    Ok((number(kind), number(code)))
}

/// One end alone means that port.
fn range(min: Option<i64>, max: Option<i64>) -> Result<(Option<u16>, Option<u16>), NetworkProblem> {
    let (Some(min), Some(max)) = (min.or(max), max.or(min)) else { return Ok((None, None)) };
    let port = |value: i64| {
        let number = u16::try_from(value).ok().filter(|port| *port > 0);
        number.ok_or_else(|| bad("SecurityGroupInvalidPortValue", format!("Invalid value for port {value}.")))
    };
    let (min, max) = (port(min)?, port(max)?);
    if min > max {
        let message = "For TCP/UDP protocols, port_range_min must be <= port_range_max.";
        return Err(bad("SecurityGroupInvalidPortRange", message));
    }
    Ok((Some(min), Some(max)))
}

fn prefix(request: &RuleRequest, ethertype: EtherType) -> Result<Option<Cidr>, NetworkProblem> {
    let Some(text) = request.remote_ip_prefix.as_deref() else { return Ok(None) };
    if request.remote_group_id.is_some() {
        let message = "Only remote_ip_prefix or remote_group_id may be provided.";
        return Err(bad("SecurityGroupRemoteGroupAndRemoteIpPrefix", message));
    }
    let prefix = Cidr::parse_loosely(text).map_err(|error| NetworkProblem::Invalid { message: error.to_string() })?;
    if prefix.version() != ethertype.version() {
        let message = format!("Conflicting value ethertype {} for CIDR {text}.", ethertype.as_str());
        return Err(bad("SecurityGroupRuleParameterConflict", message));
    }
    Ok(Some(prefix))
}

/// The rules that a new group begins with: everything may leave. Into a project's default group come its members, too.
pub fn default_rules(group: &SecurityGroup, entropy: &dyn Entropy) -> Vec<SecurityGroupRule> {
    let rule = |direction, ethertype, remote_group_id| SecurityGroupRule {
        id: SecurityGroupRuleId::generate(entropy),
        security_group_id: group.id,
        project_id: group.project_id.clone(),
        description: String::new(),
        direction,
        ethertype,
        protocol: None,
        port_range_min: None,
        port_range_max: None,
        remote_ip_prefix: None,
        remote_group_id,
        created_at: group.created_at,
    };
    let mut rules = Vec::new();
    for ethertype in [EtherType::V4, EtherType::V6] {
        rules.push(rule(Direction::Egress, ethertype, None));
        if group.is_default {
            rules.push(rule(Direction::Ingress, ethertype, Some(group.id)));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    fn group(is_default: bool) -> SecurityGroup {
        let entropy = SeededEntropy::new(1);
        SecurityGroup {
            id: SecurityGroupId::generate(&entropy),
            project_id: "p".into(),
            name: "g".into(),
            description: String::new(),
            is_default,
            stateful: true,
            rules: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            generation: 0,
        }
    }

    fn check(change: impl FnOnce(&mut RuleRequest)) -> Result<SecurityGroupRule, &'static str> {
        let mut request = RuleRequest { direction: "ingress".into(), ..RuleRequest::default() };
        change(&mut request);
        let id = SecurityGroupRuleId::generate(&SeededEntropy::new(2));
        check_rule(&request, id, &group(false), Timestamp::UNIX_EPOCH).map_err(|problem| problem.name())
    }

    #[test]
    fn ports_follow_the_protocol() {
        let ports = |protocol: &str, min, max| {
            check(|r| {
                r.protocol = Some(protocol.into());
                (r.port_range_min, r.port_range_max) = (min, max);
            })
            .map(|rule| (rule.port_range_min, rule.port_range_max))
        };
        for (protocol, min, max, expected) in [
            ("tcp", Some(22), Some(22), Ok((Some(22), Some(22)))),
            ("TCP", Some(1), Some(65535), Ok((Some(1), Some(65535)))),
            ("6", Some(80), None, Ok((Some(80), Some(80)))),
            ("udp", None, None, Ok((None, None))),
            ("tcp", Some(0), Some(22), Err("SecurityGroupInvalidPortValue")),
            ("tcp", Some(22), Some(65536), Err("SecurityGroupInvalidPortValue")),
            ("tcp", Some(23), Some(22), Err("SecurityGroupInvalidPortRange")),
            ("icmp", Some(8), Some(0), Ok((Some(8), Some(0)))),
            ("icmp", Some(0), None, Ok((Some(0), None))),
            ("icmp", None, Some(0), Err("SecurityGroupMissingIcmpType")),
            ("icmp", Some(256), None, Err("SecurityGroupInvalidIcmpValue")),
            ("icmp", Some(8), Some(-1), Err("SecurityGroupInvalidIcmpValue")),
            ("gre", Some(1), Some(2), Err("SecurityGroupInvalidProtocolForPort")),
            ("gre", None, None, Ok((None, None))),
            ("any", Some(1), Some(2), Err("SecurityGroupProtocolRequiredWithPorts")),
        ] {
            assert_eq!(ports(protocol, min, max), expected, "{protocol} {min:?} {max:?}");
        }
    }

    #[test]
    fn protocols_have_names_and_numbers() {
        let protocol = |text: &str, ethertype: &str| {
            check(|r| (r.protocol, r.ethertype) = (Some(text.into()), Some(ethertype.into()))).map(|rule| rule.protocol)
        };
        for (text, ethertype, expected) in [
            ("tcp", "IPv4", Ok(Some("tcp".to_owned()))),
            ("17", "IPv6", Ok(Some("17".to_owned()))),
            ("any", "IPv4", Ok(None)),
            ("255", "IPv4", Ok(Some("255".to_owned()))),
            ("256", "IPv4", Err("SecurityGroupRuleInvalidProtocol")),
            ("-1", "IPv4", Err("SecurityGroupRuleInvalidProtocol")),
            ("fictional", "IPv4", Err("SecurityGroupRuleInvalidProtocol")),
            ("icmpv6", "IPv4", Err("SecurityGroupEthertypeConflictWithProtocol")),
            ("ipv6-icmp", "ipv6", Ok(Some("ipv6-icmp".to_owned()))),
            ("tcp", "IPv5", Err("SecurityGroupRuleInvalidEtherType")),
        ] {
            assert_eq!(protocol(text, ethertype), expected, "{text} {ethertype}");
        }
    }

    #[test]
    fn the_other_side_is_a_range_or_a_group_of_the_right_version() {
        let other = group(false).id;
        let remote = |prefix: Option<&str>, group, ethertype: &str| {
            check(|r| {
                r.remote_ip_prefix = prefix.map(str::to_owned);
                r.remote_group_id = group;
                r.ethertype = Some(ethertype.to_owned());
            })
            .map(|rule| rule.remote_ip_prefix.map(|prefix| prefix.to_string()))
        };
        for (prefix, group, ethertype, expected) in [
            (Some("10.0.0.0/8"), None, "IPv4", Ok(Some("10.0.0.0/8".to_owned()))),
            (Some("10.0.0.5"), None, "IPv4", Ok(Some("10.0.0.5/32".to_owned()))),
            (Some("::/0"), None, "IPv6", Ok(Some("::/0".to_owned()))),
            (Some("::/0"), None, "IPv4", Err("SecurityGroupRuleParameterConflict")),
            (Some("10.0.0.0/33"), None, "IPv4", Err("InvalidInput")),
            (Some("10.0.0.0/8"), Some(other), "IPv4", Err("SecurityGroupRemoteGroupAndRemoteIpPrefix")),
            (None, Some(other), "IPv4", Ok(None)),
        ] {
            assert_eq!(remote(prefix, group, ethertype), expected, "{prefix:?} {ethertype}");
        }
        assert_eq!(check(|r| r.direction = "sideways".into()).unwrap_err(), "InvalidInput");
    }

    #[test]
    fn rules_that_say_the_same_are_the_same() {
        let print = |change: fn(&mut RuleRequest)| check(change).unwrap().fingerprint();
        let tcp = print(|r| r.protocol = Some("tcp".into()));
        assert_eq!(tcp, print(|r| r.protocol = Some("6".into())));
        assert_eq!(tcp, print(|r| (r.protocol, r.remote_ip_prefix) = (Some("TCP".into()), Some("0.0.0.0/0".into()))));
        assert_ne!(tcp, print(|r| r.protocol = Some("udp".into())));
        assert_ne!(tcp, print(|r| (r.protocol, r.direction) = (Some("tcp".into()), "egress".into())));
        assert_ne!(tcp, print(|r| (r.protocol, r.ethertype) = (Some("tcp".into()), Some("IPv6".into()))));
    }

    #[test]
    fn new_groups_let_everything_out_and_default_ones_their_own_in() {
        let entropy = SeededEntropy::new(3);
        assert!(default_rules(&group(false), &entropy).iter().all(|rule| rule.direction == Direction::Egress));
        let own = group(true);
        let rules = default_rules(&own, &entropy);
        let into: Vec<_> = rules.iter().filter(|rule| rule.direction == Direction::Ingress).collect();
        assert_eq!((rules.len(), into.len()), (4, 2));
        assert!(into.iter().all(|rule| rule.remote_group_id == Some(own.id)));
    }
}
