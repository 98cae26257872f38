//! Fuzz targets: what arrives at consoles from outside, each as a plain function over bytes that panics where a promise is
//! broken.
//!
//! The tests of this crate run every target over inputs that are made from good ones by a seed, so that each run of them is
//! the same. `make fuzz` (`dev/fuzz`) runs the same functions under libFuzzer, which looks for new ways through the code:
//! with the stable compiler, whose coverage it needs and nothing else.

#![allow(clippy::expect_used, clippy::panic, reason = "a target fails by panicking")]

pub mod begin;
pub mod client;
pub mod mutate;
pub mod request;
pub mod screen;
mod speaker;
pub mod spice;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its program.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs that lead far into the code.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the tests make.
    pub inputs: usize,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target { name: "console_begin", run: begin::run, seeds: begin::seeds, inputs: 20_000 },
    Target { name: "console_client", run: client::run, seeds: client::seeds, inputs: 10_000 },
    Target { name: "console_request", run: request::run, seeds: request::seeds, inputs: 2_000 },
    Target { name: "console_screen", run: screen::run, seeds: screen::seeds, inputs: 20_000 },
    Target { name: "console_spice", run: spice::run, seeds: spice::seeds, inputs: 3_000 },
];

/// Nothing that a target does takes that long.
const LONG: Duration = Duration::from_secs(5);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
