//! Behaviour of the whole cloud.
