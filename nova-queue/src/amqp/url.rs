//! Where the broker is: `rabbit://user:password@host:port/vhost`, the form of Nova's `transport_url`
//! (oslo.messaging, `transport.py`), with several hosts between commas; `amqp://` is the same.

use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};

use crate::BusError;

/// Bytes of a frame, where the URL does not say (`?frame_max=`). The client keeps room for 64 of them per connection,
/// which with the broker's own 128 KiB would be 8 MiB; our messages are small, and longer ones go in several frames.
const FRAME: u32 = 16 << 10;

/// The brokers of a URL, in its order. `heartbeat` is in seconds, where the URL does not say.
pub(super) fn parse(url: &str, heartbeat: u16) -> Result<Vec<AMQPUri>, BusError> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it has no scheme; rabbit:// was expected"))?;
    let scheme = match scheme {
        "rabbit" | "amqp" => "amqp",
        "amqps" => return Err(bad("amqps:// needs TLS, which this build does not have")),
        other => return Err(bad(&format!("{other}:// is not known here; rabbit:// and amqp:// are"))),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (hosts, path) = rest.split_at(end);
    hosts.split(',').map(|host| one(&format!("{scheme}://{host}{path}"), heartbeat)).collect()
}

fn one(url: &str, heartbeat: u16) -> Result<AMQPUri, BusError> {
    let mut uri = AMQPUri::from_str(url).map_err(|e| bad(&e))?;
    debug_assert_eq!(uri.scheme, AMQPScheme::AMQP);
    // A trailing slash names no virtual host in oslo.messaging; in AMQP's own URLs it names the empty one.
    if uri.vhost.is_empty() {
        uri.vhost = "/".to_owned();
    }
    if uri.authority.host.is_empty() {
        return Err(bad("it names no host"));
    }
    uri.query.heartbeat.get_or_insert(heartbeat);
    uri.query.frame_max.get_or_insert(FRAME);
    Ok(uri)
}

/// The URL itself holds a password, so the text never shows it.
fn bad(why: &str) -> BusError {
    BusError::Misconfigured { what: "the URL of the message bus".into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_share_the_rest() {
        let uris = parse("rabbit://u:p@one:5000,v:q@two:5001/cloud", 10).unwrap();
        let seen: Vec<_> = uris.iter().map(|u| (u.authority.host.as_str(), u.authority.port)).collect();
        assert_eq!(seen, [("one", 5000), ("two", 5001)]);
        assert_eq!(uris[1].authority.userinfo.username, "v");
        assert!(uris.iter().all(|u| u.vhost == "cloud" && u.query.heartbeat == Some(10)));
        assert!(uris.iter().all(|u| u.query.frame_max == Some(FRAME)));
    }

    #[test]
    fn no_virtual_host_is_the_default_one() {
        for url in ["rabbit://u:p@host", "rabbit://u:p@host/", "amqp://u:p@host:5672/%2f"] {
            assert_eq!(parse(url, 10).unwrap()[0].vhost, "/", "{url}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_without_telling_the_password() {
        for url in ["host:5672", "kafka://u:secret@host", "amqps://u:secret@host", "rabbit://u:secret@host:port/"] {
            let text = parse(url, 10).unwrap_err().to_string();
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
