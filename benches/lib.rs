//! Shared pieces of the benchmarks: fleets, and streams of requests, from a seed.

pub mod fleet;
