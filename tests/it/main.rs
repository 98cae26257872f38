//! Behaviour of the whole cloud: every service in one process, on a paused clock, over the in-process bus and store and
//! fake hypervisors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod boot;
mod check;
mod foreign_host;
mod groups;
mod host_facts;
mod images;
mod interfaces;
mod mortal;
mod network_hosts;
mod no_valid_host;
mod simulation;
mod support;
mod topology;
