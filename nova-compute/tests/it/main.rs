//! A host's network, with real packets in network namespaces. Needs root; see `support`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod firewall;
mod links;
mod measure;
mod segments;
mod services;
mod support;
