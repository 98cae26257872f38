//! Links between routers and the host: pairs of link-local addresses (RFC 3927, RFC 3021), out of the range that Neutron's
//! distributed routers use for the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use nova_core::ids::RouterId;

/// All of them.
pub const LINKS: &str = "169.254.64.0/18";
const FIRST: u32 = u32::from_be_bytes([169, 254, 64, 0]);
const PAIRS: u32 = 1 << 13;

/// The two addresses of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The host's.
    pub host: Ipv4Addr,
    /// The router's.
    pub router: Ipv4Addr,
}

impl Pair {
    fn at(place: u32) -> Self {
        let host = FIRST + 2 * (place % PAIRS);
        Self { host: host.into(), router: (host + 1).into() }
    }
}

/// The pair that the host's address on a link is of.
pub fn pair_of(host: IpAddr) -> Option<Pair> {
    let IpAddr::V4(host) = host else { return None };
    let place = u32::from(host).checked_sub(FIRST)?;
    (place < 2 * PAIRS && place % 2 == 0).then(|| Pair::at(place / 2))
}

/// A pair for each router: the one that it has, or else the first free one, beginning at a place that its id says. So a
/// router has mostly the same on every host and after every start.
pub fn assign(routers: &BTreeSet<RouterId>, present: &BTreeMap<RouterId, Pair>) -> BTreeMap<RouterId, Pair> {
    let mut assigned = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for router in routers {
        if let Some(pair) = present.get(router)
            && taken.insert(*pair)
        {
            assigned.insert(*router, *pair);
        }
    }
    for router in routers {
        if assigned.contains_key(router) {
            continue;
        }
        let number = router.as_uuid().as_u128();
        let start = u32::try_from(number % u128::from(PAIRS)).unwrap_or(0);
        let free = (start..start + PAIRS).map(Pair::at).find(|pair| !taken.contains(pair));
        if let Some(pair) = free {
            taken.insert(pair);
            assigned.insert(*router, pair);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(number: u128) -> RouterId {
        uuid_text(number).parse().unwrap()
    }

    fn uuid_text(number: u128) -> String {
        let hex = format!("{number:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    #[test]
    fn routers_keep_their_pairs_and_share_none() {
        let (one, same, last) = (router(5), router(5 + u128::from(PAIRS)), router(u128::from(PAIRS) - 1));
        let first = assign(&[one, last].into(), &BTreeMap::new());
        assert_eq!(first[&one].host, Ipv4Addr::new(169, 254, 64, 10));
        assert_eq!(first[&last], Pair::at(PAIRS - 1));
        assert_eq!(first[&last].router, Ipv4Addr::new(169, 254, 127, 255));
        let more = assign(&[one, same, last].into(), &first);
        assert_eq!((more[&one], more[&last]), (first[&one], first[&last]));
        assert_eq!(more[&same].host, Ipv4Addr::new(169, 254, 64, 12));
        // The first one gone, the other keeps what it has.
        let later = assign(&[same].into(), &more);
        assert_eq!(later[&same], more[&same]);
        let clash = BTreeMap::from([(one, Pair::at(1)), (same, Pair::at(1))]);
        let mended = assign(&[one, same].into(), &clash);
        assert_ne!(mended[&one], mended[&same]);
    }

    #[test]
    fn the_last_places_go_round() {
        let routers: BTreeSet<RouterId> = [router(u128::from(PAIRS) - 1), router(2 * u128::from(PAIRS) - 1)].into();
        let assigned = assign(&routers, &BTreeMap::new());
        assert_eq!(assigned.values().map(|pair| pair.host).collect::<BTreeSet<_>>().len(), 2);
        assert!(assigned.values().any(|pair| *pair == Pair::at(0)));
    }

    #[test]
    fn pairs_are_known_by_the_hosts_address() {
        assert_eq!(pair_of("169.254.64.10".parse().unwrap()), Some(Pair::at(5)));
        for other in ["169.254.64.11", "169.254.63.254", "169.254.128.0", "10.0.0.2", "fe80::1"] {
            assert_eq!(pair_of(other.parse().unwrap()), None, "{other}");
        }
    }
}
