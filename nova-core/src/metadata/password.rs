//! The password that a guest left for its owner, encrypted with the owner's key (nova/api/metadata/password.py): kept with the
//! server in four parts, as Nova does.

use std::collections::BTreeMap;

use super::tokens;

/// Parts: `password_0` to `password_3`.
const PARTS: usize = 4;
/// Characters of a part.
const PART: usize = 255;
/// The longest password, bytes.
pub const LONGEST_PASSWORD: usize = PARTS * PART;

fn key(part: usize) -> String {
    format!("password_{part}")
}

/// What a server's `system_metadata` has of it; empty: nothing.
pub fn kept_password(system_metadata: &BTreeMap<String, String>) -> String {
    (0..PARTS).filter_map(|part| system_metadata.get(&key(part))).map(String::as_str).collect()
}

/// Keeps it there in place of any other; an empty one is forgotten.
pub fn keep_password(system_metadata: &mut BTreeMap<String, String>, password: &str) {
    let mut rest = password.chars().peekable();
    for part in 0..PARTS {
        system_metadata.remove(&key(part));
        if rest.peek().is_some() {
            system_metadata.insert(key(part), rest.by_ref().take(PART).collect());
        }
    }
}

/// What came as a password, if it can be one: text, and not too long.
pub fn as_password(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok().filter(|text| text.len() <= LONGEST_PASSWORD)
}

/// Is it the path to which a guest brings its password?
pub fn takes_password(path: &str) -> bool {
    match tokens(path).as_deref() {
        Some(["openstack", version, "password"]) => super::openstack::has_password(version),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_in_parts_and_found_whole() {
        let mut kept = BTreeMap::from([("shelved_at".to_owned(), "then".to_owned())]);
        for text in ["x".repeat(LONGEST_PASSWORD), "ä".repeat(300), "short".into(), "a".repeat(255), String::new()] {
            keep_password(&mut kept, &text);
            assert_eq!(kept_password(&kept), text);
            assert!(kept.values().all(|part| (1..=255).contains(&part.chars().count())), "{kept:?}");
            assert_eq!(kept.len(), 1 + text.chars().count().div_ceil(255));
        }
    }

    #[test]
    fn only_text_of_that_length_is_one() {
        assert_eq!(as_password(&[b'x'; LONGEST_PASSWORD]).map(str::len), Some(1020));
        assert_eq!(as_password(&[b'x'; LONGEST_PASSWORD + 1]), None);
        assert_eq!(as_password(b"\xff"), None);
        assert_eq!(as_password(b""), Some(""));
    }

    #[test]
    fn it_is_brought_to_versions_that_have_it() {
        for path in ["/openstack/latest/password", "openstack//2013-04-04/password/", "/openstack/2025-04-04/password"]
        {
            assert!(takes_password(path), "{path}");
        }
        for path in
            ["/openstack/2012-08-10/password", "/openstack/2031-01-01/password", "/latest/password", "/password"]
        {
            assert!(!takes_password(path), "{path}");
        }
    }
}
