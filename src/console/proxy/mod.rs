//! nova-novncproxy: the door in front of consoles. A websocket on one side; RFB, SPICE or a serial port on the other.
//!
//! What is asked is judged before anything else happens (`request`: host, origin, token, all pure). Then nova-consoleauth
//! is asked what the token is worth, the host is connected to, and asked whether that is the guest (`open`); the proxy
//! shows itself to the screen (`rfb`), and only then the websocket is accepted (with `spice`, whose client speaks first, it does so
//! after). From then on it relays (`relay`): both
//! ways with back-pressure, within the limits of [`ProxyOptions`], until one side ends or the session has to end
//! (`sessions`).
//!
//! nova/console/websocketproxy.py and nova/console/securityproxy/ do this in Nova.

mod authority;
mod limits;
mod open;
mod options;
mod pages;
mod peer;
mod relay;
mod request;
mod rfb;
#[cfg(feature = "samples")]
pub mod samples;
mod server;
mod session;
mod sessions;
mod spice;

pub use authority::{Authority, AuthorityError, BusAuthority};
pub use options::{ProxyOptions, TlsError};
pub use pages::Pages;
pub use relay::{End, Relay, relay};
pub use rfb::{ClientSide, LoggedIn, RfbError, Scheme, ServerLogin, log_in, welcome};
pub use server::{ConsoleProxy, ProxyParts};
pub use spice::{Channel, SpiceError, SpiceLogin, link};
