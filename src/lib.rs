//! The control services of the cloud, one room each.

pub mod api;
pub mod check;
pub mod conductor;
pub mod identity;
pub mod image;
pub mod live;
pub mod metadata;
pub mod network;
pub mod scheduler;
pub mod servicegroup;
