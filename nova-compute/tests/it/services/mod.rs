//! What a host does for the guests on its bridges, with real packets.

mod dhcp;
mod routers;
mod stage;
