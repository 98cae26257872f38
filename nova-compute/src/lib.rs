//! The host agent: everything that runs on a compute host.
