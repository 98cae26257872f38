//! The crate from outside: only what a builder sees.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

mod churn;
mod oracle;
mod own_scheduler;
mod packing;
mod properties;
