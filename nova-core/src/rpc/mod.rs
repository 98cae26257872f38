//! What the services say to each other: every message's name, direction, content, and who may send it.
//!
//! A declaration is a type that implements [`Method`]; the bus carries its `Request` as JSON in an
//! [`Envelope`] and nothing else. Fields may be added (receivers ignore what they do not know and default what is
//! missing); anything else is a new major version of the interface.

pub mod compute;
pub mod conductor;
pub mod consoleauth;
pub mod network;
pub mod scheduler;
pub mod volume;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::RequestContext;
use crate::ids::{HostName, MessageId};

/// How a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// To one receiver, at least once, no reply.
    Cast,
    /// To one receiver, with a reply or a timeout.
    Call,
    /// To every live receiver, no reply.
    Fanout,
}

/// The kinds of service, as senders of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The users' door.
    Api,
    /// Long operations, and compute's way to the store.
    Conductor,
    /// Picks hosts.
    Scheduler,
    /// A host's agent.
    Compute,
    /// The books of the network, for hosts.
    Network,
    /// What tokens of consoles are worth.
    Consoleauth,
    /// The door in front of consoles.
    Novncproxy,
    /// A volume host's service.
    Volume,
}

impl Role {
    /// The binary's name, as `os-services` shows it.
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Api => "nova-api",
            Self::Conductor => "nova-conductor",
            Self::Scheduler => "nova-scheduler",
            Self::Compute => "nova-compute",
            Self::Network => "nova-network",
            Self::Consoleauth => "nova-consoleauth",
            Self::Novncproxy => "nova-novncproxy",
            Self::Volume => "nova-volume",
        }
    }
}

/// Who sent a message. What a signature will bind to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sender {
    /// The kind of service.
    pub role: Role,
    /// The host that it runs on.
    pub host: HostName,
}

/// One method of one interface.
pub trait Method: Send + Sync + 'static {
    /// Also the topic: `conductor`, `scheduler`, `compute`.
    const INTERFACE: &'static str;
    /// The name on the wire.
    const NAME: &'static str;
    /// How it is delivered.
    const PATTERN: Pattern;
    /// Who may send it; a receiver refuses everyone else.
    const SENDERS: &'static [Role];
    /// What is said.
    type Request: Serialize + DeserializeOwned + Send + Sync;
    /// What is answered; `()` where nothing is.
    type Reply: Serialize + DeserializeOwned + Send + Sync;
}

/// Version of all interfaces: receivers refuse another major one.
pub const VERSION: Version = Version { major: 1, minor: 0 };

/// Major and minor version of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Changes when old receivers cannot understand.
    pub major: u16,
    /// Changes when fields or methods are added.
    pub minor: u16,
}

/// A message as the bus carries it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Unique; a repeated delivery carries it again.
    pub id: MessageId,
    /// The method's name.
    pub method: String,
    /// The interface's version at the sender.
    pub version: Version,
    /// Who sent it.
    pub sender: Sender,
    /// When it stops being worth doing; receivers drop it after.
    pub deadline: Timestamp,
    /// On whose behalf.
    pub context: RequestContext,
    /// The method's request.
    pub payload: serde_json::Value,
}

/// Why a handler could not do what a call asked, as it travels back to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind of failure.
    pub kind: RefusalKind,
    /// One line.
    pub message: String,
}

/// Kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Version, method or content that the receiver does not know.
    Malformed,
    /// This sender may not say this.
    Forbidden,
    /// What it speaks of is not there.
    NotFound,
    /// Someone else was faster.
    Conflict,
    /// No host takes the request; the message holds [`crate::request::NoValidHost`] as JSON.
    NoValidHost,
    /// Not possible here.
    Unsupported,
    /// Try again later.
    Unavailable,
    /// Anything else.
    Failed,
}

impl Refusal {
    /// A refusal of that kind.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Declares one method. `declare!(Interface "name": Pattern from [Roles], Request => Reply)`.
#[macro_export]
macro_rules! rpc_method {
    ($(#[$doc:meta])* $name:ident = $interface:literal . $wire:literal : $pattern:ident from [$($role:ident),+], $request:ty => $reply:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;
        impl $crate::rpc::Method for $name {
            const INTERFACE: &'static str = $interface;
            const NAME: &'static str = $wire;
            const PATTERN: $crate::rpc::Pattern = $crate::rpc::Pattern::$pattern;
            const SENDERS: &'static [$crate::rpc::Role] = &[$($crate::rpc::Role::$role),+];
            type Request = $request;
            type Reply = $reply;
        }
    };
}
