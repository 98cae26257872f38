//! Typed identifiers: an instance id can never be passed where a host id is meant.
//!
//! Ids of Nova's own objects are UUIDs; ids that identity gives out (users, projects, domains, roles) are opaque
//! strings, as an outside Keystone may use any form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::entropy::Entropy;

/// The text was not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid {kind}")]
pub struct InvalidId {
    /// What it should have been, as in `instance id`.
    pub kind: &'static str,
    /// What was given.
    pub text: String,
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal),+ $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Draws a new random (version 4) id.
            pub fn generate(entropy: &dyn Entropy) -> Self { Self(entropy.uuid()) }
            /// Wraps a UUID that is known to be of this kind.
            pub const fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }
            /// The bare UUID.
            pub const fn as_uuid(&self) -> &Uuid { &self.0 }
            /// The UUID as a number: the key under which tables of numbers know it.
            pub const fn as_u128(&self) -> u128 { self.0.as_u128() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // Only the two forms that clients use: dashed, and 32 hexadecimal digits.
                match (text.len(), Uuid::try_parse(text)) {
                    (32 | 36, Ok(uuid)) => Ok(Self(uuid)),
                    _ => Err(InvalidId { kind: $kind, text: text.chars().take(64).collect() }),
                }
            }
        }
    )+ };
}

uuid_ids! {
    /// A server, from build request to deletion.
    InstanceId = "instance id",
    /// A hypervisor on a host.
    ComputeNodeId = "compute node id",
    /// A running (or once running) service: one binary on one host.
    ServiceId = "service id",
    /// An image of the image service.
    ImageId = "image id",
    /// A host aggregate.
    AggregateId = "aggregate id",
    /// A server group.
    ServerGroupId = "server group id",
    /// A long operation of the conductor.
    TaskId = "task id",
    /// A volume as a server has it.
    BlockDeviceId = "block device mapping id",
    /// A server's move from one host to another.
    MigrationId = "migration id",
    /// What a client's one API call is known by everywhere; printed as `req-<uuid>`.
    RequestUuid = "request id",
    /// All servers of one create request.
    ReservationId = "reservation id",
    /// A message on the bus.
    MessageId = "message id",
    /// A network.
    NetworkId = "network id",
    /// A range of addresses on a network.
    SubnetId = "subnet id",
    /// A place on a network that a server or a router is plugged into.
    PortId = "port id",
    /// An address of an outer network that stands for a server's.
    FloatingIpId = "floating IP id",
    /// A router.
    RouterId = "router id",
    /// A security group.
    SecurityGroupId = "security group id",
    /// A rule of a security group.
    SecurityGroupRuleId = "security group rule id",
    /// A host's network agent.
    NetworkAgentId = "agent id",
    /// Leave to open a console.
    ConsoleGrantId = "console grant id",
    /// An open console.
    ConsoleSessionId = "console session id",
    /// A volume: a disk that outlives servers.
    VolumeId = "volume id",
    /// A snapshot of a volume.
    VolumeSnapshotId = "snapshot id",
    /// A volume's attachment to a server.
    VolumeAttachmentId = "attachment id",
    /// A kind of volume.
    VolumeTypeId = "volume type id",
    /// An offer of a volume to another project.
    VolumeTransferId = "transfer id",
    /// A long operation of a volume host.
    VolumeTaskId = "volume task id",
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the name as it is.
            pub fn new(name: impl Into<String>) -> Self { Self(name.into()) }
            /// The bare text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl From<&str> for $name {
            fn from(name: &str) -> Self { Self(name.to_owned()) }
        }
        impl From<String> for $name {
            fn from(name: String) -> Self { Self(name) }
        }
    )+ };
}

names! {
    /// A machine that runs a compute service (`DEFAULT.host`).
    HostName,
    /// An availability zone.
    ZoneName,
    /// A project (tenant) of identity.
    ProjectId,
    /// A user of identity.
    UserId,
    /// A domain of identity.
    DomainId,
    /// A role of identity.
    RoleId,
    /// The id by which users know a flavor: free text, often a UUID.
    FlavorId,
}

/// The id of one API call, as it stands in headers, logs, instance actions and messages: `req-<uuid>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// Draws a new id.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(format!("req-{}", entropy.uuid()))
    }
    /// Accepts an id that came from outside: `req-` and a UUID, nothing else (it ends up in headers and logs).
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = text.strip_prefix("req-")?;
        (uuid.len() == 36 && Uuid::try_parse(uuid).is_ok()).then(|| Self(text.to_owned()))
    }
    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn both_forms_of_a_uuid_are_read_and_nothing_else() {
        let id = InstanceId::generate(&SeededEntropy::new(1));
        let dashed = id.to_string();
        assert_eq!(dashed.parse::<InstanceId>(), Ok(id));
        assert_eq!(dashed.replace('-', "").parse::<InstanceId>(), Ok(id));
        for bad in
            ["", "-1", "999", "{}", &format!("{dashed}a"), &format!("urn:uuid:{dashed}"), &format!("{{{dashed}}}")]
        {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn request_ids_from_outside_are_checked() {
        let id = RequestId::generate(&SeededEntropy::new(1));
        assert_eq!(RequestId::parse(id.as_str()), Some(id));
        assert_eq!(RequestId::parse("req-x\r\nX-Evil: 1"), None);
        assert_eq!(RequestId::parse("9f2c1f44-8f4b-4a1b-9f68-0c3a2d1e4b5a"), None);
    }
}
