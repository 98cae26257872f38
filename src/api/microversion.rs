//! Microversions of the compute API: one number per request that says which shape of every body is meant
//! (nova/api/openstack/api_version_request.py).

use std::fmt;
use std::ops::RangeInclusive;

use http::HeaderMap;

use super::ApiError;

/// The minor number of `2.N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microversion(pub u16);

/// Every version from the first on.
pub const ALWAYS: RangeInclusive<u16> = 0..=u16::MAX;

/// `since(26)`: from 2.26 on.
pub const fn since(minor: u16) -> RangeInclusive<u16> {
    minor..=u16::MAX
}

/// `until(52)`: up to and with 2.52.
pub const fn until(minor: u16) -> RangeInclusive<u16> {
    0..=minor
}

/// The header of 2.27 and later: `OpenStack-API-Version: compute 2.N`.
pub const HEADER: &str = "openstack-api-version";
/// The first header: `X-OpenStack-Nova-API-Version: 2.N`.
pub const LEGACY_HEADER: &str = "x-openstack-nova-api-version";

impl Microversion {
    /// 2.1: what a request without header gets.
    pub const MIN: Self = Self(1);
    /// 2.104: the highest that is offered.
    pub const MAX: Self = Self(104);

    /// Is it 2.`minor` or later?
    pub const fn at_least(self, minor: u16) -> bool {
        self.0 >= minor
    }

    /// Is it before 2.`minor`?
    pub const fn before(self, minor: u16) -> bool {
        self.0 < minor
    }

    /// The version that a request asks for; the newer header counts where both are there, as in microversion-parse.
    ///
    /// # Errors
    /// [`Refused`] for what cannot be read and for versions that are not offered.
    pub fn negotiate(headers: &HeaderMap) -> Result<Self, Refused> {
        match asked(headers) {
            None => Ok(Self::MIN),
            Some("latest") => Ok(Self::MAX),
            Some(text) => {
                let (major, minor) = parse(text).ok_or_else(|| Refused::Malformed(text.to_owned()))?;
                let offered = major == 2 && (Self::MIN.0..=Self::MAX.0).contains(&minor);
                if offered { Ok(Self(minor)) } else { Err(Refused::NotOffered(format!("{major}.{minor}"))) }
            }
        }
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "2.{}", self.0)
    }
}

/// A version that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Not of the form `N.M`: 400.
    Malformed(String),
    /// Outside of what is offered: 406.
    NotOffered(String),
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(text) => Self::BadRequest(format!(
                "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            )),
            Refused::NotOffered(text) => Self::NotAcceptable(format!(
                "Version {text} is not supported by the API. Minimum is {} and maximum is {}.",
                Microversion::MIN,
                Microversion::MAX
            )),
        }
    }
}

fn asked(headers: &HeaderMap) -> Option<&str> {
    let newer = headers.get_all(HEADER).iter().filter_map(|value| value.to_str().ok());
    // One header may name several services: `compute 2.10,identity 3.0`; the last one of ours counts.
    let ours = newer
        .flat_map(|value| value.split(','))
        .filter_map(|part| {
            let (service, version) = part.trim().split_once(' ')?;
            service.eq_ignore_ascii_case("compute").then(|| version.trim())
        })
        .next_back();
    ours.or_else(|| headers.get(LEGACY_HEADER).and_then(|value| value.to_str().ok()).map(str::trim))
}

fn parse(text: &str) -> Option<(u16, u16)> {
    let number = |part: &str| {
        let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (plain && (part == "0" || !part.starts_with('0'))).then(|| part.parse().unwrap_or(u16::MAX))
    };
    let (major, minor) = text.split_once('.')?;
    Some((number(major).filter(|n| *n > 0)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &'static str, value: &str) -> Result<Microversion, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Microversion::negotiate(&headers)
    }

    #[test]
    fn both_headers_are_read_and_the_newer_wins() {
        assert_eq!(Microversion::negotiate(&HeaderMap::new()), Ok(Microversion(1)));
        assert_eq!(ask(LEGACY_HEADER, "2.60"), Ok(Microversion(60)));
        assert_eq!(ask(HEADER, "compute 2.79"), Ok(Microversion(79)));
        assert_eq!(ask(HEADER, "identity 3.1, compute 2.5"), Ok(Microversion(5)));
        assert_eq!(ask(HEADER, "compute latest"), Ok(Microversion::MAX));
        assert_eq!(ask(HEADER, "volume 3.70"), Ok(Microversion(1)));
        let mut both = HeaderMap::new();
        both.insert(LEGACY_HEADER, "2.1".parse().unwrap());
        both.insert(HEADER, "compute 2.90".parse().unwrap());
        assert_eq!(Microversion::negotiate(&both), Ok(Microversion(90)));
    }

    #[test]
    fn what_is_not_offered_and_what_is_no_version_are_told_apart() {
        for text in ["2.105", "2.0", "3.1", "1.1", "2.99999"] {
            assert!(matches!(ask(LEGACY_HEADER, text), Err(Refused::NotOffered(_))), "{text}");
        }
        for text in ["2", "abc", "2.1.1", "", "2.01", "-2.1", "2.x", "0.1"] {
            assert!(matches!(ask(LEGACY_HEADER, text), Err(Refused::Malformed(_))), "{text}");
        }
    }
}
