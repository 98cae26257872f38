//! Routers.
