//! Every table of the store: which record it keeps and which of its facts are columns.
//!
//! A fact becomes a column when something is asked by it, sorted by it, or set without the rest of the record. A change
//! here needs a migration (`crate::sql::migrations`); a test compares the two.

mod compute;
mod consoles;
mod groups;
mod hosts;
mod identity;
mod images;
mod instance;
mod migrations;
mod network;
mod network_hosts;
mod quotas;
mod volumes;

pub(crate) use compute::{ProjectUsage, Request};
pub(crate) use groups::{AggregateHost, GroupMember};
pub(crate) use identity::{RevokedToken, Secret, folded};
pub(crate) use instance::sort_column;
pub(crate) use network::{
    Address, FreeRange, NetworkUsage, PortArrival, PortGroup, address_key, fixed_key, of_network,
};

pub(crate) use network_hosts::{BooksVersion, NetworkSegment};
pub(crate) use quotas::{OwnedQuota, quota_key};
pub(crate) use volumes::{AttachmentRow, VolumeUsage, quota_column};

#[cfg(all(test, feature = "sqlite"))]
use crate::rows::{Record, Table};

/// All tables, to hold the migrations against.
#[cfg(all(test, feature = "sqlite"))]
pub(crate) const TABLES: &[&Table] = &[
    nova_core::instance::Instance::TABLE,
    Request::TABLE,
    nova_core::task::Task::TABLE,
    nova_core::action::ActionRecord::TABLE,
    nova_core::host::Allocation::TABLE,
    ProjectUsage::TABLE,
    nova_core::host::Service::TABLE,
    nova_core::host::ComputeNode::TABLE,
    nova_core::flavor::Flavor::TABLE,
    nova_core::keypair::Keypair::TABLE,
    nova_core::identity::Domain::TABLE,
    nova_core::identity::Project::TABLE,
    nova_core::identity::User::TABLE,
    nova_core::identity::Role::TABLE,
    nova_core::identity::Grant::TABLE,
    Secret::TABLE,
    RevokedToken::TABLE,
    nova_core::image::Image::TABLE,
    nova_core::aggregate::Aggregate::TABLE,
    AggregateHost::TABLE,
    nova_core::server_group::ServerGroup::TABLE,
    GroupMember::TABLE,
    nova_core::network::Network::TABLE,
    nova_core::network::Subnet::TABLE,
    FreeRange::TABLE,
    Address::TABLE,
    nova_core::network::Port::TABLE,
    PortGroup::TABLE,
    nova_core::network::FloatingIp::TABLE,
    nova_core::network::Router::TABLE,
    nova_core::network::SecurityGroup::TABLE,
    nova_core::network::SecurityGroupRule::TABLE,
    NetworkUsage::TABLE,
    NetworkSegment::TABLE,
    nova_core::network::NetworkAgent::TABLE,
    nova_core::network::NetworkState::TABLE,
    PortArrival::TABLE,
    nova_core::migration::Migration::TABLE,
    BooksVersion::TABLE,
    OwnedQuota::TABLE,
    nova_core::volume::Volume::TABLE,
    nova_core::volume::Snapshot::TABLE,
    AttachmentRow::TABLE,
    nova_core::volume::VolumeType::TABLE,
    nova_core::volume::Transfer::TABLE,
    nova_core::volume::VolumeTask::TABLE,
    nova_core::volume::Pool::TABLE,
    VolumeUsage::TABLE,
    nova_core::console::ConsoleGrant::TABLE,
];
