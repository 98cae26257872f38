//! Words and rules of a virtual machine cloud: what an instance, a flavor, a host and a request are, in which state
//! an instance may do what, what the services say to each other, and what comes next in a long operation.
//!
//! Everything here is data and pure functions: no I/O, no clock and no randomness of its own ([`clock::Clock`] and
//! [`entropy::Entropy`] are what the rest brings). All other crates of the workspace stand on this one.
//!
//! ```
//! use nova_core::state::{VmState, status};
//!
//! assert_eq!(status(VmState::Active, None).as_str(), "ACTIVE");
//! ```

pub mod action;
pub mod aggregate;
pub mod clock;
pub mod compatibility;
pub mod console;
pub mod context;
pub mod contracts;
pub mod disk_format;
pub mod drain;
pub mod entropy;
pub mod error;
pub mod fault;
pub mod flavor;
pub mod host;
pub mod host_facts;
pub mod identity;
pub mod ids;
pub mod image;
pub mod instance;
pub mod keypair;
pub mod metadata;
pub mod migration;
pub mod network;
pub mod options;
pub mod quota;
pub mod request;
pub mod rpc;
pub mod server_group;
pub mod state;
pub mod task;
pub mod topology;
pub mod volume;
