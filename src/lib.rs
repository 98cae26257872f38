//! The control services of the cloud, one room each.

pub mod api;
pub mod check;
pub mod conductor;
pub mod console;
pub mod identity;
pub mod image;
pub mod live;
pub mod metadata;
pub mod network;
pub mod outside;
pub mod scheduler;
pub mod servicegroup;
pub mod volume;
pub mod waiting;
