//! The compute API called through its whole pipeline, in process: no socket, a clock that stands still, randomness from
//! a seed.

mod actions;
mod configuration;
mod create;
mod fuzz;
mod groups;
mod interfaces;
mod list;
mod networks;
mod pipeline;
mod server;
mod shapes;
mod update;
mod world;
mod wrong_input;
