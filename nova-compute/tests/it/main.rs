//! A host's network, with real packets in network namespaces. Needs root; see `support`.
#![cfg(target_os = "linux")]

mod links;
mod support;
