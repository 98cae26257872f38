//! Items of a host's network by their digests: what a host has and the books say is compared without sending either.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{HostNetwork, ItemKey};
use crate::ids::PortId;

/// The text was not the name of an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no item of a host's network")]
pub struct InvalidItemKey(pub String);

/// `segment:<id>`, `group:<id>`, `router:<id>`.
impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(id) => write!(f, "segment:{id}"),
            Self::Group(id) => write!(f, "group:{id}"),
            Self::Router(id) => write!(f, "router:{id}"),
        }
    }
}

impl FromStr for ItemKey {
    type Err = InvalidItemKey;

    fn from_str(text: &str) -> Result<Self, InvalidItemKey> {
        let wrong = || InvalidItemKey(text.chars().take(64).collect());
        let (kind, id) = text.split_once(':').ok_or_else(wrong)?;
        let key = match kind {
            "segment" => id.parse().ok().map(Self::Segment),
            "group" => id.parse().ok().map(Self::Group),
            "router" => id.parse().ok().map(Self::Router),
            _ => None,
        };
        key.ok_or_else(wrong)
    }
}

/// The digest of an item: equal for equal content, and nobody finds other content with the same. (Users decide about much
/// of it: were two contents of one digest to be found, a host would keep what is no longer to be.)
pub fn item_digest(item: &impl Serialize) -> String {
    let text = serde_json::to_vec(item).unwrap_or_default();
    let digest = Sha256::digest(&text);
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Under which name a host tells a port's digest.
pub fn port_key(id: PortId) -> String {
    format!("port:{id}")
}

impl HostNetwork {
    /// Is the item there?
    pub fn has(&self, key: ItemKey) -> bool {
        match key {
            ItemKey::Segment(id) => self.segments.contains_key(&id),
            ItemKey::Group(id) => self.groups.contains_key(&id),
            ItemKey::Router(id) => self.routers.contains_key(&id),
        }
    }

    /// Each port's digest by its name, `port:<id>`: what is in force of a single one.
    pub fn port_digests(&self) -> BTreeMap<String, String> {
        let ports = self.segments.values().flat_map(|segment| &segment.ports);
        ports.map(|(id, port)| (port_key(*id), item_digest(port))).collect()
    }

    /// Each item's digest by its name.
    pub fn digests(&self) -> BTreeMap<String, String> {
        let segments = self.segments.iter().map(|(id, item)| (ItemKey::Segment(*id), item_digest(item)));
        let groups = self.groups.iter().map(|(id, item)| (ItemKey::Group(*id), item_digest(item)));
        let routers = self.routers.iter().map(|(id, item)| (ItemKey::Router(*id), item_digest(item)));
        segments.chain(groups).chain(routers).map(|(key, digest)| (key.to_string(), digest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Group;

    #[test]
    fn names_of_items_are_read_as_they_are_written() {
        let id = "a01b23c4-d5e6-47f8-9a0b-c1d2e3f4a5b6";
        let keys = [
            ItemKey::Segment(id.parse().unwrap()),
            ItemKey::Group(id.parse().unwrap()),
            ItemKey::Router(id.parse().unwrap()),
        ];
        for key in keys {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        for wrong in ["", "segment", "segment:", "segment:7", &format!("port:{id}"), id] {
            assert!(wrong.parse::<ItemKey>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn digests_follow_the_content() {
        let one = Group::default();
        let other = Group { stateful: true, ..Group::default() };
        assert_eq!(item_digest(&one), item_digest(&one.clone()));
        assert_ne!(item_digest(&one), item_digest(&other));
        assert_eq!(item_digest(&one).len(), 32);
    }
}
