//! Ranges of addresses by prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::IpVersion;

/// The text was not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCidr {
    /// Not `address/length` at all.
    #[error("'{text}' is not a valid IP subnet")]
    Form {
        /// What was given.
        text: String,
    },
    /// Bits are set behind the prefix.
    #[error("'{text}' isn't a recognized IP subnet cidr, '{meant}' is recommended")]
    HostBits {
        /// What was given.
        text: String,
        /// The range that it is in.
        meant: Cidr,
    },
}

/// A range of addresses: `10.0.0.0/24`, `2001:db8::/64`. No bit behind the prefix is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The range of that prefix length around an address; `None` for a length that its version does not have.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let version = IpVersion::of(address);
        if prefix > version.bits() {
            return None;
        }
        let host_bits = version.bits() - prefix;
        let number = address_number(address) & !ones(host_bits);
        Some(Self { base: address_of(version, number), prefix })
    }

    /// Reads a range whatever bits are set behind the prefix; an address alone is a range of one.
    ///
    /// # Errors
    /// [`InvalidCidr::Form`].
    pub fn parse_loosely(text: &str) -> Result<Self, InvalidCidr> {
        let wrong = || InvalidCidr::Form { text: text.chars().take(64).collect() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = match prefix {
            None => IpVersion::of(address).bits(),
            // Only digits: `+8` and the like are no lengths.
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| wrong())?
            }
            Some(_) => return Err(wrong()),
        };
        Self::around(address, prefix).ok_or_else(wrong)
    }

    /// The first address.
    pub const fn base(&self) -> IpAddr {
        self.base
    }

    /// Bits that all its addresses share.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// 4 or 6.
    pub const fn version(&self) -> IpVersion {
        IpVersion::of(self.base)
    }

    /// Bits in which its addresses differ.
    pub const fn host_bits(&self) -> u8 {
        self.version().bits() - self.prefix
    }

    /// The first address as a number.
    pub fn first(&self) -> u128 {
        address_number(self.base)
    }

    /// The last address as a number.
    pub fn last(&self) -> u128 {
        self.first() | ones(self.host_bits())
    }

    /// Is the address in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        IpVersion::of(address) == self.version() && (self.first()..=self.last()).contains(&address_number(address))
    }

    /// Have both an address in common?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.version() == other.version() && self.first() <= other.last() && other.first() <= self.last()
    }
}

/// So many ones.
fn ones(bits: u8) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

/// An address as a number, to count with.
pub fn address_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of that number.
pub fn address_of(version: IpVersion, number: u128) -> IpAddr {
    match version {
        // Numbers of version 4 come from addresses of version 4: nothing is cut off.
        IpVersion::V4 => IpAddr::V4(Ipv4Addr::from((number & u128::from(u32::MAX)) as u32)),
        IpVersion::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let meant = Self::parse_loosely(text)?;
        let exact = text.split_once('/').is_some_and(|(address, _)| address.parse() == Ok(meant.base));
        if exact { Ok(meant) } else { Err(InvalidCidr::HostBits { text: text.chars().take(64).collect(), meant }) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = InvalidCidr;

    fn try_from(text: String) -> Result<Self, InvalidCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly_and_loosely() {
        for good in ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "::/0", "2001:db8::/64", "fe80::1/128"] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        for bad in ["", "/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0/8", "::/129", "x/8", "10.0.0.0/ 8"] {
            assert!(matches!(bad.parse::<Cidr>(), Err(InvalidCidr::Form { .. })), "{bad}");
        }
        let error = "10.0.0.1/24".parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(error, "'10.0.0.1/24' isn't a recognized IP subnet cidr, '10.0.0.0/24' is recommended");
        assert!("10.0.0.1".parse::<Cidr>().is_err(), "an address alone is no subnet");
        assert_eq!(Cidr::parse_loosely("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(Cidr::parse_loosely("10.0.0.77/24").unwrap().to_string(), "10.0.0.0/24");
    }

    #[test]
    fn ranges_know_what_is_in_them() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let net = cidr("10.0.1.0/24");
        for (address, inside) in
            [("10.0.1.0", true), ("10.0.1.255", true), ("10.0.2.0", false), ("10.0.0.255", false), ("::a00:100", false)]
        {
            assert_eq!(net.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert!(net.overlaps(&cidr("10.0.0.0/16")) && cidr("0.0.0.0/0").overlaps(&net));
        assert!(!net.overlaps(&cidr("10.0.2.0/24")) && !net.overlaps(&cidr("::/0")));
        assert_eq!(cidr("::/0").last(), u128::MAX);
    }

    #[test]
    fn json_is_the_text() {
        let cidr: Cidr = serde_json::from_str("\"10.0.0.0/8\"").unwrap();
        assert_eq!(serde_json::to_string(&cidr).unwrap(), "\"10.0.0.0/8\"");
        assert!(serde_json::from_str::<Cidr>("\"10.0.0.1/8\"").is_err());
    }
}
