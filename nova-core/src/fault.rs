//! Why a server is in ERROR, as its owner sees it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The latest fault of an instance (nova/objects/instance_fault.py). The message is for the tenant and must not carry
/// a driver's text (OSSA-2019-003); details are for administrators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// An HTTP status: what the failure would have been as an answer.
    pub code: u16,
    /// One line for the owner, at most 255 characters.
    pub message: String,
    /// For administrators: the whole chain of causes.
    #[serde(default)]
    pub details: String,
    /// Where it happened.
    #[serde(default)]
    pub host: Option<String>,
    /// When it happened.
    pub created: Timestamp,
}

impl Fault {
    /// A fault with its message cut to what the column and clients take.
    pub fn new(code: u16, message: &str, details: String, created: Timestamp) -> Self {
        Self { code, message: message.chars().take(255).collect(), details, host: None, created }
    }
}
