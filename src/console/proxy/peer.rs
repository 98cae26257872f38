//! Whose request it is, where something stands in front of the proxy: all of them come from its address then.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// Where what stands in front says who asks: each adds who asked it.
const FORWARDED: &str = "x-forwarded-for";

/// The last address on the request's way that is not one of ours. Whatever stands before it anybody can have written.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let texts = headers.get_all(FORWARDED).iter().rev().map(|value| value.to_str().unwrap_or_default());
    for text in texts.flat_map(|text| text.rsplit(',')) {
        if !trusted.contains(&client) {
            break;
        }
        let Some(before) = address(text.trim()) else { break };
        client = before;
    }
    client
}

/// An address, as it stands or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let found = bare.or_else(|_| text.parse::<SocketAddr>().map(|one| one.ip())).ok()?;
    Some(found.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_those_in_front_are_believed() {
        let ours: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|one| one.parse().unwrap()).into();
        let asks = |peer: &str, told: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for one in told {
                headers.append(FORWARDED, HeaderValue::from_static(one));
            }
            client(peer.parse().unwrap(), &headers, &ours).to_string()
        };
        for (peer, told, expected) in [
            ("10.0.0.1", &["192.0.2.7"][..], "192.0.2.7"),
            ("::ffff:10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
            ("fd00::1", &["[2001:db8::7]:4444"], "2001:db8::7"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.7:99"], "192.0.2.7"),
            ("10.0.0.1", &["192.0.2.7, who knows"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.7, "], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("192.0.2.8", &["192.0.2.7"], "192.0.2.8"),
        ] {
            assert_eq!(asks(peer, told), expected, "{peer} {told:?}");
        }
    }
}
