//! The real programs as processes: `nova-all` with the fake driver and SQLite on disk, each in a state folder of its own
//! and on a free port; `nova-manage`, `nova-demo` and `capacity` beside it. And the same cloud in pieces, on real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends by a panic")]

mod capacity;
mod cinder;
mod demo;
mod fleet;
mod input;
mod interfaces;
mod kill;
mod load;
mod manage;
mod neutron;
#[cfg(all(feature = "amqp", feature = "postgres", feature = "mysql"))]
mod pieces;
mod processes;
mod refusal;
mod signals;
mod start;
mod support;
