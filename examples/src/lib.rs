//! What the binaries share: reading the configuration, telling what is wrong with it, logging, signals, and building
//! the parts of a cloud from options.
//!
//! | module | for |
//! |---|---|
//! | [`cli`] | `--config-file`, `--set`, the environment; errors at start |
//! | [`client`] | a small client of the APIs, for the demonstration and for tests |
//! | [`process`] | clock, randomness, logging, signals |
//! | [`parts`] | store, bus and hypervisors from options |
//! | [`control`] | the control services, part by part |
//! | [`pieces`] | a control service as a process of its own |
//! | [`transport`] | the bus from options |
//! | [`health`] | `/healthz` and `/metrics` |
//! | [`hosts`] | host agents |
//! | [`manage`] | what `nova-manage` does |
//! | [`demo`] | the demonstration that `make run` shows |
//! | [`processes`] | a driver in one file, for those who write their own |
//! | [`capacity`] | the planning tool: replays requests over a described fleet |

pub mod capacity;
pub mod cli;
pub mod client;
pub mod clouds;
pub mod control;
pub mod demo;
pub mod health;
pub mod hosts;
pub mod manage;
pub mod parts;
pub mod pieces;
pub mod process;
pub mod processes;
pub mod transport;
