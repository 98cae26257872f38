//! Shared pieces of the benchmarks: fleets, streams of requests, and rows of the store, from a seed.

pub mod fleet;
pub mod rows;
