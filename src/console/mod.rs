//! Consoles: a guest's screen or serial port in a browser, for its owner only.
//!
//! The API makes a grant ([`nova_core::console::ConsoleGrant`]) and sends the user to a proxy with its token. The proxy
//! ([`proxy`]) holds no database: it asks nova-consoleauth ([`ConsoleAuth`]) what a token is worth, connects to the host, has
//! the host confirm that what answers there is that guest, and then relays. While a session is open, the proxy asks again and
//! again whether it may go on.
//!
//! | part | what |
//! |---|---|
//! | [`ConsoleUrls`] | where the API sends users |
//! | [`ConsoleAuth`] | what tokens are worth, which sessions have to end |
//! | [`proxy`] | the door: websocket on one side, RFB, SPICE or a serial port on the other |

mod consoleauth;
pub(crate) mod grants;
mod options;
pub mod proxy;

pub use consoleauth::{Access, AuthParts, ConsoleAuth};
pub use options::*;
