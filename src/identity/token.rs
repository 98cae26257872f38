//! Tokens: claims and a signature, in text that fits a header. Whether a token counts is known without asking the database.
//!
//! `n1.CLAIMS.MAC`, both parts base64url without padding; CLAIMS is JSON, MAC is HMAC-SHA-256 (RFC 2104) over everything
//! before it. As in Keystone's Fernet tokens the claims are ids only: names and roles are looked up (in memory) when the
//! token is used, so that a grant that was taken back is gone from tokens that were given out before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use nova_core::ids::{ProjectId, UserId};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Changes with the form of the claims.
const VERSION: &str = "n1";
/// Longer texts are not looked at.
const LONGEST: usize = 2048;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "u")]
    pub user_id: UserId,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    #[serde(rename = "m")]
    pub methods: Vec<String>,
    /// Its own, and that of the token at the beginning of the chain that it was made from.
    #[serde(rename = "a")]
    pub audit_ids: Vec<String>,
    #[serde(rename = "i", with = "micros")]
    pub issued_at: Timestamp,
    #[serde(rename = "e", with = "micros")]
    pub expires_at: Timestamp,
}

/// Signs and checks.
pub(super) struct TokenCode {
    mac: Hmac<Sha256>,
}

impl TokenCode {
    pub(super) fn new(key: &[u8]) -> Self {
        // HMAC takes keys of any length; the error is of a trait that other codes share.
        let mac = Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { mac }
    }

    pub(super) fn encode(&self, claims: &Claims) -> String {
        // Strings and numbers only: writing them cannot fail.
        let json = serde_json::to_vec(claims).unwrap_or_default();
        let mut text = format!("{VERSION}.{}", URL_SAFE_NO_PAD.encode(json));
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        text.push('.');
        text.push_str(&tag);
        text
    }

    /// The claims of a token that this key signed; the comparison takes the same time wherever it fails.
    pub(super) fn decode(&self, text: &str) -> Option<Claims> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, tag) = text.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let mut mac = self.mac.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&tag).ok()?;
        let (version, claims) = signed.split_once('.')?;
        if version != VERSION {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

impl std::fmt::Debug for TokenCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenCode(***)")
    }
}

mod micros {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(time.as_microsecond())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Timestamp::from_microsecond(i64::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let issued_at = Timestamp::from_microsecond(1_763_798_591_000_042).unwrap();
        Claims {
            user_id: UserId::new("u".repeat(64)),
            project_id: Some(ProjectId::new("p".repeat(64))),
            methods: vec!["password".into(), "token".into()],
            audit_ids: vec!["a".repeat(22), "b".repeat(22)],
            issued_at,
            expires_at: issued_at + jiff::SignedDuration::from_hours(1),
        }
    }

    #[test]
    fn a_token_says_what_was_put_in_and_fits_a_header() {
        let code = TokenCode::new(b"key");
        let token = code.encode(&claims());
        assert_eq!(code.decode(&token), Some(claims()));
        assert!(token.len() < 1024, "{}", token.len());
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
    }

    #[test]
    fn no_single_change_goes_unnoticed() {
        let code = TokenCode::new(b"key");
        let token = code.encode(&claims());
        for at in 0..token.len() {
            for other in ['A', 'B', '.', '-', '='] {
                let mut forged = token.clone();
                forged.replace_range(at..=at, &other.to_string());
                assert!(forged == token || code.decode(&forged).is_none(), "{at} {other}");
            }
        }
        assert!(code.decode(&token[..token.len() - 1]).is_none());
        assert!(code.decode(&format!("{token}A")).is_none());
    }

    #[test]
    fn another_key_or_another_form_does_not_count() {
        let code = TokenCode::new(b"key");
        assert!(TokenCode::new(b"other").decode(&code.encode(&claims())).is_none());
        for text in ["", ".", "..", "n1..", "gAAAAAB", "\u{0}", &"x".repeat(100_000)] {
            assert!(code.decode(text).is_none(), "{text:.20}");
        }
    }
}
