//! nova-network: from the books to the hosts.
//!
//! A host asks what its network is to be ([`SyncHost`]) and says what is in force ([`ReportHost`]); whoever writes the books
//! says that they changed ([`BooksChanged`]), and the hosts that it concerns are told to ask. Only the asking matters: a
//! word that is lost is made up for by hosts that ask now and then. A host that has what it was told, while the books are of
//! the same version, is answered without reading them. Nothing else is kept between two messages but metrics, so any number
//! of these services run side by side.
//!
//! [`SyncHost`]: nova_core::rpc::network::SyncHost
//! [`ReportHost`]: nova_core::rpc::network::ReportHost
//! [`BooksChanged`]: nova_core::rpc::network::BooksChanged

mod hints;
mod manager;
mod options;

pub use manager::{NetworkHosts, Parts};
pub use options::{AGENT_DOWN_TIME, HOSTS_OPTIONS, HostsOptions, gateways, gateways_fit};
