//! What a host does for the guests on its bridges, with real packets.

mod dhcp;
mod doors;
mod metadata;
mod routers;
mod stage;
mod travellers;
