//! What a request is judged by before anybody is asked: where it believes to be, from which page it comes, what it shows.

use http::{HeaderMap, HeaderName, Method, header};

use super::ProxyOptions;

/// Longer than any token.
const LONGEST_TOKEN: usize = 128;
/// The cookie in which noVNC keeps the token of its address.
const TOKEN_COOKIE: &str = "token";

/// Why a websocket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no websocket of version 13 (RFC 6455, 4.2.1).
    NoWebsocket,
    /// It does not speak the subprotocol `binary`.
    Subprotocol,
    /// It names no host, several, or one that this proxy is not known by.
    Host,
    /// It comes from a page that may not open consoles, or does not say from which.
    Origin,
    /// It shows no token.
    Token,
}

/// What a client shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// From the address, or else from the cookie.
    pub(super) token: String,
    /// From the cookie of a session that began with that token.
    pub(super) resume: Option<String>,
    /// The key to be answered (`Sec-WebSocket-Key`).
    pub(super) key: String,
    /// It asked for the subprotocol `binary`.
    pub(super) binary: bool,
    /// The scheme of its page, if that is one of this proxy's own.
    pub(super) scheme: Option<&'static str>,
}

impl Shown {
    /// Is its page of the scheme at which that console was given out? One of the other may have been changed on its way.
    pub(super) fn fits(&self, access_url_base: &str) -> bool {
        self.scheme.is_none_or(|scheme| scheme == page_scheme(access_url_base))
    }
}

/// The scheme of the page from which such an address is opened.
pub(super) fn page_scheme(url: &str) -> &'static str {
    if url.starts_with("https:") || url.starts_with("wss:") { "https" } else { "http" }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("resume", &self.resume.is_some()).finish_non_exhaustive()
    }
}

/// Does it want to be a websocket?
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    has_word(headers, &header::UPGRADE, "websocket")
}

/// Judges a websocket's request.
pub(super) fn judge(method: &Method, query: &str, headers: &HeaderMap, options: &ProxyOptions) -> Result<Shown, Wrong> {
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).ok_or(Wrong::NoWebsocket)?;
    let version = single(headers, &header::SEC_WEBSOCKET_VERSION).ok_or(Wrong::NoWebsocket)?;
    if method != Method::GET || version != "13" || !has_word(headers, &header::CONNECTION, "upgrade") || key.len() != 24
    {
        return Err(Wrong::NoWebsocket);
    }
    let protocols = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let binary = has_word(headers, &header::SEC_WEBSOCKET_PROTOCOL, "binary");
    if protocols && !binary {
        return Err(Wrong::Subprotocol);
    }
    let host = host(headers, options).ok_or(Wrong::Host)?;
    let scheme = origin(headers, &host, options).ok_or(Wrong::Origin)?;
    let token = token(query, headers).ok_or(Wrong::Token)?;
    let resume = cookie(headers, &resume_cookie(&token));
    Ok(Shown { token, resume, key: key.to_owned(), binary, scheme })
}

/// The one value of a header; `None` where there is none, several, or one that is no text.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// The host that the request names, if this proxy is known by it: otherwise a page of somebody else's, whose name leads
/// here, could speak for its visitors (DNS rebinding).
pub(super) fn host(headers: &HeaderMap, options: &ProxyOptions) -> Option<String> {
    let named = single(headers, &header::HOST)?.to_ascii_lowercase();
    let (name, _) = split_port(&named)?;
    options.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)).then_some(named)
}

/// A host and its port, if it names one. A host may be in brackets.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let clean = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None if after.is_empty() => None,
            None => return None,
        };
        return Some((address, port));
    }
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (authority, None),
    };
    (!name.is_empty() && name.chars().all(clean)).then_some((name, port))
}

/// `None`: it is neither a page of this proxy itself nor one that the operator allows. The scheme of the former.
fn origin(headers: &HeaderMap, host: &str, options: &ProxyOptions) -> Option<Option<&'static str>> {
    if !headers.contains_key(header::ORIGIN) {
        return (!options.require_origin).then_some(None);
    }
    let origin = single(headers, &header::ORIGIN)?.to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://")?;
    let (scheme, default_port) = match scheme {
        "http" => ("http", 80),
        "https" => ("https", 443),
        _ => return None,
    };
    let (name, port) = split_port(authority)?;
    let allowed = |known: &String| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(&origin);
    if options.allowed_origins.iter().any(allowed) {
        return Some(None);
    }
    let (own, own_port) = split_port(host)?;
    let same = own == name && own_port.unwrap_or(default_port) == port.unwrap_or(default_port);
    (same && options.schemes.contains(scheme)).then_some(Some(scheme))
}

/// From the query, as noVNC and Nova's addresses have it, or else from the cookie.
fn token(query: &str, headers: &HeaderMap) -> Option<String> {
    let mut in_query = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == TOKEN_COOKIE);
    let token = match in_query.next() {
        // Two tokens: whoever put the second there does not mean the first.
        Some(_) if in_query.next().is_some() => return None,
        Some((_, token)) if !token.is_empty() => token.into_owned(),
        _ => cookie(headers, TOKEN_COOKIE)?,
    };
    (token.len() <= LONGEST_TOKEN && token.chars().all(|c| c.is_ascii_graphic())).then_some(token)
}

/// The value of a cookie (RFC 6265, 5.4), if it is there once.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"'));
    let value = found.next()?;
    let good = found.next().is_none() && !value.is_empty() && value.len() <= LONGEST_TOKEN;
    good.then(|| value.to_owned())
}

/// The cookie by which a session that began with that token is gone on with. Two consoles in one browser have two.
pub(super) fn resume_cookie(token: &str) -> String {
    let hash = nova_core::console::token_hash(&format!("resume {token}"));
    format!("nova_console_{}", hash.get(..16).unwrap_or(&hash))
}

#[cfg(test)]
mod tests;
