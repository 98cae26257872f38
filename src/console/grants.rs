//! The grant that the API makes, and the address that it sends users to (nova/objects/console_auth_token.py).

use jiff::{SignedDuration, Timestamp};
use nova_core::console::{ConsoleGrant, ConsoleTarget, ConsoleType, token_hash};
use nova_core::context::RequestContext;
use nova_core::entropy::Entropy;
use nova_core::ids::{ConsoleGrantId, HostName};
use nova_core::instance::Instance;

use super::ConsoleUrls;

/// A grant with the address that carries its token: shown once, kept nowhere.
pub(crate) struct NewGrant {
    pub(crate) grant: ConsoleGrant,
    pub(crate) url: String,
}

/// What a grant is about.
pub(crate) struct Subject<'a> {
    pub(crate) context: &'a RequestContext,
    pub(crate) instance: &'a Instance,
    pub(crate) host: &'a HostName,
    pub(crate) console_type: ConsoleType,
    pub(crate) target: ConsoleTarget,
}

/// The address where consoles of that kind are, if they are offered.
pub(crate) fn base_url(urls: &ConsoleUrls, console_type: ConsoleType) -> Option<&str> {
    match console_type {
        ConsoleType::Novnc => urls.novnc.as_deref(),
        ConsoleType::Serial => urls.serial.as_deref(),
        // Whether it is offered, the server's host knows.
        ConsoleType::SpiceHtml5 => Some(&urls.spice),
        // No hypervisor here serves these.
        ConsoleType::SpiceDirect | ConsoleType::Webmks => None,
    }
}

/// Makes a grant for the server as it is now.
pub(crate) fn new_grant(
    subject: Subject<'_>,
    base: &str,
    ttl: SignedDuration,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> NewGrant {
    let token = entropy.uuid().to_string();
    let grant = ConsoleGrant {
        id: ConsoleGrantId::generate(entropy),
        token_hash: token_hash(&token),
        console_type: subject.console_type,
        instance_id: subject.instance.id,
        host: subject.host.clone(),
        epoch: subject.instance.epoch,
        user_id: subject.context.user_id.clone(),
        project_id: subject.context.project_id.clone(),
        target: subject.target,
        access_url_base: base.to_owned(),
        resumes: None,
        created_at: now,
        expires_at: now.saturating_add(ttl).unwrap_or(Timestamp::MAX),
    };
    NewGrant { url: access_url(grant.console_type, base, &token), grant }
}

/// A page finds the token in the `path` that it shall open, as noVNC's do; a websocket's own address has it as it is, and so
/// has the page for SPICE.
fn access_url(console_type: ConsoleType, base: &str, token: &str) -> String {
    let separator = if base.contains('?') { '&' } else { '?' };
    match base.starts_with("ws") || console_type == ConsoleType::SpiceHtml5 {
        true => format!("{base}{separator}token={token}"),
        false => format!("{base}{separator}path=%3Ftoken%3D{token}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_nova_writes_them() {
        use ConsoleType::{Novnc, Serial, SpiceHtml5};
        for (kind, base, expected) in [
            (Novnc, "http://c:6080/vnc_auto.html", "http://c:6080/vnc_auto.html?path=%3Ftoken%3Dt"),
            (Serial, "ws://c:6083/", "ws://c:6083/?token=t"),
            (Serial, "http://c/serial.html", "http://c/serial.html?path=%3Ftoken%3Dt"),
            (Novnc, "https://c/x?a=b", "https://c/x?a=b&path=%3Ftoken%3Dt"),
            (SpiceHtml5, "http://c:6082/spice_auto.html", "http://c:6082/spice_auto.html?token=t"),
        ] {
            assert_eq!(access_url(kind, base, "t"), expected);
        }
    }
}
