//! SSH keys that users leave to be put into their servers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::UserId;

/// A public key under a name that is unique to its user (nova/objects/keypair.py).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keypair {
    /// A number, as old clients expect one.
    #[serde(default)]
    pub id: i64,
    /// Whose it is: keys belong to users, not projects.
    pub user_id: UserId,
    /// The name.
    pub name: String,
    /// One line in OpenSSH's form, or an X.509 certificate.
    pub public_key: String,
    /// MD5 of the key's blob in colon form for `ssh`, SHA-1 of the certificate for `x509`.
    pub fingerprint: String,
    /// `ssh` or `x509` (2.2).
    pub kind: String,
    /// When it was made.
    pub created_at: Timestamp,
}
