//! Network namespaces to play hosts and guests in.

mod namespace;

pub use namespace::Namespace;
