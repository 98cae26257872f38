//! nova-conductor: long operations, and the only way from a compute host to the store.
//!
//! A user's intent is a [`Task`] row, written by the API together with what it is about. A conductor takes it up (a
//! [`StartTask`] message only shortens the wait), runs its steps, and writes the effects of several steps in one
//! transaction wherever it must wait or end. It keeps no task in memory between messages: whichever conductor hears a
//! host's report goes on from the store. What comes next is [`nova_core::task::next`]; how, is in [`steps`].
//!
//! [`Task`]: nova_core::task::Task
//! [`StartTask`]: nova_core::rpc::conductor::StartTask

mod beats;
mod context;
mod drain;
mod engine;
mod heartbeat;
mod image_cache;
mod manager;
mod move_options;
mod moves;
mod news;
mod options;
mod periodic;
mod ports;
mod power;
mod recent;
mod report;
mod rpcapi;
pub mod steps;
mod sweep;
mod volumes;

pub use context::{StagedOrder, TaskContext};
pub(crate) use engine::signed;
pub use manager::{Conductor, ConductorError, Parts};
pub use move_options::{MOVE_OPTIONS, MoveOptions, SHELVED_OFFLOAD_TIME};
pub use options::{CONDUCTOR_OPTIONS, ConductorOptions, PluggingOptions};
pub use rpcapi::BusOrders;
pub(crate) use steps::SHELVED_IMAGE;
