//! Consoles: opened by whoever has their address, once, and by nobody else; closed as soon as they have to be. In real time,
//! over loopback: browsers, proxies and screens are real sockets.

mod crowd;
mod opening;
mod qemu;
mod repeats;
mod rig;
mod serial_tls;
mod sessions;
mod spice;
mod spice_qemu;
