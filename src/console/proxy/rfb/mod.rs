//! The begin of RFB (RFC 6143, 7.1 and 7.2) on both sides of the proxy: it shows itself to the screen, as the operator
//! says, and asks its own client for nothing: the token was its proof.

mod client;
mod password;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientSide, welcome};
pub use server::{LoggedIn, Scheme, ServerLogin, log_in};

/// Why the begin of RFB failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RfbError {
    /// The connection ended or broke.
    #[error("the connection ended while RFB began")]
    Io(#[from] std::io::Error),
    /// It does not speak RFB 3.8.
    #[error("the {who} does not speak RFB 3.8")]
    Version {
        /// `screen` or `client`.
        who: &'static str,
    },
    /// It says something that has no place there.
    #[error("the {who} does not keep to RFB: {what}")]
    Protocol {
        /// `screen` or `client`.
        who: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// It offers no scheme that this proxy may use.
    #[error("the screen offers none of the schemes that are allowed")]
    NoScheme,
    /// It refused what the proxy showed.
    #[error("the screen refused the proxy: {0}")]
    Refused(String),
}

/// The version that both sides speak (RFC 6143, 7.1.1).
const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Security type `None`.
const NONE: u8 = 1;
/// Security type `VNC Authentication`.
const PASSWORD: u8 = 2;
/// Security type `VeNCrypt`.
const VENCRYPT: u8 = 19;

/// Type and length of a request for the next picture (`FramebufferUpdateRequest`: RFC 6143, 7.5.3).
const PICTURE: (u8, usize) = (3, 10);

/// Is it nothing but requests for the next picture? Clients send them by themselves, whenever they have got one: a cursor that
/// blinks is enough. Each of a client's messages has whole ones.
pub(super) fn only_asks_for_pictures(bytes: &[u8]) -> bool {
    let (kind, length) = PICTURE;
    !bytes.is_empty() && bytes.chunks(length).all(|one| one.len() == length && one.first() == Some(&kind))
}
