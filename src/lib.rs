//! The control services of the cloud, one room each.

pub mod api;
pub mod identity;
pub mod image;
