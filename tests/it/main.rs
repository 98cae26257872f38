//! Behaviour of the whole cloud: every service in one process, on a paused clock, over the in-process bus and store and
//! fake hypervisors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod boot;
mod check;
mod conflicts;
mod consoles;
mod device_tags;
mod drain;
mod drift;
mod due;
mod foreign_host;
mod groups;
mod guest_password;
mod host_facts;
mod images;
mod interfaces;
mod life;
mod life_sweep;
mod mortal;
mod moves;
mod moves_here;
mod moves_queue;
mod moves_sweep;
mod network_hosts;
mod no_valid_host;
mod plugging;
mod preflight;
mod reset;
mod resize_quota;
mod server_volumes;
mod sick_hosts;
mod signs_of_life;
mod simulation;
mod support;
mod topology;
mod volumes;
