//! MAC addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::entropy::Entropy;

/// The text was not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a valid MAC address")]
pub struct InvalidMac(pub String);

/// The address of an interface on the wire, written `fa:16:3e:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// OpenStack's first half: locally administered, not a group.
    pub const PREFIX: [u8; 3] = [0xfa, 0x16, 0x3e];

    /// Draws one. Of 16 million, so whoever keeps them draws again when it is taken.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let [a, b, c] = Self::PREFIX;
        let mut rest = [0; 3];
        entropy.fill(&mut rest);
        Self([a, b, c, rest[0], rest[1], rest[2]])
    }

    /// Of these six bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six bytes.
    pub const fn bytes(&self) -> [u8; 6] {
        self.0
    }

    /// May an interface have it? Not the address of a group, nor that of nobody.
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    /// Six pairs of hexadecimal digits, between colons or dashes.
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let wrong = || InvalidMac(text.chars().take(64).collect());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InvalidMac;

    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn drawn_ones_are_local_and_of_one_interface() {
        let entropy = SeededEntropy::new(1);
        let (one, two) = (MacAddress::generate(&entropy), MacAddress::generate(&entropy));
        assert!(one != two && one.is_unicast());
        assert!(one.to_string().starts_with("fa:16:3e:"));
        assert_eq!(one.bytes()[0] & 0b10, 0b10, "locally administered");
        assert_eq!(MacAddress::generate(&SeededEntropy::new(1)), one);
    }

    #[test]
    fn texts_are_read_exactly() {
        let mac: MacAddress = "FA-16-3E-00-0a-FF".parse().unwrap();
        assert_eq!(mac.to_string(), "fa:16:3e:00:0a:ff");
        for bad in
            ["", "fa:16:3e:00:00", "fa:16:3e:00:00:00:00", "fa:16:3e:00:00:0", "fa:16:3e:00:00:+1", "fa163e000000"]
        {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
        assert!(!"01:00:5e:00:00:01".parse::<MacAddress>().unwrap().is_unicast());
        assert!(!"00:00:00:00:00:00".parse::<MacAddress>().unwrap().is_unicast());
    }
}
