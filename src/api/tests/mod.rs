//! The compute API called through its whole pipeline, in process: no socket, a clock that stands still, randomness from
//! a seed.

mod actions;
mod configuration;
mod consoles;
mod create;
mod fuzz;
mod groups;
mod interfaces;
mod life;
mod list;
mod networks;
mod odds;
mod pipeline;
mod server;
mod shapes;
mod update;
mod world;
mod wrong_input;
